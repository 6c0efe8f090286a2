"""The input channels of a segmenter: the given image and a second one on its grid (Yang et al. 2020, Cross-modality segmentation).

The paper's FCN takes three channels, [given, given, translated]; which image is which channel is data in the card.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.intensity import foreground_mask, normalisation_of
from IMTCore.preparation import PreparedVolume
from IMTCore.volume import Volume

from .segmenter_cards import GIVEN


def normalised_second(volume: Volume, percentile: float) -> np.ndarray:
    """A second image normalised as `IMTCore.preparation` does the given one: stored array [k, j, i], float32 in [0, 1].

    Args:
        volume: real or translated.
        percentile: of its own foreground that becomes 1; what is brighter is clipped to it. The background is 0.

    Raises:
        BadInput: if it has no contrast; names the volume.
    """
    try:
        normalisation = normalisation_of(volume.array, percentile)
    except BadInput as error:
        raise BadInput(f"{volume.name}: {error} Choose another second image.") from error
    normalised = normalisation.apply(volume.array)
    np.clip(normalised, 0, 1, out=normalised)
    normalised[~foreground_mask(volume.array, normalisation.background)] = 0
    return normalised


def on_network_grid(view: PreparedVolume, normalised: np.ndarray) -> np.ndarray:
    """A normalised stored array [k, j, i] on the given volume's grid as network images [k, rows, columns] in [-1, 1]."""
    return view.grid.to_network(view.axes.apply(normalised))


def second_images(view: PreparedVolume, volume: Volume, percentile: float) -> np.ndarray:
    """Another volume on the given volume's grid as network images.

    Args:
        view: the given volume, prepared in one plane.
        volume: the second image, real or translated, of the given volume's shape and place.
        percentile: as in `normalised_second`.

    Returns:
        [k, rows, columns] float32 in [-1, 1], on the network's grid of `view`.

    Raises:
        BadInput: another shape, or no contrast.
    """
    if view.axes.apply(volume.array).shape != view.foreground.shape:
        raise BadInput(f"{volume.name} has another size than the given image. Resample it first.")
    return on_network_grid(view, normalised_second(volume, percentile))


def stack_channels(
    view: PreparedVolume, second: np.ndarray | None, channels: Sequence[str], slices: Sequence[int] | None = None
) -> np.ndarray:
    """The network's input.

    Args:
        view: the given volume, prepared in one plane.
        second: [k, rows, columns] of the second image, as `second_images` gives it; None if no channel needs it.
        channels: "given" or "second", one a channel.
        slices: the slices wanted; None for all.

    Returns:
        [n, len(channels), rows, columns], float32 in [-1, 1].
    """
    chosen = list(range(len(view.images))) if slices is None else list(slices)
    stacked = np.empty((len(chosen), len(channels), *view.images.shape[1:]), np.float32)
    for number, channel in enumerate(channels):
        images = view.images if channel == GIVEN else second
        stacked[:, number] = images[chosen]
    return stacked
