"""Run what IMT does in Slicer when its user consents to an installation: IMTSlicerLib.dependencies, on a stand-in for Slicer.

    python Testing/Installation/slicer_stand_in.py [REQUIREMENTS]

The stand-in has a main window whose user agrees to everything; slicer.packaging is the harness's, which calls pip as Slicer's does.
Exit code 1 and the message, if IMT raises RuntimeError.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = ROOT / "Testing" / "harness" / "slicer_harness" / "standins"


def make_slicer() -> None:
    """Put a package `slicer` with app, util, packaging and i18n into sys.modules."""
    slicer = types.ModuleType("slicer")
    slicer.__path__ = []
    slicer.app = types.SimpleNamespace(testingEnabled=lambda: False, processEvents=lambda: None)
    slicer.util = types.SimpleNamespace(mainWindow=object, confirmOkCancelDisplay=lambda *_, **__: True)
    sys.modules["slicer"] = slicer
    for name in ("packaging", "i18n"):
        spec = importlib.util.spec_from_file_location(f"slicer.{name}", STAND_INS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)


def main(arguments: list[str]) -> int:
    """Install, as on the first run in Slicer; returns the exit code."""
    os.environ["SLICER_HARNESS_ALLOW_PIP"] = "1"
    make_slicer()
    sys.path.insert(0, str(ROOT / "IMTTranslate"))
    from IMTSlicerLib import dependencies

    try:
        dependencies.ensureDependencies(*arguments)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
