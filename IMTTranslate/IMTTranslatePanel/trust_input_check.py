"""The label under the input selector: what is unusual about the input for the chosen models, before anything runs."""

from __future__ import annotations

from html import escape

from slicer.i18n import tr as _

STYLE = "color: #b9770e"


class InputCheck:
    """Measures the input once, whenever it has changed, and holds it against the cards of the chosen models.

    :param label: the QLabel that tells; it is hidden while there is nothing to tell.
    """

    def __init__(self, label) -> None:
        self._label = label
        self._measured: tuple | None = None
        self._measures = None
        label.visible = False
        label.styleSheet = STYLE

    def update(self, inputNode, cards: list) -> None:
        """Tell of this input and these models.

        :param inputNode: a volume node, or None.
        :param cards: of the chosen models.
        """
        texts = self._warnings(inputNode, cards)
        self._label.text = "<br>".join(f"{_('Warning:')} {escape(text)}" for text in texts)
        self._label.visible = bool(texts)

    def _warnings(self, inputNode, cards: list) -> list[str]:
        from IMTCore.input_check import WARN, findings_of

        measures = self._measure(inputNode)
        if measures is None:
            return []
        found = (one for card in cards for one in findings_of(inputNode.GetName(), measures, card))
        return list(dict.fromkeys(one.text for one in found if one.severity == WARN))

    def _measure(self, inputNode):
        """The measures of the volume as it is now; None if there is no volume, or no head in it."""
        from IMTCore.errors import ImtError
        from IMTCore.input_check_measures import measure_input
        from IMTSlicerLib.input_modality import volumeOf
        from IMTSlicerLib.nodes import checkVolume

        if inputNode is None or inputNode.GetImageData() is None:
            return None
        state = inputNode.GetID(), inputNode.GetMTime(), inputNode.GetImageData().GetMTime()
        if state != self._measured:
            self._measured, self._measures = state, None
            try:
                checkVolume(inputNode)
                self._measures = measure_input(volumeOf(inputNode))
            except (ImtError, ValueError):  # the run says why it cannot be used
                pass
        return self._measures
