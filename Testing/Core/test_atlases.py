"""Claims on atlas sets: what is read, which faults are found and named, what `imt atlas` builds and prints."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import rotation_matrix

from IMTCommand.atlas_arguments import add_arguments
from IMTCommand.atlas_command import run
from IMTCore.errors import BadInput, Cancelled, OutputFailure
from IMTCore.label_names import LabelName, LabelNames, default_names, read_label_names, write_label_names
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTRegisterLib.atlases.atlas_sets import check_atlas_set, read_atlas_set
from IMTRegisterLib.atlases.building import build_atlas_set
from IMTRegisterLib.atlases.landmarks import write_landmarks

SHAPE = (8, 10, 9)
GEOMETRY = Geometry(SHAPE, (2.0, 2.5, 3.0), (-5.0, 4.0, 7.0), rotation_matrix(4, 15.0))
NAMES = "code,name,red,green,blue\n1,grey matter,200,150,100\n7,white matter,255,255,255\n"


def labels(seed: int = 0) -> np.ndarray:
    """Codes 0, 1 and 7 [k, j, i]; 1 and 7 fill 60 and 40 voxels."""
    result = np.zeros(SHAPE, np.int16)
    places = np.random.default_rng(seed).permutation(result.size)
    result.flat[places[:60]], result.flat[places[60:100]] = 1, 7
    return result


def put(path: Path, array: np.ndarray, geometry: Geometry = GEOMETRY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(array, geometry))
    return path


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


def moved(geometry: Geometry = GEOMETRY, mm: float = 1.0) -> Geometry:
    return Geometry(geometry.shape, geometry.spacing_mm, geometry.origin_lps + mm, geometry.direction)


@pytest.fixture
def atlases(tmp_path: Path) -> Path:
    """Three atlases with T1 and T2 (the second in other formats), and names."""
    folder = tmp_path / "atl äs"
    for number, (name, suffix) in enumerate((("A", ".nii.gz"), ("B", ".nrrd"), ("C", ".nii.gz"))):
        put(folder / name / f"T1{suffix}", image(number))
        put(folder / name / f"t2{suffix}", image(10 + number))
        put(folder / name / f"labels{suffix}", labels(number))
    (folder / "labels.csv").write_text(NAMES, encoding="utf-8")
    return folder


def as_csv(folder: Path, extra: str = "") -> Path:
    """A CSV beside the folder that names its files."""
    files = [file for sub in sorted(folder.glob("*/")) for file in sorted(sub.iterdir())]
    rows = [f"{file.parent.name},{file.name.partition('.')[0]},{file.relative_to(folder.parent)}" for file in files]
    path = folder.parent / "set.csv"
    path.write_text("\n".join(["atlas,modality,path", *rows]) + "\n" + extra, encoding="utf-8")
    return path


def imt_atlas(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


# --- Reading -------------------------------------------------------------------------------------------------------


def test_a_folder_of_atlases_is_read(atlases):
    read = read_atlas_set(atlases, ["T1", "T2"])
    assert [atlas.name for atlas in read.atlases] == ["A", "B", "C"]
    assert read.atlases[1].images == {"T1": atlases / "B" / "T1.nrrd", "T2": atlases / "B" / "t2.nrrd"}
    assert read.atlases[1].labels == atlases / "B" / "labels.nrrd" and read.atlases[1].landmarks is None
    assert read.codes == (1, 7) and read.names[7] == LabelName(7, "white matter", (255, 255, 255))
    assert read.warnings == ()
    assert read.facts[0].volumes_ml == pytest.approx({1: 60 * 0.015, 7: 40 * 0.015})


def test_a_csv_names_the_same_set(atlases):
    shutil.copy(atlases / "labels.csv", atlases.parent)
    folder, table = read_atlas_set(atlases, ["T1", "T2"]), read_atlas_set(as_csv(atlases), ["T1", "T2"])
    assert table.atlases == folder.atlases and dict(table.names) == dict(folder.names) and table.warnings == ()


def test_without_names_each_label_has_its_own_and_that_is_said(atlases):
    (atlases / "labels.csv").unlink()
    read = read_atlas_set(atlases, ["T1"])
    assert [entry.name for entry in read.names.values()] == ["label 1", "label 7"]
    assert "There is no labels.csv" in read.warnings[0]


def test_default_colours_are_distinct():
    colours = np.array([entry.colour for entry in default_names(range(1, 61)).values()], float)
    assert np.unique(colours, axis=0).shape == (60, 3)
    first = colours[:12]
    assert min(np.abs(a - b).max() for n, a in enumerate(first) for b in first[:n]) > 20


def test_one_atlas_is_allowed_with_a_warning(atlases):
    for name in "BC":
        shutil.rmtree(atlases / name)
    assert "one atlas only" in " ".join(read_atlas_set(atlases, ["T1"]).warnings)


def test_what_may_surprise_is_warned_of(atlases):
    (atlases / "A" / "t2.nii.gz").unlink()
    put(atlases / "B" / "labels.nrrd", np.where(labels(1) == 7, 0, labels(1)))
    shutil.copy(atlases / "A" / "labels.nii.gz", atlases / "C" / "labels.nii.gz")
    (atlases / "notes").mkdir()
    (atlases / "labels.csv").write_text(NAMES + "9,tumour,255,0,0\n", encoding="utf-8")
    write_landmarks(atlases / "A" / "landmarks.mrk.json", {"L1": GEOMETRY.origin_lps, "L2": np.array([900.0, 0, 0])})
    warnings = " ".join(read_atlas_set(atlases).warnings)
    for words in (
        "t2 is in 2 of 3 atlases",
        "white matter (2)",
        "A and C have the same labels",
        "notes holds no image",
        "No atlas has the label tumour",
        "A: the landmarks L2 lie outside",
    ):
        assert words in warnings, warnings


def test_integers_stored_as_real_numbers_are_labels(atlases):
    put(atlases / "A" / "labels.nii.gz", labels().astype(np.float32))
    assert read_atlas_set(atlases, ["T1"]).codes == (1, 7)


# --- Faults --------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "modality missing": (lambda a: (a / "A" / "t2.nii.gz").unlink(), "A: there is no T2 image, but T1"),
    "labels missing": (lambda a: (a / "B" / "labels.nrrd").unlink(), "B: there are no labels"),
    "another size": (
        lambda a: put(a / "A" / "labels.nii.gz", labels()[1:], Geometry((7, 10, 9), (2, 2.5, 3), GEOMETRY.origin_lps, GEOMETRY.direction)),
        "A: T1, t2 are on another grid than the labels (9x10x8 voxels of 2x2.5x3 mm against 9x10x7",
    ),
    "another place": (lambda a: put(a / "C" / "t2.nii.gz", image(1), moved()), "C: t2 is on another grid than the labels (at another place)"),
    "two files": (lambda a: put(a / "A" / "T1.nrrd", image(1)), "A: there are 2 files for T1"),
    "same name": (lambda a: shutil.copytree(a / "A", a / "a"), "another atlas is called A"),
    "unknown codes": (lambda a: put(a / "A" / "labels.nii.gz", labels() * 3), "A: the label codes 3, 21 are not in labels.csv"),
    "no integers": (lambda a: put(a / "A" / "labels.nii.gz", labels() * np.float32(0.5)), "no whole numbers"),
    "negative": (lambda a: put(a / "A" / "labels.nii.gz", -labels()), "label codes -7, -1"),
    "too large": (lambda a: put(a / "A" / "labels.nii.gz", labels().astype(np.int32) * 70000), "70000"),
    "empty": (lambda a: put(a / "A" / "labels.nii.gz", np.zeros(SHAPE, np.int16)), "labels.nii.gz is empty"),
    "damaged image": (lambda a: (a / "A" / "T1.nii.gz").write_bytes(b"\x1f\x8b\x08 no"), "T1.nii.gz"),
    "bad landmarks": (lambda a: (a / "A" / "landmarks.json").write_text("{}"), "landmarks.json does not say its coordinate system"),
    "bad names": (lambda a: (a / "labels.csv").write_text("code,name,red,green,blue\n1,x,300,0,0\n"), "line 2: red, green and blue"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_atlas(atlases, fault):
    make, words = FAULTS[fault]
    make(atlases)
    if fault == "same name" and len(list(atlases.glob("*/"))) == 3:
        pytest.skip("this disk does not tell A from a")
    with pytest.raises(BadInput) as refusal:
        read_atlas_set(atlases, ["T1", "T2"])
    assert words.casefold() in str(refusal.value).casefold()
    assert "has 1 fault:" in str(refusal.value)


def test_the_faults_of_all_atlases_come_together(atlases):
    (atlases / "A" / "T1.nii.gz").unlink()
    put(atlases / "C" / "labels.nii.gz", labels() * 2)
    with pytest.raises(BadInput) as refusal:
        read_atlas_set(atlases, ["T1", "FLAIR"])
    for words in ("5 faults", "A: there is no T1", "A: there is no FLAIR", "B: there is no FLAIR", "C: there is no FLAIR", "codes 2, 14"):
        assert words in str(refusal.value)


def test_faults_of_a_csv_are_named(atlases):
    path = as_csv(atlases, "A,T1,gone.nii.gz\n../x,T1,gone.nii.gz\nB,,x\n")
    checked = check_atlas_set(path, ["T1"])
    problems = " | ".join(checked.problems)
    for words in ("line 13: atlas, modality and path", "A: there are 2 files for T1", "../x: an atlas's name", "gone.nii.gz does not exist"):
        assert words in problems, problems
    assert [atlas.name for atlas in checked.atlases] == ["B", "C"]


def test_a_place_without_atlases_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("case,modality,path\na,b,c\n")
    with pytest.raises(BadInput, match="holds no atlas"):
        read_atlas_set(tmp_path / "empty", ["T1"])
    with pytest.raises(BadInput, match="There is no atlas set"):
        read_atlas_set(tmp_path / "gone", ["T1"])
    with pytest.raises(BadInput, match="lacks the column.* atlas"):
        read_atlas_set(tmp_path / "bad.csv", ["T1"])


# --- Names ---------------------------------------------------------------------------------------------------------


def test_names_are_written_and_read_back(tmp_path):
    names = LabelNames([LabelName(12, 'left "x", y', (1, 2, 3), "SCT^1^Brain"), LabelName(3, "größe", (0, 0, 255))])
    write_label_names(tmp_path / "labels.csv", names)
    assert list(read_label_names(tmp_path / "labels.csv").values()) == [names[3], names[12]]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("1,a,0,0,0\n1,b,0,0,0\n", "code 1 comes twice"),
        ("1,a,0,0,0\n2,A,0,0,0\n", "Two labels are called A"),
        ("x,a,0,0,0\n", "line 2: the code 'x'"),
        ("1,,0,0,0\n", "line 2: the label 1 has no name"),
        ("70000,a,0,0,0\n", "not from 1 to 65535"),
        ("1,a,0,-1,0\n", "from 0 to 255"),
        ("1,a, b,0,0,0\n", "line 2: it has more cells"),
        ("", "no lines"),
    ],
)
def test_faults_of_names_are_told_with_file_and_line(tmp_path, lines, words):
    path = tmp_path / "labels.csv"
    path.write_text("code,name,red,green,blue\n" + lines)
    with pytest.raises(BadInput) as refusal:
        read_label_names(path)
    assert words in str(refusal.value) and str(path) in str(refusal.value)


def test_background_and_colourless_labels_are_taken(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("Code, Name ,red,green,blue\n0,background,0,0,0\n\n5,putamen,,,\n")
    names = read_label_names(path)
    assert list(names) == [5] and names[5].colour == default_names([5])[5].colour


def test_structures_are_chosen_by_name_or_code():
    names = LabelNames([LabelName(1, "grey", (0, 0, 0)), LabelName(7, "White", (0, 0, 0))])
    assert names.select(["white", "1"]) == [1, 7] and names.name_of(9) == "label 9"
    with pytest.raises(BadInput, match=r"no structure csf.*grey \(1\), White \(7\)"):
        names.select(["csf"])


# --- imt atlas -----------------------------------------------------------------------------------------------------


def test_check_prints_modalities_grids_and_volumes(atlases, capsys):
    assert imt_atlas("check", atlases, "--modality", "T1", "--modality", "T2") == 0
    printed = capsys.readouterr().out
    for words in ("B      T1, T2      9x10x8  2x2.5x3", "white matter", "0.600", "0.900"):
        assert words in printed, printed


def test_check_lists_faults_and_ends_with_exit_code_2(atlases, capsys):
    (atlases / "A" / "t2.nii.gz").unlink()
    with pytest.raises(BadInput, match="has 1 fault") as refusal:
        imt_atlas("check", atlases, "--modality", "T2", "--json")
    assert refusal.value.exit_code == 2
    report = json.loads(capsys.readouterr().out)
    assert len(report["problems"]) == 1 and report["problems"][0].startswith("A: there is no T2")
    assert report["atlases"][1] == {
        "atlas": "B",
        "modalities": ["T1", "T2"],
        "size": [9, 10, 8],
        "voxel_mm": [2.0, 2.5, 3.0],
        "labels": 2,
        "landmarks": 0,
    }
    assert report["labels"][1]["name"] == "white matter" and report["labels"][1]["volumes_ml"]["C"] == 0.6


def test_build_makes_a_set_that_reads_as_its_source(atlases, tmp_path, capsys):
    write_landmarks(atlases / "B" / "landmarks.mrk.json", {"L1": GEOMETRY.origin_lps})
    put(atlases / "A" / "labels.nii.gz", labels().astype(np.float32))
    source, output = as_csv(atlases), tmp_path / "new" / "set"
    words = ("--from", source, "--output", output, "--labels-csv", atlases / "labels.csv", "--modality", "T2", "--rename")
    assert imt_atlas("build", *words) == 0
    assert "atlas02 from B" in capsys.readouterr().out
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*")) == [
        *(f"atlas01/{name}" for name in ("T2.nii.gz", "labels.nii.gz")),
        *(f"atlas02/{name}" for name in ("T2.nii.gz", "labels.nii.gz", "landmarks.mrk.json")),
        *(f"atlas03/{name}" for name in ("T2.nii.gz", "labels.nii.gz")),
        "labels.csv",
    ]
    built = read_atlas_set(output, ["T2"])
    assert built.names[1].name == "grey matter" and built.facts[1].landmarks == 1
    for number, name in enumerate("ABC", start=1):
        old, new = (read_volume(next((folder).glob("[tT]2.*"))) for folder in (atlases / name, output / f"atlas0{number}"))
        assert np.array_equal(old.array, new.array) and new.geometry.is_close(old.geometry)
        stored = read_volume(output / f"atlas0{number}" / "labels.nii.gz")
        assert stored.array.dtype == np.uint8 and np.array_equal(stored.array, labels(number - 1))


def test_labels_of_another_name_become_labels(atlases, tmp_path):
    for name in "ABC":
        file = next((atlases / name).glob("labels.*"))
        file.rename(file.with_name(file.name.replace("labels", "tissues")))
    built = build_atlas_set(atlases, tmp_path / "set", labels="tissues").atlases
    assert built.atlases == read_atlas_set(tmp_path / "set").atlases
    assert sorted(built.atlases[0].images) == ["T1", "t2"]


def test_a_faulty_source_builds_nothing(atlases, tmp_path):
    (atlases / "B" / "labels.nrrd").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match="B: there are no labels"):
        build_atlas_set(atlases, tmp_path / "set")
    assert sorted(tmp_path.iterdir()) == before


def test_a_cancelled_or_failed_build_leaves_nothing(atlases, tmp_path):
    def cancel(stage: str, fraction: float, name: str) -> None:
        if stage == "copy" and name == "B":
            raise Cancelled("Cancelled.")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(Cancelled):
        build_atlas_set(atlases, tmp_path / "set", progress=cancel)
    with pytest.raises(OutputFailure, match="in the way"):
        build_atlas_set(atlases, atlases / "labels.csv" / "set")
    assert sorted(tmp_path.iterdir()) == before


def test_build_changes_no_folder_that_is_there(atlases, tmp_path):
    with pytest.raises(BadInput, match="exists and is not empty"):
        build_atlas_set(atlases, atlases)
    assert len(list(atlases.iterdir())) == 4
    (tmp_path / "set").mkdir()
    assert len(build_atlas_set(atlases, tmp_path / "set").origins) == 3
