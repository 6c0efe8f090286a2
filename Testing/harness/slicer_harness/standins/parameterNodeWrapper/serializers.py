"""How values stand in a vtkMRMLScriptedModuleNode: as texts, and nodes as references."""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from typing import Any

import slicer

from .annotations import Validator, split_annotations

PATHS = (pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath)


class Serializer:
    """Reads and writes one parameter."""

    allowed: Any = ()
    none_allowed = False
    cached = True

    def __init__(self, kind: Any, notes: tuple = ()):
        self.kind = kind
        self.validators = [note for note in notes if isinstance(note, Validator)]

    @staticmethod
    def fits(kind: Any) -> bool:
        """Whether this class is for values of the type."""
        raise NotImplementedError

    def validate(self, value: Any) -> None:
        """Raise TypeError or ValueError for a value that does not fit."""
        if value is None and not self.none_allowed:
            raise ValueError("Value must not be None")
        allowed = self.allowed or self.kind
        if value is not None and not isinstance(value, allowed):
            raise TypeError(f"Value must be of type '{allowed}', is type '{type(value)}' value '{value}'")
        for validator in self.validators:
            validator.validate(value)

    def default(self) -> Any:
        """The value if no default is given; it is validated like any other."""
        return self.kind()

    def is_in(self, node: Any, name: str) -> bool:
        """Whether the node has the parameter."""
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        """Check and write a value."""
        self.validate(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Any, name: str) -> Any:
        """Read the value."""
        return self.from_text(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        """Take the parameter out of the node."""
        node.UnsetParameter(name)

    def to_text(self, value: Any) -> str:
        return str(value)

    def from_text(self, text: str) -> Any:
        return self.kind(text)


class TextSerializer(Serializer):
    """str and paths."""

    @staticmethod
    def fits(kind: Any) -> bool:
        return kind is str or kind in PATHS


class NumberSerializer(Serializer):
    """int and float; a float takes an int too."""

    @staticmethod
    def fits(kind: Any) -> bool:
        return kind in (int, float)

    def __init__(self, kind: Any, notes: tuple = ()):
        super().__init__(kind, notes)
        self.allowed = (int, float) if kind is float else int

    def default(self) -> Any:
        return 0


class BoolSerializer(Serializer):
    """bool."""

    @staticmethod
    def fits(kind: Any) -> bool:
        return kind is bool

    def from_text(self, text: str) -> bool:
        return text == "True"


class EnumSerializer(Serializer):
    """Enum, by the member's name."""

    @staticmethod
    def fits(kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, enum.Enum)

    def default(self) -> Any:
        return next(iter(self.kind))

    def to_text(self, value: Any) -> str:
        return value.name

    def from_text(self, text: str) -> Any:
        if text not in self.kind.__members__:
            raise ValueError(f"Found {text!r} in parameter node but it is not a name in {self.kind!r}")
        return self.kind[text]


class NodeSerializer(Serializer):
    """An MRML node or None, as a node reference; an empty parameter says that it was written."""

    none_allowed = True

    @staticmethod
    def fits(kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)

    def default(self) -> None:
        return None

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneSerializer(Serializer):
    """None, in a Union."""

    none_allowed = True

    @staticmethod
    def fits(kind: Any) -> bool:
        return kind is type(None)

    def from_text(self, text: str) -> None:
        return None


class UnionSerializer(Serializer):
    """Union and Optional: the first member type that takes the value; each has a parameter of its own."""

    @staticmethod
    def fits(kind: Any) -> bool:
        return typing.get_origin(kind) in (typing.Union, types.UnionType)

    def __init__(self, kind: Any, notes: tuple = ()):
        super().__init__(kind, notes)
        self.members = [create_serializer(*split_annotations(member)) for member in typing.get_args(kind)]
        self.cached = all(member.cached for member in self.members)

    def default(self) -> Any:
        optional = len(self.members) == 2 and isinstance(self.members[1], NoneSerializer)
        return None if optional else self.members[0].default()

    def is_in(self, node: Any, name: str) -> bool:
        return any(member.is_in(node, f"{name}_{index}") for index, member in enumerate(self.members))

    def write(self, node: Any, name: str, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)
        problem: Exception = TypeError(f"Unable to write value '{value}' of type '{type(value)}'")
        for index, member in enumerate(self.members):
            if member.fits(type(value)):
                try:
                    member.validate(value)
                except (TypeError, ValueError) as error:
                    problem = error
                    continue
                with slicer.util.NodeModify(node):
                    self.remove(node, name)
                    member.write(node, f"{name}_{index}", value)
                return
        raise problem

    def read(self, node: Any, name: str) -> Any:
        for index, member in enumerate(self.members):
            if member.is_in(node, f"{name}_{index}"):
                return member.read(node, f"{name}_{index}")
        raise KeyError(f"Unable to find value for name: {name}")

    def remove(self, node: Any, name: str) -> None:
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}_{index}")


SERIALIZERS = [TextSerializer, NumberSerializer, BoolSerializer, EnumSerializer, NodeSerializer, NoneSerializer, UnionSerializer]


def create_serializer(kind: Any, notes: tuple = ()) -> Serializer:
    """The serializer for a type with these annotations."""
    for serializer in SERIALIZERS:
        if serializer.fits(kind):
            return serializer(kind, notes)
    raise TypeError(f"Unable to create serializer for type: {kind} (slicer_harness has none for lists, tuples and dicts)")
