"""Tiny simulated heads with skull, two contrasts and exact tissue labels, and a tiny translator between the contrasts."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from packages import write_tiny_package

from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import TissueMaps
from IMTCore.volume import Geometry
from IMTCore.volume_io import write_volume

SHAPE, SPACING_IJK = (10, 40, 36), (5.0, 4.5, 9.0)
# Shells from the inside: tissue -> its outer radius, as a share of the half axes.
SHELLS = {"white": 0.42, "grey": 0.58, "csf": 0.68, "bone": 0.74, "fat": 0.84}
TISSUE_CODES = {1: 1, 2: 2, 3: 3}  # CSF, grey, white: the first three of IMTCore.tissues.CLASS_CODES


def anatomy() -> TissueMaps:
    """A head of shells."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(sum((axis / size) ** 2 for axis, size in zip(grid, (1.1, 1.0, 0.9), strict=True)))
    maps, inner = {}, 0.0
    for name, outer in SHELLS.items():
        maps[name] = ((radius >= inner) & (radius < outer)).astype(np.float32)
        inner = outer
    origin = [-SPACING_IJK[0] * SHAPE[2] / 2, -SPACING_IJK[1] * SHAPE[1] / 2, 0.0]
    return TissueMaps(maps, Geometry(SHAPE, np.array(SPACING_IJK), np.array(origin), np.eye(3)))


def write_heads(root: Path, names: tuple[str, ...], skull_stripped: bool = False, seed: int = 0) -> None:
    """T1, FLAIR and tissues of each `<dataset>/<subject>`, every one another anatomy."""
    tissues = anatomy()
    for number, name in enumerate(names):
        spec = PhantomSpec(seed + number, ("T1", "FLAIR"), warp_mm=6.0, smoothness_mm=40.0, skull_stripped=skull_stripped, noise=0.02)
        phantom = simulate(tissues, spec)
        for modality, volume in phantom.images.items():
            # Air is exactly 0, as after the scanner's own mask.
            image = np.where(phantom.labels.array > 0, volume.array, 0).astype(np.float32)
            write_volume(root / name / f"{modality}.nii.gz", volume.with_array(image))
        labels = phantom.labels.array
        codes = np.where(np.isin(labels, list(TISSUE_CODES)), labels, 0).astype(np.uint8)
        write_volume(root / name / "tissues.nii.gz", phantom.labels.with_array(codes))


def write_translator(folder: Path) -> Path:
    """The card of a T1 to FLAIR model of random weights, at the heads' spacing."""
    return write_tiny_package(folder, name="T1-FLAIR-tiny", source="T1", target="FLAIR")


def run_main(main, *arguments: object) -> str:
    """A script's `main` in this process; what it prints. SystemExit if it refuses."""
    words, said = [str(argument) for argument in arguments], io.StringIO()
    with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", *words])
        main(words)
    return said.getvalue()
