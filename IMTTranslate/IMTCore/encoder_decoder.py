"""The convolutional encoder-decoder of Avula, "Medical Image Translation Using Convolutional Neural Networks".

Avula names the source, Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation" (FCN),
and publishes no table of layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import SliceNorm, encoder_filters


def _norm(kind: str, channels: int) -> nn.Module:
    return SliceNorm(channels) if kind == "instance" else nn.Identity()


class EncoderDecoder(nn.Module):
    """FCN for images: VGG-16's blocks down, a fully convolutional bottleneck, learned upsampling with fused skips.

    From FCN-8s on VGG-16: `depth` blocks of two (the first two blocks) or three 3×3 convolutions and ReLU with 64, 128,
    256, 512, 512 filters, each ended by 2×2 max-pooling; two layers in the place of fc6 and fc7; deconvolutions with 4×4
    kernels and stride 2; 1×1 "score" convolutions of the last pooled maps before the deepest, added to the upsampled map of
    their size (two: pool4 and pool3). 32,023,425 parameters with the defaults.

    Ours, since FCN gives class scores and Avula's changes are not published: fc6 is 3×3 and both have 16 · `filters`
    filters (7×7 and 4096 in FCN, with dropout); a decoder step keeps the width of the encoder's block of its size, not one
    channel a class; FCN's last step of ×8 is three learned steps of ×2; a 1×1 convolution and tanh end in [-1, 1]; each
    convolution but the bottleneck's is normalised over its slice, as FCN's start from ImageNet's weights is missing;
    padding keeps sizes, FCN's padding by 100 is left out.

    Args:
        in_channels, out_channels: channels of input and output.
        filters: filters of the first block.
        depth: number of blocks; height and width must be multiples of 2**depth.
        skips: fused pooled maps: 2 as in FCN-8s, 1 as in FCN-16s, 0 as in FCN-32s.
        norm: "instance" (batch normalisation one slice at a time) or "none", as in FCN.
    """

    works_on = "slices"
    dropout = 0.0
    dropout_blocks = 0

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: int = 64,
        depth: int = 5,
        skips: int = 2,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError("depth must be at least 2")
        if norm not in ("instance", "none"):
            raise ValueError(f"norm must be 'instance' or 'none', not {norm!r}")
        widths = encoder_filters(filters, depth)
        self.stride = 2**depth
        self.blocks = nn.ModuleList()
        for n, width in enumerate(widths):
            layers: list[nn.Module] = []
            for m in range(2 if n < 2 else 3):
                previous = width if m else widths[n - 1] if n else in_channels
                layers += [
                    nn.Conv2d(previous, width, 3, padding=1, bias=norm == "none"),
                    _norm(norm, width),
                    nn.ReLU(inplace=True),
                ]
            self.blocks.append(nn.Sequential(*layers))
        wide = 16 * filters
        self.bottleneck = nn.Sequential(
            nn.Conv2d(widths[-1], wide, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(wide, wide, 1)
        )
        self.upsamplings, self.scores, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for n in range(depth):
            width = widths[max(depth - 2 - n, 0)]
            previous = widths[depth - 1 - n] if n else wide
            self.upsamplings.append(nn.ConvTranspose2d(previous, width, 4, 2, 1, bias=norm == "none"))
            self.norms.append(_norm(norm, width))
            if n < min(skips, depth - 1):
                self.scores.append(nn.Conv2d(width, width, 1, bias=False))
        self.head = nn.Conv2d(filters, out_channels, 1)
        self._initialise()

    def _initialise(self) -> None:
        """He et al. 2015: activations keep their size through ReLU. Uniform: it costs nothing on the "meta" device."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                inputs = module.in_channels * module.kernel_size[0] * module.kernel_size[1] / module.stride[0] ** 2
                gain = 1.0 if module is self.head else 2.0
                bound = (3 * gain / inputs) ** 0.5
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Translate (n, in_channels, h, w) in [-1, 1] to (n, out_channels, h, w) in [-1, 1]."""
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """The pooled maps that the decoder fuses, the largest first, and the bottleneck's output."""
        pooled: list[Tensor] = []
        for block in self.blocks:
            x = F.max_pool2d(block(x), 2)
            pooled.append(x)
        fused = pooled[len(pooled) - 1 - len(self.scores) : -1]
        return [*fused, self.bottleneck(x)]

    def decode(self, features: Sequence[Tensor], masks: Sequence[Tensor] | None = None) -> Tensor:
        """From the encoder's features to the image. `masks` is there for what runs any generator: there is no dropout."""
        x = features[-1]
        for n, (upsampling, norm) in enumerate(zip(self.upsamplings, self.norms, strict=True)):
            x = upsampling(F.relu(x))
            if n < len(self.scores):
                x = x + self.scores[n](features[-2 - n])
            x = norm(x)
        return torch.tanh(self.head(F.relu(x)).float())

    def dropout_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """No dropout, no masks."""
        return []

    def keep_output(self, channel: int) -> None:
        """Keep one of the outputs and drop the others; it changes no number of the one that stays."""
        kept = nn.Conv2d(self.head.in_channels, 1, 1, device="meta")
        kept.weight = nn.Parameter(self.head.weight.detach()[channel : channel + 1].clone())
        kept.bias = nn.Parameter(self.head.bias.detach()[channel : channel + 1].clone())
        self.head = kept
