"""The generator rearranged for inference on a CPU: the same numbers up to rounding, in less time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import NORM_EPSILON, SliceNorm, UNetGenerator

# Images at least this wide go through convolutions channels last, in which oneDNN needs not rearrange them; in narrower
# ones the weights are what is large, and they are quicker in the plain layout.
MIN_CHANNELS_LAST_WIDTH = 32


def layout_of(width: int) -> torch.memory_format:
    """The memory format in which images of this width are convolved."""
    return torch.channels_last if width >= MIN_CHANNELS_LAST_WIDTH else torch.contiguous_format


def in_layout(x: Tensor) -> Tensor:
    """`x` (n, c, h, w) in the memory format of its width; strides say so even for a single channel."""
    layout = layout_of(x.shape[-1])
    if x.shape[1] > 1:
        return x.contiguous(memory_format=layout)
    return torch.empty(x.shape, dtype=x.dtype, memory_format=layout).copy_(x)


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(x)`, in the memory format of `x`, which it may overwrite."""
    if not isinstance(norm, SliceNorm) or x.is_contiguous():
        return norm(x)
    for n in range(len(x)):  # a batch of one: batch normalisation is then the slice's own, and knows channels last
        image = x[n : n + 1]
        image.copy_(torch.native_batch_norm(image, norm.weight, norm.bias, None, None, True, 0.0, NORM_EPSILON)[0])
    return x


def subpixel_kernel(weight: Tensor) -> Tensor:
    """A 4×4 stride-2 padding-1 deconvolution as an ordinary 2×2 convolution with four times the outputs.

    Output pixel (2y + a, 2x + b) of the deconvolution sees a 2×2 patch of the input alone, so each of the four phases
    (a, b) is a 2×2 convolution (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?").

    Args:
        weight: (in, out, 4, 4), as in `torch.nn.ConvTranspose2d`.

    Returns:
        (4 · out, in, 2, 2); phase-major: a, then b, then output channel.
    """
    inputs, outputs = weight.shape[:2]
    # Phase 0 sees the pixel before through tap 3 and the pixel itself through tap 1; phase 1 the pixel (2) and the next (0).
    taps = weight.flip(2, 3).view(inputs, outputs, 2, 2, 2, 2)
    return taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2)


def subpixel_deconvolution(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The deconvolution of `subpixel_kernel`: (n, in, h, w) → (n, out, 2h, 2w), channels last if `x` is."""
    n, _, height, width = x.shape
    outputs = kernel.shape[0] // 4
    phases = F.conv2d(x, kernel, None, 1, 1)
    if layout_of(width) == torch.channels_last:
        phases = phases.permute(0, 2, 3, 1).reshape(n, height + 1, width + 1, 2, 2, outputs)
        result = x.new_empty(n, height, 2, width, 2, outputs)
        for a in (0, 1):
            for b in (0, 1):
                result[:, :, a, :, b] = phases[:, a : a + height, b : b + width, a, b]
        result = result.view(n, 2 * height, 2 * width, outputs).permute(0, 3, 1, 2)
    else:
        phases = phases.view(n, 2, 2, outputs, height + 1, width + 1)
        result = x.new_empty(n, outputs, height, 2, width, 2)
        for a in (0, 1):
            for b in (0, 1):
                result[:, :, :, a, :, b] = phases[:, a, b, :, a : a + height, b : b + width]
        result = result.view(n, outputs, 2 * height, 2 * width)
    return result if bias is None else result.add_(bias[None, :, None, None])


class CpuGenerator(nn.Module):
    """A `UNetGenerator` in evaluation mode for a CPU, with its convolutions in `dtype`.

    Weights are converted once instead of at every batch, deconvolutions become convolutions, for which CPUs have the
    better kernels, and activations are computed in place. Normalisation stays in float32.

    Args:
        network: the generator to take over; it must not be used afterwards.
        dtype: number type of the convolutions.
    """

    def __init__(self, network: UNetGenerator, dtype: torch.dtype) -> None:
        super().__init__()
        self.dropout, self.dropout_blocks, self.stride = network.dropout, network.dropout_blocks, network.stride
        self.dtype = dtype
        # Of an image of one stride: numbers, since a bound method would keep the whole old network in memory.
        self.unit_shapes = network.dropout_shapes(network.stride, network.stride)
        self.encoder = network.encoder.to(dtype).requires_grad_(False)
        self.encoder_norms, self.decoder_norms = network.encoder_norms.float(), network.decoder_norms.float()
        self.kernels = [subpixel_kernel(block.weight.detach().to(dtype)) for block in network.decoder]
        self.biases = [None if block.bias is None else block.bias.detach().to(dtype) for block in network.decoder]

    def dropout_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """As `UNetGenerator.dropout_shapes`."""
        return [(c, h * height // self.stride, w * width // self.stride) for c, h, w in self.unit_shapes]

    def encode(self, x: Tensor) -> list[Tensor]:
        """As `UNetGenerator.encode`."""
        features: list[Tensor] = []
        x = x.to(self.dtype)
        for n, (conv, norm) in enumerate(zip(self.encoder, self.encoder_norms, strict=True)):
            # In place, though the skip is meant to be without activation: the decoder's ReLU gives the same for both.
            x = normalise(norm, conv(in_layout(x if n == 0 else F.leaky_relu_(x, 0.2))))
            features.append(x)
        return features

    def decode(self, features: Sequence[Tensor], masks: Sequence[Tensor] | None = None) -> Tensor:
        """As `UNetGenerator.decode`."""
        x = F.relu(features[-1])
        for n, (kernel, bias, norm) in enumerate(zip(self.kernels, self.biases, self.decoder_norms, strict=True)):
            if n > 0:
                x = torch.cat([features[-1 - n], in_layout(x)], dim=1).relu_()
            x = normalise(norm, subpixel_deconvolution(in_layout(x), kernel, bias))
            if masks is not None and n < self.dropout_blocks:
                x = x * masks[n].to(x.dtype)
        return torch.tanh(x.float())

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """As `UNetGenerator.forward` in evaluation mode."""
        return self.decode(self.encode(x), masks)
