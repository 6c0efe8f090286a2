"""A small head to test with, all the ways in which a scanner may have stored it, and surroundings that no test changes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import permutations, product
from pathlib import Path

# Before torch is imported, as `imt` does: else the tests that run side by side wait for each other.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import write_volume

# A run in a shell's background ignores Ctrl-C, and so would the programs that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# (axes, flips): for each stored array axis k, j, i, the anatomical one that it is, and whether it runs against it.
ORIENTATIONS = list(product(permutations(range(3)), product((False, True), repeat=3)))
ORIGIN_LPS = np.array([-31.0, 17.5, 42.25])


def head_phantom(shape: tuple[int, int, int] = (18, 24, 21), scale: float = 1000.0) -> np.ndarray:
    """A head [k, j, i], axial: smooth tissue in an ellipsoid, another blob towards each axis' end, exactly 0 outside."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    tissue = 0.35 + 0.15 * k + 0.1 * j + 0.07 * i
    for centre, height in (((0.5, 0.0, 0.1), 0.4), ((0.0, 0.45, -0.1), -0.2), ((-0.1, 0.1, 0.5), 0.3)):
        distance = sum((x - c) ** 2 for x, c in zip((k, j, i), centre, strict=True))
        tissue = tissue + height * np.exp(-distance / 0.08)
    inside = (k / 0.85) ** 2 + (j / 0.8) ** 2 + (i / 0.75) ** 2 < 1
    return np.where(inside, scale * tissue, 0).astype(np.float32)


def store(
    anatomical: np.ndarray,
    orientation: tuple[tuple[int, ...], tuple[bool, ...]] = ((0, 1, 2), (False, False, False)),
    spacing_kji: tuple[float, float, float] = (1.0, 1.0, 1.0),
    rotation: np.ndarray | None = None,
) -> Volume:
    """An axial array [k, j, i] (towards superior, posterior, left) as it is stored in another orientation."""
    axes, flips = orientation
    array = np.flip(anatomical.transpose(axes), [n for n in range(3) if flips[n]])
    patient = np.eye(3) if rotation is None else rotation  # columns: where left, posterior, superior point
    direction_kji, origin = [], ORIGIN_LPS.copy()
    for axis, flip in zip(axes, flips, strict=True):
        towards = patient[:, 2 - axis]
        direction_kji.append(-towards if flip else towards)
        if flip:
            origin = origin + towards * spacing_kji[axis] * (anatomical.shape[axis] - 1)
    spacing_ijk = [spacing_kji[axis] for axis in axes][::-1]
    geometry = Geometry(array.shape, spacing_ijk, origin, np.array(direction_kji[::-1]).T)
    return Volume(np.ascontiguousarray(array), geometry, "head")


SMALL_HEAD = head_phantom((10, 24, 21))
SMALL_HEAD_SPACING_KJI = (3.0, 2.5, 2.5)


def head_file(path: Path, seed: int = 0) -> Path:
    """A small oblique head at `path`; each seed is another image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(seed).uniform(0.9, 1.1, SMALL_HEAD.shape).astype(np.float32)
    write_volume(path, store(SMALL_HEAD * grain, spacing_kji=SMALL_HEAD_SPACING_KJI, rotation=rotation_matrix(3, 15.0)))
    return path


def rotation_matrix(seed: int, degrees: float = 30.0) -> np.ndarray:
    """A rotation by `degrees` about a random axis."""
    axis = np.random.default_rng(seed).normal(size=3)
    return Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()


@pytest.fixture(params=ORIENTATIONS, ids=lambda o: "".join("kji"[a].upper() if f else "kji"[a] for a, f in zip(*o, strict=True)))
def orientation(request):
    """Each of the 48 ways to store three axes."""
    return request.param


@pytest.fixture
def oblique() -> np.ndarray:
    """A rotation by 25° about no axis in particular."""
    return rotation_matrix(3, 25.0)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No models of the tester's own, and after the test the signal handler that was there before: `imt` sets its own."""
    monkeypatch.setenv("IMT_MODELS", str(tmp_path_factory.mktemp("users")))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a tiny T1 to T2 model, in a folder whose name has a space and another letter; not to be changed."""
    from packages import write_tiny_package  # torch

    return write_tiny_package(tmp_path_factory.mktemp("mo dels ö"))


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small head's file, in folders and of a name with spaces and other letters; not to be changed."""
    return head_file(tmp_path_factory.mktemp("hé ad") / "kopf größe 脳.nii.gz")


@pytest.fixture(scope="session")
def icbm152() -> Path:
    """The folder of the ICBM152 template and its tissue maps in nilearn's wheel: the average of 152 real heads."""
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        pytest.skip("nilearn, whose wheel holds the ICBM152 template, is not installed: make setup")
    return Path(spec.origin).parent / "datasets" / "data"
