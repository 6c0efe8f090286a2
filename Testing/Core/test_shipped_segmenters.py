"""The segmenters that come with IMT, on the real input that nilearn's wheel holds."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from IMTCore.catalogue import find_card
from IMTCore.label_scores import dice_scores
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume
from IMTSegmentLib.segmentation import Segmenter
from IMTSegmentLib.segmentation_settings import SegmentationSettings
from IMTSegmentLib.segmenter_catalogue import find_segmenter, list_segmenters, shipped_folder
from IMTSegmentLib.segmenter_packages import load_segmenter

SHIPPED = sorted(path.stem for path in shipped_folder().glob("*.json"))
GREY, WHITE = 2, 3


def test_tissue_is_shipped_with_and_without_a_translation():
    assert {"tissue-T1", "tissue-T1-FLAIR"} <= set(SHIPPED)
    assert find_segmenter("tissue").name == "tissue-T1"
    assert not list_segmenters()[1]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_segmenter_is_what_its_card_says(name):
    card = find_segmenter(name)
    load_segmenter(card)
    content = card.content
    assert content["training"]["held_out"] and content["metrics"] and content["limits"]
    assert any("not for diagnosis" in text.lower() for text in (content["intended_use"], content["weights"]["licence"]))
    assert card.weights_path.stat().st_size < 10e6
    if card.translator is not None:
        assert find_card(card.translator["name"]).sha256 == card.translator["sha256"], "the translator is not the one it was trained with"


@pytest.fixture(scope="module")
def template(icbm152: Path) -> tuple[Volume, np.ndarray]:
    """A slab of the ICBM152 T1, skull-stripped, and its tissues by the largest of its maps."""
    names = {tissue: icbm152 / f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz" for tissue in ("t1", "gm", "wm")}
    volume = read_volume(names["t1"])
    grey, white = (nibabel.load(names[tissue]).get_fdata().T / 255 for tissue in ("gm", "wm"))
    tissues = np.where((grey > 0.5) & (grey >= white), GREY, np.where(white > 0.5, WHITE, 0))
    array = volume.array.copy()
    array[:70] = array[100:] = 0
    tissues[:70] = tissues[100:] = 0
    return volume.with_array(array), tissues


@pytest.mark.parametrize("name", SHIPPED)
def test_grey_and_white_matter_of_a_real_template_are_found(name, template):
    volume, tissues = template
    result = Segmenter(find_segmenter(name), SegmentationSettings(device="cpu")).segment(volume)
    assert result.labels.geometry == volume.geometry
    found = np.where(tissues > 0, result.labels.array, 0)  # outside lie CSF and partial volume
    dice = dice_scores(tissues.astype(int), found.astype(int), [GREY, WHITE])
    assert dice[GREY] > 0.75 and dice[WHITE] > 0.75, dice
