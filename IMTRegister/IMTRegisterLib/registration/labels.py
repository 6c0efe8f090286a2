"""The registered atlases' labels, carried over and made one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from IMTCore.errors import BadInput, Cancelled
from IMTCore.progress import Progress, never, quiet
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume

from ..atlases.atlas_sets import Atlas
from ..deformations.resampling import warp_labels, warp_shares
from ..deformations.transforms import Transform
from .inputs import crop_geometry
from .label_fusion import fuse_labels, mean_labels
from .weights import Share, WeightPlan

SLAB = 32  # slices fused at a time: bounds the memory of many atlases' shares
Transforms = Mapping[Share, Transform]


@dataclass(frozen=True)
class RegisteredLabels:
    """One atlas's labels with the transforms that carry them to the subject."""

    labels: Volume
    transforms: Transforms


def read_labels(atlas: Atlas) -> Volume:
    """An atlas's labels as integers.

    Raises:
        BadInput: values that are no labels.
    """
    volume = read_volume(atlas.labels)
    if np.issubdtype(volume.array.dtype, np.integer):
        return volume
    rounded = np.rint(volume.array)
    if not np.array_equal(rounded, volume.array) or rounded.min() < 0 or rounded.max() > 65535:
        raise BadInput(f"The labels of atlas {atlas.name} ({atlas.labels}) are no whole numbers from 0 to 65535.")
    return volume.with_array(rounded.astype(np.uint16))


def combine_labels(
    atlases: Sequence[RegisteredLabels],
    plan: WeightPlan,
    codes: Sequence[int],
    method: str,
    geometry: Geometry,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Fuse the atlases' labels on `geometry`, the grid of their transforms. `method`: mean, majority or staple.

    Structures with shares of their own are each carried by their own transforms; what they leave of a voxel is background.

    Returns:
        labels (K, J, I), and agreement (K, J, I) float32, 0 to 1, as `fuse_labels`.

    Raises:
        BadInput: as `fuse_labels`. Cancelled.
    """

    def tell(fraction: float, message: str) -> None:
        if cancelled():
            raise Cancelled("Cancelled: nothing was written.")
        progress("labels", fraction, message)

    if method != "mean":
        stack = []
        for number, atlas in enumerate(atlases):
            tell(0.8 * number / len(atlases), f"atlas {number + 1} of {len(atlases)}")
            stack.append(hard_labels(atlas, plan, codes, geometry))
        return fuse_labels(stack, method, codes, progress=lambda _, fraction, message: tell(0.8 + 0.2 * fraction, message))
    parts = []
    for start in range(0, geometry.shape[0], SLAB):
        slab = slice(start, min(start + SLAB, geometry.shape[0]))
        tell(start / geometry.shape[0], f"slices {slab.start + 1} to {slab.stop}")
        shares = [_shares(slab_of(atlas, slab, geometry), plan, codes, _slab_grid(slab, geometry)) for atlas in atlases]
        parts.append(fuse_labels(shares, "mean", codes, progress=lambda *_, at=start: tell(at / geometry.shape[0], "fuse")))
    return np.concatenate([labels for labels, _ in parts]), np.concatenate([agreement for _, agreement in parts])


def hard_labels(atlas: RegisteredLabels, plan: WeightPlan, codes: Sequence[int], geometry: Geometry) -> np.ndarray:
    """(K, J, I) integer: one atlas's labels on `geometry`: the nearest, or with several transforms the largest share."""
    if not plan.of_code:
        return warp_labels(atlas.labels, atlas.transforms[plan.main], geometry).array
    return mean_labels([_shares(atlas, plan, codes, geometry)], codes)[0]


def _shares(
    atlas: RegisteredLabels, plan: WeightPlan, codes: Sequence[int], geometry: Geometry
) -> Iterator[tuple[int, np.ndarray]]:
    """(code, (K, J, I) share) by ascending codes, each carried by the transform of its weight."""
    groups = plan.groups(codes)
    readers = {share: warp_shares(atlas.labels, group, atlas.transforms[share], geometry) for share, group in groups.items()}
    share_of = {code: share for share, group in groups.items() for code in group}
    for code in codes:
        yield next(readers[share_of[code]])


def slab_of(atlas: RegisteredLabels, slab: slice, geometry: Geometry) -> RegisteredLabels:
    """The same with the part of the transforms that slices `slab` of their grid need."""
    grid = _slab_grid(slab, geometry)
    parts = {}
    for share, transform in atlas.transforms.items():
        if transform.displacement is None:
            parts[share] = transform
        else:
            parts[share] = Transform(transform.matrix, np.array(transform.displacement[slab]), grid)
    return RegisteredLabels(atlas.labels, parts)


def _slab_grid(slab: slice, geometry: Geometry) -> Geometry:
    return crop_geometry(geometry, (slab, slice(0, geometry.shape[1]), slice(0, geometry.shape[2])))
