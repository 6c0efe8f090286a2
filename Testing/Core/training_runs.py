"""Tiny training runs for the tests: subjects on disk, and the trainer's command in this process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import head_phantom, store

from IMTCore.volume_io import write_volume

TRAINING = Path(__file__).resolve().parents[2] / "Resources" / "Training"
sys.path.insert(0, str(TRAINING))

import train_translator

SPACING = (6.0, 4.0, 4.0)
# One process's environment, so that sums round alike in it and here.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def translated(t1: np.ndarray, target: str) -> np.ndarray:
    """Another contrast of a phantom: dark for bright, brighter towards the left in FLAIR."""
    inverted = np.where(t1 > 0, 1100 - t1, 0)
    return inverted if target == "T2" else inverted * np.linspace(0.6, 1.0, t1.shape[2])


def write_subject(folder: Path, shape: tuple[int, int, int], modalities: tuple[str, ...] = ("T1", "T2")) -> None:
    """A head's images in plain folders."""
    t1 = head_phantom(shape)
    for modality in modalities:
        image = t1 if modality == "T1" else translated(t1, modality)
        write_volume(folder / f"{modality}.nii.gz", store(image.astype(np.float32), spacing_kji=SPACING))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread, as in processes with `ONE_THREAD`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(*command: object) -> subprocess.Popen:
    """A Python process with one thread, its output and errors in one stream."""
    return subprocess.Popen(
        [sys.executable, "-u", *map(str, command)],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def train(*arguments: object) -> str:
    """Train in this process, on the CPU; what it says.

    Raises:
        SystemExit: with the message, if it refuses or fails.
    """
    words = [str(a) for a in (*arguments, "--device", "cpu")]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_translator.py", *words])
        train_translator.main(words)
    return said.getvalue()


def checkpoint(output: Path, name: str = "checkpoint.pt") -> dict:
    """A run's checkpoint."""
    return torch.load(output / name, weights_only=True)


def assert_same(one: object, other: object, where: str = "") -> None:
    """Equal to the bit, down to every tensor."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for n, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}.{n}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, where
