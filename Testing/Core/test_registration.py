"""Claims on the registration of a subject with atlases: what it finds, fuses, keeps and writes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import icbm152_tissues
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTRegisterLib.atlases.atlas_sets import AtlasSet, read_atlas_set
from IMTRegisterLib.deformations.transforms import Transform
from IMTRegisterLib.engines.interface import engine_problem
from IMTRegisterLib.registration.cache import RegistrationCache, key_of
from IMTRegisterLib.registration.inputs import crop_volume, paste, write_head
from IMTRegisterLib.registration.jobs import plan_jobs
from IMTRegisterLib.registration.outputs import RegistrationOutputs
from IMTRegisterLib.registration.run import Registration
from IMTRegisterLib.registration.settings import RegistrationSettings, StructureWeights, parse_weight
from IMTRegisterLib.registration.subject import register_subject

CODES = {1: "csf", 2: "grey", 3: "white"}
LABELS_CSV = "code,name,red,green,blue\n1,csf,30,60,200\n2,grey,130,130,130\n3,white,240,240,240\n"
DOWNSAMPLE = 6  # 6 mm: 32 x 38 x 31 voxels
FEW = {"linear": {"iterations": "40x20"}, "deformable": {"iterations": "40x20"}}
FEW_IN_ELASTIX = {
    "linear": {"NumberOfResolutions": 2, "MaximumNumberOfIterations": 80},
    "deformable": {"NumberOfResolutions": 2, "MaximumNumberOfIterations": 80},
}


QUICK = {"parameters": FEW, "jobs": 1, "threads": 1}


def needs(engine: str) -> pytest.MarkDecorator:
    problem = engine_problem(engine)
    return pytest.mark.skipif(problem is not None, reason=problem or "")


pytestmark = needs("greedy")


@dataclass(frozen=True)
class Cohort:
    """Phantoms with exact labels: a subject, and atlases in the layout of a set."""

    folder: Path
    subject: Path
    second: Path
    truth: np.ndarray
    atlases: Path


def write_cohort(folder: Path, icbm: Path, atlases: int = 2, downsample: int = DOWNSAMPLE) -> Cohort:
    tissues = icbm152_tissues(icbm, downsample)
    for n in range(atlases + 1):
        spec = PhantomSpec(
            seed=n,
            modalities=("T1", "T2"),
            warp_mm=8,
            smoothness_mm=40,
            rotation_deg=(0, 0, 5.0 * n),
            translation_mm=(3.0 * n, 0, 0),
            skull_stripped=True,
        )
        phantom = simulate(tissues, spec)
        place = folder / "atlases" / f"head{n}" if n else folder / "subject"
        for modality, volume in phantom.images.items():
            write_volume(place / f"{modality}.nii.gz", volume)
        write_volume(place / "labels.nii.gz", Volume(phantom.labels.array.astype(np.uint8), phantom.labels.geometry))
    (folder / "atlases" / "labels.csv").write_text(LABELS_CSV)
    truth = read_volume(folder / "subject" / "labels.nii.gz").array
    return Cohort(folder, folder / "subject" / "T2.nii.gz", folder / "subject" / "T1.nii.gz", truth, folder / "atlases")


@pytest.fixture(scope="module")
def cohort(icbm152, tmp_path_factory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cöhort"), icbm152)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Shared by the tests: each registration runs once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def register(cohort, cache, tmp_path) -> Callable[..., Registration]:
    """Register the cohort's subject; keywords are settings."""

    def call(outputs: RegistrationOutputs | None = None, atlas_set: AtlasSet | None = None, **values: Any) -> Registration:
        given = {"modality": "T2", "translate_to": "T1", "second_image": cohort.second, **QUICK, "cache": cache}
        if values.get("fusion") == "none":
            given |= {"translate_to": None, "second_image": None}
        settings = RegistrationSettings(**(given | values))
        atlas_set = atlas_set or read_atlas_set(cohort.atlases, settings.modalities)
        return register_subject(cohort.subject, atlas_set, settings, outputs or RegistrationOutputs(tmp_path / "labels.nii.gz"))

    return call


def dice(one: np.ndarray, other: np.ndarray, code: int) -> float:
    a, b = one == code, other == code
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([dice(labels, truth, code) for code in CODES]))


# ---------------------------------------------------------------- what it finds


def test_fused_registration_beats_unregistered_labels_and_writes_all_outputs(cohort, register, tmp_path):
    outputs = RegistrationOutputs(
        tmp_path / "out" / "labels.nii.gz",
        tmp_path / "out" / "agreement.nii.gz",
        tmp_path / "transforms",
        tmp_path / "warped",
        report=tmp_path / "report.json",
    )
    run = register(outputs)
    labels, geometry = read_volume(outputs.labels), read_volume(cohort.subject).geometry
    assert labels.geometry.is_close(geometry) and labels.array.dtype == np.uint8
    before = mean_dice(read_volume(cohort.atlases / "head1" / "labels.nii.gz").array, cohort.truth)
    assert mean_dice(labels.array, cohort.truth) > max(0.77, before + 0.1)
    assert sorted(run.registered) == ["head1", "head2"] and not run.failed

    agreement = read_volume(outputs.agreement).array
    assert agreement.dtype == np.float32 and 0 < agreement.min() < agreement.max() == 1
    assert (tmp_path / "out" / "labels_labels.csv").read_text().splitlines()[2].startswith("2,grey,130,130,130")

    mark = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert mark["content"] == "labels" and mark["derived_from_synthetic"] is False and mark["model"] is None
    assert mark["settings"]["engine"] == "greedy" and mark["labels"] == {"1": "csf", "2": "grey", "3": "white"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert [atlas["state"] for atlas in report["atlases"]] == ["done", "done"]
    for atlas in report["atlases"]:
        assert atlas["folds"] >= 0 and atlas["jacobian"][0] < 1 < atlas["jacobian"][1]
        assert atlas["similarity"]["T1"] > 0.4 and atlas["similarity"]["T2"] > 0.4
        assert set(atlas["seconds"]) == {"prepare", "linear", "T2", "T1", "fuse"}

    # The transform in the file, applied by an independent program, gives the warped atlas in the folder.
    fixed = sitk.ReadImage(str(cohort.subject))
    for name in run.registered:
        transform = sitk.ReadTransform(str(outputs.transforms / f"{name}.h5"))
        inverse = sitk.ReadTransform(str(outputs.transforms / f"{name}-inverse.h5"))
        image = sitk.ReadImage(str(cohort.atlases / name / "T2.nii.gz"), sitk.sitkFloat32)
        there = sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, sitk.sitkLinear))
        warped = read_volume(outputs.warped / name / "T2.nii.gz").array
        assert np.abs(there - warped).max() < 0.02 * warped.max()
        point = (5.0, -20.0, 12.0)
        assert np.linalg.norm(np.array(inverse.TransformPoint(transform.TransformPoint(point))) - point) < 1.0
    again = read_atlas_set(outputs.warped, ("T2", "T1"))  # the warped atlases are a set again
    assert [atlas.name for atlas in again.atlases] == ["head1", "head2"]


@pytest.mark.parametrize("fusion", ["none", "log", "local", "joint"])
def test_every_fusion_finds_the_structures(cohort, register, fusion):
    assert mean_dice(register(fusion=fusion).labels.array, cohort.truth) > 0.75


def test_a_label_free_weight_is_a_share_for_each_atlas_and_finds_the_structures(cohort, register):
    run = register(weight="auto")
    assert all(0 < result.record["share"] < 1 for result in run.registered.values())
    assert mean_dice(run.labels.array, cohort.truth) > 0.77


@pytest.mark.parametrize("method", ["majority", "staple"])
def test_the_label_methods_agree_where_the_atlases_do(cohort, register, method):
    mean, other = register(), register(labels=method)
    sure = mean.agreement.array > 0.95
    assert (mean.labels.array == other.labels.array)[sure].mean() > 0.99
    assert mean_dice(other.labels.array, cohort.truth) > 0.7


def test_weight_one_is_the_given_modality_alone_and_zero_never_registers_it(register):
    alone, one, zero = register(fusion="none"), register(weight=1.0), register(weight=0.0)
    assert np.array_equal(alone.labels.array, one.labels.array)
    assert not np.array_equal(one.labels.array, zero.labels.array)
    assert all("T2" not in result.seconds and "T1" in result.seconds for result in zero.registered.values())
    assert all("T1" not in result.seconds for result in one.registered.values())


def test_each_structure_is_carried_by_the_fusion_of_its_own_weight(register):
    given = register(weight=1.0).labels.array
    same = StructureWeights({"grey": 1.0, "3": 1.0}, default=1.0)
    assert np.array_equal(register(weight=same).labels.array, given)
    white = {"structures": ("white",)}
    second = register(weight=0.001, **white).labels.array  # 0 would begin elsewhere
    own = register(weight=StructureWeights({"white": 0.001}, default=1.0), **white).labels.array
    assert np.array_equal(own, second) and not np.array_equal(own, register(weight=1.0, **white).labels.array)


def test_only_the_chosen_structures_are_carried_over(register):
    run = register(structures=("White", "1"))
    assert set(np.unique(run.labels.array)) == {0, 1, 3}
    assert [entry.name for entry in run.names.values()] == ["csf", "white"]


def test_a_translation_takes_part_once_and_marks_what_it_touched(cohort, cache, model, tmp_path):
    settings = RegistrationSettings("T1", "T2", str(model), weight=0.0, cache=cache, **QUICK)
    outputs = RegistrationOutputs(tmp_path / "labels.nii.gz", translated=tmp_path / "T2.nii.gz")
    atlas_set = read_atlas_set(cohort.atlases, settings.modalities)
    told: list[str] = []
    run = register_subject(cohort.second, atlas_set, settings, outputs, lambda stage, *_: told.append(stage))
    assert "translate" in told
    mark = json.loads((tmp_path / "labels.json").read_text())
    assert mark["derived_from_synthetic"] is True and mark["model"]["name"] == "T1-T2"
    assert json.loads((tmp_path / "T2.json").read_text())["synthetic"] is True
    assert np.array_equal(read_volume(tmp_path / "T2.nii.gz").array, run.translation.translation.array)
    told.clear()
    again = register_subject(cohort.second, atlas_set, settings, outputs, lambda stage, *_: told.append(stage))
    assert "translate" not in told
    assert np.array_equal(again.labels.array, run.labels.array)


def test_an_oblique_anisotropic_subject_gets_labels_on_its_own_grid(cohort, cache, oblique, tmp_path):
    given = sitk.ReadImage(str(cohort.subject), sitk.sitkFloat32)
    grid = sitk.Image(44, 40, 30, sitk.sitkFloat32)
    grid.SetSpacing((4.4, 5.0, 6.5))
    grid.SetDirection(oblique.ravel().tolist())
    centre = np.array(given.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in given.GetSize()]))
    half = oblique @ (np.array(grid.GetSpacing()) * (np.array(grid.GetSize()) - 1) / 2)
    grid.SetOrigin((centre - half).tolist())
    sitk.WriteImage(sitk.Resample(given, grid), str(tmp_path / "T2.nii.gz"))
    truth = sitk.ReadImage(str(cohort.folder / "subject" / "labels.nii.gz"))
    truth = sitk.GetArrayFromImage(sitk.Resample(truth, grid, sitk.Transform(), sitk.sitkNearestNeighbor))
    settings = RegistrationSettings("T2", cache=cache, **QUICK)
    outputs = RegistrationOutputs(tmp_path / "labels.nrrd")
    register_subject(tmp_path / "T2.nii.gz", read_atlas_set(cohort.atlases, ("T2",)), settings, outputs)
    labels = read_volume(tmp_path / "labels.nrrd")
    assert labels.geometry.is_close(read_volume(tmp_path / "T2.nii.gz").geometry, 1e-2)
    assert mean_dice(labels.array, truth) > 0.7


def test_slice_pairs_are_registered_slice_by_slice(cohort, cache, tmp_path):
    slices = (slice(13, 18), slice(None), slice(None))
    for path in [*cohort.atlases.glob("head1/*.nii.gz"), cohort.subject]:
        volume = read_volume(path)
        part = crop_volume(volume, tuple(slice(s.start or 0, s.stop or n) for s, n in zip(slices, volume.array.shape, strict=True)))
        write_volume(tmp_path / "set" / path.parent.name / path.name, part.with_array(part.array.astype(volume.array.dtype)))
    subject = (tmp_path / "set" / "subject" / "T2.nii.gz").rename(tmp_path / "T2.nii.gz")
    (tmp_path / "set" / "subject").rmdir()
    settings = RegistrationSettings("T2", dimension=2, cache=cache, **QUICK)
    outputs = RegistrationOutputs(tmp_path / "labels.nii.gz", transforms=tmp_path)
    run = register_subject(subject, read_atlas_set(tmp_path / "set", ("T2",)), settings, outputs)
    assert run.head.geometry.shape == run.labels.array.shape, "slices must keep their numbers: nothing is cut away"
    before = read_volume(tmp_path / "set" / "head1" / "labels.nii.gz").array
    assert mean_dice(run.labels.array, cohort.truth[slices]) > mean_dice(before, cohort.truth[slices])
    transform = sitk.ReadTransform(str(tmp_path / "head1.h5"))
    point = np.array(read_volume(subject).geometry.origin_lps) + (-90.0, -100.0, 12.0)
    assert abs(transform.TransformPoint(point.tolist())[2] - point[2]) < 1e-3, "nothing moves across the slices"


@needs("ants")
@pytest.mark.slow
def test_ants_registers_and_its_joint_label_fusion_finds_the_structures(cohort, register):
    run = register(engine="ants", fusion="none", labels="joint", parameters=None)
    assert mean_dice(run.labels.array, cohort.truth) > 0.75
    assert 0 <= run.agreement.array.min() < 1 == run.agreement.array.max()


@needs("elastix")
@pytest.mark.slow
def test_elastix_registers(cohort, register):
    atlas_set = read_atlas_set(cohort.atlases, ("T2",))
    one = replace(atlas_set, atlases=atlas_set.atlases[:1])
    run = register(engine="elastix", fusion="none", parameters=FEW_IN_ELASTIX, atlas_set=one)
    assert mean_dice(run.labels.array, cohort.truth) > 0.7


# ---------------------------------------------------------------- what it keeps


def test_a_second_run_with_another_fusion_computes_no_registration(register):
    register()
    again = register(weight=0.3, labels="majority")
    assert all(result.cached == ["linear", "T2", "T1"] for result in again.registered.values())
    assert again.cache_hits == 6


def test_what_is_in_the_cache_depends_on_the_images_and_settings(register):
    register()
    other = register(seed=1, fusion="none")
    assert all(not result.cached for result in other.registered.values())


def test_a_damaged_cache_entry_is_computed_anew(tmp_path):
    cache = RegistrationCache(tmp_path)
    key = key_of("registration", number=1)
    cache.put_transform(key, Transform(np.diag([1.0, 2, 1, 1])), {"seconds": 1.0})
    assert np.array_equal(cache.transform(key)[0].matrix, np.diag([1.0, 2, 1, 1]))
    path = tmp_path / f"{key}.npz"
    path.write_bytes(path.read_bytes()[:-30])
    assert cache.transform(key) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_cache_removes_what_was_not_used_for_longest(tmp_path):
    cache = RegistrationCache(tmp_path, limit_gb=2e-6)
    for number in range(4):
        cache.put_arrays(key_of("x", number=number), {"a": np.zeros(100)}, {})
        old = time.time() - (10 - number) * 24 * 3600
        os.utime(tmp_path / f"{key_of('x', number=number)}.npz", (old, old))
    cache.trim()
    assert [cache.arrays(key_of("x", number=n)) is not None for n in range(4)] == [False, False, False, True]


# ---------------------------------------------------------------- heads


def test_a_head_is_cut_to_its_box_and_pastes_back_onto_its_voxels(cohort, tmp_path):
    padded = sitk.ConstantPad(sitk.ReadImage(str(cohort.subject)), (9, 8, 7), (9, 8, 7), 0)
    sitk.WriteImage(padded, str(tmp_path / "T2.nii.gz"))
    volume = read_volume(tmp_path / "T2.nii.gz")
    head = write_head("subject", {"T2": volume}, tmp_path)
    assert all(n < whole for n, whole in zip(head.geometry.shape, volume.geometry.shape, strict=True))
    inside = (volume.array > 0)[head.box]
    assert np.count_nonzero(inside) == np.count_nonzero(volume.array), "no tissue is cut away"
    back = paste(head.image("T2").array, head.box, volume.array.shape)
    assert np.array_equal(back, volume.array)
    part = crop_volume(volume, head.box)
    assert np.allclose(
        part.geometry.origin_lps, (volume.geometry.affine_ras @ [*(s.start for s in head.box[::-1]), 1])[:3] * [-1, -1, 1]
    )
    noisy = volume.with_array(volume.array + np.random.default_rng(0).rayleigh(10, volume.array.shape).astype(np.float32))
    other = write_head("noisy", {"T2": noisy}, tmp_path / "noisy")
    assert all(abs(a.start - b.start) <= 1 and abs(a.stop - b.stop) <= 1 for a, b in zip(head.box, other.box, strict=True))


# ---------------------------------------------------------------- what goes wrong


def damaged_set(cohort: Cohort, folder: Path, *names: str) -> AtlasSet:
    """A copy of the atlas set whose atlases of these names were damaged after it was checked."""
    atlases = Path(shutil.copytree(cohort.atlases, folder / "set"))
    checked = read_atlas_set(atlases, ("T2",))
    for name in names:
        path = atlases / name / "T2.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])
    return checked


def test_an_atlas_that_fails_is_named_and_the_others_go_on(cohort, register, tmp_path):
    run = register(fusion="none", atlas_set=damaged_set(cohort, tmp_path, "head1"))
    assert list(run.failed) == ["head1"] and list(run.registered) == ["head2"]
    assert "truncated" in str(run.failed["head1"]) and any("head1" in warning for warning in run.warnings)
    mark = json.loads((tmp_path / "labels.json").read_text())
    assert mark["atlases"] == ["head2"] and "head1" in mark["atlases_failed"]


def test_all_atlases_failed_is_an_error_that_names_each(cohort, register, tmp_path):
    with pytest.raises(ImtError, match="head1.*head2"):
        register(fusion="none", atlas_set=damaged_set(cohort, tmp_path, "head1", "head2"))
    assert not (tmp_path / "labels.nii.gz").exists()


def test_slice_pairs_of_different_numbers_are_refused_for_their_atlas(cohort, register, tmp_path):
    atlases = Path(shutil.copytree(cohort.atlases, tmp_path / "set"))
    for path in atlases.glob("*/*.nii.gz"):
        sitk.WriteImage(sitk.ConstantPad(sitk.ReadImage(str(path)), (0, 0, 2), (0, 0, 0), 0), str(path))
    with pytest.raises(ImtError, match="head2 has .* voxels, the subject .*same numbers of slices.*dimension 3"):
        register(fusion="none", dimension=2, atlas_set=read_atlas_set(atlases, ("T2",)))


def engine_processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if any("engines.server" in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:
            pass
    return found


def test_an_engine_killed_midway_costs_one_atlas(cohort, tmp_path):
    def kill_first() -> None:
        end = time.time() + 20
        while time.time() < end:
            for child in engine_processes():
                child.kill()
                return
            time.sleep(0.02)

    settings = RegistrationSettings("T2", cache=None, **QUICK)
    killer = threading.Thread(target=kill_first)
    killer.start()
    outputs = RegistrationOutputs(tmp_path / "labels.nii.gz")
    run = register_subject(cohort.subject, read_atlas_set(cohort.atlases, ("T2",)), settings, outputs)
    killer.join()
    assert list(run.failed) == ["head1"] and list(run.registered) == ["head2"]
    assert outputs.labels.is_file() and not engine_processes()


def test_a_cancelled_run_leaves_no_file_and_no_process(cohort, tmp_path):
    settings = RegistrationSettings("T2", cache=None, **{**QUICK, "jobs": 2})
    stages: list[str] = []
    outputs = RegistrationOutputs(tmp_path / "out" / "labels.nii.gz", report=tmp_path / "out" / "report.json")
    with pytest.raises(Cancelled):
        register_subject(
            cohort.subject,
            read_atlas_set(cohort.atlases, ("T2",)),
            settings,
            outputs,
            lambda stage, fraction, message: stages.append(message),
            lambda: any("linear" in message for message in stages),
        )
    assert not (tmp_path / "out").exists() and not engine_processes()


def test_too_little_memory_says_how_much_is_needed():
    settings = RegistrationSettings("T2", engine="ants", memory_gb=1.0)
    with pytest.raises(BadInput, match=r"needs about \d+\.\d GB, but the memory budget is 1\.0 GB"):
        plan_jobs(settings, atlases=8, voxels=7_000_000)
    roomy = plan_jobs(replace(settings, memory_gb=14.0), atlases=8, voxels=7_000_000)
    assert roomy.jobs * roomy.job_gb <= 14.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"translate_to": "t2"}, "second modality is the given one"),
        ({"fusion": "log"}, "needs a second modality"),
        ({"translate_to": "T1", "fusion": "none"}, "alone"),
        ({"translate_to": "T1", "weight": 1.2}, "from 0 to 1"),
        ({"translate_to": "T1", "fusion": "local", "weight": 0.5}, "no weight"),
        ({"translate_to": "T1", "fusion": "joint", "weight": StructureWeights({"grey": 0.5})}, "joint registers once"),
        ({"second_image": Path("T1.nii")}, "modality's name"),
        ({"model": "T2-T1"}, "translate nothing"),
        ({"engine": "spm"}, "greedy, ants, elastix"),
        ({"jobs": 0}, "number of jobs"),
        ({"seed": -1}, "seed"),
        ({"memory_gb": 0}, "above 0"),
        ({"mask": "head"}, "auto, none or a file"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(values, words):
    with pytest.raises(BadInput, match=words):
        RegistrationSettings("T2", **values)


def test_weights_come_as_number_auto_or_file(tmp_path):
    assert parse_weight("0.25") == 0.25 and parse_weight("auto") == "auto"
    (tmp_path / "w.json").write_text('{"default": 0.4, "weights": {"grey": 0.7}, "folds": 5}')
    weights = parse_weight(str(tmp_path / "w.json"))
    assert weights.default == 0.4 and weights.weights == {"grey": 0.7}
    (tmp_path / "w.json").write_text('{"grey": 0.7, "white": 3}')
    with pytest.raises(BadInput, match="white must be a number from 0 to 1"):
        parse_weight(str(tmp_path / "w.json"))
    for text in ("half", str(tmp_path / "none.json")):
        with pytest.raises(BadInput):
            parse_weight(text)


def test_the_atlases_of_an_unfilled_last_round_share_all_cores(monkeypatch):
    monkeypatch.setattr("IMTRegisterLib.registration.jobs.available_cores", lambda: 4)
    settings = RegistrationSettings("T2", "T1", memory_gb=100.0, jobs=2)
    three, four = plan_jobs(settings, 3, 100_000), plan_jobs(settings, 4, 100_000)
    assert [three.threads_of(n, 3) for n in range(3)] == [2, 2, 4]
    assert [four.threads_of(n, 4) for n in range(4)] == [2, 2, 2, 2]
    fixed = plan_jobs(replace(settings, threads=1), 3, 100_000)
    assert [fixed.threads_of(n, 3) for n in range(3)] == [1, 1, 1]


def test_a_label_map_is_refused_in_the_subjects_and_the_second_images_place(cohort, tmp_path):
    labels, outputs = cohort.subject.with_name("labels.nii.gz"), RegistrationOutputs(tmp_path / "labels.nii.gz")
    for subject, changes in ((labels, {}), (cohort.subject, {"translate_to": "T1", "second_image": labels})):
        settings = RegistrationSettings("T2", **changes)
        with pytest.raises(BadInput, match="label map"):
            register_subject(subject, read_atlas_set(cohort.atlases, settings.modalities), settings, outputs)
    assert not list(tmp_path.iterdir())


def test_labels_of_a_synthetic_subject_say_so(cohort, cache, tmp_path):
    subject, labels = tmp_path / "T2.nii.gz", tmp_path / "out" / "labels.nii.gz"
    shutil.copy(cohort.subject, subject)
    (tmp_path / "T2.json").write_text('{"synthetic": true}')
    settings = RegistrationSettings("T2", **QUICK, cache=cache)
    register_subject(subject, read_atlas_set(cohort.atlases, settings.modalities), settings, RegistrationOutputs(labels))
    assert json.loads((labels.parent / "labels.json").read_text())["derived_from_synthetic"] is True
