"""Train a translator: cGAN + 100·L1 as in Yang et al. 2020 (Methods, Training), or parts of it.

The defaults are the paper's: U-Net-256 with 64 filters on single axial slices resized to 256×256, 70×70 PatchGAN,
Adam 2e-4 with β1 0.5, batch 1, D then G, D's loss halved, jitter and flips. Every run can be killed and resumed; the
resumed run gives bit-identical weights.

Several targets may be trained at once (one output channel each); a subject need not have all of them.

Example:
    python Resources/Training/train_translator.py --data DATA --source T1 --targets T2 --train 'ixi/*' \
        --steps 100000 --output runs/T1-T2
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# Else torch's threads spin while they wait, which is slow beside any other program.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from augmentation import affine_and_flip, jitter_and_flip, vary_source_intensity
from training_data import Pair, load_pairs

from IMTCore.networks import PatchDiscriminator, UNetGenerator, initialise
from IMTCore.slicing import SlicingSpec

# In tanh's range: below, a target pixel is background, and a source pixel air.
BACKGROUND, AIR = -0.99, -0.9
# Augmentations that also turn, scale and shift, by how much they change the source's intensities.
INTENSITY_STRENGTH = {"mild": 0.3, "strong": 1.0}


@dataclass(frozen=True)
class Config:
    """One experiment; saved as JSON beside its checkpoints. Defaults: Yang et al. 2020."""

    data: str
    source: str
    targets: tuple[str, ...]
    train: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    steps: int = 100_000
    batch: int = 1
    filters: int = 64
    depth: int = 8
    dropout_blocks: int = 3
    plane: str = "axial"
    mode: str = "paper"
    size: int = 256
    spacing_mm: float = 1.0
    neighbours_mm: tuple[float, ...] = (0.0,)
    l1: float = 100.0
    adversarial: float = 1.0
    ssim: float = 0.0
    learning_rate: float = 2e-4
    beta1: float = 0.5
    schedule: str = "constant"
    ema: float = 0.0
    augmentation: str = "jitter"
    precision: str = "fp32"
    weights: tuple[str, ...] = ()
    seed: int = 0
    checkpoint_every: int = 500
    initial: str = ""

    @property
    def slicing(self) -> SlicingSpec:
        """The slicing that the trained network will want."""
        return SlicingSpec(self.plane, self.mode, (self.size, self.size), self.spacing_mm, self.neighbours_mm)

    def generator(self) -> UNetGenerator:
        """A new generator of this experiment."""
        return UNetGenerator(
            len(self.neighbours_mm), len(self.targets), self.filters, self.depth, dropout_blocks=self.dropout_blocks
        )


def local_ssim(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """SSIM map (uniform window, data range 2) of (n, c, h, w) images in [-1, 1]; (Wang et al. 2004, Eq. 13)."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_a, mean_b = F.avg_pool2d(a, window, 1), F.avg_pool2d(b, window, 1)
    var_a = F.avg_pool2d(a * a, window, 1) - mean_a**2
    var_b = F.avg_pool2d(b * b, window, 1) - mean_b**2
    cov = F.avg_pool2d(a * b, window, 1) - mean_a * mean_b
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def was_acquired(source: Tensor, target: Tensor) -> Tensor:
    """1 where the target may be learned, 0 where it is background amid the source's head, (n, targets, h, w).

    There the field of view was cut off, or the two brain masks differ: learned, it would cut heads.
    """
    head = source[:, source.shape[1] // 2, None] > AIR
    return 1.0 - (head & (target < BACKGROUND)).float()


class Sampler:
    """Draws augmented batches, each from one volume; its only state is its random generator."""

    def __init__(self, pairs: list[Pair], config: Config) -> None:
        self.pairs, self.config = pairs, config
        self.random = np.random.Generator(np.random.PCG64(config.seed))
        factors = dict(entry.split("=") for entry in config.weights)
        weights = np.array([len(p.slices) * float(factors.get(p.name.split("/")[0], 1)) for p in pairs], dtype=float)
        self.probabilities = weights / weights.sum()

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Source (n, channels, h, w), target (n, targets, h, w), and which targets count (n, targets, 1, 1)."""
        config, random = self.config, self.random
        pair = self.pairs[int(random.choice(len(self.pairs), p=self.probabilities))]
        slices = random.choice(pair.slices, size=min(config.batch, len(pair.slices)), replace=False)
        source = pair.source.batch([int(k) for k in slices])
        missing = np.full(source.shape[:1] + source.shape[2:], -1, np.float32)
        targets = [pair.targets[t][slices] if t in pair.targets else missing for t in config.targets]
        counts = [pair.usable[t][slices] if t in pair.usable else np.zeros(len(slices), bool) for t in config.targets]
        images = torch.from_numpy(np.concatenate([source, np.stack(targets, 1).astype(np.float32)], axis=1))
        if config.augmentation == "jitter":
            images = jitter_and_flip(images, random)
        elif config.augmentation in INTENSITY_STRENGTH:
            images = affine_and_flip(images, random)
        channels = source.shape[1]
        source_t, target_t = images[:, :channels], images[:, channels:]
        if config.augmentation in INTENSITY_STRENGTH:
            source_t = vary_source_intensity(source_t, random, INTENSITY_STRENGTH[config.augmentation])
        return source_t, target_t, torch.from_numpy(np.stack(counts, 1).astype(np.float32))[..., None, None]


class Trainer:
    """The two networks, their optimisers and the step that alternates them."""

    def __init__(self, config: Config, pairs: list[Pair]) -> None:
        torch.manual_seed(config.seed)
        self.config, self.sampler = config, Sampler(pairs, config)
        self.generator = config.generator()
        initialise(self.generator)
        self.average = config.generator().requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator = PatchDiscriminator(len(config.neighbours_mm) + len(config.targets), config.filters)
        initialise(self.discriminator)
        betas = (config.beta1, 0.999)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), config.learning_rate, betas)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), config.learning_rate, betas)
        self.step = 0

    def learning_rate(self) -> float:
        """The rate of this step under the schedule: constant, linear (from half-way to 0) or cosine (to 0)."""
        done = self.step / self.config.steps
        factor = {"constant": 1.0, "linear": min(1.0, 2 * (1 - done)), "cosine": 0.5 + 0.5 * np.cos(np.pi * done)}
        return self.config.learning_rate * float(factor[self.config.schedule])

    def run_step(self) -> dict[str, float]:
        """One alternation (paper, Training): fix G and optimise D, then fix D and optimise G."""
        config = self.config
        for adam in (self.adam_g, self.adam_d):
            adam.param_groups[0]["lr"] = self.learning_rate()
        source, target, counts = self.sampler.draw()
        losses: dict[str, float] = {}
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            fake = self.generator(source)
        fake = fake.float()
        counts = counts * was_acquired(source, target)
        # A missing target counts as translated perfectly: it teaches the generator nothing.
        fake_seen = fake * counts + target * (1 - counts)
        if config.adversarial > 0:
            real_logits = self._judge(source, target)
            fake_logits = self._judge(source, fake_seen.detach())
            loss_d = 0.5 * (
                F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
                + F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
            )
            self.adam_d.zero_grad()
            loss_d.backward()
            self.adam_d.step()
            losses["D"] = loss_d.item()
        loss_l1 = (fake_seen - target).abs().mean() / counts.mean().clamp(min=1e-3)
        loss_g = config.l1 * loss_l1
        losses["L1"] = loss_l1.item()
        if config.adversarial > 0:
            self.discriminator.requires_grad_(False)
            logits = self._judge(source, fake_seen)
            loss_gan = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            loss_g = loss_g + config.adversarial * loss_gan
            losses["GAN"] = loss_gan.item()
        if config.ssim > 0:
            loss_ssim = (1 - local_ssim(fake_seen, target)).mean() / counts.mean().clamp(min=1e-3)
            loss_g = loss_g + config.ssim * loss_ssim
            losses["SSIM"] = 1 - loss_ssim.item()
        self.adam_g.zero_grad()
        loss_g.backward()
        self.adam_g.step()
        self.discriminator.requires_grad_(True)
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        return losses

    def _judge(self, source: Tensor, image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits = self.discriminator(source, image)
        return logits.float()

    def state(self) -> dict:
        """All that a bit-identical resume needs."""
        return {
            "config": asdict(self.config),
            "step": self.step,
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "adam_g": self.adam_g.state_dict(),
            "adam_d": self.adam_d.state_dict(),
            "torch_random": torch.get_rng_state(),
            "numpy_random": json.dumps(self.sampler.random.bit_generator.state),
        }

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same experiment."""
        state = torch.load(path, weights_only=True)
        mine = asdict(self.config)
        differing = [
            key
            for key in mine
            if key not in ("checkpoint_every", "data") and _plain(state["config"].get(key)) != _plain(mine[key])
        ]
        if differing:
            sys.exit(f"{path} is of another experiment (differs in {', '.join(differing)}). Choose another --output.")
        self.step = state["step"]
        for name in ("generator", "average", "discriminator", "adam_g", "adam_d"):
            getattr(self, name).load_state_dict(state[name])
        torch.set_rng_state(state["torch_random"])
        self.sampler.random.bit_generator.state = json.loads(state["numpy_random"])


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple | list) else value


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the trainer's state, whole or not at all."""
    temporary = path.with_suffix(".part")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, path)


def parse(arguments: list[str] | None = None) -> tuple[Config, Path, int | None]:
    """The experiment, its output folder, and after how many steps to stop early (for tests and time-slices)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Config("", "", (), ())
    parser.add_argument("--data", required=True, help="folder with <dataset>/<subject>/<modality>.nii.gz")
    parser.add_argument("--source", required=True)
    parser.add_argument("--targets", nargs="+", required=True)
    parser.add_argument("--train", nargs="+", required=True, help="patterns of <dataset>/<subject>")
    parser.add_argument("--exclude", nargs="*", default=[], help="patterns of subjects held out")
    parser.add_argument("--neighbours-mm", nargs="+", type=float, default=list(defaults.neighbours_mm))
    parser.add_argument("--weights", nargs="*", default=[], help="DATASET=FACTOR: how often a dataset is drawn")
    for name, choices in (
        ("mode", ["paper", "spatial"]),
        ("plane", ["axial", "coronal", "sagittal"]),
        ("schedule", ["constant", "linear", "cosine"]),
        ("augmentation", ["none", "jitter", "mild", "strong"]),
        ("precision", ["fp32", "bf16"]),
    ):
        parser.add_argument(f"--{name}", choices=choices, default=getattr(defaults, name))
    for name in ("steps", "batch", "filters", "depth", "dropout_blocks", "size", "seed", "checkpoint_every"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(defaults, name))
    for name in ("spacing_mm", "l1", "adversarial", "ssim", "learning_rate", "beta1", "ema"):
        parser.add_argument("--" + name.replace("_", "-"), type=float, default=getattr(defaults, name))
    parser.add_argument("--initial", default="", help="checkpoint whose generator to start from")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--stop-at", type=int, default=None, help="stop after this step, to be resumed later")
    values = vars(parser.parse_args(arguments))
    output, stop_at = values.pop("output"), values.pop("stop_at")
    for name in ("targets", "train", "exclude", "neighbours_mm", "weights"):
        values[name] = tuple(values[name])
    return Config(**values), output, stop_at


def main(arguments: list[str] | None = None) -> None:
    """Train or resume one experiment."""
    config, output, stop_at = parse(arguments)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.pt"
    root = Path(config.data)
    stride = 2**config.depth
    pairs = load_pairs(
        root, list(config.train), list(config.exclude), config.source, list(config.targets), config.slicing, stride
    )
    if not pairs:
        sys.exit(f"No training subjects with {config.source} and {' or '.join(config.targets)} in {root}.")
    trainer = Trainer(config, pairs)
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"resumed at step {trainer.step}", flush=True)
    elif config.initial:
        state = torch.load(config.initial, weights_only=True)["average"]
        trainer.generator.load_state_dict(state)
        trainer.average.load_state_dict(state)
    record = {**asdict(config), "subjects": [pair.name for pair in pairs], "command": sys.argv}
    (output / "config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{len(pairs)} subjects, {sum(len(p.slices) for p in pairs)} slices", flush=True)
    start, first, sums = time.perf_counter(), trainer.step, {}
    last = min(config.steps, stop_at or config.steps)
    while trainer.step < last:
        for name, value in trainer.run_step().items():
            sums.setdefault(name, []).append(value)
        if trainer.step % config.checkpoint_every == 0 or trainer.step == last:
            rate = (trainer.step - first) / (time.perf_counter() - start)
            report = {
                "step": trainer.step,
                "steps_per_s": round(rate, 2),
                **{n: round(float(np.mean(v)), 4) for n, v in sums.items()},
            }
            sums = {}
            print(json.dumps(report), flush=True)
            with open(output / "log.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(report) + "\n")
            save_checkpoint(trainer, checkpoint)


if __name__ == "__main__":
    main()
