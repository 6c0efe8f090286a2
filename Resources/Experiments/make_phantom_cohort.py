"""Make a cohort of phantoms with exact truth for registration: atlases and subjects in the layout of atlas sets.

Anatomies are label maps (`<subject>/labels.nii.gz`, FreeSurfer codes, as SynthSeg's training maps), each one used once, or
without any the ICBM152 template that nilearn ships, warped anew for each. Each head gets a smooth warp, a small rotation and
shift, a bias field and noise of its own; T1 and T2 are drawn by the spin-echo equations (IMTCore/simulation.py). Labels
and landmarks go through the same warp, so they are exact: labels to the nearest voxel, landmarks to a micrometre.

Writes OUTPUT/atlases/<name>/ and OUTPUT/subjects/<name>/ with T1.nii.gz, T2.nii.gz, labels.nii.gz, landmarks.mrk.json and
phantom.json (its parameters), a labels.csv in each of the two, and cohort.json. What is finished is kept; nothing is
written over.

Example:
    python Resources/Experiments/make_phantom_cohort.py --labels DATA/labelmaps --output runs/cohort
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "IMTTranslate"), str(ROOT / "IMTRegister")]  # last: an installed IMT comes first

from IMTCore.errors import BadInput, ImtError
from IMTCore.files import give_usual_mode, write_json
from IMTCore.simulation import Phantom, PhantomSpec, simulate
from IMTCore.tissue_maps import TissueMaps, icbm152_tissues, tissue_maps_from_labels
from IMTCore.tissues import CLASS_CODES, LABEL_TISSUES, SEQUENCES
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTCore.warps import random_stream
from IMTCore.label_names import FILE_NAME, LabelName, LabelNames, write_label_names
from IMTRegisterLib.atlases.landmarks import Landmarks, write_landmarks
from IMTRegisterLib.registration.inputs import crop_geometry

MARGIN_MM = 12.0  # around the head: room for the rotation and the shift
TIP_MM = 2.0  # a ventricle's tip is the mean of its voxels so near to the outermost
# FreeSurfer's codes: left, right (and the inferior horns of the ventricles)
VENTRICLES = ((4, 5), (43, 44))
DEEP = {"thalamus": (10, 49), "caudate": (11, 50), "putamen": (12, 51), "pallidum": (13, 52), "hippocampus": (17, 53)}
TISSUE_LABELS = {"csf": "csf", "grey": "grey", "deep_grey": "grey", "white": "white", "lesion": "white"}
NAMES = ("csf", "grey", "white", *DEEP, "lateral ventricle")  # their codes from 1
COLOURS = ((60, 110, 220), (150, 150, 150), (240, 240, 230), (0, 118, 14), (122, 186, 220), (236, 13, 176), (12, 48, 255), (220, 216, 20), (120, 18, 134))
# Points of the ICBM152 template about its ventricles, RAS mm. Any points would do: the phantoms' warps carry them exactly.
TEMPLATE_POINTS_RAS = {
    "L1": (13, -12, 25),
    "L2": (-13, -12, 25),
    "L3": (34, -22, -12),
    "L4": (-34, -22, -12),
    "L5": (0, -8, 16),
    "L6": (25, -58, 10),
    "L7": (-25, -58, 10),
}


@dataclass(frozen=True)
class Anatomy:
    """A head before its warp: tissue maps with the source's own codes as labels, and landmarks, LPS mm."""

    name: str
    tissues: TissueMaps
    landmarks: Landmarks
    table: dict[int, int]  # source code -> code of `NAMES`


def label_map_anatomies(folder: Path, spacing: float, count: int) -> Iterator[Anatomy]:
    """The first `count` label maps of a folder.

    Raises:
        BadInput: too few, or voxels that `spacing` is no multiple of.
    """
    paths = sorted(folder.glob("*/labels.nii.gz"))
    if len(paths) < count:
        raise BadInput(f"{folder} holds {len(paths)} <subject>/labels.nii.gz, and {count} are needed. Ask for fewer, or give more.")
    for path in paths[:count]:
        volume = read_volume(path)
        factor = block_size(spacing, volume.geometry.spacing_mm, str(path))
        tissues = tissue_maps_from_labels(volume, downsample=factor)
        yield Anatomy(path.parent.name, cropped(tissues), landmarks_of(volume), label_table())


def template_anatomies(spacing: float, count: int) -> Iterator[Anatomy]:
    """So many copies of the ICBM152 template.

    Raises:
        BadInput: nilearn, whose wheel has it, is missing, or a `spacing` of no whole mm.
    """
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise BadInput("Without --labels this needs nilearn, which make setup installs.")
    tissues = icbm152_tissues(Path(found.origin).parent / "datasets" / "data", block_size(spacing, np.ones(3), "the template"))
    points = {name: np.array(point) * (-1.0, -1.0, 1.0) for name, point in TEMPLATE_POINTS_RAS.items()}
    table = {CLASS_CODES[name]: NAMES.index(name) + 1 for name in ("csf", "grey", "white")}
    for number in range(1, count + 1):
        yield Anatomy(f"template{number:02d}", cropped(tissues), points, table)


def block_size(spacing: float, voxel_mm: np.ndarray, name: str) -> int:
    """How many of a map's voxels become one."""
    factors = spacing / voxel_mm
    factor = int(round(float(factors[0])))
    if factor < 1 or np.abs(factors - factor).max() > 1e-3:
        raise BadInput(f"--spacing {spacing:g} is no multiple of the voxels of {name} ({' x '.join(f'{mm:g}' for mm in voxel_mm)} mm).")
    return factor


def label_table() -> dict[int, int]:
    """FreeSurfer's and CHARM's codes -> codes of `NAMES`; 0 outside the brain."""
    table = {code: NAMES.index(TISSUE_LABELS[name]) + 1 if name in TISSUE_LABELS else 0 for code, name in LABEL_TISSUES.items()}
    table |= {code: NAMES.index(name) + 1 for name, codes in DEEP.items() for code in codes}
    return table | {code: NAMES.index("lateral ventricle") + 1 for side in VENTRICLES for code in side}


def cropped(tissues: TissueMaps) -> TissueMaps:
    """The maps cut to the head plus a margin."""
    head = sum(tissues.maps.values()) > 0.1
    margin = np.ceil(MARGIN_MM / tissues.geometry.spacing_mm[::-1]).astype(int)
    filled = np.argwhere(head)
    low, high = np.maximum(filled.min(axis=0) - margin, 0), np.minimum(filled.max(axis=0) + 1 + margin, head.shape)
    box = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    maps = {name: np.ascontiguousarray(share[box]) for name, share in tissues.maps.items()}
    return TissueMaps(maps, crop_geometry(tissues.geometry, box), tissues.labels[box])


def landmarks_of(volume: Volume) -> Landmarks:
    """The paper's seven ventricle points (Yang et al. 2020, Fig. 6) and the centres of deep structures, from a label map."""

    def points(codes: tuple[int, ...]) -> np.ndarray:
        k_j_i = np.argwhere(np.isin(volume.array, codes))
        geometry = volume.geometry
        return geometry.origin_lps + (k_j_i[:, ::-1] * geometry.spacing_mm) @ geometry.direction.T

    def tip(where: np.ndarray, axis: int, sign: int) -> np.ndarray:
        height = sign * where[:, axis]
        return where[height >= height.max() - TIP_MM].mean(axis=0)

    left, right = (points(codes) for codes in VENTRICLES)
    found: Landmarks = {}
    if len(left) and len(right):
        found |= {"L1": tip(right, 2, 1), "L2": tip(left, 2, 1), "L3": tip(right, 2, -1), "L4": tip(left, 2, -1)}
        found |= {"L5": np.concatenate([left, right]).mean(axis=0), "L6": tip(right, 1, 1), "L7": tip(left, 1, 1)}
    for name, codes in DEEP.items():
        for side, code in zip(("left", "right"), codes, strict=True):
            where = points((code,))
            if len(where):
                found[f"{side} {name}"] = where.mean(axis=0)
    return found


def spec_of(values: argparse.Namespace, number: int) -> PhantomSpec:
    """One head's parameters."""
    seed = 1000 * values.seed + number
    pose = random_stream(seed, "pose")
    return PhantomSpec(
        seed=seed,
        modalities=tuple(values.modalities),
        warp_mm=values.warp_mm,
        smoothness_mm=values.smoothness_mm,
        rotation_deg=tuple(pose.uniform(-values.rotation_deg, values.rotation_deg, 3).round(3).tolist()),
        translation_mm=tuple(pose.uniform(-values.translation_mm, values.translation_mm, 3).round(3).tolist()),
        bias=values.bias,
        noise=values.noise,
        skull_stripped=values.skull_stripped,
    )


def write_case(folder: Path, anatomy: Anatomy, phantom: Phantom) -> None:
    """Write one head's folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".phantom-", dir=folder.parent))
    try:
        for modality, volume in phantom.images.items():
            write_volume(staging / f"{modality}.nii.gz", volume, f"simulated {modality}, IMT")
        largest = max(*anatomy.table, int(phantom.labels.array.max()))
        codes = np.zeros(largest + 1, np.uint8)
        codes[list(anatomy.table)] = list(anatomy.table.values())
        write_volume(staging / "labels.nii.gz", phantom.labels.with_array(codes[phantom.labels.array]), "simulated labels, IMT")
        points = dict(zip(anatomy.landmarks, phantom.landmarks_lps, strict=True))
        write_landmarks(staging / "landmarks.mrk.json", points, "exact landmarks")
        spec = phantom.spec
        record = {"simulated": True, "anatomy": anatomy.name, **{name: getattr(spec, name) for name in spec.__dataclass_fields__}}
        write_json(staging / "phantom.json", record)
        give_usual_mode(staging)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def label_names(values: argparse.Namespace) -> LabelNames:
    """Names and colours of the labels that there are."""
    names = NAMES if values.labels is not None else NAMES[:3]
    return LabelNames(LabelName(code, name, COLOURS[code - 1]) for code, name in enumerate(names, start=1))


def keep_record(values: argparse.Namespace) -> None:
    """Write cohort.json, or refuse a folder that holds another cohort."""
    record = {name: value for name, value in vars(values).items() if name not in ("output", "labels")}
    record = json.loads(json.dumps({"simulated": True, "anatomies": "label maps" if values.labels else "ICBM152", **record}))
    path = values.output / "cohort.json"
    if not path.exists():
        if values.output.is_dir() and any(values.output.iterdir()):
            sys.exit(f"{values.output} is not empty and holds no cohort. Choose another --output.")
        write_json(path, record)
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    if different := [name for name in {**stored, **record} if stored.get(name) != record.get(name)]:
        sys.exit(f"{values.output} holds another cohort (other {', '.join(different)}); nothing is written over. Choose another --output.")


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps; without it the ICBM152 template is warped")
    parser.add_argument("--atlases", type=int, default=6, help="number of atlases (default 6)")
    parser.add_argument("--subjects", type=int, default=3, help="number of subjects (default 3)")
    parser.add_argument("--modalities", nargs="+", default=["T1", "T2"], choices=sorted(SEQUENCES))
    parser.add_argument("--spacing", type=float, default=2.0, help="voxel size in mm, a multiple of the maps' (default 2)")
    parser.add_argument("--warp-mm", type=float, default=4.0, help="largest displacement of the warp (default 4)")
    parser.add_argument("--smoothness-mm", type=float, default=30.0, help="distance of its control points (default 30)")
    parser.add_argument("--rotation-deg", type=float, default=6.0, help="largest rotation about each axis (default 6)")
    parser.add_argument("--translation-mm", type=float, default=5.0, help="largest shift along each axis (default 5)")
    parser.add_argument("--noise", type=float, default=0.03)
    parser.add_argument("--bias", type=float, default=0.2)
    parser.add_argument("--skull-stripped", action="store_true", help="set all outside the brain to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Make what is not there yet."""
    values = make_parser().parse_args(arguments)
    if values.atlases < 1 or values.subjects < 0:
        sys.exit("A cohort needs at least one atlas.")
    try:
        keep_record(values)
        count = values.atlases + values.subjects
        anatomies = label_map_anatomies(values.labels, values.spacing, count) if values.labels else template_anatomies(values.spacing, count)
        for number, anatomy in enumerate(anatomies):
            folder = values.output / ("atlases" if number < values.atlases else "subjects") / anatomy.name
            if folder.exists():
                continue
            points = np.array(list(anatomy.landmarks.values())).reshape(-1, 3)
            phantom = simulate(anatomy.tissues, spec_of(values, number), points)
            write_case(folder, anatomy, phantom)
            size = "x".join(map(str, phantom.labels.array.shape[::-1]))
            print(f"{folder.parent.name}/{folder.name}: {', '.join(phantom.images)}, {size} voxels, {len(points)} landmarks", flush=True)
        for name in ("atlases", "subjects"):
            if (values.output / name).is_dir() and not (values.output / name / FILE_NAME).exists():
                write_label_names(values.output / name / FILE_NAME, label_names(values))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
