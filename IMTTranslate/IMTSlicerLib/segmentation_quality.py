"""A segmentation against a reference: scores of each structure in a table, and where it is true, false and missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .nodes import placeBeside
from .segmentations import Labels, Structure, fillSegmentation, labelsOf
from .tables import addTable

if TYPE_CHECKING:
    import numpy as np

    from IMTCore.label_scores import LabelScores

# The colours of Yang et al. 2020, Figs. 8 to 10: pink, dark red, grey.
REGION_COLOURS = {"true": (1.0, 0.75, 0.8), "false": (0.55, 0.0, 0.0), "missing": (0.5, 0.5, 0.5)}
DIGITS = 3


@dataclass
class SegmentationComparison:
    """Scores of the structures that both segmentations have.

    Attributes:
        scores: structure's name -> `IMTCore.label_scores.LabelScores`.
        meanDice: over the structures.
        tableNode: the scores in a table.
    """

    scores: dict[str, LabelScores]
    meanDice: float
    tableNode: Any
    _found: np.ndarray
    _truth: np.ndarray
    _matrix: np.ndarray
    _foundID: str

    def showRegions(self, structure: str | None = None, node=None):
        """Fill a segmentation with the true, false and missing regions of one structure, or of all together.

        :param node: the segmentation node to fill, or None for a new one.
        :return: the node.
        """
        import numpy as np

        from IMTCore.label_scores import FALSE, MISSING, RIGHT, error_regions

        found = slicer.mrmlScene.GetNodeByID(self._foundID)
        if found is None:
            raise RuntimeError(_("The compared segmentation was removed. Compare again."))
        if structure is None:
            wrong = self._found != self._truth
            array = np.where(wrong & (self._found > 0), FALSE, np.where(wrong, MISSING, np.where(self._truth > 0, RIGHT, 0)))
        else:
            array = error_regions(self._truth, self._found, list(self.scores).index(structure) + 1)
        names = {"true": _("true"), "false": _("false"), "missing": _("missing")}
        codes = {"true": RIGHT, "false": FALSE, "missing": MISSING}
        title = _("{name}: true, false and missing ({structure})").format(name=found.GetName(), structure=structure or _("all"))
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        regions = [Structure(code, names[key], REGION_COLOURS[key]) for key, code in codes.items()]
        node.SetName(title)
        fillSegmentation(node, array.astype(np.uint8), self._matrix, regions)
        placeBeside(node, found)
        return node


def compareSegmentations(foundNode, referenceNode) -> SegmentationComparison:
    """Score a segmentation against a reference, structure by structure, matched by their names.

    :param foundNode: segmentation or label map; its grid is that of the comparison.
    :param referenceNode: segmentation (brought to that grid), or label map on that grid.
    :raises ValueError: nodes that cannot be compared.
    """
    from IMTCore.label_scores import score_labels
    from IMTCore.volume import Geometry

    if foundNode is referenceNode:
        raise ValueError(_("The segmentation and the reference are the same. Choose another one."))
    found = labelsOf(foundNode)
    truth = labelsOf(referenceNode, found)
    names = [one.name for one in found.structures if _named(truth, one.name) is not None]
    if not names:
        text = _("No structure has the same name in both: {found}, and {truth}. Rename the segments.")
        listed = {key: ", ".join(one.name for one in labels.structures[:5]) for key, labels in (("found", found), ("truth", truth))}
        raise ValueError(text.format(**listed))
    foundArray, truthArray = _renumber(found, names), _renumber(truth, names)
    geometry = Geometry.from_affine_ras(found.matrix, foundArray.shape)
    scored = score_labels(truthArray, foundArray, geometry, range(1, len(names) + 1))
    scores = {name: scored[number] for number, name in enumerate(names, start=1)}
    meanDice = meanOf([one.dice for one in scores.values()])
    title = _("{found} scores against {reference}").format(found=foundNode.GetName(), reference=referenceNode.GetName())
    tableNode = addTable(title, _scoreColumns(scores), foundNode)
    return SegmentationComparison(scores, meanDice, tableNode, foundArray, truthArray, found.matrix, foundNode.GetID())


def _named(labels: Labels, name: str) -> Structure | None:
    return next((one for one in labels.structures if one.name.strip().casefold() == name.strip().casefold()), None)


def _renumber(labels: Labels, names: list[str]) -> np.ndarray:
    import numpy as np

    table = np.zeros(int(labels.array.max(initial=0)) + 1, np.int32)
    for number, name in enumerate(names, start=1):
        code = _named(labels, name).code
        if code < len(table):  # else no voxel has it
            table[code] = number
    return table[labels.array]


def meanOf(values: Iterable[float]) -> float:
    """The mean of those that are numbers; NaN if none is."""
    numbers = [value for value in values if value == value]
    return sum(numbers) / len(numbers) if numbers else float("nan")


def _scoreColumns(scores: dict[str, LabelScores]) -> dict[str, list]:
    return {
        _("Structure"): list(scores),
        _("Dice"): [one.dice for one in scores.values()],
        _("95th percentile distance (mm)"): [one.hausdorff_95_mm for one in scores.values()],
        _("Mean surface distance (mm)"): [one.mean_surface_distance_mm for one in scores.values()],
        _("Volume (ml)"): [one.found_ml for one in scores.values()],
        _("Reference volume (ml)"): [one.truth_ml for one in scores.values()],
        _("Volume difference (ml)"): [one.found_ml - one.truth_ml for one in scores.values()],
        _("False (ml)"): [one.false_ml for one in scores.values()],
        _("Missing (ml)"): [one.missing_ml for one in scores.values()],
    }


def scoresAsHtml(comparison: SegmentationComparison) -> str:
    """The scores as a small table for a label."""
    from html import escape

    titles = (_("Structure"), _("Dice"), _("95 % distance"), _("mean distance"), _("volume difference"), _("false"), _("missing"))
    units = ("", "", "mm", "mm", "ml", "ml", "ml")
    head = "".join(f"<th align='left'>{title}&nbsp;&nbsp;</th>" for title in titles)
    head += "</tr><tr>" + "".join(f"<td>{unit}</td>" for unit in units)
    rows = []
    for name, one in comparison.scores.items():
        cells = [escape(name), f"{one.dice:.{DIGITS}f}", f"{one.hausdorff_95_mm:.2f}", f"{one.mean_surface_distance_mm:.2f}"]
        cells += [f"{one.found_ml - one.truth_ml:+.1f}", f"{one.false_ml:.1f}", f"{one.missing_ml:.1f}"]
        rows.append("<tr>" + "".join(f"<td>{cell}&nbsp;&nbsp;</td>" for cell in cells) + "</tr>")
    mean = f"<tr><td><b>{_('mean')}</b></td><td><b>{comparison.meanDice:.{DIGITS}f}</b></td></tr>"
    return f"<table><tr>{head}</tr>{''.join(rows)}{mean}</table>"


def showOutlines(segmentationNode, outlinesOnly: bool) -> None:
    """Show a segmentation's contours alone, or filled."""
    if segmentationNode is None:
        return
    segmentationNode.CreateDefaultDisplayNodes()
    display = segmentationNode.GetDisplayNode()
    display.SetVisibility2DFill(not outlinesOnly)
    display.SetVisibility2DOutline(True)
