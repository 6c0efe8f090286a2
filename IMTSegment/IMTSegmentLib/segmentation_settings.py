"""How to segment: the one record that the command line, the panel and scripts fill in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from IMTCore.settings import TranslationSettings


@dataclass(frozen=True)
class SegmentationSettings:
    """How to segment.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        batch: slices at once; None for the device's default.
        translator: name or path of the translation model that makes the second modality; None for the card's own.
        check_modality: refuse an input that surely shows another modality than the model's source; off, that is a warning.
        seed: of the translation's noise; the result is a function of it.
        bias_correction: N4 bias field correction of the given image, before it is translated and segmented.
    """

    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    translator: str | None = None
    check_modality: bool = True
    seed: int = 0
    bias_correction: bool = False

    def check(self) -> None:
        """Raises BadInput if a number is out of range."""
        self.translation("", "").check()

    def translation(self, source: str, target: str, precision: str | None = None) -> TranslationSettings:
        """The settings of the translation that goes before; the bias field is corrected once, for both."""
        return TranslationSettings(
            source=source,
            target=target,
            device=self.device,
            precision=precision or self.precision,
            batch=self.batch,
            seed=self.seed,
            check_modality=self.check_modality,
        )

    def record(self) -> dict[str, Any]:
        """What a repeat needs, for marks and reports; device and precision are in the result's own record."""
        return {
            "seed": self.seed,
            "check_modality": self.check_modality,
            "bias_correction": "N4" if self.bias_correction else None,
        }
