"""FCN-32s, FCN-16s and FCN-8s on VGG-16 (Long, Shelhamer and Darrell, CVPR 2015; Shelhamer et al., TPAMI 2017).

Yang et al. 2020 use FCN-8s twice: as the judge of translated images (Evaluation metrics, FCN-score) and to segment from
a given and a translated modality (Cross-modality segmentation). Layer for layer these are the authors' Caffe networks:
padding of 100 pixels before the first convolution, pooling that rounds up, the classifier's layers as a 7×7 and a 1×1
convolution, and fixed bilinear deconvolutions followed by crops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fcn_arguments import INPUT_SCALINGS, VARIANTS, check_arguments

VGG_FILTERS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CLASSIFIER_FILTERS = 4096
# Factors of pool4 and pool3 where the skips are trained at once with the rest (voc-fcn8s-atonce).
SKIP_SCALES = {"score_pool4": 0.01, "score_pool3": 0.0001}
# Where the finer grid begins in the coarser one's deconvolution, by padding: Caffe's Crop layer. `skip`: of the
# skip's scores in the deconvolution's frame at pool4 and pool3 (padding 100), of the deconvolution in the skip's (0).
CROPS: dict[int, dict[str, int]] = {
    100: {"score_pool4": 5, "score_pool3": 9, "32s": 19, "16s": 27, "8s": 31},
    0: {"score_pool4": 1, "score_pool3": 1, "32s": 16, "16s": 8, "8s": 4},
}


class FCN(nn.Module):
    """Fully convolutional network for segmentation: (n, in_channels, h, w) in [-1, 1] → logits (n, classes, h, w).

    134,260,544 parameters on three channels and width 1, and 4,097 more a class (32s), 4,610 (16s) or 4,867 (8s): 134.3
    million. The deconvolutions are fixed and have none.

    Args:
        classes: number of classes, the background among them.
        in_channels: channels of the input.
        variant: "32s", "16s" (with pool4's scores) or "8s" (with pool4's and pool3's).
        width: factor of all layers' filters; 1 is VGG-16.
        padding: 100 as in the original, which then takes any size; 0 is VGG's own padding, with fc6 padded by 3 and the
            input padded to a multiple of 32: on 256×256 pixels at 38 % of the multiplications.
        skip_scaling: scale pool4 by 0.01 and pool3 by 0.0001, for training all at once; off for training by stages.
        input_scaling: a key of INPUT_SCALINGS: what the first convolution takes; "none" is [-1, 1] itself.
        dropout: probability after fc6 and fc7, in training mode.

    Raises:
        ValueError: if an argument is out of BOUNDS or not among CHOICES.
    """

    def __init__(
        self,
        classes: int,
        in_channels: int = 3,
        variant: str = "8s",
        width: float = 1.0,
        padding: int = 100,
        skip_scaling: bool = False,
        input_scaling: str = "none",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "classes": classes, "in_channels": in_channels, "variant": variant, "width": width, "padding": padding,
            "skip_scaling": skip_scaling, "input_scaling": input_scaling, "dropout": dropout,
        }  # fmt: skip
        check_arguments(self.arguments)
        self.variant, self.padding, self.dropout = variant, padding, dropout
        self.scale, self.shift = INPUT_SCALINGS[input_scaling]
        self.skip_scales = SKIP_SCALES if skip_scaling else dict.fromkeys(SKIP_SCALES, 1.0)
        self.blocks = nn.ModuleList()
        previous = in_channels
        for filters in VGG_FILTERS:
            block = nn.ModuleList()
            for number in filters:
                first = padding if padding and len(self.blocks) == len(block) == 0 else 1
                block.append(nn.Conv2d(previous, _scaled(number, width), 3, padding=first))
                previous = _scaled(number, width)
            self.blocks.append(block)
        wide = _scaled(CLASSIFIER_FILTERS, width)
        self.fc6 = nn.Conv2d(previous, wide, 7, padding=0 if padding else 3)
        self.fc7 = nn.Conv2d(wide, wide, 1)
        self.score = nn.Conv2d(wide, classes, 1)
        if variant != "32s":
            self.score_pool4 = nn.Conv2d(_scaled(VGG_FILTERS[3][-1], width), classes, 1)
        if variant == "8s":
            self.score_pool3 = nn.Conv2d(_scaled(VGG_FILTERS[2][-1], width), classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, h, w) in [-1, 1] → logits (n, classes, h, w)."""
        height, width = images.shape[-2:]
        x = images * self.scale + self.shift
        if not self.padding:
            x = F.pad(x, (0, -width % 32, 0, -height % 32))
        pools = []
        for block in self.blocks:
            for convolution in block:
                x = F.relu(convolution(x))
            x = F.max_pool2d(x, 2, ceil_mode=True)
            pools.append(x)
        x = F.dropout(F.relu(self.fc6(x)), self.dropout, self.training)
        x = F.dropout(F.relu(self.fc7(x)), self.dropout, self.training)
        x = self.score(x)
        if self.variant != "32s":
            x = self._add_skip(x, pools[3], "score_pool4")
        if self.variant == "8s":
            x = self._add_skip(x, pools[2], "score_pool3")
        x = bilinear_deconvolution(x, int(self.variant[:-1]))
        return _crop(x, (height, width), CROPS[self.padding][self.variant])

    def _add_skip(self, x: Tensor, pool: Tensor, layer: str) -> Tensor:
        """Twice the size, plus the scores of a pooling layer."""
        x = bilinear_deconvolution(x, 2)
        skip = getattr(self, layer)(pool * self.skip_scales[layer])
        start = CROPS[self.padding][layer]
        if self.padding:
            return x + _crop(skip, x.shape[-2:], start)
        return _crop(x, skip.shape[-2:], start) + skip


def _scaled(filters: int, width: float) -> int:
    return max(1, round(filters * width))


def _crop(x: Tensor, size: tuple[int, int], start: int) -> Tensor:
    return x[..., start : start + size[0], start : start + size[1]]


def bilinear_kernel(factor: int) -> Tensor:
    """The (2·factor, 2·factor) weights of a deconvolution that interpolates linearly, for an even factor; sum factor²."""
    places = torch.arange(2 * factor, dtype=torch.float32)
    line = 1 - (places - (factor - 0.5)).abs() / factor
    return line[:, None] * line[None, :]


def bilinear_deconvolution(x: Tensor, factor: int) -> Tensor:
    """Each channel enlarged with fixed weights: (n, c, h, w) → (n, c, (h + 1)·factor, (w + 1)·factor)."""
    kernel = bilinear_kernel(factor).to(x)[None, None]
    n, channels = x.shape[:2]
    enlarged = F.conv_transpose2d(x.flatten(0, 1)[:, None], kernel, stride=factor)
    return enlarged.unflatten(0, (n, channels))[:, :, 0]


def initialise(network: FCN) -> None:
    """Random initial weights (He et al., ICCV 2015), for want of ImageNet's; biases and all scores 0 as in the original."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.bias)
            if name.startswith("score"):
                nn.init.zeros_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def parameter_groups(network: FCN, learning_rate: float = 1e-4, weight_decay: float = 5e-4) -> list[dict[str, Any]]:
    """Groups for an optimiser: weights, and biases at twice the rate without decay (Long et al. 2015, section 4.3).

    The rate 1e-4 is for the mean loss over pixels, with a momentum of 0.99 (Yang et al. 2020, Segmentation).
    """
    named = list(network.named_parameters())
    return [
        {"params": [p for name, p in named if name.endswith("weight")], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [p for name, p in named if name.endswith("bias")], "lr": 2 * learning_rate, "weight_decay": 0.0},
    ]


def load_previous_stage(network: FCN, previous: FCN) -> None:
    """Start FCN-16s from FCN-32s, or FCN-8s from FCN-16s: the new skip's scores are 0, so that it changes nothing yet.

    Raises:
        ValueError: if `previous` is not the stage before, or is another network.
    """
    if VARIANTS.index(network.variant) != VARIANTS.index(previous.variant) + 1:
        raise ValueError(f"FCN-{network.variant} does not start from FCN-{previous.variant}: the order is {', '.join(VARIANTS)}")
    differing = [k for k, v in network.arguments.items() if k not in ("variant", "dropout") and v != previous.arguments[k]]
    if differing:
        raise ValueError(f"the stages differ in {', '.join(differing)}")
    missing = network.load_state_dict(previous.state_dict(), strict=False).missing_keys
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name in missing:
                value.zero_()
