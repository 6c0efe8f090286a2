"""The user's settings: what the panel remembers from one scene, and one start of Slicer, to the next."""

from __future__ import annotations

from IMTSlicerLib.user_settings import UserSettings

GROUP = "IMTRegister"
REMEMBERED = (
    *("engine", "preset", "fusion", "weightAutomatic", "labelFusion", "atlasFolder", "jobs", "memory"),
    *("makeAgreement", "makeTransforms", "makeWarped", "makeTranslated"),
)
remembered = UserSettings(GROUP, REMEMBERED)
