"""N4 bias correction of an input: what it evens out, and what it leaves alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import head_phantom, store
from packages import write_tiny_package

from IMTCommand.__main__ import main
from IMTCore.bias_field import correct_bias
from IMTCore.errors import BadInput
from IMTCore.orientation import anatomical_axes
from IMTCore.volume_io import read_volume, write_volume

SHAPE = (20, 48, 44)


def biased_head() -> tuple[np.ndarray, np.ndarray]:
    """A head of one tissue [k, j, i], and the same brighter by two thirds on one side than on the other."""
    flat = (head_phantom(SHAPE) > 0) * np.random.default_rng(0).normal(500, 5, SHAPE)
    ramp = np.linspace(0.75, 1.25, SHAPE[2])
    return flat.astype(np.float32), (flat * ramp).astype(np.float32)


def unevenness(array: np.ndarray) -> float:
    inside = array[array > 0]
    return float(inside.std() / inside.mean())


def test_a_slope_of_brightness_is_evened_out_and_the_background_stays():
    _, biased = biased_head()
    corrected = correct_bias(store(biased, spacing_kji=(5.0, 3.0, 3.0))).array
    assert unevenness(biased) > 0.08
    assert unevenness(corrected) < 0.4 * unevenness(biased)
    assert ((corrected == 0) == (biased == 0)).all()


def test_the_same_head_in_another_orientation_is_corrected_the_same():
    _, biased = biased_head()
    straight = correct_bias(store(biased, spacing_kji=(5.0, 3.0, 3.0)))
    turned = correct_bias(store(biased, ((2, 0, 1), (True, False, True)), (5.0, 3.0, 3.0)))
    back = np.flip(turned.array, (0, 2)).transpose(1, 2, 0)
    np.testing.assert_allclose(back, straight.array, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 2], ids=["axial", "sagittal"])
def test_a_single_real_slice_is_evened_out_on_its_grid(icbm152, axis):
    volume = read_volume(icbm152 / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    real = anatomical_axes(volume.geometry).apply(volume.array).astype(np.float32).take([90], axis)
    along = 1 if axis == 2 else 2
    ramp = np.linspace(0.6, 1.4, real.shape[along], dtype=np.float32).reshape([-1 if a == along else 1 for a in range(3)])
    corrected = [correct_bias(store(array)).array for array in (real, real * ramp)]
    assert corrected[1].shape == real.shape and ((corrected[1] == 0) == (real == 0)).all()
    inside = real > 0.1 * real.max()

    def difference(biased: np.ndarray, plain: np.ndarray) -> float:
        return float(np.log(biased[inside] / plain[inside]).std())

    assert difference(real * ramp, real) > 0.12
    assert difference(corrected[1], corrected[0]) < 0.02  # whatever else of the head it evens out, the ramp is gone


def test_a_z_scored_image_is_refused_with_the_remedy():
    head = np.where(head_phantom(SHAPE) > 0, head_phantom(SHAPE) - 600, 0)
    with pytest.raises(BadInput, match="without the bias correction"):
        correct_bias(store(head))


def test_the_command_corrects_on_request_and_says_so_in_the_mark(tmp_path):
    _, biased = biased_head()
    model = write_tiny_package(tmp_path / "models")
    write_volume(tmp_path / "T1.nii.gz", store(biased, spacing_kji=(5.0, 3.0, 3.0)))
    common = ["translate", str(tmp_path / "T1.nii.gz"), "--model", str(model)]
    common += ["--device", "cpu", "--progress", "none", "--no-modality-check"]
    assert main([*common, "--output", str(tmp_path / "plain.nii.gz")]) == 0
    assert main([*common, "--output", str(tmp_path / "n4.nii.gz"), "--bias-correction"]) == 0
    marks = [json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("plain", "n4")]
    assert [mark["bias_correction"] for mark in marks] == [None, "N4"]
    assert marks[0]["output"]["sha256"] != marks[1]["output"]["sha256"]
