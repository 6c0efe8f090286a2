"""What is killed: commands with their inputs, how to look at what they wrote, and what two runs must have in common."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from home import CORE_TESTS, Home, head_volume
from home import ROOT as PROJECT

from IMTCore.errors import ImtError
from IMTCore.provenance import input_sha256, read_mark, sidecar_path
from IMTCore.volume_io import image_suffix, read_volume, write_volume

IMT = [sys.executable, "-m", "IMTCommand"]
TRAINING = PROJECT / "Resources" / "Training"
# What differs between two runs of the same: times, and whether a case was done now or before.
CHANGING = ("created", "seconds", "state", "message", "jobs", "threads", "cache", "cache_hits", "from_cache", "date", "translate", "register",
            "segment", "evaluate", "started", "ended", "registrations")


@dataclass(frozen=True)
class Scenario:
    """One command to kill.

    Attributes:
        command: its words, from the folder of inputs and that of outputs.
        prepare: makes the inputs.
        reads: how a file without a format of its own is checked and compared: suffix -> digest of its content.
        environment: further variables, from the folder of outputs.
    """

    command: Callable[[Path, Path], list[str]]
    prepare: Callable[[Path, Home], None]
    reads: dict[str, Callable[[Path], Any]] = field(default_factory=dict)
    environment: Callable[[Path], dict[str, str]] = lambda out: {}


def digest_of(path: Path, scenario: Scenario) -> Any:
    """What must be the same in two runs. Raises an error if the file is not whole."""
    if path.suffix in (".log", ".html") or path.name == "run.json":  # which tell when, and where
        return path.name
    for suffix, read in scenario.reads.items():
        if path.name.endswith(suffix):
            return read(path)
    if image_suffix(path) and path.suffix != ".json":
        volume = read_volume(path, constant=True)
        mark = read_mark(sidecar_path(path)).get("output", {})
        if mark.get("name") != path.name or mark.get("sha256") != input_sha256(path):
            raise ValueError("its mark is missing or of another file")
        return hashlib.sha256(np.ascontiguousarray(volume.array).tobytes() + volume.geometry.affine_ras.tobytes()).hexdigest()
    if path.suffix == ".json":
        return _stable(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix in (".csv", ".tsv"):
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t" if path.suffix == ".tsv" else ","))
        return [{key: value for key, value in row.items() if key not in CHANGING} for row in rows]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return sorted((name, stored[name].shape) for name in stored.files if name != "record")  # which tells seconds
    return input_sha256(path)


def problem_of(path: Path, scenario: Scenario) -> str | None:
    """What is wrong with a file that a killed run left under its final name."""
    try:
        digest_of(path, scenario)
    except (ImtError, ValueError, OSError, EOFError, KeyError, RuntimeError) as error:
        return f"{path.name} is not whole: {type(error).__name__}: {error}"
    return None


def _stable(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _stable(value) for key, value in content.items() if key not in CHANGING}
    return [_stable(part) for part in content] if isinstance(content, list) else content


def _one_head(folder: Path, home: Home) -> None:
    shutil.copy(home.head(), folder / "T1.nii.gz")


def _heads(folder: Path, home: Home) -> None:
    for number in range(4):
        write_volume(folder / "cases" / f"case{number}" / "T1.nii.gz", head_volume(number))


def _cohort(folder: Path, home: Home) -> None:
    """A subject and an atlas that Greedy can register: simulated from the ICBM152 template in nilearn's wheel."""
    from importlib.util import find_spec

    from test_registration import write_cohort

    write_cohort(folder, Path(find_spec("nilearn").origin).parent / "datasets" / "data", atlases=1, downsample=6)


def _pth(folder: Path, home: Home) -> None:
    import torch

    from IMTCore.cards import read_card
    from IMTCore.model_packages import load_network

    torch.save(load_network(read_card(home.model)).state_dict(), folder / "model.pth")


def _subjects(folder: Path, home: Home) -> None:
    if str(CORE_TESTS) not in sys.path:
        sys.path.insert(0, str(CORE_TESTS))
    from training_runs import write_subject

    for name in ("a", "b"):
        write_subject(folder / "data" / "set" / name, (24, 48, 46))


def _labelled(folder: Path, home: Home) -> None:
    from labelled_heads import write_heads

    write_heads(folder / "data", ("heads/a", "heads/b"))


def _trained(folder: Path, home: Home) -> None:
    """A finished training run, to be exported."""
    import subprocess

    _subjects(folder, home)
    subprocess.run(_train(folder, folder / "run"), check=True, capture_output=True)
    card = json.loads((TRAINING / "cards" / "T1-T2.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps({key: value for key, value in card.items() if key not in ("training_range", "uncertainty")}))


def _train(given: Path, out: Path) -> list[str]:
    words = ["--data", given / "data", "--source", "T1", "--targets", "T2", "--train", "set/*", "--filters", 8, "--depth", 5, "--mode", "paper"]
    words += ["--size", 64, "--steps", 24, "--checkpoint-every", 2, "--device", "cpu", "--output", out]
    return [sys.executable, str(TRAINING / "train_translator.py"), *map(str, words)]


def _train_segmenter(given: Path, out: Path) -> list[str]:
    words = ["--data", given / "data", "--given", "T1", "--labels", "tissues", "--network", "unet", "--filters", 8, "--depth", 2, "--spacing-mm", 5]
    words += ["--batch", 8, "--steps", 40, "--checkpoint-every", 4, "--device", "cpu", "--train", "heads/*", "--output", out]
    return [sys.executable, str(TRAINING / "train_segmenter.py"), *map(str, words)]


def _checkpoint(path: Path) -> str:
    """The learnt numbers of a checkpoint."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    digest = hashlib.sha256()
    for part in ("generator", "network", "average", "discriminator"):
        for value in (state.get(part) or {}).values():
            digest.update(value.numpy().tobytes())
    return digest.hexdigest() + str(state.get("step"))


def _transform(path: Path) -> str:
    from IMTRegisterLib.deformations.transforms import read_transform

    transform = read_transform(path)
    field_bytes = b"" if transform.displacement is None else transform.displacement.tobytes()
    return hashlib.sha256(transform.matrix.round(9).tobytes() + field_bytes).hexdigest()


def _card_with_weights(path: Path) -> Any:
    """A card, whose weights must be there: the card is written last."""
    from IMTCore.cards import read_card
    from IMTCore.model_packages import read_weights

    return sorted(read_weights(read_card(path)))


def scenarios(home: Home) -> dict[str, Scenario]:
    """All of them, by name."""
    cpu = ["--device", "cpu"]
    models = {".json": _card_with_weights}
    learnt = {".pt": _checkpoint, ".jsonl": lambda path: path.name, ".png": lambda path: path.name, "run.json": lambda path: path.name,
              "config.json": lambda path: path.name}  # fmt: skip

    def own_models(out: Path) -> dict[str, str]:
        return {"IMT_MODELS": str(out)}

    return {
        "translate, volume": Scenario(
            lambda given, out: [*IMT, "translate", str(given / "T1.nii.gz"), "--model", str(home.model), "--output", str(out / "T2.nii.gz"),
                                "--uncertainty", str(out / "sd.nii.gz"), "--samples", "4", *cpu],
            _one_head,
        ),
        "translate, cases": Scenario(
            lambda given, out: [*IMT, "translate", str(given / "cases"), "--model", str(home.model), "--output", str(out),
                                "--uncertainty", "sd.nrrd", "--samples", "4", *cpu],
            _heads,
        ),
        "register": Scenario(
            lambda given, out: [*IMT, "register", str(given / "subject" / "T2.nii.gz"), "--modality", "T2", "--atlases", str(given / "atlases"),
                                "--output-labels", str(out / "labels.nii.gz"), "--output-transforms", str(out / "warps"), "--report",
                                str(out / "report.json"), "--cache", str(out / "cache"), "--jobs", "1", "--threads", "1"],
            _cohort,
            {".h5": _transform},
        ),
        "segment, cases": Scenario(
            lambda given, out: [*IMT, "segment", str(given / "cases"), "--model", str(home.segmenter), "--output", str(out),
                                "--statistics", "volumes.csv", *cpu],
            _heads,
        ),
        "pipeline": Scenario(
            lambda given, out: [*IMT, "pipeline", str(given / "cases"), "--output", str(out), "--translate", str(home.model),
                                "--segment", str(home.segmenter), *cpu],
            _heads,
        ),
        "training of a translator": Scenario(_train, _subjects, learnt),
        "training of a segmenter": Scenario(_train_segmenter, _labelled, learnt),
        "export of a model": Scenario(
            lambda given, out: [sys.executable, str(TRAINING / "export_model.py"), "--run", str(given / "run"), "--target", "T2",
                                "--card", str(given / "card.json"), "--folder", str(out)],
            _trained,
            models,
        ),
        "import of a package": Scenario(lambda given, out: [*IMT, "models", "import", str(home.model)], lambda *_: None, models, own_models),
        "import of a state dict": Scenario(
            lambda given, out: [*IMT, "models", "import", str(given / "model.pth"), "--from", "T1", "--to", "T2"], _pth, models, own_models
        ),
    }  # fmt: skip


def child_environment(out: Path, temporary: Path, token: str) -> dict[str, str]:
    """One thread, own places for models and data, and a token by which all processes of the run are known."""
    folders = [str(PROJECT / name) for name in ("IMTTranslate", "IMTRegister", "IMTSegment")]
    places = {"TMPDIR": str(temporary), "XDG_DATA_HOME": str(temporary / "data"), "IMT_MODELS": str(temporary / "models")}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders), **places, "IMT_KILL_TOKEN": token}
