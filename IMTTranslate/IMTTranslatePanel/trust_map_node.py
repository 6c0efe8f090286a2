"""The trust map in the scene: a label map with its legend, shown over the synthetic image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib import views
from IMTSlicerLib.nodes import markNode, placeBeside, readVolume, removeNode
from IMTSlicerLib.saved_marks import followSaving

COLORS_NAME = "IMT trust"
OPACITY = 0.6
KINDS = 4  # with "nothing to say"
LEGEND_SIZE = (0.5, 0.28)  # of the view: names take more room than numbers
LEGEND_PLACE = (0.98, 0.02)  # its lower right corner, off the head


def readTrustMap(path: Path, matrix, dimensions=None):
    """Load a trust map and its legend as a new label map; arguments and errors as of `readVolume`."""
    from IMTCore.label_names import colour_table, read_label_names

    names = read_label_names(colour_table(path))
    loaded = readVolume(path, matrix, dimensions)
    try:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", path.stem)
        node.SetAndObserveImageData(loaded.GetImageData())
        node.SetIJKToRASMatrix(matrix)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAndObserveColorNodeID(legendColors(names).GetID())
    finally:
        removeNode(loaded)
    return node


def placeTrustMap(node, title: str, record: dict[str, Any], inputNode) -> None:
    """Name and mark a trust map, and put it beside the input."""
    node.SetName(slicer.mrmlScene.GenerateUniqueName(title))
    markNode(node, record)
    followSaving(node)
    placeBeside(node, inputNode)


def legendColors(names):
    """The scene's colour table of the legend; made at its first use, and saved with the scene."""
    found = slicer.mrmlScene.GetFirstNodeByName(COLORS_NAME)
    if found is not None and found.IsA("vtkMRMLColorTableNode"):
        return found
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", COLORS_NAME)
    node.SetTypeToUser()
    node.SetNumberOfColors(max(names) + 1)
    node.SetColor(0, _("nothing to say"), 0.0, 0.0, 0.0, 0.0)
    for code, entry in names.items():
        node.SetColor(code, entry.name, *(part / 255 for part in entry.colour), 1.0)
    node.SetHideFromEditors(True)
    return node


def showTrustMap(syntheticNode, node) -> None:
    """Show a synthetic volume in all slice views, its trust map over it, and the legend; nothing without a main window."""
    if not hasattr(slicer.app, "layoutManager") or slicer.app.layoutManager() is None:
        return
    slicer.util.setSliceViewerLayers(background=syntheticNode, foreground=None, label=node, labelOpacity=OPACITY, fit=True)
    views.showColorLegend(node)
    if hasattr(slicer.modules, "colors"):
        nameLegend(slicer.modules.colors.logic().GetColorLegendDisplayNode(node))


def nameLegend(legend) -> None:
    """Let the legend of a trust map tell the kinds of doubt by their names, all of them."""
    if legend is None:
        return
    legend.SetTitleText(_("Trust map"))
    legend.SetUseColorNamesForLabels(True)
    legend.SetNumberOfLabels(KINDS)
    legend.SetMaxNumberOfColors(KINDS)
    legend.SetSize(*LEGEND_SIZE)
    legend.SetPosition(*LEGEND_PLACE)
