"""qMRMLNodeComboBox. Which node is current after nodes come and go is left to a real QComboBox, as it is in Slicer."""

from __future__ import annotations

import logging
from typing import Any

import slicer
import vtk

from .ctk_widgets import ctkComboBox
from .dressing import QtCore, QtGui, QtWidgets, look_alike
from .widget_tools import Signal, fill_row, observe, stored

_ID, _ACTION = QtCore.Qt.UserRole, QtCore.Qt.UserRole + 1


@look_alike
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Chooses a node of the scene; disabled until it has one."""

    mrmlSceneChanged = Signal(object)
    currentNodeChanged, currentNodeIDChanged, currentNodeRenamed = Signal(object), Signal(str), Signal(str)
    nodeActivated, nodeAdded, nodeAddedByUser, nodeAboutToBeEdited = (Signal(object) for _ in range(4))
    _signatures = {
        "mrmlSceneChanged(vtkMRMLScene*)": None,
        "currentNodeChanged(vtkMRMLNode*)": None,
        "currentNodeChanged(bool)": lambda node: node is not None,
        "nodeActivated(vtkMRMLNode*)": None,
        "nodeAdded(vtkMRMLNode*)": None,
        "nodeAddedByUser(vtkMRMLNode*)": None,
        "nodeAboutToBeEdited(vtkMRMLNode*)": None,
    }

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._scene: Any = None
        self._requested = ""
        self._attributes: dict[tuple[str, str], str | None] = {}
        self._base_names: dict[str, str] = {}
        self._observed: set[str] = set()
        self._box = ctkComboBox()
        self._box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Preferred)
        fill_row(self, self._box)
        self._box.currentTextChanged.connect(self._on_text)
        self._box.activated.connect(self._on_activated)
        self._box.view().clicked.connect(self.activateExtraItem)
        self.setEnabled(False)

    nodeTypes = property(lambda self: self._node_types, lambda self, value: self._set_node_types(value))
    noneEnabled = stored("noneEnabled", False, changed=lambda self: self._update())
    noneDisplay = stored("noneDisplay", "None", changed=lambda self: self._update())
    addEnabled = stored("addEnabled", True, changed=lambda self: self._update())
    removeEnabled = stored("removeEnabled", True, changed=lambda self: self._update())
    editEnabled = stored("editEnabled", False, changed=lambda self: self._update())
    renameEnabled = stored("renameEnabled", False, changed=lambda self: self._update())
    showHidden = stored("showHidden", False, changed=lambda self: self._update())
    showChildNodeTypes = stored("showChildNodeTypes", True, changed=lambda self: self._update())
    hideChildNodeTypes = stored("hideChildNodeTypes", (), changed=lambda self: self._update())
    selectNodeUponCreation = stored("selectNodeUponCreation", True)
    baseName = property(lambda self: self._base_name(), lambda self, value: self.setBaseName(value))
    currentNodeID = property(lambda self: self._id(self.currentNode()), lambda self, value: self._set_id(value))
    _node_types: tuple[str, ...] = ()

    # --- What it offers ---

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Slicer selects no node here, even if there is one and no None."""
        if scene is self._scene:
            return
        self._scene = scene
        if scene is not None:
            known = slicer.vtkMRMLScene
            events = (known.NodeAddedEvent, known.NodeRemovedEvent, known.EndCloseEvent, known.EndImportEvent)
            observe(scene, (*events, known.EndBatchProcessEvent), self, "_on_scene")
        self._box.blockSignals(True)
        self._update()
        self._box.setCurrentIndex(-1)
        self._box.blockSignals(False)
        self._set_id(self._requested)
        self.setEnabled(scene is not None)
        self.mrmlSceneChanged.emit(scene)

    def _accepts(self, node: Any) -> bool:
        if node is None or (node.GetHideFromEditors() and not self.showHidden):
            return False
        if not any(node.GetClassName() == kind or (self.showChildNodeTypes and node.IsA(kind)) for kind in self.nodeTypes):
            return False
        if any(node.IsA(kind) for kind in self.hideChildNodeTypes):
            return False
        wanted = [(name, value) for (kind, name), value in self._attributes.items() if node.IsA(kind)]
        return all(node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name)) for name, value in wanted)

    def nodes(self) -> list:
        """The nodes that it offers, in the scene's order."""
        nodes = self._scene.GetNodes() if self._scene is not None else vtk.vtkCollection()
        found = (nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems()))
        return [node for node in found if self._accepts(node)]

    def nodeCount(self) -> int:
        return len(self.nodes())

    def _set_node_types(self, value: Any) -> None:
        self._node_types = tuple(kind for kind in value if kind)
        self._update()

    def addAttribute(self, nodeType: str, name: str, value: Any = None) -> None:
        """Offer only those nodes of the type that have the attribute, and give it to new nodes."""
        self._attributes[nodeType, name] = None if value is None else str(value)
        self._update()

    def removeAttribute(self, nodeType: str, name: str) -> None:
        self._attributes.pop((nodeType, name), None)
        self._update()

    def nodeTypeLabel(self, nodeType: str) -> str:
        return (self._scene.GetTypeDisplayNameByClassName(nodeType) if self._scene is not None else "") or "node"

    # --- The rows of the box: None, the nodes, what can be done ---

    def _on_scene(self, scene: Any, event: str) -> None:
        if not scene.IsClosing():
            self._update()

    def _on_node(self, node: Any, event: str) -> None:
        self._update()

    def _actions(self) -> list[tuple[str, str]]:
        label = self.nodeTypeLabel(self.nodeTypes[0] if len(self.nodeTypes) == 1 else "")
        actions = [("RENAME", f"Rename current {label}")] if self.renameEnabled else []
        actions += [("EDIT", f"Edit current {label}")] if self.editEnabled else []
        for kind in self.nodeTypes if self.addEnabled else ():
            actions.append((f"CREATE/{kind}", f"Create new {self.nodeTypeLabel(kind)}"))
            if self.renameEnabled:
                actions.append((f"CREATE_AS/{kind}", f"Create new {self.nodeTypeLabel(kind)} as..."))
        return actions + ([("DELETE", f"Delete current {label}")] if self.removeEnabled else [])

    def _wanted_rows(self) -> list[tuple[str, str, str]]:
        """(id, action, text) of every row."""
        rows = [("", "", self.noneDisplay)] if self.noneEnabled else []
        rows += [(node.GetID(), "", node.GetName() or "") for node in self.nodes()]
        return rows + [("", action, text) for action, text in (self._actions() if self._scene is not None else ())]

    def _row_key(self, row: int) -> tuple[str, str]:
        return self._box.itemData(row, _ID) or "", self._box.itemData(row, _ACTION) or ""

    def _update(self) -> None:
        """Take away and put in single rows, so that the box keeps or changes its choice as a QComboBox does."""
        box, wanted = self._box, self._wanted_rows()
        box.defaultText = f"Select a {self.nodeTypeLabel(self.nodeTypes[0] if self.nodeTypes else '')}"
        keys = {row[:2] for row in wanted}
        for row in reversed(range(box.count)):
            if self._row_key(row) not in keys:
                box.removeItem(row)
                if self.currentNode() is None:
                    self._set_id("")
        for row, (node_id, action, text) in enumerate(wanted):
            if row >= box.count or self._row_key(row) != (node_id, action):
                self._insert_row(row, node_id, action, text)
            elif box.itemText(row) != text:
                box.setItemText(row, text)  # as in Slicer, a new name of the current node counts as a change
        for node in self.nodes():
            if node.GetID() not in self._observed:
                self._observed.add(node.GetID())
                observe(node, (vtk.vtkCommand.ModifiedEvent,), self, "_on_node")
                self.nodeAdded.emit(node)

    def _insert_row(self, row: int, node_id: str, action: str, text: str) -> None:
        item = QtGui.QStandardItem(text)
        item.setData(node_id, _ID)
        item.setData(action, _ACTION)
        if not action:
            self._box.model().insertRow(row, item)
            return
        item.setFlags(QtCore.Qt.ItemIsEnabled)
        current = self._box.currentIndex
        blocked = self._box.blockSignals(True)
        self._box.model().insertRow(row, item)
        if current < 0:
            self._box.setCurrentIndex(-1)
        self._box.blockSignals(blocked)

    def _node_at(self, row: int) -> Any:
        node_id = self._box.itemData(row, _ID) if row >= 0 else ""
        return self._scene.GetNodeByID(node_id) if node_id and self._scene is not None else None

    def activateExtraItem(self, index: Any) -> None:
        """Do what an action row says."""
        action, _, rest = (index.data(_ACTION) or "").partition("/")
        if action.startswith("CREATE"):
            name = self._ask_name(f"Create new {self.nodeTypeLabel(rest)}", "") if action == "CREATE_AS" else None
            if name != "":
                node = self.addNode(rest)
                node.SetName(name or node.GetName())
                self.setCurrentNode(node)
        elif action == "DELETE":
            self.removeCurrentNode()
        elif action == "RENAME":
            self.renameCurrentNode()
        elif action == "EDIT":
            self.nodeAboutToBeEdited.emit(self.currentNode())

    # --- The current node ---

    def currentNode(self) -> Any:
        return self._node_at(self._box.currentIndex)

    def setCurrentNode(self, node: Any) -> None:
        self._set_id(self._id(node))

    @staticmethod
    def _id(node: Any) -> str:
        return node.GetID() if node is not None else ""

    def _set_id(self, node_id: str) -> None:
        if self._scene is None:
            self._requested = node_id
        row = self._box.findData(node_id, _ID) if node_id else -1
        if row < 0:
            row = 0 if self.noneEnabled and self._box.count else -1
        self._box.setCurrentIndex(row)

    setCurrentNodeID = _set_id

    def _on_text(self, _: str) -> None:
        row = self._box.currentIndex
        node = self._node_at(row)
        nodes = self.nodes()
        if node is None and row != (0 if self.noneEnabled else -1) and nodes:
            self.setCurrentNode(nodes[-1])
            return
        self.currentNodeChanged.emit(node)
        self.currentNodeIDChanged.emit(self._id(node))

    def _on_activated(self, row: int) -> None:
        if not self._row_key(row)[1]:
            self.nodeActivated.emit(self._node_at(row))

    # --- New, other and no longer wanted nodes ---

    def _base_name(self) -> str:
        return self._base_names.get(self.nodeTypes[0], "") if self.nodeTypes else ""

    def setBaseName(self, name: str, nodeType: str = "") -> None:
        """The name of new nodes of one type, or of all types that are set by now."""
        if not nodeType and not self.nodeTypes:
            logging.warning("qMRMLNodeComboBox::setBaseName failed: no node types have been set yet")
        self._base_names |= dict.fromkeys((nodeType,) if nodeType else self.nodeTypes, name)

    def addNode(self, nodeType: str | None = None) -> Any:
        """Make a node of the type, or of the first one."""
        kind = nodeType or (self.nodeTypes[0] if self.nodeTypes else "")
        if kind not in self.nodeTypes or self._scene is None:
            logging.warning("qMRMLNodeComboBox::addNode() attempted with node type %s", kind)
            return None
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self._base_names.get(kind) or self.nodeTypeLabel(kind)))
        for (_, name), value in self._attributes.items():
            node.SetAttribute(name, value or "")
        node = self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self.currentNode())

    def renameCurrentNode(self) -> None:
        node = self.currentNode()
        name = self._ask_name(f"Rename {self.nodeTypeLabel(node.GetClassName())}", node.GetName()) if node else ""
        if name:
            node.SetName(name)
            self.currentNodeRenamed.emit(name)

    def _ask_name(self, title: str, name: str) -> str:
        return QtWidgets.QInputDialog.getText(self, title, "New name:", QtWidgets.QLineEdit.Normal, name)
