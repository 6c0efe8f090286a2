"""One segmenter's training: its settings, and what follows from them (Yang et al. 2020, Segmentation; Cross-modality segmentation)."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

for _module in ("IMTTranslate", "IMTSegment"):  # until make setup has installed them
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / _module))

from experiment import PLANES, flag

from IMTCore.errors import BadInput
from IMTCore.fcn_arguments import VARIANTS
from IMTCore.slicing import SlicingSpec
from IMTSegmentLib.architectures import SEGMENTERS

# Label map -> its classes with their codes. Necrosis, oedema, non-enhancing and enhancing tumour are one class, tumour
# (Yang et al. 2020, Datasets); the gliomas of BraTS 2013 to 2023 code them as 1 to 4.
LABEL_CLASSES: dict[str, tuple[str, ...]] = {
    "tissues": ("csf=1", "gm=2", "wm=3"),
    "lesions": ("lesion=1",),
    "tumour": ("tumour=1,2,3,4",),
}
# What cards call the structures in full.
FULL_NAMES = {"cerebrospinal fluid": "csf", "grey matter": "gm", "gray matter": "gm", "white matter": "wm"}
SECOND_FROM = ("translated", "real", "shuffled", "blurred")
# Where a run lies and how often it is saved change nothing that is learnt.
NOT_LEARNT = ("data", "split", "checkpoint_every")
# What --network unet changes: a modern U-Net's usual training. The dataclass itself has the paper's FCN.
UNET_DEFAULTS: dict[str, Any] = {
    "mode": "spatial", "batch": 8, "dropout": 0.0, "optimiser": "adam", "learning_rate": 1e-3, "weight_decay": 0.0,
    "schedule": "cosine", "loss": "cross-entropy+dice", "augmentation": "mild",
}  # fmt: skip


def option(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """A setting with its help text and the words that it may be."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class SegmenterConfig:
    """One segmenter; saved as JSON beside its checkpoints. Defaults: Yang et al. 2020, Segmentation, and Long et al. 2015.

    Raises:
        BadInput: by `check`, if two settings do not go together.
    """

    data: str
    given: str
    labels: str
    classes: tuple[str, ...]
    train: tuple[str, ...]
    exclude: tuple[str, ...] = option((), "patterns of subjects held out")
    layout: str = option("folders", "how the data lie (see Resources/Training/datasets)")
    split: str = option("", "JSON file of make_split.py, in place of --train, --validate and --exclude")
    validate: tuple[str, ...] = option((), "patterns of subjects to validate on; they are not trained on")
    validate_every: int = option(500, "steps between validations")
    channels: tuple[str, ...] = option(("given",), "the network's channels: given, second", ("given", "second"))
    second: str = option("", "the second modality, for channels that are second")
    second_from: str = option("translated", "the second modality is inferred, real, or a control that holds less", SECOND_FROM)
    translator: str = option("", "model name or card that infers the second modality from the given one")
    blur_mm: float = option(6.0, "sigma of --second-from blurred")
    planes: tuple[str, ...] = option(("axial",), "planes of the slices: one network learns all, predictions are averaged", PLANES)
    mode: str = option("paper", "slices resized to --size, or at --spacing-mm", ("paper", "spatial"))
    size: int = option(256, "edge of a slice in pixels in mode paper")
    spacing_mm: float = option(1.0, "in-plane spacing in mode spatial")
    percentile: float = option(99.5, "foreground percentile of an image that becomes 1")
    network: str = option("fcn", "FCN on VGG-16 (the paper), or a U-Net", ("fcn", "unet"))
    filters: int = option(16, "U-Net: filters of the first level")
    depth: int = option(4, "U-Net: number of poolings")
    max_filters: int = option(256, "U-Net: most filters of a level")
    width: float = option(1.0, "FCN: factor of all filters; 1 is VGG-16")
    padding: int = option(100, "FCN: 100 as in the original, or 0, which is cheaper")
    skip_scaling: bool = option(False, "FCN: pool4 x 0.01 and pool3 x 0.0001, for a single stage (all at once)")
    dropout: float = option(0.5, "FCN: after fc6 and fc7; U-Net: in its blocks")
    vgg: str = option("", "FCN: file of VGG-16 weights, safetensors or a torchvision state dictionary")
    vgg_scaling: str = option("torchvision", "FCN: intensities that the file was trained on", ("torchvision", "caffe"))
    stages: tuple[str, ...] = option(VARIANTS, "FCN: trained one after the other, each from the one before", VARIANTS)
    steps: int = option(100_000, "steps of one batch; of an FCN in each stage")
    batch: int = option(1, "slices a step, all of one subject")
    optimiser: str = option("sgd", "with --momentum, or adam", ("sgd", "adam"))
    learning_rate: float = option(1e-4, "on the mean loss over pixels; an FCN's biases learn at twice the rate")
    momentum: float = option(0.99, "of sgd")
    weight_decay: float = option(5e-4, "of weights; an FCN's biases have none")
    schedule: str = option("constant", "of the learning rate: constant, or cosine to 0", ("constant", "cosine"))
    loss: str = option("cross-entropy", "cross-entropy alone, or with soft Dice", ("cross-entropy", "cross-entropy+dice"))
    class_weights: str = option("none", "none, or median: median frequency over the class's own", ("none", "median"))
    weights: tuple[str, ...] = option((), "PATTERN=FACTOR: how often a subject's slices are drawn, such as nichart/*=2")
    augmentation: str = option("none", "random changes of a batch", ("none", "mild", "strong"))
    strip_share: float = option(0.0, "share of the draws with all but the labelled region made background: heads without skull")
    strip_margin_mm: float = option(2.0, "how far beyond the labels --strip-share leaves the image")
    precision: str = option("auto", "of the arithmetic: auto is bf16 on a GPU that has it, else fp32", ("auto", "fp32", "bf16"))
    seed: int = option(0, "of all randomness")
    checkpoint_every: int = option(500, "steps between checkpoints")
    init_from: str = option("", "run whose network to start from (pretraining)")

    @property
    def slicings(self) -> list[SlicingSpec]:
        """The slicing in each plane: single slices, as the paper's."""
        return [SlicingSpec(plane, self.mode, (self.size, self.size), self.spacing_mm) for plane in self.planes]

    @property
    def names(self) -> list[str]:
        """The classes' names, from class 1 on; class 0 is the background."""
        return [entry.partition("=")[0] for entry in self.classes]

    @property
    def codes(self) -> list[int]:
        """The code that each class gets in a prediction: the first of those that were merged into it."""
        return [int(entry.partition("=")[2].split(",")[0]) for entry in self.classes]

    @property
    def images(self) -> tuple[str, ...]:
        """The different images among the channels: given, and second where a channel is."""
        return ("given", "second") if "second" in self.channels else ("given",)

    @property
    def phases(self) -> tuple[str, ...]:
        """The networks trained one after the other: an FCN's stages, or the one U-Net."""
        return self.stages if self.network == "fcn" else ("unet",)

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return self.steps * len(self.phases)

    @property
    def stride(self) -> int:
        """What a slice's height and width must be multiples of."""
        return SEGMENTERS[self.network].stride(self.network_arguments(self.phases[0]))

    def network_arguments(self, phase: str) -> dict[str, Any]:
        """The arguments of a phase's network, as a card's `network` names them."""
        arguments: dict[str, Any] = {"classes": len(self.classes) + 1, "in_channels": len(self.channels)}
        if self.network == "unet":
            names = ("filters", "depth", "max_filters", "dropout")
            return arguments | {name: getattr(self, name) for name in names}
        scaling = self.vgg_scaling if self.vgg else "none"
        names = ("width", "padding", "skip_scaling", "dropout")
        return arguments | {"variant": phase, "input_scaling": scaling} | {name: getattr(self, name) for name in names}

    def build(self, phase: str) -> nn.Module:
        """A phase's network, new."""
        return SEGMENTERS[self.network].build(self.network_arguments(phase))

    def check(self) -> None:
        """Refuse settings that cannot be trained.

        Raises:
            BadInput: naming the setting and the remedy.
        """
        for name in ("data", "given", "labels"):
            if not getattr(self, name):
                raise BadInput(f"The training lacks --{name}: give it, or {name!r} in the file of --config.")
        if not self.train:
            raise BadInput("There are no training subjects: give --train PATTERNS or --split FILE.")
        self._check_words()
        for name in ("steps", "batch", "filters", "depth", "size", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{flag(name)} {getattr(self, name)}: it must be at least 1.")
        if not 0 <= self.strip_share <= 1:
            raise BadInput(f"--strip-share {self.strip_share:g}: it must be a share from 0 to 1.")
        if "".join(self.stages) not in "".join(VARIANTS) or not self.stages:
            raise BadInput(f"--stages must follow each other: {', '.join(VARIANTS)}.")
        self._check_second()
        check_classes(self.classes)
        try:
            with torch.device("meta"):
                self.build(self.phases[0])
        except ValueError as error:
            raise BadInput(f"There is no such network: {error}.") from error
        if self.mode == "paper" and self.size % self.stride:
            raise BadInput(f"--size {self.size} is not a multiple of the network's stride, {self.stride}.")

    def _check_words(self) -> None:
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata.get("choices")
            for one in value if isinstance(value, tuple) else (value,):
                if choices and one not in choices:
                    raise BadInput(f"{flag(item.name)} {one}: use one of {', '.join(choices)}.")
        for entry in self.weights:
            if not re.fullmatch(r".+=\d+(\.\d+)?", entry):
                raise BadInput(f"--weights {entry}: write PATTERN=FACTOR, for instance nichart/*=2.")

    def _check_second(self) -> None:
        if "given" not in self.channels:
            raise BadInput("--channels: at least one channel must be given.")
        if "second" not in self.channels:
            if self.second or self.translator:
                raise BadInput("--second and --translator are for --channels with second, such as given given second.")
            return
        if not self.second:
            raise BadInput("--channels has second: say which modality with --second, such as FLAIR.")
        if self.second_from == "real" and self.translator:
            raise BadInput("--second-from real takes no --translator: the second modality is read.")
        if self.second_from != "real" and not self.translator:
            raise BadInput(f"--second-from {self.second_from} needs --translator: a model's name or card.")

    @classmethod
    def from_record(cls, record: dict[str, Any], where: str) -> SegmenterConfig:
        """The training of a run's `config.json` or checkpoint; what else the record holds is left out.

        Raises:
            BadInput: if a value is missing or has the wrong type.
        """
        known = {item.name: item for item in fields(cls)}
        values = {name: typed(known[name], value, where) for name, value in record.items() if name in known}
        try:
            return cls(**values)
        except TypeError as error:
            raise BadInput(f"{where} is no record of a segmenter's training ({error}).") from error


def check_classes(classes: tuple[str, ...]) -> None:
    """Refuse what is not NAME=CODE[,CODE]: other words, a code of two classes, a name twice. Raises BadInput."""
    seen: dict[int, str] = {}
    for entry in classes:
        name, _, codes = entry.partition("=")
        if not name or not all(code.isdigit() and 0 < int(code) <= 65535 for code in codes.split(",")):
            raise BadInput(f"--classes {entry!r} is not NAME=CODES with whole numbers, such as wm=3 or tumour=1,2,4.")
        for code in map(int, codes.split(",")):
            if code in seen:
                raise BadInput(f"--classes: the code {code} is of {seen[code]} and of {name}. Each code has one class.")
            seen[code] = name
    names = [entry.partition("=")[0] for entry in classes]
    if not names or len({name.casefold() for name in names}) < len(names):
        raise BadInput("--classes must name at least one class, and each one once.")


def structure_key(name: str) -> str:
    """A structure's name for comparisons: in small letters, and "gm" for grey matter."""
    return FULL_NAMES.get(name.strip().casefold(), name.strip().casefold())


def typed(item: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the type of a dataclass field. Raises BadInput."""
    kind = str(item.type)
    inner = kind.removeprefix("tuple[").removesuffix(", ...]")
    values = value if kind.startswith("tuple[") else [value]
    right = {"int": int, "float": (int, float), "str": str, "bool": bool}[inner]
    wrong = not isinstance(values, list | tuple) or any(not isinstance(v, right) for v in values)
    if wrong or (inner != "bool" and any(isinstance(v, bool) for v in values)):
        raise BadInput(f"{where}: {item.name!r} is {value!r}, but must be of type {kind}.")
    made = tuple(float(v) if inner == "float" else v for v in values)
    return made if kind.startswith("tuple[") else made[0]


def differences(one: SegmenterConfig, other: SegmenterConfig) -> list[str]:
    """The settings in which two trainings would learn something else."""
    ours, theirs = asdict(one), asdict(other)
    return [name for name in ours if name not in NOT_LEARNT and ours[name] != theirs[name]]
