"""The layout manager: slice views exist as real MRML nodes and logics, without a window. No Qt."""

from __future__ import annotations

from typing import Any

import slicer

from .core import Callbacks

ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
_logics: dict[str, Any] = {}


def slice_logic(name: str, orientation: str | None = None) -> Any:
    """The logic of the slice view of that name, made when it is first asked for."""
    if name not in _logics:
        application = slicer.app.applicationLogic()
        logic = _logics[name] = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application)
        application.GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        logic.AddSliceNode(name)
        node = logic.GetSliceNode()
        node.SetOrientation(orientation or ORIENTATIONS.get(name, "Axial"))
        node.SetDimensions(256, 256, 1)
        node.SetFieldOfView(256, 256, 1)
        node.SetMappedInLayout(1)
    return _logics[name]


class SliceWidget:
    """layoutManager().sliceWidget(name), its controller and its view in one."""

    def __init__(self, name: str):
        self._logic = slice_logic(name)

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceController(self) -> SliceWidget:
        return self

    def sliceView(self) -> SliceWidget:
        return self

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToAll()

    def forceRender(self) -> None:
        pass

    scheduleRender = forceRender


class LayoutManager(Callbacks):
    """slicer.app.layoutManager(): Red, Yellow and Green; no 3D, table or plot views."""

    threeDViewCount = tableViewCount = plotViewCount = 0

    def __init__(self):
        super().__init__()
        self.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self._slices = {name: SliceWidget(name) for name in ORIENTATIONS}

    def sliceViewNames(self) -> list[str]:
        return list(self._slices)

    def sliceWidget(self, name: str) -> Any:
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        pass

    def setLayout(self, layout: int) -> None:
        self.layout = layout
        self.emit("layoutChanged", layout)
