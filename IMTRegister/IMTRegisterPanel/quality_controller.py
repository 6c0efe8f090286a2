"""The panel's quality section: scores against a reference, landmark distances, checkerboard, contours."""

from __future__ import annotations

from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.comparison_section import ComparisonSection


class QualityController(ComparisonSection):
    """Joins the quality section's widgets with the logic; see `ComparisonSection`."""

    def __init__(self, ui, logic, log) -> None:
        super().__init__(ui, ui.atlasTableView, logic, log)
        ui.landmarksButton.connect("clicked(bool)", self.onLandmarksButton)
        ui.checkerboardButton.connect("clicked(bool)", self.onCheckerboardButton)

    def update(self) -> None:
        """Bring the widgets in step with the parameter node."""
        super().update()
        node, ui = self._parameterNode, self._ui
        ui.landmarksButton.enabled = node.comparedSegmentation is not None and node.landmarks is not None
        ui.checkerboardButton.enabled = node.inputVolume is not None and node.warpedVolume is not None

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
