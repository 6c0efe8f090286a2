"""Claims on the scores of one segmentation against another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation_matrix

from IMTCore.errors import BadInput
from IMTCore.label_scores import (
    FALSE,
    MISSING,
    RIGHT,
    dice,
    dice_scores,
    error_regions,
    hausdorff_95,
    mean_surface_distance,
    score_labels,
    surface_distances,
)
from IMTCore.volume import Geometry

SPACING_IJK = np.array([1.0, 1.5, 3.0])
SHAPE = (14, 20, 18)


def grid(shape: tuple[int, int, int] = SHAPE) -> Geometry:
    return Geometry(shape, SPACING_IJK, np.array([5.0, -7.0, 11.0]), rotation_matrix(5, 25.0))


def ball(centre_kji: tuple[float, float, float], radius: float) -> np.ndarray:
    distance = sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(slice(n) for n in SHAPE)], centre_kji, strict=True))
    return distance <= radius**2


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two segmentations with structures 2, 5 and 300 that overlap in part."""
    truth, found = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    for code, centre, radius in ((2, (5, 6, 6), 4.2), (5, (9, 13, 11), 3.6), (300, (3, 15, 5), 2.5)):
        truth[ball(centre, radius)] = code
        found[ball((centre[0] + 1, centre[1] - 1, centre[2] + 1), radius - 0.3)] = code
    return truth, found


def image(labels: np.ndarray) -> sitk.Image:
    result = sitk.GetImageFromArray(labels.astype(np.uint16))
    result.SetSpacing(SPACING_IJK.tolist())
    return result


def test_overlap_agrees_with_simpleitk(pair):
    truth, found = pair
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(image(truth), image(found))
    scores = score_labels(truth, found, grid())
    assert list(scores) == [2, 5, 300]
    for code, score in scores.items():
        assert score.dice == pytest.approx(measures.GetDiceCoefficient(code), abs=1e-12)
        assert score.jaccard == pytest.approx(measures.GetJaccardCoefficient(code), abs=1e-12)
        assert 0.3 < score.dice < 0.95


def test_the_largest_surface_distance_agrees_with_simpleitk(pair):
    truth, found = pair
    for code, score in score_labels(truth, found, grid()).items():
        measure = sitk.HausdorffDistanceImageFilter()
        measure.Execute(image(truth == code), image(found == code))
        assert score.hausdorff_mm == pytest.approx(measure.GetHausdorffDistance(), abs=1e-6)


def test_surface_distances_are_those_of_boundary_voxels_found_one_by_one(pair):
    truth, found = pair
    for code, score in score_labels(truth, found, grid()).items():
        surfaces = []
        for labels in (truth == code, found == code):
            inner = np.pad(labels, 1)
            neighbours = [np.roll(inner, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
            surfaces.append(np.argwhere(labels & ~np.logical_and.reduce(neighbours)) * SPACING_IJK[::-1])
        apart = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
        directed = apart.min(axis=1), apart.min(axis=0)
        assert score.mean_surface_distance_mm == pytest.approx(np.concatenate(directed).mean(), abs=1e-9)
        assert score.hausdorff_95_mm == pytest.approx(max(np.percentile(part, 95) for part in directed), abs=1e-9)
        assert score.hausdorff_mm == pytest.approx(max(part.max() for part in directed), abs=1e-9)
        assert score.hausdorff_95_mm <= score.hausdorff_mm


@pytest.mark.parametrize("axis", range(3))
def test_a_plane_moved_by_two_voxels_is_two_voxels_away_in_mm(axis):
    truth, found = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for labels, place in ((truth, 5), (found, 7)):
        labels[tuple(place if n == axis else slice(None) for n in range(3))] = True
    expected = 2 * SPACING_IJK[2 - axis]
    assert hausdorff_95(truth, found, SPACING_IJK[::-1]) == pytest.approx(expected)
    assert mean_surface_distance(truth, found, SPACING_IJK[::-1]) == pytest.approx(expected)


def test_the_scores_of_a_structure_are_those_in_the_whole_image(pair):
    truth, found = pair
    score = score_labels(truth, found, grid())[5]
    whole = np.concatenate(surface_distances(truth == 5, found == 5, SPACING_IJK[::-1]))
    assert score.mean_surface_distance_mm == pytest.approx(whole.mean(), abs=1e-9)
    assert score.dice == dice(truth == 5, found == 5)


def test_equal_segmentations_have_no_error(pair):
    truth, _ = pair
    for score in score_labels(truth, truth.copy(), grid()).values():
        assert (score.dice, score.jaccard, score.hausdorff_mm, score.mean_surface_distance_mm) == (1, 1, 0, 0)
        assert score.false_ml == score.missing_ml == score.difference_ml == 0


def test_volumes_are_in_ml_and_their_parts_add_up(pair):
    truth, found = pair
    score = score_labels(truth, found, grid())[2]
    assert score.truth_ml == pytest.approx((truth == 2).sum() * 4.5 / 1000)
    assert score.difference_ml == pytest.approx(score.found_ml - score.truth_ml)
    assert score.difference_ml == pytest.approx(score.false_ml - score.missing_ml)
    regions = error_regions(truth, found, 2)
    for code, volume in ((FALSE, score.false_ml), (MISSING, score.missing_ml), (RIGHT, score.truth_ml - score.missing_ml)):
        assert (regions == code).sum() * 4.5 / 1000 == pytest.approx(volume)


def test_what_is_not_defined_is_nan_and_what_is_missed_is_zero(pair):
    truth, found = pair
    found = np.where(found == 5, 0, found)
    scores = score_labels(truth, found, grid(), codes=[5, 77])
    assert scores[5].dice == scores[5].jaccard == scores[5].found_ml == 0
    assert scores[5].missing_ml == scores[5].truth_ml > 0
    assert math.isnan(scores[5].hausdorff_95_mm) and math.isnan(scores[5].mean_surface_distance_mm)
    assert math.isnan(scores[77].dice) and math.isnan(scores[77].hausdorff_mm) and scores[77].truth_ml == 0


def test_quick_dice_is_the_same_dice(pair):
    truth, found = pair
    scores = score_labels(truth, found, grid())
    quick = dice_scores(truth, found, [2, 5, 300, 77])
    assert {code: quick[code] for code in scores} == {code: score.dice for code, score in scores.items()}
    assert math.isnan(quick[77])


def test_what_cannot_be_compared_is_refused(pair):
    truth, found = pair
    with pytest.raises(BadInput, match="different sizes"):
        score_labels(truth, found[1:], grid())
    with pytest.raises(BadInput, match="whole numbers"):
        score_labels(truth, found.astype(np.float32), grid())
    with pytest.raises(BadInput, match="does not fit"):
        score_labels(truth, found, grid((14, 20, 19)))
