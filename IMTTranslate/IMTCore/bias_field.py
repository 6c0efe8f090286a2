"""N4 bias field correction (Tustison et al. 2010): evens out the slow brightness drift of the receive coil."""

from __future__ import annotations

import numpy as np

from .errors import BadInput
from .intensity import AIR_SHARE, background_value, foreground_mask, normalisation_of
from .orientation import anatomical_axes
from .volume import Volume

WORKING_SPACING_MM = 4.0  # the field is smooth: it is estimated on a coarse grid, and applied on the fine one
ITERATIONS = (50, 50, 30, 20)
MAX_FIELD = 10.0  # a field beyond 1/10 to 10 is no coil's
MIN_VOXELS = 2  # along each axis: ITK's N4 divides by the number less one


def correct_bias(volume: Volume) -> Volume:
    """The volume divided by its estimated bias field; background stays as it is.

    Args:
        volume: array [k, j, i] of intensities, background 0 or a flat border value; a single slice too.

    Returns:
        The same grid, float32. It does not depend on the axes' order in memory.

    Raises:
        BadInput: for intensities below the background (z-scored images), of which N4 takes the logarithm.
    """
    import SimpleITK as sitk

    axes = anatomical_axes(volume.geometry, "axial")
    array = axes.apply(volume.array).astype(np.float32)
    background = background_value(array)
    floor = np.float32(background or 0.0)
    head = foreground_mask(array, background)
    if (array[head] < floor).any():
        raise BadInput(
            f"{volume.name} has intensities below its background (it is z-scored): N4 bias correction needs positive ones. "
            "Translate it without the bias correction."
        )
    array = array - floor
    try:
        normalisation = normalisation_of(array)
    except BadInput as error:
        raise BadInput(f"{volume.name}: {error} Choose another image.") from error
    head &= array > normalisation.low + AIR_SHARE * (normalisation.high - normalisation.low)
    padding = [(0, max(0, MIN_VOXELS - n)) for n in array.shape]
    image = sitk.GetImageFromArray(np.pad(array, padding, mode="edge"))
    image.SetSpacing([float(s) for s in axes.spacing_kji(volume.geometry)[::-1]])
    mask = sitk.GetImageFromArray(np.pad(head, padding, mode="edge").astype(np.uint8))
    mask.CopyInformation(image)
    shrink = [max(1, min(int(WORKING_SPACING_MM / s), n // 4)) for s, n in zip(image.GetSpacing(), image.GetSize(), strict=True)]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(ITERATIONS)
    corrector.Execute(sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink))
    log_field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))[tuple(slice(n) for n in array.shape)]
    field = np.exp(np.clip(log_field, -np.log(MAX_FIELD), np.log(MAX_FIELD)))
    corrected = np.where(foreground_mask(array, 0.0), array / field, 0) + floor
    return volume.with_array(np.ascontiguousarray(axes.invert(corrected.astype(np.float32))))
