"""PNG pictures of slices and 3D views, without a display and without Qt: Slicer's own displayable managers draw.

>>> SliceView("Red").show(background=t1, foreground=t2, label=labels).save("red.png")
>>> ThreeDView().save("surfaces.png")
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .layout import slice_logic

if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # else VTK looks for X first, and complains

SLICE_MANAGERS = (
    *("vtkMRMLModelSliceDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager"),
    *("vtkMRMLTransformsDisplayableManager2D", "vtkMRMLColorLegendDisplayableManager", "vtkMRMLRulerDisplayableManager"),
    "vtkMRMLOrientationMarkerDisplayableManager",
)
THREED_MANAGERS = (
    *("vtkMRMLCameraDisplayableManager", "vtkMRMLViewDisplayableManager", "vtkMRMLModelDisplayableManager"),
    *("vtkMRMLSegmentationsDisplayableManager3D", "vtkMRMLMarkupsDisplayableManager", "vtkMRMLTransformsDisplayableManager3D"),
    "vtkMRMLThreeDReformatDisplayableManager",
)


class _View:
    """A window that is never shown, with displayable managers that draw a view node."""

    def __init__(self, node: Any, factory: Any, managers: tuple[str, ...], size: tuple[int, int]):
        self.node = node
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.ShowWindowOff()
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.SetRenderer(self.renderer)
        self._group.Initialize(factory, self.renderer)

    def image(self) -> Any:
        """What the view shows, as vtkImageData."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        return grab.GetOutput()

    def array(self) -> np.ndarray:
        """What the view shows, as [row, column, red green blue], row 0 at the top."""
        image = self.image()
        columns, rows, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1, :, :3]

    def save(self, path: str | Path) -> Path:
        """Write a PNG."""
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(path))
        writer.SetInputData(self.image())
        writer.Write()
        return Path(path)


class SliceView(_View):
    """A slice view; it shows what the composite node of that name says, with overlays, segmentations and markups."""

    def __init__(self, name: str = "Red", orientation: str | None = None, size: tuple[int, int] = (400, 400)):
        self.logic = slice_logic(name, orientation)
        super().__init__(
            self.logic.GetSliceNode(), slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), SLICE_MANAGERS, size
        )
        # In Slicer a CTK class shows the reformatted image.
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(actor)
        if orientation:
            self.node.SetOrientation(orientation)
        self.node.SetDimensions(*size, 1)
        self._group.SetMRMLDisplayableNode(self.node)

    def show(
        self, background: Any = None, foreground: Any = None, label: Any = None, opacity: float = 0.5, labelOpacity: float = 1.0
    ) -> SliceView:
        """Put volumes into the layers, None for an empty one, and fit the view to them."""
        composite = self.logic.GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(background.GetID() if background else None)
        composite.SetForegroundVolumeID(foreground.GetID() if foreground else None)
        composite.SetLabelVolumeID(label.GetID() if label else None)
        composite.SetForegroundOpacity(opacity)
        composite.SetLabelOpacity(labelOpacity)
        self.logic.FitSliceToAll()
        return self

    def image(self) -> Any:
        connection = self.logic.GetImageDataConnection()
        if connection is not None:
            self._mapper.SetInputConnection(connection)
        return super().image()


class ThreeDView(_View):
    """A 3D view of models, segmentations' surfaces, markups and transforms; volume rendering is left out, as it is slow."""

    def __init__(self, name: str = "1", size: tuple[int, int] = (400, 400)):
        self.logic = slicer.vtkMRMLViewLogic()
        application = slicer.app.applicationLogic()
        self.logic.SetMRMLApplicationLogic(application)
        application.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(slicer.mrmlScene)
        node = self.logic.AddViewNode(name)
        node.SetMappedInLayout(1)
        super().__init__(node, slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), THREED_MANAGERS, size)
        self._group.SetMRMLDisplayableNode(self.node)
        self.renderer.GradientBackgroundOn()
        self.renderer.SetBackground(0.76, 0.76, 0.91)
        self.renderer.SetBackground2(0.45, 0.47, 0.74)

    def image(self) -> Any:
        self.renderer.ResetCamera()
        return super().image()


def show_color_legend(volume: Any) -> Any:
    """Show the colour legend of a volume in the slice views that have it; returns its display node."""
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(volume)
    legend.SetVisibility(True)
    return legend
