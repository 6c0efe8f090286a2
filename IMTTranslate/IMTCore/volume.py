"""A scalar 3D image and its place in the world.

Arrays are `[k, j, i]` (slice, row, column). World coordinates are LPS, in mm (ITK and DICOM):
`x_lps = origin_lps + direction @ (spacing_mm * (i, j, k))`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import BadInput

# Columns of a direction matrix stored in float32 are unit and orthogonal to about 1e-6; hand-rounded
# headers reach 1e-3. Beyond that the grid is sheared and no rigid frame describes it.
ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume.

    Attributes:
        shape: (K, J, I), the array's shape.
        spacing_mm: (3,) voxel size along i, j, k in mm, all > 0.
        origin_lps: (3,) LPS position in mm of the centre of voxel (0, 0, 0).
        direction: (3, 3) orthonormal; its columns are the LPS directions of i, j, k. Left-handed allowed.

    Raises:
        BadInput: if a value is not finite, a spacing is not positive, or the direction is singular or sheared.
    """

    shape: tuple[int, int, int]
    spacing_mm: np.ndarray
    origin_lps: np.ndarray
    direction: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3:
            raise BadInput(f"A volume has three axes; this one has {len(shape)}.")
        object.__setattr__(self, "shape", shape)
        for name, size in (("spacing_mm", (3,)), ("origin_lps", (3,)), ("direction", (3, 3))):
            value = np.array(getattr(self, name), dtype=np.float64).reshape(size)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
            if not np.isfinite(value).all():
                raise BadInput(f"The image header's {name} has values that are not finite: {value.tolist()}.")
        if (self.spacing_mm <= 0).any():
            raise BadInput(f"The voxel size must be positive, but it is {self.spacing_mm.tolist()} mm.")
        gram = self.direction.T @ self.direction
        if abs(np.linalg.det(self.direction)) < 1e-3:
            raise BadInput("The image's direction matrix is singular: its axes do not span space. Repair the header.")
        if not np.allclose(gram, np.eye(3), atol=ORTHONORMAL_TOLERANCE):
            raise BadInput(
                "The image grid is sheared (its axes are not at right angles). "
                "Resample it to a regular grid first, for example with Slicer's Resample Scalar Volume."
            )

    @classmethod
    def from_affine_ras(cls, affine: np.ndarray, shape: tuple[int, int, int]) -> Geometry:
        """Build from a NIfTI-style (4, 4) affine, (i, j, k, 1) → RAS mm, and the array shape (K, J, I)."""
        affine = np.asarray(affine, dtype=np.float64)
        if not np.isfinite(affine).all():
            raise BadInput("The image header's affine has values that are not finite. Repair the header.")
        linear = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]  # RAS → LPS: the only place where signs change
        spacing = np.linalg.norm(linear, axis=0)
        if (spacing < 1e-12).any():
            raise BadInput("The image's direction matrix is singular: an axis has no length. Repair the header.")
        return cls(shape, spacing, affine[:3, 3] * [-1, -1, 1], linear / spacing)

    @property
    def affine_ras(self) -> np.ndarray:
        """(4, 4) affine, (i, j, k, 1) → RAS mm."""
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ (self.direction * self.spacing_mm)
        affine[:3, 3] = self.origin_lps * [-1, -1, 1]
        return affine

    def is_close(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and their voxel centres differ by less than `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        k, j, i = (n - 1 for n in self.shape)
        corners = np.array([[a, b, c, 1] for a in (0, i) for b in (0, j) for c in (0, k)], dtype=np.float64).T
        return bool(np.abs((self.affine_ras - other.affine_ras) @ corners).max() < tolerance_mm)


@dataclass(frozen=True)
class Volume:
    """A scalar image: `array` [k, j, i] on `geometry`.

    `header` is the format's own header of the file it came from (nibabel's for NIfTI and MGH), kept so that a result
    written in the same format carries the same forms and codes; `name` is what messages call the volume.
    """

    array: np.ndarray  # [k, j, i]
    geometry: Geometry
    name: str = "volume"
    header: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise BadInput(f"{self.name}: array shape {self.array.shape} is not the grid's {self.geometry.shape}.")

    def with_array(self, array: np.ndarray, name: str | None = None) -> Volume:
        """The same grid and header with another array [k, j, i]."""
        return replace(self, array=array, name=name or self.name)


def check_image(volume: Volume, constant: bool = False) -> None:
    """Refuse what is no usable scalar image.

    Args:
        volume: what was read.
        constant: take an image of one value too, as an empty label map is.

    Raises:
        BadInput: complex, colour or non-numeric values, no voxels, NaN or infinite values (with their number),
            or one constant value.
    """
    array, name = volume.array, volume.name
    if array.dtype.fields is not None:
        raise BadInput(f"{name} is a colour image. IMT needs a scalar image: export one channel or the original.")
    if np.issubdtype(array.dtype, np.complexfloating):
        raise BadInput(f"{name} has complex values. IMT needs a magnitude image: export its magnitude.")
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise BadInput(f"{name} has values of type {array.dtype}, which are no image intensities.")
    if array.size == 0:
        raise BadInput(f"{name} is empty: its size is {array.shape[::-1]} voxels.")
    if np.issubdtype(array.dtype, np.floating):
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise BadInput(
                f"{name} has {bad} voxels that are NaN or infinite. Replace them first, for example by the background value."
            )
    if not constant and array.min() == array.max():
        raise BadInput(f"{name} is constant (every voxel is {array.flat[0]:g}): it shows nothing. Choose another image.")
