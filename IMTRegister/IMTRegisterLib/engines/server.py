"""The process of one registration engine: a task a line on stdin, an answer a line on what was stdout.

`python -m IMTRegisterLib.engines.server ENGINE`, started by `session` with the engines' package folder first on
the path, in a folder of its own. It is kept for many tasks, as importing an engine takes seconds. What the engine
prints goes into the file LOG there. Neither torch nor the SimpleITK of other folders is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import queue
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np

from IMTCore.errors import BadInput

from .images import (
    EngineError,
    Frame,
    Problem,
    check_overlap,
    is_astray,
    meet,
    slice_indices,
    slice_problem,
    with_best_start,
)

LOG = "engine.log"
FOLDER_PREFIX = "imt-engine-"


class Astray(EngineError):
    """A linear result that is worse than its start."""


def main(engine: str) -> int:
    """Serve until stdin ends."""
    answers = _own_channel()
    _die_with_parent()
    _hide("torch", "xarray")
    try:
        adapter = importlib.import_module(f"{__package__}.{engine}")
    except ImportError as error:
        _answer(answers, {"error": f"its packages cannot be imported ({error})", "kind": "missing"})
        return 1
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    _answer(answers, {"ready": True})
    while True:
        _answer(answers, _handle(adapter, json.loads(requests.get())))


def _own_channel() -> TextIO:
    """The original stdout for answers alone; what C and C++ code prints on the descriptors 1 and 2 goes into the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    if sys.platform == "linux":  # C code's lines are to be in the log even if it crashes
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, 0)
    return answers


def _die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent, even while C++ code keeps Python's threads from running."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _hide(*names: str) -> None:
    """No engine is to import these: itk imports torch wherever its metadata say that it is installed."""
    known = importlib.metadata.metadata

    def metadata(name: str) -> importlib.metadata.PackageMetadata:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    importlib.metadata.metadata = metadata
    sys.modules.update(dict.fromkeys(names))


def _read(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    home = Path.cwd()
    if home.name.startswith(FOLDER_PREFIX):  # the parent is gone: nobody else removes it
        os.chdir(home.parent)
        shutil.rmtree(home, ignore_errors=True)
    os._exit(0)


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def _handle(adapter: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    os.truncate(LOG, 0)
    try:
        return {"id": request["id"], **_solve(adapter, request)}
    except BadInput as error:
        return {"id": request["id"], "error": str(error), "kind": "bad input"}
    except MemoryError:
        return {"id": request["id"], "error": "there is not enough memory", "kind": "failed"}
    except Exception as error:  # what the engines raise has no common class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"id": request["id"], "error": lines[-1], "kind": "failed"}
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _solve(adapter: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request: the matrix, and the name of the file of the field (both mm LPS; a slice's: indices)."""
    problem = _read_problem(request)
    stage, given = request["stage"], request["start_given"]
    if request["dimension"] == 2:
        start = None if request["start"] is None else np.load(request["start"])
        np.save(request["result"], _solve_slices(adapter, stage, problem, start))
        return {"field": request["result"]}
    if stage == "linear" and not given:
        problem = with_best_start(problem)
    check_overlap(problem)
    matrix, displacement = _register(adapter, stage, problem)
    if displacement is None:
        return {"matrix": matrix.tolist(), "field": None}
    np.save(request["result"], displacement)
    return {"matrix": matrix.tolist(), "field": request["result"]}


def _solve_slices(adapter: ModuleType, stage: str, problem: Problem, start: np.ndarray | None) -> np.ndarray:
    """(K, J, I, 2) float64 continuous indices i, j in the moving slices. Slices that show nothing or go astray keep their start."""
    k, j, i = problem.fixed_frame.shape
    result = np.empty((k, j, i, 2))
    scale = problem.fixed_frame.spacing[:2] / problem.moving_frame.spacing[:2]
    result[:] = np.stack(np.broadcast_arrays(np.arange(i), np.arange(j)[:, None]), axis=-1) * scale if start is None else start
    done = 0
    for n in range(k):
        cut = slice_problem(problem, n, None if start is None else start[n])
        if cut is not None and stage == "linear" and start is None:
            cut = with_best_start(cut)
        if cut is None or not meet(cut, cut.matrix):
            continue
        try:
            result[n] = slice_indices(cut, *_register(adapter, stage, cut))
        except BadInput:
            raise
        except Astray:
            continue
        except Exception as error:
            raise EngineError(f"slice {n}: {str(error).strip().splitlines()[-1]}") from error
        done += 1
    if not done:
        raise BadInput(f"No slice of {problem.names[0]} overlaps with the same slice of {problem.names[1]}. Check the images.")
    return result


def _register(adapter: ModuleType, stage: str, problem: Problem) -> tuple[np.ndarray, np.ndarray | None]:
    """A and u of x -> A(x + u(x)); the linear stage changes A alone, the deformable one u alone."""
    if stage == "linear":
        matrix = adapter.linear(problem)
        if is_astray(problem, matrix):
            raise Astray("its linear registration went astray: the images match less than where it began")
        return matrix, None
    displacement = adapter.deformable(problem)
    if not np.isfinite(displacement).all():
        raise EngineError("its displacement field has values that are not finite")
    return problem.matrix, displacement


def _read_problem(request: dict[str, Any]) -> Problem:
    def load(name: str | None) -> Any:
        return None if name is None else np.load(name)

    return Problem(
        fixed=[load(channel["fixed"]) for channel in request["channels"]],
        moving=[load(channel["moving"]) for channel in request["channels"]],
        weights=[channel["weight"] for channel in request["channels"]],
        fixed_frame=_frame(request["fixed_frame"]),
        moving_frame=_frame(request["moving_frame"]),
        settings=request["settings"],
        matrix=np.array(request["matrix"]),
        displacement=load(request["displacement"]),
        fixed_mask=load(request["fixed_mask"]),
        moving_mask=load(request["moving_mask"]),
        seed=request["seed"],
        threads=request["threads"],
        names=tuple(request["names"]),
    )


def _frame(content: dict[str, Any]) -> Frame:
    arrays = (np.array(content[name], dtype=np.float64) for name in ("spacing", "origin", "direction"))
    return Frame(tuple(content["shape"]), *arrays)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
