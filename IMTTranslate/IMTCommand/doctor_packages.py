"""The doctor's look at Python and its packages: there, whole, of fitting versions, not in each other's way."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from IMTCore.child_environment import python_executable
from IMTCore.requirements import canonical_name, distributions, parse_requirement

from .doctor_problems import Finding, Findings, good, trouble

# What every run needs, as pyproject.toml says it.
REQUIRED = {"numpy": ">=2.0", "torch": ">=2.6", "SimpleITK": ">=2.4", "safetensors": ">=0.4.3", "nibabel": ">=5.2", "scipy": ">=1.11"}
GUARDED = ("numpy", "scipy", "SimpleITK", "torch")  # what other installers tend to overwrite
OPTIONAL = {"pydicom": "pydicom-missing", "distributed": "dask-missing"}
ENGINES = ("antspyx", "itk-elastix", "picsl-greedy")
SLICERS = {
    "5.12": {"numpy": "2.4.6", "scipy": "1.17.1", "SimpleITK": "2.5.5"},
    "5.13": {"numpy": "2.4.6", "scipy": "1.17.1", "SimpleITK": "2.5.5"},
}
ABI_WORDS = ("compiled using NumPy 1.x", "numpy.dtype size changed", "multiarray failed to import", "_ARRAY_API not found", "Numpy is not available")
IMPORT_SECONDS = 180

# Each import is announced first, so that one that ends the process is known.
_PROBE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    print(json.dumps({"name": name}), flush=True)
    print("\\n>>> " + name, file=sys.stderr, flush=True)
    try:
        module = importlib.import_module(name)
        if name == "torch":
            import numpy
            module.from_numpy(numpy.zeros(1))
        said = {"version": str(getattr(module, "__version__", "")), "file": str(getattr(module, "__file__", "") or "")}
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}", "missing": getattr(error, "name", None) == name}
    print(json.dumps({"name": name, **said}), flush=True)
"""


@dataclass(frozen=True)
class Imported:
    """What came of importing a package: its version and file, or an error; `crashed` if its process ended."""

    version: str = ""
    file: str = ""
    error: str = ""
    missing: bool = False
    crashed: bool = False
    warnings: str = ""


def import_all(names: Iterator[str] | tuple[str, ...]) -> dict[str, Imported]:
    """Import packages in a process of their own, which may end at any of them, and then goes on with the next."""
    found: dict[str, Imported] = {}
    waiting = list(names)
    while waiting:
        command = [python_executable(), "-P", "-c", _PROBE, json.dumps(sys.path), *waiting]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=IMPORT_SECONDS, check=False)
            output, warnings, ending = done.stdout, done.stderr, f"exit code {done.returncode}"
        except subprocess.TimeoutExpired as error:
            output, warnings = (part.decode(errors="replace") if part else "" for part in (error.stdout, error.stderr))
            ending = f"no end after {IMPORT_SECONDS} s"
        said = _said(output)
        texts = dict(part.partition("\n")[::2] for part in warnings.split("\n>>> ")[1:])
        for name, values in said.items():
            if values is None:
                found[name] = Imported(error=f"Python ended ({ending})", crashed=True)
            else:
                found[name] = Imported(**values, warnings=texts.get(name, ""))
        if not said:  # Python itself does not start
            found |= {name: Imported(error=f"Python ended ({ending})", crashed=True) for name in waiting}
        waiting = [name for name in waiting if name not in found]
    return found


def _said(output: str) -> dict[str, dict[str, Any] | None]:
    """Name -> what the probe said of it; None for a package whose import did not return."""
    said: dict[str, dict[str, Any] | None] = {}
    for line in output.splitlines():
        try:
            values = json.loads(line)
            name = values.pop("name")
        except (ValueError, AttributeError, KeyError):  # what a package prints
            continue
        said[name] = values or None
    return said


def examine_packages(imported: dict[str, Imported], slicer: str | None) -> Findings:
    """All findings on Python and its packages.

    Args:
        imported: of REQUIRED, see `import_all`.
        slicer: version of the Slicer that this Python belongs to, such as "5.12.3"; None if it is not known.
    """
    yield _python()
    for name, result in imported.items():
        yield _package(name, result)
    versions = {name: result.version for name, result in imported.items() if result.version}
    yield from _slicers_own(versions, slicer)
    installed = dict(distributions())
    for name in GUARDED:
        yield from _overwritten(name, installed)
    yield from _conflicts(installed)
    beside = [name for name in ENGINES if name in installed]
    if beside:
        yield trouble("engines-beside", "engines", f"{', '.join(beside)} in this Python")
    for name, problem in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield trouble(problem, name, "not installed; optional")
        else:
            yield good(name, f"{installed[name].version if name in installed else 'installed'}; optional")


def _python() -> Finding:
    text = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    return trouble("old-python", "python", text) if sys.version_info < (3, 11) else good("python", text)


def _package(name: str, result: Imported) -> Finding:
    words = f"{result.error}\n{result.warnings}"
    sign = next((sign for sign in ABI_WORDS if sign.lower() in words.lower()), None)
    if sign is not None:
        return trouble("numpy-abi", name, " ".join((result.error or f"{result.version}: {sign}").split()))
    if result.crashed:
        return trouble("package-crashes", name, result.error)
    if result.error:
        problem = "package-missing" if result.missing else "package-broken"
        return trouble(problem, name, f"cannot be imported ({' '.join(result.error.split())})")
    if not _fits(name + REQUIRED[name], result.version):
        return trouble("package-old", name, f"{result.version}, but IMT needs {REQUIRED[name]}")
    return good(name, result.version or "?")


def _fits(requirement: str, version: str) -> bool:
    try:
        return parse_requirement(requirement).specifier.contains(version, prereleases=True)
    except (ValueError, ImportError):  # a version that is none; no `packaging` and no pip to read requirements with
        return True


def _slicers_own(versions: dict[str, str], slicer: str | None) -> Findings:
    """Against what that Slicer brought; nothing if its packages are not known."""
    brought = SLICERS.get(".".join((slicer or "").split(".")[:2]), {})
    changed = [f"{name} {versions[name]} instead of {own}" for name, own in brought.items() if versions.get(name, own) != own]
    if changed:
        yield trouble("slicer-package-changed", "slicer", f"Slicer {slicer} came with another: {', '.join(changed)}")
    elif brought:
        yield good("slicer", f"{slicer}: numpy, scipy and SimpleITK are its own")


def _overwritten(name: str, installed: dict[str, importlib.metadata.Distribution]) -> Findings:
    """Files that differ in size from the package's own list, and other packages that list files in its folder."""
    own = installed.get(canonical_name(name))
    if own is None or not own.files:
        return
    changed = []
    for file in own.files:
        if file.size is None or file.suffix not in (".py", ".so", ".pyd", ".dll", ".dylib"):
            continue
        try:
            size = os.stat(own.locate_file(file)).st_size
        except OSError:
            if file.suffix == ".py":  # some builds leave tests out
                continue
            size = -1
        if size != file.size:
            changed.append(str(file))
    if changed:
        yield trouble("package-overwritten", name, f"{len(changed)} files are not those of {name} {own.version}, such as {changed[0]}")
    sharing = [
        other.metadata["Name"]
        for other in installed.values()
        if other is not own and any(file.parts[:2] == (name, "__init__.py") for file in other.files or ())
    ]
    if sharing:
        yield trouble("package-overwritten", name, f"{', '.join(sharing)} has written into the folder of {name} {own.version}")


def _conflicts(installed: dict[str, importlib.metadata.Distribution]) -> Findings:
    for distribution in installed.values():
        for text in distribution.requires or ():
            try:
                wanted = parse_requirement(text)
                target = installed.get(canonical_name(wanted.name))
                if target is None or canonical_name(wanted.name) not in map(canonical_name, GUARDED):
                    continue
                if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                    continue
            except (ValueError, KeyError, ImportError):  # metadata that is none; nothing to read requirements with
                continue
            if not wanted.specifier.contains(target.version, prereleases=True):
                name = distribution.metadata["Name"]
                detail = f"{name} {distribution.version} wants {wanted.name}{wanted.specifier}, and {target.version} is there"
                yield trouble("requirement-conflict", name, detail)
