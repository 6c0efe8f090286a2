"""The part of a panel that compares a segmentation with a reference: scores, a table, and the regions of a structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from .segmentation_quality import SegmentationComparison, scoresAsHtml, showOutlines


class ComparisonSection:
    """Joins the widgets with the logic's `compare`.

    The parameter node has `comparedSegmentation`, `referenceSegmentation` and `outlinesOnly`.

    :param ui: the panel's widgets by name: compareButton, regionsLabel, regionsComboBox, scoresLabel, outlinesCheckBox.
    :param tableView: shows the scores, or any other table of the module's.
    :param logic: the module's logic.
    :param log: takes a line.
    """

    def __init__(self, ui, tableView, logic, log: Callable[[str], None]) -> None:
        self._ui, self._tableView, self._logic, self._log = ui, tableView, logic, log
        self._parameterNode: Any = None
        self._comparison: SegmentationComparison | None = None
        self._regions: Any = None  # nodes, not IDs, which the next scene uses again
        self._table: Any = None
        self._outlined: tuple | None = None  # which segmentation, and whether its outlines alone are shown
        ui.compareButton.connect("clicked(bool)", self.onCompareButton)
        ui.regionsComboBox.connect("currentIndexChanged(int)", self.onRegionsChanged)

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node, or none; what was shown of a scene that is gone is taken away."""
        self._parameterNode = parameterNode
        if slicer.mrmlScene.IsClosing() or self._table is None or not slicer.mrmlScene.IsNodePresent(self._table):
            self._comparison = self._regions = self._outlined = None
            for widget in (self._ui.regionsLabel, self._ui.regionsComboBox, self._ui.scoresLabel):
                widget.visible = False
            self.showTable(None)

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        node, found = self._parameterNode, self._parameterNode.comparedSegmentation
        self._ui.compareButton.enabled = found is not None and node.referenceSegmentation is not None
        self._ui.outlinesCheckBox.enabled = found is not None
        before, self._outlined = self._outlined, (found, node.outlinesOnly) if found is not None else None
        # What the user has made of a segmentation's display stays, unless outlines are wanted.
        wanted = node.outlinesOnly or (before is not None and before[0] is found)
        if self._outlined != before and wanted and found is not None and found.GetDisplayNode() is not None:
            showOutlines(found, node.outlinesOnly)

    def showTable(self, tableNode) -> None:
        """Show a table node; none hides the table."""
        self._tableView.setMRMLTableNode(tableNode)
        self._tableView.resizeColumnsToContents()
        self._tableView.visible = tableNode is not None
        self._table = tableNode

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
        text = _("Mean Dice of {count} structures: {dice:.3f}")
        self._log(text.format(count=len(self._comparison.scores), dice=self._comparison.meanDice))
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
        node = self._regions if self._regions is not None and slicer.mrmlScene.IsNodePresent(self._regions) else None
        try:
            self._regions = self._comparison.showRegions(self._ui.regionsComboBox.currentData or None, node)
        except RuntimeError as error:
            self._show(str(error))
            return
        for compared in (self._parameterNode.comparedSegmentation, self._parameterNode.referenceSegmentation):
            if compared is not None and compared.IsA("vtkMRMLSegmentationNode") and compared.GetDisplayNode() is not None:
                compared.GetDisplayNode().SetVisibility(False)  # the regions would lie under it

    def _show(self, text: str) -> None:
        self._ui.scoresLabel.text = text
        self._ui.scoresLabel.visible = True
