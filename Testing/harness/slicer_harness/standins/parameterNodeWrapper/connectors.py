"""Which widget shows which type. The class must be the very one: a derived widget is refused, as in Slicer."""

from __future__ import annotations

import enum
import logging
import types
import typing
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from .annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, find_note, plain_type, split_annotations
from .serializers import PATHS


class GuiConnector:
    """Reads and writes a widget. `signal` is what the widget emits when the user changes it."""

    signal = ""

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        """Whether this class connects the widget to the type, which may be annotated."""
        raise NotImplementedError

    @classmethod
    def create(cls, widget: Any, datatype: Any) -> GuiConnector:
        """A connector for the widget."""
        return cls(widget, datatype)

    def __init__(self, widget: Any, datatype: Any):
        self._widget = widget
        self._type, self._notes = split_annotations(datatype)
        self._callback: Callable | None = None

    def onChanged(self, callback: Callable | None) -> None:
        """Call this on every change; None ends that."""
        signal = getattr(self._widget, self.signal)
        if callback is not None and self._callback is None:
            signal.connect(self.changed)
        elif callback is None and self._callback is not None:
            signal.disconnect(self.changed)
        self._callback = callback

    def changed(self) -> None:
        if self._callback:
            self._callback()

    def widget(self) -> Any:
        return self._widget

    def read(self) -> Any:
        """The widget's value."""
        raise NotImplementedError

    def write(self, value: Any) -> None:
        """Show a value."""
        raise NotImplementedError


_connectors: list[type[GuiConnector]] = []


def parameterNodeGuiConnector(classtype: Any = None) -> Any:
    """Class decorator that adds a connector."""

    def register(cls: type[GuiConnector]) -> type[GuiConnector]:
        if not issubclass(cls, GuiConnector):
            raise TypeError("Must be a GuiConnector subclass")
        _connectors.append(cls)
        return cls

    return register if classtype is None else register(classtype)


def createGuiConnector(widget: Any, datatype: Any) -> GuiConnector:
    """The connector of a widget to a type; RuntimeError if Slicer has none."""
    for connector in _connectors:
        if connector.canRepresent(widget, datatype):
            return connector.create(widget, datatype)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{datatype}' to widget type '{type(widget)}'")


class _AttributeConnector(GuiConnector):
    """The value, of one of `types`, is an attribute of the widget, of one of the classes `widgets`."""

    attribute = "value"
    types: tuple[type, ...] = ()
    widgets: tuple[type, ...] = ()

    @classmethod
    def canRepresent(cls, widget: Any, datatype: Any) -> bool:
        return plain_type(datatype) in cls.types and type(widget) in cls.widgets

    def read(self) -> Any:
        return getattr(self._widget, self.attribute)

    def write(self, value: Any) -> None:
        setattr(self._widget, self.attribute, value)


@parameterNodeGuiConnector
class CheckBoxConnector(_AttributeConnector):
    """bool, as a check box."""

    signal, attribute = "stateChanged", "checked"
    types, widgets = (bool,), (qt.QCheckBox,)


@parameterNodeGuiConnector
class PushButtonConnector(_AttributeConnector):
    """bool, as a button that stays down."""

    signal, attribute = "toggled", "checked"
    types, widgets = (bool,), (qt.QPushButton,)

    def __init__(self, widget: Any, datatype: Any):
        super().__init__(widget, datatype)
        if not widget.checkable:
            logging.warning("Making push button checkable for conversion to bool: button %s", widget)
            widget.checkable = True


class _NumberConnector(_AttributeConnector):
    signal = "valueChanged"
    must_be_bounded: Any = ()
    unbounded = (0.0, 0.0)

    def __init__(self, widget: Any, datatype: Any):
        super().__init__(widget, datatype)
        for kind, attribute in ((Decimals, "decimals"), (SingleStep, "singleStep")):
            note = find_note(self._notes, kind)
            if note is not None:
                setattr(widget, attribute, note.value)
        both = find_note(self._notes, WithinRange)
        minimum, maximum = both or find_note(self._notes, Minimum), both or find_note(self._notes, Maximum)
        if isinstance(widget, self.must_be_bounded) and not (minimum and maximum):
            raise RuntimeError(f"Cannot have a connection to {type(widget).__name__} where the type is unbounded.")
        widget.minimum = minimum.minimum if minimum else self.unbounded[0]
        widget.maximum = maximum.maximum if maximum else self.unbounded[1]


@parameterNodeGuiConnector
class IntConnector(_NumberConnector):
    """int, as a spin box or a slider."""

    types, widgets = (int,), (qt.QSlider, qt.QSpinBox)
    must_be_bounded = qt.QSlider
    unbounded = (-(2**31), 2**31 - 1)


@parameterNodeGuiConnector
class FloatConnector(_NumberConnector):
    """float, as a spin box or CTK's slider."""

    types, widgets = (float,), (qt.QDoubleSpinBox, ctk.ctkSliderWidget)
    must_be_bounded = ctk.ctkSliderWidget
    unbounded = (float("-inf"), float("inf"))


class _BoxConnector(GuiConnector):
    """Fills a combo box anew with what can be chosen."""

    signal = "currentIndexChanged"

    def __init__(self, widget: Any, datatype: Any, choices: list, labels: list[str]):
        super().__init__(widget, datatype)
        self._choices = choices
        widget.clear()
        for label in labels:
            widget.addItem(label)

    def read(self) -> Any:
        return self._choices[self._widget.currentIndex]

    def write(self, value: Any) -> None:
        if value not in self._choices:
            raise ValueError(f"Unable to find value {value} in choices {self._choices}")
        self._widget.currentIndex = self._choices.index(value)


@parameterNodeGuiConnector
class ChoiceConnector(_BoxConnector):
    """bool, int, float or str with a Choice, as a combo box."""

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return type(widget) is qt.QComboBox and plain_type(datatype) in (int, float, str, bool)

    def __init__(self, widget: Any, datatype: Any):
        choice = find_note(split_annotations(datatype)[1], Choice)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        super().__init__(widget, datatype, list(choice.choices), [str(value) for value in choice.choices])


@parameterNodeGuiConnector
class EnumConnector(_BoxConnector):
    """Enum, as a combo box of its members' labels or names."""

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        kind = plain_type(datatype)
        return type(widget) is qt.QComboBox and isinstance(kind, type) and issubclass(kind, enum.Enum)

    def __init__(self, widget: Any, datatype: Any):
        members = list(plain_type(datatype))
        label = getattr(plain_type(datatype), "label", lambda member: member.name)
        super().__init__(widget, datatype, members, [label(member) for member in members])


@parameterNodeGuiConnector
class LineEditConnector(_AttributeConnector):
    """str, as one line."""

    signal, attribute = "textChanged", "text"
    types, widgets = (str,), (qt.QLineEdit,)


@parameterNodeGuiConnector
class TextEditConnector(_AttributeConnector):
    """str, as plain text of several lines."""

    signal, attribute = "textChanged", "plainText"
    types, widgets = (str,), (qt.QTextEdit,)


@parameterNodeGuiConnector
class PathConnector(_AttributeConnector):
    """A path, as CTK's path line or folder button."""

    types, widgets = PATHS, (ctk.ctkPathLineEdit, ctk.ctkDirectoryButton)

    def __init__(self, widget: Any, datatype: Any):
        super().__init__(widget, datatype)
        is_line = type(widget) is ctk.ctkPathLineEdit
        self.signal, self.attribute = ("currentPathChanged", "currentPath") if is_line else ("directoryChanged", "directory")

    def read(self) -> Any:
        return self._type(super().read())

    def write(self, value: Any) -> None:
        super().write(str(value))


def _node_types(datatype: Any) -> list[str] | None:
    kind = plain_type(datatype)
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    kinds = [plain_type(member) for member in (typing.get_args(kind) if union else (kind,))]
    kinds = [member for member in kinds if member is not type(None)]
    if not all(isinstance(member, type) and issubclass(member, slicer.vtkMRMLNode) for member in kinds):
        return None
    return [member.__name__ for member in kinds]


@parameterNodeGuiConnector
class NodeConnector(GuiConnector):
    """A node, or a Union of nodes, as a node selector, which then offers nodes of these types."""

    signal = "currentNodeChanged"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return type(widget) is slicer.qMRMLNodeComboBox and bool(_node_types(datatype))

    def __init__(self, widget: Any, datatype: Any):
        super().__init__(widget, datatype)
        widget.nodeTypes = _node_types(datatype)

    def read(self) -> Any:
        return self._widget.currentNode()

    def write(self, value: Any) -> None:
        self._widget.setCurrentNode(value)
