"""Landmarks: named points of an image, LPS mm; their files, the mean of several raters, and distances.

Yang et al. 2020 (Datasets, and Evaluation metrics, Dist) had seven points of the lateral ventricles marked by three
raters, and took the raters' mean as the truth.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.files import write_json
from IMTCore.label_names import read_rows

Landmarks = dict[str, np.ndarray]  # name -> (3,) LPS mm
SUFFIXES = (".mrk.json", ".fcsv", ".json", ".csv")
# The paper's points, with the descriptions of its Fig. 6.
VENTRICLE_LANDMARKS = {
    "L1": "right lateral ventricle, superior",
    "L2": "left lateral ventricle, superior",
    "L3": "right lateral ventricle, inferior",
    "L4": "left lateral ventricle, inferior",
    "L5": "middle of the lateral ventricle",
    "L6": "right lateral ventricle, posterior",
    "L7": "left lateral ventricle, posterior",
}
SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
TO_LPS = {"LPS": (1, 1, 1), "RAS": (-1, -1, 1)}
OLD_CODES = {"0": "RAS", "1": "LPS"}  # of .fcsv files before Slicer 4.11
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
PLACED = "2"  # Slicer puts a point's status, without a name in the header, after the named columns of .fcsv
# The three columns of a CSV and the signs that bring them to LPS; the last two are those of Slicer's control point tables.
CSV_COLUMNS = {("x", "y", "z"): "LPS", ("l", "p", "s"): "LPS", ("r", "a", "s"): "RAS"}


class MovesPoints(Protocol):
    """A transform, fixed -> moving."""

    def to_moving(self, points_lps: np.ndarray) -> np.ndarray:
        """(N, 3) points of the fixed image -> (N, 3) of the moving one, LPS mm."""


def landmark_suffix(path: Path | str) -> str | None:
    """The suffix of a landmark file in lower case, or None if its name has none of them."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), None)


def read_landmarks(path: Path | str) -> Landmarks:
    """Read the named points of a file, in its order.

    `.mrk.json` and `.fcsv` are Slicer's point lists; the coordinate system that they state, LPS or RAS, is followed.
    `.json` is {"coordinateSystem": "LPS", "name": [x, y, z], ...} (or a Slicer point list). `.csv` has the columns
    name,x,y,z, in LPS; or those of Slicer's control point tables, label,l,p,s or label,r,a,s.

    Returns:
        name -> (3,) float64 LPS mm.

    Raises:
        BadInput: no such file, none of these formats, no stated coordinate system, a point that is not placed or not
            finite, no name, the same name twice, no points.
    """
    path = Path(path)
    readers = {".mrk.json": _from_json, ".json": _from_json, ".fcsv": _from_fcsv, ".csv": _from_csv}
    suffix = landmark_suffix(path)
    if suffix is None:
        raise BadInput(f"Cannot tell the format of the landmarks {path}: the name must end in one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise BadInput(f"There is no landmark file {path}. Check the path.")
    try:
        points = readers[suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"The landmarks {path} cannot be read ({error}).") from error
    result: Landmarks = {}
    for name, position in points:
        if not name:
            raise BadInput(f"{path}: a landmark has no name. Give every point its own name.")
        if name in result:
            raise BadInput(f"{path}: two landmarks are called {name}. Give every point its own name.")
        result[name] = position
    if not result:
        raise BadInput(f"{path} holds no landmarks.")
    return result


def write_landmarks(path: Path | str, landmarks: Mapping[str, np.ndarray], title: str = "landmarks") -> None:
    """Write points (LPS mm) as a point list that Slicer opens; the file's name must end in `.mrk.json`.

    The paper's points carry their descriptions.

    Raises:
        BadInput: another ending, a point that is not three finite numbers. OutputFailure: it cannot be written.
    """
    points = []
    for name, position in landmarks.items():
        values = np.asarray(position, dtype=np.float64)
        if values.shape != (3,) or not np.isfinite(values).all():
            raise BadInput(f"The landmark {name} is not three finite numbers: {values.tolist()}.")
        points.append((name, values.tolist(), "defined"))
    _write_markups(Path(path), points, title)


def write_ventricle_template(path: Path | str) -> None:
    """Write the paper's seven points, not yet placed, for a rater to place in Slicer. `path` and errors as `write_landmarks`."""
    _write_markups(Path(path), [(name, [0.0, 0.0, 0.0], "undefined") for name in VENTRICLE_LANDMARKS], "ventricle landmarks")


def mean_of_raters(raters: Sequence[Mapping[str, np.ndarray]]) -> tuple[Landmarks, dict[str, float]]:
    """The mean position of each landmark over raters, and how far they are apart.

    Returns:
        name -> (3,) LPS mm, in the first rater's order; and name -> the raters' mean distance from that mean, mm (NaN for
        one rater).

    Raises:
        BadInput: no rater, or a landmark that one of them did not mark.
    """
    if not raters:
        raise BadInput("No rater's landmarks were given.")
    names = list(dict.fromkeys(name for rater in raters for name in rater))
    for number, rater in enumerate(raters, start=1):
        if missing := [name for name in names if name not in rater]:
            raise BadInput(f"Rater {number} has no landmark {', '.join(missing)}, which another has. Every rater must mark all.")
    means, spreads = {}, {}
    for name in names:
        positions = np.array([rater[name] for rater in raters], dtype=np.float64)
        means[name] = positions.mean(axis=0)
        apart = np.linalg.norm(positions - means[name], axis=1)
        spreads[name] = float(apart.mean()) if len(raters) > 1 else float("nan")
    return means, spreads


def landmark_distances(
    fixed: Mapping[str, np.ndarray], moving: Mapping[str, np.ndarray], transform: MovesPoints | None = None
) -> dict[str, float]:
    """How far each landmark of the fixed image, taken to the moving image, lies from its own place there, mm.

    The mean over landmarks is the paper's Dist, measured in the moving image (Yang et al. 2020, Evaluation metrics).

    Args:
        fixed, moving: name -> (3,) LPS mm. A landmark that only one of them has is left out.
        transform: fixed -> moving; None for none.

    Returns:
        name -> mm, in the order of `fixed`.

    Raises:
        BadInput: no landmark is in both.
    """
    names = [name for name in fixed if name in moving]
    if not names:
        raise BadInput(f"No landmark is in both images. They have {', '.join(fixed) or 'none'}, and {', '.join(moving) or 'none'}.")
    points = np.array([fixed[name] for name in names], dtype=np.float64)
    if transform is not None:
        points = transform.to_moving(points)
    apart = np.linalg.norm(points - np.array([moving[name] for name in names], dtype=np.float64), axis=1)
    return dict(zip(names, apart.tolist(), strict=True))


def _write_markups(path: Path, points: Sequence[tuple[str, list[float], str]], title: str) -> None:
    if landmark_suffix(path) != ".mrk.json":
        raise BadInput(f"Cannot write the landmarks {path}: end the name in .mrk.json, the form that Slicer opens.")
    control_points = [
        {
            "id": str(number),
            "label": name,
            "description": VENTRICLE_LANDMARKS.get(name, ""),
            "position": position,
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": status,
        }
        for number, (name, position, status) in enumerate(points, start=1)
    ]
    markup = {"type": "Fiducial", "name": title, "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control_points}
    write_json(path, {"@schema": SCHEMA, "markups": [markup]})


def _position(path: Path, name: str, values: Any, system: str) -> np.ndarray:
    """(3,) LPS mm of a file's three values."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise BadInput(f"{path}: the position of landmark {name or '?'} is not three numbers: {values}.")
    return np.array(numbers) * TO_LPS[system]


def _unplaced(path: Path, name: str) -> BadInput:
    return BadInput(f"{path}: the landmark {name or '?'} is not placed. Place it in Slicer, or delete it, and save again.")


def _system(path: Path, stated: Any) -> str:
    system = OLD_CODES.get(str(stated).strip(), str(stated).strip().upper())
    if system not in TO_LPS:
        raise BadInput(f"{path} is in the coordinate system {stated!r}. IMT reads LPS and RAS: save it in one of them.")
    return system


def _from_json(path: Path) -> Iterable[tuple[str, np.ndarray]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} is no list of landmarks: it needs the form {{\"coordinateSystem\": \"LPS\", \"L1\": [x, y, z]}}.")
    if "markups" in content:
        return _from_markups(path, content["markups"])
    if "coordinateSystem" not in content:
        raise BadInput(f"{path} does not say its coordinate system. Add \"coordinateSystem\": \"LPS\" (or \"RAS\").")
    system = _system(path, content["coordinateSystem"])
    return [(name.strip(), _position(path, name, values, system)) for name, values in content.items() if name != "coordinateSystem"]


def _from_markups(path: Path, markups: Any) -> Iterable[tuple[str, np.ndarray]]:
    points = []
    for markup in markups if isinstance(markups, list) else [markups]:
        listed = markup.get("controlPoints") if isinstance(markup, dict) else None
        if not isinstance(listed, list) or not all(isinstance(point, dict) for point in listed):
            raise BadInput(f"{path} is no point list of Slicer: it has no control points.")
        units = markup.get("coordinateUnits", "mm")
        if units != "mm" and not (isinstance(units, list) and units[:1] == ["mm"]):
            raise BadInput(f"{path} is in {units}. IMT reads landmarks in mm.")
        system = _system(path, markup.get("coordinateSystem", "LPS"))  # LPS is the format's default
        for point in listed:
            name = str(point.get("label", "")).strip()
            if point.get("positionStatus", "defined") != "defined":
                raise _unplaced(path, name)
            points.append((name, _position(path, name, point.get("position"), system)))
    return points


def _from_fcsv(path: Path) -> Iterable[tuple[str, np.ndarray]]:
    system, columns, points = None, FCSV_COLUMNS.split(","), []
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    for line in (line for line in lines if line.startswith("#")):
        key, _, value = line.lstrip("# ").partition("=")
        if key.strip() == "CoordinateSystem":
            system = _system(path, value)
        elif key.strip() == "columns":
            columns = [column.strip() for column in value.split(",")]
    if system is None:
        raise BadInput(f"{path} does not say its coordinate system. Add a line  # CoordinateSystem = LPS  (or RAS), or save it again.")
    for cells in csv.reader(line for line in lines if line.strip() and not line.startswith("#")):
        point = dict(zip(columns, cells, strict=False))
        name = point.get("label", "").strip()
        if len(cells) > len(columns) and cells[len(columns)].strip() not in ("", PLACED):
            raise _unplaced(path, name)
        points.append((name, _position(path, name, [point.get(axis) for axis in "xyz"], system)))
    return points


def _from_csv(path: Path) -> Iterable[tuple[str, np.ndarray]]:
    rows = read_rows(path, (), "name,x,y,z")
    first = rows[0][1]
    axes = next((axes for axes in CSV_COLUMNS if all(axis in first for axis in axes)), None)
    column = next((column for column in ("name", "label") if column in first), None)
    if axes is None or column is None:
        raise BadInput(f"{path} lacks columns: its header line must be name,x,y,z (LPS, mm).")
    points = []
    for _, row in rows:
        if row.get("defined", "1") not in ("1", "true", "True"):
            raise _unplaced(path, row[column])
        points.append((row[column], _position(path, row[column], [row[axis] for axis in axes], CSV_COLUMNS[axes])))
    return points
