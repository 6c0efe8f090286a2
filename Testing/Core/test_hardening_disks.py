"""Full and read-only disks: every command that writes says in one message which file, why and what to do, and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import head_file
from packages import write_tiny_package
from tiny_segmenters import write_tiny_segmenter

from IMTCommand.__main__ import main
from IMTCore.files import write_json
from IMTCore.volume_io import WRITABLE, image_suffix, read_volume, write_volume

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts and limits as on Linux")
REMEDIES = ("Choose another output folder", "Free some space", "Choose an output folder that you may write to")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of noisy air, which no format makes much smaller; models, an atlas, two folders of cases."""
    home = tmp_path_factory.mktemp("home")
    volume = read_volume(head_file(home / "head.nii.gz"))
    noise = np.random.default_rng(0).normal(0, 1, volume.array.shape).astype(np.float32)
    write_volume(home / "T1.nii.gz", volume.with_array(volume.array + noise))
    write_tiny_package(home / "models")
    write_tiny_segmenter(home / "models")
    for case in ("a", "b"):
        (home / "cases" / case).mkdir(parents=True)
        shutil.copy(home / "T1.nii.gz", home / "cases" / case / "T1.nii.gz")
    atlas = home / "atlases" / "one"
    atlas.mkdir(parents=True)
    shutil.copy(home / "T1.nii.gz", atlas / "T1.nii.gz")
    write_volume(atlas / "labels.nii.gz", volume.with_array((volume.array > 0).astype(np.uint8)))
    torch.save({"encoder.0.weight": torch.rand(4, 1, 4, 4)}, home / "model.pth")
    return home


def commands(home: Path, out: Path) -> dict[str, list[object]]:
    """Commands by what they write."""
    model, head = home / "models" / "T1-T2.json", home / "T1.nii.gz"
    cpu = ["--device", "cpu"]
    return {
        **{suffix: ["translate", head, "--model", model, "--output", out / f"T2{suffix}", *cpu] for suffix in WRITABLE},
        "cases": ["translate", home / "cases", "--model", model, "--output", out / "results", *cpu],
        "labels": ["segment", head, "--model", home / "models" / "tissue-T1.json", "--output", out / "l.nii.gz", "--probabilities", out / "p.nrrd", *cpu],
        "pipeline": ["pipeline", home / "cases", "--output", out / "results", "--translate", model, *cpu],
        "error map": ["evaluate", "--truth", head, "--prediction", home / "head.nii.gz", "--error-map", out / "e.mha", "--report", out / "r.json"],
        "model": ["models", "import", model],
        "atlas set": ["atlas", "build", "--from", home / "atlases", "--output", out / "set"],
    }


KINDS = (*WRITABLE, "cases", "labels", "pipeline", "error map", "model", "atlas set")


def run(words: list[object], home: Path, out: Path, limit: int | None = None) -> tuple[int, str]:
    """A command in a process of its own, with a limit in bytes on each file that it writes; exit code and standard error."""
    code = "import resource, sys\n"
    if limit is not None:
        code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    code += f"sys.path[:0] = {sys.path!r}\nfrom IMTCommand.__main__ import main\nsys.exit(main({[str(word) for word in words]!r}))"
    environment = {**os.environ, "IMT_MODELS": str(out), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return done.returncode, done.stderr


def check_refusal(code: int, said: str, out: Path) -> None:
    lines = [line for line in said.splitlines() if line.startswith("imt: ") and "Warning" not in line]
    assert code == 1 and len(lines) == 1, said
    assert "Traceback" not in said and "Internal" not in said
    assert str(out) in lines[0] and any(remedy in lines[0] for remedy in REMEDIES), said
    left = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.startswith(".imt-") or image_suffix(path)], "nothing half-written"
    assert all(json.loads(path.read_text()) for path in left if path.suffix == ".json")


@linux
@pytest.mark.parametrize("kind", [".nrrd", "labels"])
def test_a_file_that_may_not_grow_is_told_and_not_kept(home: Path, tmp_path: Path, kind: str) -> None:
    check_refusal(*run(commands(home, tmp_path)[kind], home, tmp_path, limit=2000), tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 64 kB, all but some of them taken."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # an error's traceback may still hold a file


def fill(disk: Path, left: int) -> Path:
    """Take the space of a disk but for some bytes; gives a folder on it."""
    out = disk / "out"
    out.mkdir()
    with open(disk / "filler", "wb", buffering=0) as stream:
        state = os.statvfs(disk)
        stream.write(bytes(max(0, state.f_bavail * state.f_bsize - left)))
    return out


@linux
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_told_and_nothing_half_written_stays(
    home: Path, small_disk: Path, kind: str, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = fill(small_disk, 4096)
    monkeypatch.setenv("IMT_MODELS", str(out))
    code = main([str(word) for word in commands(home, out)[kind]])
    check_refusal(code, capfd.readouterr().err, out)


@linux
@pytest.mark.parametrize("kind", [".nii.gz", ".mgz", "cases", "labels", "pipeline", "error map", "model", "atlas set"])
def test_a_read_only_disk_is_told(
    home: Path, small_disk: Path, kind: str, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = fill(small_disk, 60_000)
    monkeypatch.setenv("IMT_MODELS", str(out))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code = main([str(word) for word in commands(home, out)[kind]])
    check_refusal(code, capfd.readouterr().err, out)


@linux
def test_an_old_result_stays_whole_when_the_disk_is_full(home: Path, small_disk: Path, capfd: pytest.CaptureFixture) -> None:
    out = fill(small_disk, 60_000)
    words = [str(word) for word in commands(home, out)[".nii"]]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with open(small_disk / "more", "wb", buffering=0) as stream:
        state = os.statvfs(small_disk)
        stream.write(bytes(state.f_bavail * state.f_bsize))
    assert main([*words, "--seed", "1"]) == 1
    assert "disk is full" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@linux
def test_a_list_that_cannot_be_told_ends_in_one_line(home: Path) -> None:
    code = f"import sys\nsys.path[:0] = {sys.path!r}\nfrom IMTCommand.__main__ import console\nsys.argv = ['imt', 'models', 'list']\nconsole()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("imt: "), done.stderr


@linux
def test_a_table_of_numbers_says_it_alike(small_disk: Path) -> None:
    out = fill(small_disk, 4096)
    with pytest.raises(Exception, match="Cannot write .*out/a.json: the disk is full. Free some space") as caught:
        write_json(out / "a.json", list(range(20_000)))
    assert type(caught.value).__name__ == "OutputFailure" and list(out.iterdir()) == []
