"""Tiny model packages to test with: real networks, a few thousand weights, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from IMTCore.model_packages import save_package
from IMTCore.networks import UNetGenerator, initialise


def tiny_card(
    name: str = "T1-T2",
    source: str = "T1",
    target: str = "T2",
    mode: str = "spatial",
    neighbours_mm: tuple[float, ...] = (0.0,),
    modalities: tuple[str, ...] = (),
    **network: Any,
) -> dict[str, Any]:
    """A valid card's content without its weights' file, size and hash, which `save_package` fills in.

    Args:
        modalities: those of an any-to-any model; source and target are then "any".
        network: arguments of `UNetGenerator` that differ from filters 4, depth 3.
    """
    channels = len(neighbours_mm) + 2 * len(modalities)
    arguments = {"in_channels": channels, "out_channels": 1, "filters": 4, "depth": 3, **network}
    size = {"size": [64, 64]} if mode == "paper" else {}
    card = {
        "format": 1,
        "name": name,
        "version": "0.1",
        "title": f"{source} to {target}, for tests",
        "source": "any" if modalities else source,
        "target": "any" if modalities else target,
        "network": {"kind": "unet", "arguments": arguments},
        "slicing": {"plane": "axial", "mode": mode, "neighbours_mm": list(neighbours_mm), **size},
        "percentile": 99.5,
        "output_range": [0, 255],
        "weights": {"licence": "CC0-1.0"},
        "training": {"data": ["none: random weights"], "command": "none", "date": "2025-01-01"},
        "metrics": [],
        "intended_use": "Tests only.",
        "limits": ["Random weights."],
    }
    return {**card, "modalities": list(modalities)} if modalities else card


def tiny_network(card: dict[str, Any], seed: int = 0) -> UNetGenerator:
    """A network of the card's architecture with pix2pix's random initial weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNetGenerator(**card["network"]["arguments"])
        initialise(network)
    return network.eval()


def write_tiny_package(folder: Path, seed: int = 0, **card_options: Any) -> Path:
    """Write a package of random weights (fp16) into `folder`; returns the card's path."""
    card = tiny_card(**card_options)
    return save_package(Path(folder), card, tiny_network(card, seed)).path
