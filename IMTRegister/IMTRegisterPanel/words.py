"""What the panel says of a run, in words."""

from __future__ import annotations

import re

from slicer.i18n import tr as _

ATLAS_PROGRESS = re.compile(r"atlas (?P<atlas>\S+): (?P<stage>.+) \((?P<done>\d+) of (?P<all>\d+) done\)")


def stageInWords(message: str) -> str:
    """What `imt register` is doing, from its "stage: details"."""
    stage, _separator, details = message.partition(": ")
    words = {
        "read": _("Reading the volumes"),
        "translate": _("Translating the input"),
        "labels": _("Carrying the labels over"),
        "write": _("Writing the results"),
        "done": _("Taking the results into the scene"),
    }
    if stage == "register":
        return atlasInWords(details)
    return words.get(stage, details or message)


def atlasInWords(details: str) -> str:
    """Which atlas is at which stage."""
    found = ATLAS_PROGRESS.fullmatch(details)
    if found is None:
        return _("Registering")
    stages = {
        "prepare": _("preparing"),
        "linear": _("linear alignment"),
        "fuse": _("fusing the deformations"),
        "done": _("finished"),
        "failed": _("failed"),
    }
    stage = stages.get(found["stage"]) or _("deformation by {modality}").format(modality=found["stage"])
    text = _("Atlas {atlas}: {stage} ({done} of {all} finished)")
    return text.format(atlas=found["atlas"], stage=stage, done=found["done"], all=found["all"])


def methodInWords(engine: str, preset: str, fusion: str, automatic: bool, labels: str, modalities: tuple[str, str | None]) -> str:
    """What the chosen settings do."""
    given, second = modalities
    engines = {
        "greedy": _("Greedy: fast diffeomorphic registration"),
        "ants": _("ANTs: symmetric normalization (SyN); slow"),
        "elastix": _("Elastix: B-splines with mutual information"),
    }
    presets = {"fast": _("few iterations"), "paper": _("the settings of Yang et al. 2020, many iterations")}
    parts = [f"{engines[engine]}, {presets[preset]}."]
    if second is None:
        parts.append(_("{given} alone is registered.").format(given=given))
    else:
        fusions = {
            "none": _("{given} alone is registered; {second} is not used."),
            "mean": _("{given} and {second} are registered one after the other, and their deformations averaged."),
            "log": _("{given} and {second} are registered one after the other, and their deformations averaged without folds (log-Euclidean)."),
            "local": _("{given} and {second} are registered one after the other; at each voxel the one that fits better counts more."),
            "joint": _("{given} and {second} are registered together, in one run with both images."),
        }
        parts.append(fusions[fusion].format(given=given, second=second))
        if fusion in ("mean", "log", "joint") and automatic:
            parts.append(_("How well each fits sets its share."))
    methods = {
        "mean": _("At each voxel the label with the largest mean share of the atlases wins."),
        "majority": _("At each voxel the label of most atlases wins."),
        "staple": _("STAPLE weighs the atlases by how well they agree."),
        "joint": _("Joint label fusion weighs the atlases by their likeness at each voxel (needs ANTs)."),
    }
    return " ".join([*parts, methods[labels]])
