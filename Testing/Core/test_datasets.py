"""Data sets: every release is found and read in its own layout, split by patient, and prepared without surprises."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
from conftest import head_phantom, rotation_matrix, store

from IMTCore.errors import BadInput
from IMTCore.orientation import anatomical_axes
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume

TRAINING = Path(__file__).resolve().parents[2] / "Resources" / "Training"
sys.path.insert(0, str(TRAINING))

import make_split
import prepare_dataset
from datasets import LAYOUTS, MERGED, Subject, find_subjects, merged_label, read_modalities
from datasets.resampling import resample_image, resample_labels, resample_to
from datasets.slices import choose_slices, filled_slices


def by_name(root: Path, layout: str, patterns: list[str] | None = None) -> dict[str, Subject]:
    return {subject.name: subject for subject in find_subjects(root, layout, patterns)}


def same(volume: Volume, array: np.ndarray, spacing_kji: tuple[float, ...] = trees.SPACING_KJI) -> bool:
    return np.array_equal(volume.array, array) and np.allclose(volume.geometry.spacing_mm[::-1], spacing_kji, atol=1e-5)


# --- Layouts: what is found, and that the right file is read -------------------------------------------------------


def test_brats_2013_and_2015_are_read_from_their_vsd_folders(tmp_path):
    trees.brats_vsd_case(tmp_path / "BRATS-2" / "Image_Data" / "HG" / "0001", year=2013)
    trees.brats_vsd_case(tmp_path / "BRATS-2" / "Image_Data" / "LG" / "0001", year=2013)
    for case in ("brats_tcia_pat153_0109", "brats_tcia_pat153_0181", "brats_2013_pat0001_1"):
        trees.brats_vsd_case(tmp_path / "BRATS2015_Training" / "HGG" / case)
    subjects = by_name(tmp_path, "brats")
    names = ["0001", "brats_2013_pat0001_1", "brats_tcia_pat153_0109", "brats_tcia_pat153_0181"]
    assert list(subjects) == [*(f"brats-hgg/{name}" for name in names), "brats-lgg/0001"]
    for subject in subjects.values():
        for modality in ("T1", "T1C", "T2", "FLAIR"):
            assert same(subject.volume(modality), trees.image(modality)), (subject.name, modality)
        assert np.array_equal(subject.label("tumour").array, trees.tumour((1, 2, 3, 4)))
    assert {s.patient for s in subjects.values() if "pat153" in s.name} == {"brats_tcia_pat153"}
    assert list(by_name(tmp_path, "brats", ["brats-lgg/*"])) == ["brats-lgg/0001"]


NEW = {"T1": "t1n", "T1C": "t1c", "T2": "t2w", "FLAIR": "t2f"}
OLD = {"T1": "t1", "T1C": "t1ce", "T2": "t2", "FLAIR": "flair"}


@pytest.mark.parametrize(
    ("folder", "case", "separator", "words", "codes", "suffix", "name", "patient"),
    [
        (
            "MICCAI_BraTS_2018_Data_Training/HGG",
            "Brats18_TCIA08_469_1",
            "_",
            OLD,
            (1, 2, 4),
            ".nii.gz",
            "brats-hgg",
            "Brats18_TCIA08_469",
        ),
        (
            "MICCAI_BraTS_2019_Data_Training/LGG",
            "BraTS19_2013_0_1",
            "_",
            OLD,
            (1, 2, 4),
            ".nii.gz",
            "brats-lgg",
            "BraTS19_2013_0",
        ),
        ("MICCAI_BraTS2020_TrainingData", "BraTS20_Training_001", "_", OLD, (1, 2, 4), ".nii", "brats", "BraTS20_Training_001"),
        (".", "BraTS2021_00000", "_", OLD, (1, 2, 4), ".nii.gz", "brats", "BraTS2021_00000"),
        (
            "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData",
            "BraTS-GLI-00005-001",
            "-",
            NEW,
            (1, 2, 3),
            ".nii.gz",
            "brats",
            "BraTS-GLI-00005",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.lower().startswith("brats") and "_" in value else "",
)
def test_brats_2018_to_2023_are_read_by_their_nifti_names(tmp_path, folder, case, separator, words, codes, suffix, name, patient):
    trees.brats_nifti_case(tmp_path / folder / case, separator, words, codes, suffix)
    (subject,) = find_subjects(tmp_path, "brats")
    assert (subject.name, subject.patient) == (f"{name}/{case}", patient)
    assert sorted(subject.images) == sorted(words)
    for modality in words:
        assert same(subject.volume(modality), trees.image(modality)), modality
    merged = merged_label(subject).array
    assert np.array_equal(merged > 0, trees.tumour(codes) > 0)
    assert set(np.unique(merged)) == {0, MERGED["tumour"]}


def test_the_misnamed_segmentation_of_brats_2020_is_found(tmp_path):
    case = tmp_path / "BraTS20_Training_355"
    trees.brats_nifti_case(case, "_", OLD, (1, 2, 4), ".nii")
    (case / "BraTS20_Training_355_seg.nii").rename(case / "W39_1998.09.19_Segm.nii")
    assert list(find_subjects(tmp_path, "brats")[0].labels) == ["tumour"]


def test_iseg_2017_is_read_from_analyze_pairs(tmp_path):
    trees.iseg(tmp_path)
    subjects = by_name(tmp_path, "iseg2017")
    assert list(subjects) == ["iseg2017/subject-1", "iseg2017/subject-11", "iseg2017/subject-2"]
    volume = subjects["iseg2017/subject-11"].volume("T2")
    assert same(volume, trees.image("T2", subject=11))
    # The format's convention: to left, anterior, superior.
    assert np.array_equal(volume.geometry.direction, np.diag([1, -1, 1]))
    assert not subjects["iseg2017/subject-11"].labels
    merged = merged_label(subjects["iseg2017/subject-1"])
    t1 = trees.image("T1")
    assert np.array_equal(
        merged.array, np.select([t1 > 250, t1 > 120, t1 > 0], [MERGED["white"], MERGED["grey"], MERGED["csf"]], 0)
    )


def test_mrbrains_is_read_and_both_of_its_label_maps_merge_alike(tmp_path):
    trees.mrbrains(tmp_path)
    subjects = by_name(tmp_path, "mrbrains13")
    assert list(subjects) == ["mrbrains13/test-1", "mrbrains13/training-1", "mrbrains13/training-2"]
    subject = subjects["mrbrains13/training-2"]
    assert same(subject.volume("FLAIR"), trees.image("FLAIR", subject=2))
    assert same(subject.volume("T1-IR"), trees.image("PD", subject=2))
    assert subject.volume("T1-1mm").array.shape == (20, 16, 14)
    merged = merged_label(subject).array
    assert merged[4, 4, 1:9].tolist() == [2, 2, 3, 3, 1, 1, 0, 0]
    only_three = Subject(subject.name, "", subject.images, {"tissues": subject.labels["tissues"]})
    assert np.array_equal(merged_label(only_three).array, merged)
    with pytest.raises(BadInput, match=r"test-1 has no label map"):
        merged_label(subjects["mrbrains13/test-1"])


def test_rire_is_read_from_its_own_format(tmp_path):
    trees.rire(tmp_path)
    subjects = by_name(tmp_path, "rire")
    assert list(subjects) == ["rire/patient_001", "rire/training_001"]
    assert list(subjects["rire/patient_001"].images) == ["CT", "PD", "T1", "T1-rectified", "T2"]
    volumes = read_modalities(subjects["rire/training_001"], ["T1", "T2", "PD"])
    for modality, volume in volumes.items():
        assert same(volume, trees.image(modality))
        assert np.array_equal(volume.geometry.direction, np.eye(3))  # L, P, H
        assert volume.array.dtype == np.dtype(np.int16)
        assert volume.array.dtype.isnative
    assert same(subjects["rire/patient_001"].volume("T1-rectified"), trees.image("T1", subject=1))


def test_a_rire_orientation_is_heeded(tmp_path):
    trees.rire_scan(tmp_path / "patient_001" / "mr_T1", trees.image("T1"), "T1", orientation="R : A : F")
    volume = find_subjects(tmp_path, "rire")[0].volume("T1")
    axial = anatomical_axes(volume.geometry).apply(volume.array)
    assert np.array_equal(axial, trees.image("T1")[::-1, ::-1, ::-1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda scan: (scan / "image.bin").write_bytes(b"12"), "truncated: 2 bytes, not 1920"),
        (lambda scan: (scan / "image.bin").rename(scan / "image.bin.Z"), r"Unpack image\.bin\.Z"),
        (lambda scan: edit(scan / "header.ascii", "Rows := 12", "Rows := many"), "no usable value for 'rows'"),
        (lambda scan: edit(scan / "header.ascii", "L : P : H", "L : L : H"), "unknown patient orientation"),
        (lambda scan: edit(scan / "header.ascii", "allocated := 16", "allocated := 8"), "8 bits"),
    ],
)
def test_a_damaged_rire_scan_is_refused(tmp_path, spoil, message):
    scan = tmp_path / "patient_001" / "mr_T1"
    trees.rire_scan(scan, trees.image("T1"), "T1")
    spoil(scan)
    with pytest.raises(BadInput, match=rf"rire/patient_001, image T1: .*{message}"):
        find_subjects(tmp_path, "rire")[0].volume("T1")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_ixi_is_found_over_its_folders(tmp_path):
    trees.ixi(tmp_path)
    subjects = by_name(tmp_path, "ixi")
    assert list(subjects) == ["ixi/IXI002-Guys-0802", "ixi/IXI012-HH-0812"]
    subject = subjects["ixi/IXI002-Guys-0802"]
    assert (subject.patient, sorted(subject.images)) == ("IXI002", ["PD", "T1", "T2"])
    assert set(read_modalities(subject, ["T2", "PD"])) == {"T2", "PD"}


def test_bids_sessions_runs_and_contrast_agents_are_told_apart(tmp_path):
    trees.bids(tmp_path / "ds01")
    subjects = by_name(tmp_path / "ds01", "bids")
    assert list(subjects) == ["ds01/sub-01_ses-01", "ds01/sub-01_ses-02", "ds01/sub-02"]
    assert {name: sorted(subject.images) for name, subject in subjects.items()} == {
        "ds01/sub-01_ses-01": ["T1", "T2", "inplaneT2"],
        "ds01/sub-01_ses-02": ["T1", "T1-2", "T1C"],
        "ds01/sub-02": ["FLAIR", "PD", "T1"],
    }
    assert [subject.patient for subject in subjects.values()] == ["sub-01", "sub-01", "sub-02"]
    assert same(subjects["ds01/sub-01_ses-02"].volume("T1"), trees.image("T1"))  # run-01
    assert same(subjects["ds01/sub-01_ses-02"].volume("T1-2"), trees.image("T2"))  # run-02
    assert "derivatives" not in str(subjects["ds01/sub-02"].images["T1"])


def test_adni_pd_and_t2_are_told_apart_by_their_echoes(tmp_path):
    trees.adni(tmp_path)
    subjects = by_name(tmp_path, "adni")
    assert list(subjects) == ["adni/002_S_0295_2006-04-18", "adni/002_S_0295_2006-11-02", "adni/005_S_0553_2006-07-10"]
    assert [subject.patient for subject in subjects.values()] == ["002_S_0295", "002_S_0295", "005_S_0553"]
    assert sorted(subjects["adni/005_S_0553_2006-07-10"].images) == ["PD", "T1", "T1-2", "T2"]
    for subject in subjects.values():
        volumes = read_modalities(subject, ["PD", "T2"])
        for modality in ("PD", "T2"):
            assert same(volumes[modality], trees.image(modality)), (subject.name, modality)


def test_an_adni_series_without_two_echoes_is_refused_by_name(tmp_path):
    trees.adni(tmp_path)
    folder = next(tmp_path.rglob("S13405"))
    for k in range(8):
        next(folder.glob(f"*_{1 + k}_S1.dcm")).unlink()  # of the T2 echo
    subject = next(s for s in find_subjects(tmp_path, "adni") if folder in s.images.values())
    with pytest.raises(BadInput, match=rf"{subject.name}, image PD: .*does not hold the two echoes"):
        subject.volume("PD")


def test_an_adni_echo_with_a_missing_slice_is_refused_by_its_place(tmp_path):
    trees.adni(tmp_path)
    folder = next(tmp_path.rglob("S13405"))
    next(folder.glob("*_12_S1.dcm")).unlink()  # of the PD echo
    subject = next(s for s in find_subjects(tmp_path, "adni") if folder in s.images.values())
    with pytest.raises(BadInput, match=r"S13405 \(echo time 10\.6 ms\) the slices are not evenly spaced"):
        subject.volume("PD")
    assert same(subject.volume("T2"), trees.image("T2"))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Plain folders: two sessions of one patient, one of another, and a subject without T2."""
    root = tmp_path / "data"
    for subject, modalities in {
        "set/patient01_study1": ("T1", "T2"),
        "set/patient01_study2": ("T1", "T2"),
        "set/patient02": ("T1", "T2"),
        "other/a": ("T1",),
    }.items():
        for modality in modalities:
            trees.write(root / subject / f"{modality}.nii.gz", trees.image(modality))
        trees.write(root / subject / "tumour.nii.gz", trees.tumour((1, 2)))
    trees.write(root / "other" / "a" / "prob_csf.nii.gz", trees.image("PD"))
    (root / "README.md").write_text("not a subject")
    return root


def test_plain_folders_are_found_by_pattern(plain):
    assert list(by_name(plain, "folders")) == ["other/a", "set/patient01_study1", "set/patient01_study2", "set/patient02"]
    assert list(by_name(plain, "folders", ["set/*02", "other/a"])) == ["other/a", "set/patient02"]
    assert find_subjects(plain, "folders", ["SET/*"]) == []
    subject = by_name(plain, "folders")["other/a"]
    assert (sorted(subject.images), sorted(subject.labels)) == (["T1"], ["tumour"])
    assert by_name(plain, "folders")["set/patient01_study2"].patient == "patient01"


# --- Bad input -----------------------------------------------------------------------------------------------------


def test_a_missing_modality_is_named_with_the_subject(plain):
    with pytest.raises(BadInput, match=r"other/a has no image T2 \(it has: T1\)"):
        by_name(plain, "folders")["other/a"].volume("T2")


def test_an_unreadable_image_is_named_with_the_subject_and_the_file(plain):
    path = plain / "other" / "a" / "T1.nii.gz"
    path.write_bytes(b"not an image")
    with pytest.raises(BadInput, match=rf"other/a, image T1: .*{path.name}"):
        by_name(plain, "folders")["other/a"].volume("T1")


def test_images_on_two_grids_are_refused_with_both_grids(plain):
    moved = store(trees.image("T2"), spacing_kji=(3.0, 1.5, 1.6))
    write_volume(plain / "set" / "patient02" / "T2.nii.gz", moved)
    with pytest.raises(BadInput, match=r"set/patient02: T2 \(.*1\.6x1\.5x3 mm.*is not on the grid of T1 \(.*1\.5x1\.5x3 mm"):
        read_modalities(by_name(plain, "folders")["set/patient02"], ["T1", "T2"])


def test_a_label_map_with_fractions_or_foreign_codes_is_refused(plain):
    folder = plain / "other" / "a"
    trees.write(folder / "tumour.nii.gz", trees.tumour((1, 9)))
    with pytest.raises(BadInput, match=r"other/a: the label map tumour has the code 9"):
        merged_label(by_name(plain, "folders")["other/a"])
    trees.write(folder / "tumour.nii.gz", trees.tumour((1, 2)) * np.float32(0.5))
    with pytest.raises(BadInput, match=r"other/a: .*tumour\.nii\.gz is no label map"):
        by_name(plain, "folders")["other/a"].label("tumour")


def test_a_patient_without_a_tumour_has_an_empty_label_map(plain):
    trees.write(plain / "other" / "a" / "tumour.nii.gz", trees.tumour((1, 2)) * 0)
    assert not by_name(plain, "folders")["other/a"].label("tumour").array.any()


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_folder_without_the_layout_is_refused(tmp_path, layout):
    with pytest.raises(BadInput, match=f"holds no subject of layout '{layout}'"):
        find_subjects(tmp_path, layout)
    with pytest.raises(BadInput, match="is not a folder"):
        find_subjects(tmp_path / "nowhere", layout)


def test_two_files_for_one_modality_are_refused(plain):
    shutil.copy(plain / "other" / "a" / "T1.nii.gz", plain / "other" / "a" / "T1.mha")
    with pytest.raises(BadInput, match=r"T1\.mha and T1\.nii\.gz: which is T1"):
        find_subjects(plain)


def test_two_subjects_of_one_name_are_refused(tmp_path):
    for copy in ("one", "two"):
        trees.rire_scan(tmp_path / copy / "patient_001" / "mr_T1", trees.image("T1"), "T1")
    with pytest.raises(BadInput, match="two subjects named rire/patient_001"):
        find_subjects(tmp_path, "rire")


# --- Splits --------------------------------------------------------------------------------------------------------


def visits(root: Path, patients: int, visits_each: int = 1) -> Path:
    """Plain folders with one tiny image a visit."""
    tiny = store(head_phantom((4, 5, 6)))
    write_volume(root.parent / "T1.nii", tiny)
    for patient in range(patients):
        for visit in range(visits_each):
            folder = root / "set" / f"p{patient:03d}_visit{visit}"
            folder.mkdir(parents=True)
            shutil.copy(root.parent / "T1.nii", folder / "T1.nii")
    return root


def split(root: Path, output: Path, *options: object) -> dict:
    make_split.main(["--data", str(root), "--output", str(output), *map(str, options)])
    return json.loads(output.read_text())


def patients_of(names: list[str]) -> set[str]:
    return {name.split("_visit")[0] for name in names}


def test_a_published_split_has_its_sizes_and_is_the_same_for_a_seed(tmp_path, capsys):
    root = visits(tmp_path / "data", 23)
    first = split(root, tmp_path / "a.json", "--preset", "iseg2017", "--seed", 3)
    assert (len(first["train"]), first["validate"], len(first["test"])) == (18, [], 5)
    assert (first["dataset"], first["seed"], first["layout"]) == ("iseg2017", 3, "folders")
    assert not set(first["train"]) & set(first["test"])
    assert split(root, tmp_path / "b.json", "--preset", "iseg2017", "--seed", 3) == first
    assert split(root, tmp_path / "c.json", "--preset", "iseg2017", "--seed", 4) != first
    with pytest.raises(SystemExit, match="is of 20 subjects"):
        split(root, tmp_path / "d.json", "--preset", "mrbrains13")


def test_no_split_breaks_a_patient_up(tmp_path, capsys):
    root = visits(tmp_path / "data", 7, visits_each=2)
    assert len(find_subjects(root)) == 14
    ways = [("--counts", 8, 2, 4), ("--fractions", 0.6, 0.2, 0.2), ("--folds", 3)]
    for n, way in enumerate(ways):
        split_file = tmp_path / f"{n}.json"
        make_split.main(["--data", str(root), "--output", str(split_file), *map(str, way)])
        files = sorted(tmp_path.glob(f"{n}*.json"))
        tested = []
        for path in files:
            made = json.loads(path.read_text())
            parts = [patients_of(made[part]) for part in ("train", "validate", "test")]
            assert sum(map(len, parts)) == len(set.union(*parts)) == 7
            tested += made["test"]
        assert len(tested) == len(set(tested)) == {0: 4, 1: 2, 2: 14}[n]
    with pytest.raises(SystemExit, match="would break a patient up"):
        split(root, tmp_path / "odd.json", "--counts", 9, 0, 5)


def test_part_a_and_part_b_halve_the_training_subjects_and_share_the_test(tmp_path, capsys):
    root = visits(tmp_path / "data", 23)
    whole = split(root, tmp_path / "s.json", "--preset", "iseg2017", "--parts")
    a, b = (json.loads((tmp_path / f"s-part-{letter}.json").read_text()) for letter in "ab")
    assert (len(a["train"]), len(b["train"])) == (9, 9)
    assert sorted(a["train"] + b["train"]) == whole["train"]
    assert a["test"] == b["test"] == whole["test"]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (("--counts", 20, 0, 4), "wants 24 subjects, but there are 6"),
        (("--counts", 0, 0, 3), "'train' is empty"),
        (("--counts", 6, 0, 0), "nobody is held back"),
        (("--fractions", 0.9, 0.05, 0.05), "would be empty"),
        (("--fractions", 0.9, 0.2, 0.2), "must add up to 1"),
        (("--folds", 7), "there are 6 patients"),
        (("--counts", 4, 0, 2, "--subjects", "nobody/*"), "No subject"),
    ],
)
def test_a_split_that_cannot_be_is_refused(tmp_path, capsys, way, message):
    root = visits(tmp_path / "data", 6)
    with pytest.raises(SystemExit, match=message):
        split(root, tmp_path / "s.json", *way)
    assert not (tmp_path / "s.json").exists()


def test_a_split_is_never_overwritten_by_another(tmp_path, capsys):
    root = visits(tmp_path / "data", 6)
    first = split(root, tmp_path / "s.json", "--counts", 4, 0, 2)
    assert split(root, tmp_path / "s.json", "--counts", 4, 0, 2) == first
    with pytest.raises(SystemExit, match="holds another split"):
        split(root, tmp_path / "s.json", "--counts", 3, 1, 2)
    assert json.loads((tmp_path / "s.json").read_text()) == first


def test_the_listed_slices_are_as_many_as_asked_and_all_hold_a_head(plain, tmp_path, capsys):
    made = split(plain, tmp_path / "s.json", "--modalities", "T1", "T2", "--counts", 2, 0, 1, "--slices", 7, 3)
    assert "left out: other/a (no T2)" in capsys.readouterr().out
    slices = made["slices"]
    assert [sum(len(slices[name]) for name in made[part]) for part in ("train", "test")] == [7, 3]
    filled = np.flatnonzero((trees.image("T1") > 0).any(axis=(1, 2)))
    for chosen in slices.values():
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(filled.tolist())
    with pytest.raises(SystemExit, match="cannot be spread"):
        split(plain, tmp_path / "t.json", "--modalities", "T1", "T2", "--counts", 2, 0, 1, "--slices", 70, 3)


def test_slices_are_numbered_from_the_lowest_however_they_are_stored(orientation):
    head = head_phantom((20, 16, 16))
    head[12:] = 0
    stored = store(head, orientation)
    assert filled_slices(stored) == filled_slices(store(head))
    assert max(filled_slices(stored)) == 11


def test_a_subject_with_few_slices_is_made_up_for_by_the_others():
    chosen = choose_slices({"a": [5, 6], "b": list(range(20)), "c": list(range(40, 60))}, 20)
    assert {name: len(slices) for name, slices in chosen.items()} == {"a": 2, "b": 9, "c": 9}
    assert max(np.diff(chosen["b"])) <= 3


# --- Resampling ----------------------------------------------------------------------------------------------------


def smooth_head(shape: tuple[int, int, int], spacing: float, rotation: np.ndarray | None = None) -> Volume:
    return store(head_phantom(shape), spacing_kji=(spacing,) * 3, rotation=rotation)


def test_resampling_keeps_the_centre_the_extent_and_a_smooth_image_s_values(oblique):
    volume = smooth_head((30, 36, 33), 1.0, oblique)
    half = resample_image(volume, 2.0)
    assert half.geometry.shape == (15, 18, 17)
    corners = [[0, 0, 0, 1], [*(n - 1 for n in volume.geometry.shape[::-1]), 1]]
    centre = (volume.geometry.affine_ras @ np.mean(corners, axis=0))[:3]
    new_corners = [[0, 0, 0, 1], [*(n - 1 for n in half.geometry.shape[::-1]), 1]]
    assert np.allclose((half.geometry.affine_ras @ np.mean(new_corners, axis=0))[:3], centre, atol=1e-6)
    # Each new voxel is close to the old ones around its place; the head spans 0 to 1000.
    back = resample_to(volume, half.geometry)
    both = (half.array > 0) & (back.array > 0)
    assert np.abs(half.array - back.array)[both].mean() < 10
    assert np.corrcoef(half.array[both], back.array[both])[0, 1] > 0.99


def test_resampling_keeps_the_background_exact_and_the_edge_bright():
    array = np.zeros((24, 24, 24), np.float32)
    array[5:18, 5:18, 5:18] = 800
    half = resample_image(store(array), 2.0).array
    assert set(np.unique(half).round(3)) == {0.0, 800.0}
    assert abs((half > 0).sum() * 8 / (array > 0).sum() - 1) < 0.25


def test_resampling_does_not_alias_a_fine_pattern():
    pattern = np.indices((24, 24, 24)).sum(axis=0) % 2 * 100.0 + 300  # a checkerboard
    pattern += np.random.default_rng(0).normal(0, 1e-3, pattern.shape)  # no flat background
    half = resample_image(store(pattern.astype(np.float32)), 2.0).array
    assert np.abs(half[1:-1, 1:-1, 1:-1] - 350).max() < 1


def test_resampled_labels_are_codes_of_the_input_by_majority():
    labels = np.zeros((20, 20, 20), np.int16)
    labels[4:16, 4:16, 4:10] = 150
    labels[4:16, 4:16, 10:16] = 250
    half = resample_labels(store(labels), 2.0)
    assert half.array.dtype == np.int16
    assert set(np.unique(half.array)) == {0, 150, 250}
    assert [(half.array == code).sum() for code in (150, 250)] == [108, 108]


def test_a_volume_is_brought_to_a_rotated_grid_at_its_place_in_the_world():
    rotation = rotation_matrix(5, 20.0)
    volume = smooth_head((36, 40, 38), 1.0)
    centre = volume.geometry.origin_lps + (np.array(volume.geometry.shape[::-1]) - 1) / 2
    shape, spacing = (16, 18, 17), np.array([2.0, 2.0, 2.0])
    origin = centre - rotation @ (spacing * (np.array(shape[::-1]) - 1) / 2)
    target = Geometry(shape, spacing, origin, rotation)
    moved = resample_to(volume, target)
    k, j, i = 9, 8, 10
    point = origin + rotation @ (spacing * np.array([i, j, k]))
    at = np.rint(point - volume.geometry.origin_lps).astype(int)
    near = volume.array[at[2] - 1 : at[2] + 2, at[1] - 1 : at[1] + 2, at[0] - 1 : at[0] + 2]
    assert near.min() - 5 <= moved.array[k, j, i] <= near.max() + 5
    labels = volume.with_array((volume.array > 0).astype(np.uint8) * 4)
    codes = resample_to(labels, target, labels=True)
    assert codes.array.dtype == np.uint8
    assert np.mean((codes.array > 0) == (moved.array > 0)) > 0.97
    assert set(np.unique(codes.array)) == {0, 4}


# --- Preparation ---------------------------------------------------------------------------------------------------


def prepare(root: Path, output: Path, *options: object) -> None:
    prepare_dataset.main(["--data", str(root), "--output", str(output), *map(str, options)])


def test_a_release_becomes_plain_folders_with_its_patients_and_labels(tmp_path, capsys):
    for case in ("brats_tcia_pat153_0109", "brats_tcia_pat153_0181"):
        trees.brats_vsd_case(tmp_path / "in" / "HGG" / case)
    options = ("--layout", "brats", "--modalities", "T1", "T2", "--labels", "tumour", "merged")
    prepare(tmp_path / "in", tmp_path / "out", *options)
    subjects = by_name(tmp_path / "out", "folders")
    assert list(subjects) == ["brats-hgg/brats_tcia_pat153_0109", "brats-hgg/brats_tcia_pat153_0181"]
    for subject in subjects.values():
        assert subject.patient == "brats_tcia_pat153"
        volumes = read_modalities(subject, ["T1", "T2"], ["tumour", "merged"])
        assert same(volumes["T2"], trees.image("T2"))
        assert np.array_equal(volumes["tumour"].array, trees.tumour((1, 2, 3, 4)))
        assert np.array_equal(volumes["merged"].array, (trees.tumour((1, 2, 3, 4)) > 0) * MERGED["tumour"])


def test_preparation_at_another_spacing_keeps_all_on_one_grid_with_an_exact_background(plain, tmp_path, capsys):
    prepare(plain, tmp_path / "out", "--subjects", "set/*", "--modalities", "T1", "T2", "--labels", "tumour", "--spacing", 3)
    for subject in find_subjects(tmp_path / "out"):
        volumes = read_modalities(subject, ["T1", "T2"], ["tumour"])
        assert volumes["T1"].array.shape == (8, 6, 5)
        assert np.allclose(volumes["T1"].geometry.spacing_mm, 3.0)
        assert volumes["T1"].array[0, 0, 0] == 0
        assert (volumes["T1"].array == 0).mean() > 0.3
        assert set(np.unique(volumes["tumour"].array)) <= {0, 1, 2}


def test_a_broken_off_preparation_goes_on_and_never_mixes_settings(plain, tmp_path, capsys):
    options = ("--subjects", "set/*", "--modalities", "T1", "T2")
    damaged = plain / "set" / "patient02" / "T2.nii.gz"
    good = damaged.read_bytes()
    damaged.write_bytes(b"")
    with pytest.raises(SystemExit, match=r"1 of 3 subjects could not be prepared:\nset/patient02, image T2"):
        prepare(plain, tmp_path / "out", *options)
    damaged.write_bytes(good)
    done = tmp_path / "out" / "set" / "patient01_study1" / "T1.nii.gz"
    before = done.stat().st_mtime_ns
    capsys.readouterr()
    prepare(plain, tmp_path / "out", *options)
    assert capsys.readouterr().out.splitlines() == [
        "1/3 set/patient01_study1: done before",
        "2/3 set/patient01_study2: done before",
        "3/3 set/patient02: 10x12x8",
    ]
    assert done.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match=r"was prepared with other settings"):
        prepare(plain, tmp_path / "out", *options, "--spacing", 2)
    with pytest.raises(SystemExit, match="files that this script did not write"):
        prepare(plain, plain, *options, "--spacing", 2)
    assert same(read_volume(plain / "set" / "patient02" / "T1.nii.gz"), trees.image("T1"))


def test_incomplete_subjects_fail_unless_they_may_be_left_out(plain, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"other/a has no image T2"):
        prepare(plain, tmp_path / "a", "--modalities", "T1", "T2")
    capsys.readouterr()
    prepare(plain, tmp_path / "b", "--modalities", "T1", "T2", "--incomplete-ok")
    assert "other/a: left out, no T2" in capsys.readouterr().out
    assert "other/a" not in by_name(tmp_path / "b", "folders")


def test_ixi_is_paired_only_on_request_and_then_on_the_first_modality_s_grid(tmp_path, capsys):
    trees.ixi(tmp_path / "in")
    options = ("--layout", "ixi", "--modalities", "T2", "T1")
    with pytest.raises(SystemExit, match=r"ixi/IXI002-Guys-0802: T1 .* is not on the grid of T2"):
        prepare(tmp_path / "in", tmp_path / "out", *options)
    prepare(tmp_path / "in", tmp_path / "out", *options, "--resample")
    for subject in find_subjects(tmp_path / "out"):
        volumes = read_modalities(subject, ["T2", "T1"])
        assert same(volumes["T2"], trees.image("T2"))
        assert (volumes["T1"].array > 0).sum() > 50


def test_the_list_of_subjects_says_what_is_there_and_writes_nothing(plain, capsys):
    prepare_dataset.main(["--data", str(plain), "--list"])
    assert "set/patient01_study1\tpatient01\tT1 T2\ttumour" in capsys.readouterr().out.splitlines()
