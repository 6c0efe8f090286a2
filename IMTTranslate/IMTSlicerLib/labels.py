"""Labels with texts of several lines."""

from __future__ import annotations

MIN_TEXT_WIDTH = 250  # px; before the panel has its width
MARGINS = 30  # px on both sides of a label


def showWhole(label, text: str, panelWidth: int) -> None:
    """Show a text whole, and no label for an empty one: a collapsible button does not ask its labels how high their lines are.

    :param label: a QLabel with word wrap.
    :param panelWidth: of the widget that it lies in, in px.
    """
    label.text = text
    label.visible = bool(text)
    label.minimumHeight = label.heightForWidth(max(MIN_TEXT_WIDTH, panelWidth - MARGINS)) if text else 0
