"""The user's settings: what the panel remembers from one scene, and one start of Slicer, to the next."""

from __future__ import annotations

from IMTSlicerLib.user_settings import UserSettings

GROUP = "IMTTranslate"
REMEMBERED = ("uncertainty", "trustMap", "samples", "device", "precision", "batch", "singlePlane", "biasCorrection", "keepModelLoaded", "modelFolder")
remembered = UserSettings(GROUP, REMEMBERED)
