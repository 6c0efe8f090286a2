"""The panel's table of atlases from the scene: a name, the image, the second image and the labels of each."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from .scene_atlases import SceneAtlas

COUNT = "IMT.AtlasCount"  # attribute of the parameter node
KINDS = {
    "Image": ("vtkMRMLScalarVolumeNode",),
    "Second": ("vtkMRMLScalarVolumeNode",),
    "Labels": ("vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode"),
}
SECOND_COLUMN = 2


class AtlasTable:
    """Keeps the table in step with the parameter node, which holds names as attributes and nodes as references.

    Slicer's own binding knows no tables, so it is bound here.

    :param table: QTableWidget with four columns.
    :param addButton, removeButton: buttons for rows.
    :param changed: called when the user has changed anything.
    """

    def __init__(self, table, addButton, removeButton, changed: Callable[[], None]) -> None:
        self._table, self._remove, self._changed = table, removeButton, changed
        self._holder = None
        self._selectors: list[dict] = []
        self._updating = False
        table.setColumnCount(4)
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().setVisible(False)
        self.setModalities("", None)
        table.connect("cellChanged(int,int)", self._onCellChanged)
        addButton.connect("clicked(bool)", self._onAdd)
        removeButton.connect("clicked(bool)", self._onRemove)

    def setModalities(self, given: str, second: str | None) -> None:
        """Head the columns with the modalities; without a second one its column is hidden."""
        self._table.setHorizontalHeaderLabels([_("Name"), given or _("Image"), second or _("Second image"), _("Labels")])
        self._table.setColumnHidden(SECOND_COLUMN, second is None)

    def setParameterNode(self, parameterNode) -> None:
        """Follow another parameter node, or none."""
        self._holder = parameterNode.parameterNode if parameterNode is not None else None
        self._updating = True
        try:
            self._table.setRowCount(0)
            self._selectors.clear()
            for row in range(self._count()):
                self._addRow(row)
        finally:
            self._updating = False

    def atlases(self) -> list[SceneAtlas]:
        """What the rows say."""
        return [
            SceneAtlas(self._name(row), self._node(row, "Image"), self._node(row, "Labels"), self._node(row, "Second"))
            for row in range(self._count())
        ]

    def _count(self) -> int:
        text = self._holder.GetAttribute(COUNT) if self._holder is not None else None
        return int(text) if text and text.isdigit() else 0

    def _name(self, row: int) -> str:
        return self._holder.GetAttribute(f"IMT.Atlas{row}.Name") or ""

    def _node(self, row: int, kind: str):
        return self._holder.GetNodeReference(f"IMT.Atlas{row}.{kind}")

    def _setRow(self, row: int, name: str | None, nodes: dict) -> None:
        self._holder.SetAttribute(f"IMT.Atlas{row}.Name", name)
        for kind in KINDS:
            node = nodes.get(kind)
            self._holder.SetNodeReferenceID(f"IMT.Atlas{row}.{kind}", node.GetID() if node is not None else None)

    def _addRow(self, row: int) -> None:
        self._table.insertRow(row)
        self._table.setItem(row, 0, qt.QTableWidgetItem(self._name(row)))
        selectors = {}
        for column, (kind, types) in enumerate(KINDS.items(), start=1):
            selector = slicer.qMRMLNodeComboBox()
            selector.nodeTypes = list(types)
            selector.noneEnabled = True
            selector.addEnabled = selector.removeEnabled = selector.renameEnabled = selector.showChildNodeTypes = False
            selector.setMRMLScene(slicer.mrmlScene)
            selector.setCurrentNode(self._node(row, kind))
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onNodeChanged)
            self._table.setCellWidget(row, column, selector)
            selectors[kind] = selector
        self._selectors.append(selectors)

    def _onAdd(self, *_unused) -> None:
        if self._holder is None:
            return
        row = self._count()
        names = {self._name(known) for known in range(row)}
        number = next(n for n in range(1, row + 2) if f"atlas{n}" not in names)
        with slicer.util.NodeModify(self._holder):
            self._setRow(row, f"atlas{number}", {})
            self._holder.SetAttribute(COUNT, str(row + 1))
        self._updating = True
        self._addRow(row)
        self._updating = False
        self._table.setCurrentCell(row, 0)
        self._changed()

    def _onRemove(self, *_unused) -> None:
        row, count = self._table.currentRow(), self._count()
        if self._holder is None or not count:
            return
        row = row if 0 <= row < count else count - 1
        with slicer.util.NodeModify(self._holder):
            for later in range(row, count - 1):
                self._setRow(later, self._name(later + 1), {kind: self._node(later + 1, kind) for kind in KINDS})
            self._setRow(count - 1, None, {})
            self._holder.SetAttribute(COUNT, str(count - 1))
        self._updating = True
        self._table.removeRow(row)
        del self._selectors[row]
        self._updating = False
        self._changed()

    def _onCellChanged(self, row: int, column: int) -> None:
        if not self._updating and self._holder is not None and column == 0:
            self._holder.SetAttribute(f"IMT.Atlas{row}.Name", self._table.item(row, 0).text().strip())
            self._changed()

    def _onNodeChanged(self, *_unused) -> None:
        if self._updating or self._holder is None or slicer.mrmlScene.IsClosing():
            return
        with slicer.util.NodeModify(self._holder):
            for row, selectors in enumerate(self._selectors):
                for kind, selector in selectors.items():
                    node = selector.currentNode()
                    self._holder.SetNodeReferenceID(f"IMT.Atlas{row}.{kind}", node.GetID() if node is not None else None)
        self._changed()
