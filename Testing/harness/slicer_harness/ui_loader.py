"""qt.QUiLoader: builds the look-alikes that a .ui file asks for, and refuses what the harness does not imitate."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from . import dressing
from .dressing import NotImitatedError, QtCore, QtGui, QtUiTools

_alive: list = []  # Python objects that C++ made and owns


class QUiLoader(QtUiTools.QUiLoader):
    """Properties and connections of look-alikes are taken out of the file and set in Python, as C++ cannot see them."""

    def load(self, source: Any, parent: Any = None) -> Any:
        root = ET.fromstring(_read(source))
        self._check_classes(root)
        properties = _take_properties(root)
        links = _take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        top = super().load(buffer, parent)
        if top is None:
            raise RuntimeError(f"QUiLoader: {self.errorString()}")
        named = {child.objectName: child for child in [top, *top.findChildren(QtCore.QObject)] if child.objectName}
        for name, key, value in properties:
            setattr(named[name], key, value)
        for link in links:
            missing = {link["sender"], link["receiver"]} - named.keys()
            if missing:
                raise NotImitatedError(f"the .ui file connects {', '.join(missing)}, which it does not have")
            dressing.connect(named[link["sender"]], link["signal"], named[link["receiver"]], link["slot"])
        return top

    def _check_classes(self, root: ET.Element) -> None:
        known = {*self.availableWidgets(), *dressing.widgets, "Line"}
        unknown = sorted({widget.get("class", "") for widget in root.iter("widget")} - known)
        if unknown:
            raise NotImitatedError(f"slicer_harness does not imitate the widget class {', '.join(unknown)} of the .ui file")

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        """Called by C++ for every widget of the file."""
        cls = dressing.widgets.get(className)
        if cls is None:
            return super().createWidget(className, parent, name)
        widget = cls(parent)
        widget.setObjectName(name)
        _alive.append(widget)
        return widget


def _read(source: Any) -> bytes:
    if isinstance(source, (str, Path)):
        return Path(source).read_bytes()
    if not source.isOpen():
        source.open(QtCore.QIODevice.ReadOnly)
    return bytes(source.readAll().data())


def _take_properties(root: ET.Element) -> list[tuple[str, str, Any]]:
    taken = []
    for widget in root.iter("widget"):
        cls = dressing.widgets.get(widget.get("class", ""))
        if cls is None:
            continue
        for prop in widget.findall("property"):
            name = prop.get("name", "")
            if isinstance(getattr(cls, name, None), property):
                taken.append((widget.get("name", ""), name, _value(prop, cls)))
                widget.remove(prop)
            elif cls.staticMetaObject.indexOfProperty(name) < 0 and prop.get("stdset") != "0":
                raise NotImitatedError(f"slicer_harness does not imitate the property {name} of {cls.__name__}")
    return taken


def _take_connections(root: ET.Element) -> list[dict[str, str]]:
    links = []
    for node in root.iter("connections"):
        for connection in list(node):
            links.append({part.tag: part.text or "" for part in connection if part.tag != "hints"})
            node.remove(connection)
    return links


def _value(prop: ET.Element, cls: type) -> Any:
    child = prop[0]
    text = child.text or ""
    match child.tag:
        case "string" | "cstring":
            return text
        case "bool":
            return text == "true"
        case "number" | "UInt" | "uInt" | "longLong":
            return int(text)
        case "double" | "float":
            return float(text)
        case "stringlist":
            return [item.text or "" for item in child.findall("string")]
        case "enum" | "set":
            return _flags(text, cls)
        case "color":
            return QtGui.QColor(*(int(child.findtext(part, "0")) for part in ("red", "green", "blue")))
    raise NotImitatedError(f"slicer_harness cannot read the {child.tag} property {prop.get('name')} of {cls.__name__}")


def _flags(text: str, cls: type) -> Any:
    values = []
    for part in text.split("|"):
        owner, _, name = part.strip().rpartition("::")
        owner = owner.removesuffix(f"::{name}").partition("::")[0]
        source = cls if owner in ("", cls.__name__) else getattr(QtCore, owner, None) or getattr(dressing.QtWidgets, owner, None)
        if not hasattr(source, name):
            raise NotImitatedError(f"slicer_harness does not know the value {part.strip()} for {cls.__name__}")
        values.append(getattr(source, name))
    result = values[0]
    for value in values[1:]:
        result = result | value
    return result
