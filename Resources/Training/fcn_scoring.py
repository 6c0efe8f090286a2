"""Real and synthetic images of one subject segmented by one network, and the scores of both (Yang et al. 2020, FCN-score)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from datasets import Subject, check_same_grid
from segmentation_scores import REAL, segmentation_scores
from segmenter_data import prepare_subject
from segmenter_trainer import SegmenterTrainer
from segmenter_validation import probabilities_of

from IMTCore.errors import BadInput
from IMTCore.intensity import Normalisation, background_value, foreground_mask, normalisation_of
from IMTCore.preparation import PreparedVolume
from IMTCore.provenance import read_mark, sidecar_path
from IMTCore.translation import Translator
from IMTCore.volume import Volume
from IMTCore.volume_io import READABLE, read_volume

SCORING_BATCH = 8


@dataclass(frozen=True)
class Folder:
    """Synthetic images in files, `<folder>/[<dataset>/]<subject>/<target>.<suffix>` as `imt translate` writes them."""

    path: Path
    target: str

    def find(self, subject: Subject) -> Path:
        """The subject's synthetic image. BadInput: none is there."""
        for name in (subject.name, subject.name.rpartition("/")[2]):
            for suffix in READABLE:
                if (path := self.path / name / f"{self.target}{suffix}").is_file():
                    return path
        raise BadInput(f"{self.path} has no {self.target} of {subject.name}: it needs {subject.name}/{self.target}.nii.gz.")

    def image(self, subject: Subject) -> tuple[Volume, float | None]:
        """The image, and the top of its output range if its mark says so, else None. BadInput: unreadable."""
        path = self.find(subject)
        record = read_mark(sidecar_path(path))
        limits = record.get("output_range") if record.get("synthetic") is True else None
        known = isinstance(limits, list) and len(limits) == 2 and isinstance(limits[1], int | float) and limits[1] > 0
        return read_volume(path), float(limits[1]) if known else None


@dataclass(frozen=True)
class Model:
    """Synthetic images that a translator makes on the spot."""

    translator: Translator

    def image(self, subject: Subject) -> tuple[Volume, float | None]:
        """The translation and the top of its output range. BadInput: the source image does not fit."""
        result = self.translator.translate(subject.volume(self.translator.source))
        return result.translation, self.translator.card.output_range[1]


def network_images(image: Volume, real: PreparedVolume, top: float | None) -> np.ndarray:
    """A synthetic image as slices on the real one's network grid, [k, rows, columns] in [-1, 1].

    Args:
        image: on the real image's grid.
        real: the real target image, prepared.
        top: the intensity that stands for the real image's percentile, if known; else the synthetic image's own.

    Raises:
        BadInput: if the image has no contrast.
    """
    array = real.axes.apply(image.array)
    background = background_value(array)
    try:
        normalisation = normalisation_of(array) if top is None else Normalisation(0.0, top, background)
    except BadInput as error:
        raise BadInput(f"{image.name}: {error}") from error
    normalised = np.clip(normalisation.apply(array), 0, 1)
    normalised[~foreground_mask(array, background)] = 0
    return real.grid.to_network(normalised)


def segment(network: nn.Module, images: np.ndarray, real: PreparedVolume) -> np.ndarray:
    """The likeliest class of each voxel of the slices that hold a part of the real image.

    Args:
        images: all slices [k, rows, columns] in [-1, 1].

    Returns:
        [slices, j, i] uint8 on the volume's own grid, in the slices' orientation; background beyond the head's box.
    """
    slices, found = np.flatnonzero(real.filled), []
    for start in range(0, len(slices), SCORING_BATCH):
        shares = probabilities_of(network, images[slices[start : start + SCORING_BATCH]][:, None])
        shape = real.foreground.shape[1:]
        planes = [real.grid.from_network(shares[:, c], shape, float(c == 0)) for c in range(shares.shape[1])]
        found.append(np.argmax(planes, axis=0).astype(np.uint8))
    return np.concatenate(found)


def score_subjects(trainer: SegmenterTrainer, subjects: list[Subject], kinds: dict[str, Folder | Model]) -> Iterator[dict]:
    """Rows of scores: for each subject that of the real image ("real"), then those of each kind of synthetic one."""
    config = trainer.config
    network = trainer.network.eval()
    for subject in subjects:
        (prepared,) = prepare_subject(subject, config)
        volume, real = prepared.given, prepared.views[0]
        images = {REAL: real.images}
        for label, kind in kinds.items():
            synthetic, top = kind.image(subject)
            check_same_grid(subject, {config.given: volume, f"{label}'s synthetic {config.given}": synthetic})
            images[label] = network_images(synthetic, real, top)
        truth = real.axes.apply(prepared.classes)[real.filled]
        for label, slices in images.items():
            scores = segmentation_scores(truth, segment(network, slices, real), config.names)
            print(f"{subject.name:<32} {label:<20} " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items()), flush=True)
            yield {"subject": subject.name, "images": label, **scores}
