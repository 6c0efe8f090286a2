"""Look-alikes of Slicer's widgets, as attributes of the module `slicer`. Anything else called qMRML… is an error."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

from .dressing import NotImitatedError, QtCore, QtWidgets, look_alike, widgets
from .node_selector import qMRMLNodeComboBox
from .widget_tools import Signal, observe

Qt = QtCore.Qt


@look_alike
class qMRMLWidget(QtWidgets.QWidget):
    """A widget that hands its scene to its children, where the .ui file connects them."""

    mrmlSceneChanged = Signal(object)
    _signatures = {"mrmlSceneChanged(vtkMRMLScene*)": None}

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@look_alike
class qSlicerWidget(qMRMLWidget):
    """The same under Slicer's name."""


@look_alike
class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Checks any number of nodes. As in Slicer, the check is a property of the node, so two such boxes share it."""

    checkedNodesChanged = Signal()

    def checkedNodes(self) -> list:
        return [node for node in self.nodes() if node.GetSelected()]

    def uncheckedNodes(self) -> list:
        return [node for node in self.nodes() if not node.GetSelected()]

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node: Any) -> Any:
        return Qt.Checked if node.GetSelected() else Qt.Unchecked

    def setCheckState(self, node: Any, state: Any) -> None:
        if self.checkState(node) != Qt.CheckState(state):
            node.SetSelected(Qt.CheckState(state) == Qt.Checked)
            self.checkedNodesChanged.emit()


@look_alike
class qMRMLTableView(QtWidgets.QTableWidget):
    """Shows a table node, and writes what the user types back into it."""

    mrmlSceneChanged = Signal(object)
    _signatures = {"mrmlSceneChanged(vtkMRMLScene*)": None}

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._scene: Any = None
        self._node: Any = None
        self._filling = False
        self.itemChanged.connect(self._on_item)

    mrmlScene = qMRMLWidget.mrmlScene
    setMRMLScene = qMRMLWidget.setMRMLScene

    def setMRMLTableNode(self, node: Any) -> None:
        if node is not self._node and node is not None:
            observe(node, (vtk.vtkCommand.ModifiedEvent,), self, "_on_node")
        self._node = node
        self._on_node(node, "")

    def _on_node(self, node: Any, _event: str) -> None:
        if node is not self._node or self._filling:
            return
        self._filling = True
        columns = range(node.GetNumberOfColumns()) if node is not None else range(0)
        self.setColumnCount(len(columns))
        self.setRowCount(node.GetNumberOfRows() if node is not None else 0)
        self.setHorizontalHeaderLabels([node.GetColumnName(column) for column in columns])
        for column in columns:
            for row in range(node.GetNumberOfRows()):
                item = QtWidgets.QTableWidgetItem(node.GetCellText(row, column))
                if node.GetLocked():
                    item.setFlags(item.flags() & ~Qt.ItemIsEditable)
                self.setItem(row, column, item)
        self._filling = False

    def _on_item(self, item: Any) -> None:
        if not self._filling:
            self._filling = True
            self._node.SetCellText(item.row(), item.column(), item.text())
            self._filling = False


def _refuse(name: str) -> Any:
    if name.startswith(("qMRML", "qSlicer")):
        raise NotImitatedError(f"slicer_harness does not imitate slicer.{name}")
    raise AttributeError(f"module 'slicer' has no attribute {name!r}")


def install() -> None:
    """Publish the look-alikes in the module `slicer`."""
    for name, cls in widgets.items():
        if name.startswith(("qMRML", "qSlicer")):
            setattr(slicer, name, cls)
    slicer.__getattr__ = _refuse
