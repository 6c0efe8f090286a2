"""How to register a subject with atlases: the one record that the command line, the panel and scripts fill in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IMTCore.errors import BadInput
from IMTCore.files import data_folder
from IMTCore.label_names import LabelNames

ENGINES = ("greedy", "ants", "elastix")
PRESETS = ("paper", "fast")
FUSIONS = ("none", "mean", "log", "local", "joint")
LABEL_METHODS = ("mean", "majority", "staple", "joint")
DEFAULT_WEIGHT = 0.5  # of experiments; `imt register` takes label-free shares by default
AUTO = "auto"
CACHE_VARIABLE = "IMT_REGISTER_CACHE"


@dataclass(frozen=True)
class StructureWeights:
    """The given modality's share for each structure, as five-fold cross-validation gives them (Yang et al. 2020).

    Attributes:
        weights: structure (its name, or its code as text) -> share of the given modality, 0 to 1.
        default: share for all other structures and the background; None if there shall be no others.
        source: the file they come from, for messages.
    """

    weights: Mapping[str, float]
    default: float | None = None
    source: str = "weights"

    def __post_init__(self) -> None:
        if not self.weights:
            raise BadInput(f"{self.source} holds no weight. It needs structures with numbers from 0 to 1.")
        for name, value in [*self.weights.items(), ("default", self.default)]:
            if value is not None and not _is_share(value):
                raise BadInput(f"{self.source}: the weight of {name} must be a number from 0 to 1, not {value!r}.")

    @property
    def background(self) -> float:
        """The share where no structure's own counts: the default, else the mean of the weights."""
        return self.default if self.default is not None else sum(self.weights.values()) / len(self.weights)

    def by_code(self, names: LabelNames, codes: Iterable[int]) -> dict[int, float]:
        """The share of each of `codes`; `names` are all names there are.

        Raises:
            BadInput: a structure that the atlases do not have, one with two weights, or a code without a weight.
        """
        found: dict[int, float] = {}
        for text, value in self.weights.items():
            try:
                (code,) = names.select([text])
            except BadInput as error:
                raise BadInput(f"{self.source}: {error}") from error
            if code in found:
                raise BadInput(f"{self.source} has two weights for {names.name_of(code)} (code {code}). Leave one out.")
            found[code] = float(value)
        wanted = list(codes)
        missing = [names.name_of(code) for code in wanted if code not in found]
        if missing and self.default is None:
            raise BadInput(f'{self.source} has no weight for {", ".join(missing[:10])}. Add them, or a "default".')
        return {code: found.get(code, self.default) for code in wanted}  # type: ignore[misc]

    def record(self) -> dict[str, Any]:
        """As a dictionary."""
        return {"default": self.default, "weights": dict(self.weights)}


def read_structure_weights(path: Path) -> StructureWeights:
    """Read `{"default": 0.5, "weights": {"grey": 0.7, "white": 0.9}}` (other keys are for people), or the weights alone.

    Raises:
        BadInput: no such file, no JSON, or other content.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no readable JSON file of weights ({error}). Check the path.") from error
    weights = content.get("weights", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise BadInput(f'{path} holds no weights. It needs {{"default": 0.5, "weights": {{"NAME": 0.7}}}}.')
    default = content.get("default") if weights is not content else None
    if weights is content:
        default = weights.get("default")
        weights = {name: value for name, value in weights.items() if name != "default"}
    return StructureWeights(weights, default, str(path))


def parse_weight(text: str) -> float | str | StructureWeights:
    """What `--weight` says: a number from 0 to 1, "auto", or a JSON file of weights for structures.

    Raises:
        BadInput: none of these.
    """
    if text == AUTO:
        return AUTO
    if text.lower().endswith(".json"):
        return read_structure_weights(Path(text))
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"The weight must be a number from 0 to 1, auto, or a .json file, not {text!r}.") from None


@dataclass(frozen=True)
class RegistrationSettings:
    """How to register one subject with the atlases of a set.

    Attributes:
        modality: the subject's, such as "T2"; the atlases must have it.
        translate_to: the second modality, such as "T1"; None registers the given one alone.
        model: name, pair or path of the model that translates; None for the one that IMT takes for the pair.
        second_image: the subject's real image of the second modality, instead of a translation.
        engine: greedy, ants or elastix.
        preset: paper or fast.
        parameters: stage ("linear", "deformable") -> setting -> value, in the places of the preset's own.
        fusion: "none" (given modality alone), "mean" (the paper's weighted mean of fields), "log" (log-Euclidean mean),
            "local" (mean with weights for each voxel from local similarity), "joint" (one registration with both
            modalities as channels). None is "mean" with a second modality and "none" without.
        weight: the given modality's share, 0 (second only) to 1 (given only); "auto" for label-free shares; or shares
            for structures. None is auto (the paper's is a number). Of no meaning to "none" and "local", which refuse it.
        labels: how the atlases' labels become one: mean, majority, staple or joint.
        structures: names or codes of the labels to carry over; none means all.
        dimension: 3, or 2 for slice k of the subject with slice k of the atlas.
        mask: "auto" (register within the box of the subject's head), "none" (the whole grid) or the file of a mask on the
            subject's grid, in which the images count.
        jobs, threads: atlases at once, and threads for each; None to choose.
        memory_gb: what all jobs together may take; None for half of what is free.
        seed: of the engines' random numbers.
        cache: folder in which registrations are kept; None keeps none.

    Raises:
        BadInput: a value out of range, or values that contradict each other.
    """

    modality: str
    translate_to: str | None = None
    model: str | None = None
    second_image: Path | None = None
    engine: str = "greedy"
    preset: str = "fast"
    fusion: str | None = None
    weight: float | str | StructureWeights | None = None
    labels: str = "mean"
    structures: tuple[str, ...] = ()
    dimension: int = 3
    mask: str | Path = "auto"
    jobs: int | None = None
    threads: int | None = None
    memory_gb: float | None = None
    seed: int = 0
    cache: Path | None = field(default_factory=lambda: default_cache_folder())
    parameters: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.fusion is None:
            object.__setattr__(self, "fusion", "mean" if self.translate_to else "none")
        if self.weight is None and self.fusion in ("mean", "log", "joint"):
            object.__setattr__(self, "weight", AUTO)
        if isinstance(self.weight, int) and not isinstance(self.weight, bool):
            object.__setattr__(self, "weight", float(self.weight))
        self._check_choices()
        self._check_modalities()
        self._check_weight()
        self._check_numbers()

    def _check_choices(self) -> None:
        for what, value, choices in (
            ("engine", self.engine, ENGINES),
            ("preset", self.preset, PRESETS),
            ("fusion", self.fusion, FUSIONS),
            ("label method", self.labels, LABEL_METHODS),
            ("dimension", self.dimension, (2, 3)),
        ):
            if value not in choices:
                raise BadInput(f"The {what} must be one of {', '.join(map(str, choices))}, not {value}.")
        if isinstance(self.mask, str) and self.mask not in ("auto", "none"):
            raise BadInput(f"The mask must be auto, none or a file, not {self.mask!r}.")

    def _check_modalities(self) -> None:
        if not self.modality.strip():
            raise BadInput("Name the subject's modality, such as T2.")
        if self.translate_to is not None and self.translate_to.lower() == self.modality.lower():
            raise BadInput(f"The second modality is the given one, {self.modality}. Name another, or leave it out.")
        if self.fusion == "none" and self.translate_to is not None:
            raise BadInput(f"Fusion none registers {self.modality} alone: leave {self.translate_to} out, or choose another fusion.")
        if self.fusion != "none" and self.translate_to is None:
            raise BadInput(f"Fusion {self.fusion} needs a second modality: name one (--translate-to), or choose fusion none.")
        if self.second_image is not None and self.translate_to is None:
            raise BadInput(f"The second image {self.second_image} needs its modality's name: give it with --translate-to.")
        if self.model is not None and (self.translate_to is None or self.second_image is not None):
            raise BadInput(f"The model {self.model} would translate nothing here. Leave it out.")

    def _check_weight(self) -> None:
        weight = self.weight
        if weight is None:
            return
        if self.fusion in ("none", "local"):
            raise BadInput(f"Fusion {self.fusion} takes no weight. Leave it out, or choose fusion mean, log or joint.")
        if isinstance(weight, StructureWeights):
            if self.fusion == "joint":
                raise BadInput("Weights for structures need a fusion of fields (mean or log): joint registers once for all structures.")
            if self.labels == "joint":
                raise BadInput("Weights for structures do not go with joint labels, which take whole label maps. Choose labels mean.")
        elif not (weight == AUTO or _is_share(weight)):
            raise BadInput(f"The weight must be a number from 0 to 1, auto, or weights for structures, not {weight!r}.")

    def _check_numbers(self) -> None:
        for what, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and not 1 <= value <= 1024:
                raise BadInput(f"The number of {what} must be from 1 to 1024, not {value}.")
        if self.memory_gb is not None and not 0 < self.memory_gb < float("inf"):
            raise BadInput(f"The memory budget must be a number of GB above 0, not {self.memory_gb}.")
        if not 0 <= self.seed < 2**31 - 1:
            raise BadInput(f"The seed must be a whole number from 0 to {2**31 - 2}, not {self.seed}.")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the atlases must have, the given one first."""
        return (self.modality,) if self.translate_to is None else (self.modality, self.translate_to)

    @property
    def translates(self) -> bool:
        """Whether a translation takes part."""
        return self.translate_to is not None and self.second_image is None

    def record(self) -> dict[str, Any]:
        """What changes the result, for sidecars: no paths, no numbers of jobs."""
        weight = self.weight.record() if isinstance(self.weight, StructureWeights) else self.weight
        return {
            "modality": self.modality,
            "translate_to": self.translate_to,
            "second_image": self.second_image is not None,
            "engine": self.engine,
            "preset": self.preset,
            "parameters": self.parameters,
            "fusion": self.fusion,
            "weight": weight,
            "labels": self.labels,
            "structures": list(self.structures),
            "dimension": self.dimension,
            "mask": self.mask if isinstance(self.mask, str) else "file",
            "seed": self.seed,
        }


def default_cache_folder() -> Path:
    """`$IMT_REGISTER_CACHE`, or IMT/register-cache in the system's place for a user's data."""
    return Path(os.environ.get(CACHE_VARIABLE) or data_folder() / "register-cache")


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
