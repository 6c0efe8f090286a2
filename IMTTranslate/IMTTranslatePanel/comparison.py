"""A synthetic volume against a real one: scores in a table, an error map, and both volumes side by side."""

from __future__ import annotations

import json
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.jobs import Job
from IMTSlicerLib.nodes import (
    MARK_ATTRIBUTE,
    brightest,
    checkVolume,
    fillVolume,
    gridOf,
    haveSameGrid,
    markOf,
    placeBeside,
    readVolume,
    showInRange,
    writeVolume,
)
from IMTSlicerLib.tables import addTable

COLUMNS = ("Scaling", "Region", "MAE", "PSNR (dB)", "SSIM", "MI (nats)")
KEYS = ("scaling", "region", "mae", "psnr", "ssim", "mi")


class ComparisonRun:
    """Scores a synthetic volume node against a real one, in the background.

    After `job` has finished: `scores` (as `imt evaluate` reports them), `tableNode` and `errorNode`.

    :param syntheticNode, realNode: scalar volumes on one grid.
    :param maskNode: label map on the same grid: where to compare; None compares where the real volume is foreground.
    :raises ValueError: if one cannot be used, or they are not on one grid.
    """

    def __init__(self, syntheticNode, realNode, maskNode=None) -> None:
        checkVolume(syntheticNode, _("synthetic volume"))
        checkVolume(realNode, _("real volume"))
        if syntheticNode is realNode:
            raise ValueError(_("The synthetic and the real volume are the same. Choose another one."))
        if maskNode is not None and (maskNode.GetImageData() is None or not slicer.util.arrayFromVolume(maskNode).any()):
            raise ValueError(_("The region {name} is empty. Draw it, or choose none.").format(name=maskNode.GetName()))
        for node in (realNode, maskNode):
            if node is not None and not haveSameGrid(syntheticNode, node):
                raise ValueError(
                    _("{name} is not on the grid of {other}. Resample it with the module Resample Scalar/Vector/DWI Volume first.").format(
                        name=node.GetName(), other=syntheticNode.GetName()
                    )
                )
        self.scores: list[dict] = []
        self.tableNode = self.errorNode = None
        self.errorMessage = ""
        self._syntheticID, self._realID = syntheticNode.GetID(), realNode.GetID()
        self._maskID = maskNode.GetID() if maskNode is not None else None
        self.job = Job(self._requests, title=_("Compare"))
        self.job.finished.connect(self._onFinished)

    def comparedNodes(self) -> tuple:
        """The synthetic and the real volume; None for one that is not there any more."""
        return tuple(slicer.mrmlScene.GetNodeByID(nodeID) for nodeID in (self._syntheticID, self._realID))

    def _requests(self, folder: Path) -> list[list[str]]:
        synthetic, real = self.comparedNodes()
        prediction = writeVolume(synthetic, folder / "synthetic.nrrd")
        if markOf(synthetic):  # it tells the scale of the intensities
            prediction.with_suffix(".json").write_text(synthetic.GetAttribute(MARK_ATTRIBUTE), encoding="utf-8")
        truth = writeVolume(real, folder / "real.nrrd")
        request = ["evaluate", "--truth", str(truth), "--prediction", str(prediction)]
        request += ["--error-map", str(folder / "error.nrrd"), "--report", str(folder / "report.json")]
        if self._maskID:
            mask = writeVolume(slicer.mrmlScene.GetNodeByID(self._maskID), folder / "mask.nrrd")
            request += ["--mask", str(mask)]
        return [request]

    def _onFinished(self) -> None:
        try:
            self._import(self.job.folder)
        except Exception as error:
            self.errorMessage = str(error)
            raise

    def _import(self, folder: Path) -> None:
        synthetic, real = self.comparedNodes()
        if synthetic is None or real is None:
            raise RuntimeError(_("A compared volume was removed meanwhile; the comparison was dropped."))
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        matrix, dimensions = gridOf(synthetic)
        loaded = readVolume(folder / "error.nrrd", matrix, dimensions)
        self.scores = report["scores"]
        self.errorNode = fillVolume(loaded, None, matrix)
        names = {"synthetic": synthetic.GetName(), "real": real.GetName()}
        self.errorNode.SetName(slicer.mrmlScene.GenerateUniqueName(_("{synthetic} error (%) against {real}").format(**names)))
        self.errorNode.SetDescription(_("|synthetic - real| in percent of the real volume's range (its 99.5th percentile)"))
        placeBeside(self.errorNode, synthetic)
        showInRange(self.errorNode, 0.0, brightest(self.errorNode), heat=True)
        columns = {title: [row[key] for row in self.scores] for title, key in zip(COLUMNS, KEYS, strict=True)}
        self.tableNode = addTable(_("{synthetic} scores against {real}").format(**names), columns, synthetic)


def scoresAsHtml(scores: list[dict]) -> str:
    """The scores as a small table for a label."""
    head = "".join(f"<th align='left'>{title}&nbsp;&nbsp;</th>" for title in COLUMNS)

    def cell(key: str, value) -> str:
        return f"<td>{value}&nbsp;&nbsp;</td>" if key in KEYS[:2] else f"<td>{'-' if value is None else format(value, '.4g')}&nbsp;&nbsp;</td>"

    rows = "".join("<tr>" + "".join(cell(key, row[key]) for key in KEYS) + "</tr>" for row in scores)
    return f"<table><tr>{head}</tr>{rows}</table>"
