#!/usr/bin/env python3
"""Rewrite, from what is on disk, the lists of files that are installed.

`MODULE_PYTHON_SCRIPTS` and `MODULE_PYTHON_RESOURCES` in each module's CMakeLists.txt, and `packages` in pyproject.toml.
CMake notices a listed file that is missing, but not one that nobody listed: it would be missing in Slicer only.

    python Testing/update_cmake_lists.py            rewrite
    python Testing/update_cmake_lists.py --check    only say what would change; exit code 1 if anything would
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Each module's folder, what its data packages are called in a wheel (models, JSON files of the Resources), and its folder
# of models: in an installed Slicer the Resources of all modules are one folder.
MODULES = {
    "IMTTranslate": ("IMTModels", "IMTResources", "IMT-models"),
    "IMTRegister": ("IMTRegisterModels", "IMTRegisterResources", "IMT-models"),
    "IMTSegment": ("IMTSegmentModels", "IMTSegmentResources", "IMT-segment-models"),
}


def modules() -> list[str]:
    """The modules that are there."""
    return [name for name in MODULES if (ROOT / name / "CMakeLists.txt").is_file()]


def _files_below(module: str, folder: str, pattern: str) -> list[str]:
    """Paths from the module's folder, sorted; no caches, hidden files or build outputs."""
    paths = [path.relative_to(ROOT / module) for path in (ROOT / module / folder).rglob(pattern) if path.is_file()]
    skipped = ("__pycache__", "build")
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") or part in skipped for part in path.parts))


def scripts(module: str) -> list[str]:
    """Every Python file of the module."""
    return [path for path in _files_below(module, "", "*.py") if not path.startswith("Resources/")]


def resources(module: str) -> list[str]:
    """Every file below the module's Resources."""
    return _files_below(module, "Resources", "*")


def packages() -> list[str]:
    """Every folder of the modules with Python files as a dotted name, and the data packages: models, JSON resources."""
    names = []
    for module in modules():
        folders = {Path(path).parent for path in scripts(module)} - {Path()}
        names += [".".join(folder.parts) for folder in folders]
        models, data, folder = MODULES[module]
        if any(path.startswith(f"Resources/{folder}/") for path in resources(module)):
            names.append(models)
        if any(re.fullmatch(r"Resources/[^/]+\.json", path) for path in resources(module)):
            names.append(data)
    return sorted(names)


def _replace_list(text: str, head: str, lines: list[str], tail: str) -> str:
    """`text` with the lines between the one line `head` and the next line `tail` replaced."""
    pattern = re.compile(rf"^({re.escape(head)}\n).*?^({re.escape(tail)})$", re.MULTILINE | re.DOTALL)
    body = "".join(f"  {line}\n" for line in lines)
    replaced, count = pattern.subn(lambda match: match[1] + body + match[2], text)
    if count != 1:
        raise SystemExit(f"update_cmake_lists: expected one list that begins with '{head}', found {count}")
    return replaced


def updated_texts() -> dict[Path, str]:
    """What each file should hold."""
    texts = {}
    for module in modules():
        cmake = ROOT / module / "CMakeLists.txt"
        text = cmake.read_text(encoding="utf-8")
        text = _replace_list(text, "set(MODULE_PYTHON_SCRIPTS", scripts(module), "  )")
        texts[cmake] = _replace_list(text, "set(MODULE_PYTHON_RESOURCES", resources(module), "  )")
    pyproject = ROOT / "pyproject.toml"
    quoted = [f'"{name}",' for name in packages()]
    return {**texts, pyproject: _replace_list(pyproject.read_text(encoding="utf-8"), "packages = [", quoted, "]")}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a list is out of date")
    check = parser.parse_args(arguments).check
    stale = False
    for path, wanted in updated_texts().items():
        present = path.read_text(encoding="utf-8")
        if wanted == present:
            continue
        stale = True
        name = path.relative_to(ROOT).as_posix()
        before, after = present.splitlines(keepends=True), wanted.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(before, after, name, f"{name} (from disk)", n=0))
        if not check:
            path.write_text(wanted, encoding="utf-8", newline="\n")
    if check and stale:
        print("Out of date: run  python Testing/update_cmake_lists.py")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
