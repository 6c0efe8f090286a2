"""Look-alikes of the CTK widgets that hold a number or a path."""

from __future__ import annotations

import os
from typing import Any

from .dressing import QtCore, QtWidgets, look_alike
from .widget_tools import Signal, fill_row, forwarded, stored


@look_alike
class ctkDoubleSpinBox(QtWidgets.QWidget):
    """A widget around a spin box: unlike QDoubleSpinBox, no parameter binds to it."""

    valueChanged, decimalsChanged = Signal(float), Signal(int)

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._spin = QtWidgets.QDoubleSpinBox()
        fill_row(self, self._spin)
        self._spin.valueChanged.connect(self.valueChanged.emit)

    value = forwarded("_spin", "value")
    minimum = forwarded("_spin", "minimum")
    maximum = forwarded("_spin", "maximum")
    singleStep = forwarded("_spin", "singleStep")
    prefix = forwarded("_spin", "prefix")
    suffix = forwarded("_spin", "suffix")
    specialValueText = forwarded("_spin", "specialValueText")
    readOnly = forwarded("_spin", "readOnly")
    decimals = property(lambda self: self._spin.decimals, lambda self, value: self._set_decimals(value))

    def _set_decimals(self, value: int) -> None:
        if value != self._spin.decimals:
            self._spin.decimals = value
            self.decimalsChanged.emit(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._spin.setRange(minimum, maximum)


@look_alike
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider beside a spin box."""

    valueChanged, valueIsChanging, rangeChanged = Signal(float), Signal(float), Signal(float, float)
    _STEPS = 10000

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.setRange(0, self._STEPS)
        self._spin = QtWidgets.QDoubleSpinBox()
        self._moving = False
        fill_row(self, self._slider, self._spin)
        self._slider.valueChanged.connect(self._on_slider)
        self._spin.valueChanged.connect(self._on_spin)

    def _on_slider(self, position: int) -> None:
        if not self._moving:
            span = self._spin.maximum - self._spin.minimum
            self._spin.value = self._spin.minimum + span * position / self._STEPS

    def _on_spin(self, value: float) -> None:
        self._move_slider()
        self.valueChanged.emit(value)

    def _move_slider(self) -> None:
        span = self._spin.maximum - self._spin.minimum
        self._moving = True
        self._slider.value = round((self._spin.value - self._spin.minimum) / span * self._STEPS) if span > 0 else 0
        self._moving = False

    def _limit(self, name: str, value: float) -> None:
        setattr(self._spin, name, value)
        self._move_slider()
        self.rangeChanged.emit(self.minimum, self.maximum)

    value = forwarded("_spin", "value")
    minimum = property(lambda self: self._spin.minimum, lambda self, value: self._limit("minimum", value))
    maximum = property(lambda self: self._spin.maximum, lambda self, value: self._limit("maximum", value))
    singleStep = forwarded("_spin", "singleStep")
    decimals = forwarded("_spin", "decimals")
    prefix = forwarded("_spin", "prefix")
    suffix = forwarded("_spin", "suffix")
    pageStep = stored("pageStep", 10.0)
    tickInterval = stored("tickInterval", 0.0)
    tracking = stored("tracking", True)
    spinBoxVisible = property(lambda self: not self._spin.isHidden(), lambda self, value: self._spin.setVisible(value))

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


@look_alike
class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with a button that asks for one."""

    currentPathChanged, validInputChanged = Signal(str), Signal(bool)
    Dirs, Files, Readable, Writable, Executable, Hidden = 1, 2, 0x10, 0x20, 0x40, 0x100
    NoDot, NoDotDot, NoDotAndDotDot = 0x2000, 0x4000, 0x6000

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._edit, self._button = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self._button.setText("...")
        fill_row(self, self._edit, self._button)
        self._edit.textChanged.connect(self.currentPathChanged.emit)
        self._button.clicked.connect(self.browse)

    currentPath = forwarded("_edit", "text")
    filters = stored("filters", Files | Readable)
    nameFilters = stored("nameFilters", ())
    settingKey = stored("settingKey", "")
    label = stored("label", "")
    showBrowseButton = property(lambda self: not self._button.isHidden(), lambda self, value: self._button.setVisible(value))
    showHistoryButton = stored("showHistoryButton", True)

    def browse(self) -> None:
        if not self.filters & self.Files:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, self.label, self.currentPath)
        elif self.filters & self.Writable:
            path = QtWidgets.QFileDialog.getSaveFileName(self, self.label, self.currentPath)
        else:
            path = QtWidgets.QFileDialog.getOpenFileName(self, self.label, self.currentPath)
        if path:
            self.currentPath = path


@look_alike
class ctkDirectoryButton(QtWidgets.QWidget):
    """A button that shows a folder and asks for another one."""

    directoryChanged, directorySelected = Signal(str), Signal(str)

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._button = QtWidgets.QPushButton()
        fill_row(self, self._button)
        self._directory = os.getcwd()
        self._button.setText(self._directory)
        self._button.clicked.connect(self.browse)

    directory = property(lambda self: self._directory, lambda self, value: self._set_directory(value))
    caption = stored("caption", "")

    def _set_directory(self, value: str) -> None:
        path = os.path.abspath(value)
        if path != self._directory:
            self._directory = path
            self._button.setText(path)
            self.directoryChanged.emit(path)

    def browse(self) -> None:
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption, self.directory)
        if path:
            self.directory = path
            self.directorySelected.emit(self.directory)
