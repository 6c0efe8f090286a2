"""MetaImage's compressed voxels, counted before ITK reads them: of too few it would give what happens to lie in the memory."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import BinaryIO

from .errors import BadInput

MAX_HEADER_BYTES = 1 << 20
MAX_NAME = 200  # letters; no file system takes many more
BLOCK_BYTES = 1 << 20
# Bytes of one value, by the names of MetaIO.
VALUE_BYTES = {
    "CHAR": 1, "UCHAR": 1, "ASCII_CHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
    "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip


def check_meta_data(path: Path) -> None:
    """Check a MetaImage whose header ITK has read before: a compressed one must hold all its voxels.

    Raises:
        BadInput: too few or damaged ones, a list of compressed files, voxels in what is no file (a device, a folder).
    """
    with open(path, "rb") as stream:
        fields = _header(stream)
        data = path.parent / fields.get("ElementDataFile", "")[:MAX_NAME]
        if fields.get("ElementDataFile") != "LOCAL" and data.exists() and not data.is_file():
            raise BadInput(f"{path} names {data} for its voxels, and that is no file. Copy or export it again.")
        if fields.get("CompressedData", "").lower() != "true":
            return
        try:
            expected = math.prod(int(n) for n in fields["DimSize"].split()) * VALUE_BYTES[fields["ElementType"].removeprefix("MET_")]
            limit = int(fields.get("CompressedDataSize", 0))
        except (KeyError, ValueError):
            raise BadInput(f"{path} is damaged: its header's sizes cannot be read. Export it again.") from None
        if fields.get("ElementDataFile") == "LOCAL":
            found = _unpacked_bytes(stream, limit, expected)
        else:
            if not data.is_file():
                raise BadInput(f"{path} names {data} for its compressed voxels, and that is no file. Copy or export it again.")
            with open(data, "rb") as other:
                found = _unpacked_bytes(other, limit, expected)
    if found < expected:
        raise BadInput(f"{path} is damaged or truncated: it holds {found} of {expected} bytes of voxels. Copy or export it again.")


def _header(stream: BinaryIO) -> dict[str, str]:
    """The lines "key = value" up to and with ElementDataFile; the stream stands behind them."""
    fields: dict[str, str] = {}
    while stream.tell() < MAX_HEADER_BYTES and (line := stream.readline(MAX_HEADER_BYTES)):
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    return fields


def _unpacked_bytes(stream: BinaryIO, limit: int, expected: int) -> int:
    """How many bytes the zlib stream gives, counted up to `expected`; `limit` of its own bytes count, 0 for all."""
    unpacker, found, left = zlib.decompressobj(zlib.MAX_WBITS | 32), 0, limit or math.inf
    try:
        while found < expected and left > 0 and (block := stream.read(int(min(BLOCK_BYTES, left)))):
            left -= len(block)
            while block and found < expected:
                found += len(unpacker.decompress(block, BLOCK_BYTES))
                block = unpacker.unconsumed_tail
    except zlib.error:
        pass
    return found
