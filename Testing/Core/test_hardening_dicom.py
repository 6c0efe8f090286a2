"""Faults that the hostile DICOM folders of Testing/Hardening found, each mended: GDCM is given no file that lacks bytes."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Hardening"))

from home import head_volume, write_series

from IMTCore.dicom_lengths import check_lengths
from IMTCore.errors import BadInput
from IMTCore.volume_io import read_volume


def element(group: int, number: int, kind: bytes, value: bytes, claimed: int | None = None) -> bytes:
    """An element with explicit kind and a short length."""
    return struct.pack("<HH2sH", group, number, kind, len(value) if claimed is None else claimed) + value


def dicom_file(path: Path, body: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> None:
    path.write_bytes(bytes(128) + b"DICM" + element(2, 0x10, b"UI", syntax) + body)


def test_a_dicom_element_that_claims_more_than_its_file_has_is_found(tmp_path: Path) -> None:
    dicom_file(tmp_path / "a.dcm", element(0x10, 0x20, b"LO", b"phantom "))
    (tmp_path / "notes.txt").write_text("no DICOM file")
    check_lengths(tmp_path)
    dicom_file(tmp_path / "b.dcm", struct.pack("<HH2sHI", 0x10, 0x20, b"UN", 0, 0x70000000) + b"x")
    with pytest.raises(BadInput, match="b.dcm is damaged or truncated"):
        check_lengths(tmp_path)


@pytest.mark.parametrize("given", [24, 23])
def test_dicom_pixels_of_too_few_bytes_are_refused_and_not_filled_from_memory(tmp_path: Path, given: int) -> None:
    def number(tag: int, value: int) -> bytes:
        return element(0x28, tag, b"US", struct.pack("<H", value))

    icon = struct.pack("<HH2sHI", 0x88, 0x200, b"SQ", 0, 18) + struct.pack("<HHI", 0xFFFE, 0xE000, 10) + number(0x10, 500)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, given) + bytes(given)
    dicom_file(tmp_path / "a.dcm", number(2, 1) + number(0x10, 3) + number(0x11, 4) + number(0x100, 16) + icon + pixels)
    if given == 24:
        check_lengths(tmp_path)
    else:
        with pytest.raises(BadInput, match=r"a\.dcm .* 4 x 3 pixels of 16 bits are 24 bytes, and it has 23"):
            check_lengths(tmp_path)


@pytest.mark.parametrize("syntax", [b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.1.99"])
def test_dicom_files_in_other_byte_orders_are_left_to_gdcm(tmp_path: Path, syntax: bytes) -> None:
    dicom_file(tmp_path / "a.dcm", b"\0\x10\0\x20LO\x7f\xff", syntax)
    check_lengths(tmp_path)


def test_elements_in_sequences_of_open_length_are_walked_and_compressed_pixels_are_not(tmp_path: Path) -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    sequence = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 6) + b"\xff" * 6
    dicom_file(tmp_path / "a.dcm", sequence + element(8, 0x1155, b"UI", b"1.2\0") + ends + pixels + ends[8:])
    check_lengths(tmp_path)
    dicom_file(tmp_path / "a.dcm", sequence + element(8, 0x1155, b"UI", b"1.2\0", 60_000) + ends)
    with pytest.raises(BadInput):
        check_lengths(tmp_path)


def test_a_series_whose_pixels_are_half_as_many_as_it_says_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "series", head_volume())
    read_volume(tmp_path / "series")
    for path in (tmp_path / "series").iterdir():
        data = pydicom.dcmread(path)
        data.BitsAllocated = 32
        data.save_as(path)
    with pytest.raises(BadInput, match="damaged or truncated"):
        read_volume(tmp_path / "series")
