"""Phantoms: contrast, exact truth and repeatability, on the ICBM average brain at 4 mm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from IMTCore.errors import BadInput
from IMTCore.simulation import INTENSITY_SCALE, PhantomSpec, simulate
from IMTCore.tissue_maps import TissueMaps, icbm152_tissues, load_tissue_maps, tissue_maps_from_labels
from IMTCore.tissues import CLASS_CODES, LABEL_TISSUES, SEQUENCES, TISSUES, PulseSequence
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import write_volume

CLEAN = PhantomSpec(seed=1, warp_mm=0, bias=0, noise=0)
OBLIQUE = np.linalg.qr(np.array([[0.9, 0.3, -0.2], [-0.1, 0.8, 0.5], [0.3, -0.4, 0.9]]))[0]


@pytest.fixture(scope="module")
def brain(icbm152) -> TissueMaps:
    return icbm152_tissues(icbm152, downsample=4)


def ball(shape: tuple[int, int, int] = (24, 30, 36), spacing: tuple[float, float, float] = (2.0, 2.5, 3.0)) -> TissueMaps:
    """A ball of white matter in grey matter, on an oblique grid with three voxel sizes."""
    geometry = Geometry(shape, spacing, (11.0, -7.0, 23.0), OBLIQUE)
    offsets = (np.indices(shape).T - (np.array(shape) - 1) / 2).T * np.array(spacing[::-1])[:, None, None, None]
    white = np.clip((18 - np.linalg.norm(offsets, axis=0)) / 3, 0, 1).astype(np.float32)
    return TissueMaps({"white": white, "grey": 1 - white}, geometry)


def positions(geometry: Geometry, k_j_i: np.ndarray) -> np.ndarray:
    """(N, 3) indices → LPS mm, written out anew so that the module's own conversion is checked."""
    i_j_k = np.asarray(k_j_i, dtype=float)[:, ::-1]
    return geometry.origin_lps + (i_j_k * geometry.spacing_mm) @ geometry.direction.T


def values_at(array: np.ndarray, geometry: Geometry, points_lps: np.ndarray) -> np.ndarray:
    i_j_k = (points_lps - geometry.origin_lps) @ geometry.direction / geometry.spacing_mm
    k, j, i = np.round(i_j_k).astype(int).T[::-1]
    return array[k, j, i]


def voxels_within(geometry: Geometry, margin: int) -> np.ndarray:
    """(N, 3) indices of the voxels at least `margin` from every face."""
    return np.argwhere(np.ones([n - 2 * margin for n in geometry.shape], bool)) + margin


def points_within(geometry: Geometry, margin: int, count: int = 200) -> np.ndarray:
    low, high = np.full(3, margin), np.array(geometry.shape) - 1 - margin
    return positions(geometry, np.random.default_rng(0).uniform(low, high, (count, 3)))


def test_the_icbm_maps_hold_a_plausible_brain(brain: TissueMaps) -> None:
    litres = {name: float(share.sum()) * 64e-6 for name, share in brain.maps.items()}
    assert 0.7 < litres["grey"] < 1.2 and 0.4 < litres["white"] < 0.9 and 0.1 < litres["csf"] < 0.6
    assert brain.geometry.shape == (47, 58, 49)
    # Between the ventricles lies the origin of MNI space, and x runs left: the brain is symmetric about x = 0.
    white = brain.maps["white"]
    centre = positions(brain.geometry, np.argwhere(white > 0.5)).mean(axis=0)
    assert abs(centre[0]) < 1.5


@pytest.mark.parametrize(
    ("modality", "bright_to_dark"),
    [
        ("T1", ("white", "grey", "csf")),
        ("T2", ("csf", "grey", "white")),
        ("PD", ("grey", "white")),
        ("FLAIR", ("grey", "white", "csf")),
    ],
)
def test_tissues_have_the_contrast_order_of_the_modality(
    brain: TissueMaps, modality: str, bright_to_dark: tuple[str, ...]
) -> None:
    image = simulate(brain, replace(CLEAN, noise=0.03, bias=0.2, modalities=(modality,))).images[modality].array
    means = [image[brain.maps[name] > 0.85].mean() for name in bright_to_dark]  # little partial volume
    assert all(bright > 1.02 * dark for bright, dark in zip(means, means[1:], strict=False)), means


def test_signals_follow_the_spin_echo_equations() -> None:
    white = TISSUES["white"]
    assert PulseSequence(500, 12).signal(white) == pytest.approx(0.77 * (1 - np.exp(-1)) * np.exp(-12 / 70))
    assert SEQUENCES["FLAIR"].signal(TISSUES["csf"]) < 0.01 * SEQUENCES["FLAIR"].signal(TISSUES["grey"])


def test_pure_and_mixed_voxels_have_the_signal_of_their_shares() -> None:
    tissues = ball()
    image = simulate(tissues, replace(CLEAN, modalities=("T2",))).images["T2"].array
    signals = {name: INTENSITY_SCALE * SEQUENCES["T2"].signal(TISSUES[name]) for name in tissues.maps}
    assert np.allclose(image, sum(share * signals[name] for name, share in tissues.maps.items()), rtol=1e-5)


def test_lesions_lie_in_white_matter_bright_on_t2_and_flair_and_dark_on_t1(brain: TissueMaps) -> None:
    spec = replace(CLEAN, lesions=6, lesion_radius_mm=(5, 7))
    sick, healthy = simulate(brain, spec), simulate(brain, replace(spec, lesions=0))
    mask = sick.lesions.array > 0
    white = healthy.labels.array == CLASS_CODES["white"]
    assert mask.any() and not healthy.lesions.array.any()
    assert white[mask].all()
    assert np.array_equal(sick.labels.array, healthy.labels.array)
    for modality, sign in (("T1", -1), ("T2", 1), ("FLAIR", 1)):
        change = sick.images[modality].array[mask] - healthy.images[modality].array[mask]
        assert (sign * change > 0).all(), modality


def test_lesions_have_the_size_asked_for() -> None:
    white = np.full((60, 60, 60), 0.89, np.float32)  # too little for a centre, so that no lesion is cut off by the grid's end
    white[20:40, 20:40, 20:40] = 1
    tissues = TissueMaps({"white": white}, Geometry(white.shape, (1, 1, 1), (0, 0, 0), np.eye(3)))
    volume = simulate(tissues, replace(CLEAN, lesions=1, lesion_radius_mm=(6, 6), seed=4)).lesions.array.sum()
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    assert 6 * np.exp(-0.25) < radius < 6 * np.exp(0.25)


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_head(brain: TissueMaps) -> None:
    spec = PhantomSpec(seed=7, lesions=3)
    once, again, other = simulate(brain, spec), simulate(brain, spec), simulate(brain, replace(spec, seed=8))
    for modality in spec.modalities:
        assert once.images[modality].array.tobytes() == again.images[modality].array.tobytes()
        assert not np.array_equal(once.images[modality].array, other.images[modality].array)
    assert once.displacement_lps.tobytes() == again.displacement_lps.tobytes()
    assert np.array_equal(once.lesions.array, again.lesions.array)
    assert not np.array_equal(once.labels.array, other.labels.array)


def test_a_modality_does_not_depend_on_which_others_are_made(brain: TissueMaps) -> None:
    spec = PhantomSpec(seed=7)
    alone = simulate(brain, replace(spec, modalities=("FLAIR",))).images["FLAIR"].array
    assert np.array_equal(alone, simulate(brain, spec).images["FLAIR"].array)


def test_without_warp_the_labels_and_points_stay_where_they_were() -> None:
    tissues = ball()
    phantom = simulate(tissues, CLEAN, points := points_within(tissues.geometry, 2))
    assert np.array_equal(phantom.labels.array, tissues.labels)
    assert np.abs(phantom.displacement_lps).max() == 0
    assert np.allclose(phantom.landmarks_lps, points, atol=1e-9)


def test_landmarks_land_on_the_tissue_they_came_from(brain: TissueMaps) -> None:
    # Voxels whose neighbours are of the same class: rounding to the grid then cannot cross a border.
    from scipy.ndimage import maximum_filter, minimum_filter

    inner = (maximum_filter(brain.labels, 3) == minimum_filter(brain.labels, 3)) & (brain.labels > 0)
    places = np.argwhere(inner)
    points = positions(brain.geometry, places)
    phantom = simulate(brain, PhantomSpec(seed=2, warp_mm=6, rotation_deg=(4, -3, 10), translation_mm=(3, -2, 5)), points)
    assert len(points) > 300 and np.linalg.norm(phantom.landmarks_lps - points, axis=1).mean() > 5
    found = values_at(phantom.labels.array, brain.geometry, phantom.landmarks_lps)
    assert (found == brain.labels[tuple(places.T)]).mean() > 0.99


def test_labels_are_the_source_labels_at_the_displaced_positions() -> None:
    tissues = ball()
    phantom = simulate(tissues, replace(CLEAN, warp_mm=5, rotation_deg=(0, 0, 20), translation_mm=(2, 0, -1)))
    places = voxels_within(tissues.geometry, 8)
    source = positions(tissues.geometry, places) + phantom.displacement_lps[tuple(places.T)]
    agree = values_at(tissues.labels, tissues.geometry, source) == phantom.labels.array[tuple(places.T)]
    assert agree.mean() > 0.999  # float32 rounding may turn the rare voxel that lies half-way


@pytest.mark.parametrize("angle_deg", [0, 30, 90, 175])
def test_displacement_and_inverse_agree_within_a_tenth_of_a_millimetre(angle_deg: float) -> None:
    geometry = ball((40, 40, 40)).geometry
    tissues = TissueMaps({"white": np.ones(geometry.shape, np.float32)}, geometry)
    rotation = tuple(angle_deg * np.array([2, -1, 2]) / 3)
    points = points_within(geometry, 12)
    phantom = simulate(tissues, replace(CLEAN, warp_mm=6, rotation_deg=rotation, translation_mm=(4, 5, -6)), points)
    assert np.linalg.norm(phantom.warp.to_source(phantom.landmarks_lps) - points, axis=1).max() < 1e-3
    if angle_deg > 0:
        return
    # The two sampled fields alone, as a user of the files has them: output voxel → source → output.
    places = voxels_within(geometry, 8)
    output = positions(geometry, places)
    source = output + phantom.displacement_lps[tuple(places.T)]
    back = replace(phantom.warp, smooth_lps=phantom.warp.inverse_displacement_lps(), translation_mm=np.zeros(3)).to_source(source)
    assert np.linalg.norm(back - output, axis=1).max() < 0.1


def test_the_rotation_asked_for_is_about_the_centre_from_output_to_source() -> None:
    geometry = Geometry((11, 11, 11), (1, 1, 1), (-5, -5, -5), np.eye(3))
    tissues = TissueMaps({"white": np.ones((11, 11, 11), np.float32)}, geometry)
    warp = simulate(tissues, replace(CLEAN, rotation_deg=(0, 0, 90), translation_mm=(0, 0, 1))).warp
    assert np.allclose(warp.to_source(np.array([[3.0, 0, 0], [0, 0, 0]])), [[0, 3, 1], [0, 0, 1]])
    assert np.allclose(warp.displacement_lps[5, 5, 8], [-3, 3, 1])  # voxel i = 8 is at x = 3


def test_the_displacement_field_is_itks_resampling_transform() -> None:
    sitk = pytest.importorskip("SimpleITK")
    tissues = ball()
    geometry = tissues.geometry
    phantom = simulate(tissues, replace(CLEAN, modalities=("T1",), warp_mm=5, rotation_deg=(5, -5, 10)))

    def image(array: np.ndarray, vector: bool = False):  # noqa: ANN202 (SimpleITK is optional here)
        result = sitk.GetImageFromArray(array, isVector=vector)
        result.SetSpacing(geometry.spacing_mm.tolist())
        result.SetOrigin(geometry.origin_lps.tolist())
        result.SetDirection(geometry.direction.ravel().tolist())
        return result

    moving = image(simulate(tissues, replace(CLEAN, modalities=("T1",))).images["T1"].array)
    transform = sitk.DisplacementFieldTransform(image(phantom.displacement_lps.astype(np.float64), vector=True))
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving, moving, transform, sitk.sitkLinear, 0.0))
    inner = (slice(6, -6),) * 3
    assert np.abs(resampled - phantom.images["T1"].array)[inner].max() < 0.1


def test_the_warp_reaches_its_amplitude_and_nowhere_folds(brain: TissueMaps) -> None:
    for seed in range(3):
        warp = simulate(brain, replace(CLEAN, seed=seed, warp_mm=8)).warp
        assert np.linalg.norm(warp.smooth_lps, axis=-1).max() == pytest.approx(8, rel=1e-4)
        assert warp.jacobian().shape == brain.geometry.shape
        assert 0 < warp.jacobian().min() < 0.95 and warp.jacobian().max() > 1.05


def test_the_jacobian_is_the_change_of_volume() -> None:
    tissues = ball()
    warp = simulate(tissues, replace(CLEAN, warp_mm=5, smoothness_mm=40, rotation_deg=(10, 20, 30))).warp
    place = np.array([[12, 15, 18]])
    point, step = positions(tissues.geometry, place)[0], 1.5
    shifted = [warp.to_source((point + sign * step * axis)[None])[0] for axis in np.eye(3) for sign in (1, -1)]
    columns = [(shifted[2 * n] - shifted[2 * n + 1]) / (2 * step) for n in range(3)]
    assert warp.jacobian()[tuple(place[0])] == pytest.approx(np.linalg.det(np.stack(columns, axis=1)), abs=0.03)


@pytest.mark.parametrize("noise", [0.02, 0.09])
def test_noise_has_the_level_asked_for(noise: float) -> None:
    tissues = TissueMaps({"white": np.ones((40, 40, 40), np.float32)}, Geometry((40, 40, 40), (1, 1, 1), (0, 0, 0), np.eye(3)))
    image = simulate(tissues, replace(CLEAN, noise=noise, modalities=("T1",))).images["T1"].array
    signal = INTENSITY_SCALE * SEQUENCES["T1"].signal(TISSUES["white"])
    assert image.std() == pytest.approx(noise * signal, rel=0.03)


def test_noise_in_air_is_rayleigh_and_skull_stripping_removes_it(brain: TissueMaps) -> None:
    phantom = simulate(brain, replace(CLEAN, noise=0.05, modalities=("T1",)))
    corner = phantom.images["T1"].array[:8, :8, :8]
    sigma = 0.05 * INTENSITY_SCALE * SEQUENCES["T1"].signal(TISSUES["white"])
    assert corner.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.1)
    stripped = simulate(brain, replace(CLEAN, noise=0.05, modalities=("T1",), skull_stripped=True)).images["T1"].array
    assert not stripped[:8, :8, :8].any()
    assert (stripped[phantom.labels.array == CLASS_CODES["white"]] > 0).all()


def test_the_bias_field_has_the_range_asked_for_and_is_smooth() -> None:
    tissues = TissueMaps({"white": np.ones((50, 50, 50), np.float32)}, Geometry((50, 50, 50), (4, 4, 4), (0, 0, 0), np.eye(3)))
    field = simulate(tissues, replace(CLEAN, bias=0.4)).images["T1"].array / simulate(tissues, CLEAN).images["T1"].array
    assert np.abs(field - 1).max() == pytest.approx(0.2, abs=1e-3)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.03


def test_all_results_keep_an_oblique_grid() -> None:
    tissues = ball()
    phantom = simulate(tissues, PhantomSpec(lesions=1))
    for volume in (*phantom.images.values(), phantom.labels, phantom.lesions):
        assert volume.geometry.is_close(tissues.geometry)
    assert phantom.labels.array.dtype == np.int16 and phantom.images["T1"].array.dtype == np.float32


def test_label_maps_become_tissues_and_keep_their_codes() -> None:
    codes = np.zeros((20, 20, 20), np.int16)
    codes[4:16, 4:16, 4:16], codes[6:14, 6:14, 6:14], codes[9:11, 9:11, 9:11] = 515, 42, 41
    geometry = Geometry(codes.shape, (1, 1, 1), (5, 6, 7), OBLIQUE)
    tissues = tissue_maps_from_labels(Volume(codes, geometry, "head"), blur_mm=0, downsample=2)
    assert set(tissues.maps) == {"bone", "grey", "white"} and tissues.geometry.shape == (10, 10, 10)
    assert set(np.unique(tissues.labels)) == {0, 42, 515}  # a cube of white, spread over eight blocks, is nowhere the most
    assert float(tissues.maps["white"].sum()) * 8 == pytest.approx(8)
    assert np.allclose(positions(tissues.geometry, [[0, 0, 0]]), positions(geometry, [[0.5, 0.5, 0.5]]))
    phantom = simulate(tissues, CLEAN)
    assert np.array_equal(phantom.labels.array, tissues.labels)
    with pytest.raises(BadInput, match=r"head has codes .*\[515\]"):
        tissue_maps_from_labels(Volume(codes, geometry, "head"), {code: LABEL_TISSUES[code] for code in (0, 41, 42)})


def test_tissue_files_are_read_as_shares_and_other_grids_refused(tmp_path: Path) -> None:
    tissues = ball()
    for name, share in tissues.maps.items():
        write_volume(tmp_path / f"{name}.nii.gz", Volume(np.round(255 * share).astype(np.uint8), tissues.geometry))
    other = replace(tissues.geometry, origin_lps=(0, 0, 0))
    write_volume(tmp_path / "csf.nii.gz", Volume(tissues.maps["white"], other))
    read = load_tissue_maps({name: tmp_path / f"{name}.nii.gz" for name in tissues.maps})
    assert np.abs(read.maps["white"] - tissues.maps["white"]).max() < 0.01
    with pytest.raises(BadInput, match=r"csf\.nii\.gz and white\.nii\.gz are on different grids"):
        load_tissue_maps({"white": tmp_path / "white.nii.gz", "csf": tmp_path / "csf.nii.gz"})
    with pytest.raises(BadInput, match="does not exist"):
        icbm152_tissues(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"noise": -0.1}, {"noise": float("nan")}, {"bias": 2}, {"warp_mm": -1}, {"smoothness_mm": 0}, {"seed": -1}, {"seed": 0.5},
        {"lesions": -1}, {"lesion_radius_mm": (5, 2)}, {"modalities": ()}, {"rotation_deg": (0, float("inf"), 0)},
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(change: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(change))):
        PhantomSpec(**change)


def test_bad_maps_points_and_modalities_are_refused() -> None:
    tissues = ball()
    white, geometry = tissues.maps["white"], tissues.geometry
    for maps, message in (
        ({"white": white[1:]}, "white map has the shape"),
        ({"brain": white}, "Unknown tissue 'brain'"),
        ({"white": white * 255}, "shares from 0 to 1"),
        ({"white": np.full_like(white, np.nan)}, "shares from 0 to 1"),
        ({"white": white, "grey": white}, "add up"),
        ({}, "needs tissue maps"),
    ):
        with pytest.raises(BadInput, match=message):
            TissueMaps(maps, geometry)
    for spec, message in (
        (replace(CLEAN, modalities=("T1", "CT")), "Unknown modality 'CT'"),
        (replace(CLEAN, warp_mm=40, smoothness_mm=12), "folds"),
        (replace(CLEAN, warp_mm=1, smoothness_mm=4), "two voxels"),
    ):
        with pytest.raises(BadInput, match=message):
            simulate(tissues, spec)
    with pytest.raises(BadInput, match="no white matter"):
        simulate(TissueMaps({"csf": white}, geometry), replace(CLEAN, lesions=1))
    for points in (np.zeros((3, 2)), np.full((1, 3), np.nan)):
        with pytest.raises(BadInput, match="Points must be finite"):
            simulate(tissues, CLEAN, points)
    with pytest.raises(BadInput, match="Bad sequence times"):
        PulseSequence(500, 12, 800)
    with pytest.raises(BadInput, match="downsample"):
        tissue_maps_from_labels(Volume(np.zeros(geometry.shape, np.int16), geometry), downsample=13)
