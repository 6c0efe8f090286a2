"""Carry atlas labels to one volume through the logic of IMTRegister, without a window, and save what comes out.

In Slicer (IMT installed, or its module folders given):

    Slicer --no-splash --no-main-window --additional-module-paths IMTTranslate IMTRegister \\
        --python-script Resources/Batch/register_headless.py T2.nii.gz T2 ATLASES OUT --translate-to T1

In plain Python, on slicer-core (`make setup` installs it):

    python Resources/Batch/register_headless.py T2.nii.gz T2 ATLASES OUT --translate-to T1

Writes into OUT: `<name>_labels.seg.nrrd` with its mark beside it, the transform `<atlas>.h5` of each atlas, and the scene,
`<name>.mrb`; what a second, translated modality took part in is marked so. For many cases with resume and a summary, `imt
register` is the better tool; this shows how a script uses the logic and the scene. Exit codes: 0 good, 1 the registration
or a file failed, 2 bad arguments or input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import slicer

sys.path.append(str(Path(__file__).resolve().parent))
from headless import leave, prepare, save, save_scene


def register_volume(values: argparse.Namespace) -> None:
    """Register one volume and save what comes out; the scene is empty afterwards."""
    from IMTRegister import IMTRegisterLogic

    slicer.mrmlScene.Clear()
    node = slicer.util.loadVolume(str(values.input), properties={"show": False})
    result = IMTRegisterLogic().register(
        node,
        values.modality,
        values.atlases.absolute(),
        translateTo=values.translate_to,
        engine=values.engine,
        preset=values.preset,
        jobs=values.jobs,
    )
    for warning in result.warnings:
        print(f"Warning: {warning}", file=sys.stderr, flush=True)
    values.output.mkdir(parents=True, exist_ok=True)
    save(result.segmentationNode, values.output / f"{node.GetName()}_labels.seg.nrrd")
    for atlas, transform in result.transformNodes.items():
        save(transform, values.output / f"{atlas}.h5")
    save_scene(values.output / f"{node.GetName()}.mrb")


def main(arguments: list[str]) -> int:
    """Register as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(description="Carry atlas labels to one volume.")
    parser.add_argument("input", type=Path, help="volume file")
    parser.add_argument("modality", help="what it is, such as T2")
    parser.add_argument("atlases", type=Path, help="atlas folder or CSV file")
    parser.add_argument("output", type=Path, help="folder")
    parser.add_argument("--translate-to", metavar="T1", help="second modality, translated from the input")
    parser.add_argument("--engine", default="greedy", choices=("greedy", "ants", "elastix"))
    parser.add_argument("--preset", default="fast", choices=("fast", "paper"))
    parser.add_argument("--jobs", type=int, default=0, help="atlases at once (default: as cores and memory allow)")
    values = parser.parse_args(arguments)
    if not values.input.is_file():
        print(f"There is no file {values.input}.", file=sys.stderr)
        return 2
    prepare("IMTTranslate", "IMTRegister")
    try:
        register_volume(values)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr, flush=True)
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    leave(main)
