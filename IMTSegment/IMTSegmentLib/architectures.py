"""The kinds of network that a segmenter's card may name. No torch: cards are checked in Slicer's own process."""

from __future__ import annotations

from IMTCore.architectures import Architecture
from IMTCore.fcn_arguments import ARGUMENTS, BOUNDS, CHOICES, STRIDE

_INTEGER, _INTEGER_IF_ANY, _NUMBER_IF_ANY = ((int,), True), ((int,), False), ((float, int), False)

SEGMENTERS: dict[str, Architecture] = {
    "fcn": Architecture(
        "fcn",
        "FCN",
        ARGUMENTS,
        BOUNDS,
        CHOICES,
        stride=lambda arguments: STRIDE,
    ),
    "unet": Architecture(
        "segmentation_unet",
        "SegmentationUNet",
        {
            "classes": _INTEGER,
            "in_channels": _INTEGER,
            "filters": _INTEGER_IF_ANY,
            "depth": _INTEGER_IF_ANY,
            "max_filters": _INTEGER_IF_ANY,
            "dropout": _NUMBER_IF_ANY,
        },
        {
            "classes": (2, 256),
            "in_channels": (1, 64),
            "filters": (1, 128),
            "depth": (1, 8),
            "max_filters": (1, 1024),
            "dropout": (0, 0.95),
        },
        stride=lambda arguments: 2 ** arguments.get("depth", 4),
    ),
}
