"""How many threads a training computes with on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn

# Below this many multiply-adds an image, threads wait for each other longer than they compute: with 16 filters and slices
# of 128 × 128 (0.09e9), two threads made 16 to 20 steps a second and one made 25; with 64 filters and 256 × 256 (6e9) two won.
SMALL = 5e8


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> float:
    """Multiply-adds of the convolutions in one pass over an input of this shape; nothing is computed."""
    total = 0.0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        # Each weight meets each pixel once: of the output, or of the input where the convolution is transposed.
        met = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += module.weight.numel() * met.shape[0] * met.shape[2:].numel()

    network = network.to("meta")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    network(torch.empty(shape, device="meta"))
    return total


def choose_threads(network: nn.Module, shape: Sequence[int]) -> int:
    """1 for a small network, else as many as torch takes; `OMP_NUM_THREADS` goes over it.

    Args:
        network: a generator on slices; it is not usable afterwards.
        shape: of one input, (1, channels, rows, columns).
    """
    if "OMP_NUM_THREADS" in os.environ or multiply_adds(network, shape) >= SMALL:
        return torch.get_num_threads()
    return 1
