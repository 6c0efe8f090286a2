"""The project's files, what they import, and the settings that tests read."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "IMTTranslate"
MODULES = [path.parent for path in sorted(ROOT.glob("IMT*/CMakeLists.txt"))]
REPOSITORY = "https://github.com/IMT-Slicer/SlicerIMT"
RAW_FILES = "https://raw.githubusercontent.com/IMT-Slicer/SlicerIMT/main/"
# What Slicer imports when a panel is opened.
PANELS = {"IMTSlicerLib", "IMTTranslate", "IMTTranslatePanel", "IMTRegister", "IMTRegisterPanel", "IMTSegment", "IMTSegmentPanel"}


# --- Files ---------------------------------------------------------------------------------------------------------


@cache
def project_files() -> tuple[Path, ...]:
    """The files that git tracks or would; in a copy without git, all but hidden folders and build outputs."""
    listed = None
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-coz", "--exclude-standard"]
        try:
            listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        except (OSError, subprocess.CalledProcessError):
            pass  # git is missing, or refuses a folder that another user owns
    if listed is not None:
        return tuple(ROOT / name for name in sorted(set(listed) - {""}) if (ROOT / name).is_file())
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if not re.match(r"\.(?!ci$|github$)|__pycache__|.*\.egg-info", name)]
        if Path(folder) == ROOT:
            below[:] = [name for name in below if name not in ("build", "demo-output", "dist", "runs")]
        if (Path(folder) / "pyvenv.cfg").exists():
            below[:], names = [], []
        found += [Path(folder) / name for name in names if not name.endswith(".pyc")]
    return tuple(sorted(found))


def cmake_list(name: str, module: Path = MODULE) -> list[str]:
    """One of the file lists of a module's CMakeLists.txt, read without the script that writes it."""
    text = (module / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(rf"^set\({name}\n(.*?)^\s*\)$", text, re.MULTILINE | re.DOTALL)
    assert found, f"no list {name}"
    return found[1].split()


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


# --- Imports -------------------------------------------------------------------------------------------------------


def module_of(path: Path) -> Path | None:
    """The folder of the module that a file belongs to."""
    return next((module for module in MODULES if path.is_relative_to(module)), None)


def module_name(path: Path) -> str:
    """IMTTranslate/IMTCore/volume.py → IMTCore.volume"""
    parts = path.relative_to(module_of(path)).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _scope_nodes(node: ast.AST, file_scope_only: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if file_scope_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _scope_nodes(child, file_scope_only)


def imports(path: Path, file_scope_only: bool = False) -> set[str]:
    """The absolute names that `path` imports: both `a` and `a.b` of `from a import b`, as `b` may be a module."""
    names: set[str] = set()
    for node in _scope_nodes(ast.parse(path.read_text(encoding="utf-8"), str(path)), file_scope_only):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                module = module_of(path)
                package = list(path.relative_to(module).parts[:-1]) if module else []
                base = ".".join(package[: len(package) - node.level + 1] + ([base] if base else []))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names.add(str(node.args[0].value))
    return names


def top_names(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def python_files(folder: Path) -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py" and path.is_relative_to(folder)]


@cache
def module_files() -> dict[str, Path]:
    """The Python files of the modules by dotted name."""
    return {module_name(path): path for module in MODULES for path in python_files(module)}


def imported_at_start() -> dict[str, str]:
    """What Slicer imports with the panels, by dotted name: the panels' files and all that they import at file scope.

    The value is the chain of imports, for messages.
    """
    files = module_files()
    waiting = [name for name in files if name.partition(".")[0] in PANELS]
    reached = {name: name for name in waiting}
    while waiting:
        name = waiting.pop()
        for imported in imports(files[name], file_scope_only=True):
            if imported in files and imported not in reached:
                reached[imported] = f"{reached[name]} → {imported}"
                waiting.append(imported)
    return reached
