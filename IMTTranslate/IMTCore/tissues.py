"""Tissues, pulse sequences and label codes: what a phantom is made of and how it is imaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import BadInput


@dataclass(frozen=True)
class Tissue:
    """MR properties at 1.5 T: proton density (CSF is 1), T1 and T2 in ms."""

    pd: float
    t1_ms: float
    t2_ms: float


@dataclass(frozen=True)
class PulseSequence:
    """A spin echo, or with an inversion time `ti_ms` an inversion-recovery spin echo; times in ms."""

    tr_ms: float
    te_ms: float
    ti_ms: float | None = None

    def __post_init__(self) -> None:
        if not (self.tr_ms > 0 and self.te_ms >= 0 and (self.ti_ms is None or 0 < self.ti_ms < self.tr_ms)):
            times = f"TR {self.tr_ms}, TE {self.te_ms}, TI {self.ti_ms} ms"
            raise BadInput(f"Bad sequence times ({times}): they need 0 < TI < TR and TE of 0 or more.")

    def signal(self, tissue: Tissue) -> float:
        """PD·(1 − e^(−TR/T1))·e^(−TE/T2), or PD·|1 − 2e^(−TI/T1) + e^(−TR/T1)|·e^(−TE/T2)."""
        recovered = 1 - np.exp(-self.tr_ms / tissue.t1_ms)
        if self.ti_ms is not None:
            recovered = abs(1 - 2 * np.exp(-self.ti_ms / tissue.t1_ms) + np.exp(-self.tr_ms / tissue.t1_ms))
        return float(tissue.pd * recovered * np.exp(-self.te_ms / tissue.t2_ms))


# BrainWeb's 1.5 T values (tissue_mr_parameters.txt; Kwan, Evans & Pike, IEEE TMI 18:1085, 1999) for csf, grey, white,
# fat, soft (muscle) and lesion (multiple sclerosis). deep_grey (thalamus, pallidum) is midway between grey and white.
# Eyes are water like CSF; nerve is white matter outside the brain, where no lesion is put. Bone has next to no signal:
# little water, T2 near 0.5 ms (Reichert et al., Magn Reson Imaging 23:611, 2005).
TISSUES: dict[str, Tissue] = {
    "csf": Tissue(1.0, 2569, 329),
    "grey": Tissue(0.86, 833, 83),
    "white": Tissue(0.77, 500, 70),
    "bone": Tissue(0.2, 200, 0.5),
    "fat": Tissue(1.0, 350, 70),
    "soft": Tissue(1.0, 900, 47),
    "lesion": Tissue(0.76, 752, 237),
    "deep_grey": Tissue(0.815, 667, 77),
    "eye": Tissue(1.0, 2569, 329),
    "nerve": Tissue(0.77, 500, 70),
}
BRAIN = ("csf", "grey", "white", "deep_grey", "lesion")
# The code of a class in labels made from tissue maps: its place in TISSUES, from 1; 0 is air.
CLASS_CODES: dict[str, int] = {name: code for code, name in enumerate(TISSUES, start=1)}

# FLAIR's inversion time nulls the CSF above: T1·ln 2 for a long TR, less the recovery that a finite TR leaves out.
SEQUENCES: dict[str, PulseSequence] = {
    "T1": PulseSequence(500, 12),
    "T2": PulseSequence(4000, 100),
    "PD": PulseSequence(3000, 20),
    "FLAIR": PulseSequence(9000, 110, 1704),
}

# FreeSurfer's codes, and from 500 on those of SimNIBS CHARM (SynthSeg's training maps). 136/137/163/164 lie in the
# ventricles in these maps (choroid plexus); vessels (502, 514) are left out: blood flows out of a spin echo unseen.
_CODES_OF_CLASS: dict[str, tuple[int, ...]] = {
    "background": (0, 501, 502, 514, 517),
    "csf": (4, 5, 14, 15, 24, 30, 43, 44, 62, 72, 520),
    "grey": (3, 8, 11, 12, 17, 18, 26, 31, 42, 47, 50, 51, 53, 54, 58, 63, 136, 137, 163, 164),
    "white": (2, 7, 16, 41, 46, 85, 251, 252, 253, 254, 255),
    "deep_grey": (10, 13, 28, 49, 52, 60),
    "lesion": (25, 57, 77),
    "bone": (515,),
    "fat": (511, 516),  # scalp and marrow
    "soft": (507, 508, 509),  # muscle and other soft tissue, eye muscles, mucosa
    "eye": (506,),
    "nerve": (512, 530),  # spinal cord, optic nerves
}
LABEL_TISSUES: dict[int, str] = {code: name for name, codes in _CODES_OF_CLASS.items() for code in codes}
