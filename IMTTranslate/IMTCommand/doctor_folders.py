"""The doctor's look at folders and what lies in them: temporary files, the user's own, models, engines."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

from IMTCore.cards import PackageCard
from IMTCore.errors import OutputFailure
from IMTCore.files import check_writable, sha256_of

from .doctor_places import user_places
from .doctor_problems import Finding, Findings, good, trouble
from .model_finding import has_segmenters, list_models, segments

MIN_DISK_GB = 1.0
START_SECONDS = 120  # of an engine; the first start after an installation reads gigabytes
TEMP_VARIABLES = ("TMPDIR", "TEMP", "TMP")


def examine_temp_folder() -> Findings:
    """Whether temporary files can be written, have room, and have a name that every engine opens."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # there is no folder at all that takes one
        yield trouble("temp-folder", "temp", str(error))
        return
    named = next((os.environ[name] for name in TEMP_VARIABLES if os.environ.get(name)), None)
    if named is not None and os.path.realpath(named) != os.path.realpath(folder):
        yield trouble("temp-folder", "temp", f"{named} cannot be written to; {folder} is used instead")
    free = shutil.disk_usage(folder).free / 1e9
    detail = f"{free:.1f} GB free in {folder}"
    yield trouble("temp-full", "temp", detail) if free < MIN_DISK_GB else good("temp", detail)
    if not str(folder).isascii():
        yield trouble("temp-name", "temp", str(folder))


def examine_user_folders() -> Findings:
    """Whether models, engines and caches can be stored where they belong."""
    short: dict[str, float] = {}
    fine = True
    for place in user_places():
        try:
            check_writable(place.path / ".imt-doctor")
        except OutputFailure as error:
            fine = False
            named = f" ({place.variable} names it)" if place.named else ""
            yield trouble("user-folder", place.what, f"{place.path}{named}: {_reason(error)}")
            continue
        there = next(parent for parent in (place.path, *place.path.parents) if parent.exists())
        free = shutil.disk_usage(there).free / 1e9
        if free < MIN_DISK_GB:
            short[str(there)] = free
    for folder, free in short.items():
        yield trouble("user-disk", "disk", f"{free:.1f} GB free in {folder}")
    if fine and not short:
        yield good("user data", "models, engines and caches can be stored")


def _reason(error: OutputFailure) -> str:
    return str(error).partition(".imt-doctor: ")[2] or str(error)


def examine_models() -> Findings:
    """Whether there are models, and each is what its card says. PyTorch is not needed."""
    cards, problems = list_models()
    for text in problems:
        yield trouble("model-card", "models", text)
    ready: dict[str, list[str]] = {"models": [], "segmenters": []}
    for card in cards:
        finding = _weights(card)
        if finding is None:
            ready["segmenters" if segments(card) else "models"].append(card.name)
        else:
            yield finding
    if not ready["models"]:
        yield trouble("no-models", "models", "no model that translates is ready")
    for kind, names in ready.items():
        if names:
            yield good(kind, ", ".join(names))
        elif kind == "segmenters" and has_segmenters():
            yield trouble("no-models", kind, "no model that segments is ready")


def _weights(card: PackageCard) -> Finding | None:
    weights = card.content["weights"]
    try:
        size = card.weights_path.stat().st_size
        if size == weights["bytes"] and sha256_of(card.weights_path) == card.sha256:
            return None
    except OSError as error:
        return trouble("model-weights", "models", f"{card.name}: {card.weights_path}: {error.strerror}")
    return trouble("model-changed", "models", f"{card.name}: {card.weights_path.name} ({size} bytes) is not the file that its card names")


class EngineCheck:
    """Starts the registration engines while the doctor looks at other things; `findings` waits for them."""

    def __init__(self) -> None:
        self._stop = Event()
        self._pool = ThreadPoolExecutor(3)
        self._starts: dict[str, Future[str]] = {}
        self._early = list(self._examine_folder())

    def _examine_folder(self) -> Findings:
        if find_spec("IMTRegisterLib") is None:  # IMTRegister is not installed
            return
        from IMTRegisterLib.engines.interface import ENGINES, TITLES, engine_folder, engine_problem

        folder = engine_folder()
        present = [engine for engine in ENGINES if engine_problem(engine) is None]
        if folder is None or not present:
            yield trouble("engines-missing", "engines", engine_problem(ENGINES[0]) or f"none in {folder}")
            return
        unmet = _unmet(folder)
        if unmet or len(present) < len(ENGINES):
            lacking = unmet or [TITLES[engine] for engine in ENGINES if engine not in present]
            yield trouble("engines-other", "engines", f"{folder} does not meet {', '.join(lacking)}")
        for engine in present:
            self._starts[engine] = self._pool.submit(_start, engine, folder, self._stop)

    def findings(self) -> Findings:
        """What was found."""
        yield from self._early
        if not self._starts:
            return
        from IMTRegisterLib.engines.interface import TITLES, engine_version

        for engine, start in self._starts.items():
            reason = start.result()
            version = f"{TITLES[engine]} ({engine_version(engine)})"
            if reason:
                yield trouble("engine-broken", "engines", f"{version}: {reason}")
            else:
                yield good("engines", f"{version} starts")

    def close(self) -> None:
        """End what still starts."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


def _unmet(folder: Path) -> list[str]:
    """What of the engines' requirements the folder lacks."""
    from IMTCore.requirements import unmet_requirements
    from IMTRegisterLib.engines.interface import engine_requirements

    path = engine_requirements()
    return [] if path is None else unmet_requirements(path, folder)


def _start(engine: str, folder: Path, stop: Event) -> str:
    """Start an engine and end it; returns what went wrong."""
    import time

    from IMTCore.errors import Cancelled, ImtError
    from IMTRegisterLib.engines.session import EngineProcess, ProcessEnded

    until = time.monotonic() + START_SECONDS
    process: Any = None
    try:
        process = EngineProcess(engine, folder, 1)
        answer = process.answer(lambda: stop.is_set() or time.monotonic() > until)
        return str(answer.get("error", ""))
    except Cancelled:
        return f"it did not start within {START_SECONDS} s"
    except (ProcessEnded, ImtError, ValueError) as error:
        return str(error)
    finally:
        if process is not None:
            process.end()
