"""Stand-in for slicer.packaging: checks what is installed; installs only if SLICER_HARNESS_ALLOW_PIP=1 is set."""

import logging
import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement


def load_requirements(path: str | Path) -> list[Requirement]:
    """The requirements of a file, without its comments and pip options."""
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def _as_list(requirements: str | Requirement | list[str | Requirement]) -> list[Requirement]:
    if isinstance(requirements, str):
        try:
            return [Requirement(requirements)]
        except InvalidRequirement:
            return [Requirement(part) for part in requirements.split()]
    if isinstance(requirements, Requirement):
        return [requirements]
    if isinstance(requirements, list):
        return [Requirement(str(requirement)) for requirement in requirements]
    raise TypeError(f"Expected str, Requirement, or list, got {type(requirements).__name__}")


def pip_check(req: str | Requirement | list[str | Requirement]) -> bool:
    """Whether all are installed, in a version that fits; extras are not looked into here."""
    for requirement in _as_list(req):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            if not requirement.specifier.contains(metadata.version(requirement.name), prereleases=True):
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def pip_ensure(
    requirements: str | Requirement | list[str | Requirement],
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Install what is missing, with the user's consent; as in Slicer, does nothing in testing mode."""
    import slicer

    missing = [requirement for requirement in _as_list(requirements) if not pip_check(requirement)]
    if not missing:
        return None
    if skip_in_testing and slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: skipping pip_ensure for [%s]", ", ".join(map(str, missing)))
        return None
    if prompt_install and not slicer.util.confirmOkCancelDisplay("\n".join(map(str, missing)), requester):
        raise RuntimeError("User declined package installation")
    return pip_install([str(requirement) for requirement in missing], constraints=constraints, skip_packages=skip_packages)


def pip_install(
    requirements: str | list[str],
    constraints: str | Path | None = None,
    no_deps_requirements: str | list[str] | None = None,
    skip_packages: list[str] | None = None,
    blocking: bool = True,
    **_,
) -> list[str] | None:
    """Install packages, if the environment allows it; only the blocking form."""
    if no_deps_requirements or skip_packages or not blocking:
        raise NotImplementedError("slicer_harness imitates pip_install(requirements, constraints) only")
    arguments = shlex.split(requirements) if isinstance(requirements, str) else list(requirements)
    _pip("install", *arguments, *(("-c", str(constraints)) if constraints else ()))
    return None


def pip_uninstall(requirements: str | list[str], **_) -> None:
    """Remove packages, if the environment allows it."""
    arguments = shlex.split(requirements) if isinstance(requirements, str) else list(requirements)
    _pip("uninstall", "--yes", *arguments)


def _pip(*arguments: str) -> None:
    if os.environ.get("SLICER_HARNESS_ALLOW_PIP") != "1":
        raise RuntimeError(f"slicer_harness: pip {shlex.join(arguments)} is refused (SLICER_HARNESS_ALLOW_PIP=1 allows it)")
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)
