"""What may stand in Annotated[type, …]: validators, the default, and how a widget shows the value."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Annotated, Any


class Validator:
    """Raises ValueError for a value that the parameter may not have."""

    def validate(self, value: Any) -> None:
        """Check a value."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class WithinRange(Validator):
    """From minimum to maximum, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclasses.dataclass(frozen=True)
class Minimum(Validator):
    """Not less than this."""

    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must not be less than {self.minimum}, is {value}")


@dataclasses.dataclass(frozen=True)
class Maximum(Validator):
    """Not more than this."""

    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must not be more than {self.maximum}, is {value}")


@dataclasses.dataclass(frozen=True)
class Choice(Validator):
    """One of these."""

    choices: Any

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of {self.choices}")


@dataclasses.dataclass(frozen=True)
class Exclude(Validator):
    """None of these."""

    excludedValues: Any

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, but must be none of {self.excludedValues}")


class Default:
    """The value of a new parameter node; a generator makes it anew each time."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None):
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        """The default value."""
        return self._generator() if self._generator else self._value


@dataclasses.dataclass(frozen=True)
class Decimals:
    """Decimals that a spin box shows."""

    value: int


@dataclasses.dataclass(frozen=True)
class SingleStep:
    """Step of a spin box or slider."""

    value: float


def split_annotations(annotated: Any) -> tuple[Any, tuple]:
    """Annotated[type, a, b] → (type, (a, b)); a plain type → (type, ())."""
    plain, *notes = typing.get_args(Annotated[annotated, None])
    return plain, tuple(notes[:-1])


def plain_type(annotated: Any) -> Any:
    """The type without its annotations."""
    return split_annotations(annotated)[0]


def find_note(notes: tuple, kind: type) -> Any:
    """The first annotation of a kind, or None."""
    return next((note for note in notes if isinstance(note, kind)), None)


def split_name(name: str) -> tuple[str, str | None]:
    """ "a.b.c" → ("a", "b.c"); "a" → ("a", None)."""
    top, _, rest = name.partition(".")
    return top, rest or None


def set_reserved(cls: type, **attributes: Any) -> None:
    """Add methods that no parameter's name may hide."""
    for name, value in attributes.items():
        if hasattr(cls, name):
            raise ValueError(f"Cannot use reserved name '{name}' in {cls.__name__}")
        setattr(cls, name, value)
