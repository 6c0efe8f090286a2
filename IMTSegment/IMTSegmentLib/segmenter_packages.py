"""Load and save segmentation models as packages: `<name>.safetensors` beside `<name>.json`, checked as translators are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from IMTCore.model_packages import load_network, save_package

from .segmenter_cards import SegmenterCard, check_segmenter_card, read_segmenter_card


def load_segmenter(card: SegmenterCard, content: bytes | None = None) -> nn.Module:
    """The card's network with its weights, float32, in evaluation mode, on the CPU.

    Args:
        content: what `IMTCore.weights_file.read_weights_file` gave for the card, if it was called before.

    Raises:
        BadModel: weights missing, damaged, or not the network's.
    """
    return load_network(card, content)


def save_segmenter(folder: Path, card: dict[str, Any], network: nn.Module, dtype: torch.dtype = torch.float16) -> SegmenterCard:
    """Write a package: the weights in `dtype`, and the card with their file, size and hash filled in.

    Args:
        folder: where to put `<name>.safetensors` and `<name>.json`.
        card: the card's content; `weights` needs only the licence.
        network: the trained network.

    Raises:
        BadModel: if the card is not valid (nothing is written) or a weight does not fit `dtype`.
    """
    return save_package(folder, card, network, dtype, check=check_segmenter_card, read=read_segmenter_card)
