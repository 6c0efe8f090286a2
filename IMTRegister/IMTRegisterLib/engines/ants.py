"""ANTs (antspyx, Avants et al.): rigid and affine registration, then SyN, by antsRegistration's raw arguments.

antspyx' named presets are not those of the ANTs scripts; so the arguments come from IMT's presets. Images are handed
over by antspyx' pointers. With `--float 0` antsRegistration reads them as double, whatever they are.
"""

from __future__ import annotations

from pathlib import Path

import ants
import numpy as np
from ants.internal import get_lib_fn, get_pointer_string

from .images import EngineError, Frame, Problem, after, apply_matrix, matrix_of, resampled

PREFIX = "result"


def linear(problem: Problem) -> np.ndarray:
    """(d + 1, d + 1) A: the one matrix into which antsRegistration collapses the start, the rigid and the affine stage."""
    _register(problem)
    paths = list(Path().glob(f"{PREFIX}*GenericAffine.mat"))
    if len(paths) != 1:
        raise EngineError("antsRegistration wrote no single matrix")
    read = ants.read_transform(str(paths[0]))
    return matrix_of(lambda point: ants.apply_ants_transform_to_point(read, point), problem.fixed_frame.dimension)


def deformable(problem: Problem) -> np.ndarray:
    """float32 u in mm: SyN's forward field, before the start's field if there is one."""
    _register(problem)
    fields = sorted(path for path in Path().glob(f"{PREFIX}*Warp.nii.gz") if "Inverse" not in path.name)
    if not fields:
        raise EngineError("antsRegistration wrote no displacement field")
    read = ants.image_read(str(fields[-1]))
    axes = tuple(reversed(range(problem.fixed_frame.dimension)))
    vectors = np.ascontiguousarray(read.numpy().transpose(*axes, -1))  # [i, j, k, c] before
    # SyN leaves its field on the grid of its last level, which may be a coarser one.
    grid = Frame(vectors.shape[:-1], np.array(read.spacing), np.array(read.origin), np.array(read.direction))
    return after(problem.displacement, resampled(vectors, grid, problem.fixed_frame), problem.fixed_frame)


def _register(problem: Problem) -> None:
    for path in Path().glob(f"{PREFIX}*"):
        path.unlink()
    images, metrics = [], []  # the images must live as long as their pointers are used
    for fixed, moving, weight in zip(problem.fixed, problem.moving, problem.weights, strict=True):
        pair = [_image(fixed, problem.fixed_frame), _image(moving, problem.moving_frame)]
        images += pair
        pointers = dict(zip(("fixed", "moving"), map(get_pointer_string, pair), strict=True))
        metrics += ["--metric", *problem.fill(problem.settings["metric"], weight=f"{weight:.9g}", **pointers)]
    words = ["--dimensionality", str(problem.fixed_frame.dimension), "--float", "0", "--verbose", "1"]
    words += ["--random-seed", str(problem.seed), "--output", PREFIX, *_start(problem)]
    if problem.fixed_mask is not None or problem.moving_mask is not None:
        masks = [
            "NULL" if mask is None else _image(mask, frame).clone("unsigned char")
            for mask, frame in ((problem.fixed_mask, problem.fixed_frame), (problem.moving_mask, problem.moving_frame))
        ]
        images += masks
        words += ["--masks", "[" + ",".join(mask if isinstance(mask, str) else get_pointer_string(mask) for mask in masks) + "]"]
    words += problem.fill(problem.settings["arguments"], metrics=" ".join(metrics))
    if get_lib_fn("antsRegistration")(words) != 0:
        raise EngineError("antsRegistration ended with an error")


def _start(problem: Problem) -> list[str]:
    """The start as --initial-moving-transform. Of several the last one named is applied last to a point: the matrix."""
    dimension = problem.fixed_frame.dimension
    # Its offset is about the fixed image's centre: about a far origin the rotation would drag the translation along.
    start = ants.create_ants_transform(
        transform_type="AffineTransform",
        dimension=dimension,
        matrix=problem.matrix[:-1, :-1],
        center=(centre := _middle(problem.fixed_frame)),
        translation=apply_matrix(problem.matrix, centre) - centre,
    )
    ants.write_transform(start, "start.mat")
    words = ["--initial-moving-transform", "start.mat"]
    if problem.displacement is not None:
        axes = tuple(reversed(range(dimension)))
        vectors = np.ascontiguousarray(problem.displacement.transpose(*axes, -1))
        ants.image_write(_new(vectors, problem.fixed_frame, has_components=True), "start.nii")
        words = ["--initial-moving-transform", "start.nii", *words]
    return words


def _middle(frame: Frame) -> np.ndarray:
    return frame.origin + frame.direction @ (frame.spacing * (np.array(frame.shape[::-1]) - 1) / 2)


def _image(array: np.ndarray, frame: Frame) -> ants.ANTsImage:
    return _new(np.ascontiguousarray(np.asarray(array, dtype=np.float32).T), frame).clone("double")


def _new(array: np.ndarray, frame: Frame, **options: bool) -> ants.ANTsImage:
    place = {"origin": frame.origin.tolist(), "spacing": frame.spacing.tolist(), "direction": frame.direction}
    return ants.from_numpy(array, **place, **options)
