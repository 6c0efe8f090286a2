"""Python packages for IMT's workers in a folder of their own: Slicer's packages are never touched.

On the terminal: python -m IMTSlicerLib.package_folders install --requirements FILE --folder FOLDER [--wheels FOLDER],
and the same with status or remove.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from IMTCore.child_environment import python_executable, worker_environment
from IMTCore.requirements import unmet_requirements

from .application import removeFolder
from .jobs import JobFailed, ProcessJob

ROOT_VARIABLE = "IMT_PACKAGES"
STALE_SECONDS = 24 * 3600  # an installation that was killed together with Slicer


def packagesRoot() -> Path:
    """Where the folders lie: `$IMT_PACKAGES`, or IMT/packages in the system's place for user data."""
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE])
    from IMTCore.files import data_folder

    return data_folder() / "packages"


class PackageFolder:
    """The packages of a requirements file, with all that they need, in one folder.

    >>> folder = PackageFolder("register", requirementsPath)
    >>> if not folder.isInstalled():
    ...     folder.installJob().start()
    >>> worker = Worker(packageFolders=[folder.folder])

    :param name: the folder's name, if no folder is given; each version of Python has its own, as binaries differ.
    :param requirementsPath: lines as pip knows them.
    :param folder: where to install.
    """

    def __init__(self, name: str, requirementsPath: str | Path, folder: str | Path | None = None) -> None:
        self.name, self.requirementsPath = name, Path(requirementsPath)
        self.folder = Path(folder) if folder else packagesRoot() / f"{name}-{sys.implementation.cache_tag}"

    def installJob(self, wheelFolder: str | Path | None = None) -> ProcessJob:
        """A job that installs everything anew, from the network or only from a folder of wheels.

        The folder changes only when the job finishes; stop workers that use it before. Not started yet.
        """
        return InstallJob(self, Path(wheelFolder) if wheelFolder else None)

    def missing(self) -> list[str]:
        """The requirements that the folder does not meet, as they are written."""
        return unmet_requirements(self.requirementsPath, self.folder)

    def isInstalled(self) -> bool:
        """Whether the folder meets all requirements."""
        return self.folder.is_dir() and not self.missing()

    def sizeBytes(self) -> int:
        """What the folder takes on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())

    def remove(self) -> None:
        """Delete the folder.

        :raises OSError: if it cannot be deleted, such as while a worker uses it on Windows; then it stays whole.
        """
        if self.folder.exists():
            place = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
            try:
                self.folder.rename(place / "old")
            finally:
                removeFolder(place)


class InstallJob(ProcessJob):
    """pip into a new folder beside the old one, which it replaces in the end."""

    def __init__(self, packages: PackageFolder, wheelFolder: Path | None) -> None:
        # Of pip's settings the user's indexes and proxies count, but nothing that contradicts --target.
        environment = {**worker_environment(), "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
        for name in ("PIP_PREFIX", "PIP_ROOT", "PIP_TARGET"):
            environment.pop(name, None)
        super().__init__(self._makeCommand, environment, title=packages.name)
        self._packages, self._wheels = packages, wheelFolder
        self._place: Path | None = None  # beside the old folder: renaming never crosses disks

    def _makeCommand(self, _: Path) -> list[str]:
        target = self._packages.folder
        if self._wheels is not None and not self._wheels.is_dir():
            raise ValueError(f"There is no folder of wheels {self._wheels}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        for place in target.parent.glob(f".{target.name}-*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                if time.time() - place.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(place, ignore_errors=True)
        self._place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        temporary = self._place / "tmp"  # pip leaves its own there when it is killed
        temporary.mkdir()
        for name in ("TMPDIR", "TEMP", "TMP"):
            self._environment[name] = str(temporary)
        command = [python_executable(), "-P", "-m", "pip", "install", "--target", str(self._place / "new")]
        # No cache: what is downloaded once for this folder would stay in the user's home when the folder is removed.
        command += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
        if self._wheels is not None:
            command += ["--no-index", "--find-links", str(self._wheels)]
        return [*command, "-r", str(self._packages.requirementsPath)]

    def _end(self, state: str, *values: object) -> None:
        lacking = _lackingWheel(self._lines) if state == "failed" and self._wheels is not None else None
        if lacking is not None:
            text = (
                f"The folder {self._wheels} has no wheel of {lacking} for Python {sys.version_info[0]}.{sys.version_info[1]} on "
                f"{sysconfig.get_platform()}. On a computer with network, the same system and the same Python, run: "
                f"python -m pip download --only-binary :all: -d FOLDER -r {self._packages.requirementsPath.name}"
            )
            values = (f"{text}\n{values[0]}", *values[1:])
        super()._end(state, *values)

    def _succeed(self) -> None:
        new, old, target = self._place / "new", self._place / "old", self._packages.folder
        new.mkdir(exist_ok=True)  # nothing was asked for
        try:
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
        except OSError as error:
            reason = error.strerror or str(error)
            self._end("failed", f"Cannot replace {target}: {reason}. Close what uses it and try again.", None)
            return
        super()._succeed()

    def _discard(self) -> None:
        if self._place is not None:
            removeFolder(self._place)
        super()._discard()


def _lackingWheel(lines: Iterable[str]) -> str | None:
    """The requirement, or the package that one needs, that pip did not find."""
    for line in lines:
        if found := re.search(r"No matching distribution found for (.+)", line):
            return found[1].strip()
    return None


def main(arguments: list[str] | None = None) -> int:
    """Install, look at or remove a folder; returns the exit code: 1 failed or incomplete, 2 bad input, 130 cancelled."""
    parser = argparse.ArgumentParser(prog="python -m IMTSlicerLib.package_folders", description="Packages of IMT's workers.")
    parser.add_argument("action", choices=["install", "status", "remove"])
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="what to install, or to look for")
    parser.add_argument("--folder", type=Path, required=True, metavar="FOLDER", help="where")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="install from these wheels, without a network")
    values = parser.parse_args(arguments)
    if values.action != "remove" and (values.requirements is None or not values.requirements.is_file()):
        parser.error(f"--requirements is to name a file, not {values.requirements}")
    packages = PackageFolder(values.folder.name, values.requirements or Path(), values.folder)
    try:
        if values.action == "install":
            return install(packages, values.wheels)
        if values.action == "remove":
            packages.remove()
            print(f"{packages.folder}: removed")
            return 0
        missing = packages.missing()
        print(
            f"{packages.folder}: {packages.sizeBytes() / 1e6:.1f} MB, "
            + (f"missing {', '.join(missing)}" if missing else "complete")
        )
        return 1 if missing else 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except (JobFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def install(packages: PackageFolder, wheelFolder: Path | None = None) -> int:
    """Install with pip's lines on the terminal; Ctrl-C and SIGTERM leave the old folder as it was."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    job = packages.installJob(wheelFolder)
    job.logged.connect(lambda line: print(line, flush=True))
    try:
        job.start()
        job.wait()
    except KeyboardInterrupt:
        print("Cancelled: nothing was changed.", file=sys.stderr)
        return 130
    print(f"{packages.folder}: complete, {packages.sizeBytes() / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
