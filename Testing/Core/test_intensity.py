"""Claims on the background and on the one normalisation of a volume."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ORIENTATIONS, head_phantom, store
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from IMTCore.errors import BadInput
from IMTCore.intensity import background_value, border_values, foreground_mask, normalisation_of

HEAD = head_phantom()
BRAIN = HEAD > 0


def z_scored() -> np.ndarray:
    """The head's own voxels with mean 0 and deviation 1, still 0 outside: the background lies amid the tissue."""
    return np.where(BRAIN, (HEAD - HEAD[BRAIN].mean()) / HEAD[BRAIN].std(), 0).astype(np.float32)


def noisy(sigma: float = 20.0) -> np.ndarray:
    """A magnitude image: Rician noise everywhere, so that no border value repeats."""
    random = np.random.default_rng(0)
    return np.hypot(HEAD + random.normal(0, sigma, HEAD.shape), random.normal(0, sigma, HEAD.shape)).astype(np.float32)


def test_the_border_is_every_voxel_of_the_six_faces():
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    inner = array[1:-1, 1:-1, 1:-1]
    assert set(border_values(array)) == set(array.ravel()) - set(inner.ravel())
    assert set(border_values(array[:1])) == set(array[0].ravel()) - set(array[0, 1:-1, 1:-1].ravel())


def test_air_of_zero_is_the_background():
    assert background_value(HEAD) == 0.0
    assert background_value(HEAD.astype(np.int16)) == 0.0


def test_a_negative_background_is_found_exactly_as_stored():
    value = np.float32(-1.2345678)
    array = np.where(BRAIN, z_scored(), value)
    assert background_value(array) == float(value)
    assert np.array_equal(foreground_mask(array, background_value(array)), BRAIN)


def test_a_background_amid_the_brains_range_is_found():
    array = z_scored()
    assert array[BRAIN].min() < -1 < 1 < array[BRAIN].max()
    assert background_value(array) == 0.0
    assert np.array_equal(foreground_mask(array, 0.0), BRAIN)


def test_a_background_is_found_where_the_head_touches_a_part_of_the_border():
    assert background_value(HEAD[:, 5:]) == 0.0
    assert background_value(HEAD[6:12]) == 0.0


def test_a_noisy_border_has_no_background():
    assert background_value(noisy()) is None
    assert foreground_mask(noisy(), None).all()


def test_a_border_of_many_tissues_has_no_background():
    assert background_value(HEAD[5:12, 7:16, 7:14]) is None


def test_a_value_counts_as_background_from_a_quarter_of_the_border_on():
    array = np.arange(1000.0).reshape(10, 10, 10) + 1
    border = np.ones((10, 10, 10), bool)
    border[1:-1, 1:-1, 1:-1] = False
    places = np.random.default_rng(0).permutation(np.flatnonzero(border))
    for share, expected in ((0.22, None), (0.28, 0.0)):
        changed = array.copy()
        changed.ravel()[places[: round(share * places.size)]] = 0
        assert background_value(changed) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_background_becomes_zero_and_the_percentile_one(dtype):
    array = (HEAD / 6).astype(dtype)
    normalisation = normalisation_of(array, 99.5)
    normalised = normalisation.apply(array)
    assert normalised.dtype == np.float32
    assert (normalised[~BRAIN] == 0).all()
    tissue = array[array > 0.1 * array.max()]
    assert np.isclose(normalisation.high, np.percentile(tissue, 99.5), rtol=1e-6)
    assert np.isclose((normalised[array > 0.1 * array.max()] <= 1).mean(), 0.995, atol=0.003)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.5, 99.9, 100.0])
def test_the_percentile_is_that_of_the_tissue_and_not_of_the_air(percentile):
    tissue = HEAD[HEAD > 0.1 * HEAD.max()]
    padded = np.pad(HEAD, 15)
    for array in (HEAD, padded):
        assert np.isclose(normalisation_of(array, percentile).high, np.percentile(tissue, percentile), rtol=1e-6)


def test_noise_in_the_air_does_not_count_for_the_percentile():
    # Air is more than half of this image: counted in, the 95th percentile would fall below the tissue's.
    array, expected = noisy(10.0), normalisation_of(HEAD, 95).high
    assert np.percentile(array, 95) < 0.95 * expected
    assert np.isclose(normalisation_of(array, 95).high, expected, rtol=0.02)


def test_padding_far_below_all_tissue_does_not_squeeze_the_contrast():
    array = np.where(BRAIN, HEAD + 1000, -32768).astype(np.float32)
    normalisation = normalisation_of(array)
    normalised = normalisation.apply(array)
    assert normalisation.background == -32768
    assert normalised[BRAIN].min() > -0.2
    assert np.ptp(normalised[BRAIN]) > 0.9


def test_a_brain_about_a_zero_background_uses_its_own_range():
    normalised = normalisation_of(z_scored()).apply(z_scored())[BRAIN]
    assert np.isclose((normalised < 0).mean(), 0.005, atol=0.004)
    assert np.isclose((normalised > 1).mean(), 0.005, atol=0.004)


@pytest.mark.parametrize("array", [HEAD, z_scored(), noisy(), HEAD - 1024, HEAD * 1e-6, HEAD * 1e6], ids=range(6))
def test_normalisation_is_undone_to_a_hundred_thousandth_of_the_range(array):
    normalisation = normalisation_of(array)
    again = normalisation.invert(normalisation.apply(array))
    assert np.abs(again - array).max() < 1e-5 * (normalisation.high - normalisation.low)


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(np.float32, (5, 6, 7), elements=st.floats(-1000, 1000, width=16)),
    scale=st.sampled_from([0.001, 1.0, 3000.0]),
)
def test_any_image_with_contrast_is_normalised_and_back(array, scale):
    array = array * np.float32(scale)
    try:
        normalisation = normalisation_of(array)
    except BadInput:
        foreground = array[foreground_mask(array, background_value(array))]
        assert foreground.size == 0 or foreground.max() <= max(np.percentile(foreground, 0.5), background_value(array) or -np.inf)
        return
    assert normalisation.high > normalisation.low
    again = normalisation.invert(normalisation.apply(array))
    # Beyond [0, 1] float32 keeps digits of the value, not of the range.
    largest = max(np.abs(normalisation.apply(array)).max(), 1)
    assert np.abs(again - array).max() <= 1e-5 * largest * (normalisation.high - normalisation.low)


@pytest.mark.parametrize("array", [HEAD, z_scored(), noisy()], ids=["zero", "amid", "noisy"])
def test_one_head_has_one_normalisation_in_any_orientation(array):
    maps = {normalisation_of(store(array, orientation).array) for orientation in ORIENTATIONS}
    assert len(maps) == 1


def test_the_order_of_inner_slices_does_not_change_the_normalisation():
    order = np.r_[0, 1 + np.random.default_rng(0).permutation(16), 17]
    assert normalisation_of(HEAD[order]) == normalisation_of(HEAD)


def test_one_tissue_has_one_value_in_all_slices():
    # A slice of low and one of high intensity: slice by slice, both would be stretched to 1.
    array = HEAD.copy()
    normalised = normalisation_of(array).apply(array)
    peaks = normalised.max(axis=(1, 2))
    assert peaks.max() >= 1 > 1.2 * peaks[2] > 0
    for value in (300.0, 500.0):
        array[4, 10, 10] = array[12, 12, 12] = value
        normalised = normalisation_of(array).apply(array)
        assert normalised[4, 10, 10] == normalised[12, 12, 12]


def test_a_volume_of_one_slice_is_normalised():
    assert normalisation_of(HEAD[9:10]).low == 0.0


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_volume_of_background_alone_is_refused(value):
    with pytest.raises(BadInput, match="all background"):
        normalisation_of(np.full((4, 5, 6), value))


def test_a_zero_background_stays_black_below_a_brain_of_low_contrast():
    array = np.where(BRAIN, 500 + 400 * np.random.default_rng(0).random(BRAIN.shape), 0)
    assert normalisation_of(array).low == 0.0


def test_the_record_holds_what_undoes_the_normalisation():
    normalisation = normalisation_of(HEAD)
    assert normalisation.record() == {"low": normalisation.low, "high": normalisation.high, "background": 0.0}
