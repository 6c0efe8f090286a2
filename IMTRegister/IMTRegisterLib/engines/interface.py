"""The registration engines behind one interface: images in, a `Transform` from the fixed to the moving image out.

Greedy, ANTs and Elastix lie in a package folder of their own and run in processes of their own (`session`), one
for each session and kept for many tasks. How each registers is data: Resources/IMT-registration-presets.json.

>>> with EngineSession("greedy", "fast") as session:
...     linear = session.run(Task("linear", (Channel(subject_t1, atlas_t1),)))
...     warp = session.run(Task("deformable", (Channel(subject_t1, atlas_t1), Channel(subject_t2, atlas_t2)), linear))
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from IMTCore.errors import BadInput, ImtError
from IMTCore.files import data_folder
from IMTCore.progress import Say, never, quiet

from ..deformations.transforms import Transform
from .exchange import TaskImages
from .session import EngineProcess, ProcessEnded
from .tasks import STAGES, Channel, Task

__all__ = ["Channel", "EngineFailed", "EngineMissing", "EngineSession", "Task"]
ENGINES = ("greedy", "ants", "elastix")
DISTRIBUTIONS = {"greedy": "picsl_greedy", "ants": "antspyx", "elastix": "itk-elastix"}
TITLES = {"greedy": "Greedy", "ants": "ANTs", "elastix": "Elastix"}
ENGINES_VARIABLE = "IMT_ENGINES"
PRESETS, REQUIREMENTS = "IMT-registration-presets.json", "IMT-register-requirements.txt"  # in the module's Resources


class EngineMissing(ImtError):
    """An engine's packages are not installed; the message says how to install them."""


class EngineFailed(ImtError):
    """An engine gave no transform: the message has its last lines. The session can go on with another task."""


def engine_folder() -> Path | None:
    """The folder of the engines' packages: `$IMT_ENGINES`, what Slicer's panel installed, or what `make setup` built."""
    if os.environ.get(ENGINES_VARIABLE):
        places = [Path(os.environ[ENGINES_VARIABLE])]
    else:
        packages = Path(os.environ.get("IMT_PACKAGES") or data_folder() / "packages")
        places = [packages / f"register-{sys.implementation.cache_tag}", Path(sys.prefix) / "engines"]
    return next((place for place in places if place.is_dir()), None)


def engine_version(engine: str) -> str | None:
    """The version of the engine's package, such as "antspyx 0.6.3"; None if it is not installed."""
    folder, name = engine_folder(), DISTRIBUTIONS[engine]
    for found in importlib.metadata.distributions(path=[str(folder)]) if folder else ():
        if (found.metadata["Name"] or "").lower().replace("_", "-") == name.replace("_", "-"):
            return f"{name} {found.version}"
    return None


def engine_problem(engine: str) -> str | None:
    """Why an engine cannot be used, and what to do; None if it can. No engine is started."""
    if engine_version(engine):
        return None
    place = os.environ.get(ENGINES_VARIABLE)
    where = f" ({ENGINES_VARIABLE} names {place})" if place else ""
    target = place or Path(sys.prefix) / "engines"
    return (
        f"{TITLES[engine]} is not installed{where}. In Slicer press IMTRegister's button that installs the engines; elsewhere run "
        f"python -m IMTSlicerLib.package_folders install --requirements {engine_requirements() or REQUIREMENTS} --folder {target}"
    )


def _resource(name: str) -> Path | None:
    """A file of the module's Resources, in the source tree, in Slicer or in a wheel."""
    module = Path(__file__).resolve().parents[2]
    places = (module / folder / name for folder in ("Resources", "IMTRegisterResources"))
    return next((place for place in places if place.is_file()), None)


def engine_requirements() -> Path | None:
    """The file of the packages that the engines need; None if this installation has lost it."""
    return _resource(REQUIREMENTS)


def read_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Engine -> preset -> "source" and the stages' settings, as the module's Resources have them."""
    path = _resource(PRESETS)
    if path is None:
        raise BadInput(f"{PRESETS} is missing beside {Path(__file__).resolve().parents[2]}. Install IMT again.")
    return json.loads(path.read_text(encoding="utf-8"))


def preset_settings(
    engine: str, preset: str, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Stage -> settings of a preset, with `changes` (stage -> setting -> value) in the places of its own.

    Raises:
        BadInput: an engine, preset, stage or setting that there is not, or a value of another kind; it lists what there is.
    """
    presets = read_presets()
    for what, name, known in (("engine", engine, presets), ("preset", preset, presets.get(engine, {}))):
        if name not in known:
            raise BadInput(f"There is no {what} {name!r}: use one of {', '.join(known)}.")
    settings = {stage: dict(presets[engine][preset][stage]) for stage in STAGES}
    for stage, values in (changes or {}).items():
        if stage not in settings or not isinstance(values, Mapping):
            raise BadInput(f"There is no stage {stage!r} to set: the settings are of {' and '.join(STAGES)}.")
        for name, value in values.items():
            if name not in settings[stage]:
                raise BadInput(f"{engine} has no {stage} setting {name!r}: there are {', '.join(settings[stage])}.")
            if _kind(value) != _kind(settings[stage][name]):
                raise BadInput(f"{engine}'s {stage} setting {name} is like {settings[stage][name]!r}, not {value!r}.")
            settings[stage][name] = value
    return settings


def _kind(value: object) -> type:
    if isinstance(value, bool | list):
        return type(value)
    return str  # a number may be given as text, and a schedule as a number


class EngineSession:
    """An engine with a preset, in a process that lives as long as the session. Use it in one thread at a time.

    Args:
        engine: "greedy", "ants" or "elastix".
        preset: "paper" or "fast".
        threads: that the engine may use.
        settings: stage -> setting -> value, instead of the preset's, such as {"deformable": {"iterations": "100x50"}}.
        say: hears when the process starts.
        cancelled: is asked ten times a second.

    Raises:
        BadInput: see `preset_settings`. EngineMissing: the engine is not installed.
    """

    def __init__(
        self,
        engine: str,
        preset: str,
        threads: int = 1,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        say: Say = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        self.settings = preset_settings(engine, preset, settings)
        if threads < 1:
            raise BadInput(f"An engine needs at least one thread, not {threads}.")
        if problem := engine_problem(engine):
            raise EngineMissing(problem)
        self.engine, self.preset, self.threads = engine, preset, threads
        self._say, self._cancelled = say, cancelled
        self._process: EngineProcess | None = None
        self._number = 0

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """The engine's package and its version, such as "antspyx 0.6.3"."""
        return engine_version(self.engine) or DISTRIBUTIONS[self.engine]

    @property
    def pid(self) -> int | None:
        """The number of the engine's process; None if none runs."""
        return self._process.pid if self._process and self._process.is_running() else None

    def close(self) -> None:
        """End the process and remove its files. A later `run` starts another."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def run(self, task: Task, settings: Mapping[str, Any] | None = None) -> Transform:
        """Register.

        Args:
            task: what to register.
            settings: all settings of the task's stage, for this task alone, instead of the session's.

        Returns:
            The transform, fixed -> moving, LPS mm. Of the linear stage a matrix alone; of the deformable one the task's
            initial matrix and a field on the first fixed image's grid, a warm start's field included. With
            dimension 2 a field alone.

        Raises:
            BadInput: images that cannot be read, are on different grids, or do not overlap.
            EngineFailed: the engine ended, crashed or gave no sensible result; the next task starts it anew if need be.
            Cancelled: `cancelled` said so; the process and its files are gone.
        """
        images = TaskImages(task)
        try:
            process = self._ready()
            self._number += 1
            folder = process.folder / f"task{self._number}"
            folder.mkdir()
            try:
                process.send(self._request(task, images, folder, settings or self.settings[task.stage]))
                answer = process.answer(self._cancelled)
                self._check(answer)
                return images.transform(task, answer, process.folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except ProcessEnded as error:
            self._process = None
            raise EngineFailed(f"{TITLES[self.engine]} failed: {error}.") from error
        except BaseException as error:
            if not isinstance(error, BadInput | EngineFailed):
                self.close()  # a Cancelled or a full disk must leave nothing behind
            raise

    def _ready(self) -> EngineProcess:
        if self._process is None or not self._process.is_running():
            self.close()
            folder = engine_folder()
            if folder is None:
                raise EngineMissing(str(engine_problem(self.engine)))
            self._say(f"Starting {TITLES[self.engine]} ({self.version})")
            self._process = EngineProcess(self.engine, folder, self.threads)
            self._check(self._process.answer(self._cancelled))
        return self._process

    def _check(self, answer: dict[str, Any]) -> None:
        if "error" not in answer:
            return
        if answer["kind"] == "bad input":
            raise BadInput(answer["error"])
        if answer["kind"] == "missing":
            advice = engine_problem(self.engine) or "Install the engines again."
            raise EngineMissing(f"{TITLES[self.engine]} cannot be used: {answer['error']}. {advice}")
        lines = self._process.last_lines() if self._process else []
        log = f" Its last lines: {' | '.join(lines)}" if lines else ""
        raise EngineFailed(f"{TITLES[self.engine]} failed: {answer['error']}.{log}")

    def _request(self, task: Task, images: TaskImages, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        request = {"id": self._number, "stage": task.stage, "dimension": task.dimension, **images.request(task, folder)}
        return request | {"seed": task.seed + 1, "threads": self.threads, "settings": dict(settings)}
