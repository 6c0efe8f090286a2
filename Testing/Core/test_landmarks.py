"""Claims on landmarks: their files, several raters, and distances."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import rotation_matrix

from IMTCore.errors import BadInput
from IMTCore.volume import Geometry
from IMTCore.warps import random_warp
from IMTRegisterLib.atlases.landmarks import (
    VENTRICLE_LANDMARKS,
    landmark_distances,
    mean_of_raters,
    read_landmarks,
    write_landmarks,
    write_ventricle_template,
)
from IMTRegisterLib.deformations.transforms import Transform

POINTS = {"L1": np.array([-10.5, 20.25, 30.125]), "höhe, links": np.array([11.0, -21.0, 3.0])}
FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {system}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,{x},{y},30.125,0,0,0,1,1,1,0,L1,,,2,0
2,{u},{v},3,0,0,0,1,1,1,0,"höhe, links",text,
"""


def markup(points: dict[str, list[float]], **more: object) -> dict:
    listed = [{"label": name, "position": position, "positionStatus": "defined"} for name, position in points.items()]
    return {"markups": [{"type": "Fiducial", "controlPoints": listed, **more}]}


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def assert_the_points(found: dict[str, np.ndarray]) -> None:
    assert list(found) == list(POINTS)
    for name, position in POINTS.items():
        assert found[name].dtype == np.float64 and np.allclose(found[name], position, atol=1e-9)


def test_written_points_are_read_back(tmp_path):
    write_landmarks(tmp_path / "a.mrk.json", POINTS)
    assert_the_points(read_landmarks(tmp_path / "a.mrk.json"))


def test_the_stated_coordinate_system_is_followed(tmp_path):
    lps = {name: position.tolist() for name, position in POINTS.items()}
    ras = {name: [-x, -y, z] for name, (x, y, z) in lps.items()}
    files = {
        "slicer lps.mrk.json": markup(lps, coordinateSystem="LPS"),
        "slicer ras.mrk.json": markup(ras, coordinateSystem="RAS", coordinateUnits=["mm", "UCUM", "millimeter"]),
        "slicer default.json": markup(lps),
        "own lps.json": {"coordinateSystem": "LPS", **lps},
        "own ras.json": {"coordinateSystem": "RAS", **ras},
        "lps.fcsv": FCSV.format(system="LPS", x=-10.5, y=20.25, u=11, v=-21),
        "old lps.fcsv": FCSV.format(system="1", x=-10.5, y=20.25, u=11, v=-21),
        "ras.fcsv": FCSV.format(system="RAS", x=10.5, y=-20.25, u=-11, v=21),
        "old ras.fcsv": FCSV.format(system="0", x=10.5, y=-20.25, u=-11, v=21),
        "plain.csv": 'name,x,y,z\nL1,-10.5,20.25,30.125\n"höhe, links",11,-21,3\n',
        "table.csv": 'label,r,a,s,defined,selected\nL1,10.5,-20.25,30.125,1,1\n"höhe, links",-11,21,3,1,1\n',
        "table lps.csv": '\ufefflabel,l,p,s,defined\nL1,-10.5,20.25,30.125,1\n"höhe, links",11,-21,3,1\n',
    }
    for name, content in files.items():
        assert_the_points(read_landmarks(written(tmp_path / name, content)))


UNPLACED = {"markups": [{"controlPoints": [{"label": "L1", "position": [0, 0, 0], "positionStatus": "undefined"}]}]}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mrk.json", UNPLACED, "L1 is not placed"),
        ("a.fcsv", "# CoordinateSystem = LPS\n1,0,0,0,0,0,0,1,1,1,0,L1,,,0,0\n", "L1 is not placed"),
        ("a.csv", "label,r,a,s,defined\nL1,0,0,0,0\n", "L1 is not placed"),
        ("a.mrk.json", markup({"L1": [1, 2]}), "L1 is not three numbers"),
        ("a.json", {"coordinateSystem": "LPS", "L1": [1, 2, float("nan")]}, "L1 is not three numbers"),
        ("a.csv", "name,x,y,z\nL1,1,2,three\n", "L1 is not three numbers"),
        ("a.json", {"L1": [1, 2, 3]}, "does not say its coordinate system"),
        ("a.fcsv", "1,2,3,4,0,0,0,1,1,1,0,L1,,\n", "does not say its coordinate system"),
        ("a.fcsv", "# CoordinateSystem = IJK\n1,2,3,4,0,0,0,1,1,1,0,L1,,\n", "IJK"),
        ("a.mrk.json", markup({"L1": [1, 2, 3]}, coordinateUnits="um"), "in um"),
        ("a.csv", "name,x,y,z\nL1,1,2,3\nL1,4,5,6\n", "two landmarks are called L1"),
        ("a.csv", "name,x,y,z\n,1,2,3\n", "no name"),
        ("a.csv", "name,x,y\nL1,1,2\n", "name,x,y,z"),
        ("a.json", {"coordinateSystem": "LPS"}, "no landmarks"),
        ("a.mrk.json", markup({}), "no landmarks"),
        ("a.json", "{", "no JSON file"),
        ("a.mrk.json", {"markups": "none"}, "no control points"),
        ("a.json", [1, 2], "no list of landmarks"),
        ("a.txt", "1 2 3", ".mrk.json"),
    ],
)
def test_what_is_no_landmark_is_refused_with_the_file_and_the_reason(tmp_path, name, content, words):
    path = written(tmp_path / name, content)
    with pytest.raises(BadInput) as refusal:
        read_landmarks(path)
    assert words in str(refusal.value) and str(path) in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no landmark file .*gone\.fcsv"):
        read_landmarks(tmp_path / "gone.fcsv")


def test_only_slicers_form_is_written(tmp_path):
    with pytest.raises(BadInput, match=r"\.mrk\.json"):
        write_landmarks(tmp_path / "a.fcsv", POINTS)
    with pytest.raises(BadInput, match="L1"):
        write_landmarks(tmp_path / "a.mrk.json", {"L1": np.array([1.0, np.inf, 0.0])})
    assert not list(tmp_path.iterdir())


def test_the_template_names_the_papers_seven_points_and_none_is_placed(tmp_path):
    path = tmp_path / "points.mrk.json"
    write_ventricle_template(path)
    points = json.loads(path.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    assert [point["label"] for point in points] == ["L1", "L2", "L3", "L4", "L5", "L6", "L7"]
    assert points[3]["description"] == VENTRICLE_LANDMARKS["L4"] == "left lateral ventricle, inferior"
    with pytest.raises(BadInput, match="L1 is not placed"):
        read_landmarks(path)


def test_raters_are_averaged_by_name_with_their_spread():
    raters = [{"A": np.array([0.0, 0, 0]), "B": np.array([1.0, 1, 1])}, {"B": np.array([1.0, 1, 5]), "A": np.array([6.0, 0, 0])}]
    mean, spread = mean_of_raters(raters)
    assert list(mean) == ["A", "B"]
    assert mean["A"].tolist() == [3, 0, 0] and mean["B"].tolist() == [1, 1, 3]
    assert spread == {"A": 3.0, "B": 2.0}
    assert math.isnan(mean_of_raters(raters[:1])[1]["A"])


def test_a_rater_who_left_out_a_point_is_named():
    with pytest.raises(BadInput, match="Rater 2 has no landmark B"):
        mean_of_raters([{"A": np.zeros(3), "B": np.zeros(3)}, {"A": np.zeros(3)}])
    with pytest.raises(BadInput, match="No rater"):
        mean_of_raters([])


def test_distances_are_those_after_the_transform():
    geometry = Geometry((20, 22, 24), (3.0, 3.0, 4.0), (-30.0, -25.0, 5.0), rotation_matrix(7, 20.0))
    warp = random_warp(geometry, 3, 5.0, 30.0, (0, 0, 10.0), (2.0, -1.0, 3.0))
    middle = geometry.origin_lps + geometry.direction @ (geometry.spacing_mm * 10)
    fixed = {f"p{n}": middle + step for n, step in enumerate(([0, 0, 0], [8, 0, 0], [0, -9, 4]))}
    moving = dict(zip(fixed, warp.to_source(np.array(list(fixed.values()))), strict=True))
    transform = Transform(displacement=warp.displacement_lps, geometry=geometry)
    assert max(landmark_distances(fixed, moving, transform).values()) < 0.02
    assert min(landmark_distances(fixed, moving).values()) > 1
    off = {name: position + [0, 3, 4] for name, position in moving.items()}
    assert landmark_distances(fixed, off, transform) == pytest.approx(dict.fromkeys(fixed, 5.0), abs=0.02)


def test_only_shared_landmarks_are_measured():
    fixed, moving = {"A": np.zeros(3), "B": np.zeros(3)}, {"B": np.array([0.0, 3, 4]), "C": np.zeros(3)}
    assert landmark_distances(fixed, moving) == {"B": 5.0}
    with pytest.raises(BadInput, match="No landmark is in both"):
        landmark_distances({"A": np.zeros(3)}, moving)
