"""Translate all volumes of a folder through the logic of IMTTranslate, without a window, and save a Slicer scene of each.

In Slicer (IMT installed, or its module folder given):

    Slicer --no-splash --no-main-window --additional-module-paths IMTTranslate \\
        --python-script Resources/Batch/translate_folder.py IN OUT --model T1-T2 T1-FLAIR

In plain Python, on slicer-core (`make setup` installs it):

    python Resources/Batch/translate_folder.py IN OUT --model T1-T2 T1-FLAIR

For many cases with resume and a summary, `imt translate` is the better tool (see the README); this shows how a script
uses the logic and the scene. Exit codes: 0 good, 2 bad arguments, 3 some volumes failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mgz")


def prepare() -> None:
    """Find the module; outside the Slicer application, give slicer-core what Slicer's application would."""
    if not hasattr(slicer, "app"):
        sys.path.append(str(ROOT / "Testing" / "harness"))
        from slicer_harness.core import bootstrap_core

        bootstrap_core()
    sys.path.append(str(ROOT / "IMTTranslate"))  # last: an installed IMT comes first


def translate_file(logic, path: Path, folder: Path, models: list[str]) -> None:
    """Load one volume, translate it, save the results and the scene `<name>.mrb`; the scene is empty afterwards."""
    slicer.mrmlScene.Clear()
    node = slicer.util.loadVolume(str(path), properties={"show": False})
    for output in logic.translate(node, models):
        name = f"{node.GetName()}_{output.GetAttribute('IMT.TargetModality')}_synthetic.nrrd"
        if not slicer.util.saveNode(output, str(folder / name), properties={}):
            raise RuntimeError(f"Cannot write {folder / name}.")
        print(f"{path.name}: {name}", flush=True)
    if not slicer.util.saveScene(str(folder / f"{node.GetName()}.mrb")):
        raise RuntimeError(f"Cannot write the scene of {path.name}.")
    slicer.mrmlScene.Clear()


def main(arguments: list[str]) -> int:
    """Translate the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description="Translate all volumes of a folder.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", nargs="+", default=["T1-T2"], help="model names or pairs such as T1-T2")
    values = parser.parse_args(arguments)
    files = sorted(path for path in values.input.glob("*") if path.name.lower().endswith(SUFFIXES))
    if not files:
        print(f"There are no volumes ({', '.join(SUFFIXES)}) in {values.input}.", file=sys.stderr)
        return 2
    values.output.mkdir(parents=True, exist_ok=True)
    prepare()
    from IMTTranslate import IMTTranslateLogic

    logic, failed = IMTTranslateLogic(), 0
    for path in files:
        try:
            translate_file(logic, path, values.output, values.model)
        except Exception as error:  # one bad volume does not stop the others
            print(f"{path.name}: {error}", file=sys.stderr, flush=True)
            failed += 1
    return 3 if failed else 0


if __name__ == "__main__":
    inSlicer = hasattr(slicer, "app")
    try:
        code = main(sys.argv[1:])
    except SystemExit as error:  # argparse; without this, Slicer would stay open
        code = int(error.code or 0)
    except BaseException:  # likewise
        traceback.print_exc()
        code = 1
    if inSlicer:
        slicer.util.exit(code)
    else:
        sys.stdout.flush()
        os._exit(code)  # VTK and Python take each other down in no certain order
