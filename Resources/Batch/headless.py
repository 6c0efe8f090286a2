"""What the headless examples share: finding the modules with or without the Slicer application, saving, leaving."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[2]


def prepare(*modules: str) -> None:
    """Find modules; outside the Slicer application, give slicer-core what Slicer's application would.

    :param modules: names of module folders in this checkout.
    """
    if not hasattr(slicer, "app"):
        sys.path.append(str(ROOT / "Testing" / "harness"))
        from slicer_harness.core import bootstrap_core

        bootstrap_core()
    sys.path += [str(ROOT / name) for name in modules]  # last: an installed IMT comes first


def save(node, path: Path) -> None:
    """Write a node into a file.

    :raises RuntimeError: it cannot be written.
    """
    if not slicer.util.saveNode(node, str(path), properties={}):
        raise RuntimeError(f"Cannot write {path}.")
    print(path.name, flush=True)


def save_scene(path: Path) -> None:
    """Write the scene, as .mrb, and empty it.

    :raises RuntimeError: it cannot be written.
    """
    if not slicer.util.saveScene(str(path)):
        raise RuntimeError(f"Cannot write {path}.")
    print(path.name, flush=True)
    slicer.mrmlScene.Clear()


def leave(main: Callable[[list[str]], int]) -> None:
    """Run `main` on the command line's arguments, and end Slicer or Python with its exit code."""
    in_slicer = hasattr(slicer, "app")
    try:
        code = main(sys.argv[1:])
    except SystemExit as error:  # argparse; without this, Slicer would stay open
        code = int(error.code or 0)
    except BaseException:  # likewise
        traceback.print_exc()
        code = 1
    if in_slicer:
        slicer.util.exit(code)
    else:
        sys.stdout.flush()
        os._exit(code)  # VTK and Python take each other down in no certain order
