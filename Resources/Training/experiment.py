"""One experiment's settings, and the JSON files that hold them and the splits of subjects."""

from __future__ import annotations

import dataclasses
import glob
import json
import re
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from IMTCore.errors import BadInput
from IMTCore.slicing import SlicingSpec

PLANES = ("axial", "coronal", "sagittal")
MIN_PATCH = 32  # smaller, the discriminator of its inner voxels has nothing left to normalise
# These say where and how a run goes on, not what it learns: a run may be resumed with others.
NOT_LEARNT = ("about", "data", "split", "checkpoint_every")


def _option(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Config:
    """One experiment; saved as JSON beside its checkpoints. Defaults: Yang et al. 2020, Methods, Training.

    Raises:
        BadInput: by `check`, if two settings do not go together.
    """

    data: str
    source: str
    targets: tuple[str, ...]
    train: tuple[str, ...]
    exclude: tuple[str, ...] = _option((), "patterns of subjects held out")
    about: str = _option("", "what the experiment is")
    layout: str = _option("folders", "how the data lie (see Resources/Training/datasets)")
    split: str = _option("", "JSON file of a saved split, in place of --train, --validate and --exclude")
    validate: tuple[str, ...] = _option((), "patterns of subjects to validate on; they are not trained on")
    validate_every: int = _option(1000, "steps between validations")
    patience: int = _option(0, "stop after so many validations without a better one; 0 for never")
    steps: int = _option(100_000, "steps of one batch")
    epochs: int = _option(0, "in place of --steps: so many times --epoch-images")
    epoch_images: int = _option(0, "images an epoch; 0 for the number of training slices")
    budget_s: float = _option(0.0, "stop after so many seconds of training; the schedule follows them")
    budget_clock: str = _option("wall", "what the budget counts", ("wall", "cpu"))
    batch: int = _option(1, "slices or patches a step (and process)")
    network: str = _option("unet", "the generator", ("unet", "encoder-decoder", "context"))
    filters: int = _option(64, "filters of the first block")
    depth: int = _option(8, "blocks down and up (not of a context network)")
    dropout_blocks: int = _option(3, "U-Net: decoder blocks with dropout")
    unet_layout: str = _option("torch", "U-Net: PyTorch port, or torch7 original with its zeroed biases", ("torch", "lua"))
    patch: int = _option(32, "context network: edge of a 3D patch in voxels")
    context_of: str = _option("", "context network: run whose translation is the second channel (auto-context)")
    planes: tuple[str, ...] = _option(("axial",), "planes of the slices; several are all drawn for the one network", PLANES)
    mode: str = _option("paper", "slices resized to --size, or at --spacing-mm", ("paper", "spatial"))
    size: int = _option(256, "edge of a slice in pixels in mode paper")
    spacing_mm: float = _option(1.0, "in-plane spacing in mode spatial")
    neighbours_mm: tuple[float, ...] = _option((0.0,), "distances of the slices that are the input's channels")
    weights: tuple[str, ...] = _option((), "DATASET=FACTOR: how often a dataset is drawn")
    l1: float = _option(100.0, "weight of the mean absolute error")
    l2: float = _option(0.0, "weight of the mean squared error")
    euclidean: float = _option(0.0, "weight of the root of an image's summed squared errors")
    ssim: float = _option(0.0, "weight of 1 - SSIM")
    gdl: float = _option(0.0, "weight of the gradient difference")
    adversarial: float = _option(1.0, "weight of the discriminator's judgement; 0 for none")
    learning_rate: float = _option(2e-4, "Adam's step size")
    beta1: float = _option(0.5, "Adam's first momentum")
    schedule: str = _option("constant", "constant; linear from half-way to 0; or cosine to 0", ("constant", "linear", "cosine"))
    ema: float = _option(0.0, "decay of the moving average of the weights; 0 for none")
    augmentation: str = _option("jitter", "random changes of a batch", ("none", "jitter", "mild", "strong"))
    precision: str = _option("fp32", "number type of the networks' arithmetic", ("fp32", "bf16", "fp16"))
    seed: int = _option(0, "of all randomness")
    checkpoint_every: int = _option(500, "steps between checkpoints")
    initial: str = _option("", "checkpoint whose generator to start from")

    @property
    def slicings(self) -> list[SlicingSpec]:
        """The slicing in each plane that the network learns."""
        size = (self.size, self.size)
        return [SlicingSpec(plane, self.mode, size, self.spacing_mm, self.neighbours_mm) for plane in self.planes]

    @property
    def slicing(self) -> SlicingSpec:
        """The slicing that the trained network wants, in its first plane."""
        return self.slicings[0]

    @property
    def plane(self) -> str:
        """The first plane."""
        return self.planes[0]

    @property
    def stride(self) -> int:
        """What a slice's height and width must be multiples of."""
        return 1 if self.network == "context" else 2**self.depth

    @property
    def in_channels(self) -> int:
        """Channels of the generator's input."""
        return len(self.neighbours_mm) + bool(self.context_of)

    @property
    def centre_channel(self) -> int:
        """The input channel that lies on the target's slice."""
        return len(self.neighbours_mm) // 2

    def network_arguments(self) -> dict[str, int | str]:
        """The generator's arguments, as a card's `network` names them."""
        arguments: dict[str, int | str] = {
            "in_channels": self.in_channels,
            "out_channels": len(self.targets),
            "filters": self.filters,
        }
        if self.network != "context":
            arguments["depth"] = self.depth
        if self.network == "unet":
            arguments["dropout_blocks"] = self.dropout_blocks
            if self.unet_layout != "torch":
                arguments["layout"] = self.unet_layout
        return arguments

    def generator(self) -> nn.Module:
        """A new generator of this experiment."""
        if self.network == "unet":
            from IMTCore.networks import UNetGenerator as Network
        elif self.network == "encoder-decoder":
            from IMTCore.encoder_decoder import EncoderDecoder as Network
        else:
            from IMTCore.context_network import ContextGenerator as Network
        return Network(**self.network_arguments())

    def discriminator(self) -> nn.Module | None:
        """A new discriminator, or None if nothing is adversarial."""
        if self.adversarial <= 0:
            return None
        if self.network == "context":
            from IMTCore.context_network import ContextDiscriminator

            return ContextDiscriminator(len(self.targets), self.filters)
        from IMTCore.networks import PatchDiscriminator

        return PatchDiscriminator(self.in_channels + len(self.targets), self.filters)

    def with_steps(self, training_slices: int) -> Config:
        """The same experiment with its epochs turned into steps."""
        if not self.epochs:
            return self
        return dataclasses.replace(self, steps=max(1, self.epochs * (self.epoch_images or training_slices) // self.batch))

    def check(self) -> None:
        """Refuse settings that cannot be trained.

        Raises:
            BadInput: naming the setting and the remedy.
        """
        for name in ("data", "source", "targets"):
            if not getattr(self, name):
                raise BadInput(f"The experiment lacks --{name}: give it, or {name!r} in the file of --config.")
        if not self.train:
            raise BadInput("There are no training subjects: give --train PATTERNS or --split FILE.")
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata.get("choices")
            for one in value if isinstance(value, tuple) else (value,):
                if choices and one not in choices:
                    raise BadInput(f"{flag(item.name)} {one}: use one of {', '.join(choices)}.")
        for name in ("steps", "batch", "filters", "depth", "patch", "size", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{flag(name)} {getattr(self, name)}: it must be at least 1.")
        if not any(getattr(self, name) > 0 for name in ("l1", "l2", "euclidean", "ssim", "gdl", "adversarial")):
            raise BadInput("All weights of the losses are 0: give at least one, for instance --l1 100.")
        for entry in self.weights:
            if not re.fullmatch(r"[^=]+=\d+(\.\d+)?", entry):
                raise BadInput(f"--weights {entry}: write DATASET=FACTOR, for instance nichart=0.5.")
        if self.network == "context":
            if len(self.targets) != 1 or len(self.neighbours_mm) != 1:
                raise BadInput("A context network takes one target and no neighbours: they are in its 3D patch.")
            if self.patch < MIN_PATCH:
                raise BadInput(f"--patch {self.patch}: a context network's patch has at least {MIN_PATCH} voxels a side.")
            if self.augmentation not in ("none", "jitter"):
                raise BadInput("3D patches are only mirrored: use --augmentation jitter or none.")
        elif self.context_of:
            raise BadInput("--context-of is for --network context.")
        if self.patience and not self.validate:
            raise BadInput("--patience needs subjects to validate on: give --validate PATTERNS.")

    @classmethod
    def from_record(cls, record: dict[str, Any], where: str = "the record") -> Config:
        """The experiment of a run's `config.json`; what else the record holds is left out.

        Raises:
            BadInput: if a value has the wrong type.
        """
        if "plane" in record and "planes" not in record:
            record = {**record, "planes": [record["plane"]]}
        known = {item.name: item for item in fields(cls)}
        return cls(**{name: _converted(known[name], value, where) for name, value in record.items() if name in known})


def flag(name: str) -> str:
    """The command line's option for a setting."""
    return "--" + name.replace("_", "-")


def _converted(item: Field, value: Any, where: str) -> Any:
    """`value` from JSON as the type of the field."""
    kind = str(item.type)
    inner = kind.removeprefix("tuple[").removesuffix(", ...]")
    values = value if kind.startswith("tuple[") else [value]
    right = {"int": int, "float": (int, float), "str": str}[inner]
    if not isinstance(values, list | tuple) or any(not isinstance(v, right) or isinstance(v, bool) for v in values):
        raise BadInput(f"{where}: {item.name!r} is {value!r}, but must be of type {kind}.")
    made = tuple(float(v) if inner == "float" else v for v in values)
    return made if kind.startswith("tuple[") else made[0]


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a JSON file, over those of the file that its `base` names (beside it).

    Raises:
        BadInput: if a file is missing, is no JSON object, or has an unknown setting or one of a wrong type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as an experiment: {error}.") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} is no experiment: it must hold one JSON object.")
    base = content.pop("base", None)
    values = read_config(path.parent / base) if base else {}
    known = {item.name: item for item in fields(Config)}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise BadInput(f"{path} has unknown settings: {', '.join(unknown)}. Known: {', '.join(known)}.")
    return values | {name: _converted(known[name], value, str(path)) for name, value in content.items()}


def read_split(path: Path) -> dict[str, tuple[str, ...]]:
    """A saved split as patterns: `train` and `validate` (may be empty), and `exclude`, the test subjects.

    Raises:
        BadInput: if the file is no split, has no training subjects, or one subject in two parts.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: [str(entry) for entry in content.get(name, [])] for name in ("train", "validate", "test")}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BadInput(f"{path} cannot be read as a split: {error}.") from error
    if not parts["train"]:
        raise BadInput(f"{path} has no training subjects: 'train' is missing or empty.")
    seen: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if seen.setdefault(name, part) != part:
                raise BadInput(f"{path}: {name} is in two parts of the split, {seen[name]} and {part}.")
    read_split_slices(path)
    patterns = {part: tuple(glob.escape(name) for name in names) for part, names in parts.items()}
    return {"train": patterns["train"], "validate": patterns["validate"], "exclude": patterns["test"]}


def read_split_slices(path: Path) -> dict[str, tuple[int, ...]]:
    """The axial slices that a saved split chose, {subject: slices from the lowest}; empty if it takes all.

    Raises:
        BadInput: if they are not lists of slice numbers.
    """
    try:
        chosen = json.loads(path.read_text(encoding="utf-8")).get("slices", {})
        slices = {name: tuple(int(number) for number in numbers) for name, numbers in chosen.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BadInput(f"{path} cannot be read as a split: {error}.") from error
    for name, numbers in slices.items():
        if not numbers or min(numbers) < 0:
            raise BadInput(f"{path}: the slices of {name} must be numbers from 0, at least one.")
    return slices
