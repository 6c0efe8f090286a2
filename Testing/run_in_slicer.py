"""Run the modules' own tests inside Slicer, for those who have the application; exit code 0 if all pass. Not tried by us.

    Slicer --testing --no-splash --no-main-window \\
        --additional-module-paths IMTTranslate IMTRegister IMTSegment --python-script Testing/run_in_slicer.py
"""

import sys
import traceback

import slicer

MODULES = ("IMTTranslate", "IMTRegister", "IMTSegment")


def main() -> int:
    """Run them all; returns the number of modules whose tests failed."""
    failed = 0
    for name in MODULES:
        try:
            slicer.selfTests[name]()
            print(f"{name}: passed", flush=True)
        except Exception:  # whatever goes wrong is a failed test
            traceback.print_exc()
            print(f"{name}: failed", file=sys.stderr, flush=True)
            failed += 1
    return failed


if __name__ == "__main__":
    slicer.util.exit(main())
