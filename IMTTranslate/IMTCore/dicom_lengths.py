"""DICOM files that lack bytes, found before GDCM reads them: it takes the memory that a damaged element claims, and for
pixels that are not there it gives what happens to lie in the memory.

A walk over tags and lengths (DICOM PS3.5, 7.1) that looks at few values.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from .errors import BadInput

PREAMBLE_BYTES = 128
UNDEFINED = 0xFFFFFFFF
LONG_LENGTHS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV")
SHORT_LENGTHS = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI",
    b"UL", b"US",
)  # fmt: skip
Tag = tuple[int, int]
TRANSFER_SYNTAX, PIXELS = (0x0002, 0x0010), (0x7FE0, 0x0010)
SAMPLES, FRAMES, ROWS, COLUMNS, BITS = (0x0028, 0x0002), (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0100)
ITEM_GROUP, SEQUENCE_END = 0xFFFE, (0xFFFE, 0xE0DD)
NOT_WALKED = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # big-endian; deflated
LONGEST_VALUE = 64  # of those that are looked at


def check_lengths(folder: Path) -> None:
    """Check the DICOM files of a folder (not below); others are passed over.

    Raises:
        BadInput: naming the first file that lacks bytes.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file():
            check_file_lengths(path)


def check_file_lengths(path: Path) -> None:
    """Check one file; one that is not DICOM is passed over.

    Raises:
        BadInput: it has an element that is longer than the file, or fewer pixels than it says, or cannot be opened.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(PREAMBLE_BYTES)
            problem = _problem(stream, path.stat().st_size) if stream.read(4) == b"DICM" else None
    except OSError as error:
        raise BadInput(f"{path} cannot be opened ({error.strerror}). Check its permissions.") from error
    if problem:
        raise BadInput(f"{path} is damaged or truncated: {problem}. Copy or export it again.")


def _problem(stream: BinaryIO, size: int) -> str | None:
    values: dict[Tag, bytes] = {}  # of elements that are in no sequence
    sequences, end = 0, 0  # how many of open length we are in, and where the outermost one of a known length ends
    while len(head := stream.read(8)) == 8:
        tag, length, opens = _element(head, stream, PIXELS in values)
        nested = sequences > 0 or stream.tell() <= end
        if tag == PIXELS and not nested:
            values[PIXELS] = b""
            if length != UNDEFINED and (missing := _missing_pixels(values, length)):
                return missing
        if length == UNDEFINED:
            sequences += tag[0] != ITEM_GROUP
        elif tag == SEQUENCE_END:
            sequences -= 1
        elif stream.tell() + length > size:
            return "an element of it claims more bytes than the file has"
        elif opens:  # what is in it follows
            end = max(end, stream.tell() + length)
        elif nested or length > LONGEST_VALUE:
            stream.seek(length, 1)
        else:
            values[tag] = stream.read(length)
            if tag == TRANSFER_SYNTAX and values[tag].decode("ascii", "replace").strip("\0 ") in NOT_WALKED:
                return None
    return None


def _element(head: bytes, stream: BinaryIO, in_pixels: bool) -> tuple[Tag, int, bool]:
    """Tag and length of an element, and whether it holds others; the items of compressed pixels hold none."""
    tag, kind, length = struct.unpack("<HH", head[:4]), head[4:6], struct.unpack("<I", head[4:])[0]
    if tag[0] == ITEM_GROUP:
        return tag, length, not in_pixels
    if kind in SHORT_LENGTHS:
        (length,) = struct.unpack("<H", head[6:])
    elif kind in LONG_LENGTHS:
        length = struct.unpack("<I", stream.read(4).ljust(4, b"\0"))[0]
    return tag, length, kind == b"SQ"


def _missing_pixels(values: dict[Tag, bytes], length: int) -> str | None:
    """What is wrong with uncompressed pixels of so many bytes."""
    try:
        rows, columns, bits = (int.from_bytes(values[tag][:2], "little") for tag in (ROWS, COLUMNS, BITS))
        samples = int.from_bytes(values.get(SAMPLES, b"\1\0")[:2], "little")
        frames = int(values.get(FRAMES, b"1").decode("ascii").strip("\0 ") or 1)
    except (KeyError, ValueError):  # GDCM has its own word on files without them
        return None
    needed = -(-rows * columns * bits * samples * max(frames, 1) // 8)
    if length >= needed:
        return None
    return f"{columns} x {rows} pixels of {bits} bits are {needed} bytes, and it has {length}"
