"""Joint label fusion (Wang et al., IEEE TPAMI 35:611, 2013), by antsJointFusion in a process of its own.

Each atlas's vote in a voxel is weighted by how its image patch there agrees with the subject's, and less so where
several atlases are likely to err together.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from IMTCore.child_environment import module_command, worker_environment
from IMTCore.errors import Cancelled
from IMTCore.progress import Progress, never, quiet
from IMTCore.volume import Volume
from IMTCore.volume_io import write_volume

from ..registration.inputs import Head
from .interface import EngineFailed, EngineMissing, engine_folder, engine_problem

RADII = {"paper": (2, 3), "fast": (1, 1)}  # voxels of patch and search; the first are antsJointFusion's defaults
ALPHA, BETA = 0.1, 2.0  # regularisation of the weights, and how fast an error of intensity lowers them
POLL_SECONDS = 0.1


def joint_labels(
    subject: Head,
    images: Sequence[Mapping[str, Volume]],
    labels: Sequence[np.ndarray],
    codes: Sequence[int],
    folder: Path,
    preset: str = "fast",
    threads: int = 1,
    progress: Progress = quiet,
    cancelled: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Fuse the atlases' labels by their images' agreement with the subject's.

    Args:
        subject: its images; those of all modalities count.
        images: for each atlas, modality -> image on the subject's grid.
        labels: for each atlas (K, J, I) integer, on that grid.
        codes: the labels to keep; all others count as background.
        folder: for files; its name should be plain ASCII.
        preset: "paper" compares patches of 5 voxels a side and searches 3 voxels around, "fast" of 3 voxels, and 1.

    Returns:
        labels (K, J, I), uint8 or uint16, and agreement (K, J, I) float32, 0 to 1: the share of the atlases that have the
        label that won in this very voxel. It is 0 where the search found the label beside it.

    Where all atlases agree, as one alone always does, there is nothing to weigh.

    Raises:
        EngineMissing, EngineFailed, Cancelled.
    """
    if problem := engine_problem("ants"):
        raise EngineMissing(problem)
    progress("labels", 0.1, "joint label fusion")
    folder.mkdir(parents=True, exist_ok=True)
    kind = np.uint8 if max(codes) < 256 else np.uint16
    known = [np.where(np.isin(one, codes), one, 0).astype(kind) for one in labels]
    where = np.logical_or.reduce([one != 0 for one in known])
    agreed = where & np.logical_and.reduce([one == known[0] for one in known[1:]])
    result = np.where(agreed, known[0], 0).astype(kind)
    undecided = where & ~agreed
    if undecided.any():
        command = _arguments(subject, images, known, undecided, folder, preset)
        _run(command, folder, threads, cancelled)
        result[undecided] = _read(folder / "labels.nii", subject)[undecided].astype(kind)
    votes = sum((one == result).astype(np.float32) for one in known)
    return result, votes / np.float32(len(known))


def _arguments(
    subject: Head,
    images: Sequence[Mapping[str, Volume]],
    labels: Sequence[np.ndarray],
    where: np.ndarray,
    folder: Path,
    preset: str,
) -> list[str]:
    def written(name: str, array: np.ndarray) -> str:
        write_volume(folder / name, Volume(array, subject.geometry, name))
        return name  # the process works in the folder

    target = [written(f"target{n}.nii", subject.image(m).array) for n, m in enumerate(subject.files)]
    patch, search = map(str, RADII[preset])
    arguments = ["-d", "3", "-t", f"[{','.join(target)}]", "-a", str(ALPHA), "-b", str(BETA), "-p", patch, "-s", search]
    for number, (given, one) in enumerate(zip(images, labels, strict=True)):
        files = [written(f"atlas{number}-{n}.nii", given[m].array.astype(np.float32)) for n, m in enumerate(subject.files)]
        arguments += ["-g", f"[{','.join(files)}]", "-l", written(f"labels{number}.nii", one)]
    return [*arguments, "-x", written("mask.nii", where.astype(np.uint8)), "-o", "labels.nii"]


def _run(arguments: Sequence[str], folder: Path, threads: int, cancelled: Callable[[], bool]) -> None:
    environment = worker_environment([engine_folder()])
    environment |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    log = folder / "joint.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            module_command("IMTRegisterLib.engines.joint_labels_server", *arguments),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if cancelled():
                    raise Cancelled("Cancelled: nothing was written.")
                time.sleep(POLL_SECONDS)
        finally:
            _kill(process)
    if process.returncode or not (folder / "labels.nii").is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = " / ".join(line.strip() for line in lines if line.strip()) or "it said nothing"
        raise EngineFailed(f"Joint label fusion failed (exit code {process.returncode}): {said[-400:]}. Choose labels mean.")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(path: Path, subject: Head) -> np.ndarray:
    import nibabel

    array = np.asarray(nibabel.load(path).dataobj).T
    if array.shape != subject.geometry.shape:
        raise EngineFailed(f"Joint label fusion gave labels of {array.shape[::-1]} voxels, not {subject.geometry.shape[::-1]}.")
    return np.rint(array)
