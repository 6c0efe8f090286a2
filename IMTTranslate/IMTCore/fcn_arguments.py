"""The arguments of `fcn.FCN`: their kinds, bounds and values. No torch: cards are checked without."""

from __future__ import annotations

from typing import Any

VARIANTS = ("32s", "16s", "8s")  # in the order in which they are trained
PADDINGS = (100, 0)  # as in the original; VGG's own
STRIDE = 32  # of VGG-16's five poolings; an FCN takes any size, but pads what is no multiple
# (scale, shift) from [-1, 1] to what the first convolution takes. ImageNet's mean and deviation are those of grey images:
# averages over the colours; `vgg_weights` puts each colour's difference into the first convolution.
INPUT_SCALINGS: dict[str, tuple[float, float]] = {
    "none": (1.0, 0.0),
    "torchvision": (0.5 / 0.226, (0.5 - 0.449) / 0.226),  # intensities 0-1, less the mean, by the standard deviation
    "caffe": (127.5, 127.5 - 344 / 3),  # intensities 0-255, less the mean of (104, 117, 123)
}
# For model cards: key → (types, required); key → (least, most); key → allowed values.
ARGUMENTS: dict[str, tuple[tuple[type, ...], bool]] = {
    "classes": ((int,), True),
    "in_channels": ((int,), True),
    "variant": ((str,), False),
    "width": ((float, int), False),
    "padding": ((int,), False),
    "skip_scaling": ((bool,), False),
    "input_scaling": ((str,), False),
    "dropout": ((float, int), False),
}
BOUNDS: dict[str, tuple[float, float]] = {"classes": (2, 256), "in_channels": (1, 64), "width": (1 / 64, 2), "dropout": (0, 0.95)}
CHOICES: dict[str, tuple[Any, ...]] = {
    "variant": VARIANTS, "padding": PADDINGS, "input_scaling": tuple(INPUT_SCALINGS)
}  # fmt: skip


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check the values of FCN's arguments.

    Raises:
        ValueError: naming the argument and what it may be.
    """
    for key, (least, most) in BOUNDS.items():
        if key in arguments and not least <= arguments[key] <= most:
            raise ValueError(f"{key} must be from {least:g} to {most:g}, not {arguments[key]!r}")
    for key, allowed in CHOICES.items():
        if key in arguments and arguments[key] not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(map(str, allowed))}, not {arguments[key]!r}")
