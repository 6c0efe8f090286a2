"""The networks of Yang et al. 2020 (Methods, Network architecture), after Isola et al. 2017 (pix2pix).

Batch normalisation at batch size 1 in training mode, which pix2pix also uses at test time, equals instance
normalisation with the same affine parameters. `SliceNorm` is written in that form, so slices go through in batches
and give the numbers that they give one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-5  # torch.nn.BatchNorm2d's default


class SliceNorm(nn.Module):
    """Batch normalisation over one slice at a time: (n, c, h, w) → the same, with BatchNorm2d's affine parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] * x.shape[-2] == 1:
            # Lua pix2pix normalises its 1×1 bottleneck: a single value minus its mean is 0, and β remains.
            return self.bias[None, :, None, None].expand_as(x)
        if len(x) == 1:  # the same numbers to the bit, and faster: instance_norm copies the parameters first
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, NORM_EPSILON)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=NORM_EPSILON)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "instance":
        return SliceNorm(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=NORM_EPSILON)
    raise ValueError(f"norm must be 'instance' or 'batch', not {kind!r}")


def encoder_filters(filters: int, depth: int, max_multiplier: int = 8) -> list[int]:
    """Filters of the encoder's blocks: 64, 128, 256, 512, 512, … for the paper's 64 and depth 8."""
    return [filters * min(2**n, max_multiplier) for n in range(depth)]


class UNetGenerator(nn.Module):
    """U-Net generator: 4×4 convolutions of stride 2 down, 4×4 deconvolutions up, skips between mirrored blocks.

    Encoder blocks: leaky ReLU 0.2 (not before the first), convolution, norm (not after the first; not after the
    last in the `torch` layout). Decoder blocks: ReLU, deconvolution, norm, dropout in the first `dropout_blocks`;
    the last block ends in tanh. With the defaults it is U-Net-256: 54,407,809 parameters.

    Args:
        in_channels, out_channels: channels of input and output.
        filters: filters of the first block (64 in the paper).
        depth: number of blocks down and up (8 in the paper); height and width must be multiples of 2**depth.
        max_multiplier: filters grow up to this multiple of `filters`.
        dropout_blocks: number of first decoder blocks with dropout, the paper's noise z.
        dropout: dropout probability.
        norm: "instance" (equals batch normalisation at batch size 1 in training mode) or "batch".
        layout: "torch", or "lua": also a norm on the innermost encoder block, and biases, as in the torch7 original.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: int = 64,
        depth: int = 8,
        max_multiplier: int = 8,
        dropout_blocks: int = 3,
        dropout: float = 0.5,
        norm: str = "instance",
        layout: str = "torch",
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError("depth must be at least 2")
        if layout not in ("torch", "lua"):
            raise ValueError(f"layout must be 'torch' or 'lua', not {layout!r}")
        widths = encoder_filters(filters, depth, max_multiplier)
        bias = layout == "lua"
        self.stride = 2**depth
        self.checkpointing = False  # in training, recompute a block's activations rather than keep them
        self.dropout = dropout
        self.dropout_blocks = min(dropout_blocks, depth - 1)
        self.encoder = nn.ModuleList()
        self.encoder_norms = nn.ModuleList()
        for n, width in enumerate(widths):
            previous = in_channels if n == 0 else widths[n - 1]
            self.encoder.append(nn.Conv2d(previous, width, 4, 2, 1, bias=bias))
            plain = n == 0 or (n == depth - 1 and layout == "torch")
            self.encoder_norms.append(nn.Identity() if plain else _norm(norm, width))
        self.decoder = nn.ModuleList()
        self.decoder_norms = nn.ModuleList()
        for n in range(depth):
            level = depth - 1 - n  # the encoder block that this one mirrors
            incoming = widths[level] * (1 if n == 0 else 2)
            last = level == 0
            width = out_channels if last else widths[level - 1]
            self.decoder.append(nn.ConvTranspose2d(incoming, width, 4, 2, 1, bias=bias or last))
            self.decoder_norms.append(nn.Identity() if last else _norm(norm, width))

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Translate (n, in_channels, h, w) in [-1, 1] to (n, out_channels, h, w) in [-1, 1].

        In training mode dropout is random. In evaluation mode it is off, unless `masks` (one tensor a dropout
        block, as `dropout_shapes` says, of factors 0 or 1 / (1 - p)) carry the noise z.
        """
        return self.decode(self.encode(x), masks)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The output of every encoder block, the first block's first."""
        features: list[Tensor] = []
        for n in range(len(self.encoder)):
            x = self._run_block(self._encode_block, n, x)
            features.append(x)
        return features

    def _encode_block(self, n: int, x: Tensor) -> Tensor:
        return self.encoder_norms[n](self.encoder[n](x if n == 0 else F.leaky_relu(x, 0.2)))

    def _decode_block(self, n: int, x: Tensor, skip: Tensor | None, mask: Tensor | None) -> Tensor:
        if skip is not None:
            x = torch.cat([skip, x], dim=1)
        x = self.decoder_norms[n](self.decoder[n](F.relu(x)))
        if n < self.dropout_blocks:
            if mask is not None:
                x = x * mask
            elif self.training:
                x = F.dropout(x, self.dropout, True)
        return x

    def _run_block(self, block: Callable[..., Tensor], *inputs: int | Tensor | None) -> Tensor:
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return block(*inputs)
        from torch.utils.checkpoint import checkpoint

        return checkpoint(block, *inputs, use_reentrant=False)  # dropout draws the same mask the second time

    def decode(self, features: Sequence[Tensor], masks: Sequence[Tensor] | None = None) -> Tensor:
        """From the encoder's features to the image. The noise z enters here alone, so samples share the features."""
        x = features[-1]
        for n in range(len(self.decoder)):
            skip = features[-1 - n] if n > 0 else None
            mask = masks[n] if masks is not None and n < self.dropout_blocks else None
            x = self._run_block(self._decode_block, n, x, skip, mask)
        return torch.tanh(x)

    def keep_output(self, channel: int) -> None:
        """Keep one of the outputs and drop the others; it changes no number of the one that stays."""
        last = self.decoder[-1]
        kept = nn.ConvTranspose2d(last.in_channels, 1, 4, 2, 1, device="meta")
        kept.weight = nn.Parameter(last.weight.detach()[:, channel : channel + 1].clone())
        kept.bias = nn.Parameter(last.bias.detach()[channel : channel + 1].clone())
        self.decoder[-1] = kept

    def dropout_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """The (channels, h, w) of each dropout block's mask for an image of `height` × `width`."""
        shapes = []
        for n in range(self.dropout_blocks):
            scale = 2 ** (len(self.decoder) - 1 - n)
            shapes.append((self.decoder[n].out_channels, height // scale, width // scale))
        return shapes


def dropout_masks(network: UNetGenerator, height: int, width: int, seed: int, sample: int, slices: Sequence[int]) -> list[Tensor]:
    """The noise z of test-time dropout, a function of (seed, sample, slice) alone: never of the batch or the device.

    Args:
        network: the generator.
        height, width: size of its input image.
        seed: the run's seed, ≥ 0.
        sample: number of the sample, from 0.
        slices: the slices of the batch, by their index in the anatomical orientation.

    Returns:
        One float32 tensor (len(slices), channels, h, w) a dropout block, of 0 and 1 / (1 - p).
    """
    import numpy as np

    keep = 1.0 - network.dropout
    shapes = network.dropout_shapes(height, width)
    blocks: list[list[Tensor]] = [[] for _ in shapes]
    for k in slices:
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, sample, k])))
        for block, shape in zip(blocks, shapes, strict=True):
            block.append(torch.from_numpy((random.random(shape, dtype=np.float32) < keep).astype(np.float32) / keep))
    return [torch.stack(block) for block in blocks]


class PatchDiscriminator(nn.Module):
    """Conditional 70×70 PatchGAN: 4×4 convolutions 64-128-256 (stride 2), 512, 1 (stride 1), leaky ReLU 0.2.

    2,764,609 parameters for two channels in; (n, in_channels, 256, 256) → logits (n, 1, 30, 30). The paper's
    sigmoid is part of the loss (binary cross-entropy on logits).
    """

    def __init__(self, in_channels: int = 2, filters: int = 64, layers: int = 3, norm: str = "instance") -> None:
        super().__init__()
        widths = [filters * min(2**n, 8) for n in range(layers + 1)]
        blocks: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for n in range(1, layers + 1):
            stride = 2 if n < layers else 1
            blocks += [
                nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=False),
                _norm(norm, widths[n]),
                nn.LeakyReLU(0.2),
            ]
        blocks.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, given: Tensor, translated: Tensor) -> Tensor:
        """Logits, one a patch, of `translated` being real, given `given`: both (n, c, h, w)."""
        return self.blocks(torch.cat([given, translated], dim=1))


def initialise(network: nn.Module) -> None:
    """pix2pix's initial weights: convolutions N(0, 0.02), norm weights N(1, 0.02), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, SliceNorm | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
