"""Context-Aware GAN: 3D patches, an adversary, and auto-context stages.

D. Nie et al., "Medical Image Synthesis with Context-Aware Generative Adversarial Networks", MICCAI 2017 (arXiv 1612.05362);
the rival "CA-GAN" of Yang et al. 2020, Table 1. `layout="code"` follows the authors' code (github.com/ginobilinie/medSynthesis,
3dganversion/g_model.py), "paper" the paper; for its kernels, discriminator and λ' see also the re-implementation
github.com/bodokaiser/mrtoct-tensorflow (gan/synthesis.py, issue 2). No code is copied.

The generator's loss is L2 + λ GDL + λ' BCE (adversarial) with λ = 1; the paper has λ' = 0.5, the code 0.05. The code's L2
and GDL are sums over a patch's voxels, L2 halved. With means, as here, the code's balance in a patch of 16³ is
L2 : GDL (in 2D) : BCE = 1 : 2 : 0.1 / 16³.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .devices import is_out_of_memory
from .errors import Cancelled
from .progress import never, quiet

BACKGROUND = -1.0
NORM_EPSILON = 1e-5
# Per layer: edge of the kernel, and filters as multiples of the first layer's. The last layer has one filter an output.
KERNELS = {"paper": (9, 3, 3, 3, 9, 3, 3, 7, 3), "code": (9, 3, 3, 3, 9, 3, 3, 3, 3)}
MULTIPLES = {"paper": (1, 1, 1, 2, 2, 2, 1, 1), "code": (1, 1, 1, 1, 2, 2, 2, 1)}
UNPADDED_KERNEL = 9
BLOCK, SMALLEST_BLOCK = 64, 16



class RunningNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) of (n, c, k, j, i), in evaluation mode by running statistics.

    It is `BatchNorm3d` without its counter of batches, an integer that a file of weights may not hold.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, NORM_EPSILON)


class ContextGenerator(nn.Module):
    """3D fully convolutional generator: nine layers of convolution, batch normalisation and ReLU; no pooling.

    Kernels 9³-3³-3³-3³-9³-3³-3³-7³-3³, filters 32-32-32-64-64-64-32-32-1; 3,638,593 parameters for one channel. The two
    9³ layers are not padded, so a patch of 32³ gives its inner 16³; a voxel sees 35³ (`layout="code"`: eighth kernel
    3³, filters 32-32-32-32-64-64-64-32-1, 31³). The last layer is linear, as published. Ours: a norm has a scale and a
    shift, its convolution no bias (the code has a bias, which the norm cancels, and a norm without scale and shift).

    Args:
        in_channels: 1, or 2 for a later auto-context stage: the image and the stage before's translation.
        out_channels: channels of the output.
        filters: filters of the first layer.
        layout: "paper" or "code".

    Attributes:
        works_on, stride: it takes whole volumes, of any size.
        margin: voxels that each side of a patch loses on the way: 8.
        radius: how far a voxel sees: 17.
    """

    works_on = "volume"
    stride = 1

    def __init__(self, in_channels: int = 1, out_channels: int = 1, filters: int = 32, layout: str = "paper") -> None:
        super().__init__()
        if layout not in KERNELS:
            raise ValueError(f"layout must be 'paper' or 'code', not {layout!r}")
        kernels = KERNELS[layout]
        widths = [in_channels, *(filters * m for m in MULTIPLES[layout]), out_channels]
        self.in_channels = in_channels
        self.radius = sum(size // 2 for size in kernels)
        self.margin = sum(size // 2 for size in kernels if size == UNPADDED_KERNEL)
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for n, size in enumerate(kernels):
            last = n == len(kernels) - 1
            padding = 0 if size == UNPADDED_KERNEL else size // 2
            self.convolutions.append(nn.Conv3d(widths[n], widths[n + 1], size, padding=padding, bias=last))
            if not last:
                self.norms.append(RunningNorm(widths[n + 1]))
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """From patches (n, in_channels, k, j, i) in [-1, 1] to their inner voxels (n, out_channels, k - 16, j - 16, i - 16).

        The output is not bounded; `translate_volume` clips it.
        """
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            x = F.relu(norm(convolution(x)), inplace=True)
        return self.convolutions[-1](x)

    def translate_volume(
        self,
        images: Tensor,
        spacing_kji: tuple[float, float, float],
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
        context: Tensor | None = None,
        block: int = BLOCK,
    ) -> Tensor:
        """Translate a volume in overlapping blocks; the result is that of one pass over the whole.

        Args:
            images: float32 [k, rows, columns] in [-1, 1], background -1, which is also what lies around the volume.
            spacing_kji: mm, as every network for volumes is told. This one sees voxels: train it at the same spacing.
            progress: told how many of the k slices are done, by share of the work.
            cancelled: asked between blocks.
            context: of the shape of `images`, the stage before's translation, for a generator with two channels.
            block: edge of the blocks in voxels; halved while the device's memory is full.

        Returns:
            The translation of the shape of `images`, in [-1, 1].

        Raises:
            Cancelled: if `cancelled` says so. ValueError: if the number of channels is not the generator's.
        """
        channels = images[None] if context is None else torch.stack([images, context])
        if len(channels) != self.in_channels:
            raise ValueError(f"the generator takes {self.in_channels} channels, not {len(channels)}")
        return _in_blocks(self, channels, block, lambda share: progress(int(share * len(images))), cancelled)


class ContextCascade(nn.Module):
    """Generators in a row (Nie et al. 2017, auto-context model): each but the first also sees the one before's translation.

    Args:
        in_channels, out_channels: 1 and 1.
        filters, layout: as in `ContextGenerator`.
        stages: number of generators, trained one after the other.
    """

    works_on = "volume"
    stride = 1

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, filters: int = 32, stages: int = 1, layout: str = "paper"
    ) -> None:
        super().__init__()
        if (in_channels, out_channels) != (1, 1) or stages < 1:
            raise ValueError("a cascade takes one channel, gives one, and has at least one stage")
        self.generators = nn.ModuleList(ContextGenerator(1 if n == 0 else 2, 1, filters, layout) for n in range(stages))

    def translate_volume(
        self,
        images: Tensor,
        spacing_kji: tuple[float, float, float],
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> Tensor:
        """The last stage's translation. Arguments, result and errors as `ContextGenerator.translate_volume`."""
        translation: Tensor | None = None
        for n, generator in enumerate(self.generators):
            before = n * len(images)

            def count(done: int, before: int = before) -> None:
                progress((before + done) // len(self.generators))

            translation = generator.translate_volume(images, spacing_kji, count, cancelled, translation)
        return translation


class ContextDiscriminator(nn.Module):
    """Tells real patches from translated ones (Nie et al. 2017): a CNN with a fully connected end.

    Three stages of 5³ convolution, norm, ReLU and 2³ max-pooling, a fourth without pooling, filters 32-64-128-256; then
    fully connected layers of 512, 128 and 1; 6,495,841 parameters for patches of 16³. The sigmoid is part of the loss (binary
    cross-entropy on logits). It is not conditional: it sees no source. Ours: features of patches of another size are
    averaged to the 2³ that those of 16³ have.

    Args:
        in_channels: channels of the patches.
        filters: filters of the first layer; the others are in proportion, the fully connected ones too.
    """

    def __init__(self, in_channels: int = 1, filters: int = 32) -> None:
        super().__init__()
        widths = [in_channels, filters, 2 * filters, 4 * filters, 8 * filters]
        self.convolutions = nn.ModuleList(
            nn.Conv3d(a, b, 5, padding=2, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(RunningNorm(width) for width in widths[1:])
        units = [8 * widths[-1], 16 * filters, 4 * filters, 1]
        self.connected = nn.ModuleList(nn.Linear(a, b) for a, b in zip(units, units[1:], strict=False))
        _initialise(self)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (n, 1) of patches (n, in_channels, k, j, i), edges of at least 8 voxels, being real."""
        x = patches
        for n, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.relu(norm(convolution(x)))
            if n < 3:
                x = _halve(x)
        if x.shape[2:] != (2, 2, 2):
            x = F.adaptive_avg_pool3d(x, 2)
        first, second, last = self.connected
        return last(F.relu(second(F.relu(first(x.flatten(1))))))


def gradient_difference(prediction: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
    """Gradient-difference loss (Mathieu et al. 2016; Nie et al. 2017): edges must be as steep as the target's.

    Args:
        prediction, target: (n, c, …) with two or three spatial axes, each of at least 2 pixels.
        power: of the difference of the absolute gradients; 2 in Nie et al., 1 in Mathieu et al.

    Returns:
        The sum over the spatial axes of mean(| |∇target| − |∇prediction| |^power), ∇ the difference of neighbours.
    """
    total = prediction.new_zeros(())
    for axis in range(2, prediction.ndim):
        difference = (target.diff(dim=axis).abs() - prediction.diff(dim=axis).abs()).abs()
        total = total + difference.pow(power).mean()
    return total


def _initialise(network: nn.Module) -> None:
    for module in network.modules():  # Xavier, as in the authors' code
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _halve(x: Tensor) -> Tensor:
    """2³ max-pooling; unlike PyTorch's, its backward pass is deterministic on a GPU."""
    n, c, *shape = x.shape
    k, j, i = (size // 2 for size in shape)
    return x[:, :, : 2 * k, : 2 * j, : 2 * i].reshape(n, c, k, 2, j, 2, i, 2).amax(dim=(3, 5, 7))


def _in_blocks(
    network: ContextGenerator, channels: Tensor, block: int, report: Callable[[float], None], cancelled: Callable[[], bool]
) -> Tensor:
    """`network` over `channels` [c, k, rows, columns] block by block → [k, rows, columns] in [-1, 1]."""
    margin, reach = network.margin, network.radius - network.margin
    device, dtype = network.convolutions[0].weight.device, network.convolutions[0].weight.dtype
    shape = channels.shape[1:]
    padded = F.pad(channels, (margin,) * 6, value=BACKGROUND)
    result = torch.empty(shape, dtype=torch.float32, device=channels.device)
    waiting = _split(tuple((0, size) for size in shape), block)
    done, training = 0, network.training
    network.eval()
    try:
        with torch.inference_mode():
            while waiting:
                if cancelled():
                    raise Cancelled("Cancelled: nothing was written.")
                box = waiting.pop()
                # Seen at least `reach` farther than the box, the padding within the network changes no voxel of it.
                low = [max(0, a - reach) for a, _ in box]
                high = [min(size, b + reach) + 2 * margin for (_, b), size in zip(box, shape, strict=True)]
                seen = padded[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
                values = None
                try:
                    values = network(seen[None].to(device, dtype))[0, 0]
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or max(b - a for a, b in box) <= SMALLEST_BLOCK:
                        raise
                if values is None:  # here, since within `except` the error's traceback still holds the tensors
                    waiting += _split(box, max(b - a for a, b in box) // 2)
                    continue
                inner = tuple(slice(a - start, b - start) for (a, b), start in zip(box, low, strict=True))
                result[tuple(slice(a, b) for a, b in box)] = values[inner].float().clamp_(-1, 1)
                done += values[inner].numel()
                report(done / result.numel())
    finally:
        network.train(training)
    return result


def _split(box: Sequence[tuple[int, int]], block: int) -> list[tuple[tuple[int, int], ...]]:
    """A box in parts of much the same size, with edges of at most `block`; the last part first."""
    edges = []
    for a, b in box:
        parts = -(-(b - a) // block)
        bounds = [a + (b - a) * n // parts for n in range(parts + 1)]
        edges.append(list(zip(bounds, bounds[1:], strict=False)))
    return list(product(*edges))[::-1]
