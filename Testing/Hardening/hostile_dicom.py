"""Hostile DICOM folders: damaged files, impossible tags, slices that do not fit, things that are no DICOM files."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
from home import Home
from mutations import damage, pick

# Keyword -> values; pydicom writes them as they are.
TAGS = (
    ("Rows", (0, 1, 65535, 22000)),
    ("Columns", (0, 3, 65535)),
    ("BitsAllocated", (0, 1, 7, 8, 32, 64)),
    ("BitsStored", (0, 1, 17, 65535)),
    ("HighBit", (0, 63)),
    ("PixelRepresentation", (1, 7)),
    ("SamplesPerPixel", (0, 3, 65535)),
    ("PhotometricInterpretation", ("MONOCHROME1", "RGB", "PALETTE COLOR", "NONSENSE", "")),
    ("PixelSpacing", (["0", "0"], ["-1", "1"], ["nan", "nan"], ["1e-30", "1"], ["x", "y"], ["1"], ["1e30", "1e30"])),
    ("ImageOrientationPatient", (["0"] * 6, ["1", "0", "0", "1", "0", "0"], ["nan"] * 6, ["1"], ["1", "0", "0", "0", "0.7", "0.7"])),
    ("ImagePositionPatient", (["0", "0", "0"], ["nan", "0", "0"], ["1e30", "0", "0"], ["0", "0"], ["a", "b", "c"])),
    ("SliceThickness", ("0", "-3", "nan", "1e30", "x")),
    ("SpacingBetweenSlices", ("0", "-3", "nan", "x")),
    ("NumberOfFrames", ("2", "100000", "-1", "x")),
    ("RescaleSlope", ("0", "nan", "1e38", "1e308", "-1", "x")),
    ("RescaleIntercept", ("nan", "inf", "1e38", "x")),
    ("PlanarConfiguration", (0, 1, 9)),
    ("SeriesInstanceUID", ("", "1.2.3.99", "../../x", "x" * 64)),
    ("SOPInstanceUID", ("", "1", "../../x")),
    ("StudyInstanceUID", ("", "1.2")),
    ("FrameOfReferenceUID", ("", "1.9")),
    ("InstanceNumber", ("", "-1", "99999999999", "x")),
    ("SOPClassUID", ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.7", "", "1.2")),
    ("PatientName", ("\x1b[31m^x", "é^脳", "x" * 2000, "../../x")),
    ("SpecificCharacterSet", ("ISO_IR 192", "NONSENSE", "ISO 2022 IR 87")),
    ("ImageType", (["DERIVED", "SECONDARY"], [""], ["x" * 500])),
)


def dicom_folder(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A series with damage in one slice or in all."""
    path = folder / "series"
    shutil.copytree(home.dicom, path)
    files = sorted(path.iterdir())
    kind = pick(rng, ("bytes", "bytes", "tags", "tags", "tags", "tags", "pixels", "missing", "double", "junk", "one"))
    chosen = files if rng.random() < 0.4 else [pick(rng, files)]
    if kind == "bytes":
        for file in chosen:
            file.write_bytes(damage(rng, file.read_bytes(), 1500))
    elif kind == "tags":
        changes = [(keyword, pick(rng, found)) for keyword, found in (pick(rng, TAGS) for _ in range(int(rng.integers(1, 3))))]
        for file in chosen:
            _set_tags(file, dict(changes))
    elif kind == "pixels":
        for file in chosen:
            content = file.read_bytes()
            file.write_bytes(content[: int(pick(rng, (len(content) - 1, len(content) - 500, 700, 132, 10)))])
    elif kind == "missing":
        pick(rng, files[1:-1]).unlink()
    elif kind == "double":
        shutil.copy(files[3], path / "again.dcm")
    elif kind == "one":
        for file in files[1:]:
            file.unlink()
    elif kind == "junk":
        (path / "notes.txt").write_text("no image\n" * 50)
        (path / "loop").symlink_to(path)
        (path / "broken").symlink_to("nowhere")
        if rng.random() < 0.5:
            os.mkfifo(path / "pipe")
        else:
            (path / "DICOMDIR").write_bytes(rng.bytes(500))
    return path


def _set_tags(file: Path, tags: dict[str, object]) -> None:
    import pydicom
    from pydicom import config
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(file)
        for keyword, value in tags.items():
            text = dictionary_VR(keyword) in ("DS", "IS")
            vr = "LO" if text else dictionary_VR(keyword)  # a number's text is not checked when it is written as another kind
            data[keyword] = DataElement(tag_for_keyword(keyword), vr, value, validation_mode=config.IGNORE)
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"  # implicit: the kind is not written
        data.save_as(file, enforce_file_format=False)
