"""How to translate: the one record that the command line, the panel and scripts fill in."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BadInput


@dataclass(frozen=True)
class TranslationSettings:
    """How to translate.

    Attributes:
        source, target: modalities, only needed for an any-to-any model.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        batch: slices at once; None for the device's default.
        seed: of the noise z (dropout at test time); the result is a function of it.
        dropout: translate with the noise on; off gives the deterministic translation.
        samples: number of noise samples for the uncertainty volume; 0 for none.
        trust_map: also make the map of where not to trust the translation; it needs samples.
        single_plane: of a model that averages over several planes, use the first alone: faster, and less accurate.
        bias_correction: N4 bias field correction of the input before it is translated.
        check_modality: refuse an input that surely shows another modality than the source; off, that is a warning.
    """

    source: str | None = None
    target: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    seed: int = 0
    dropout: bool = False
    samples: int = 0
    single_plane: bool = False
    bias_correction: bool = False
    check_modality: bool = True
    trust_map: bool = False

    def check(self) -> None:
        """Raises BadInput if a number is out of range."""
        if self.batch is not None and not 1 <= self.batch <= 4096:
            raise BadInput(f"The batch must be 1 to 4096 slices, not {self.batch}.")
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"The seed must be a whole number from 0, not {self.seed}.")
        if self.samples < 0 or self.samples == 1 or self.samples > 1000:
            raise BadInput(f"An uncertainty needs 2 to 1000 samples, not {self.samples}.")
        if self.trust_map and not self.samples:
            raise BadInput("A trust map needs noise samples: give a number of samples from 2.")
