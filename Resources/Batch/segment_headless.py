"""Segment one volume through the logic of IMTSegment, without a window, and save what comes out.

In Slicer (IMT installed, or its module folders given):

    Slicer --no-splash --no-main-window --additional-module-paths IMTTranslate IMTSegment \\
        --python-script Resources/Batch/segment_headless.py T1.nii.gz OUT --model tissue

In plain Python, on slicer-core (`make setup` installs it):

    python Resources/Batch/segment_headless.py T1.nii.gz OUT --model tissue

Writes into OUT: `<name>_<task>.seg.nrrd` with its mark beside it, the table `<name>_volumes.csv`, with --surfaces an STL file
of each segment, and the scene, `<name>.mrb`; what a translated second contrast took part in is marked so. For many cases with
resume and a summary, `imt segment` is the better tool; this shows how a script uses the logic and the scene. Exit codes: 0
good, 1 the segmentation or a file failed, 2 bad arguments or input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import slicer

sys.path.append(str(Path(__file__).resolve().parent))
from headless import leave, prepare, save, save_scene


def segment_volume(values: argparse.Namespace) -> None:
    """Segment one volume and save what comes out; the scene is empty afterwards."""
    from IMTSegment import IMTSegmentLogic

    slicer.mrmlScene.Clear()
    node = slicer.util.loadVolume(str(values.input), properties={"show": False})
    second = slicer.util.loadVolume(str(values.second), properties={"show": False}) if values.second else None
    result = IMTSegmentLogic().segment(node, values.model, second, surfaces=values.surfaces)
    for warning in result.warnings:
        print(f"Warning: {warning}", file=sys.stderr, flush=True)
    values.output.mkdir(parents=True, exist_ok=True)
    name = node.GetName()
    save(result.segmentationNode, values.output / f"{name}_{result.report['task']}.seg.nrrd")
    save(result.tableNode, values.output / f"{name}_volumes.csv")
    if values.surfaces:
        logic = slicer.modules.segmentations.logic()
        if not logic.ExportSegmentsClosedSurfaceRepresentationToFiles(str(values.output), result.segmentationNode, None, "STL"):
            raise RuntimeError(f"Cannot write the surfaces to {values.output}.")
    save_scene(values.output / f"{name}.mrb")


def main(arguments: list[str]) -> int:
    """Segment as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(description="Segment one volume.")
    parser.add_argument("input", type=Path, help="volume file")
    parser.add_argument("output", type=Path, help="folder")
    parser.add_argument("--model", default="tissue", help="a model's name, a task such as tissue, or a card's path")
    parser.add_argument("--second", type=Path, help="volume of the model's second contrast (default: translated)")
    parser.add_argument("--surfaces", action="store_true", help="also save a closed surface of each segment")
    values = parser.parse_args(arguments)
    for path in filter(None, (values.input, values.second)):
        if not path.is_file():
            print(f"There is no file {path}.", file=sys.stderr)
            return 2
    prepare("IMTTranslate", "IMTSegment")
    try:
        segment_volume(values)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr, flush=True)
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    leave(main)
