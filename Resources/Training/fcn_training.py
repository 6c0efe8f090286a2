"""Training of an FCN on slices with labels: stage by stage, exactly resumable (Yang et al. 2020, Segmentation)."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from datasets import Subject, read_modalities

from IMTCore.errors import BadInput, OutputFailure
from IMTCore.fcn import FCN, load_previous_stage, parameter_groups
from IMTCore.files import whole_file
from IMTCore.preparation import PreparedVolume, prepare
from IMTCore.slicing import SlicingSpec
from IMTCore.vgg_weights import initial_weights
from IMTCore.volume import Volume

STRIDE = 32
# Label map → its classes with their codes. Necrosis, oedema, non-enhancing and enhancing tumour are one class, tumour
# (Yang et al. 2020, Datasets); the gliomas of BraTS 2013 to 2023 code them as 1 to 4.
LABEL_CLASSES: dict[str, tuple[str, ...]] = {
    "tissues": ("csf=1", "gm=2", "wm=3"),
    "lesions": ("lesion=1",),
    "tumour": ("tumour=1,2,3,4",),
}


@dataclass(frozen=True)
class Config:
    """One scorer. Defaults: Yang et al. 2020 (Segmentation) and Long et al. 2015, on slices as their generator's."""

    data: str
    target: str
    labels: str
    classes: tuple[str, ...]
    train: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    layout: str = "folders"
    plane: str = "axial"
    mode: str = "paper"
    size: int = 256
    spacing_mm: float = 1.0
    width: float = 1.0
    padding: int = 100
    skip_scaling: bool = False
    dropout: float = 0.5
    vgg: str = ""
    vgg_scaling: str = "torchvision"
    stages: tuple[str, ...] = ("32s", "16s", "8s")
    steps: int = 100_000
    batch: int = 1
    optimiser: str = "sgd"
    learning_rate: float = 1e-4
    momentum: float = 0.99
    weight_decay: float = 5e-4
    class_weights: str = "none"
    seed: int = 0

    @property
    def slicing(self) -> SlicingSpec:
        """How slices are cut: single slices, as the paper's."""
        return SlicingSpec(self.plane, self.mode, (self.size, self.size), self.spacing_mm)

    @property
    def names(self) -> list[str]:
        """The classes' names, from class 1 on; class 0 is the background."""
        return [entry.partition("=")[0] for entry in self.classes]

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return self.steps * len(self.stages)

    def network(self, variant: str) -> FCN:
        """A new network of this experiment, for one channel."""
        scaling = self.vgg_scaling if self.vgg else "none"
        return FCN(len(self.classes) + 1, 1, variant, self.width, self.padding, self.skip_scaling, scaling, self.dropout)


def class_map(labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """A label map's codes merged into classes (`NAME=CODE,CODE`), counted from 1; uint8, other codes become 0."""
    merged = np.zeros(labels.shape, np.uint8)
    for number, entry in enumerate(classes, start=1):
        codes = [int(code) for code in entry.partition("=")[2].split(",")]
        merged[np.isin(labels, codes)] = number
    return merged


def read_labelled(subject: Subject, config: Config) -> tuple[Volume, PreparedVolume, np.ndarray]:
    """A subject's target image as read and as slices, and its classes [k, j, i] in the slices' orientation, uint8.

    Raises:
        BadInput: image or label map missing, unreadable, without contrast or not on one grid; names the subject.
    """
    volumes = read_modalities(subject, [config.target], [config.labels])
    image = volumes[config.target]
    try:
        prepared = prepare(image, config.slicing, STRIDE)
    except BadInput as error:
        raise BadInput(f"{image.name}: {error}") from error
    return image, prepared, class_map(prepared.axes.apply(volumes[config.labels].array), config.classes)


@dataclass
class Example:
    """One subject's slices to learn from.

    Attributes:
        name: `<dataset>/<subject>`.
        images: [n, rows, columns] float16 in [-1, 1], the slices with foreground.
        classes: [n, rows, columns] uint8, 0 where there is background or padding.
    """

    name: str
    images: np.ndarray
    classes: np.ndarray


def load_example(subject: Subject, config: Config) -> Example:
    """Read a subject; on the network's grid each pixel has the class that fills most of it. Errors: `read_labelled`."""
    _, prepared, classes = read_labelled(subject, config)
    filled = np.flatnonzero(prepared.filled)
    best = np.zeros((len(filled), *prepared.grid.shape), np.uint8)
    # Twice a share less 1, as all images on the grid; the background's share is what the classes leave.
    shares = [prepared.grid.to_network((classes[filled] == c).astype(np.float32)) for c in range(1, len(config.classes) + 1)]
    most = 1 - sum(share + 1 for share in shares)
    for number, share in enumerate(shares, start=1):
        best[share > most] = number
        most = np.maximum(most, share)
    return Example(subject.name, prepared.images[filled].astype(np.float16), best)


def class_weights(examples: list[Example], config: Config) -> torch.Tensor | None:
    """None, or by "median" the classes' median share of the pixels over their own (Eigen and Fergus, ICCV 2015)."""
    counts = sum(np.bincount(e.classes.ravel(), minlength=len(config.classes) + 1) for e in examples).astype(float)
    absent = [name for name, count in zip(config.names, counts[1:], strict=True) if count == 0]
    if absent:
        sys.exit(f"No training subject has a pixel of {', '.join(absent)} in its {config.labels}: check --labels and --classes.")
    if config.class_weights == "none":
        return None
    return torch.tensor(np.median(counts) / counts, dtype=torch.float32)


class Trainer:
    """A network, its optimiser, and the step; the later stages start from the earlier ones."""

    def __init__(self, config: Config, examples: list[Example], device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.random = np.random.Generator(np.random.PCG64(config.seed))
        self.config, self.examples, self.device = config, examples, device
        weights = class_weights(examples, config)
        self.weights = None if weights is None else weights.to(device)
        slices = np.array([len(e.images) for e in examples], dtype=float)
        self.probabilities = slices / slices.sum()
        self.step, self.initial = 0, "random"
        self._begin(config.stages[0])

    def start(self) -> None:
        """Initial weights: VGG-16's from the config's file, or random ones, said aloud. BadModel: as `load_vgg`."""
        path = Path(self.config.vgg) if self.config.vgg else None
        self.initial = initial_weights(self.network, path, lambda text: print(text, flush=True))

    def _begin(self, variant: str, previous: FCN | None = None) -> None:
        network = self.config.network(variant)
        if previous is not None:
            load_previous_stage(network, previous.cpu())
        self.network = network.to(self.device).train()
        groups = parameter_groups(self.network, self.config.learning_rate, self.config.weight_decay)
        if self.config.optimiser == "sgd":
            self.optimiser: torch.optim.Optimizer = torch.optim.SGD(groups, momentum=self.config.momentum)
        else:
            self.optimiser = torch.optim.Adam(groups)

    def run_step(self) -> dict[str, float]:
        """One batch, all of one subject: the mean cross-entropy over its pixels, weighted by class if so wished."""
        example = self.examples[int(self.random.choice(len(self.examples), p=self.probabilities))]
        chosen = self.random.choice(len(example.images), min(self.config.batch, len(example.images)), replace=False)
        images = torch.from_numpy(example.images[chosen].astype(np.float32))[:, None].to(self.device)
        truth = torch.from_numpy(example.classes[chosen].astype(np.int64)).to(self.device)
        logits = self.network(images)
        loss = F.cross_entropy(logits, truth, self.weights)
        if not torch.isfinite(loss):
            sys.exit(
                f"The loss is {loss.item()} at step {self.step + 1} ({example.name}): nothing was saved since the last checkpoint. "
                "Lower --learning-rate and choose another --output."
            )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        stage, within = divmod(self.step, self.config.steps)
        if within == 0 and stage < len(self.config.stages):
            self._begin(self.config.stages[stage], self.network)
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == truth).float().mean().item()}

    def state(self) -> dict:
        """All that a bit-identical resume needs."""
        return {
            "config": asdict(self.config),
            "subjects": [e.name for e in self.examples],
            "step": self.step,
            "initial": self.initial,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "torch_random": torch.get_rng_state(),
            "numpy_random": json.dumps(self.random.bit_generator.state),
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same experiment."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            sys.exit(f"{path} cannot be read ({error}). Choose another --output, or delete it to train anew.")
        mine, theirs = _plain(asdict(self.config)), _plain(state.get("config", {}))
        differing = [key for key in mine if key != "data" and theirs.get(key) != mine[key]]
        if state.get("subjects") != [e.name for e in self.examples]:
            differing.append("training subjects")
        if differing:
            sys.exit(f"{path} is of another experiment (differs in {', '.join(differing)}). Choose another --output.")
        self.step, self.initial = state["step"], state["initial"]
        self._begin(self.config.stages[min(self.step // self.config.steps, len(self.config.stages) - 1)])
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_random"])
        self.random.bit_generator.state = json.loads(state["numpy_random"])


def _plain(values: dict) -> dict:
    return {key: list(value) if isinstance(value, tuple | list) else value for key, value in values.items()}


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the trainer's state, whole or not at all. OutputFailure: the disk is full or not writable."""
    with whole_file(path) as temporary:
        try:
            torch.save(trainer.state(), temporary)
        except RuntimeError as error:  # torch's writer reports a full disk so
            raise OutputFailure(f"Cannot write {path}: {error}. Free some space; the last checkpoint is unharmed.") from error


def train(trainer: Trainer, output: Path, checkpoint_every: int, stop_at: int | None = None) -> None:
    """Run to the end of the last stage (or to step `stop_at`), with a line and a checkpoint at intervals.

    Raises:
        OutputFailure: if the checkpoint or the log cannot be written; the last checkpoint stays.
    """
    start, first = time.perf_counter(), trainer.step
    seen: dict[str, list[float]] = {}
    last = min(trainer.config.total_steps, stop_at or trainer.config.total_steps)
    while trainer.step < last:
        stage = trainer.network.variant
        for name, value in trainer.run_step().items():
            seen.setdefault(name, []).append(value)
        if trainer.step % checkpoint_every == 0 or trainer.step == last:
            rate = round((trainer.step - first) / (time.perf_counter() - start), 2)
            means = {name: round(float(np.mean(values)), 4) for name, values in seen.items()}
            report = json.dumps({"step": trainer.step, "stage": stage, "steps_per_s": rate, **means})
            seen = {}
            print(report, flush=True)
            save_checkpoint(trainer, output / "checkpoint.pt")
            with open(output / "log.jsonl", "a", encoding="utf-8") as log:
                log.write(report + "\n")
