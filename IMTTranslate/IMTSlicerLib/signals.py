"""A signal in plain Python: qt.Signal crashes under PythonQt, and nothing here may need Qt."""

from __future__ import annotations

from collections.abc import Callable


class Signal:
    """Calls its listeners in the order in which they were connected.

    >>> said = []
    >>> signal = Signal()
    >>> signal.connect(said.append)
    >>> signal.emit("done")
    >>> said
    ['done']
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[..., object]] = []

    def connect(self, listener: Callable[..., object]) -> None:
        """Call `listener` at each `emit` from now on; connected twice, it is called once."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def disconnect(self, listener: Callable[..., object] | None = None) -> None:
        """Forget a listener, or all of them; one that is not connected does no harm."""
        self._listeners = [known for known in self._listeners if listener is not None and known != listener]

    def emit(self, *values: object) -> None:
        """Call every listener, also after one has raised; the first error is raised at the end."""
        errors: list[Exception] = []
        for listener in list(self._listeners):
            if listener not in self._listeners:  # disconnected by a listener before it
                continue
            try:
                listener(*values)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
