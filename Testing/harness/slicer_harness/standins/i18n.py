"""Stand-in for slicer.i18n: texts stay English."""


def tr(text: str) -> str:
    """The text, untranslated."""
    return text


def translate(context: str, text: str) -> str:
    """The text, untranslated."""
    return text
