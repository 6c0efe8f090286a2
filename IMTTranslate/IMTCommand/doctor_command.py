"""`imt doctor`: what is installed, whether it works, and what to do about what does not."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from dataclasses import asdict

from IMTCore.errors import BadInput, Cancelled, OutputFailure
from IMTCore.version import VERSION

from .doctor_arguments import SECTIONS
from .doctor_problems import Finding, Findings, trouble
from .text_table import columns


def run(values: argparse.Namespace) -> int:
    """Print the findings; exit 0 unless something that every run needs is bad. Or list, or remove, what IMT has left."""
    if values.where or values.remove_all:
        return _remove_all(values) if values.remove_all else _list_places(values)
    if values.yes:
        raise BadInput("--yes belongs to --remove-all. Leave it out.")
    findings = examine(values.only or SECTIONS, values.slicer)
    if values.json:
        return _print_report(findings, values.slicer)
    bad = False
    for finding in findings:
        bad = bad or finding.state == "bad"
        print(f"{finding.state:<8} {finding.name:<12} {finding.detail}", flush=True)
        if finding.remedy:
            print(f"{'':<8} {'':<12} -> {finding.remedy} [{finding.problem}]", flush=True)
    return 1 if bad else 0


def _print_report(findings: Findings, slicer: str | None) -> int:
    from .doctor_privacy import Anonymiser

    anonymous = Anonymiser()
    found = list(findings)
    checks = [{**asdict(finding), "detail": anonymous(finding.detail)} for finding in found]
    system = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine(), "slicer": slicer}
    print(json.dumps({"imt": VERSION, **system, "checks": checks}, indent=2, ensure_ascii=False))
    return 1 if any(finding.state == "bad" for finding in found) else 0


def examine(sections: tuple[str, ...] | list[str] = SECTIONS, slicer: str | None = None) -> Findings:
    """All findings, as they come.

    Args:
        sections: where to look.
        slicer: version of the Slicer that this Python belongs to, such as "5.12.3".
    """
    from .doctor_packages import REQUIRED, examine_packages, import_all

    needs_packages = {"packages", "computing", "surroundings"} & set(sections)
    imported = import_all(tuple(REQUIRED)) if needs_packages else {}
    broken = {name for name, result in imported.items() if result.error}
    if "packages" in sections:
        yield from examine_packages(imported, slicer)
    with contextlib.ExitStack() as stack:
        engines = _start_engines(stack) if "engines" in sections and "numpy" not in broken else None
        if "computing" in sections:
            yield from _examine_computing(broken)
        for section in ("folders", "models"):
            if section in sections:
                yield from _examine_if_numpy_works(section, broken)
        if "surroundings" in sections:
            from .doctor_surroundings import examine_copies, examine_loopback, examine_variables

            yield from examine_variables(imported)
            yield from examine_copies()
            yield from examine_loopback()
        if "engines" in sections:
            yield from engines or [_not_examined("engines", "numpy")]


def _start_engines(stack: contextlib.ExitStack) -> Findings:
    """Start the engines now, and say later what came of it."""
    try:
        from .doctor_folders import EngineCheck

        check = stack.enter_context(contextlib.closing(EngineCheck()))
    except Exception as error:  # a broken package raises anything
        return iter([_not_examined("engines", str(error))])
    return check.findings()


def _examine_if_numpy_works(section: str, broken: set[str]) -> Findings:
    """Folders and models: where they are, and what a model's card says, is known to code that needs numpy."""
    try:
        if "numpy" in broken:  # it may end this process, not only raise
            raise ImportError("numpy")
        from .doctor_folders import examine_models, examine_temp_folder, examine_user_folders

        parts = (examine_models,) if section == "models" else (examine_temp_folder, examine_user_folders)
        for part in parts:
            yield from part()
    except Exception as error:  # a broken package raises anything
        yield _not_examined(section, str(error))


def _not_examined(name: str, reason: str) -> Finding:
    return trouble("not-examined", name, f"not looked at: {' '.join(reason.split())}")


def _examine_computing(broken: set[str]) -> Findings:
    from .doctor_computing import examine_gpu, examine_memory, examine_network

    yield from examine_memory()
    if "torch" not in broken:
        yield from examine_gpu()
    if broken:
        yield _not_examined("tiny run", ", ".join(sorted(broken)))
    else:
        yield from examine_network()


def _list_places(values: argparse.Namespace) -> int:
    from .doctor_places import all_places

    places = all_places()
    if values.json:
        listed = [{"what": place.what, "path": str(place.path), "bytes": place.size(), "kept": place.kept} for place in places]
        print(json.dumps(listed, indent=2, ensure_ascii=False))
    elif not places:
        print("IMT has left nothing outside its own folder.")
    else:
        rows = [("what", "MB", "where", "")]
        rows += [(place.what, f"{place.size() / 1e6:.1f}", str(place.path), f"({place.kept})" if place.kept else "") for place in places]
        print("\n".join(columns(rows)))
        print("imt doctor --remove-all removes these, but for those that stay. Close Slicer first: it would write its settings again.")
    return 0


def _remove_all(values: argparse.Namespace) -> int:
    from .doctor_places import all_places, remove, remove_data_folder

    if values.json:
        raise BadInput("--remove-all has no JSON form. Use --where --json to see what there is.")
    places = all_places()
    doomed = [place for place in places if not place.kept]
    for place in doomed:
        print(f"{place.what}: {place.path} ({place.size() / 1e6:.1f} MB)")
    for place in places:
        if place.kept:
            print(f"stays: {place.what}: {place.path} ({place.kept})")
    if not doomed:
        print("There is nothing to remove.")
        return 0
    if not values.yes:
        _ask()
    problems = []
    for place in doomed:
        try:
            remove(place)
        except OutputFailure as error:
            problems.append(str(error))
    remove_data_folder()
    if problems:
        raise OutputFailure(" ".join(problems))
    print("Removed. IMT's own folder, with its .venv, is deleted by hand.")
    return 0


def _ask() -> None:
    if not sys.stdin.isatty():
        raise BadInput("--remove-all asks before it removes, and there is nobody to ask. Add --yes.")
    if input("Close Slicer first. Remove all of these for good? Type yes: ").strip().lower() != "yes":
        raise Cancelled("Nothing was removed.")
