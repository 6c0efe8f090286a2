"""Parameter packs: classes of parameters that are one parameter of a wrapper; members are named with dots."""

from __future__ import annotations

from typing import Any

import slicer

from .annotations import plain_type, set_reserved, split_name
from .members import read_members
from .serializers import SERIALIZERS, Serializer


def isParameterPack(obj: Any) -> bool:
    """Whether this is a pack, or the class of one."""
    return getattr(obj, "_is_parameterPack", False)


def nestedParameterNames(pack: Any) -> list[str]:
    """The dotted names of all members."""
    pack = pack if isParameterPack(pack) else plain_type(pack)
    names = []
    for name, info in pack.allParameters.items():
        kind = plain_type(info.unalteredType)
        names += [f"{name}.{below}" for below in nestedParameterNames(kind)] if isParameterPack(kind) else [name]
    return names


def check_member(pack: Any, name: str) -> None:
    """Raise ValueError unless the pack has the member."""
    top, rest = split_name(name)
    if not isParameterPack(pack) or top not in pack.allParameters:
        raise ValueError(f"{pack} has no member '{top}'")
    if rest:
        check_member(plain_type(pack.allParameters[top].unalteredType), rest)


def _member(name: str) -> property:
    def put(self: Any, value: Any) -> None:
        self.allParameters[name].serializer.validate(value)
        self.__dict__[f"_{name}"] = value
        if self.__dict__.get("_place"):  # read from a parameter node: write it back there
            node, parameter = self._place
            self.allParameters[name].serializer.write(node, f"{parameter}.{name}", value)

    return property(lambda self: self.__dict__[f"_{name}"], put)


def _get_value(self: Any, name: str) -> Any:
    check_member(self, name)
    top, rest = split_name(name)
    return getattr(self, top).getValue(rest) if rest else getattr(self, top)


def _set_value(self: Any, name: str, value: Any) -> None:
    check_member(self, name)
    top, rest = split_name(name)
    if rest:
        getattr(self, top).setValue(rest, value)
    else:
        setattr(self, top, value)


def _equal(self: Any, other: Any) -> bool:
    return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.allParameters)


def _text(self: Any) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.allParameters)})"


def _data_type_of(cls: type) -> Any:
    def dataType(name: str) -> Any:
        """The annotated type of a member."""
        check_member(cls, name)
        top, rest = split_name(name)
        kind = cls.allParameters[top].unalteredType
        return plain_type(kind).dataType(rest) if rest else kind

    return staticmethod(dataType)


def _process(cls: type) -> type:
    members = read_members(cls)
    if not members:
        raise ValueError("Unable to find any members in parameterPack")
    for name, info in members.items():
        try:
            info.serializer.validate(info.default.value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The default parameter of '{info.default.value}' fails the validation checks:\n  {error}"
            ) from error
        setattr(cls, name, _member(name))
    own_init = cls.__dict__.get("__init__")

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = {} if own_init else dict(zip(members, args, strict=False)) | kwargs
        if not own_init and (len(args) > len(members) or given.keys() - members.keys()):
            raise TypeError(f"__init__() got unexpected arguments {args} {kwargs}")
        for name, info in members.items():
            setattr(self, name, given.get(name, info.default.value))
        if own_init:
            own_init(self, *args, **kwargs)

    cls.__init__ = init
    for name, method in (("__eq__", _equal), ("__str__", _text), ("__repr__", _text)):
        if name not in cls.__dict__:
            setattr(cls, name, method)
    set_reserved(cls, allParameters=members, getValue=_get_value, setValue=_set_value)
    set_reserved(cls, _is_parameterPack=True, dataType=_data_type_of(cls))
    return cls


def parameterPack(classtype: Any = None) -> Any:
    """Class decorator, with or without parentheses."""
    return _process if classtype is None else _process(classtype)


class PackSerializer(Serializer):
    """Each member is a parameter "pack.member". A pack that was read writes its changes back."""

    cached = False

    @staticmethod
    def fits(kind: Any) -> bool:
        return isParameterPack(kind)

    def is_in(self, node: Any, name: str) -> bool:
        first = next(iter(self.kind.allParameters.values()))
        return first.serializer.is_in(node, f"{name}.{first.basename}")

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            for member, info in self.kind.allParameters.items():
                info.serializer.write(node, f"{name}.{member}", getattr(value, member))

    def read(self, node: Any, name: str) -> Any:
        pack = self.kind.__new__(self.kind)
        for member, info in self.kind.allParameters.items():
            pack.__dict__[f"_{member}"] = info.serializer.read(node, f"{name}.{member}")
        pack.__dict__["_place"] = (node, name)
        return pack

    def remove(self, node: Any, name: str) -> None:
        for member, info in self.kind.allParameters.items():
            info.serializer.remove(node, f"{name}.{member}")


SERIALIZERS.append(PackSerializer)
