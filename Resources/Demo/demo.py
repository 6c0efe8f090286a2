"""The main job on real input: T2 and FLAIR, with uncertainty, from the ICBM152 T1 template (the average of 152 heads).

The template comes with nilearn's wheel, so the demo needs no network. It runs the same command that users run.

    python Resources/Demo/demo.py --output demo-output
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

from figure import draw_translations

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


def main() -> None:
    """Translate and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--samples", type=int, default=4, help="noise samples for the uncertainty")
    values = parser.parse_args()
    folder: Path = values.output
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "T1.nii.gz"
    shutil.copyfile(find_template(), given)
    start = time.perf_counter()
    for target in TARGETS:
        command = [sys.executable, "-m", "IMTCommand", "translate", str(given), "--model", f"T1-{target}"]
        command += ["--output", str(folder / f"{target}.nii.gz")]
        command += ["--uncertainty", str(folder / f"{target}_uncertainty.nii.gz"), "--samples", str(values.samples)]
        subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    picture = folder / "demo.png"
    draw_translations(picture, given, {t: (folder / f"{t}.nii.gz", folder / f"{t}_uncertainty.nii.gz") for t in TARGETS})
    print(f"\nWritten to {folder.resolve()}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")
    print(f"Two translations of {values.samples} noise samples each took {seconds:.0f} s. Look at {picture}.")


if __name__ == "__main__":
    main()
