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
import sys
from pathlib import Path

import slicer

sys.path.append(str(Path(__file__).resolve().parent))
from headless import leave, prepare, save, save_scene

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mgz")


def translate_file(logic, path: Path, folder: Path, models: list[str]) -> None:
    """Load one volume, translate it, save the results and the scene `<name>.mrb`; the scene is empty afterwards."""
    print(f"{path.name}:", flush=True)
    slicer.mrmlScene.Clear()
    node = slicer.util.loadVolume(str(path), properties={"show": False})
    for output in logic.translate(node, models):
        save(output, folder / f"{node.GetName()}_{output.GetAttribute('IMT.TargetModality')}_synthetic.nrrd")
    save_scene(folder / f"{node.GetName()}.mrb")


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
    prepare("IMTTranslate")
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
    leave(main)
