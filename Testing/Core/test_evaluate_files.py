"""`imt evaluate` writes an error map and a report, whole or not at all, and never over an input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import head_phantom, store

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


@pytest.mark.parametrize("option", ["--error-map", "--report"])
def test_an_output_over_an_input_is_refused(files, option, capsys):
    before = (files / "truth.nrrd").read_bytes()
    assert main(arguments(files, option, files / "truth.nrrd")) == 2
    assert "one of the inputs" in capsys.readouterr().err
    assert (files / "truth.nrrd").read_bytes() == before


def test_a_report_that_cannot_be_written_leaves_no_error_map(files, capsys):
    (files / "report").write_text("a file", encoding="utf-8")
    assert main(arguments(files, "--error-map", files / "error.nrrd", "--report", files / "report" / "report.json")) == 1
    assert not (files / "error.nrrd").exists()
    assert "in the way" in capsys.readouterr().err
