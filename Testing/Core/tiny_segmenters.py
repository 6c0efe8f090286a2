"""Tiny segmentation models to test with: real networks, a few thousand weights, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from IMTCore.cards import ModelCard
from IMTCore.segmentation_unet import SegmentationUNet
from IMTSegmentLib.segmenter_cards import SegmenterCard
from IMTSegmentLib.segmenter_packages import save_segmenter

STRUCTURES = (("CSF", (60, 100, 220)), ("grey matter", (150, 150, 150)), ("white matter", (240, 240, 240)))


def tiny_segmenter_card(
    name: str = "tissue-T1",
    channels: tuple[str, ...] = ("given",),
    translator: ModelCard | None = None,
    codes: tuple[int, ...] = (1, 2, 3),
    mode: str = "spatial",
    planes: tuple[str, ...] = ("axial",),
    **content: Any,
) -> dict[str, Any]:
    """A valid card's content without its weights' file, size and hash, which `save_segmenter` fills in.

    Args:
        channels: each "given" or "second"; the second modality is T2.
        translator: the model that makes the T2 image.
        codes: of the structures, of which there are as many.
        content: keys of the card to add or replace.
    """
    size = {"size": [64, 64]} if mode == "paper" else {}
    second: dict[str, Any] = {"modality": "T2"}
    if translator is not None:
        second["translator"] = {"name": translator.name, "sha256": translator.sha256}
    classes = [{"code": code, "name": text, "colour": list(colour)} for code, (text, colour) in zip(codes, STRUCTURES, strict=False)]
    arguments = {"classes": len(classes) + 1, "in_channels": len(channels), "filters": 4, "depth": 2}
    return {
        "format": 1,
        "kind": "segmentation",
        "name": name,
        "version": "0.1",
        "title": "Tissue from T1, for tests",
        "task": "tissue",
        "source": "T1",
        "channels": list(channels),
        **({"second": second} if "second" in channels else {}),
        "classes": classes,
        "network": {"kind": "unet", "arguments": arguments},
        "slicing": {"plane": planes[0], "planes": list(planes), "mode": mode, **size},
        "percentile": 99.5,
        "weights": {"licence": "CC0-1.0"},
        "training": {"data": ["none: random weights"], "command": "none", "date": "2025-01-01"},
        "metrics": [],
        "intended_use": "Tests only.",
        "limits": ["Random weights."],
        **content,
    }


def tiny_segmenter_network(card: dict[str, Any], seed: int = 0) -> SegmentationUNet:
    """A network of random weights whose classes all occur, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmentationUNet(**card["network"]["arguments"])
        torch.nn.init.normal_(network.score.weight, std=1.0)
    return network.eval()


def write_tiny_segmenter(folder: Path, seed: int = 0, **card_options: Any) -> SegmenterCard:
    """Write a package of random weights into `folder`."""
    card = tiny_segmenter_card(**card_options)
    return save_segmenter(Path(folder), card, tiny_segmenter_network(card, seed), torch.float32)
