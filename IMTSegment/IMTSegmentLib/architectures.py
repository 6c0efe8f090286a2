"""The kinds of network that a segmenter's card may name. No torch: cards are checked in Slicer's own process."""

from __future__ import annotations

from IMTCore.architectures import Architecture

_INTEGER, _INTEGER_IF_ANY, _NUMBER_IF_ANY, _TEXT_IF_ANY = ((int,), True), ((int,), False), ((float, int), False), ((str,), False)
FCN_STRIDE = 32  # of VGG-16's five poolings; an FCN takes any size, but pads what is no multiple

SEGMENTERS: dict[str, Architecture] = {
    "fcn": Architecture(
        "fcn",
        "FCN",
        {
            "classes": _INTEGER,
            "in_channels": _INTEGER,
            "variant": _TEXT_IF_ANY,
            "width": _NUMBER_IF_ANY,
            "padding": _INTEGER_IF_ANY,
            "skip_scaling": ((bool,), False),
            "input_scaling": _TEXT_IF_ANY,
            "dropout": _NUMBER_IF_ANY,
        },
        {"classes": (2, 256), "in_channels": (1, 64), "width": (1 / 64, 2), "dropout": (0, 0.95)},
        {"variant": ("32s", "16s", "8s"), "padding": (100, 0), "input_scaling": ("none", "torchvision", "caffe")},
        stride=lambda arguments: FCN_STRIDE,
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
