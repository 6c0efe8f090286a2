"""The two networks of Yang et al. 2020 once more, written from the paper and pix2pix in numpy, without torch.

Convolutions are sums over kernel taps in float64. Slow, plain, and independent of `IMTCore.networks`, from which only
the names of the parameters are taken.
"""

from __future__ import annotations

import numpy as np

Weights = dict[str, np.ndarray]


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, bias: np.ndarray | None = None) -> np.ndarray:
    """Cross-correlation of (c, h, w) with (out, c, 4, 4), zero padding 1."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    size = weight.shape[2]
    height, width = ((n - size) // stride + 1 for n in padded.shape[1:])
    result = np.zeros((weight.shape[0], height, width))
    for a in range(size):
        for b in range(size):
            seen = padded[:, a : a + stride * height : stride, b : b + stride * width : stride]
            result += np.tensordot(weight[:, :, a, b], seen, axes=(1, 0))
    return result if bias is None else result + bias[:, None, None]


def deconvolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Transposed convolution of (c, h, w) with (c, out, 4, 4), stride 2, padding 1: every pixel stamps the kernel."""
    _, height, width = x.shape
    canvas = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
    for a in range(4):
        for b in range(4):
            stamp = np.tensordot(weight[:, :, a, b], x, axes=(0, 0))
            canvas[:, a : a + 2 * height : 2, b : b + 2 * width : 2] += stamp
    result = canvas[:, 1:-1, 1:-1]
    return result if bias is None else result + bias[:, None, None]


def normalise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Each channel of one slice to mean 0 and variance 1 (biased, ε = 1e-5), then scale and shift."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(1, 2), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weight[:, None, None] + bias[:, None, None]


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def generator(weights: Weights, x: np.ndarray, depth: int, masks: list[np.ndarray] | None = None) -> np.ndarray:
    """U-Net of (channels, h, w): `depth` blocks down and up; `masks` multiply the first decoder blocks' outputs."""

    def norm(y: np.ndarray, name: str) -> np.ndarray:
        return normalise(y, weights[f"{name}.weight"], weights[f"{name}.bias"]) if f"{name}.weight" in weights else y

    down = []
    for n in range(depth):
        given = x if n == 0 else leaky(down[-1])
        y = convolve(given, weights[f"encoder.{n}.weight"], 2, weights.get(f"encoder.{n}.bias"))
        down.append(norm(y, f"encoder_norms.{n}"))
    y = down[-1]
    for n in range(depth):
        given = y if n == 0 else np.concatenate([down[depth - 1 - n], y])
        y = deconvolve(np.maximum(given, 0), weights[f"decoder.{n}.weight"], weights.get(f"decoder.{n}.bias"))
        y = norm(y, f"decoder_norms.{n}")
        if masks is not None and n < len(masks):
            y = y * masks[n]
    return np.tanh(y)


def discriminator(weights: Weights, given: np.ndarray, translated: np.ndarray) -> np.ndarray:
    """70×70 PatchGAN of two (c, h, w): logits (1, h', w')."""
    y = np.concatenate([given, translated])
    y = leaky(convolve(y, weights["blocks.0.weight"], 2, weights["blocks.0.bias"]))
    for conv, norm, stride in ((2, 3, 2), (5, 6, 2), (8, 9, 1)):
        y = convolve(y, weights[f"blocks.{conv}.weight"], stride)
        y = leaky(normalise(y, weights[f"blocks.{norm}.weight"], weights[f"blocks.{norm}.bias"]))
    return convolve(y, weights["blocks.11.weight"], 1, weights["blocks.11.bias"])
