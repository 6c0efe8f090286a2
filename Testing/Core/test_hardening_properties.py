"""Properties that hold for whatever a file, a grid or a table holds: round trips, and refusals in IMT's own words."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from IMTCore.cases import COLUMNS, read_cases
from IMTCore.errors import BadInput
from IMTCore.files import whole_file, write_json, write_text
from IMTCore.label_names import LabelName, LabelNames, read_label_names, write_label_names
from IMTCore.plain_text import has_controls, shown
from IMTCore.preparation import prepare
from IMTCore.provenance import read_mark
from IMTCore.slicing import SlicingSpec
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume, write_volume
from IMTRegisterLib.deformations.transforms import Transform, read_transform, write_transform

exact = settings(derandomize=True, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def rotation(values: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(values).as_matrix()


geometries = st.builds(
    lambda shape, spacing, origin, turn, mirror: Geometry(shape, spacing, origin, rotation(turn) * [1, 1, -1 if mirror else 1]),
    st.tuples(*[st.integers(2, 7)] * 3),
    st.tuples(*[st.floats(0.1, 20)] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.booleans(),
)


@exact
@given(geometry=geometries)
def test_a_grid_comes_back_from_its_affine(geometry: Geometry) -> None:
    assert Geometry.from_affine_ras(geometry.affine_ras, geometry.shape).is_close(geometry, 1e-9)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mgz"])
@exact
@given(geometry=geometries, seed=st.integers(0, 1 << 30), number=st.sampled_from([np.float32, np.int16, np.uint8, np.int32]))
def test_a_volume_comes_back_from_its_file(suffix: str, geometry: Geometry, seed: int, number: type) -> None:
    array = np.random.default_rng(seed).uniform(0, 200, geometry.shape).astype(number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v{suffix}"
        write_volume(path, Volume(array, geometry))
        back = read_volume(path, constant=True)
    assert np.array_equal(back.array, array)
    assert back.geometry.is_close(geometry, 1e-3 + 1e-6 * float(np.abs(geometry.affine_ras).max()))


@exact
@given(
    array=hnp.arrays(np.float32, (6, 18, 16), elements=st.floats(0, 1000, width=32)),
    spacing=st.tuples(*[st.floats(0.7, 9)] * 3),
    plane=st.sampled_from(["axial", "coronal", "sagittal"]),
)
def test_what_is_sliced_comes_back_finite_on_the_same_grid_with_its_background(array, spacing, plane) -> None:
    array = np.pad(array, 1)  # air on all sides
    volume = Volume(array, Geometry(array.shape, spacing, (0, 0, 0), np.eye(3)))
    try:
        prepared = prepare(volume, SlicingSpec(plane, "spatial"), 8)
    except BadInput:
        return  # shows nothing
    chosen = [int(k) for k in np.flatnonzero(prepared.filled)]
    assert np.isfinite(prepared.images).all() and -1 <= prepared.images.min() and prepared.images.max() <= 1
    back = prepared.restore(chosen, (prepared.images[chosen] + 1) / 2)
    assert back.shape == array.shape and np.isfinite(back).all()
    assert (back[array == 0] == 0).all() and back.min() > -0.3 and back.max() < 1.3


@exact
@given(geometry=geometries, seed=st.integers(0, 1 << 30), strength=st.floats(0, 30))
def test_a_transform_comes_back_from_its_file(geometry: Geometry, seed: int, strength: float) -> None:
    stream = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] += stream.uniform(-0.2, 0.2, (3, 3))
    matrix[:3, 3] = stream.uniform(-50, 50, 3)
    field = (strength * stream.standard_normal((*geometry.shape, 3))).astype(np.float32)
    whole = Transform(matrix, field, geometry)
    with tempfile.TemporaryDirectory() as folder:
        write_transform(Path(folder) / "t.h5", whole)
        back = read_transform(Path(folder) / "t.h5")
    points = geometry.origin_lps + stream.uniform(0, 1, (20, 3)) * (np.array(geometry.shape[::-1]) - 1) * geometry.spacing_mm @ geometry.direction.T
    assert np.allclose(back.to_moving(points), whole.to_moving(points), atol=1e-3)


# --- Files and tables ----------------------------------------------------------------------------------------------


@exact
@given(content=JSON)
def test_what_is_written_as_json_is_read_as_it_was_or_as_no_mark(content) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.json"
        write_json(path, content)
        back = read_mark(path)
        assert [entry.name for entry in Path(folder).iterdir()] == ["m.json"]
    assert json.dumps(back) == json.dumps(content if isinstance(content, dict) else {})


@exact
@given(old=TEXT, new=TEXT, fails=st.booleans())
def test_a_file_holds_the_old_text_or_the_new_one(old: str, new: str, fails: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.txt"
        write_text(path, old)
        try:
            with whole_file(path) as temporary:
                temporary.write_text(new, encoding="utf-8", newline="")
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert path.read_bytes() == (old if fails else new).encode()
        assert [entry.name for entry in Path(folder).iterdir()] == ["t.txt"]


@exact
@given(rows=st.lists(st.tuples(*[TEXT] * len(COLUMNS)), max_size=4), sign=st.sampled_from(",;\t"))
def test_a_table_of_cases_gives_safe_names_or_is_refused_by_name(rows, sign: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=sign).writerows([COLUMNS, *([*row[:3], "T1", row[4]] for row in rows)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.csv"
        path.write_text(stream.getvalue(), encoding="utf-8", newline="")
        try:
            cases = read_cases(path, "T1")
        except BadInput as error:
            assert "cases.csv" in str(error)
            return
    for case in cases:
        place = (Path("/out") / case.case).resolve()
        assert place.parent == Path("/out") and place.name == case.case


@exact
@given(names=st.lists(st.tuples(st.integers(1, 65535), TEXT, *[st.integers(0, 255)] * 3, TEXT), max_size=5))
def test_names_of_labels_come_back_from_their_file(names) -> None:
    def plain(text: str) -> str:  # one line, without spaces at its ends
        return " ".join(shown(text).split())

    try:
        table = LabelNames(LabelName(code, plain(name) or f"n{code}", colour, plain(term)) for code, name, *colour, term in map(tuple, names))
    except BadInput:
        return  # a code or a name twice
    if not table:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_label_names(Path(folder) / "labels.csv", table)
        back = read_label_names(Path(folder) / "labels.csv")
    assert {code: (entry.name, entry.terminology) for code, entry in back.items()} == {c: (e.name, e.terminology) for c, e in table.items()}


@exact
@given(text=st.text(max_size=40))
def test_what_is_shown_acts_on_no_terminal(text: str) -> None:
    assert not has_controls(shown(text)) and len(shown(text)) == len(text)
    assert has_controls({"a": [text]}) == (shown(text) != text)
