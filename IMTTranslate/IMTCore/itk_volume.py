"""Volumes from SimpleITK images."""

from __future__ import annotations

from typing import Any

import numpy as np

from .volume import Geometry, Volume


def volume_from_sitk(image: Any, name: str) -> Volume:
    """A `Volume` from a scalar SimpleITK image of two or three dimensions (or four, the last of size 1)."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 4:
        image, array = image[..., 0], array[0]
    if image.GetDimension() == 2:
        direction = np.eye(3)
        direction[:2, :2] = np.reshape(image.GetDirection(), (2, 2))
        geometry = Geometry((1, *array.shape), (*image.GetSpacing(), 1.0), (*image.GetOrigin(), 0.0), direction)
        return Volume(array[None], geometry, name)
    geometry = Geometry(array.shape, image.GetSpacing(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)))
    with np.errstate(over="ignore"):  # infinite values are refused by `check_image`
        return Volume(array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32, copy=False), geometry, name)
