"""The main job on real input: T2 and FLAIR, with uncertainty, from the ICBM152 T1 template (the average of 152 heads).

The template comes with nilearn's wheel, so the demo needs no network. It goes the way of the panel's users: a real MRML
scene (slicer-core, without the Slicer application), the logic of IMTTranslate, and `imt` in a process of its own. The
scene is saved too: open `IMT-demo.mrb` in Slicer.

    python Resources/Demo/demo.py --output demo-output
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path

from figure import draw_translations

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
TARGETS = ("T2", "FLAIR")


def find_template() -> Path:
    """The ICBM152 T1 template inside nilearn's package, found without importing nilearn."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        sys.exit("The demo needs nilearn, whose wheel holds the T1 template: pip install nilearn")
    path = Path(spec.origin).parent / "datasets" / "data" / TEMPLATE
    if not path.exists():
        sys.exit(f"This version of nilearn does not hold {TEMPLATE}. Install the version in Resources/requirements/test.txt.")
    return path


def translate(given: Path, folder: Path, samples: int) -> dict[str, tuple[Path, Path]]:
    """Translate a volume in a scene, and save its results, their marks and the scene.

    Returns:
        For each target modality the files of the translation and of its uncertainty.
    """
    sys.path += [str(ROOT / "Testing" / "harness"), str(ROOT / "IMTTranslate")]
    import slicer
    from slicer_harness.core import bootstrap_core

    bootstrap_core()
    from IMTTranslate import IMTTranslateLogic

    node = slicer.util.loadVolume(str(given), properties={"show": False, "name": "T1"})
    run = IMTTranslateLogic().translate(node, [f"T1-{target}" for target in TARGETS], uncertainty=True, samples=samples, wait=False)
    told = [""]

    def tell(fraction: float, message: str, _secondsLeft: float | None) -> None:
        stage = message.partition(":")[0]
        if stage != told[0]:
            told[0] = stage
            print(f"  {fraction:4.0%} {message}", flush=True)

    run.progress.connect(tell)
    run.wait()
    files = {}
    for target, output, uncertainty in zip(TARGETS, run.outputNodes, run.uncertaintyNodes, strict=True):
        files[target] = folder / f"{target}.nii.gz", folder / f"{target}_uncertainty.nii.gz"
        for image, path in zip((output, uncertainty), files[target], strict=True):
            if not slicer.util.saveNode(image, str(path), properties={}):  # its mark is written beside it
                sys.exit(f"{path} was not written.")
    if not slicer.util.saveScene(str(folder / "IMT-demo.mrb")):
        sys.exit(f"The scene was not saved into {folder}.")
    return files


def main() -> None:
    """Translate and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--samples", type=int, default=4, help="noise samples for the uncertainty")
    values = parser.parse_args()
    folder: Path = values.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "T1.nii.gz"
    shutil.copyfile(find_template(), given)
    start = time.perf_counter()
    files = translate(given, folder, values.samples)
    seconds = time.perf_counter() - start
    picture = folder / "demo.png"
    draw_translations(picture, given, files)
    print(f"\nWritten to {folder}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")
    print(f"Two translations of {values.samples} noise samples each took {seconds:.0f} s. Look at {picture}; open IMT-demo.mrb in Slicer.")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # VTK and Python take each other down in no certain order
