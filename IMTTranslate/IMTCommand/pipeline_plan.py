"""What a pipeline does with each case: its plan, from options or from a file, and the plan that an output folder holds."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from IMTCore.errors import BadInput

PLAN = "plan.json"
FORMAT = 1
STAGES = ("translate", "register", "segment", "evaluate")
Texts = tuple[str, ...]
KINDS = {str: "a text", str | None: "a text or null", int: "a whole number", bool: "true or false", Texts: "a list of texts"}


@dataclass(frozen=True)
class TranslateStage:
    """Models, wanted modalities of those that are any-to-any, noise samples for the uncertainty (0: none), planes."""

    models: Texts
    to: Texts = ()
    uncertainty: int = 0
    single_plane: bool = False


@dataclass(frozen=True)
class RegisterStage:
    """Atlas set, second modality (translated), and how to register, as the options of `imt register`."""

    atlases: str
    second: str | None = None
    engine: str = "greedy"
    preset: str = "fast"
    fusion: str | None = None
    weight: str | None = None
    labels: str = "mean"
    structures: Texts = ()


@dataclass(frozen=True)
class SegmentStage:
    """Model, translation model for its second modality (None: the one on its card), whether probabilities are written."""

    model: str
    translator: str | None = None
    probabilities: bool = False


@dataclass(frozen=True)
class EvaluateStage:
    """Names, beside each input, of reference labels for the segmentation and for the atlases' labels."""

    reference: str | None = None
    atlas_reference: str | None = None


@dataclass(frozen=True)
class Plan:
    """All that decides the results of a pipeline but the images and the models' content.

    A stage that is None is not done; `modality` None is the one that the models take.
    """

    translate: TranslateStage | None = None
    register: RegisterStage | None = None
    segment: SegmentStage | None = None
    evaluate: EvaluateStage | None = None
    modality: str | None = None
    seed: int = 0
    bias_correction: bool = False
    check_modality: bool = True

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of those that are done, in their order."""
        return tuple(name for name in STAGES if getattr(self, name) is not None)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(self)))}

    def check(self) -> None:
        """Raises BadInput if there is nothing to do, or something to evaluate that is not made."""
        if not any(getattr(self, name) for name in STAGES[:3]):
            raise BadInput("There is nothing to do: give --translate, --register or --segment, or a --plan with one of them.")
        if self.translate is not None and not self.translate.models:
            raise BadInput("The plan's translate names no models: name one, or leave translate out.")
        if self.evaluate is None:
            return
        for option, name, stage in (
            ("--reference", self.evaluate.reference, "segment"),
            ("--atlas-reference", self.evaluate.atlas_reference, "register"),
        ):
            if name is not None and getattr(self, stage) is None:
                raise BadInput(f"{option} {name} scores the labels of --{stage}, which the plan does not have. Leave it out.")
            if name is not None and len(Path(name).parts) != 1:
                raise BadInput(f"{option} is a plain name, not {name}: it is looked for beside each case's image.")
        if self.translate is None and self.evaluate == EvaluateStage():
            raise BadInput("There is nothing to evaluate: give --translate, or the name of reference labels (--reference, --atlas-reference).")


def plan_of(values: argparse.Namespace) -> Plan:
    """The plan that the arguments of `imt pipeline` give.

    Raises:
        BadInput: options that contradict each other, or the plan's file, as `read_plan`.
    """
    plan = _from_options(values)
    if values.plan is not None:
        if given := [_option(name) for name in _differing(plan.record(), Plan().record())]:
            raise BadInput(f"--plan says all that is done: leave {', '.join(dict.fromkeys(given))} out, or change the plan's file.")
        return read_plan(values.plan)
    plan.check()
    return plan


def _from_options(values: argparse.Namespace) -> Plan:
    """Options of stages that are not asked for are refused, so that none is overlooked."""
    translate = TranslateStage(tuple(map(_absolute, values.translate)), tuple(values.to), values.uncertainty, values.single_plane)
    register = RegisterStage(
        str(Path(values.register or "").absolute()),
        values.second,
        values.engine,
        values.preset,
        values.fusion,
        _absolute(values.weight),
        values.labels,
        tuple(values.structures),
    )
    segment = SegmentStage(_absolute(values.segment) or "", _absolute(values.translator), values.probabilities)
    evaluate = EvaluateStage(values.reference, values.atlas_reference)
    for stage, given, nothing, wanted in (
        ("translate", translate, TranslateStage(()), values.translate),
        ("register", register, RegisterStage(register.atlases), values.register),
        ("segment", segment, SegmentStage(""), values.segment),
    ):
        if not wanted and (named := _differing(dataclasses.asdict(given), dataclasses.asdict(nothing))):
            raise BadInput(f"{', '.join(map(_option, named))}: only with --{stage}.")
    return Plan(
        translate if values.translate else None,
        register if values.register else None,
        segment if values.segment else None,
        evaluate if values.evaluate or evaluate != EvaluateStage() else None,
        values.modality,
        values.seed,
        values.bias_correction,
        values.check_modality,
    )


def read_plan(path: Path) -> Plan:
    """Read a plan's file; relative paths in it start at its folder.

    Raises:
        BadInput: not readable, no JSON, an unknown or a missing key, or a value of another type: the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"The plan {path} cannot be read ({error.strerror or error}). Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The plan {path} is no JSON file in UTF-8 ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f'{path} is no plan of a pipeline: it needs "format": {FORMAT}. Every output folder holds one as {PLAN}.')
    content = {key: value for key, value in content.items() if key != "format"}
    stages = {"translate": TranslateStage, "register": RegisterStage, "segment": SegmentStage, "evaluate": EvaluateStage}
    for name, kind in stages.items():
        if content.get(name) is not None:
            content[name] = _rooted(_checked(path, f"{name}.", kind, content[name]), path.absolute().parent)
    plan = _checked(path, "", Plan, content)
    try:
        plan.check()
    except BadInput as error:
        raise BadInput(f"The plan {path}: {error}") from error
    return plan


def _checked(path: Path, where: str, kind: type, content: Any) -> Any:
    """A stage, or the whole plan, from what JSON gave."""
    if not isinstance(content, dict):
        raise BadInput(f"The plan {path}: {where.rstrip('.')} must be an object with keys, not {content!r:.80}.")
    hints = get_type_hints(kind)
    if unknown := [key for key in content if key not in hints]:
        raise BadInput(f"The plan {path}: unknown key {where}{unknown[0]}. There are {', '.join(hints)}.")
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    if missing := [key for key in needed if key not in content]:
        raise BadInput(f"The plan {path} lacks {where}{missing[0]}.")
    values = {}
    for key, value in content.items():
        hint = hints[key]
        value = tuple(value) if hint == Texts and isinstance(value, list) else value
        if hint in KINDS and not _is_of(hint, value):
            raise BadInput(f"The plan {path}: {where}{key} must be {KINDS[hint]}, not {value!r:.80}.")
        values[key] = value
    return kind(**values)


def _is_of(hint: Any, value: Any) -> bool:
    if hint == Texts:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _absolute(name: str | None) -> str | None:
    """A model or weight by its path: other processes, and the next run, may have another current folder."""
    return str(Path(name).absolute()) if name is not None and Path(name).is_file() else name


def _rooted(stage: Any, folder: Path) -> Any:
    """A stage of a plan's file whose paths start at the file's folder."""

    def rooted(name: str | None) -> str | None:
        return str(folder / name) if name is not None and (folder / name).is_file() else name

    if isinstance(stage, TranslateStage):
        return dataclasses.replace(stage, models=tuple(map(rooted, stage.models)))
    if isinstance(stage, RegisterStage):
        return dataclasses.replace(stage, atlases=str(folder / stage.atlases), weight=rooted(stage.weight))
    if isinstance(stage, SegmentStage):
        return dataclasses.replace(stage, model=rooted(stage.model), translator=rooted(stage.translator))
    return stage


def _option(key: str) -> str:
    stage, _, name = key.rpartition(".")
    if name in ("models", "atlases", "model"):
        return f"--{stage}"
    return "--no-modality-check" if name == "check_modality" else f"--{name.replace('_', '-')}"


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys, as "stage.key", in which two records differ."""
    return [key for key, _, _ in differences(one, other)]


def differences(one: dict[str, Any], other: dict[str, Any], where: str = "") -> list[tuple[str, Any, Any]]:
    """(key, one's value, the other's) where two plans' records differ; a stage that one of them lacks counts as a whole."""
    found = []
    for key in {**one, **other}:
        first, second = one.get(key), other.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            found += differences(first, second, f"{where}{key}.")
        elif first != second:
            found.append((f"{where}{key}", first, second))
    return found


def check_same_plan(folder: Path, plan: Plan) -> None:
    """Refuse a folder that another plan has filled.

    Raises:
        BadInput: naming what differs.
    """
    path = folder / PLAN
    if not path.exists():
        return
    before = read_plan(path).record()
    if found := differences(before, plan.record()):
        texts = "; ".join(f"{key} is {_text(there)} there and {_text(here)} here" for key, there, here in found)
        raise BadInput(f"{folder} holds the results of another plan: {texts}. Choose another output folder, or give the same options.")


def _text(value: Any) -> str:
    return "not in it" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, dict) else "in it"
