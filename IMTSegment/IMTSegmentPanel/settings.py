"""The user's settings: what the panel remembers from one scene, and one start of Slicer, to the next."""

from __future__ import annotations

from IMTSlicerLib.user_settings import UserSettings

GROUP = "IMTSegment"
REMEMBERED = ("makeProbabilities", "makeTranslated", "show3D", "device", "precision", "batch", "biasCorrection")
remembered = UserSettings(GROUP, REMEMBERED)
