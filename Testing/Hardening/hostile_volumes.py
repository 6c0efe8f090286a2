"""Hostile volumes: damaged bytes, lying headers, impossible values, bombs, and things that are no files."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from home import FORMATS, Home, head_volume
from mutations import damage, pick

NUMBERS = (0, -1, 1, 2, 7, 32767, -32768, 1 << 20, (1 << 31) - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e-6, 1e6, 1e30, float("nan"), float("inf"), -float("inf"), 3.4e38)
# NIfTI-1 fields: offset, format, hostile values.
NIFTI_FIELDS = (
    ("sizeof_hdr", 0, "<i", (0, 349, 540, -1)),
    ("dim0", 40, "<h", (0, -1, 1, 2, 4, 5, 7, 8, 255, 32767)),
    ("dim1", 42, "<h", NUMBERS[:7]),
    ("dim2", 44, "<h", NUMBERS[:7]),
    ("dim3", 46, "<h", NUMBERS[:7]),
    ("dim4", 48, "<h", (0, -5, 2, 32767)),
    ("datatype", 70, "<h", (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, -1)),
    ("bitpix", 72, "<h", (0, 1, -8, 64, 999)),
    ("pixdim0", 76, "<f", FLOATS),
    ("pixdim1", 80, "<f", FLOATS),
    ("pixdim2", 84, "<f", FLOATS),
    ("pixdim3", 88, "<f", FLOATS),
    ("vox_offset", 108, "<f", (*FLOATS, 100.0, 352.5, 1e9)),
    ("scl_slope", 112, "<f", FLOATS),
    ("scl_inter", 116, "<f", FLOATS),
    ("xyzt_units", 123, "<B", (0, 1, 3, 7, 255)),
    ("qform_code", 252, "<h", (0, 1, 5, -1, 32767)),
    ("sform_code", 254, "<h", (0, 1, 2, -1, 32767)),
    ("quatern_b", 256, "<f", FLOATS),
    ("qoffset_x", 268, "<f", FLOATS),
    ("srow_x0", 280, "<f", FLOATS),
    ("srow_y1", 300, "<f", FLOATS),
    ("srow_z3", 324, "<f", FLOATS),
    ("magic", 344, "<4s", (b"", b"ni1\0", b"n+2\0", b"abcd")),
)
NRRD_LINES = (
    b"dimension: 16", b"dimension: 2", b"dimension: 4", b"dimension: -3", b"sizes: 20 22", b"sizes: 100000 100000 100000",
    b"sizes: 0 0 0", b"sizes: 4294967295 1 1", b"type: complex", b"type: block", b"type: double", b"endian: middle", b"encoding: raw",
    b"encoding: ascii", b"encoding: bzip2", b"encoding: hex", b"space: scanner-xyz-time", b"space directions: (0,0,0) (0,0,0) (0,0,0)",
    b"space directions: (nan,0,0) (0,1,0) (0,0,1)", b"space directions: (1,0,0) (1,0,0) (0,0,1)", b"space directions: none (0,1,0) (0,0,1)",
    b"space directions: (1e-30,0,0) (0,1,0) (0,0,1)", b"space directions: (1e30,0,0) (0,1e30,0) (0,0,1)", b"space origin: (inf,0,0)",
    b"spacings: 0 0 0", b"spacings: -1 1 1", b"data file: ../../outside.raw", b"data file: /dev/zero", b"data file: LIST",
    b"data file: x%d.raw 1 1000000 1", b"line skip: 1000000", b"byte skip: -1", b"byte skip: 100000000", b"kinds: vector domain domain",
    b"a:=" + b"x" * 100_000,
)  # fmt: skip
META_LINES = (
    b"NDims = 2", b"NDims = 4", b"NDims = 11", b"NDims = -1", b"DimSize = 0 0 0", b"DimSize = 100000 100000 100000", b"DimSize = -28 32 12",
    b"DimSize = 28 32 9000", b"ElementType = MET_DOUBLE", b"ElementType = MET_UCHAR_ARRAY", b"ElementType = MET_NONSENSE",
    b"ElementSpacing = 0 1 1", b"ElementSpacing = nan 1 1", b"ElementSpacing = -1 -1 -1", b"ElementSpacing = 1e-30 1 1",
    b"TransformMatrix = 0 0 0 0 0 0 0 0 0", b"TransformMatrix = 1 0 0 1 0 0 0 0 1", b"TransformMatrix = nan 0 0 0 1 0 0 0 1",
    b"Offset = inf 0 0", b"ElementNumberOfChannels = 3", b"ElementNumberOfChannels = 100000000", b"CompressedData = False",
    b"CompressedDataSize = 1", b"CompressedDataSize = 99999999999", b"HeaderSize = -1", b"HeaderSize = 99999999", b"ElementDataFile = LIST",
    b"ElementDataFile = ../../outside.raw", b"ElementDataFile = /dev/zero", b"ElementDataFile = %d.raw 1 1000000 1",
    b"BinaryDataByteOrderMSB = True", b"Comment = " + b"x" * 100_000, b"BinaryData = False",
)  # fmt: skip

Maker = Callable[[np.random.Generator, Path, Home], Path]


def damaged(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """Any format with damaged bytes."""
    suffix = pick(rng, FORMATS)
    content = home.head(suffix).read_bytes()
    for _ in range(int(rng.integers(1, 3))):
        content = damage(rng, content)
    return put(folder / f"damaged.{suffix}", content)


def nifti_header(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A NIfTI with one to three hostile header fields."""
    content = bytearray(home.head("nii").read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        _, offset, form, values = pick(rng, NIFTI_FIELDS)
        struct.pack_into(form, content, offset, pick(rng, values))
    if rng.random() < 0.3:
        return put(folder / "header.nii.gz", gzip.compress(bytes(content)))
    return put(folder / "header.nii", bytes(content))


def nrrd_header(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A NRRD with one or two hostile lines, in the place of the honest ones where there are such."""
    head, _, data = home.head("nrrd").read_bytes().partition(b"\n\n")
    return put(folder / "header.nrrd", _with_lines(rng, head, NRRD_LINES, b":") + b"\n\n" + data)


def meta_header(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A MetaImage with one or two hostile lines."""
    content = home.head("mha").read_bytes()
    head, mark, data = content.partition(b"ElementDataFile = LOCAL\n")
    lines = _with_lines(rng, head.rstrip(b"\n") + b"\nElementDataFile = LOCAL", META_LINES, b" =").split(b"\n")
    lines.sort(key=lambda line: line.startswith(b"ElementDataFile"))
    return put(folder / "header.mha", b"\n".join(lines) + b"\n" + data)


def _with_lines(rng: np.random.Generator, head: bytes, hostile: tuple[bytes, ...], sign: bytes) -> bytes:
    lines = head.split(b"\n")
    for _ in range(int(rng.integers(1, 3))):
        new = pick(rng, hostile)
        key = new.split(sign)[0]
        lines = [line for line in lines if line.split(sign)[0] != key]
        lines.append(new)
    return b"\n".join(lines)


def mgh_header(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A FreeSurfer volume with hostile fields."""
    content = bytearray(home.head("mgh").read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.5:
            struct.pack_into(">i", content, int(pick(rng, (0, 4, 8, 12, 16, 20, 24))), int(pick(rng, (*NUMBERS, 100_000))))
        else:
            struct.pack_into(">f", content, 30 + 4 * int(rng.integers(15)), pick(rng, FLOATS))
    if rng.random() < 0.5:
        return put(folder / "header.mgz", gzip.compress(bytes(content)))
    return put(folder / "header.mgh", bytes(content))


def values(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """An honest NIfTI of hostile values, shapes or number types."""
    array = head_volume(int(rng.integers(1 << 16))).array.T.astype(np.float64)
    inside = array > 0
    kind = pick(rng, ("nan", "inf", "huge", "tiny", "int", "constant", "few", "negative", "shape", "complex", "rgb", "outlier", "noise"))
    if kind in ("nan", "inf"):
        array.flat[rng.integers(array.size, size=int(pick(rng, (1, 5, array.size))))] = {"nan": np.nan, "inf": -np.inf}[kind]
    elif kind == "huge":
        array = array * pick(rng, (1e30, 1e35, 3e35, 1e300, -1e35))
    elif kind == "tiny":
        array = array * pick(rng, (1e-30, 1e-42, 1e-300))
    elif kind == "constant":
        array[:] = pick(rng, (0, 7, -3))
    elif kind == "few":
        array = (array > 500).astype(float) + inside
    elif kind == "negative":
        array = -array - pick(rng, (0, 1, 1e6))
    elif kind == "outlier":
        array.flat[0] = pick(rng, (1e38, -1e38, 1e9))
    elif kind == "noise":
        array = rng.normal(size=array.shape)
    elif kind == "shape":
        shape = pick(rng, ((1,), (1, 1, 1), (5, 5), (1, 40, 40), (64, 64), (28, 32, 12, 2), (28, 32, 12, 1, 1), (3, 3, 400), (4, 2, 3, 2, 2)))
        array = rng.normal(100, 10, shape)
    number = pick(rng, (np.float32, np.float64, np.int16, np.uint8, np.int32, np.uint64, np.int64, np.uint16, np.int8))
    if kind == "complex":
        number = np.complex64
    if kind == "rgb":
        colours = np.zeros(array.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
        return save(folder / "values.nii.gz", colours)
    if kind == "int":
        number = pick(rng, (np.int64, np.uint64, np.int32))
        limits = np.iinfo(number)
        array = np.where(inside, array, pick(rng, (0.0, float(limits.min) / 2, float(limits.max) / 2)))
    with np.errstate(all="ignore"):
        return save(folder / pick(rng, ("values.nii.gz", "values.nii")), array.astype(number))


def geometry(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """An honest image on a strange grid: sheared, singular, mirrored, tiny, huge, far away."""
    affine = np.diag([*(pick(rng, (5.0, 1e-5, 0.01, 90.0, 1e5, 0.0)) if rng.random() < 0.15 else 5.0 for _ in range(3)), 1.0])
    if rng.random() < 0.5:
        affine[:3, :3] += rng.normal(scale=pick(rng, (1e-6, 1e-5, 1e-3, 1.0, 1e4)), size=(3, 3))
    if rng.random() < 0.3:
        affine[:3, :3] = affine[:3, :3][:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine[:3, 3] = pick(rng, (0.0, 0.0, 1e4, 1e7, -1e20))
    return save(folder / "grid.nii.gz", head_volume(1).array.T, affine)


def bomb(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A small file that claims, or holds, very much."""
    kind = pick(rng, ("claim", "zeros", "gz", "nrrd", "mha", "mgz", "twice"))
    shape = pick(rng, ((30000, 30000, 30000), (2000, 2000, 2000), (3000, 3000, 300), (32767, 32767, 3)))
    if kind in ("claim", "gz", "twice"):
        header = bytearray(home.head("nii").read_bytes()[:352])
        struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
        struct.pack_into("<hh", header, 70, *pick(rng, ((2, 8), (16, 32), (64, 64))))
        content = bytes(header) + rng.bytes(5000)
        if kind == "claim":
            return put(folder / "bomb.nii", content)
        return put(folder / "bomb.nii.gz", gzip.compress(gzip.compress(content) if kind == "twice" else content))
    if kind == "zeros":
        header = bytearray(home.head("nii").read_bytes()[:352])
        struct.pack_into("<8h", header, 40, 3, 2000, 2000, 800, 1, 1, 1, 1)
        struct.pack_into("<hh", header, 70, 2, 8)
        member = gzip.compress(bytes(1 << 26), 6)  # 64 MB of zeros in 64 kB; members of one file follow each other
        return put(folder / "bomb.nii.gz", gzip.compress(bytes(header)) + member * 48)
    text = " ".join(map(str, shape))
    if kind == "nrrd":
        lines = ["NRRD0004", "type: float", "dimension: 3", f"sizes: {text}", "encoding: gzip", "endian: little", "", ""]
        return put(folder / "bomb.nrrd", "\n".join(lines).encode() + gzip.compress(bytes(1 << 20)))
    if kind == "mha":
        import zlib

        data = zlib.compress(bytes(1 << 22))
        lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "CompressedData = True", f"CompressedDataSize = {len(data)}"]
        lines += [f"DimSize = {text}", "ElementType = MET_FLOAT", "ElementDataFile = LOCAL", ""]
        return put(folder / "bomb.mha", "\n".join(lines).encode() + data)
    content = bytearray(home.head("mgh").read_bytes())
    struct.pack_into(">3i", content, 4, *shape)
    return put(folder / "bomb.mgz", gzip.compress(bytes(content)))


def no_file(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """What has an image's name and is none: folders, links, pipes, other formats, empty files."""
    kind = pick(rng, ("folder", "loop", "dangling", "pipe", "zero", "empty", "suffix", "other", "double", "missing", "name", "link"))
    path = folder / f"place.{pick(rng, (*FORMATS, 'hdr', 'img', 'nhdr', 'mhd'))}"
    if kind == "folder":
        path.mkdir()
        (path / "inside.txt").write_text("hello")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere.nii")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "empty":
        path.touch()
    elif kind == "suffix":
        put(path, home.head(pick(rng, FORMATS)).read_bytes())
    elif kind == "other":
        put(path, pick(rng, (b"\x89PNG\r\n\x1a\n" + rng.bytes(300), b"%PDF-1.7\n" + rng.bytes(300), b"PK\x03\x04" + rng.bytes(99), b"{}", b"\n" * 2000)))
    elif kind == "double":
        put(path, gzip.compress(home.head("nii.gz").read_bytes()))
    elif kind == "name":
        names = ("new\nline.nii.gz", "esc\x1b[31m.nii.gz", "x" * 240 + ".nii.gz", "ж脳🧠.nii.gz", ".nii.gz", " .nii.gz", "a b;rm -rf $HOME.nii.gz")
        path = put(folder / pick(rng, names), home.head("nii.gz").read_bytes())
    elif kind == "link":
        path = folder / "link.nii.gz"
        path.symlink_to(home.head("nii.gz"))
    elif kind == "missing":
        return folder / ("y" * 300 + ".nii.gz" if rng.random() < 0.5 else "none.nii.gz")
    return path


def pair(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A header whose voxels lie in another file, which is missing, short, elsewhere, or the header itself."""
    data = pick(rng, ("data.raw", "../outside.raw", "/dev/zero", "pair.mhd", "pair.nhdr", "", "data.raw.gz", "data%03d.raw 1 12 1"))
    put(folder / "data.raw", rng.bytes(int(pick(rng, (0, 10, 43_008, 50_000)))))
    if rng.random() < 0.5:
        lines = ["ObjectType = Image", "NDims = 3", "DimSize = 28 32 12", "ElementType = MET_FLOAT", f"ElementDataFile = {data}", ""]
        return put(folder / "pair.mhd", "\n".join(lines).encode())
    lines = ["NRRD0004", "type: float", "dimension: 3", "sizes: 28 32 12", "encoding: raw", "endian: little", f"data file: {data}", ""]
    return put(folder / "pair.nhdr", "\n".join(lines).encode())


VOLUMES: dict[str, Maker] = {
    "volume, damaged bytes": damaged,
    "volume, NIfTI header": nifti_header,
    "volume, NRRD header": nrrd_header,
    "volume, MetaImage header": meta_header,
    "volume, MGH header": mgh_header,
    "volume, values and shapes": values,
    "volume, strange grid": geometry,
    "volume, bomb": bomb,
    "volume, header and data apart": pair,
    "no file": no_file,
}


def put(path: Path, content: bytes) -> Path:
    """Write bytes; returns the path."""
    path.write_bytes(content)
    return path


def save(path: Path, array: np.ndarray, affine: Any = None) -> Path:
    """A NIfTI of an array [i, j, k]."""
    import nibabel

    affine = np.diag([-5.0, -5.0, 10.0, 1.0]) if affine is None else affine
    image = nibabel.Nifti1Image(array, None, dtype=array.dtype)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    for row, values in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
        image.header[row] = values
    image.header["pixdim"][1:4] = np.clip(np.linalg.norm(affine[:3, :3], axis=0), 1e-3, 1e3)
    image.to_filename(path)
    return path
