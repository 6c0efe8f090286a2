"""`imt evaluate` writes an error map and a report, whole or not at all, and never over an input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import head_phantom, store
from scipy.ndimage import gaussian_filter

from IMTCommand.__main__ import main
from IMTCore.volume_io import read_volume, write_volume

BLOCK = (slice(8, 11), slice(10, 13), slice(9, 12))


@pytest.fixture
def files(tmp_path):
    """truth.nrrd, and prediction.nrrd that lacks a quarter of the range in a block of voxels."""
    head = head_phantom()
    write_volume(tmp_path / "truth.nrrd", store(head))
    worse = head.copy()
    worse[BLOCK] -= 0.25 * np.percentile(head[head > 0], 99.5)
    write_volume(tmp_path / "prediction.nrrd", store(worse))
    return tmp_path


def arguments(folder, *more: object) -> list[str]:
    return ["evaluate", "--truth", str(folder / "truth.nrrd"), "--prediction", str(folder / "prediction.nrrd"), *map(str, more)]


def test_the_error_map_lies_on_the_truths_grid_and_shows_where_in_percent(files):
    assert main(arguments(files, "--error-map", files / "error.nrrd", "--report", files / "report.json")) == 0
    truth, error = read_volume(files / "truth.nrrd"), read_volume(files / "error.nrrd")
    assert error.geometry.is_close(truth.geometry)
    assert error.array[BLOCK] == pytest.approx(25, abs=0.5)
    rest = error.array.copy()
    rest[BLOCK] = 0
    assert rest.max() < 0.5
    report = json.loads((files / "report.json").read_text(encoding="utf-8"))
    assert {"mae", "psnr", "ssim", "mi", "scaling", "region"} <= set(report["scores"][0])


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def refused(folder, capsys, *more: object) -> str:
    """The message of a call that must end with code 2 and leave every file as it was."""
    before = contents(folder)
    assert main(arguments(folder, *more)) == 2
    caught = capsys.readouterr()
    assert contents(folder) == before and caught.out == "" and caught.err.count("\n") == 1
    return caught.err


@pytest.mark.parametrize("option", ["--error-map", "--report"])
def test_an_output_over_an_input_is_refused(files, option, capsys):
    assert "truth.nrrd, one of the inputs" in refused(files, capsys, option, files / "truth.nrrd")


@pytest.mark.parametrize("name", ["truth", "prediction", "mask"])
def test_a_report_over_the_sidecar_of_an_input_is_refused(files, name, capsys):
    write_volume(files / "mask.nrrd", store((head_phantom() > 400).astype(np.uint8)))
    mask = ("--mask", files / "mask.nrrd")
    message = f"the sidecar of {files / name}.nrrd"
    assert message in refused(files, capsys, *mask, "--report", files / f"{name}.json")  # none yet, but that is its place
    (files / f"{name}.json").write_text('{"EchoTime": 0.1}', encoding="utf-8")
    (files / "below").mkdir()
    assert message in refused(files, capsys, *mask, "--error-map", files / "error.nrrd", "--report", files / "below" / ".." / f"{name}.json")
    (files / "other.json").hardlink_to(files / f"{name}.json")
    assert message in refused(files, capsys, *mask, "--report", files / "other.json")


def test_another_images_mark_is_not_overwritten_nor_left_beside_an_error_map(files, capsys):
    write_volume(files / "T2.nrrd", store(head_phantom()))
    (files / "T2.json").write_text('{"synthetic": true, "content": "translation"}', encoding="utf-8")
    for option in (("--report", files / "T2.json"), ("--error-map", files / "T2.nrrd")):
        assert "T2.json is the mark of a synthetic image" in refused(files, capsys, *option)


def test_both_outputs_in_one_file_or_of_unknown_format_are_refused(files, capsys):
    (files / "folder").mkdir()
    (files / "error.nrrd").write_text("", encoding="utf-8")
    (files / "report.json").hardlink_to(files / "error.nrrd")
    message = refused(files, capsys, "--error-map", files / "error.nrrd", "--report", files / "folder" / ".." / "error.nrrd")
    assert "would overwrite the other output" in message
    assert "would overwrite the other output" in refused(
        files, capsys, "--error-map", files / "error.nrrd", "--report", files / "report.json"
    )
    assert "end its name in .json or .csv" in refused(files, capsys, "--report", files / "report.txt")
    assert "end its name in one of" in refused(files, capsys, "--error-map", files / "error.png")


def test_an_output_over_a_file_of_a_dicom_folder_is_refused(files, capsys, tmp_path_factory):
    series = tmp_path_factory.mktemp("series")
    (series / "notes.json").write_text("{}", encoding="utf-8")
    paths = ["--truth", str(series), "--prediction", str(files / "prediction.nrrd")]
    assert main(["evaluate", *paths, "--report", str(series / "notes.json")]) == 2
    assert f"a file of {series}" in capsys.readouterr().err and (series / "notes.json").read_text(encoding="utf-8") == "{}"


def test_outputs_of_an_earlier_call_may_be_replaced(files):
    for _ in range(2):
        assert main(arguments(files, "--error-map", files / "error.nrrd", "--report", files / "error.json")) == 0
    assert json.loads((files / "error.json").read_text(encoding="utf-8"))["truth"].endswith("truth.nrrd")


def test_the_sharpness_is_measured_in_the_mask_and_in_millimetres(files, capsys):
    head = head_phantom() + np.where(head_phantom() > 0, np.random.default_rng(0).normal(0, 40, head_phantom().shape), 0)
    blurred = np.where(head > 0, gaussian_filter(head, (0, 1, 1)), 0)
    found = []
    for spacing in ((1.0, 1.0, 1.0), (3.0, 2.0, 2.0), (1.0, 1.0, 4.0)):
        write_volume(files / "truth.nrrd", store(head.astype(np.float32), spacing_kji=spacing))
        write_volume(files / "prediction.nrrd", store(blurred.astype(np.float32), spacing_kji=spacing))
        assert main(arguments(files, "--json")) == 0
        found.append(json.loads(capsys.readouterr().out)["sharpness"])
    assert 0.1 < found[0] < 0.8
    assert found[1] == pytest.approx(found[0]) and abs(found[2] - found[0]) > 1e-4


def test_a_report_that_cannot_be_written_leaves_no_error_map(files, capsys):
    (files / "report").write_text("a file", encoding="utf-8")
    assert main(arguments(files, "--error-map", files / "error.nrrd", "--report", files / "report" / "report.json")) == 1
    assert not (files / "error.nrrd").exists()
    assert "in the way" in capsys.readouterr().err
