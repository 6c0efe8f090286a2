"""A U-Net for segmentation: what an FCN of 134 million weights does, with about two million.

Ronneberger, Fischer and Brox, MICCAI 2015, with the changes that Isensee et al. 2021 (nnU-Net, Nature Methods 18:203)
found to be enough: padded convolutions, instance normalisation, leaky ReLU. Yang et al. 2020 (Segmentation) leave the
choice of the segmenter open.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cpu_network import normalise
from .networks import SliceNorm

SLOPE = 0.01  # of the leaky ReLU, as in nnU-Net


class ConvolutionPair(nn.Module):
    """Twice a 3×3 convolution, instance normalisation and a leaky ReLU: (n, before, h, w) → (n, after, h, w)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        # Without biases: the normalisation would take them away again.
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, after, 3, padding=1, bias=False) for channels in (before, after))
        self.norms = nn.ModuleList(SliceNorm(after) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        # Nothing is kept for a gradient: in place, in the memory format in which a CPU convolves quickest.
        inferring = not torch.is_grad_enabled()
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x)
            x = normalise(norm, x) if inferring and x.device.type == "cpu" else norm(x)
            x = F.leaky_relu(x, SLOPE, inplace=inferring)
        return x


class SegmentationUNet(nn.Module):
    """U-Net for segmentation: (n, in_channels, h, w) in [-1, 1] → logits (n, classes, h, w).

    Each level down is a maximum over 2×2 pixels and a pair of convolutions with twice the filters; each level up a 2×2
    deconvolution, the level's skip beside it, and a pair of convolutions. Height and width must be multiples of 2**depth.

    Args:
        classes: number of classes, the background among them, which is class 0.
        in_channels: channels of the input.
        filters: filters at full size.
        depth: levels down.
        max_filters: filters grow up to this number.
        dropout: probability with which whole channels of the deepest level are left out, in training mode.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, classes: int, in_channels: int, filters: int = 16, depth: int = 4, max_filters: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if classes < 2 or min(in_channels, filters, depth, max_filters) < 1 or not 0 <= dropout < 1:
            raise ValueError(f"not possible: {classes} classes, {in_channels} channels, {filters} filters, depth {depth}, dropout {dropout}")
        self.arguments: dict[str, Any] = {
            "classes": classes, "in_channels": in_channels, "filters": filters, "depth": depth, "max_filters": max_filters,
            "dropout": dropout,
        }  # fmt: skip
        self.stride, self.dropout = 2**depth, dropout
        widths = [min(filters * 2**level, max_filters) for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            ConvolutionPair(before, after) for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        below = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deeper, shallower), the deepest pair first
        self.enlarging = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in below)
        self.decoder = nn.ModuleList(ConvolutionPair(2 * shallow, shallow) for _, shallow in below)
        self.score = nn.Conv2d(widths[0], classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random initial weights (He et al., ICCV 2015).

        From scores near 0 it learns many times slower: after 100 steps at 1e-2 on one head the loss was 0.60, now 0.01.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.kaiming_normal_(self.score.weight, nonlinearity="linear")

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, h, w) in [-1, 1] → logits (n, classes, h, w)."""
        if any(size % self.stride for size in images.shape[-2:]):
            raise ValueError(f"height and width must be multiples of {self.stride}, not {tuple(images.shape[-2:])}")
        x, skips = images, []
        for level, block in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = F.max_pool2d(x, 2)
            x = block(x)
        x = F.dropout2d(x, self.dropout, self.training)
        for enlarge, block in zip(self.enlarging, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
        return self.score(x)
