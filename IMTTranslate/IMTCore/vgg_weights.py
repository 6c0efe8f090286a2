"""Initial weights of an FCN from a user's file of VGG-16's ImageNet weights (Simonyan and Zisserman, ICLR 2015).

The file is safetensors or a state dictionary saved by PyTorch, with torchvision's names (`features.0.weight` …
`classifier.3.bias`) or timm's (`pre_logits.fc1.weight`). Nothing is downloaded and nothing unpickled but tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .errors import BadModel
from .fcn import FCN, VGG_FILTERS, initialise
from .progress import Say

# Mean and standard deviation of each channel that the file's first convolution takes, in the file's order of colours
# (torchvision: red, green, blue in 0-1; Caffe: blue, green, red in 0-255), and those of FCN's grey input.
COLOURS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = {
    "torchvision": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.449, 0.226),
    "caffe": ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 344 / 3, 1.0),
}
# The two layers of the classifier that become convolutions, by where a file's names come from.
CLASSIFIERS = (("classifier.0", "classifier.3"), ("pre_logits.fc1", "pre_logits.fc2"))


def initial_weights(network: FCN, path: Path | None, say: Say) -> str:
    """Give a new network its initial weights: VGG-16's from the file, or random ones; it says which.

    Returns:
        "VGG-16 from NAME" or "random", to be shown beside results.

    Raises:
        BadModel: as `load_vgg`.
    """
    initialise(network)
    if path is None:
        say("No file of VGG-16 weights was given: the network starts from random weights, unlike the published FCN.")
        return "random"
    load_vgg(network, path)
    return f"VGG-16 from {Path(path).name}"


def load_vgg(network: FCN, path: Path) -> None:
    """Copy VGG-16's convolutions and its first two classifier layers into the network; the scores stay as they are.

    The first convolution is adapted to the network's channels and its input scaling: three channels take the filters of
    the file's three colours; any other number n takes each their sum divided by n, so that one grey image gives what it
    gives as three equal colours.

    Raises:
        BadModel: if the file cannot be read, lacks a layer or has one of another shape (of VGG-16 at the network's width),
            or the network has no scaling of VGG's.
    """

    def fail(problem: str) -> BadModel:
        return BadModel(f"The VGG-16 weights {path} were not loaded: {problem}.")

    scaling = network.arguments["input_scaling"]
    if scaling not in COLOURS:
        raise fail(f"the network's input scaling must be the file's own, {' or '.join(c for c in COLOURS)}, not {scaling}")
    tensors = _converted(_read(path, fail), fail)
    expected = {key: value for key, value in network.state_dict().items() if not key.startswith("score")}
    first = "blocks.0.0.weight"
    for key, value in expected.items():
        shape = (value.shape[0], 3, *value.shape[2:]) if key == first else value.shape
        if tuple(tensors[key].shape) != tuple(shape):
            width = network.arguments["width"]
            raise fail(
                f"{key} should be {tuple(shape)} at the network's width {width:g}, and the file's is {tuple(tensors[key].shape)}. "
                "VGG-16 without batch normalisation is needed, at width 1"
            )
        if not torch.isfinite(tensors[key]).all():
            raise fail(f"{key} has values that are not finite")
    tensors[first], tensors["blocks.0.0.bias"] = adapt_first_layer(
        tensors[first], tensors["blocks.0.0.bias"], scaling, network.arguments["in_channels"]
    )
    network.load_state_dict(tensors, strict=False)


def adapt_first_layer(weight: Tensor, bias: Tensor, scaling: str, in_channels: int) -> tuple[Tensor, Tensor]:
    """The first convolution for `in_channels` channels of grey scaling, from one for three colours (64, 3, 3, 3).

    With m, s the mean and deviation of a colour and m', s' those of grey, w·(x − m)/s = (w·s'/s)·z + w·(m' − m)/s for
    z = (x − m')/s'.
    """
    means, deviations, grey_mean, grey_deviation = COLOURS[scaling]
    mean = torch.tensor(means)[None, :, None, None]
    deviation = torch.tensor(deviations)[None, :, None, None]
    bias = bias + (weight * (grey_mean - mean) / deviation).sum(dim=(1, 2, 3))
    weight = weight * grey_deviation / deviation
    if in_channels != 3:
        weight = weight.sum(dim=1, keepdim=True).expand(-1, in_channels, -1, -1) / in_channels
    return weight.contiguous(), bias


def _read(path: Path, fail: Callable[[str], BadModel]) -> dict[str, Tensor]:
    """The file's tensors as float32 on the CPU."""
    if not Path(path).is_file():
        raise fail("there is no such file")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile and pickle each raise kinds of their own
        raise fail(f"it is no safetensors file and no state dictionary that loads with weights_only ({error})") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise fail("it holds something else than a dictionary of tensors; save the model's state_dict()")
    return {str(key): value.float() for key, value in tensors.items()}


def _converted(tensors: dict[str, Tensor], fail: Callable[[str], BadModel]) -> dict[str, Tensor]:
    """The network's names and shapes for those of the file's tensors that it takes."""
    sources: dict[str, str] = {}
    place = 0  # torchvision counts ReLUs and poolings too
    for block, filters in enumerate(VGG_FILTERS):
        for n in range(len(filters)):
            sources[f"blocks.{block}.{n}"] = f"features.{place}"
            place += 2
        place += 1
    fc6, fc7 = next((names for names in CLASSIFIERS if f"{names[0]}.weight" in tensors), CLASSIFIERS[0])
    sources |= {"fc6": fc6, "fc7": fc7}
    converted = {}
    for mine, theirs in sources.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" not in tensors:
                raise fail(f"{theirs}.{kind} is missing")
            converted[f"{mine}.{kind}"] = tensors[f"{theirs}.{kind}"]
    for key, size in (("fc6.weight", 7), ("fc7.weight", 1)):
        value = converted[key]
        if value.dim() == 2 and value.shape[1] % size**2 == 0:
            converted[key] = value.reshape(len(value), -1, size, size)
    return converted
