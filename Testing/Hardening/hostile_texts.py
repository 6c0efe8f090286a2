"""Hostile texts: tables of cases and labels, landmarks, transforms, marks, weights, requests, and lines of progress."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from home import Home
from hostile_volumes import put
from mutations import HOSTILE_VALUES, damage, damage_json, json_text, pick

CELLS = (
    "", " ", "../../outside", "/etc/hostname", "..", ".", "a/b", "a\\b", "=1+1", "-rf", "\0", "a\0b", "x" * 300, "x" * 200_000, '"', "'", "a,b",
    "a\nb", "é脳", "\ud7ff", "CON", "case 1.", "T1.nii.gz", "nan", "1e400", "-1", "99999999999999999999", "١٢", "\x1b[31m", "<script>alert(1)</script>",
    "in", ".", "~", "$HOME", "%s%n", "\u202ex",
)  # fmt: skip


def table(rng: np.random.Generator, columns: tuple[str, ...], rows: list[list[str]]) -> bytes:
    """A CSV file with hostile cells, or damaged as a whole."""
    rows = [list(row) for row in rows]
    for _ in range(int(rng.integers(0, 4))):
        row = pick(rng, rows)
        row[int(rng.integers(len(row)))] = pick(rng, CELLS)
    header = list(columns)
    if rng.random() < 0.15:
        header[int(rng.integers(len(header)))] = pick(rng, (*CELLS[:8], columns[0]))
    sign = pick(rng, (",", ",", ",", ",", ";", "\t"))
    quote = rng.random() < 0.5
    lines = [sign.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' if quote else cell for cell in row) for row in [header, *rows]]
    text = pick(rng, ("\n", "\r\n", "\n", "\r")).join(lines)
    kind = rng.random()
    if kind < 0.7:
        return text.encode("utf-8", "surrogatepass")
    if kind < 0.75:
        return text.encode("utf-16", "surrogatepass")
    if kind < 0.8:
        return text.encode("latin-1", "replace")
    if kind < 0.83:
        return b'"' + text.encode("utf-8", "surrogatepass")
    if kind < 0.86:
        return b"\xef\xbb\xbf" + b"," * 100_000
    return damage(rng, text.encode("utf-8", "surrogatepass"), 100)


def cases_table(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A table of cases."""
    good = str(home.head())
    put(folder / "a.nii.gz", home.head().read_bytes())
    rows = [["a", "sub1", "ses1", "T1", "a.nii.gz"], ["b", "sub2", "", "T1", good], ["c", "sub3", "", "T2", good]]
    return put(folder / "cases.csv", table(rng, ("case", "subject", "session", "modality", "path"), rows))


def case_tree(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A folder of cases with loops, damaged images and strange names."""
    root = folder / "tree"
    for name in ("a", pick(rng, ("b", "x" * 200, "sp ace", "é脳", "-rf", "new\nline", "\x1b[31m", ".hidden", "=1+1"))):
        (root / name).mkdir(parents=True, exist_ok=True)
        content = home.head().read_bytes()
        put(root / name / "T1.nii.gz", content if rng.random() < 0.6 else damage(rng, content))
    kind = pick(rng, ("loop", "self", "dangling", "file", "twice", "case"))
    if kind == "loop":
        (root / "a" / "up").symlink_to(root)
        (root / "loop").symlink_to(root)
    elif kind == "self":
        (root / "self").symlink_to("self")
    elif kind == "dangling":
        (root / "a" / "T1.nrrd").symlink_to("nowhere")
    elif kind == "file":
        put(root / "notes.txt", b"x")
    elif kind == "twice":
        put(root / "a" / "T1.nii", home.head("nii").read_bytes())
    else:
        (root / "A").mkdir()
        put(root / "A" / "t1.nii.gz", home.head().read_bytes())
    return root


def bids_tree(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A BIDS data set with loops of links, strange names and damaged images."""
    root = folder / "bids"
    names = ["sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_T2w", "sub-02/ses-a/anat/sub-02_ses-a_T1w"]
    odd = ("sub-03/anat/sub-04_T1w", "sub-/anat/sub-_T1w", "sub-../anat/sub-.._T1w", "sub-é/anat/sub-é_T1w", "sub-01/anat/sub-01_run-1_T1w",
           "sub-01/anat/sub-01_run-1_run-2_T1w", "sub-01/anat/sub-01_desc-x_mask-y_T1w", "sub-01/anat/T1w", "sub-" + "9" * 150 + "/anat/sub-1_T1w")  # fmt: skip
    for name in [*names, *(pick(rng, odd) for _ in range(3))]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        content = home.head().read_bytes()
        put(root / f"{name}.nii.gz", content if rng.random() < 0.7 else damage(rng, content))
    kind = pick(rng, ("loop", "up", "dangling", "pipe", "folder", "description"))
    if kind == "loop":
        (root / "sub-01" / "ses-x").symlink_to(root / "sub-01")
        (root / "sub-05").symlink_to("sub-05")
    elif kind == "up":
        (root / "sub-06").symlink_to(root)
        (root / "sub-02" / "anat").symlink_to(root / "sub-02")
    elif kind == "dangling":
        (root / "sub-01" / "anat" / "sub-01_acq-x_T1w.nii.gz").symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(root / "sub-01" / "anat" / "sub-01_acq-x_T1w.nii.gz")
    elif kind == "folder":
        (root / "sub-01" / "anat" / "sub-01_acq-x_T1w.nii.gz").mkdir()
    put(root / "dataset_description.json", json_text(rng, damage_json(rng, {"Name": "x", "BIDSVersion": "1.10.0"})))
    return root


def plan(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A pipeline's plan."""
    content = {
        "format": 1,
        "translate": {"models": [str(home.model)], "to": [], "uncertainty": 0, "single_plane": False},
        "segment": {"model": str(home.segmenter), "translator": None, "probabilities": False},
        "modality": "T1",
        "seed": 0,
    }
    return put(folder / "plan.json", json_text(rng, damage_json(rng, content) if rng.random() < 0.9 else content))


def atlas_set(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """An atlas set with a hostile table of labels, landmarks, table of atlases, or label map."""
    import shutil

    root = folder / "atlases"
    shutil.copytree(home.atlases, root)
    kind = pick(rng, ("names", "landmarks", "csv", "labels", "loop"))
    if kind == "names":
        rows = [["1", "brain", "255", "0", "0"], ["2", "bright", "0", "255", "0"]]
        put(root / "labels.csv", table(rng, ("code", "name", "red", "green", "blue"), rows))
    elif kind == "landmarks":
        (root / "a1" / "landmarks.json").unlink()
        landmarks(rng, root / "a1", home)
    elif kind == "labels":
        path = root / "a1" / "labels.nii.gz"
        put(path, damage(rng, path.read_bytes()))
    elif kind == "loop":
        (root / "a3").symlink_to(root)
        (root / "a1" / "loop.nii.gz").symlink_to("loop.nii.gz")
    else:
        rows = [[f"a{n}", kind, f"atlases/a{n}/{kind}.nii.gz"] for n in (1, 2) for kind in ("T1", "T2", "labels")]
        return put(folder / "atlases.csv", table(rng, ("atlas", "modality", "path"), rows))
    return root


def landmarks(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A hostile file of landmarks."""
    suffix = pick(rng, (".mrk.json", ".json", ".fcsv", ".csv"))
    path = folder / f"landmarks{suffix}"
    if suffix == ".json":
        return put(path, json_text(rng, damage_json(rng, {"coordinateSystem": "LPS", "L1": [0, 0, 0], "L2": [1, 2, 3]})))
    if suffix == ".mrk.json":
        point = {"label": "L1", "position": [0, 0, 0], "positionStatus": "defined"}
        markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": [point, {**point, "label": "L2"}]}
        return put(path, json_text(rng, damage_json(rng, {"markups": [markup]})))
    if suffix == ".csv":
        return put(path, table(rng, ("name", "x", "y", "z"), [["L1", "0", "0", "0"], ["L2", "1", "2", "3"]]))
    content = table(rng, ("id", "x", "y", "z", "label"), [["1", "0", "0", "0", "L1"], ["2", "1", "2", "3", "L2"]])
    return put(path, pick(rng, (b"# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n", b"# CoordinateSystem = \n", b"")) + content)


def transform(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """A hostile transform file."""
    import SimpleITK as sitk

    suffix = pick(rng, (".h5", ".tfm", ".txt", ".mat", ".nii.gz"))
    affine = sitk.AffineTransform(3)
    kind = pick(rng, ("bytes", "bytes", "values", "kind", "text"))
    if kind == "text":
        return put(folder / f"t{suffix}", pick(rng, (b"", b"#Insight Transform File V1.0\nTransform: X_double_3_3\nParameters: nan\n", b"1 0 0 0\n" * 4)))
    if kind == "kind":
        affine = pick(rng, (sitk.BSplineTransform(3), sitk.Euler2DTransform(), sitk.TranslationTransform(3), sitk.ScaleTransform(3)))
    elif kind == "values":
        affine.SetParameters([pick(rng, (0.0, 1.0, float("nan"), float("inf"), 1e300)) for _ in range(12)])
    name = folder / f"t{'.h5' if suffix == '.nii.gz' else suffix}"
    try:
        sitk.WriteTransform(affine, str(name))
    except RuntimeError:  # not every format holds every transform
        put(name, b"nothing")
    content = name.read_bytes()
    name.unlink()
    return put(folder / f"t{suffix}", damage(rng, content) if kind == "bytes" else content)


def mark(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """An honest image with a hostile mark beside it."""
    path = put(folder / "T1.nii.gz", home.head().read_bytes())
    record = {
        "synthetic": True,
        "content": "translation",
        "source_modality": "T1",
        "target_modality": "T2",
        "model": {"name": "T1-T2", "version": "1", "sha256": "0" * 64},
        "input": {"name": "x.nii.gz", "sha256": "0" * 64},
        "output": {"name": "T1.nii.gz", "sha256": "0" * 64},
        "output_range": [0, 255],
        "seed": 0,
    }
    if rng.random() < 0.5:
        record["output_range"] = pick(rng, ([0, float("inf")], [0, float("nan")], [0, 10**400], [0, 1e-320], [0, "255"], [], [0, True], [5, 2]))
    if rng.random() < 0.8:
        record = damage_json(rng, record)
    put(folder / "T1.json", json_text(rng, record))
    return path


def weights_of_structures(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """The file of `imt register --weight`."""
    return put(folder / "weights.json", json_text(rng, damage_json(rng, {"default": 0.5, "weights": {"brain": 0.3, "bright": 1}})))


def cache_entry(rng: np.random.Generator, folder: Path, home: Home) -> Path:
    """An entry of the registration cache: damaged, pickled, or claiming much."""
    path = folder / "entry.npz"
    record = {"engine": "greedy", "grid": {"shape": [2, 2, 2], "spacing_mm": [1, 1, 1], "origin_lps": [0, 0, 0], "direction": np.eye(3).tolist()}}
    arrays: dict[str, Any] = {"matrix": np.eye(4), "displacement": np.zeros((2, 2, 2, 3), np.float32)}
    kind = pick(rng, ("bytes", "record", "pickle", "shape", "nan", "zip", "claim"))
    if kind == "record":
        record = damage_json(rng, record)
    elif kind == "nan":
        arrays["matrix"] = arrays["matrix"] * np.nan
    elif kind == "shape":
        arrays["displacement"] = pick(rng, (np.zeros(3), np.zeros((1, 1, 1, 3)), np.zeros((2, 2, 2, 3), complex), np.zeros((2, 2, 2, 3), "U4")))
    elif kind == "pickle":
        arrays["matrix"] = np.array([{"a": 1}], dtype=object)
    text = json_text(rng, record) if kind == "record" else json.dumps(record).encode()
    stored = io.BytesIO()
    np.savez(stored, record=np.frombuffer(text, np.uint8), **arrays)
    content = stored.getvalue()
    if kind == "bytes":
        content = damage(rng, content, len(content))
    elif kind == "zip":
        content = pick(rng, (b"", b"PK\x05\x06" + bytes(18), content[:-20]))
    elif kind == "claim":
        stored = io.BytesIO()
        head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
        head += b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000, 100), }".ljust(117) + b"\n"
        with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("matrix.npy", head + bytes(1 << 20))
            archive.writestr("record.npy", head)
        content = stored.getvalue()
    return put(path, content)


def request_line(rng: np.random.Generator, home: Home) -> bytes:
    """A line to `imt serve`."""
    arguments = pick(
        rng,
        (
            ["models", "list"],
            ["models", "show", pick(rng, ("T1-T2", "\0", "x" * 5000, "../../x", "\x1b[31m", "\ud800", "", "-h"))],
            ["translate", pick(rng, ("\0", "/dev/zero", "/", "", "x" * 5000, "\ud800.nii")), "--model", str(home.model), "--output", "out.nii"],
            ["translate", str(home.head()), "--model", str(home.model), "--output", pick(rng, ("\0.nii", "/proc/x.nii", "x" * 300 + ".nii", "\ud800.nii"))],
            ["serve"],
            ["doctor", "--nonsense"],
            [],
            ["--help"],
        ),
    )
    request: Any = {"id": pick(rng, (1, "x", None, 10**30, [1], float("nan"))), "arguments": arguments}
    kind = rng.random()
    if kind < 0.4:
        return json.dumps(request).encode() + b"\n"
    if kind < 0.7:
        return json_text(rng, damage_json(rng, request)) + b"\n"
    return pick(rng, (b"[" * 100_000, b"\xff\xfe\n", b"null\n", b"7\n", b'{"id":' * 50_000, b"9" * 10_000, rng.bytes(300), b'"' + b"x" * 1_000_000 + b'"'))


def progress_line(rng: np.random.Generator) -> str:
    """A line that a panel reads from a child."""
    event: Any = {"stage": "translate", "fraction": float(rng.random()), "message": "slice 1"}
    kind = rng.random()
    if kind < 0.3:
        event["fraction"] = pick(rng, HOSTILE_VALUES)
    elif kind < 0.45:
        event = {"stage": "end", "fraction": 1.0, "message": "", "exit_code": pick(rng, HOSTILE_VALUES), "id": pick(rng, (1, *HOSTILE_VALUES))}
    elif kind < 0.7:
        event = damage_json(rng, event)
    elif kind < 0.85:
        return json_text(rng, event).decode("utf-8", "replace").replace("\n", " ")
    else:
        return pick(rng, ("", "{", "[" * 100_000, '{"a":' * 100_000, "\0\0", "Segmentation fault", "x" * 1_000_000, "{}", '{"stage": "error"}'))
    return json.dumps(event)
