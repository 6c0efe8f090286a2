"""Steps per second and memory of training against a plain loop, as ratios from one run.

Baseline: a loop in the style of the reference pix2pix training script: a DataLoader in the same process opens an image
file of source and target side by side each step, resizes, crops and flips it; then one step in fp32 with batch
normalisation, Adam as PyTorch makes it, three passes of the discriminator, and losses read each step. Against it, the
steps of `train_translator.py` on the same subjects. Each measurement is a process of its own, in turn with the others.

Data: seeded heads of 240×240×155 voxels, as volumes for the trainer and as image files for the baseline.

    python Testing/Benchmarks/benchmark_training.py [--device cuda] [--output table.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "Resources" / "Training"), str(ROOT / "IMTTranslate"), str(ROOT / "Testing" / "Benchmarks")]

SUBJECTS = 2
# What is trained: filters, depth, and edge of a slice in pixels.
NETWORKS = {"U-Net-256, 64 filters": (64, 8, 256), "narrow: 16 filters, 128 pixels": (16, 7, 128)}
WAYS = {"plain loop, fp32": ("plain", "fp32"), "trainer, fp32": ("trainer", "fp32"), "trainer, bf16": ("trainer", "bf16")}


def make_data(folder: Path) -> None:
    """Write the volumes, and the slices with a head as 8-bit image files, source and target side by side."""
    import numpy as np
    from benchmark_translate import make_input
    from PIL import Image

    from IMTCore.volume_io import read_volume, write_volume

    (folder / "files").mkdir(parents=True)
    for n in range(SUBJECTS):
        subject = folder / "set" / str(n)
        subject.mkdir(parents=True)
        make_input(subject / "T1.nii.gz")
        t1 = read_volume(subject / "T1.nii.gz")
        t2 = t1.with_array(np.where(t1.array > 0, 255 - t1.array, 0).astype(np.int16))
        write_volume(subject / "T2.nii.gz", t2)
        for k in np.flatnonzero(t1.array.max(axis=(1, 2)) > 0):
            pair = np.concatenate([t1.array[k], t2.array[k]], axis=1)
            Image.fromarray(np.clip(pair, 0, 255).astype(np.uint8)).save(folder / "files" / f"{n}-{k:03d}.png")


def plain_loop(data: Path, filters: int, depth: int, size: int, device: str, steps: int) -> float:
    """Seconds of `steps` steps of the baseline, after two more."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from IMTCore.networks import PatchDiscriminator, UNetGenerator, initialise

    random = np.random.default_rng(0)

    class Files(Dataset):
        def __init__(self) -> None:
            self.paths = sorted((data / "files").glob("*.png"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            image = Image.open(self.paths[index])
            width, height = image.size
            large = round(size * 286 / 256)
            left, top = (int(random.integers(0, large - size + 1)) for _ in range(2))
            flip = random.random() < 0.5
            pair = []
            for box in ((0, 0, width // 2, height), (width // 2, 0, width, height)):
                part = np.asarray(image.crop(box).resize((large, large), Image.Resampling.BICUBIC), np.float32)
                part = torch.from_numpy(part[top : top + size, left : left + size] / 127.5 - 1)[None]
                pair.append(part.flip(-1) if flip else part)
            return pair[0], pair[1]

    torch.manual_seed(0)
    generator = UNetGenerator(1, 1, filters, depth, norm="batch").to(device).train()
    discriminator = PatchDiscriminator(2, filters, norm="batch").to(device).train()
    for network in (generator, discriminator):
        initialise(network)
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (generator, discriminator))
    entropy, l1 = torch.nn.BCEWithLogitsLoss(), torch.nn.L1Loss()

    def judge(given: torch.Tensor, image: torch.Tensor, real: bool) -> torch.Tensor:
        logits = discriminator(given, image)
        return entropy(logits, torch.full_like(logits, float(real)))

    def step(given: torch.Tensor, wanted: torch.Tensor) -> list[float]:
        given, wanted = given.to(device), wanted.to(device)
        made = generator(given)
        discriminator.requires_grad_(True)
        adam_d.zero_grad()
        loss_d = 0.5 * (judge(given, made.detach(), False) + judge(given, wanted, True))
        loss_d.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        adam_g.zero_grad()
        loss_gan, loss_l1 = judge(given, made, True), 100 * l1(made, wanted)
        (loss_gan + loss_l1).backward()
        adam_g.step()
        return [loss.item() for loss in (loss_d, loss_gan, loss_l1)]

    loader = DataLoader(Files(), batch_size=1, shuffle=True)
    done = start = 0
    while True:
        for given, wanted in loader:
            if done == 2:
                start = time.perf_counter()
            if done == steps + 2:
                return time.perf_counter() - start
            step(given, wanted)
            done += 1


def trainer_loop(data: Path, filters: int, depth: int, size: int, precision: str, device: str, steps: int) -> float:
    """Seconds of `steps` steps of the trainer, after two more."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as train_translator.py sets it
    import torch
    from experiment import Config
    from processes import Processes
    from threads import choose_threads
    from trainer import Trainer
    from training_data import load_pairs

    config = Config(
        str(data), "T1", ("T2",), ("set/*",), filters=filters, depth=depth, size=size, precision=precision, dropout_blocks=3
    )
    pairs = load_pairs(data, config.train, [], "T1", ["T2"], config.slicings, config.stride)
    if device == "cpu":  # as train_translator.py does
        torch.set_num_threads(choose_threads(config.generator(), (1, 1, size, size)))
    trainer = Trainer(config, pairs, Processes(torch.device(device)), prefetch=2)
    for _ in range(2):
        trainer.run_step()
    start = time.perf_counter()
    for _ in range(steps):
        trainer.run_step()
    seconds = time.perf_counter() - start
    trainer.close()
    return seconds


def measure(data: Path, network: str, way: str, device: str, steps: int) -> tuple[float, float]:
    """Steps per second, and the process's peak memory in GB, in a process of its own."""
    request = json.dumps([str(data), network, way, device, steps])
    answer = subprocess.run([sys.executable, __file__, "--measure", request], check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, peak = json.loads(answer.splitlines()[-1])
    return steps / seconds, peak


def measured_process(request: str) -> None:
    """What `measure` starts: print seconds and peak memory."""
    name, network, way, device, steps = json.loads(request)
    kind, precision = WAYS[way]
    if kind == "plain":
        seconds = plain_loop(Path(name), *NETWORKS[network], device, steps)
    else:
        seconds = trainer_loop(Path(name), *NETWORKS[network], precision, device, steps)
    import torch
    from training_run import peak_memory

    print(json.dumps([seconds, peak_memory(torch.device(device)) / 1e9]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="aim of each measurement")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.measure:
        measured_process(values.measure)
        return
    results: dict[tuple[str, str], list[tuple[float, float]]] = {(n, w): [] for n in NETWORKS for w in WAYS}
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name))
        steps = {n: max(3, round(values.seconds * measure(Path(name), n, "plain loop, fp32", values.device, 3)[0])) for n in NETWORKS}
        for _ in range(values.runs):  # in turn, so that a drifting machine does not favour one of them
            for (network, way), measured in results.items():
                measured.append(measure(Path(name), network, way, values.device, steps[network]))
    import torch

    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, device {values.device}"
    memory = "GPU memory" if values.device.startswith("cuda") else "memory of the process"
    what = f"cGAN + 100 L1, batch 1, {SUBJECTS} subjects of 240×240×155 voxels"
    runs = f"medians of {values.runs} runs of about {values.seconds:.0f} s"
    lines = [
        f"{what}; {runs}; {machine}, torch {torch.__version__}, Python {platform.python_version()}.",
        "",
        f"| network | way | steps/s | × plain loop | peak {memory} (GB) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for network in NETWORKS:
        base = statistics.median(rate for rate, _ in results[network, "plain loop, fp32"])
        for way in WAYS:
            rate = statistics.median(rate for rate, _ in results[network, way])
            peak = max(peak for _, peak in results[network, way])
            lines.append(f"| {network} | {way} | {rate:.2f} | {rate / base:.2f} | {peak:.2f} |")
    print("\n".join(lines))
    if values.output:
        values.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
