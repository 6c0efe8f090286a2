"""@parameterNodeWrapper: the class whose attributes are parameters of a node, and its connection to a panel."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from .annotations import plain_type, set_reserved, split_name
from .members import ParameterInfo, read_members
from .packs import check_member

if TYPE_CHECKING:
    from .connectors import GuiConnector

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """One parameter of one node. A parameter that is gone, as after closing the scene, comes back with its default."""

    def __init__(self, info: ParameterInfo, node: Any, prefix: str):
        self.serializer, self.default = info.serializer, info.default
        self.name = f"{prefix}{info.basename}"
        self.node = node
        if not self.serializer.is_in(node, self.name):
            self.serializer.write(node, self.name, self.default.value)

    def read(self) -> Any:
        if not self.serializer.is_in(self.node, self.name):
            self.serializer.write(self.node, self.name, self.default.value)
        return self.serializer.read(self.node, self.name)

    def write(self, value: Any) -> None:
        self.serializer.write(self.node, self.name, value)


_callbacks: list[Callable] = []


def _kept(callback: Callable) -> Callable:
    """Keep an observer for good: Python's garbage collector may clear one that only a living node of VTK still knows."""
    _callbacks.append(callback)
    return callback


class _CachedParameter(_Parameter):
    """Keeps the value, and reads it again when the node changes."""

    _tag = 0

    def __init__(self, info: ParameterInfo, node: Any, prefix: str):
        super().__init__(info, node, prefix)
        self._value = super().read()
        self._writing = False
        reference = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, _kept(lambda *_: reference() and reference()._on_modified()))

    def __del__(self):
        self.node.RemoveObserver(self._tag)

    def _on_modified(self) -> None:
        if not self._writing:
            self._value = super().read()

    def read(self) -> Any:
        return self._value

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self.node):  # observers see the new value
                super().write(value)
                self._value = super().read()
        finally:
            self._writing = False


class _Methods:
    """What the decorator adds to the class."""

    parameterNode: Any
    allParameters: dict[str, ParameterInfo]

    def default(self, paramName: str) -> Any:
        """The default of a parameter, as the annotation."""
        self._check_name(paramName)
        return self._parameters[paramName].default

    def isCached(self, paramName: str) -> bool:
        """Whether reading it does not ask the node."""
        self._check_name(paramName)
        return isinstance(self._parameters[paramName], _CachedParameter)

    def getValue(self, paramName: str) -> Any:
        """The value by its name, which may be dotted."""
        self._check_name(paramName)
        top, rest = split_name(paramName)
        value = self._parameters[top].read()
        return value.getValue(rest) if rest else value

    def setValue(self, paramName: str, value: Any) -> None:
        """Set a value by its name, which may be dotted."""
        self._check_name(paramName)
        top, rest = split_name(paramName)
        if rest:
            self._parameters[top].read().setValue(rest, value)
        else:
            self._parameters[top].write(value)

    def connectGui(self, gui: Any) -> None:
        """Connect the widgets that have the property SlicerParameterName: of `ui`, or all below a widget.

        As in Slicer (issue 7547), this returns no tag, so disconnectGui cannot undo it; connectParametersToGui does.
        """
        import qt

        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
        named = {widget.property(SlicerParameterNamePropertyName): widget for widget in widgets}
        self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Connect parameters to widgets or connectors by name; returns the tag for disconnectGui."""
        from .connectors import GuiConnector, createGuiConnector  # they need Qt

        for name in mapping:
            self._check_name(name)
        connectors = {
            name: item if isinstance(item, GuiConnector) else createGuiConnector(item, self.dataType(name))
            for name, item in mapping.items()
        }
        tag = self._next_tag
        self._next_tag += 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._from_gui(name, connector))
        # A strong reference would be a circle that runs through VTK, which Python's garbage collector breaks at the wrong place.
        reference = weakref.ref(self)
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, _kept(lambda *_: reference() and reference()._to_gui()))
        return tag

    def disconnectGui(self, guiTag: int | None) -> None:
        """Undo connectParametersToGui."""
        for connector in self._guis.pop(guiTag, {}).values():
            connector.onChanged(None)

    def _from_gui(self, name: str, connector: GuiConnector) -> Callable[[], None]:
        def changed() -> None:
            with slicer.util.NodeModify(self):
                if not self._updating:
                    self.setValue(name, connector.read())

        return changed

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._guis.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating = False

    @classmethod
    def _check_name(cls, name: str) -> None:
        top, rest = split_name(name)
        if top not in cls.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {top}\n  Found parameters {list(cls.allParameters)}")
        if rest:
            check_member(plain_type(cls.allParameters[top].unalteredType), rest)

    @classmethod
    def dataType(cls, paramName: str) -> Any:
        """The annotated type of a parameter, whose name may be dotted."""
        cls._check_name(paramName)
        top, rest = split_name(paramName)
        kind = cls.allParameters[top].unalteredType
        return plain_type(kind).dataType(rest) if rest else kind

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> Any:
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Callable, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def _init(self: Any, parameterNode: Any, prefix: str | None = None) -> None:
    self.parameterNode = parameterNode
    self._guis, self._next_tag, self._updating, self._parameters = {}, 0, False, {}
    for name, info in self.allParameters.items():
        kind = _CachedParameter if info.serializer.cached else _Parameter
        self._parameters[name] = kind(info, parameterNode, prefix or "")


def _parameter_property(name: str) -> property:
    return property(lambda self: self._parameters[name].read(), lambda self, value: self._parameters[name].write(value))


def _process(cls: type) -> type:
    members = read_members(cls)
    for name in members:
        setattr(cls, name, _parameter_property(name))
    methods = {name: value for name, value in vars(_Methods).items() if callable(value) or isinstance(value, classmethod)}
    set_reserved(cls, allParameters=members, _is_parameter_node_wrapper=True, **methods)
    cls.__init__ = _init
    return cls


def parameterNodeWrapper(classtype: Any = None) -> Any:
    """Class decorator, with or without parentheses."""
    return _process if classtype is None else _process(classtype)


def isParameterNodeWrapper(classOrObj: Any) -> bool:
    """Whether this is a wrapper or its class."""
    return getattr(classOrObj, "_is_parameter_node_wrapper", False)


def findChildWidgetForParameter(widget: Any, parameter: str) -> Any:
    """The widget below that shows the parameter."""
    import qt

    children = widget.findChildren(qt.QWidget)
    return next((child for child in children if child.property(SlicerParameterNamePropertyName) == parameter), None)
