"""From a plan to what is done: models, settings and atlases, found and checked once; then the job of each case.

Each stage's settings come from the options of the single command, through its own parser and functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IMTCore.cards import ModelCard
from IMTCore.cases import Case
from IMTCore.catalogue import find_card
from IMTCore.errors import BadInput, BadModel
from IMTCore.settings import TranslationSettings
from IMTSegmentLib.second_modality import find_translator
from IMTSegmentLib.segmentation_outputs import SegmentationOutputs
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_catalogue import find_segmenter

from . import register_arguments, register_cohort, segment_arguments, segment_cohort, translate_arguments, translate_command
from .pipeline_names import CaseFiles
from .pipeline_plan import Plan
from .register_settings import settings_of as register_settings
from .segment_settings import settings_of as segment_settings

if TYPE_CHECKING:
    from IMTRegisterLib.atlases.atlas_sets import AtlasSet

ATLAS = "atlas"


@dataclass(frozen=True)
class Translation:
    """One model that translates every case. `label` tells it apart from another model of the same target; mostly empty."""

    card: ModelCard
    settings: TranslationSettings
    source: str
    target: str
    label: str = ""


@dataclass(frozen=True)
class Segmentation:
    """The model that segments every case. `own_second`: which of the translations is its second image; None for none."""

    card: SegmenterCard
    translator: ModelCard | None
    settings: SegmentationSettings
    own_second: int | None


@dataclass(frozen=True)
class Registration:
    """The atlases that every case is registered with; `values`: the arguments of `imt register`."""

    values: argparse.Namespace
    atlas_set: AtlasSet
    atlas_set_hash: str


@dataclass(frozen=True)
class Steps:
    """All stages of a plan, with what they need."""

    plan: Plan
    modality: str
    translations: tuple[Translation, ...] = ()
    registration: Registration | None = None
    segmentation: Segmentation | None = None
    warnings: list[str] = field(default_factory=list)

    def models(self) -> list[tuple[str, ModelCard]]:
        """(stage, card) of all models, for the report."""
        found: list[tuple[str, ModelCard]] = [("translate", one.card) for one in self.translations]
        if self.segmentation is not None:
            found.append(("segment", self.segmentation.card))
            if self.segmentation.translator is not None:
                found.append(("segment", self.segmentation.translator))
        if self.registration is not None and (card := self.registration_model()) is not None:
            found.append(("register", card))
        return found

    def registration_model(self) -> ModelCard | None:
        """The model that translates for the registration."""
        from IMTRegisterLib.registration.translation import model_for

        return model_for(register_settings(self.registration.values))


def steps_of(plan: Plan, values: argparse.Namespace) -> Steps:
    """Find and check all that the plan needs, before any case is looked at.

    Raises:
        BadInput, BadModel: what is not there, or does not fit together.
    """
    segmenter = None if plan.segment is None else find_segmenter(plan.segment.model)
    cards = [] if plan.translate is None else [find_card(name) for name in plan.translate.models]
    modality = _modality(plan, [*cards, *([segmenter] if segmenter else [])])
    translations = _translations(plan, cards, modality, values)
    segmentation = None if segmenter is None else _segmentation(plan, segmenter, translations, values)
    steps = Steps(plan, modality, translations, None, segmentation)
    if plan.register is None:
        return steps
    registration = _registration(plan, modality, translations, values)
    return replace(steps, registration=registration, warnings=list(registration.atlas_set.warnings))


def _modality(plan: Plan, cards: list[ModelCard]) -> str:
    """The one modality that all stages take."""
    wanted = {card.source for card in cards if not getattr(card, "modalities", None)}
    wanted |= {plan.modality} if plan.modality else set()
    if len({text.lower() for text in wanted}) > 1:
        texts = ", ".join(f"{card.name} takes {card.source}" for card in cards)
        more = f", and --modality says {plan.modality}" if plan.modality else ""
        raise BadInput(f"The stages take different modalities: {texts}{more}. Give models of one modality; run another pipeline for the others.")
    if not wanted:
        raise BadInput("Say which modality the inputs have: --modality T1, for example.")
    return wanted.pop()


def _translations(plan: Plan, cards: list[ModelCard], modality: str, values: argparse.Namespace) -> tuple[Translation, ...]:
    stage = plan.translate
    if stage is None:
        return ()
    if stage.to and not any(card.modalities for card in cards):
        raise BadInput(f"--to {' '.join(stage.to)} is for any-to-any models, and {', '.join(card.name for card in cards)} is none. Leave it out.")
    found = []
    for card in cards:
        if card.modalities and not stage.to:
            raise BadInput(f"Model {card.name} translates between {', '.join(card.modalities)}: say which are wanted with --to.")
        for target in stage.to if card.modalities else (card.target,):
            if not card.translates(modality, target):
                raise BadModel(f"Model {card.name} does not translate {modality} to {target}. imt models list shows what there is.")
            words = ["--uncertainty", "sd.nii.gz", "--samples", stage.uncertainty] if stage.uncertainty else []
            words += ["--single-plane"] if stage.single_plane else []
            words += ["--from", modality, "--to", target] if card.modalities else []
            arguments = _arguments(translate_arguments.add_arguments, plan, values, "--model", card.name, "--output", "out", *words)
            settings = translate_command.settings_of(arguments)
            settings.check()
            # Other processes may have another current folder.
            found.append(Translation(replace(card, path=card.path.absolute()), settings, modality, target))
    same = [one for one in found if sum(other.target.lower() == one.target.lower() for other in found) > 1]
    if len({(one.card.name.lower(), one.target.lower()) for one in same}) < len(same):
        raise BadInput("A model is named twice for the same modality. Name each once.")
    return tuple(replace(one, label=one.card.name) if one in same else one for one in found)


def _segmentation(plan: Plan, card: SegmenterCard, translations: tuple[Translation, ...], values: argparse.Namespace) -> Segmentation:
    stage = plan.segment
    words = ["--translator", stage.translator] if stage.translator is not None else []
    settings = segment_settings(_arguments(segment_arguments.add_arguments, plan, values, "--model", card.name, "--output", "out", *words))
    card = replace(card, path=card.path.absolute())
    own = _own_second(card, settings, translations)
    if own is not None:  # the same image would be made twice
        return Segmentation(card, None, replace(settings, translator=None), own)
    translator = find_translator(card, settings)
    if settings.translator is not None:
        translator = replace(translator, path=translator.path.absolute())
        settings = replace(settings, translator=str(translator.path))
    return Segmentation(card, translator, settings, None)


def _own_second(card: SegmenterCard, settings: SegmentationSettings, translations: tuple[Translation, ...]) -> int | None:
    """The translation that is just what the segmenter would make for itself: the same model, the same settings."""
    if card.second is None:
        return None
    wanted = settings.translation(card.source, card.second)
    named = None if settings.translator is None else find_translator(card, settings)
    for number, one in enumerate(translations):
        alike = one.settings.single_plane == wanted.single_plane and one.settings.dropout == wanted.dropout
        if named is not None:
            same = one.card.content == named.content
        else:
            same = card.translator == {"name": one.card.name, "sha256": one.card.sha256.lower()}
        if same and alike and one.target == card.second:
            return number
    return None


def _registration(plan: Plan, modality: str, translations: tuple[Translation, ...], values: argparse.Namespace) -> Registration:
    from IMTRegisterLib.atlases.atlas_sets import read_atlas_set
    from IMTRegisterLib.registration.subject import atlas_set_sha256
    from IMTRegisterLib.registration.translation import model_for

    stage = plan.register
    words: list[object] = ["--modality", modality, "--atlases", stage.atlases, "--output-labels", values.output, "--seed", plan.seed]
    words += ["--engine", stage.engine, "--preset", stage.preset, "--labels", stage.labels]
    given = {"--translate-to": stage.second, "--fusion": stage.fusion, "--weight": stage.weight}
    given |= {"--jobs": values.jobs, "--threads": values.threads, "--memory-gb": values.memory_gb, "--cache": values.cache}
    given |= {"--workers": values.workers}
    # The model that makes the second modality for the translate stage makes it for the registration too.
    models = [one.card for one in translations if stage.second is not None and one.target.lower() == stage.second.lower()]
    given |= {"--model": models[0].path.absolute()} if models else {}
    words += [word for option, value in given.items() if value is not None for word in (option, value)]
    words += ["--structures", *stage.structures] if stage.structures else []
    arguments = _parsed(register_arguments.add_arguments, "input", *words)
    settings = register_settings(arguments)
    model_for(settings)  # no case could be translated without one
    atlas_set = read_atlas_set(Path(stage.atlases).absolute(), settings.modalities)
    return Registration(arguments, atlas_set, atlas_set_sha256(atlas_set, settings))


def _arguments(add: Callable[[argparse.ArgumentParser], None], plan: Plan, values: argparse.Namespace, *words: object) -> argparse.Namespace:
    """The arguments of a single command, with the pipeline's common ones."""
    common: list[object] = ["--device", values.device, "--precision", values.precision, "--seed", plan.seed]
    common += ["--batch", values.batch] if values.batch is not None else []
    common += ["--bias-correction"] if plan.bias_correction else []
    common += [] if plan.check_modality else ["--no-modality-check"]
    return _parsed(add, "input", *common, *words)


def _parsed(add: Callable[[argparse.ArgumentParser], None], *words: object) -> argparse.Namespace:
    from .__main__ import Parser

    parser = Parser(prog="imt pipeline")
    add(parser)
    return parser.parse_args([str(word) for word in words])


@dataclass(frozen=True)
class PipelineJob:
    """One case with all its stages; may be sent to another process or machine.

    Attributes:
        files: where its outputs go.
        truths: modality -> the acquired images of it beside the input.
        references: stage (segment, register) -> its reference labels, which need not be there.
        root: folder of the input.
        threads: of its process, or None.
    """

    case: Case
    files: CaseFiles
    steps: Steps
    truths: dict[str, list[Path]]
    references: dict[str, Path]
    root: Path
    threads: int | None = None

    @property
    def output(self) -> Path:
        """The folder of its images."""
        return self.files.folder / self.files.name.folder

    def translate_job(self, number: int) -> translate_command.CaseJob:
        """The job of one translation."""
        one = self.steps.translations[number]
        uncertainty = self.files.uncertainty(one.target, one.label) if one.settings.samples else None
        return translate_command.CaseJob(self.case, self.files.translation(one.target, one.label), uncertainty)

    def segment_job(self, with_reference: bool = False) -> segment_cohort.CaseJob:
        """The job of the segmentation."""
        one = self.steps.segmentation
        second = None if one.own_second is None else self.translate_job(one.own_second).output
        probabilities = self.files.probabilities(one.card.task) if self.steps.plan.segment.probabilities else None
        outputs = SegmentationOutputs(self.files.labels(one.card.task), probabilities)
        reference = self.references.get("segment") if with_reference else None
        return segment_cohort.CaseJob(self.case, one.card, one.translator, one.settings, second, reference, outputs, self.threads)

    def register_job(self) -> register_cohort.CaseJob:
        """The job of the registration."""
        from IMTRegisterLib.registration.outputs import RegistrationOutputs

        one = self.steps.registration
        settings = register_cohort.case_settings(one.values, self.case)
        return register_cohort.CaseJob(self.case, one.atlas_set, one.atlas_set_hash, settings, RegistrationOutputs(self.files.labels(ATLAS)))

    def record(self) -> dict[str, Any]:
        """What its record begins with."""
        case = self.case
        return {
            "case": case.case,
            "subject": case.subject,
            "session": case.session,
            "modality": case.modality,
            "input": str(case.path),
            "name": self.files.name.examination,
        }
