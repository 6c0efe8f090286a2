"""The registration engines: what they find on phantoms whose transform is known, and how their processes end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation_matrix

from IMTCore.child_environment import worker_environment
from IMTCore.errors import BadInput, Cancelled
from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import TissueMaps, icbm152_tissues
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import write_volume
from IMTRegisterLib.deformations.transforms import Transform, write_transform
from IMTRegisterLib.engines.interface import (
    ENGINES,
    Channel,
    EngineFailed,
    EngineMissing,
    EngineSession,
    Task,
    engine_folder,
    engine_problem,
    preset_settings,
    read_presets,
)

pytestmark = pytest.mark.skipif(engine_folder() is None, reason="there is no folder of engines: make setup builds it")

VOXEL_MM = 6.0
# The fast presets with less work: the phantoms are small.
QUICK = {
    "greedy": {"linear": {"iterations": "60x30"}, "deformable": {"iterations": "60x40"}},
    "ants": {
        "linear": {"iterations": "60x30", "shrink": "4x2", "smoothing": "2x1vox"},
        "deformable": {"iterations": "30x15", "shrink": "4x2", "smoothing": "1x0vox"},
    },
    "elastix": {
        "linear": {"NumberOfResolutions": 2, "MaximumNumberOfIterations": 80},
        "deformable": {"NumberOfResolutions": 2, "MaximumNumberOfIterations": 80, "FinalGridSpacingInPhysicalUnits": 30.0},
    },
}
# A slice of the phantom has so few pixels that ANTs cannot spare three of four.
FOR_SLICES = {
    "greedy": {"iterations": "100x100x50"},
    "ants": {"metric": "MI[{fixed},{moving},{weight},16]", "iterations": "100x60", "shrink": "2x1", "smoothing": "1x0vox"},
    "elastix": {"NumberOfHistogramBins": 16},
}


@dataclass
class Pair:
    """Two phantoms as files, and the transform that takes points of the fixed one into the moving one."""

    fixed: dict[str, Path]
    moving: dict[str, Path]
    truth: object  # (N, 3) -> (N, 3)
    landmarks: np.ndarray  # (N, 3) of the fixed image
    volumes: dict[str, Volume]

    def channels(self, *names: str) -> tuple[Channel, ...]:
        return tuple(Channel(self.fixed[name], self.moving[name]) for name in names)

    def error(self, transform: Transform) -> float:
        """The landmarks' mean distance from where they belong, mm."""
        return float(np.linalg.norm(transform.to_moving(self.landmarks) - self.truth(self.landmarks), axis=1).mean())


@pytest.fixture(scope="module")
def tissues(icbm152: Path) -> TissueMaps:
    return icbm152_tissues(icbm152, downsample=int(VOXEL_MM))


def make_pair(tissues: TissueMaps, folder: Path, spec: PhantomSpec, moved: np.ndarray | None = None) -> Pair:
    """`moved`: a rotation about the origin, with a shift, that the moving head lies in; it then is stored on an oblique
    grid of anisotropic voxels, the first axis the other way round."""
    fixed, moving = simulate(tissues, spec), simulate(tissues, PhantomSpec(seed=9, modalities=spec.modalities, warp_mm=0))
    inside = np.argwhere(fixed.labels.array > 0)[::97, ::-1]
    geometry = tissues.geometry
    landmarks = geometry.origin_lps + (inside * geometry.spacing_mm) @ geometry.direction.T
    paths: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    for name in spec.modalities:
        other = moving.images[name]
        if moved is not None:
            other = stored_elsewhere(other, moved)
        for which, volume in zip(paths, (fixed.images[name], other), strict=True):
            which[name] = folder / f"{'fixed' if which is paths[0] else 'mo ving ä'} {name}.nii.gz"
            write_volume(which[name], volume)
    matrix = np.eye(4) if moved is None else moved
    volumes = {"fixed": fixed.images[spec.modalities[0]], "moving": other}
    return Pair(*paths, lambda points: fixed.warp.to_source(points) @ matrix[:3, :3].T + matrix[:3, 3], landmarks, volumes)


def stored_elsewhere(volume: Volume, moved: np.ndarray) -> Volume:
    geometry = volume.geometry
    pairs = volume.array[: len(volume.array) // 2 * 2]
    array = pairs.reshape(-1, 2, *pairs.shape[1:]).mean(axis=1)[:, :, ::-1]
    first = np.array([array.shape[2] - 1, 0, 0.5])  # of the old grid, where the new one begins
    origin = geometry.origin_lps + geometry.direction @ (geometry.spacing_mm * first)
    direction = geometry.direction * [-1, 1, 1]
    turned, shift = moved[:3, :3], moved[:3, 3]
    place = Geometry(array.shape, geometry.spacing_mm * [1, 1, 2], turned @ origin + shift, turned @ direction)
    return Volume(np.ascontiguousarray(array, dtype=np.float32), place, volume.name)


@pytest.fixture(scope="module")
def turned(tissues: TissueMaps, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """10 degrees and a shift."""
    spec = PhantomSpec(1, ("T1",), warp_mm=0, rotation_deg=(6.0, -5.0, 6.2), translation_mm=(8.0, -6.0, 5.0))
    return make_pair(tissues, tmp_path_factory.mktemp("turned"), spec)


@pytest.fixture(scope="module")
def warped(tissues: TissueMaps, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A smooth warp, and the moving head far away on an oblique, anisotropic grid."""
    moved = np.eye(4)
    moved[:3, :3] = rotation_matrix(3, 8.0)
    moved[:3, 3] = (30.0, -45.0, 12.0)
    spec = PhantomSpec(2, ("T1", "T2"), warp_mm=11.0, smoothness_mm=45.0, skull_stripped=True)
    return make_pair(tissues, tmp_path_factory.mktemp("warped"), spec, moved)


@pytest.fixture(scope="module", params=ENGINES)
def session(request: pytest.FixtureRequest) -> Iterator[EngineSession]:
    if problem := engine_problem(request.param):
        pytest.skip(problem)
    with EngineSession(request.param, "fast", settings=QUICK[request.param]) as session:
        yield session


@pytest.fixture(scope="module")
def results(session: EngineSession, warped: Pair) -> dict[str, Transform]:
    """The stages of the engine on the warped pair."""
    linear = session.run(Task("linear", warped.channels("T1")))
    return {"linear": linear, "deformable": session.run(Task("deformable", warped.channels("T1"), linear))}


def test_a_known_rotation_and_shift_is_found_to_half_a_voxel(session: EngineSession, turned: Pair):
    found = session.run(Task("linear", turned.channels("T1")))
    assert found.displacement is None
    assert turned.error(Transform()) > 2 * VOXEL_MM
    assert turned.error(found) < VOXEL_MM / 2


def test_a_known_warp_is_found_better_than_by_the_affine_alone(results: dict[str, Transform], warped: Pair):
    linear, deformable = results["linear"], results["deformable"]
    assert np.array_equal(deformable.matrix, linear.matrix)
    assert deformable.geometry.is_close(warped.volumes["fixed"].geometry)
    assert warped.error(deformable) < 0.75 * warped.error(linear)
    assert warped.error(deformable) < 0.75 * VOXEL_MM


def test_an_independent_reader_of_the_written_transform_brings_the_moving_image_onto_the_fixed_one(
    results: dict[str, Transform], warped: Pair, tmp_path: Path
):
    fixed, moving = (sitk.ReadImage(str(which["T1"])) for which in (warped.fixed, warped.moving))
    likeness = {}
    for name, transform in results.items():
        write_transform(tmp_path / f"{name}.h5", transform)
        read = sitk.ReadTransform(str(tmp_path / f"{name}.h5"))
        for point, target in zip(warped.landmarks[:5], transform.to_moving(warped.landmarks[:5]), strict=True):
            assert np.allclose(read.TransformPoint(point.tolist()), target, atol=1e-3)
        brought = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, read))
        likeness[name] = np.corrcoef(brought.ravel(), sitk.GetArrayFromImage(fixed).ravel())[0, 1]
    assert likeness["deformable"] > likeness["linear"] > 0.85


def test_two_channels_are_registered_together(
    session: EngineSession, results: dict[str, Transform], warped: Pair, monkeypatch: pytest.MonkeyPatch
):
    one, two = warped.channels("T1", "T2")
    if session.engine == "elastix":
        monkeypatch.setitem(session.settings, "deformable", session.settings["deformable"] | {"NumberOfResolutions": 1})
    joint = session.run(Task("deformable", (replace(one, weight=3.0), two), results["linear"]))
    assert warped.error(joint) < 0.75 * warped.error(results["linear"])
    assert np.abs(joint.displacement - results["deformable"].displacement).max() > 0.1  # the second channel counts


def test_a_warm_start_keeps_what_it_starts_from(
    session: EngineSession, results: dict[str, Transform], warped: Pair, monkeypatch: pytest.MonkeyPatch
):
    few = {"greedy": {"iterations": "0x1"}, "ants": {"iterations": "1", "shrink": "2", "smoothing": "1vox"}}
    few["elastix"] = {"NumberOfResolutions": 1, "MaximumNumberOfIterations": 1, "MaximumStepLength": 0.1}
    monkeypatch.setitem(session.settings, "deformable", session.settings["deformable"] | few[session.engine])
    cold = session.run(Task("deformable", warped.channels("T1"), results["linear"]))
    warm = session.run(Task("deformable", warped.channels("T1"), results["deformable"]))
    assert np.array_equal(warm.matrix, results["linear"].matrix)
    assert warped.error(warm) < 0.5 * (warped.error(cold) + warped.error(results["deformable"]))


def test_the_same_seed_gives_the_same_bits(
    session: EngineSession, results: dict[str, Transform], warped: Pair, monkeypatch: pytest.MonkeyPatch
):
    few = {"greedy": {"iterations": "10x3"}, "ants": {"iterations": "5x2"}, "elastix": {"MaximumNumberOfIterations": 10}}
    monkeypatch.setitem(session.settings, "deformable", session.settings["deformable"] | few[session.engine])
    task = Task("deformable", warped.channels("T1"), results["linear"], seed=7)
    first, again = (session.run(task).displacement.tobytes() for _ in range(2))
    assert first == again
    if session.engine == "elastix":  # the only one that draws its samples at random
        assert first != session.run(replace(task, seed=8)).displacement.tobytes()


def test_a_mask_keeps_what_is_outside_of_it_from_counting(session: EngineSession, turned: Pair, tmp_path: Path):
    fixed = turned.volumes["fixed"]
    spoilt, whole = fixed.array.copy(), np.ones(fixed.array.shape, np.uint8)
    spoilt[:, :, :9], whole[:, :, :9] = fixed.array.max(), 0
    write_volume(tmp_path / "spoilt.nii.gz", fixed.with_array(spoilt))
    write_volume(tmp_path / "mask.nii.gz", fixed.with_array(whole))
    pair = (Channel(tmp_path / "spoilt.nii.gz", turned.moving["T1"]),)
    plain, masked = (session.run(Task("linear", pair, fixed_mask=mask)) for mask in (None, tmp_path / "mask.nii.gz"))
    assert turned.error(masked) < min(turned.error(plain), VOXEL_MM)


def test_slices_are_registered_each_by_itself(session: EngineSession, icbm152: Path, tmp_path: Path, monkeypatch):
    whole = icbm152_tissues(icbm152, downsample=3)
    cut = TissueMaps({name: share[20:23] for name, share in whole.maps.items()}, at_slice(whole.geometry, 20, 3))
    spec = PhantomSpec(4, ("T1",), warp_mm=0, rotation_deg=(0, 0, 8.0), translation_mm=(6.0, -5.0, 0))
    pair = make_pair(cut, tmp_path, spec)
    monkeypatch.setitem(session.settings, "linear", session.settings["linear"] | FOR_SLICES[session.engine])
    linear = session.run(Task("linear", pair.channels("T1"), dimension=2))
    assert np.array_equal(linear.matrix, np.eye(4))
    assert pair.error(linear) < 3.0 < pair.error(Transform()) / 2
    assert np.abs(linear.displacement @ whole.geometry.direction[:, 2]).max() < 1e-3  # nothing leaves its slice
    deformable = session.run(Task("deformable", pair.channels("T1"), linear, dimension=2))
    assert pair.error(deformable) < 3.0
    assert np.abs(deformable.displacement - linear.displacement).max() > 0.1


def at_slice(geometry: Geometry, first: int, count: int) -> Geometry:
    origin = geometry.origin_lps + geometry.direction[:, 2] * geometry.spacing_mm[2] * first
    return Geometry((count, *geometry.shape[1:]), geometry.spacing_mm, origin, geometry.direction)


@pytest.fixture(scope="module")
def greedy() -> Iterator[EngineSession]:
    if problem := engine_problem("greedy"):
        pytest.skip(problem)
    with EngineSession("greedy", "fast", settings=QUICK["greedy"]) as session:
        yield session


def test_a_registration_that_goes_astray_is_a_failure_and_no_result(greedy: EngineSession, turned: Pair):
    settings = {"commands": ["-moments 2 {pairs} -det -1 -o {result}"]}  # a mirrored head
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(greedy.settings, "linear", greedy.settings["linear"] | settings)
        with pytest.raises(EngineFailed, match="went astray"):
            greedy.run(Task("linear", turned.channels("T1")))


def test_no_engine_process_loads_torch(session: EngineSession, results: dict[str, Transform]):
    maps = Path(f"/proc/{session.pid}/maps")
    if not maps.exists():
        pytest.skip("only Linux says which libraries a process has loaded")
    loaded = maps.read_text()
    assert "torch" not in loaded
    assert str(engine_folder()) in loaded


def test_a_cancel_ends_the_process_within_a_second_and_leaves_no_folder(warped: Pair, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked: list[float] = []

    def cancelled() -> bool:
        if session.pid and any(tmp_path.glob("imt-engine-*/task1/fixed0.npy")):
            asked.append(time.monotonic())
        return len(asked) > 3

    session = EngineSession("greedy", "fast", settings={"linear": {"iterations": "90000"}}, cancelled=cancelled)
    with pytest.raises(Cancelled):
        session.run(Task("linear", warped.channels("T1")))
    assert time.monotonic() - asked[-1] < 1.0
    assert session.pid is None and list(tmp_path.iterdir()) == []


def test_a_killed_engine_is_named_and_the_next_task_starts_it_anew(turned: Pair, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state = {"kill": True}

    def kill_when_busy() -> bool:
        if state["kill"] and any(tmp_path.glob("imt-engine-*/task1/moving0.npy")):
            state["kill"] = False
            os.kill(session.pid, signal.SIGSEGV)
        return False

    session = EngineSession("greedy", "fast", settings=QUICK["greedy"], cancelled=kill_when_busy)
    with session:
        with pytest.raises(EngineFailed, match="Greedy failed.*SIGSEGV"):
            session.run(Task("linear", turned.channels("T1")))
        assert list(tmp_path.iterdir()) == []
        assert turned.error(session.run(Task("linear", turned.channels("T1")))) < VOXEL_MM / 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the engine ends only when its task does")
def test_an_engine_dies_with_the_process_that_started_it_even_in_the_middle_of_a_task(turned: Pair, tmp_path: Path):
    code = f"""
        import sys
        from pathlib import Path
        from IMTRegisterLib.engines.interface import *
        def say():
            if session.pid:
                print(session.pid, flush=True)
            return False
        session = EngineSession("greedy", "fast", settings={{"deformable": {{"iterations": "900000"}}}}, cancelled=say)
        session.run(Task("deformable", (Channel(Path({str(turned.fixed["T1"])!r}), Path({str(turned.moving["T1"])!r})),)))
    """
    environment = worker_environment() | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", dedent(code)], env=environment, stdout=subprocess.PIPE, text=True)
    pids = [int(parent.stdout.readline()) for _ in range(25)]  # ten a second: by then it is at work
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 2.0
    while Path(f"/proc/{pids[-1]}").exists() and not is_zombie(pids[-1]) and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{pids[-1]}").exists() or is_zombie(pids[-1])


def is_zombie(pid: int) -> bool:
    """Dead, though nobody has asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_folder_that_a_killed_session_left_is_removed_two_days_later(turned: Pair, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, days in (("imt-engine-old", 3), ("imt-engine-new", 1), ("other", 3)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    with EngineSession("greedy", "fast", settings=QUICK["greedy"], cancelled=lambda: True) as session, pytest.raises(Cancelled):
        session.run(Task("linear", turned.channels("T1")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imt-engine-new", "other"]


def test_what_an_engine_says_of_its_failure_is_in_the_message_and_the_session_goes_on(greedy: EngineSession, turned: Pair):
    greedy.run(quickly := Task("linear", turned.channels("T1")))
    pid = greedy.pid
    for changes, error, message in (
        ({"commands": ["-nonsense {pairs} -ia {start}"]}, EngineFailed, "Greedy failed.*-nonsense"),
        ({"metric": "NOSUCH"}, BadInput, "no metric 'NOSUCH'.*NCC"),
        ({"commands": ["-a {pears}"]}, BadInput, "'pears'.*pairs"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(greedy.settings, "linear", greedy.settings["linear"] | changes)
            with pytest.raises(error, match=message):
                greedy.run(quickly)
    assert turned.error(greedy.run(quickly)) < VOXEL_MM / 2
    assert greedy.pid == pid


def test_the_engine_process_ends_when_its_session_is_closed(greedy: EngineSession, turned: Pair):
    greedy.run(Task("linear", turned.channels("T1")))
    pid = greedy.pid
    greedy.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_images_that_do_not_fit_are_refused_with_their_names(greedy: EngineSession, warped: Pair, turned: Pair, tmp_path: Path):
    moving = warped.volumes["moving"]
    write_volume(tmp_path / "shifted.nii.gz", replace(moving, geometry=replace(moving.geometry, origin_lps=np.full(3, 900.0))))
    mixed = (*warped.channels("T1"), Channel(warped.fixed["T2"], tmp_path / "shifted.nii.gz"))
    with pytest.raises(BadInput, match="different grids.*resample"):
        greedy.run(Task("deformable", mixed))
    far = (Channel(warped.fixed["T1"], tmp_path / "shifted.nii.gz"),)
    with pytest.raises(BadInput, match="fixed T1.nii.gz and shifted.nii.gz do not overlap"):
        greedy.run(Task("deformable", far))
    with pytest.raises(BadInput, match=r"slices and .* \d+\. .*as many"):
        greedy.run(Task("linear", warped.channels("T1"), dimension=2))
    with pytest.raises(BadInput, match="does not exist"):
        greedy.run(Task("linear", (Channel(tmp_path / "nothing.nii", warped.moving["T1"]),)))


def test_unknown_names_are_refused_with_those_that_there_are():
    with pytest.raises(BadInput, match="greedy, ants, elastix"):
        EngineSession("flirt", "fast")
    with pytest.raises(BadInput, match="paper, fast"):
        EngineSession("greedy", "best")
    with pytest.raises(BadInput, match="iterations"):
        EngineSession("greedy", "fast", settings={"deformable": {"itterations": "3"}})
    with pytest.raises(BadInput, match="linear and deformable"):
        EngineSession("greedy", "fast", settings={"affine": {}})
    with pytest.raises(BadInput, match="velocity is like False"):
        EngineSession("greedy", "fast", settings={"deformable": {"velocity": "no"}})
    with pytest.raises(BadInput, match="stage"):
        Task("rigid", (Channel(Path("a"), Path("b")),))


def test_every_engine_has_both_presets_and_says_where_they_come_from():
    presets = read_presets()
    assert tuple(presets) == ENGINES
    for engine in ENGINES:
        assert set(presets[engine]) == {"paper", "fast"}
        assert all(len(preset["source"]) > 20 for preset in presets[engine].values())
        assert preset_settings(engine, "paper") != preset_settings(engine, "fast")


def test_a_missing_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("IMT_ENGINES", str(tmp_path / "nowhere"))
    assert engine_folder() is None
    with pytest.raises(EngineMissing, match="ANTs is not installed.*nowhere.*IMTSlicerLib.package_folders install.*IMT-register-requirements.txt"):
        EngineSession("ants", "fast")


def test_the_engines_folder_is_found_where_slicers_panel_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("IMT_ENGINES", raising=False)
    monkeypatch.setenv("IMT_PACKAGES", str(tmp_path))
    assert engine_folder() != tmp_path / f"register-{sys.implementation.cache_tag}"
    (tmp_path / f"register-{sys.implementation.cache_tag}").mkdir()
    assert engine_folder() == tmp_path / f"register-{sys.implementation.cache_tag}"
    shutil.rmtree(tmp_path)
