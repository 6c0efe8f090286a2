"""The panel's quality section: scores against a reference, landmark distances, checkerboard, contours."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import views

from .quality import SegmentationComparison, showOutlines

DIGITS = 3


class QualityController:
    """Joins the quality section's widgets with the logic.

    :param ui: the panel's widgets by name.
    :param logic: the module's logic.
    :param log: takes a line.
    """

    def __init__(self, ui, logic, log: Callable[[str], None]) -> None:
        self._ui, self._logic, self._log = ui, logic, log
        self._parameterNode = None
        self._comparison: SegmentationComparison | None = None
        self._regionsID: str | None = None
        self._tableID: str | None = None
        ui.compareButton.connect("clicked(bool)", self.onCompareButton)
        ui.landmarksButton.connect("clicked(bool)", self.onLandmarksButton)
        ui.checkerboardButton.connect("clicked(bool)", self.onCheckerboardButton)
        ui.regionsComboBox.connect("currentIndexChanged(int)", self.onRegionsChanged)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node, or none; what was shown of a scene that is gone is taken away."""
        self._parameterNode = parameterNode
        if parameterNode is not None and slicer.mrmlScene.GetNodeByID(self._tableID or "") is None:
            self._comparison = self._regionsID = None
            for widget in (self._ui.regionsLabel, self._ui.regionsComboBox, self._ui.scoresLabel):
                widget.visible = False
            self.showTable(None)

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        node, ui = self._parameterNode, self._ui
        found = node.comparedSegmentation
        ui.compareButton.enabled = found is not None and node.referenceSegmentation is not None
        ui.landmarksButton.enabled = found is not None and node.landmarks is not None
        ui.checkerboardButton.enabled = node.inputVolume is not None and node.warpedVolume is not None
        ui.outlinesCheckBox.enabled = found is not None
        if found is not None and found.GetDisplayNode() is not None:
            showOutlines(found, node.outlinesOnly)

    def showTable(self, tableNode) -> None:
        """Show a table node; none hides the table."""
        self._ui.atlasTableView.setMRMLTableNode(tableNode)
        self._ui.atlasTableView.resizeColumnsToContents()
        self._ui.atlasTableView.visible = tableNode is not None
        self._tableID = tableNode.GetID() if tableNode is not None else None

    def onCompareButton(self, *_unused) -> None:
        """Score the segmentation against the reference."""
        node = self._parameterNode
        try:
            with slicer.util.WaitCursor():
                self._comparison = self._logic.compare(node.comparedSegmentation, node.referenceSegmentation)
        except (ValueError, RuntimeError) as error:
            self._comparison = None
            self._show(str(error))
            return
        finally:
            self._ui.regionsLabel.visible = self._ui.regionsComboBox.visible = self._comparison is not None
        self._show(scoresAsHtml(self._comparison))
        self.showTable(self._comparison.tableNode)
        self._log(_("Mean Dice of {count} structures: {dice:.3f}").format(count=len(self._comparison.scores), dice=self._comparison.meanDice))
        box = self._ui.regionsComboBox
        blocked = box.blockSignals(True)
        box.clear()
        box.addItem(_("all structures"), "")
        for name in self._comparison.scores:
            box.addItem(name, name)
        box.blockSignals(blocked)
        self.onRegionsChanged()

    def onRegionsChanged(self, *_unused) -> None:
        """Show the true, false and missing regions of the chosen structure."""
        if self._comparison is None or self._parameterNode is None:
            return
        node = slicer.mrmlScene.GetNodeByID(self._regionsID) if self._regionsID else None
        try:
            node = self._comparison.showRegions(self._ui.regionsComboBox.currentData or None, node)
        except RuntimeError as error:
            self._show(str(error))
            return
        self._regionsID = node.GetID()
        for compared in (self._parameterNode.comparedSegmentation, self._parameterNode.referenceSegmentation):
            if compared is not None and compared.IsA("vtkMRMLSegmentationNode") and compared.GetDisplayNode() is not None:
                compared.GetDisplayNode().SetVisibility(False)  # the regions would lie under it

    def onLandmarksButton(self, *_unused) -> None:
        """Measure the landmarks' distances."""
        node = self._parameterNode
        try:
            comparison = self._logic.compareLandmarks(node.landmarks, node.comparedSegmentation)
        except (ValueError, RuntimeError) as error:
            self._show(str(error))
            return
        rows = [f"{atlas}: {', '.join(f'{name} {value:.2f}' for name, value in found.items())} mm" for atlas, found in comparison.distances.items()]
        rows.append(_("Mean: {distance:.2f} mm").format(distance=comparison.meanDistance))
        self._show("<br>".join(rows))
        self.showTable(comparison.tableNode)

    def onCheckerboardButton(self, *_unused) -> None:
        """Show the input and the warped atlas as a checkerboard."""
        node = self._parameterNode
        try:
            board = self._logic.checkerboard(node.inputVolume, node.warpedVolume)
        except (ValueError, RuntimeError) as error:
            self._show(str(error))
            return
        views.showVolume(board)

    def _show(self, text: str) -> None:
        self._ui.scoresLabel.text = text
        self._ui.scoresLabel.visible = True


def scoresAsHtml(comparison: SegmentationComparison) -> str:
    """The scores as a small table for a label."""
    from html import escape

    titles = (_("Structure"), _("Dice"), _("95 % distance"), _("mean distance"), _("false"), _("missing"))
    head = "".join(f"<th align='left'>{title}&nbsp;&nbsp;</th>" for title in titles)
    rows = []
    for name, one in comparison.scores.items():
        cells = [escape(name), f"{one.dice:.{DIGITS}f}", f"{one.hausdorff_95_mm:.2f} mm", f"{one.mean_surface_distance_mm:.2f} mm"]
        cells += [f"{one.false_ml:.1f} ml", f"{one.missing_ml:.1f} ml"]
        rows.append("<tr>" + "".join(f"<td>{cell}&nbsp;&nbsp;</td>" for cell in cells) + "</tr>")
    mean = f"<tr><td><b>{_('mean')}</b></td><td><b>{comparison.meanDice:.{DIGITS}f}</b></td></tr>"
    return f"<table><tr>{head}</tr>{''.join(rows)}{mean}</table>"
