"""The user's settings: what the panel remembers from one scene, and one start of Slicer, to the next."""

from __future__ import annotations

import pathlib

import qt

GROUP = "IMTTranslate"
REMEMBERED = ("uncertainty", "samples", "device", "precision", "batch", "singlePlane", "biasCorrection", "keepModelLoaded", "modelFolder")
RESTORED = "IMT.SettingsRestored"  # attribute of a parameter node that has them


def save(parameterNode) -> None:
    """Remember a parameter node's values for the next scene."""
    store = qt.QSettings()
    for name in REMEMBERED:
        store.setValue(f"{GROUP}/{name}", str(getattr(parameterNode, name)))


def restore(parameterNode) -> None:
    """Give a new parameter node the remembered values; those that are not valid any more are left out."""
    holder = parameterNode.parameterNode
    if holder.GetAttribute(RESTORED):
        return
    holder.SetAttribute(RESTORED, "true")
    store = qt.QSettings()
    for name in REMEMBERED:
        text = store.value(f"{GROUP}/{name}")
        if text is None or str(text) == "":
            continue
        kind = type(getattr(parameterNode, name))
        value = str(text) == "True" if kind is bool else pathlib.Path(str(text)) if issubclass(kind, pathlib.Path) else str(text)
        try:
            setattr(parameterNode, name, int(value) if kind is int else value)
        except ValueError:  # of another version of IMT
            continue
