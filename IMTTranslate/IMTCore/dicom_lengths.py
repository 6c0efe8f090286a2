"""DICOM files whose elements claim more bytes than there are: found before GDCM takes that much memory for them.

A walk over tags and lengths (DICOM PS3.5, 7.1) that looks at no value but the transfer syntax.
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
TRANSFER_SYNTAX, PIXELS = (0x0002, 0x0010), (0x7FE0, 0x0010)
ITEM_GROUP = 0xFFFE
NOT_WALKED = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # big-endian; deflated


def check_lengths(folder: Path) -> None:
    """Check the DICOM files of a folder (not below); others are passed over.

    Raises:
        BadInput: naming the first file with an element that is longer than the file.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file():
            check_file_lengths(path)


def check_file_lengths(path: Path) -> None:
    """Check one file; one that is not DICOM is passed over.

    Raises:
        BadInput: it has an element that is longer than the file, or cannot be opened.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(PREAMBLE_BYTES)
            fits = stream.read(4) != b"DICM" or _fits(stream, path.stat().st_size)
    except OSError as error:
        raise BadInput(f"{path} cannot be opened ({error.strerror}). Check its permissions.") from error
    if not fits:
        raise BadInput(f"{path} is damaged or truncated: an element of it claims more bytes than the file has. Copy or export it again.")


def _fits(stream: BinaryIO, size: int) -> bool:
    pixels = False  # the items of compressed pixels hold no elements
    while len(head := stream.read(8)) == 8:
        tag, kind, length = struct.unpack("<HH", head[:4]), head[4:6], struct.unpack("<I", head[4:])[0]
        if tag[0] == ITEM_GROUP:
            nested = not pixels
        else:
            nested = kind == b"SQ"
            if kind in SHORT_LENGTHS:
                (length,) = struct.unpack("<H", head[6:])
            elif kind in LONG_LENGTHS:
                length = struct.unpack("<I", stream.read(4).ljust(4, b"\0"))[0]
        pixels = pixels or tag == PIXELS
        if length == UNDEFINED or nested:  # what is in it follows
            continue
        if stream.tell() + length > size:
            return False
        if tag == TRANSFER_SYNTAX:
            if stream.read(length).decode("ascii", "replace").strip("\0 ") in NOT_WALKED:
                return True
        else:
            stream.seek(length, 1)
    return True
