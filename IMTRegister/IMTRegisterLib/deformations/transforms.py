"""Spatial transforms from a fixed image to a moving one, as registration engines give them and resampling needs them.

A point x of the fixed image is seen in the moving image at

    T(x) = A(x + u(x)),    A a 4x4 matrix, u a displacement field on a grid of the fixed image.

All engines are brought to this form. Where two registrations share A, a weighted mean of their transforms is that of
their fields: A(x + w u1 + (1 - w) u2) = w A(x + u1) + (1 - w) A(x + u2).

All coordinates are LPS, in mm; arrays of vectors are [k, j, i, 3] with the components L, P, S.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.files import whole_file
from IMTCore.volume import Geometry
from IMTCore.volume_io import system_error

SLAB = 16  # slices worked on at a time: bounds the memory of float64 coordinates
SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat")


@dataclass(frozen=True)
class Transform:
    """x -> A(x + u(x)), fixed -> moving, LPS mm.

    Attributes:
        matrix: (4, 4) float64, A.
        displacement: (K, J, I, 3) float32 mm, u at the voxel centres of `geometry`, linear between them; or None for
            u = 0. Beyond the grid u is 0, as in ITK.
        geometry: the grid of u, None if there is none.

    Raises:
        BadInput: a matrix that is not finite or not invertible, a field that is not finite or does not fit its grid.
    """

    matrix: np.ndarray = field(default_factory=lambda: np.eye(4))
    displacement: np.ndarray | None = None
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        affine = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.allclose(matrix[3], [0, 0, 0, 1])
        if not affine or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise BadInput(f"The transform's matrix is no invertible affine matrix: {matrix.tolist()}.")
        if (self.displacement is None) != (self.geometry is None):
            raise BadInput("A displacement field needs its grid, and a grid its field.")
        if self.displacement is not None:
            if self.displacement.shape != (*self.geometry.shape, 3):
                raise BadInput(f"The displacement field {self.displacement.shape} does not fit its grid {self.geometry.shape}.")
            if not np.isfinite(self.displacement).all():
                raise BadInput("The displacement field has values that are not finite: the registration has failed.")

    def to_moving(self, points_lps: np.ndarray) -> np.ndarray:
        """(N, 3) points of the fixed image -> (N, 3) of the moving one, LPS mm."""
        points = np.asarray(points_lps, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise BadInput(f"Points are (N, 3) LPS positions; these have the shape {points.shape}.")
        if self.displacement is not None:
            points = points + sample_field(self.displacement, self.geometry, points)
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def slabs(self, geometry: Geometry) -> Iterator[tuple[slice, np.ndarray]]:
        """Slabs of `geometry`, each with the points (n, J, I, 3) of the moving image that its voxel centres map to."""
        same = self.geometry is not None and geometry.is_close(self.geometry, 1e-4)
        for start in range(0, geometry.shape[0], SLAB):
            part = slice(start, min(start + SLAB, geometry.shape[0]))
            points = voxel_centres(geometry, part)
            if same:  # exact at the voxel centres, and no interpolation
                points = points + self.displacement[part]
            elif self.displacement is not None:
                points = points + sample_field(self.displacement, self.geometry, points.reshape(-1, 3)).reshape(points.shape)
            yield part, points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def with_displacement(self, displacement: np.ndarray, geometry: Geometry | None = None) -> Transform:
        """The same matrix with another field."""
        return replace(self, displacement=displacement, geometry=geometry or self.geometry)


def voxel_centres(geometry: Geometry, part: slice = slice(None)) -> np.ndarray:
    """(n, J, I, 3) float64 LPS mm: the voxel centres of the slices `part`."""
    step_i, step_j, step_k = (geometry.direction * geometry.spacing_mm).T
    k, j, i = (np.arange(n)[:, None] for n in geometry.shape)
    plane = geometry.origin_lps + (j * step_j)[:, None] + i * step_i
    return plane + (k[part] * step_k)[:, None, None]


def voxel_indices(geometry: Geometry, points_lps: np.ndarray) -> np.ndarray:
    """(..., 3) LPS mm -> (..., 3) continuous voxel indices in the order i, j, k."""
    return (np.asarray(points_lps, dtype=np.float64) - geometry.origin_lps) @ np.linalg.inv(
        geometry.direction * geometry.spacing_mm
    ).T


def sample_field(displacement: np.ndarray, geometry: Geometry, points_lps: np.ndarray) -> np.ndarray:
    """(N, 3) float64 mm: the field [k, j, i, 3] at points (N, 3), linear; 0 beyond the grid's outer voxel centres, as ITK."""
    from scipy.ndimage import map_coordinates

    k_j_i = voxel_indices(geometry, points_lps).T[::-1]
    edge = np.array(geometry.shape)[:, None] - 1
    inside = ((k_j_i >= -1e-6) & (k_j_i <= edge + 1e-6)).all(axis=0)
    result = np.zeros((k_j_i.shape[1], 3))
    at = np.clip(k_j_i[:, inside], 0, edge)
    for component in range(3):
        result[inside, component] = map_coordinates(displacement[..., component], at, order=1, mode="nearest", output=np.float64)
    return result


def write_transform(path: Path | str, transform: Transform) -> None:
    """Write a transform, fixed -> moving, LPS (ITK's own convention), whole or not at all.

    `.h5` and `.tfm` hold all; the other suffixes an affine transform only. A field that is not 0 at the edge of its grid
    gets one layer of zeros around it: beyond a grid ITK takes 0 and Slicer the value of the edge, and so both agree.

    Raises:
        BadInput: a suffix that no transform file has. OutputFailure: it cannot be written.
    """
    import SimpleITK as sitk

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"Cannot tell the format of {path}: a transform's name ends in .h5 (or .tfm).")
    if transform.displacement is not None and path.suffix.lower() not in (".h5", ".hdf5", ".tfm"):
        raise BadInput(f"{path} cannot hold a deformation: end the name in .h5.")
    with whole_file(path) as temporary:
        try:
            sitk.WriteTransform(to_sitk(transform), str(temporary))
        except RuntimeError as error:
            raise system_error(temporary, str(error).strip().splitlines()[-1]) from error


def to_sitk(transform: Transform) -> Any:
    """The SimpleITK transform: affine, or affine after a displacement field."""
    import SimpleITK as sitk

    affine = sitk.AffineTransform(3)
    affine.SetMatrix(transform.matrix[:3, :3].ravel())
    affine.SetTranslation(transform.matrix[:3, 3])
    if transform.displacement is None:
        return affine
    displacement, geometry = transform.displacement, transform.geometry
    edge = np.ones(displacement.shape[:3], bool)
    edge[1:-1, 1:-1, 1:-1] = False
    if np.abs(displacement[edge]).max(initial=0) > 0:
        displacement = np.pad(displacement, ((1, 1), (1, 1), (1, 1), (0, 0)))
        origin = geometry.origin_lps - geometry.direction @ geometry.spacing_mm
        geometry = Geometry(displacement.shape[:3], geometry.spacing_mm, origin, geometry.direction)
    image = sitk.GetImageFromArray(displacement.astype(np.float64), isVector=True)
    image.SetSpacing(geometry.spacing_mm.tolist())
    image.SetOrigin(geometry.origin_lps.tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    # Of a composite the transform that was added last is applied first.
    return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(image)])


def read_transform(path: Path | str) -> Transform:
    """Read what `write_transform` wrote, or any linear transform that ITK knows.

    Raises:
        BadInput: no transform file, or one of another form than A(x + u(x)).
    """
    import SimpleITK as sitk

    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no transform file {path}. Check the path.")
    try:
        read = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no transform file that ITK can read ({str(error).strip().splitlines()[-1]}).") from error
    return from_sitk(read, str(path))


def from_sitk(read: Any, name: str = "transform") -> Transform:
    """The `Transform` of a SimpleITK transform; `name` is what messages call it.

    Raises:
        BadInput: it is not of the form A(x + u(x)) in three dimensions.
    """
    import SimpleITK as sitk

    if read.GetDimension() != 3:
        raise BadInput(f"{name} is a transform in {read.GetDimension()} dimensions; IMT needs three.")
    if not isinstance(read, sitk.CompositeTransform):
        read = read.Downcast()
    parts = [read]
    if isinstance(read, sitk.CompositeTransform):
        read = sitk.CompositeTransform(read)
        read.FlattenTransform()
        parts = [read.GetNthTransform(n).Downcast() for n in range(read.GetNumberOfTransforms())]
    matrix, displacement, geometry = np.eye(4), None, None
    for part in parts:  # in the order in which they were added: the last is applied first
        if isinstance(part, sitk.DisplacementFieldTransform):
            if displacement is not None:
                raise BadInput(f"{name} has two deformations. IMT reads one, followed by a linear transform.")
            displacement, geometry = _field_of(part, name)
        elif part.IsLinear():
            if displacement is not None:
                raise BadInput(f"{name} has a linear transform before its deformation. IMT reads them in the other order.")
            with np.errstate(all="ignore"):  # what is not finite is refused by `Transform`
                matrix = matrix @ _matrix_of(part)
        else:
            raise BadInput(f"{name} is a transform of type {part.GetName()}. IMT reads displacement fields and linear transforms.")
    try:
        return Transform(matrix, displacement, geometry)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def _matrix_of(part: Any) -> np.ndarray:
    points = np.array([part.TransformPoint(point) for point in ((0.0, 0, 0), (1.0, 0, 0), (0.0, 1, 0), (0.0, 0, 1))])
    matrix = np.eye(4)
    matrix[:3, :3] = (points[1:] - points[0]).T
    matrix[:3, 3] = points[0]
    return matrix


def _field_of(part: Any, name: str) -> tuple[np.ndarray, Geometry]:
    import SimpleITK as sitk

    image = part.GetDisplacementField()
    if image.GetNumberOfPixels() == 0:
        raise BadInput(f"{name} holds an empty displacement field.")
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    geometry = Geometry(array.shape[:3], image.GetSpacing(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)))
    return array, geometry
