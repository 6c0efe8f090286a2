"""Claims on the way from a volume to the network's slices and back onto its grid."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import head_phantom, store
from hypothesis import given, settings
from hypothesis import strategies as st

from IMTCore.errors import BadInput
from IMTCore.preparation import prepare
from IMTCore.slicing import SlicingSpec, head_box, neighbour_weights, resampling_matrix, slice_grid, with_neighbours

STRIDE = 16
SPATIAL = SlicingSpec(mode="spatial", spacing_mm=1.0)
PAPER = SlicingSpec(mode="paper", size=(64, 64))
HEAD = head_phantom()


def back_and_forth(grid, plane: np.ndarray) -> np.ndarray:
    """One slice [j, i] of [0, 1] to the network, and its image, unchanged, back."""
    images = grid.to_network(plane[None])
    return grid.from_network((images + 1) / 2, plane.shape)[0]


def blob(shape: tuple[int, int], centre: tuple[float, float], width: tuple[float, float]) -> np.ndarray:
    j, i = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-(((j - centre[0]) / width[0]) ** 2 + ((i - centre[1]) / width[1]) ** 2) / 2).astype(np.float32)


def centroid(plane: np.ndarray) -> np.ndarray:
    return np.array([(np.indices(plane.shape)[n] * plane).sum() / plane.sum() for n in (0, 1)])


# ---------------------------------------------------------------- resampling along one axis


@settings(max_examples=200, deadline=None)
@given(
    n_in=st.integers(1, 60), n_out=st.integers(1, 60), s_in=st.floats(0.2, 9), s_out=st.floats(0.2, 9), start=st.floats(-20, 20)
)
def test_a_resampled_constant_stays_constant(n_in, n_out, s_in, s_out, start):
    matrix = resampling_matrix(n_in, s_in, n_out, s_out, 0.0, start)
    assert matrix.shape == (n_out, n_in)
    assert (matrix >= 0).all()
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-6)


def test_resampling_onto_the_same_grid_is_the_identity():
    for n, spacing in ((1, 0.3), (37, 0.9375), (256, 1.2)):
        assert np.array_equal(resampling_matrix(n, spacing, n, spacing), np.eye(n, dtype=np.float32))


def test_resampling_by_whole_pixels_only_shifts():
    matrix = resampling_matrix(5, 0.7, 9, 0.7, 0.0, -1.4)
    assert np.array_equal(matrix[2:7], np.eye(5, dtype=np.float32))
    assert (matrix[:2].argmax(axis=1) == 0).all()
    assert (matrix[7:].argmax(axis=1) == 4).all()


@pytest.mark.parametrize(("s_in", "s_out"), [(1.0, 0.4), (0.5, 1.5), (3.0, 1.0)])
def test_a_ramp_keeps_its_value_at_each_position(s_in, s_out):
    n_in, n_out = round(60 / s_in), round(60 / s_out)
    ramp = (np.arange(n_in) + 0.5) * s_in
    expected = (np.arange(n_out) + 0.5) * s_out
    inner = (expected > 2 * max(s_in, s_out)) & (expected < 60 - 2 * max(s_in, s_out))
    assert np.abs(resampling_matrix(n_in, s_in, n_out, s_out) @ ramp - expected)[inner].max() < 1e-3 * max(s_in, s_out)


def test_shrinking_does_not_alias():
    stripes = np.arange(63) % 2  # every third picked, they would be stripes again, of another width
    assert np.abs(resampling_matrix(63, 1.0, 21, 3.0) @ stripes - 0.5).max() < 0.15


# ---------------------------------------------------------------- the spatial mode


@pytest.mark.parametrize("spacing", [1.0, 0.9375, 1.2])
@pytest.mark.parametrize("shape", [(37, 41), (32, 48), (33, 31), (16, 5)])
def test_at_the_models_own_spacing_pixels_are_only_copied_and_padded(shape, spacing):
    head = np.ones((1, *shape), bool)
    plane = np.random.default_rng(0).random(shape, np.float32)
    grid = slice_grid(SlicingSpec(mode="spatial", spacing_mm=spacing), head, (spacing, spacing), STRIDE)
    image = grid.to_network(plane[None])[0]
    rows, columns = np.nonzero(grid.inside)
    window = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert window.shape == shape
    assert np.array_equal(window, plane * 2 - 1)
    assert (image[~grid.inside] == -1).all()
    assert np.array_equal(grid.from_network(image[None], shape)[0], plane * 2 - 1)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 90),
    row_mm=st.floats(0.3, 8),
    column_mm=st.floats(0.3, 8),
    stride=st.sampled_from([8, 16, 32, 64, 256]),
)
def test_the_image_holds_the_whole_box_and_is_a_multiple_of_the_stride(rows, columns, row_mm, column_mm, stride):
    grid = slice_grid(SPATIAL, np.ones((1, rows, columns), bool), (row_mm, column_mm), stride)
    for n_out, n_in, spacing, axis in zip(grid.shape, (rows, columns), (row_mm, column_mm), (1, 0), strict=True):
        assert n_out % stride == 0 and n_out > 0
        length = grid.inside.any(axis=axis).sum()
        assert abs(length - n_in * spacing) <= 1
        assert n_out < n_in * spacing + stride + 1  # no more padding than the stride asks for
    image = grid.to_network(np.ones((1, rows, columns), np.float32))[0]
    assert np.allclose(image[grid.inside], 1, atol=1e-5)
    assert (image[~grid.inside] == -1).all()


def test_the_box_sits_in_the_middle_of_the_image():
    grid = slice_grid(SPATIAL, np.ones((1, 37, 42), bool), (1.0, 1.0), STRIDE)
    rows, columns = np.flatnonzero(grid.inside.any(1)), np.flatnonzero(grid.inside.any(0))
    assert grid.shape == (48, 48)
    assert abs(rows[0] - (47 - rows[-1])) <= 1
    assert abs(columns[0] - (47 - columns[-1])) <= 1


@pytest.mark.parametrize("error", [-1e-6, -1e-9, 1e-9, 1e-7, 1e-6])
def test_a_spacing_rounded_in_a_float32_header_does_not_shift_the_image(error):
    # 48 pixels of 1.000001 mm: neither a row more than the stride allows, nor a row lost.
    plane = np.random.default_rng(1).random((48, 32), np.float32)
    grid = slice_grid(SPATIAL, np.ones((1, 48, 32), bool), (1 + error, 1 + error), STRIDE)
    assert grid.shape == (48, 32)
    assert np.abs(grid.to_network(plane[None])[0] - (plane * 2 - 1)).max() < 3e-4
    assert np.abs(back_and_forth(grid, plane) - plane).max() < 3e-4


SPACINGS = [
    (0.7, 0.7),
    (0.8, 1.3),
    (1.0, 1.0),
    (1.1, 0.9),
    (2.0, 2.0),
    (3.0, 3.0),
    (0.7, 1.4),
    (0.75, 3.0),
    (1.0, 8.0),
    (5.6, 0.7),
]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("mode", ["spatial", "paper"])
def test_a_smooth_image_comes_back_and_a_landmark_stays_where_it_was(mode, spacing):
    # Odd sizes of about 100 mm; the landmark is off the pixel grid and 4 pixels (or 5 mm) wide.
    shape = tuple(2 * round(50 / s) + 1 for s in spacing)
    width = tuple(max(2.0, 5 / s) for s in spacing)
    centre = tuple(0.43 * n + 0.3 for n in shape)
    plane = blob(shape, centre, width)
    spec = SPATIAL if mode == "spatial" else SlicingSpec(mode="paper", size=(96, 96))
    grid = slice_grid(spec, np.ones((1, *shape), bool), spacing, STRIDE)
    again = back_and_forth(grid, plane)
    assert np.abs(again - plane).max() < 0.12
    assert np.abs(again - plane).mean() < 0.012
    assert np.abs(centroid(again) - centroid(plane)).max() < 0.1
    smooth = blob(shape, centre, tuple(0.3 * n for n in shape))
    assert np.abs(back_and_forth(grid, smooth) - smooth).max() < 0.03


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.8, 1.3), (1.0, 8.0), (3.0, 3.0)])
def test_tissue_at_the_edge_of_the_field_of_view_is_not_dimmed_by_the_padding(spacing):
    plane = np.full(tuple(2 * round(40 / s) + 1 for s in spacing), 0.8, np.float32)
    grid = slice_grid(SPATIAL, np.ones((1, *plane.shape), bool), spacing, STRIDE)
    assert np.abs(back_and_forth(grid, plane) - plane).max() < 1e-5


def test_a_landmark_lies_in_the_network_image_where_its_position_in_mm_says():
    shape, spacing, centre = (91, 61), (0.8, 1.3), (30.0, 40.0)
    grid = slice_grid(SPATIAL, np.ones((1, *shape), bool), spacing, STRIDE)
    image = (grid.to_network(blob(shape, centre, (5, 4))[None])[0] + 1) / 2
    first = np.array([np.flatnonzero(grid.inside.any(axis))[0] for axis in (1, 0)])
    expected = (np.array(centre) + 0.5) * spacing - 0.5 + first
    assert np.abs(centroid(image) - expected).max() < 0.05


def test_a_circle_in_mm_is_a_circle_for_the_network():
    j, i = np.ogrid[:81, :41]
    plane = np.exp(-(((j - 40) * 1.0) ** 2 + ((i - 20) * 2.0) ** 2) / 2 / 12.0**2).astype(np.float32)
    image = (slice_grid(SPATIAL, np.ones((1, 81, 41), bool), (1.0, 2.0), STRIDE).to_network(plane[None])[0] + 1) / 2
    spread = [np.sqrt((((np.indices(image.shape)[n] - centroid(image)[n]) ** 2) * image).sum() / image.sum()) for n in (0, 1)]
    assert abs(spread[0] / spread[1] - 1) < 0.02


def test_the_head_box_has_a_margin_and_ends_at_the_array():
    head = np.zeros((4, 20, 30), bool)
    head[1, 5, 9] = head[3, 8, 28] = True
    assert head_box(head) == (3, 11, 7, 30)
    head[0, 0, 0] = True
    assert head_box(head, margin=0) == (0, 9, 0, 29)
    with pytest.raises(BadInput, match="all background"):
        head_box(np.zeros((4, 5, 6), bool))


def test_pixels_beyond_the_box_come_back_as_told():
    head = np.zeros((1, 40, 40), bool)
    head[0, 10:20, 15:30] = True
    grid = slice_grid(SPATIAL, head, (1.0, 1.0), STRIDE)
    slices = grid.from_network(np.ones((2, *grid.shape), np.float32), (40, 40), outside=-7)
    inside = np.zeros((40, 40), bool)
    inside[8:22, 13:32] = True
    assert (slices[:, inside] == 1).all()
    assert (slices[:, ~inside] == -7).all()


# ---------------------------------------------------------------- the paper's mode


@pytest.mark.parametrize("shape", [(91, 61), (64, 64), (50, 128), (33, 200), (15, 64)])
def test_the_paper_mode_resizes_any_slice_to_its_size_and_back(shape):
    grid = slice_grid(PAPER, np.ones((1, *shape), bool), (1.0, 1.0), STRIDE)
    assert grid.shape == (64, 64)
    assert grid.inside.all()
    plane = blob(shape, (0.4 * shape[0], 0.55 * shape[1]), (0.3 * shape[0], 0.3 * shape[1]))
    assert np.abs(back_and_forth(grid, plane) - plane).max() < 0.03
    image = (grid.to_network(plane[None])[0] + 1) / 2
    expected = (centroid(plane) + 0.5) / shape * 64 - 0.5
    assert np.abs(centroid(image) - expected).max() < 0.1


def test_the_paper_mode_copies_slices_of_its_own_size():
    plane = np.random.default_rng(0).random((64, 64), np.float32)
    grid = slice_grid(PAPER, np.ones((1, 64, 64), bool), (0.9, 1.4), STRIDE)
    assert np.array_equal(grid.to_network(plane[None])[0], plane * 2 - 1)
    assert np.array_equal(grid.from_network(plane[None], (64, 64))[0], plane)


def test_the_paper_mode_sees_the_whole_slice_and_not_the_heads_box():
    head = np.zeros((1, 80, 50), bool)
    head[0, 30:50, 20:30] = True
    assert slice_grid(PAPER, head, (1.0, 1.0), STRIDE).box == (0, 80, 0, 50)


def test_sizes_and_modes_that_no_network_can_take_are_refused():
    with pytest.raises(BadInput, match="multiple of the network's stride, 16"):
        slice_grid(SlicingSpec(size=(64, 72)), np.ones((1, 9, 9), bool), (1.0, 1.0), STRIDE)
    with pytest.raises(BadInput, match="'square'.*paper or spatial"):
        slice_grid(SlicingSpec(mode="square"), np.ones((1, 9, 9), bool), (1.0, 1.0), STRIDE)


# ---------------------------------------------------------------- neighbours


@settings(max_examples=200, deadline=None)
@given(k=st.integers(0, 29), n=st.integers(1, 30), spacing=st.floats(0.3, 9), offset=st.floats(-40, 40))
def test_neighbours_are_linear_between_slices_and_end_with_the_volume(k, n, spacing, offset):
    k = min(k, n - 1)
    parts = neighbour_weights(k, n, spacing, offset)
    assert all(0 <= index < n and 0 < weight <= 1 for index, weight in parts)
    assert np.isclose(sum(weight for _, weight in parts), 1)
    position = sum(index * weight for index, weight in parts)
    assert np.isclose(position, np.clip(k + offset / spacing, 0, n - 1), atol=2e-6)


def test_neighbours_at_whole_slice_distances_are_those_slices():
    assert neighbour_weights(5, 10, 1.5, 3.0) == [(7, 1.0)]
    assert neighbour_weights(5, 10, 1.5, -3.0) == [(3, 1.0)]
    assert neighbour_weights(5, 10, 1.5, 0.0) == [(5, 1.0)]
    assert neighbour_weights(5, 10, 6.0, 3.0) == [(5, 0.5), (6, 0.5)]
    assert neighbour_weights(9, 10, 1.5, 3.0) == [(9, 1.0)]
    assert neighbour_weights(0, 10, 1.5, -3.0) == [(0, 1.0)]
    assert neighbour_weights(0, 1, 5.0, 3.0) == [(0, 1.0)]


def test_channels_are_the_slices_at_the_given_distances():
    images = np.random.default_rng(0).random((6, 4, 5), np.float32)
    stack = with_neighbours(images, [0, 3, 5], 2.0, (-3.0, 0.0, 2.0))
    assert stack.shape == (3, 3, 4, 5)
    assert np.array_equal(stack[:, 1], images[[0, 3, 5]])
    assert np.array_equal(stack[:, 2], images[[1, 4, 5]])
    assert np.array_equal(stack[0, 0], images[0])
    assert np.allclose(stack[1, 0], (images[1] + images[2]) / 2, atol=1e-7)


# ---------------------------------------------------------------- prepare and restore

VARIANTS = {
    "isotropic": ((1.0, 1.0, 1.0), False),
    "thick slices 1:8": ((8.0, 1.0, 1.0), False),
    "thick in the plane 1:8": ((1.0, 8.0, 1.0), False),
    "oblique": ((2.0, 1.0, 1.0), True),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spec", [SPATIAL, PAPER], ids=["spatial", "paper"])
def test_an_untranslated_volume_comes_back_onto_its_own_grid(orientation, oblique, variant, spec):
    spacing, turned = VARIANTS[variant]
    volume = store(HEAD, orientation, spacing, oblique if turned else None)
    prepared = prepare(volume, spec, STRIDE)
    assert prepared.images.dtype == np.float32
    assert prepared.images.min() >= -1 and prepared.images.max() <= 1
    assert prepared.spacing_kji == spacing

    slices = list(np.flatnonzero(prepared.filled))
    restored = prepared.restore(slices, (prepared.images[slices] + 1) / 2)
    expected = np.clip(prepared.normalisation.apply(volume.array), 0, 1)
    assert restored.shape == volume.array.shape
    assert (restored[volume.array == 0] == 0).all()
    assert expected.max() == 1
    if spec is SPATIAL and spacing[1:] == (1.0, 1.0):
        assert np.abs(restored - expected).max() < 1e-7  # the map to [-1, 1] and back rounds
    elif spec is PAPER:
        assert np.abs(restored - expected).mean() < 0.02
    else:  # 8 mm rows of 24: the rim of the head mixes with the air beside it
        assert np.abs(restored - expected).mean() < 0.04
    assert np.corrcoef(restored.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_plane_leads_back_to_the_stored_grid(orientation, plane):
    volume = store(HEAD, orientation)
    prepared = prepare(volume, SlicingSpec(plane=plane, mode="spatial", spacing_mm=1.0), STRIDE)
    restored = prepared.restore(list(range(len(prepared.images))), (prepared.images + 1) / 2)
    assert np.abs(restored - np.clip(prepared.normalisation.apply(volume.array), 0, 1)).max() < 1e-7


def test_the_network_sees_the_same_slices_in_whatever_orientation_they_are_stored(orientation, oblique):
    reference = prepare(store(HEAD, spacing_kji=(3, 1, 1), rotation=oblique), SPATIAL, STRIDE)
    prepared = prepare(store(HEAD, orientation, (3, 1, 1), oblique), SPATIAL, STRIDE)
    assert np.array_equal(prepared.images, reference.images)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_network_sees_millimetres_along_the_rows_and_columns_of_every_plane(orientation, plane):
    volume = store(HEAD, orientation, (3.0, 2.0, 1.0))  # along superior, posterior, left
    grid = prepare(volume, SlicingSpec(plane=plane, mode="spatial", spacing_mm=1.0), STRIDE).grid
    top, bottom, left, right = grid.box
    down, across = {"axial": (2.0, 1.0), "coronal": (3.0, 1.0), "sagittal": (3.0, 2.0)}[plane]
    assert grid.inside.any(axis=1).sum() == (bottom - top) * down
    assert grid.inside.any(axis=0).sum() == (right - left) * across


def test_slices_without_a_head_need_no_network_and_come_back_empty():
    prepared = prepare(store(np.pad(HEAD, ((3, 2), (0, 0), (0, 0)))), SPATIAL, STRIDE)
    inside = HEAD.any(axis=(1, 2))
    assert prepared.filled.tolist() == [False] * 3 + inside.tolist() + [False] * 2
    restored = prepared.restore([], np.empty((0, *prepared.grid.shape)))
    assert restored.shape == prepared.foreground.shape
    assert not restored.any()


def test_what_a_network_paints_into_the_background_is_not_kept():
    volume = store(HEAD)
    prepared = prepare(volume, SPATIAL, STRIDE)
    restored = prepared.restore(list(range(18)), np.ones((18, *prepared.grid.shape)))
    assert np.array_equal(restored != 0, HEAD > 0)
    assert np.allclose(restored[HEAD > 0], 1)


def test_a_batch_has_a_channel_for_each_neighbour():
    spec = SlicingSpec(mode="spatial", spacing_mm=1.0, neighbours_mm=(-3.0, 0.0, 3.0))
    prepared = prepare(store(HEAD, spacing_kji=(3, 1, 1)), spec, STRIDE)
    batch = prepared.batch([4, 9])
    assert batch.shape == (2, 3, *prepared.grid.shape)
    assert np.array_equal(batch[0], prepared.images[3:6])
    assert np.array_equal(batch[1], prepared.images[8:11])


def test_a_single_slice_is_prepared_and_restored():
    volume = store(HEAD[9:10])
    prepared = prepare(volume, SPATIAL, STRIDE)
    restored = prepared.restore([0], (prepared.images + 1) / 2)
    assert np.abs(restored - np.clip(prepared.normalisation.apply(volume.array), 0, 1)).max() < 1e-7
