"""Which command gets which hostile thing, and what its outputs must be like if it is accepted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
from home import Home
from hostile_dicom import dicom_folder
from hostile_models import MODELS
from hostile_texts import (
    atlas_set,
    bids_tree,
    cache_entry,
    case_tree,
    cases_table,
    landmarks,
    mark,
    plan,
    progress_line,
    request_line,
    transform,
    weights_of_structures,
)
from hostile_volumes import VOLUMES
from mutations import damage, damage_json, json_text, pick
from outcomes import outputs_problem
from sandbox import Case

from IMTCommand.__main__ import main, report
from IMTCore.errors import ImtError
from IMTCore.provenance import sidecar_path

# Kind -> how often it is drawn in comparison to the others.
INPUT_SHARES = {
    **dict.fromkeys(VOLUMES, 6),
    "volume, DICOM folder": 10,
    "mark": 6,
    "cases, table": 6,
    "cases, folder": 4,
    "cases, BIDS": 4,
    "pipeline, plan": 4,
    "pipeline, output folder": 3,
    "atlas set": 5,
    "landmarks": 5,
    "transform": 4,
    "weights of structures": 3,
    "cache entry": 4,
    "request": 5,
    "progress": 5,
}
MODEL_SHARES = dict.fromkeys(MODELS, 1)


def make_case(home: Home, seed: int, kind: str, number: int, folder: Path) -> Case:
    """The case of this kind and number, in an empty folder with `in`, `out` and `cwd`."""
    rng = np.random.default_rng([seed, crc32(kind.encode()), number])
    os.environ["IMT_MODELS"] = os.environ["IMT_SEGMENT_MODELS"] = str(folder / "out" / "models")
    os.environ["XDG_DATA_HOME"] = str(folder / "out" / "data")
    given, out = folder / "in", folder / "out"
    if kind in VOLUMES:
        return _volume_case(rng, VOLUMES[kind](rng, given, home), out, home)
    if kind in MODELS:
        return _model_case(rng, kind, given, out, home)
    makers: dict[str, Callable[[], Case]] = {
        "volume, DICOM folder": lambda: _dicom_case(rng, dicom_folder(rng, given, home), out, home),
        "mark": lambda: _mark_case(rng, mark(rng, given, home), out, home),
        "cases, table": lambda: _cohort_case(rng, cases_table(rng, given, home), out, home),
        "cases, folder": lambda: _cohort_case(rng, case_tree(rng, given, home), out, home),
        "cases, BIDS": lambda: _cohort_case(rng, bids_tree(rng, given, home), out, home),
        "pipeline, plan": lambda: _plan_case(plan(rng, given, home), given, out, home),
        "pipeline, output folder": lambda: _resumed_case(rng, given, out, home),
        "atlas set": lambda: _atlas_case(rng, atlas_set(rng, given, home), out),
        "landmarks": lambda: _called("IMTRegisterLib.atlases.landmarks", "read_landmarks", landmarks(rng, given, home)),
        "transform": lambda: _called("IMTRegisterLib.deformations.transforms", "read_transform", transform(rng, given, home)),
        "weights of structures": lambda: _weights_case(weights_of_structures(rng, given, home), out, home),
        "cache entry": lambda: _cache_case(cache_entry(rng, given, home)),
        "request": lambda: _request_case(request_line(rng, home)),
        "progress": lambda: _progress_case([progress_line(rng) for _ in range(int(rng.integers(1, 12)))]),
    }
    return makers[kind]()


def _volume_case(rng: np.random.Generator, path: Path, out: Path, home: Home) -> Case:
    suffix = pick(rng, ("nii.gz", "nrrd", "mha", "mgz", "nii"))
    result, good = out / f"result.{suffix}", home.head()
    draw = rng.random()
    if draw < 0.05:
        words = ["check", str(path), "--model", str(home.model)]
    elif draw < 0.6:
        more = pick(rng, ([], [], ["--uncertainty", str(out / "sd.nii.gz"), "--samples", "2"], ["--bias-correction"], ["--no-modality-check"]))
        words = ["translate", str(path), "--model", str(home.model), "--output", str(result), "--device", "cpu", *more]
    elif draw < 0.8:
        words = ["segment", str(path), "--model", str(home.segmenter), "--output", str(result), "--statistics", str(out / "v.csv"), "--device", "cpu"]
        words += pick(rng, ([], ["--probabilities", str(out / "p.nrrd")], ["--reference", str(path)], ["--report", str(out / "r.json")]))
    elif draw < 0.97:
        pair = pick(rng, ((path, good, None), (good, path, None), (good, good, path)))
        words = ["evaluate", "--truth", str(pair[0]), "--prediction", str(pair[1]), "--report", str(out / pick(rng, ("r.json", "r.csv")))]
        words += (["--mask", str(pair[2])] if pair[2] else []) + pick(rng, ([], ["--conventions"], ["--error-map", str(out / "e.nii.gz")]))
    else:
        words = ["register", str(path), "--modality", "T1", "--atlases", str(home.atlases), "--output-labels", str(result), "--cache", "none", "--jobs", "1"]
    engine = ("imt: No atlas could be registered",)  # an image that is none makes Greedy fail, in words
    return Case(partial(main, words), _names(path), partial(outputs_problem, out, path), may_fail=engine)


def _dicom_case(rng: np.random.Generator, path: Path, out: Path, home: Home) -> Case:
    draw = rng.random()
    if draw < 0.2:
        words = ["dicom", str(path), "--list", *pick(rng, ([], ["--json"]))]
        return Case(partial(main, words), _names(path))
    if draw < 0.7:
        words = ["translate", str(path), "--model", str(home.model), "--output", str(out / "result.nii.gz"), "--device", "cpu"]
        words += pick(rng, ([], [], ["--series", "1"], ["--series", pick(rng, ("x", "", "-1", "99", "é"))]))
        return Case(partial(main, words), _names(path), partial(outputs_problem, out, path))
    good = out.parent / "cwd" / "good.nii.gz"
    first = ["translate", str(home.dicom), "--model", str(home.model), "--output", str(good), "--device", "cpu"]
    words = ["dicom", str(good), "--like", str(path), "--output", str(out / "series")]
    return Case(lambda: main(first) or main(words), _names(path, good), lambda: None, ("out", "cwd"))


def _mark_case(rng: np.random.Generator, path: Path, out: Path, home: Home) -> Case:
    copy = out / path.name  # a result of before, with its mark
    commands = (
        ["segment", str(path), "--model", str(home.segmenter), "--output", str(out / "labels.nii.gz"), "--device", "cpu"],
        ["evaluate", "--truth", str(home.head()), "--prediction", str(path), "--report", str(out / "r.json"), "--error-map", str(out / "e.nii.gz")],
        ["evaluate", "--truth", str(home.head()), "--prediction", str(path), "--report", str(out / "r.csv"), "--conventions"],
        ["dicom", str(path), "--like", str(home.dicom), "--output", str(out / "series")],
        ["translate", str(home.head("nrrd")), "--model", str(home.model), "--output", str(copy), "--device", "cpu"],
    )
    words = pick(rng, commands)
    if words[0] == "translate":
        copy.write_bytes(path.read_bytes())
        sidecar_path(copy).write_bytes(sidecar_path(path).read_bytes())
    return Case(partial(main, words), _names(path, sidecar_path(path)), partial(outputs_problem, out, None))


def _cohort_case(rng: np.random.Generator, path: Path, out: Path, home: Home) -> Case:
    folder = out / "results"
    draw = rng.random()
    if draw < 0.5:
        words = ["translate", str(path), "--model", str(home.model), "--output", str(folder), "--device", "cpu"]
    elif draw < 0.8:
        words = ["pipeline", str(path), "--output", str(folder), "--translate", str(home.model), "--device", "cpu"]
        words += pick(rng, ([], ["--list"], ["--segment", str(home.segmenter)], ["--evaluate"]))
    else:
        words = ["segment", str(path), "--model", str(home.segmenter), "--output", str(folder), "--device", "cpu"]
    cases = [sub for sub in path.iterdir() if sub.is_dir()] if path.is_dir() else []
    return Case(partial(main, words), _names(path, *cases), partial(outputs_problem, out, None))


def _plan_case(path: Path, given: Path, out: Path, home: Home) -> Case:
    (given / "cases" / "a").mkdir(parents=True)
    (given / "cases" / "a" / "T1.nii.gz").write_bytes(home.head().read_bytes())
    words = ["pipeline", str(given / "cases"), "--output", str(out / "results"), "--plan", str(path), "--device", "cpu"]
    return Case(partial(main, words), _names(path, "T1-T2", "tissue-T1", "seed", "samples"), partial(outputs_problem, out, None))


def _resumed_case(rng: np.random.Generator, given: Path, out: Path, home: Home) -> Case:
    """A pipeline's folder of before, in which somebody has changed a file."""
    (given / "cases" / "a").mkdir(parents=True)
    (given / "cases" / "a" / "T1.nii.gz").write_bytes(home.head().read_bytes())
    words = ["pipeline", str(given / "cases"), "--output", str(out / "results"), "--translate", str(home.model), "--device", "cpu"]
    if main(words):
        raise RuntimeError("the honest pipeline failed")
    path = pick(rng, sorted(path for path in (out / "results").rglob("*") if path.is_file()))
    text = path.suffix == ".json"
    path.write_bytes(json_text(rng, damage_json(rng, json.loads(path.read_text()))) if text else damage(rng, path.read_bytes()))
    again = pick(rng, (words, words, ["pipeline", "--output", str(out / "results"), "--report-only"]))
    return Case(partial(main, again), _names(path, out / "results"), lambda: None)


def _atlas_case(rng: np.random.Generator, path: Path, out: Path) -> Case:
    words = ["atlas", "check", str(path)] + pick(rng, ([], ["--json"], ["--modality", "T1"]))
    if rng.random() < 0.4:
        words = ["atlas", "build", "--from", str(path), "--output", str(out / "new")]
    return Case(partial(main, words), _names(path, "labels.csv", "landmarks", "a1", "a2"), partial(outputs_problem, out, None))


def _weights_case(path: Path, out: Path, home: Home) -> Case:
    words = ["register", str(home.head()), "--modality", "T1", "--translate-to", "T2", "--second-image", str(home.head("nrrd")), "--atlases", str(home.atlases)]
    words += ["--output-labels", str(out / "labels.nii.gz"), "--cache", "none", "--weight", str(path), "--structures", "nothing of that name"]
    # The structure is not there: so even good weights are refused before any engine starts.
    return Case(partial(main, words), _names(path, "nothing of that name"))


def _model_case(rng: np.random.Generator, kind: str, given: Path, out: Path, home: Home) -> Case:
    segments = rng.random() < 0.3
    path = MODELS[kind](rng, given / "model", home, segments)
    if kind == "model, state dict":
        words = ["models", "import", str(path), "--from", "T1", "--to", "T2", "--size", "32"]
        return Case(partial(main, words), _names(path, "hostile"), partial(outputs_problem, out, None))
    command = ["segment", "--model"] if segments else ["translate", "--model"]
    use = [command[0], str(home.head()), command[1], str(path), "--output", str(out / "result.nii.gz"), "--device", "cpu"]
    words = pick(rng, (use, use, use, ["models", "import", str(path)], ["models", "verify", str(path)], ["models", "show", str(path)], ["models", "list"]))
    if words[:2] == ["models", "list"]:
        os.environ["IMT_MODELS"] = os.environ["IMT_SEGMENT_MODELS"] = str(path.parent)
    listed = words[1] == "verify"  # which tells the names on standard output
    return Case(partial(main, words), _names(path, "hostile", "T1-T2", "tissue-T1"), partial(outputs_problem, out, None), named=not listed)


def _called(module: str, name: str, path: Path) -> Case:
    """A reader that no quick command calls on its own."""

    def run() -> int:
        import importlib

        try:
            getattr(importlib.import_module(module), name)(path)
        except ImtError as error:
            return report(str(error), error.exit_code, False)
        return 0

    return Case(run, _names(path))


def _cache_case(path: Path) -> Case:
    def run() -> int:
        from IMTRegisterLib.registration.cache import RegistrationCache

        found = RegistrationCache(path.parent).transform("entry")
        return 0 if found is None or np.isfinite(found[0].matrix).all() else 1

    return Case(run, ())


def _request_case(line: bytes) -> Case:
    def run() -> int:
        from IMTCommand.serve_command import answer

        number, code = answer(line)
        json.dumps({"exit_code": code, "id": number})
        return code if code in (0, 2) else 1

    return Case(run, (), named=False, writes=("out", "cwd"), may_fail=("imt: Cannot write",))


class _Scripted:
    """In the place of `imt serve`: a process that says these lines and ends."""

    pid, exitCode = 0, 0

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def start(self, command: object, environment: object) -> None:
        pass

    def isRunning(self) -> bool:
        return bool(self.lines)

    def readLines(self) -> list[tuple[str, str]]:
        said, self.lines = self.lines[:3], self.lines[3:]
        return [("stdout", line) for line in said]

    def writeLine(self, text: str) -> None:
        pass

    closeInput = killTree = lambda self: None


def _progress_case(lines: list[str]) -> Case:
    def run() -> int:
        from IMTSlicerLib.jobs import Job, JobFailed
        from IMTSlicerLib.workers import Worker

        told: list[str] = []
        heard: list[bool] = []
        end = json.dumps({"stage": "end", "fraction": 1.0, "message": "", "exit_code": 0, "id": 1})

        def show(fraction: float, message: str, left: float | None) -> None:
            heard.append(0 <= fraction <= 1 and (left is None or 0 <= round(left)))
            told.append(f"{int(1000 * fraction)} {message}")

        job = Job([["translate"]], Worker(process=lambda: _Scripted([*lines, end])))
        job.progress.connect(show)
        job.start()
        try:
            job.wait(10)
        except JobFailed as error:
            if error.exitCode is not None and not isinstance(error.exitCode, int):
                return 1
            return 1 if "Error: " in str(error) else 0
        return 0 if all(heard) else 1

    return Case(run, (), named=False)


def _names(*paths: Path | str) -> tuple[str, ...]:
    """What a message may call the input: control characters are not shown."""
    names = []
    for path in paths:
        name = path.name if isinstance(path, Path) else path
        names += [name, name[:60], repr(name)[1:-1], " ".join(name.split()), "".join(c for c in name if c.isprintable())[:20]]
    return tuple(name for name in names if name)
