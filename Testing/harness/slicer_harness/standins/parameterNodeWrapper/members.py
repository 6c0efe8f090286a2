"""The parameters that a wrapper or a pack declares."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from .annotations import Default, find_note, split_annotations
from .serializers import create_serializer


@dataclasses.dataclass(frozen=True)
class ParameterInfo:
    """One member of a wrapper or a pack."""

    basename: str
    serializer: Any
    default: Default
    unalteredType: Any


def read_members(cls: type) -> dict[str, ParameterInfo]:
    """The parameters that the class declares, in order."""
    members = {}
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        plain, notes = split_annotations(annotated)
        serializer = create_serializer(plain, notes)
        default = find_note(notes, Default) or Default(serializer.default())
        if hasattr(cls, name):
            default = Default(getattr(cls, name))
        members[name] = ParameterInfo(name, serializer, default, annotated)
    return members
