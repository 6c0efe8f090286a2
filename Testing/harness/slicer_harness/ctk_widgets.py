"""The module `ctk`: look-alikes of the CTK widgets that IMT's panels use. Anything else of CTK is an error."""

from __future__ import annotations

import sys
import types
from typing import Any

from . import ctk_values  # noqa: F401 - registers its widgets
from .dressing import NotImitatedError, QtCore, QtWidgets, look_alike, widgets
from .widget_tools import Signal, stored

Qt = QtCore.Qt


@look_alike
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that shows and hides the widgets below it; checked means open."""

    contentsCollapsed = Signal(bool)
    _HEADER = 24
    _NO_MAXIMUM = 16777215

    def __init__(self, text: Any = "", parent: Any = None):
        super().__init__(text if not isinstance(text, str) else parent)
        self._hidden_before: set = set()
        self.setText(text if isinstance(text, str) else "")
        self.setContentsMargins(0, self._HEADER, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._on_toggled)

    collapsed = property(lambda self: not self.checked, lambda self, value: self.setChecked(not value))
    collapsedHeight = stored("collapsedHeight", 10)
    contentsFrameShape = stored("contentsFrameShape", 0)
    contentsFrameShadow = stored("contentsFrameShadow", 0)
    contentsLineWidth = stored("contentsLineWidth", 1)
    flat = stored("flat", False)

    def _on_toggled(self, opened: bool) -> None:
        self._show_children(opened)
        self.contentsCollapsed.emit(not opened)

    def _show_children(self, opened: bool) -> None:
        children = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
        if not opened:
            self._hidden_before = {child for child in children if child.isHidden()}
        for child in children:
            child.setVisible(opened and child not in self._hidden_before)
        self.setMaximumHeight(self._NO_MAXIMUM if opened else self._HEADER)
        self.updateGeometry()

    def showEvent(self, event: Any) -> None:
        if self.collapsed:  # children may have come since
            known = self._hidden_before
            self._show_children(False)
            self._hidden_before = known
        super().showEvent(event)

    def hitButton(self, position: Any) -> bool:
        return position.y() <= self._HEADER

    def minimumSizeHint(self) -> Any:
        layout = self.layout()
        inside = layout.totalMinimumSize() if layout is not None and not self.collapsed else QtCore.QSize(80, 0)
        return QtCore.QSize(max(80, inside.width()), max(self._HEADER, inside.height()))

    def sizeHint(self) -> Any:
        layout = self.layout()
        return layout.totalSizeHint() if layout is not None and not self.collapsed else self.minimumSizeHint()

    def paintEvent(self, event: Any) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, self._HEADER - 2)
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        flags = Qt.AlignVCenter | Qt.AlignLeft | Qt.TextShowMnemonic
        painter.drawText(option.rect.adjusted(24, 0, 0, 0), flags, self.text)
        arrow = QtWidgets.QStyleOption()
        arrow.rect = QtCore.QRect(6, 5, 12, 12)
        arrow.palette = self.palette
        closed, opened = QtWidgets.QStyle.PE_IndicatorArrowRight, QtWidgets.QStyle.PE_IndicatorArrowDown
        painter.drawPrimitive(closed if self.collapsed else opened, arrow)


@look_alike
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    # Not Qt's placeholderText: with one, Qt does not choose the first row that comes into an empty box.
    defaultText = stored("defaultText", "", changed=lambda self: self.update())
    forceDefault = stored("forceDefault", False, changed=lambda self: self.update())
    elideMode = stored("elideMode", Qt.ElideNone)

    def paintEvent(self, event: Any) -> None:
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        if self.forceDefault or self.currentIndex < 0:
            option.currentText = self.defaultText
        painter.drawComplexControl(QtWidgets.QStyle.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.CE_ComboBoxLabel, option)


@look_alike
class ctkCheckableComboBox(QtWidgets.QComboBox):
    """A combo box whose items are checked one by one."""

    checkedIndexesChanged = Signal()

    def checkableModel(self) -> Any:
        return self.model()

    def checkState(self, index: Any) -> Any:
        return Qt.CheckState(index.data(Qt.CheckStateRole) or 0)

    def setCheckState(self, index: Any, state: Any) -> None:
        if self.checkState(index) != Qt.CheckState(state):
            self.model().setData(index, Qt.CheckState(state), Qt.CheckStateRole)
            self.checkedIndexesChanged.emit()

    def checkedIndexes(self) -> list:
        indexes = [self.model().index(row, 0) for row in range(self.count)]
        return [index for index in indexes if self.checkState(index) == Qt.Checked]

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()


class _CtkModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise NotImitatedError(f"slicer_harness does not imitate ctk.{name}")


def install() -> None:
    """Make `import ctk` work."""
    module = sys.modules["ctk"] = _CtkModule("ctk", __doc__)
    for name, value in widgets.items():
        if name.startswith("ctk"):
            setattr(module, name, value)
