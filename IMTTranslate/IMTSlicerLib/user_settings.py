"""A panel's settings of the user: what it remembers from one scene, and one start of Slicer, to the next."""

from __future__ import annotations

import pathlib

import qt

RESTORED = "IMT.SettingsRestored"  # attribute of a parameter node that has them


class UserSettings:
    """The remembered parameters of one panel.

    :param group: the group in Slicer's settings, such as the module's name.
    :param names: parameters of the parameter node: bool, int, float, str or path.
    """

    def __init__(self, group: str, names: tuple[str, ...]) -> None:
        self._group, self._names = group, names

    def save(self, parameterNode) -> None:
        """Remember a parameter node's values for the next scene."""
        store = qt.QSettings()
        for name in self._names:
            store.setValue(f"{self._group}/{name}", str(getattr(parameterNode, name)))

    def restore(self, parameterNode) -> None:
        """Give a new parameter node the remembered values; those that are not valid any more are left out."""
        holder = parameterNode.parameterNode
        if holder.GetAttribute(RESTORED):
            return
        holder.SetAttribute(RESTORED, "true")
        store = qt.QSettings()
        for name in self._names:
            text = store.value(f"{self._group}/{name}")
            if text is None or str(text) == "":
                continue
            kind = type(getattr(parameterNode, name))
            try:
                setattr(parameterNode, name, _valueOf(str(text), kind))
            except ValueError:  # of another version of IMT
                continue


def _valueOf(text: str, kind: type):
    if kind is bool:
        return text == "True"
    return pathlib.Path(text) if issubclass(kind, pathlib.Path) else kind(text)
