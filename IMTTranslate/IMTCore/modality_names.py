"""Which modality a text names: file names, DICOM series descriptions, protocol and sequence names."""

from __future__ import annotations

import re

PHRASES = {r"proton[ _-]*density": "pd", r"dark[ _-]*fluid": "flair"}
# Whole words, so that "patient2", "part1" and "start1" name nothing.
_WORDS = {
    "T1": re.compile(r"t1(w|wi|fs|se|fse|tse|ffe|fl2d|fspgr|spgr|mprage|mpr|gre|3d|space)?|mp2?rage|mpr|fspgr|spgr|bravo|(tse|fse|se|tfl|3d)t1w?"),
    "T1C": re.compile(r"t1w?(c|ce|gd|gad|km|post|contrast)\+?|mprage(gd|km|post)"),
    "T2": re.compile(r"t2(w|wi|fs|se|fse|tse|blade|3d|space)?|(tse|fse|se|3d)t2w?"),
    "FLAIR": re.compile(r"(t2|t1|3d|2d)?flair(w|3d|2d|fs)?|tirm"),
    "PD": re.compile(r"pd(w|wi|fs|tse|fse)?"),
}
_AGENT = re.compile(r"gd|gad|gado|gadolinium|gadovist|post|postcontrast|km|ce|contrast")
_STAR = re.compile(r"t2 ?\*|t2star|t2s\b|\bswi\b|\bswan\b")  # T2* is another contrast than T2


def guess_from_text(*texts: str | None) -> str | None:
    """The modality that the first telling text names.

    Args:
        texts: in the order in which they are to be believed; None and empty ones are passed over.

    Returns:
        T1, T2, FLAIR, PD or T1C (T1 after contrast agent); None if no text names one, or the first that does names several.
    """
    for text in texts:
        found = _named_in(text or "")
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _named_in(text: str) -> set[str]:
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()  # camelCase
    for phrase, word in PHRASES.items():
        text = re.sub(phrase, word, text)
    if _STAR.search(text):
        return set()
    words = [word for word in re.split(r"[^a-z0-9+]+", text) if word]
    found = {modality for modality, pattern in _WORDS.items() if any(pattern.fullmatch(word) for word in words)}
    if "T1" in found and any(_AGENT.fullmatch(word) for word in words):
        found.add("T1C")
    if "T1C" in found:
        found.discard("T1")
    if "FLAIR" in found:  # an inversion-recovery T2 (or T1) is a FLAIR
        found -= {"T1", "T2"}
    return found
