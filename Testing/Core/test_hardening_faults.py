"""Faults that the hostile inputs of Testing/Hardening found, each mended: in volumes, models and transforms."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import head_file, head_phantom, store
from packages import write_tiny_package

from IMTCommand.__main__ import main
from IMTCore.cards import read_card
from IMTCore.errors import BadInput, BadModel
from IMTCore.legacy_import import read_state_dict
from IMTCore.machine import MAX_VOXELS, check_size
from IMTCore.provenance import read_mark
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTRegisterLib.atlases.landmarks import read_landmarks
from IMTRegisterLib.deformations.transforms import read_transform
from IMTSegmentLib.comparison import _codes

posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")


def nifti_bytes(folder: Path) -> bytearray:
    path = folder / "whole.nii"
    write_volume(path, store(head_phantom((6, 9, 8))))
    return bytearray(path.read_bytes())


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_volume(path)
    assert path.name in str(caught.value)
    return str(caught.value)


# --- Volumes -------------------------------------------------------------------------------------------------------


def test_a_code_of_units_that_there_is_not_counts_as_mm(tmp_path: Path) -> None:
    content = nifti_bytes(tmp_path)
    content[123] = 7
    (tmp_path / "units.nii").write_bytes(content)
    assert np.allclose(read_volume(tmp_path / "units.nii").geometry.spacing_mm, 1)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_claims_more_than_its_file_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    content = nifti_bytes(tmp_path)
    struct.pack_into("<3h", content, 42, 3000, 3000, 3000)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert "cannot hold them" in refused(tmp_path / name)


def test_a_file_of_zeros_that_unpacks_to_gigabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    content = nifti_bytes(tmp_path)
    struct.pack_into("<3h", content, 42, 1000, 1000, 1000)
    struct.pack_into("<hh", content, 70, 2, 8)
    (tmp_path / "zeros.nii.gz").write_bytes(gzip.compress(content[:352]) + gzip.compress(bytes(1 << 24)) * 60)
    assert f"at most {MAX_VOXELS / 1e6:.0f} million" in refused(tmp_path / "zeros.nii.gz")


def test_a_nrrd_that_claims_terabytes_is_refused_before_itk_takes_them(tmp_path: Path) -> None:
    lines = ["NRRD0004", "type: float", "dimension: 3", "sizes: 30000 30000 30000", "encoding: gzip", "endian: little", "", ""]
    (tmp_path / "a.nrrd").write_bytes("\n".join(lines).encode() + gzip.compress(bytes(9999)))
    assert "million" in refused(tmp_path / "a.nrrd")


def test_an_image_that_the_free_memory_has_no_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("IMTCore.machine.free_gigabytes", lambda: 0.5)
    check_size(Path("small.nii"), (100, 100, 100), 4)
    with pytest.raises(BadInput, match="large.nii.*0.5 GB of memory are free"):
        check_size(Path("large.nii"), (400, 400, 400), 4)


@pytest.mark.parametrize("line", [b"CompressedDataSize = 1", b"DimSize = 8 9 60"])
def test_a_metaimage_of_too_few_compressed_voxels_is_refused_and_not_filled_from_memory(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "short.mha"
    write_volume(path, store(head_phantom((6, 9, 8))))
    key = line.split(b" =")[0]
    lines = [line if old.startswith(key + b" =") else old for old in path.read_bytes().split(b"\n")]
    path.write_bytes(b"\n".join(lines))
    assert "damaged or truncated" in refused(path)


@pytest.mark.parametrize("data", ["LOCAL", "voxels.zraw"])
def test_a_whole_compressed_metaimage_is_read(tmp_path: Path, data: str) -> None:
    path = tmp_path / ("whole.mha" if data == "LOCAL" else "whole.mhd")
    image = sitk.GetImageFromArray(head_phantom((6, 9, 8)))
    sitk.WriteImage(image, str(path), useCompression=True)
    if data != "LOCAL":
        text = path.read_text().replace("whole.zraw", data)
        (tmp_path / "whole.zraw").rename(tmp_path / data)
        path.write_text(text)
    assert np.array_equal(read_volume(path).array, head_phantom((6, 9, 8)))


@posix
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd", "mgz"])
def test_a_pipe_in_an_images_place_is_refused_and_not_waited_for(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    assert "not a file" in refused(tmp_path / f"pipe.{suffix}")
    os.mkfifo(tmp_path / "mark.json")
    assert read_mark(tmp_path / "mark.json") == {}


@posix
@pytest.mark.parametrize("lines", [["data file: /dev/zero"], ["line skip: 1000000", "datafile: pipe"], ["data file: LIST", "a.raw", "pipe"]])
def test_a_header_that_names_a_device_or_a_pipe_for_its_voxels_is_refused(tmp_path: Path, lines: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.raw").write_bytes(bytes(400))
    head = ["NRRD0004", "type: float", "dimension: 3", "sizes: 10 10 2", "encoding: raw", "endian: little"]
    (tmp_path / "a.nhdr").write_text("\n".join([*head, *lines, "", ""]))
    assert "is no file" in refused(tmp_path / "a.nhdr")
    meta = "ObjectType = Image\nNDims = 3\nDimSize = 10 10 2\nElementType = MET_FLOAT\nElementDataFile = pipe\n"
    (tmp_path / "b.mhd").write_text(meta)
    assert "is no file" in refused(tmp_path / "b.mhd")


def test_labels_beyond_all_codes_are_no_reference() -> None:
    volume = store(head_phantom((6, 9, 8)) * 0 + np.float32(1e30))
    with pytest.raises(BadInput, match="no label map"):
        _codes(volume)


@pytest.mark.parametrize("scale", [1e-38, 1e35])
def test_intensities_that_single_precision_cannot_scale_are_refused(tmp_path: Path, model: Path, scale: float, capsys: pytest.CaptureFixture) -> None:
    head = read_volume(head_file(tmp_path / "head.nii.gz"))
    write_volume(tmp_path / "odd.nii", head.with_array((head.array.astype(np.float64) * scale).astype(np.float32)))
    assert main(["translate", str(tmp_path / "odd.nii"), "--model", str(model), "--output", str(tmp_path / "o.nii")]) == 2
    assert "odd.nii" in (said := capsys.readouterr().err) and "single precision" in said


def test_numbers_that_differ_by_less_than_a_float_tells_are_all_background(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture) -> None:
    head = read_volume(head_file(tmp_path / "head.nii.gz"))
    image = nibabel.Nifti1Image(head.array.T.astype(np.int64) // 10 + (1 << 62), head.geometry.affine_ras, dtype=np.int64)
    image.to_filename(tmp_path / "vast.nii")
    assert main(["translate", str(tmp_path / "vast.nii"), "--model", str(model), "--output", str(tmp_path / "o.nii")]) == 2
    assert "vast.nii is all background" in capsys.readouterr().err


@pytest.mark.parametrize("distance", [1e-6, 1e5])
def test_slices_at_an_impossible_distance_are_refused(tmp_path: Path, model: Path, distance: float, capsys: pytest.CaptureFixture) -> None:
    head = read_volume(head_file(tmp_path / "head.nii.gz"))
    strange = Geometry(head.array.shape, (*head.geometry.spacing_mm[:2], distance), (0, 0, 0), np.eye(3))
    write_volume(tmp_path / "thin.nii", Volume(head.array, strange))
    words = ["translate", str(tmp_path / "thin.nii"), "--model", str(model), "--output", str(tmp_path / "o.nii"), "--bias-correction"]
    assert main(words) == 2 and "thin.nii" in (said := capsys.readouterr().err) and "mm apart" in said


# --- Models --------------------------------------------------------------------------------------------------------


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("form", ["pickle", "archive", "torch"])
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_no_code_of_a_file_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture, form: str, name: str) -> None:
    canary, content = tmp_path / "canary", io.BytesIO()
    if form == "pickle":
        pickle.dump({"encoder.0.weight": Touches(canary)}, content, protocol=2)
    elif form == "archive":
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Touches(canary), protocol=2))
            archive.writestr("archive/version", "3\n")
    else:
        torch.save({"encoder.0.weight": Touches(canary)}, content)
    (tmp_path / name).write_bytes(content.getvalue())
    if name == "model.safetensors":
        shutil.copy(write_tiny_package(tmp_path / "good"), tmp_path / "model.json")
    assert main(["models", "import", str(tmp_path / name), "--from", "T1", "--to", "T2"]) == 2
    assert not canary.exists() and "model" in capsys.readouterr().err
    pickle.loads(pickle.dumps(Touches(canary)))
    assert canary.exists(), "else the canary shows nothing"


def test_a_state_dict_that_unpacks_to_more_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    with pytest.raises(BadInput, match=r"bomb\.pth is not a plain PyTorch state dict"):
        read_state_dict(path)


def test_an_import_that_fails_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"encoder.x.weight": torch.zeros(2)}, tmp_path / "other.pth")
    assert main(["models", "import", str(tmp_path / "other.pth"), "--from", "T1", "--to", "T2"]) == 2
    assert "other.pth" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202etxet", "bell\x07"])
def test_a_card_whose_texts_would_act_on_a_terminal_is_refused(tmp_path: Path, text: str) -> None:
    path = write_tiny_package(tmp_path)
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "title": "T1 to T2\u00a0\u2013 fine"}))
    assert read_card(path).content["title"]
    path.write_text(json.dumps({**card, "limits": ["fine", text]}))
    with pytest.raises(BadModel, match="control characters"):
        read_card(path)


@posix
def test_a_pipe_in_a_cards_place_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "T1-T2.json")
    assert main(["models", "show", str(tmp_path / "T1-T2.json")]) == 2
    assert main(["models", "import", str(tmp_path / "T1-T2.json")]) == 2


# --- Transforms and landmarks --------------------------------------------------------------------------------------


def test_a_transform_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    affine = sitk.AffineTransform(3)
    affine.SetTranslation((float("nan"), 0, 0))
    sitk.WriteTransform(affine, str(tmp_path / "nan.tfm"))
    with pytest.raises(BadInput, match=r"nan\.tfm"):
        read_transform(tmp_path / "nan.tfm")


def test_a_landmark_at_a_number_of_400_digits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"coordinateSystem": "LPS", "L1": [10**400, 0, 0]}))
    with pytest.raises(BadInput, match="not three numbers"):
        read_landmarks(tmp_path / "l.json")


def test_an_absurd_range_in_a_mark_does_not_break_a_score(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    truth, made = head_file(tmp_path / "truth.nii.gz"), head_file(tmp_path / "made.nii.gz", 1)
    for top in (10**400, float("inf"), float("nan"), 1e-320):
        mark = {"synthetic": True, "content": "translation", "output_range": [0, top]}
        (tmp_path / "made.json").write_text(json.dumps(mark))
        assert main(["evaluate", "--truth", str(truth), "--prediction", str(made), "--json"]) == 0
        assert np.isfinite(json.loads(capsys.readouterr().out)["mae"])
