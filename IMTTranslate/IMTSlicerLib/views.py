"""What the slice views show, where there are any (not in a run without main window)."""

from __future__ import annotations


def _layoutManager():
    import slicer

    return slicer.app.layoutManager() if hasattr(slicer.app, "layoutManager") else None


def showVolume(node) -> None:
    """Show a volume in all slice views."""
    if _layoutManager() is not None:
        import slicer

        slicer.util.setSliceViewerLayers(background=node, foreground=None, fit=True)


def showOver(node, overlay, opacity: float = 0.5) -> None:
    """Show a volume in all slice views with another one over it."""
    if _layoutManager() is not None:
        import slicer

        slicer.util.setSliceViewerLayers(background=node, foreground=overlay, foregroundOpacity=opacity, fit=True)


def showSideBySide(first, second, overlay=None, opacity: float = 0.5) -> None:
    """Show two volumes beside each other in axial views that move together; `overlay` lies over the second."""
    manager = _layoutManager()
    if manager is None:
        return
    import slicer

    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    for name, node, over in (("Red", first, None), ("Yellow", second, overlay)):
        widget = manager.sliceWidget(name)
        if widget is None:
            continue
        widget.mrmlSliceNode().SetOrientation("Axial")
        composite = widget.mrmlSliceCompositeNode()
        composite.SetLinkedControl(0)  # so that one view's volumes are not given to the other
        composite.SetBackgroundVolumeID(node.GetID())
        composite.SetForegroundVolumeID(over.GetID() if over is not None else None)
        composite.SetForegroundOpacity(opacity if over is not None else 0.0)
    for name in ("Red", "Yellow"):
        widget = manager.sliceWidget(name)
        if widget is not None:
            widget.sliceLogic().FitSliceToAll()
            widget.mrmlSliceCompositeNode().SetLinkedControl(1)
            widget.mrmlSliceCompositeNode().SetHotLinkedControl(1)


def showColorLegend(node) -> None:
    """Show the color legend of a volume in the views."""
    import slicer

    if _layoutManager() is None or not hasattr(slicer.modules, "colors"):
        return
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetTitleText(node.GetName()[:30])
