"""What the look-alikes of CTK's and Slicer's widgets are made with."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from .dressing import QtCore, QtWidgets

Signal = QtCore.Signal


def stored(name: str, default: Any = None, signal: str = "", changed: Callable[[Any], None] | None = None) -> property:
    """A property that is kept as it is; on a change calls `changed(self)`, then emits the signal with the new value."""
    key = f"_stored_{name}"

    def get(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def put(self: Any, value: Any) -> None:
        if get(self) == value:
            return
        self.__dict__[key] = value
        if changed:
            changed(self)
        if signal:
            getattr(self, signal).emit(value)

    return property(get, put)


def forwarded(child: str, name: str) -> property:
    """A property of the widget inside that is the attribute `child`."""

    def put(self: Any, value: Any) -> None:
        setattr(getattr(self, child), name, value)

    return property(lambda self: getattr(getattr(self, child), name), put)


def fill_row(widget: Any, *children: Any) -> None:
    """Put the children side by side into the widget; those after which a box would look empty stretch."""
    layout = QtWidgets.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    for child in children:
        layout.addWidget(child, int(isinstance(child, (QtWidgets.QSlider, QtWidgets.QLineEdit, QtWidgets.QComboBox))))


def observe(caller: Any, events: tuple, widget: Any, method: str) -> None:
    """Call the widget's method with (caller, event) as long as the widget lives, without keeping it alive."""
    reference = weakref.ref(widget)

    def call(caller: Any, event: str) -> None:
        target = reference()
        if target is not None:
            getattr(target, method)(caller, event)

    tags = [caller.AddObserver(event, call) for event in events]
    widget.destroyed.connect(lambda: [caller.RemoveObserver(tag) for tag in tags])
