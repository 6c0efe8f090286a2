"""What a DICOM header says of an MR image's contrast: its names, its times, its contrast agent.

The times are judged only where they leave little doubt. Their ranges are the usual ones of brain protocols at 1.5 and 3 T; of
echo-planar, angiographic and steady-state sequences nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .cards import PackageCard
from .errors import BadInput
from .modality_names import guess_from_text
from .volume import Volume

# In ms. Spin echo: T1 up to the first, T2, FLAIR and PD from the second.
SHORT_REPETITION, LONG_REPETITION = 1100.0, 1800.0
SHORT_ECHO, PD_ECHO, LONG_ECHO = 35.0, 40.0, 60.0
GRADIENT_ECHO, GRADIENT_REPETITION, GRADIENT_FLIP_DEG = 10.0, 500.0, 8.0
# Inversion times: those of T1 images, and those that null the fluid at the long repetition times of a FLAIR.
T1_INVERSION, FLAIR_INVERSION = (300.0, 1300.0), 1500.0


@dataclass(frozen=True)
class Acquisition:
    """How an image was acquired, as far as its header tells.

    Attributes:
        texts: series description, protocol name, sequence name.
        repetition_ms, echo_ms, inversion_ms, flip_deg: None where the header has none.
        sequences: of SE, GR, IR, EP, RM.
        variants: of the sequence, such as SS (steady state).
        agent: the contrast agent; empty for none.
        angiography: whether the header calls it one.
        image_type: such as ORIGINAL, PRIMARY, M.
        synthetic: whether the header says that it is no acquired image.
    """

    texts: tuple[str, ...] = ()
    repetition_ms: float | None = None
    echo_ms: float | None = None
    inversion_ms: float | None = None
    flip_deg: float | None = None
    sequences: frozenset[str] = frozenset()
    variants: frozenset[str] = frozenset()
    agent: str = ""
    angiography: bool = False
    image_type: tuple[str, ...] = ()
    synthetic: bool = False

    @classmethod
    def from_header(cls, value: Callable[[int, int], str]) -> Acquisition:
        """Read it. `value` gives an element's text by its tag, several values joined by a backslash, empty if it is not there."""

        def words(group: int, element: int) -> tuple[str, ...]:
            return tuple(word.strip().upper() for word in value(group, element).split("\\") if word.strip())

        def number(element: int) -> float | None:
            try:
                found = float(value(0x18, element).split("\\")[0])
            except ValueError:
                return None
            return found if math.isfinite(found) and found > 0 else None

        agent, image_type = value(0x18, 0x10).strip(), words(0x08, 0x08)
        return cls(
            tuple(value(*tag).strip() for tag in ((0x08, 0x103E), (0x18, 0x1030), (0x18, 0x24))),
            number(0x80),
            number(0x81),
            number(0x82),
            number(0x1314),
            frozenset(words(0x18, 0x20)),
            frozenset(words(0x18, 0x21)),
            "" if agent.upper() in ("NO", "NONE", "N", "0") else agent,
            value(0x18, 0x25).strip().upper() == "Y",
            image_type,
            "SYNTHETIC" in image_type or value(0x08, 0x1C).strip().upper() == "YES",
        )

    @property
    def named(self) -> str | None:
        """The modality that its texts name."""
        found = guess_from_text(*self.texts)
        return "T1C" if found == "T1" and self.agent else found

    @property
    def timed(self) -> frozenset[str]:
        """The modalities that its times allow; empty if they tell nothing."""
        found = frozenset() if self._is_special() else frozenset(self._by_times())
        return frozenset({"T1C"}) if found == {"T1"} and self.agent else found

    @property
    def modality(self) -> str | None:
        """What the image seems to show: as it is named, else as it is timed; None if neither tells, or they disagree."""
        if self.named and (not self.timed or self.fits(self.named)):
            return self.named
        return min(self.timed) if len(self.timed) == 1 and not self.named else None

    def fits(self, modality: str) -> bool:
        """Whether the times allow a modality (T1 with or without contrast agent)."""
        return not self.timed or _plain(modality) in {_plain(other) for other in self.timed}

    def times(self) -> str:
        """The times in words: "TR 4000 ms, TE 92 ms"."""
        values = (("TR", self.repetition_ms), ("TE", self.echo_ms), ("TI", self.inversion_ms))
        return ", ".join(f"{name} {value:g} ms" for name, value in values if value is not None)

    def _is_special(self) -> bool:
        derived = {"ADC", "FA", "TRACEW", "MOSAIC", "PROJECTION IMAGE", "MPR", "PHASE", "P"} & set(self.image_type[2:])
        return bool(self.sequences & {"EP", "RM"} or "SS" in self.variants or self.angiography or derived)

    def _by_times(self) -> set[str]:
        repetition, echo, inversion = self.repetition_ms, self.echo_ms, self.inversion_ms
        if repetition is None or echo is None:
            return set()
        low, high = T1_INVERSION
        if "GR" in self.sequences:
            if inversion is not None or "IR" in self.sequences:
                return {"T1"} if inversion is not None and low <= inversion <= high and echo <= GRADIENT_ECHO else set()
            turned = self.flip_deg is not None and self.flip_deg >= GRADIENT_FLIP_DEG
            return {"T1"} if echo <= GRADIENT_ECHO and repetition <= GRADIENT_REPETITION and turned else set()
        if inversion is not None:
            if inversion >= FLAIR_INVERSION and echo >= LONG_ECHO:
                return {"FLAIR"}
            return {"T1"} if low <= inversion <= high and echo <= SHORT_ECHO else set()
        if "IR" in self.sequences:
            return set()
        if repetition <= SHORT_REPETITION:
            return {"T1"} if echo <= SHORT_ECHO else set()
        if repetition < LONG_REPETITION:
            return set()
        # Some headers leave the inversion of a FLAIR out.
        return {"T2", "FLAIR"} if echo >= LONG_ECHO else {"PD"} if echo <= PD_ECHO else set()


def acquisition_of(volume: Volume) -> Acquisition | None:
    """How a volume was acquired, if it comes from DICOM."""
    return volume.header if isinstance(volume.header, Acquisition) else None


def check_acquisition(volume: Volume, card: PackageCard, modality: str, refuse: bool, verb: str = "translate") -> list[str]:
    """Check the header of a volume from DICOM against what a model takes.

    Args:
        volume: the input; nothing is said of one that is not from DICOM.
        card: the model's card.
        modality: what the image is to show.
        refuse: whether an image whose times are those of another modality is refused; else there is a warning.
        verb: what the model does, for the messages.

    Returns:
        A warning in words for the user, if the header speaks against the modality.

    Raises:
        BadInput: if the times do, and `refuse` says so.
    """
    found, wanted = acquisition_of(volume), guess_from_text(modality)
    if found is None or wanted is None:
        return []
    if found.synthetic:
        return [f"{volume.name} says in its header that it is a synthetic image; model {card.name} {verb}s acquired ones."]
    if not found.fits(wanted):
        finding = (
            f"{volume.name} has the times of a {' or '.join(sorted(found.timed))} image ({found.times()}), but model {card.name} "
            f"{verb}s {modality} images"
        )
        if refuse:
            raise BadInput(
                f"{finding}. Choose another series or model; if it is certain that this is a {modality} image, "
                "leave the check of the modality out (--no-modality-check)."
            )
        return [f"{finding}. Check the result with care."]
    named = found.named
    if named == "T1C" and wanted == "T1":
        agent = f" ({found.agent})" if found.agent else ""
        return [f"{volume.name} was acquired after contrast agent{agent}, but model {card.name} {verb}s {modality} images without."]
    if named is not None and _plain(named) != _plain(wanted):
        text = next(text for text in found.texts if guess_from_text(text))
        return [f"{volume.name} is described as {text!r}, but model {card.name} {verb}s {modality} images. Check that it is one."]
    return []


def header_value(header: Any) -> Callable[[int, int], str]:
    """How `Acquisition.from_header` reads a SimpleITK file reader that has read its file's header."""

    def value(group: int, element: int) -> str:
        key = f"{group:04x}|{element:04x}"
        try:
            return str(header.GetMetaData(key)) if header.HasMetaDataKey(key) else ""
        except UnicodeDecodeError:  # a description in another character set; its ASCII words would be lost too
            return ""

    return value


def _plain(modality: str) -> str:
    return "T1" if modality == "T1C" else modality
