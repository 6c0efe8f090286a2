"""PySide6 dressed as PythonQt, in place and for the whole process. What PythonQt does and PySide6 does not:

* Qt properties are attributes (`label.text`, `box.checked = True`), while setters and `isX()` stay methods;
* `object.connect("clicked(bool)", f)` and `disconnect` by signature, with as many arguments as `f` takes;
* a C++ object takes no new attributes, so a misspelt property is an error;
* `object.name` is the object's name, `className()` its class, `delete()` deletes it.

The classes stay the same, so that exact type checks such as `type(widget) == qt.QCheckBox` hold.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import PySide6

if tuple(int(part) for part in PySide6.__version__.split(".")[:2]) >= (6, 12):
    raise ImportError(
        f"PySide6 {PySide6.__version__} loses a reference to None at every call on Python 3.11 and aborts: "
        "install the version that Resources/requirements/test.txt pins"
    )

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

#: Tracebacks of the exceptions in slots and observers: Qt and VTK only print these.
slot_errors: list[str] = []


class NotImitatedError(AttributeError):
    """Something of Slicer's or Qt's widgets that the harness does not imitate, or that does not exist."""


# --- Look-alikes of C++ classes ---

#: class name in .ui files: its look-alike
widgets: dict[str, type] = {}


def look_alike(cls: type) -> type:
    """Register a Python class as a C++ widget: `setX` and `isX` for its properties, no new attributes, usable in .ui files.

    Signals that are `Signal(object)` here have other arguments in C++: the class lists them as `_signatures`, each with
    what makes the argument from the object, or None to hand it on.
    """
    for name, value in list(vars(cls).items()):
        if isinstance(value, property) and value.fset and not name.startswith("_"):
            capital = name[0].upper() + name[1:]
            if not hasattr(cls, "set" + capital):
                setattr(cls, "set" + capital, lambda self, new, _name=name: setattr(self, _name, new))
            if not hasattr(cls, "is" + capital):
                setattr(cls, "is" + capital, lambda self, _name=name: bool(getattr(self, _name)))
    cls._imitates_cpp = cls.__name__
    widgets[cls.__name__] = cls
    return cls


def _is_cpp(cls: type) -> bool:
    return cls.__module__.startswith("PySide6.") or "_imitates_cpp" in cls.__dict__


def _set_attribute(self: Any, name: str, value: Any) -> None:
    cls = type(self)
    # PySide6 itself keeps the signals that it made as attributes.
    if _is_cpp(cls) and not name.startswith("_") and type(value).__name__ != "SignalInstance":
        known = inspect.getattr_static(cls, name, None)
        if not hasattr(type(known), "__set__"):
            raise NotImitatedError(f"creating new attributes on C++ objects is not allowed: {cls.__name__}.{name}")
    QtCore.QObject.__mro__[-2].__setattr__(self, name, value)  # the class above QObject: all below it are dressed


# --- Properties ---

_STAY_METHODS = {"metaObject", "parent", "children", "layout", "style", "model", "widget", "event"}


class _QtProperty(property):
    """A property of instances, still the C++ function on the class: QTimer.singleShot is both."""

    function: Any = None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return super().__get__(instance, owner) if instance is not None else self.function or self


def _function(cls: type, *names: str, kinds: tuple[str, ...] = ("method_descriptor", "function")) -> Any:
    found = (getattr(cls, name, None) for name in names)
    return next((item for item in found if type(item).__name__ in kinds), None)


def _property(cls: type, name: str, getter: Any, setter: Any, writable: bool) -> property:
    def get(self: Any) -> Any:
        return getter(self) if getter else self.property(name)

    def put(self: Any, value: Any) -> None:
        if not writable:
            raise AttributeError(f"property {name} of {cls.__name__} cannot be set")
        if setter is None:
            self.setProperty(name, value)
            return
        for convert in (lambda same: same, int, float, str):  # PythonQt converts numbers and strings freely
            try:
                setter(self, convert(value))
                return
            except (TypeError, ValueError) as error:
                problem = error
        raise problem

    result = _QtProperty(get, put)
    result.function = _function(cls, name, kinds=("method_descriptor", "builtin_function_or_method", "function"))
    return result


def _dress_class(cls: type) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        prop = meta.property(index)
        name = prop.name()
        inherited = index < meta.propertyOffset() and name not in cls.__dict__
        if name in _STAY_METHODS or inherited:
            continue
        capital = name[0].upper() + name[1:]
        getter = _function(cls, name, "is" + capital, "has" + capital)
        setter = _function(cls, "set" + capital)
        setattr(cls, name, _property(cls, name, getter, setter, prop.isWritable()))


def _classes() -> Iterator[type]:
    for module in (QtCore, QtGui, QtWidgets, QtUiTools):
        for name in dir(module):  # not vars(): PySide6 makes its classes when they are first asked for
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, QtCore.QObject):
                yield value


# --- Signals ---

_connect, _disconnect = QtCore.QObject.connect, QtCore.QObject.disconnect


def _count_accepted(callback: Callable, offered: int) -> int:
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return offered
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return offered
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(offered, sum(parameter.kind in kinds for parameter in parameters))


def _find_signal(sender: Any, signature: str) -> tuple[str, Callable | None]:
    """The signature as Qt knows it here, and what converts the argument."""
    wanted = bytes(QtCore.QMetaObject.normalizedSignature(str(signature)).data()).decode()
    for cls in type(sender).__mro__:
        if wanted in cls.__dict__.get("_signatures", {}):
            return wanted.partition("(")[0] + "(PyObject)", cls._signatures[wanted]
    if sender.metaObject().indexOfSignal(wanted) < 0:
        raise NotImitatedError(f"{type(sender).__name__} has no signal {signature} here")
    return wanted, None


def _slot(receiver: Any, name: str) -> Callable:
    slot = getattr(receiver, name.partition("(")[0], None)
    if isinstance(inspect.getattr_static(type(receiver), name.partition("(")[0], None), property):
        slot = _function(type(receiver), "set" + name[0].upper() + name[1:].partition("(")[0])
    if not callable(slot):
        raise NotImitatedError(f"{type(receiver).__name__} has no slot {name} here")
    return slot


def _parts(first: Any, arguments: tuple) -> tuple:
    return arguments if not isinstance(arguments[0], str) else (first, *arguments)


def connect(self: Any, *arguments: Any) -> bool:
    """connect(signature, callable), connect(signature, receiver, slot), or either with the sender first."""
    sender, signature, *rest = _parts(self, arguments)
    target = rest[0] if len(rest) == 1 else _slot(*rest)
    known, convert = _find_signal(sender, signature)

    def relay(*values: Any) -> None:
        values = tuple(map(convert, values)) if convert else values
        target(*values[: _count_accepted(target, len(values))])

    connection = _connect(sender, QtCore.SIGNAL(known), relay)
    sender.__dict__.setdefault("_connections", []).append((known, convert, target, connection))
    return True


def disconnect(self: Any, *arguments: Any) -> bool:
    """disconnect(signature, callable), or disconnect(signature) for all that connect() connected."""
    if not arguments:
        raise NotImitatedError(f"{type(self).__name__}.disconnect() of everything is not imitated: name the signal")
    sender, signature, *rest = _parts(self, arguments)
    target = _slot(*rest) if len(rest) == 2 else rest[0] if rest else None
    connections = sender.__dict__.get("_connections", [])
    found = [entry for entry in connections if entry[:2] == _find_signal(sender, signature) and target in (None, entry[2])]
    for entry in found:
        connections.remove(entry)
        _disconnect(entry[3])
    return bool(found)


def _get_attribute_of(cls: type) -> Callable:
    original = cls.__getattribute__

    def get_attribute(self: Any, name: str) -> Any:
        # QObject finds these two in C++ before it looks into the class.
        if name == "connect":
            return types.MethodType(connect, self)
        if name == "disconnect":
            return types.MethodType(disconnect, self)
        return original(self, name)

    return get_attribute


# --- The whole ---


def _collect_error(kind: type, value: BaseException, trace: Any) -> None:
    slot_errors.append("".join(traceback.format_exception(kind, value, trace)))
    sys.__excepthook__(kind, value, trace)


def dress() -> None:
    """Change the classes of PySide6. Once per process."""
    for cls in sorted(set(_classes()), key=lambda item: len(item.__mro__)):
        _dress_class(cls)
        if "__getattribute__" in cls.__dict__:
            cls.__getattribute__ = _get_attribute_of(cls)
        if "__setattr__" in cls.__dict__:
            cls.__setattr__ = _set_attribute
    base = QtCore.QObject
    base.connect = staticmethod(lambda *arguments: connect(None, *arguments))
    base.disconnect = staticmethod(lambda *arguments: disconnect(None, *arguments))
    base.name = base.__dict__["objectName"]
    base.className = lambda self: self.metaObject().className()
    base.delete = base.deleteLater
    for cls in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QEventLoop):
        cls.exec_ = cls.exec
    sys.excepthook = _collect_error
