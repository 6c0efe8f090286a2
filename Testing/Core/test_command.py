"""Claims on the command line: what it writes, what it refuses and how, what a signal leaves behind, and many cases."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import ORIENTATIONS, head_file, head_phantom, rotation_matrix, store
from conftest import SMALL_HEAD as HEAD
from conftest import SMALL_HEAD_SPACING_KJI as SPACING_KJI
from hypothesis import given, settings
from hypothesis import strategies as st
from packages import write_tiny_package
from test_volume_io import affine, form_bytes, save_nifti, write_dicom

import IMTCore
from IMTCommand.__main__ import main
from IMTCore.cards import read_card
from IMTCore.version import VERSION
from IMTCore.volume import Volume
from IMTCore.volume_io import READABLE, read_volume, write_volume

PYTHONPATH = str(Path(IMTCore.__file__).parents[1])
FORMATS = (".nii.gz", ".nrrd", ".mha", ".mgz")
# MetaImage's C++ library prints these itself, before it reports a damaged or unwritable .mha as an error.
METAIMAGE_NOISE = ("MetaImage: ", "MetaObject: ", "Incomplete file record", "NDims required", "   ideal = ")
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with torch, which only Linux does safely")


@dataclass
class Run:
    """How a call ended."""

    code: int
    out: str
    err: str

    def refusal(self, code: int, *words: str) -> str:
        """The one line on standard error; it must hold `words`."""
        assert self.code == code, self.err or self.out
        assert "Traceback" not in self.err + self.out
        lines = [line for line in self.err.splitlines() if not line.startswith(METAIMAGE_NOISE)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("imt: "), lines
        assert "Internal error" not in lines[0], lines
        for word in words:
            assert str(word) in lines[0], (word, lines[0])
        return lines[0]


@pytest.fixture
def imt(capfd) -> Callable[..., Run]:
    """Call the command line in this process; what C libraries print counts too."""

    def call(*arguments: object) -> Run:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        return Run(code, *capfd.readouterr())

    return call


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """All files below, hidden ones too, with their content; of folders the name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def description(path: Path) -> str:
    """The text in the header, read by others than IMT."""
    if path.name.endswith((".nii", ".nii.gz")):
        return bytes(nibabel.load(path).header["descrip"]).decode()
    if path.suffix == ".mha":  # ITK writes the comment, but does not give it back
        return next(line[10:] for line in path.read_bytes().split(b"\n") if line.startswith(b"Comment = ")).decode()
    return sitk.ReadImage(str(path)).GetMetaData("NRRD_content")


# ---------------------------------------------------------------- translate: what is written


@pytest.mark.parametrize("given", FORMATS)
@pytest.mark.parametrize("wanted", FORMATS)
def test_a_translation_and_its_mark_are_written_in_every_format(imt, tmp_path, model, given, wanted):
    source, output = head_file(tmp_path / f"head{given}"), tmp_path / "out" / f"T2 of ann{wanted}"
    run = imt("translate", source, "--model", model, "--output", output, "--seed", 7, "--device", "cpu")
    assert (run.code, run.err) == (0, "")
    assert "T2 (synthetic) from T1" in run.out
    assert sorted(p.name for p in output.parent.iterdir()) == ["T2 of ann.json", output.name]
    volume = read_volume(output)
    assert volume.array.dtype == np.float32
    assert volume.geometry.is_close(read_volume(source).geometry, 2e-4)
    assert np.array_equal(volume.array > 0, HEAD > 0)
    record = json.loads((output.parent / "T2 of ann.json").read_text(encoding="utf-8"))
    assert record["synthetic"] is True
    assert record["content"] == "translation"
    assert (record["source_modality"], record["target_modality"]) == ("T1", "T2")
    assert record["model"] == {"name": "T1-T2", "version": "0.1", "sha256": sha256(read_card(model).weights_path)}
    assert record["input"] == {"name": source.name, "sha256": sha256(source)}
    assert record["output"] == {"name": output.name, "sha256": sha256(output)}
    assert (record["seed"], record["dropout"], record["samples"]) == (7, False, 0)
    assert record["device"] == "cpu"
    assert record["versions"]["imt"] == VERSION and record["versions"]["torch"] == torch.__version__
    if wanted != ".mgz":  # MGH has no place for a text
        assert description(output).startswith(f"SYNTHETIC T2 from T1; IMT {VERSION} T1-T2 {record['model']['sha256'][:12]}")


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 3)])
def test_a_nifti_translation_keeps_the_inputs_forms_and_codes(imt, tmp_path, model, codes):
    source, output = tmp_path / "head.nii", tmp_path / "T2.nii.gz"
    save_nifti(source, np.repeat(np.repeat(HEAD, 2, axis=2), 2, axis=1).T, affine(1, True), codes[0], affine(2), codes[1])
    assert imt("translate", source, "--model", model, "--output", output).code == 0
    assert form_bytes(output) == form_bytes(source)


def test_an_uncertainty_is_written_with_its_own_mark(imt, tmp_path, model):
    source, output, sd = head_file(tmp_path / "head.nii.gz"), tmp_path / "T2.nrrd", tmp_path / "sd.nii.gz"
    run = imt("translate", source, "--model", model, "--output", output, "--uncertainty", sd, "--samples", 3, "--seed", 2)
    assert run.code == 0
    array = read_volume(sd).array
    assert array.shape == HEAD.shape and array.max() > 0 and not array[HEAD == 0].any()
    assert description(sd).startswith("SYNTHETIC T2 from T1 uncertainty; IMT")
    for path, content in ((output, "translation"), (sd, "uncertainty")):
        record = json.loads(path.with_name(path.name.split(".")[0] + ".json").read_text(encoding="utf-8"))
        assert (record["content"], record["samples"], record["seed"]) == (content, 3, 2)
        assert record["output"]["sha256"] == sha256(path)


def test_a_dicom_folder_is_translated(imt, tmp_path, model):
    geometry = store(HEAD, spacing_kji=SPACING_KJI, rotation=rotation_matrix(6, 25.0)).geometry
    write_dicom(tmp_path / "series", HEAD.astype(np.uint16), geometry)
    assert imt("translate", tmp_path / "series", "--model", model, "--output", tmp_path / "T2.nii.gz").code == 0
    volume = read_volume(tmp_path / "T2.nii.gz")
    assert volume.geometry.is_close(geometry, 1e-3)
    assert np.array_equal(volume.array > 0, HEAD.astype(np.uint16) > 0)
    record = json.loads((tmp_path / "T2.json").read_text(encoding="utf-8"))
    assert record["input"]["name"] == "series" and len(record["input"]["sha256"]) == 64


def test_an_old_output_is_replaced(imt, tmp_path, model):
    output = tmp_path / "T2.nii.gz"
    for seed in (0, 1):
        source = head_file(tmp_path / "head.nii.gz", seed)
        assert imt("translate", source, "--model", model, "--output", output).code == 0
        assert json.loads((tmp_path / "T2.json").read_text())["input"]["sha256"] == sha256(source)
    assert len(list(tmp_path.iterdir())) == 3


def test_output_may_be_named_without_a_folder_and_with_other_letters(imt, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head_file(tmp_path / "kopf größe.nii.gz")
    assert imt("translate", "kopf größe.nii.gz", "--model", model, "--output", "Übersetzung 脳.nii.gz").code == 0
    record = json.loads((tmp_path / "Übersetzung 脳.json").read_text(encoding="utf-8"))
    assert record["input"]["name"] == "kopf größe.nii.gz"


def check_progress(text: str) -> list[dict]:
    """The JSON lines of `--progress json`, checked."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    last: dict[str, float] = {}
    for line in lines:
        assert isinstance(line["stage"], str) and isinstance(line["message"], str)
        assert 0 <= line["fraction"] <= 1
        assert line["fraction"] >= last.get(line["stage"], 0)
        last[line["stage"]] = line["fraction"]
    return lines


def test_json_progress_is_one_object_a_line_that_ends_with_done(imt, tmp_path, model):
    source = head_file(tmp_path / "head.nii.gz")
    run = imt("translate", source, "--model", model, "--output", tmp_path / "T2.nii.gz", "--progress", "json", "--batch", 2)
    assert (run.code, run.err) == (0, "")
    stages = [line["stage"] for line in check_progress(run.out)]
    assert list(dict.fromkeys(stages)) == ["read", "load", "translate", "write", "done"]
    assert stages.count("translate") >= 4 and stages.count("done") == 1


def test_json_progress_of_a_failure_ends_with_the_error_and_its_exit_code(imt, tmp_path, model):
    run = imt("translate", tmp_path / "absent.nii", "--model", model, "--output", tmp_path / "o.nii", "--progress", "json")
    last = check_progress(run.out)[-1]
    assert (last["stage"], last["exit_code"]) == ("error", 2)
    assert run.refusal(2) == f"imt: {last['message']}"


def test_the_bar_goes_to_standard_error_and_ends_its_line_before_a_message(imt, tmp_path, model):
    source = head_file(tmp_path / "head.nii.gz")
    run = imt("translate", source, "--model", model, "--output", tmp_path / "T2.nii.gz", "--progress", "bar")
    assert run.code == 0 and "100%" in run.err and run.err.endswith("\n")
    source.write_bytes(source.read_bytes()[:200])
    run = imt("translate", source, "--model", model, "--output", tmp_path / "T2.nii.gz", "--progress", "bar")
    assert run.code == 2 and run.err.splitlines()[-1].startswith("imt: ")


# ---------------------------------------------------------------- translate: what is refused


def _mask(folder: Path) -> Path:
    write_volume(folder / "bad.nii.gz", store((HEAD > 0).astype(np.uint8), spacing_kji=SPACING_KJI))
    return folder / "bad.nii.gz"


def _image(array: np.ndarray, spacing_kji=SPACING_KJI, name: str = "bad.nii.gz") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_volume(folder / name, store(array, spacing_kji=spacing_kji))
        return folder / name

    return make


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _truncated(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = head_file(folder / f"bad{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return make


def _four_frames(folder: Path) -> Path:
    nibabel.Nifti1Image(np.stack([HEAD.T] * 4, -1), np.eye(4)).to_filename(folder / "bad.nii.gz")
    return folder / "bad.nii.gz"


def _empty_folder(folder: Path) -> Path:
    (folder / "bad").mkdir()
    return folder / "bad"


WITH_NAN = HEAD.copy()
WITH_NAN[3, 4, 5] = np.nan
NOTE = b"This is a note, not an image.\n" * 40
# What is wrong: (how to make it, words of the message: the reason or the remedy).
BAD_INPUTS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "missing": (lambda folder: folder / "bad.nii.gz", ("does not exist", "Check the path")),
    "not an image": (_file("bad.txt", NOTE), ("not an image that IMT reads", ".nii.gz")),
    "text as nii.gz": (_file("bad.nii.gz", NOTE), ("Export it again",)),
    "text as nrrd": (_file("bad.nrrd", NOTE), ("export it again",)),
    "text as mha": (_file("bad.mha", NOTE), ("export it again",)),
    "empty": (_file("bad.nii.gz", b""), ("empty file", "copy it again")),
    "truncated nii.gz": (_truncated(".nii.gz"), ("truncated", "export it again")),
    "truncated nii": (_truncated(".nii"), ("truncated", "export it again")),
    "truncated nrrd": (_truncated(".nrrd"), ("export it again",)),
    "truncated mha": (_truncated(".mha"), ("export it again",)),
    "truncated mgz": (_truncated(".mgz"), ("xport it again",)),
    "4D": (_four_frames, ("4D", "export one frame")),
    "NaN": (_image(WITH_NAN), ("1 voxels that are NaN", "Replace")),
    "constant": (_image(np.full(HEAD.shape, 5.0, np.float32)), ("constant",)),
    "mask": (_mask, ("mask or a label map", "Choose the image itself")),
    "label map": (_image(np.round(HEAD / 150)), ("mask or a label map", "Choose the image itself")),
    "tiny": (_image(HEAD, (0.1, 0.1, 0.1)), ("mm in the axial plane", "Check the voxel size")),
    "in micrometres": (_image(HEAD, (3000.0, 2500.0, 2500.0)), ("mm in the axial plane", "Check the voxel size")),
    "sagittal slice": (_image(HEAD[:, :, 10:11]), ("axial plane", "axial orientation")),
    "no series": (_empty_folder, ("no DICOM image series",)),
}


@pytest.fixture
def old_output(imt, tmp_path, model) -> Path:
    """An output folder with a translation of another head, made before."""
    source = head_file(tmp_path / "first" / "head.nii.gz", 9)
    assert imt("translate", source, "--model", model, "--output", tmp_path / "out" / "T2.nii.gz").code == 0
    return tmp_path / "out"


@pytest.mark.parametrize("what", BAD_INPUTS)
def test_a_bad_input_is_refused_in_one_line_and_changes_nothing(imt, tmp_path, model, old_output, what):
    make, words = BAD_INPUTS[what]
    source = make(tmp_path)
    before = snapshot(tmp_path)
    for output in (old_output / "T2.nii.gz", tmp_path / "new" / "T2.nii.gz"):
        run = imt("translate", source, "--model", model, "--output", output)
        run.refusal(2, source.name, *words)
        assert not run.out
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "T1-XX"), ("no model 'T1-XX'", "Give a name, a pair")),
        (("--model", ""), ("no model ''", "Give a name, a pair")),
        (("--model", "T1-T2", "--model", "T1-FLAIR"), ("One model", "once for each")),
        (("--to", "T2", "--to", "FLAIR"), ("One model", "once for each")),
        (("--output", "{tmp}/head.nii.gz"), ("head.nii.gz is the input itself", "choose another")),
        (("--model", "{tmp}/none.json"), ("none.json", "Check the path")),
        (("--colour",), ("--colour", "See: imt")),
        (("--samples", "three"), ("--samples", "three", "See: imt translate --help")),
        (("--samples", "1", "--uncertainty", "{tmp}/sd.nii.gz"), ("at least 2 samples",)),
        (("--samples", "1001", "--uncertainty", "{tmp}/sd.nii.gz"), ("2 to 1000 samples",)),
        (("--samples", "-4", "--uncertainty", "{tmp}/sd.nii.gz"), ("at least 2 samples",)),
        (("--samples", "4"), ("--samples needs --uncertainty",)),
        (("--uncertainty", "{out}/T2.nii.gz"), ("T2.nii.gz", "choose another output name")),
        (("--uncertainty", "{out}/T2.nrrd"), ("T2.json", "choose another output name")),
        (("--uncertainty", "{tmp}/sd.tiff"), ("sd.tiff", "end its name in one of")),
        (("--batch", "0"), ("1 to 4096 slices",)),
        (("--seed", "-1"), ("seed", "from 0")),
        (("--precision", "fp64"), ("fp64", "See: imt translate --help")),
        (("--precision", "fp16", "--device", "cpu"), ("fp16", "bf16, fp32 or auto")),
        (("--device", "tpu"), ("'tpu'", "use auto, cpu")),
        (("--from", "PD"), ("T1 to T2, not PD to T2", "imt models list")),
        (("--output", "{tmp}/T2.jpg"), ("T2.jpg", ".nii.gz")),
        (("--output", "{tmp}/T2"), ("T2", ".nii.gz")),
        (("--output", "{tmp}/head.nii.gz"), ("head.nii.gz", "choose another output name")),
        (("--output", "{tmp}/out/../head.nii.gz"), ("head.nii.gz", "choose another output name")),
        (("--output", "{tmp}/link.nii.gz"), ("link.nii.gz", "choose another output name")),
        (("--output", "{tmp}/hardlink.nii.gz"), ("hardlink.nii.gz", "choose another output name")),
        (("--output", "{tmp}/linked folder/head.nii.gz"), ("head.nii.gz", "choose another output name")),
        (("--output", "{tmp}/scan.nii.gz"), ("scan.json", "Choose another name")),
        (("--output", "{tmp}/list.nii.gz"), ("list.json", "Choose another name")),
    ],
    ids=lambda v: " ".join(v) if v and v[0].startswith("--") else None,
)
def test_bad_arguments_are_refused_in_one_line_and_change_nothing(imt, tmp_path, model, old_output, arguments, words):
    source = head_file(tmp_path / "head.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(source)
    (tmp_path / "linked folder").symlink_to(tmp_path, target_is_directory=True)
    os.link(source, tmp_path / "hardlink.nii.gz")
    (tmp_path / "scan.json").write_text('{"RepetitionTime": 2.3}')  # a scanner's sidecar
    (tmp_path / "list.json").write_text("[1, 2")
    before = snapshot(tmp_path)
    given = [a.format(tmp=tmp_path, out=old_output) for a in arguments]
    chosen = [] if "--model" in given else ["--model", model]  # argparse takes the last of the others that come twice
    run = imt("translate", source, *chosen, "--output", old_output / "T2.nii.gz", *given)
    run.refusal(2, *words)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("arguments", [(), ("fly",), ("translate",), ("translate", "x.nii"), ("models",), ("evaluate",)])
def test_an_incomplete_command_is_refused_with_the_way_to_help(imt, arguments):
    imt(*arguments).refusal(2, "See: imt", "--help")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_refused_with_a_way_on(imt, tmp_path, model):
    source = head_file(tmp_path / "head.nii.gz")
    for device in ("cuda", "cuda:3"):
        run = imt("translate", source, "--model", model, "--output", tmp_path / "T2.nii.gz", "--device", device)
        run.refusal(2, f"'{device}'", "--device cpu or auto", "imt doctor")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_changed_model_is_refused(imt, tmp_path):
    path = write_tiny_package(tmp_path / "models")
    weights = read_card(path).weights_path
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    source = head_file(tmp_path / "head.nii.gz")
    run = imt("translate", source, "--model", path, "--output", tmp_path / "out" / "T2.nii.gz")
    run.refusal(2, weights.name, "SHA-256", "get the model again")
    assert not (tmp_path / "out").exists()
    weights.unlink()
    imt("translate", source, "--model", path, "--output", tmp_path / "T2.nii.gz").refusal(2, "T1-T2", "import it again")


def test_an_any_to_any_model_asks_for_the_pair(imt, tmp_path):
    path = write_tiny_package(tmp_path / "models", name="all", modalities=("T1", "T2", "PD"))
    source, output = head_file(tmp_path / "head.nii.gz"), tmp_path / "PD.nii.gz"
    imt("translate", source, "--model", path, "--output", output).refusal(2, "T1, T2, PD", "--from and --to")
    assert imt("translate", source, "--model", path, "--output", output, "--from", "T1", "--to", "PD").code == 0
    record = json.loads((tmp_path / "PD.json").read_text())
    assert (record["source_modality"], record["target_modality"]) == ("T1", "PD")


def test_an_output_below_a_file_ends_with_1_and_writes_nothing(imt, tmp_path, model):
    source = head_file(tmp_path / "head.nii.gz")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.nii.gz").mkdir()
    before = snapshot(tmp_path)
    for output in ("file/T2.nii.gz", "file/deep/er/T2.nii.gz", "folder.nii.gz"):
        run = imt("translate", source, "--model", model, "--output", tmp_path / output)
        run.refusal(1, output, "in the way")
    assert snapshot(tmp_path) == before


def test_a_line_break_in_a_name_does_not_break_the_message(imt, tmp_path, model):
    imt("translate", tmp_path / "a\nb.nii.gz", "--model", model, "--output", tmp_path / "T2.nii.gz").refusal(2, "a b.nii.gz")


# ---------------------------------------------------------------- child processes

NURSERY = """
import json, os, sys
import nibabel, SimpleITK, torch
import IMTCommand.translate_command, IMTCore.translation
from IMTCommand.__main__ import main
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if order["limit"]:
                import resource
                resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
            code = main(order["arguments"])
        finally:
            os._exit(code)
    print("child", pid, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """A process that has imported all there is, and forks a child for every run: what takes seconds is done once."""

    def __init__(self, folder: Path) -> None:
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "CUDA_VISIBLE_DEVICES": "", **threads}
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.running = 0
        self._hear("ready")

    def _hear(self, word: str) -> int:
        heard, _, number = self.process.stdout.readline().strip().partition(" ")
        assert heard == word
        return int(number or 0)

    def start(self, *arguments: object, limit: int = 0) -> None:
        """Start `imt` with `arguments`."""
        if self.running:  # left by a test that failed
            self.signal(signal.SIGKILL)
            self.end()
        for path in (self.stdout, self.stderr):
            path.write_bytes(b"")
        order = {
            "arguments": [str(a) for a in arguments],
            "stdout": str(self.stdout),
            "stderr": str(self.stderr),
            "limit": limit,
        }
        print(json.dumps(order), file=self.process.stdin, flush=True)
        self.running = self._hear("child")

    def signal(self, number: int) -> None:
        """Send the child a signal."""
        assert self.running > 1  # 0 would be this whole group of processes
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.running, number)

    def wait_for(self, stage: str, timeout: float = 30.0) -> None:
        """Wait until the child has told of `stage`, or of its end."""
        stop = time.monotonic() + timeout
        while time.monotonic() < stop:
            text = self.stdout.read_text(encoding="utf-8")
            if any(f'"stage": "{name}"' in text for name in (stage, "done", "error")):
                return
            time.sleep(0.001)
        raise AssertionError(f"no {stage}: {text}")

    def end(self) -> Run:
        """Wait for the child's end."""
        code = self._hear("ended")
        self.running = 0
        return Run(code, self.stdout.read_text(encoding="utf-8"), self.stderr.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.process.stdin.close()
    nursery.process.wait(10)


def child(*arguments: object) -> Run:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "IMTCommand", *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120
    )
    return Run(done.returncode, done.stdout, done.stderr)


def images_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.name.endswith(READABLE) and not p.name.startswith(".")]


def check_whole(folder: Path) -> None:
    """Every image that is there loads and has its mark; what else is there is a mark, the summary or hidden."""
    for path in images_in(folder):
        read_volume(path)
        record = json.loads(path.with_name(path.name.split(".")[0] + ".json").read_text(encoding="utf-8"))
        assert record["output"]["sha256"] == sha256(path)
    for path in folder.rglob("*"):
        if path.is_file() and path not in images_in(folder):
            assert path.suffix in (".json", ".csv") or path.name.startswith(".imt-"), path


def test_the_module_runs_as_a_program_of_its_own(tmp_path, model):
    source = head_file(tmp_path / "head.nii.gz")
    run = child("translate", source, "--model", model, "--output", tmp_path / "T2.nii.gz", "--progress", "json")
    assert (run.code, run.err) == (0, "")
    assert check_progress(run.out)[-1]["stage"] == "done"
    child("translate", tmp_path / "absent.nii.gz", "--model", model, "--output", tmp_path / "x.nii.gz").refusal(
        2, "absent.nii.gz"
    )


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_an_interrupted_run_ends_with_130_and_leaves_nothing(nursery, tmp_path, model, number):
    source, out = head_file(tmp_path / "head.nii.gz"), tmp_path / "out"
    noisy = ("--uncertainty", out / "sd.nii.gz", "--samples", 200, "--batch", 1)
    nursery.start("translate", source, "--model", model, "--output", out / "T2.nii.gz", *noisy, "--progress", "json")
    nursery.wait_for("translate")
    nursery.signal(number)
    run = nursery.end()
    run.refusal(130, "Cancelled: nothing was written.")
    last = check_progress(run.out)[-1]
    assert (last["stage"], last["exit_code"]) == ("error", 130)
    assert [p.name for p in tmp_path.rglob("*")] == ["head.nii.gz"]


@needs_fork
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mgz"])
def test_a_disk_too_small_ends_with_1_and_leaves_nothing(nursery, tmp_path, model, old_output, suffix):
    source = head_file(tmp_path / "head.nii.gz")
    order = ("translate", source, "--model", model, "--output")
    nursery.start(*order, tmp_path / "whole" / f"T2{suffix}")
    assert nursery.end().code == 0
    size = (tmp_path / "whole" / f"T2{suffix}").stat().st_size
    before = snapshot(tmp_path)
    for limit in (size - 1, size - 700, size // 2, 500):  # bytes a file
        nursery.start(*order, old_output / f"T2{suffix}", limit=limit)
        nursery.end().refusal(1, f"Cannot write {old_output}")
        assert snapshot(tmp_path) == before


@needs_fork
def test_a_killed_run_leaves_whole_files_or_none(nursery, tmp_path, model):
    source = head_file(tmp_path / "head.nii.gz")
    order = ("translate", source, "--model", model, "--progress", "json", "--samples", 20, "--batch", 2)
    outputs = ("--output", tmp_path / "out" / "T2.nii.gz", "--uncertainty", tmp_path / "out" / "sd.nii.gz")
    start = time.monotonic()
    nursery.start(*order, *outputs)
    assert nursery.end().code == 0
    took = time.monotonic() - start
    chance = random.Random(1)
    killed = 0
    for n in range(24):
        if n % 3 == 0:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
        nursery.start(*order, *outputs)
        if n % 2:
            nursery.wait_for("write")
            time.sleep(chance.uniform(0, 0.02))
        else:
            time.sleep(chance.uniform(0, took))
        nursery.signal(signal.SIGKILL)
        killed += nursery.end().code == -signal.SIGKILL
        for path in images_in(tmp_path / "out"):
            read_volume(path)
            assert path.with_name(path.name.split(".")[0] + ".json").is_file()
    assert killed >= 5  # of 24: on a busy machine some end first
    nursery.start(*order, *outputs)
    assert nursery.end().code == 0
    check_whole(tmp_path / "out")


@needs_fork
def test_a_killed_batch_is_completed_by_the_same_command(nursery, tmp_path, model):
    for n in range(5):
        head_file(tmp_path / "in" / f"case{n}" / "T1.nii.gz", n)
    slowly = ("--uncertainty", "sd.nii.gz", "--samples", 20)
    order = ("translate", tmp_path / "in", "--model", model, "--progress", "json", *slowly, "--output")
    start = time.monotonic()
    nursery.start(*order, tmp_path / "reference")
    assert nursery.end().code == 0
    took = time.monotonic() - start
    chance = random.Random(2)
    for attempt in range(6):
        out = tmp_path / f"out{attempt}"
        nursery.start(*order, out)
        time.sleep(took * chance.uniform(0.2, 1.0))
        nursery.signal(signal.SIGKILL)
        nursery.end()
        check_whole(out)
        done = {p: p.stat().st_mtime_ns for p in images_in(out)}
        nursery.start(*order, out)
        assert nursery.end().code == 0
        check_whole(out)
        assert all(p.stat().st_mtime_ns == modified for p, modified in done.items())
        for n in range(5):
            pair = (read_volume(tmp_path / folder / f"case{n}" / "T2.nii.gz").array for folder in (f"out{attempt}", "reference"))
            assert np.array_equal(*pair)


@needs_fork
def test_an_interrupted_batch_keeps_what_is_done_and_says_how_to_go_on(nursery, tmp_path, model):
    for n in range(12):
        head_file(tmp_path / "in" / f"case{n:02}" / "T1.nii.gz", n)
    slowly = ("--uncertainty", "sd.nii.gz", "--samples", 20)
    nursery.start("translate", tmp_path / "in", "--model", model, "--output", tmp_path / "out", "--progress", "json", *slowly)
    nursery.wait_for("cases")
    while not (tmp_path / "out" / "summary.csv").exists():
        time.sleep(0.001)
    nursery.signal(signal.SIGTERM)
    nursery.end().refusal(130, "Cancelled after ", " of 12 cases", "run the same command again")
    finished = images_in(tmp_path / "out")
    assert 2 <= len(finished) < 24
    check_whole(tmp_path / "out")
    assert {r["state"] for r in summary(tmp_path / "out")} == {"done"}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_signal_is_never_taken_for_a_broken_image(imt, tmp_path, model, monkeypatch):
    # nibabel raises so many kinds of errors that they are all caught around it.
    for n in range(2):
        head_file(tmp_path / "in" / f"{n}.nii.gz", n)
    load = nibabel.load

    def interrupted(path):
        os.kill(os.getpid(), signal.SIGTERM)
        return load(path)

    monkeypatch.setattr(nibabel, "load", interrupted)
    run = imt("translate", tmp_path / "in", "--model", model, "--output", tmp_path / "out")
    run.refusal(130, "Cancelled after 0 of 2 cases", "run the same command again")


# ---------------------------------------------------------------- many cases


def summary(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def states(folder: Path) -> dict[str, str]:
    return {row["case"]: row["state"] for row in summary(folder)}


def test_a_folder_of_cases_is_translated_and_only_what_changed_is_done_again(imt, tmp_path, model):
    source, out = tmp_path / "in put", tmp_path / "aus gabe ü"
    for n, name in enumerate(("ann", "Bjørn 2", "脳")):
        head_file(source / name / "T1.nii.gz", n)
        head_file(source / name / "PD.nii.gz", n + 10)
    order = ("translate", source, "--model", model, "--output", out)
    run = imt(*order)
    assert (run.code, run.err) == (0, "")
    assert "3 translated, 0 finished before, 0 failed" in run.out
    assert sorted(p.relative_to(out).as_posix() for p in images_in(out)) == sorted(
        f"{name}/T2.nii.gz" for name in ("ann", "Bjørn 2", "脳")
    )
    rows = summary(out)
    assert [row["output"] for row in rows] == [f"{row['case']}/T2.nii.gz" for row in rows]
    assert {row["modality"] for row in rows} == {"T1"} and all(float(row["seconds"]) >= 0 for row in rows)
    check_whole(out)

    times = {p: p.stat().st_mtime_ns for p in images_in(out)}
    assert imt(*order).code == 0
    assert states(out) == {"ann": "skipped", "Bjørn 2": "skipped", "脳": "skipped"}
    assert {p: p.stat().st_mtime_ns for p in images_in(out)} == times

    head_file(source / "ann" / "T1.nii.gz", 77)
    assert imt(*order).code == 0
    assert states(out) == {"ann": "done", "Bjørn 2": "skipped", "脳": "skipped"}
    record = json.loads((out / "ann" / "T2.json").read_text())
    assert record["input"]["sha256"] == sha256(source / "ann" / "T1.nii.gz")

    # Another setting or model is another result; a damaged or missing output is none.
    assert imt(*order, "--seed", 3).code == 0
    assert set(states(out).values()) == {"done"}
    other = write_tiny_package(tmp_path / "other", seed=1)
    assert imt("translate", source, "--model", other, "--output", out, "--seed", 3).code == 0
    assert set(states(out).values()) == {"done"}
    (out / "ann" / "T2.nii.gz").unlink()
    (out / "脳" / "T2.json").write_text('{"synthetic": true}')
    assert imt("translate", source, "--model", other, "--output", out, "--seed", 3).code == 0
    assert states(out) == {"ann": "done", "Bjørn 2": "skipped", "脳": "done"}


def test_a_mark_beside_another_image_does_not_count_as_finished(imt, tmp_path, model):
    # What a run killed between two renames leaves: the new mark, the old image.
    source, out = head_file(tmp_path / "in" / "a.nii.gz", 1), tmp_path / "out"
    order = ("translate", tmp_path / "in", "--model", model, "--output", out)
    assert imt(*order).code == 0
    old = (out / "a" / "T2.nii.gz").read_bytes()
    head_file(source, 2)
    assert imt(*order).code == 0
    new = read_volume(out / "a" / "T2.nii.gz").array
    (out / "a" / "T2.nii.gz").write_bytes(old)
    assert imt(*order).code == 0
    assert states(out) == {"a": "done"}
    assert np.array_equal(read_volume(out / "a" / "T2.nii.gz").array, new)


def test_the_other_source_of_an_any_to_any_model_is_another_result(imt, tmp_path):
    path = write_tiny_package(tmp_path / "models", name="all", modalities=("T1", "T2", "PD"))
    head_file(tmp_path / "in" / "a.nii.gz")
    for source in ("T1", "PD"):
        run = imt("translate", tmp_path / "in", "--model", path, "--output", tmp_path / "out", "--from", source, "--to", "T2")
        assert run.code == 0 and states(tmp_path / "out") == {"a": "done"}


def test_a_flat_folder_is_one_case_a_file(imt, tmp_path, model):
    source, out = tmp_path / "in", tmp_path / "out"
    for n, name in enumerate(("a.nii.gz", "b.mha", "c.nrrd")):
        head_file(source / name, n)
    nibabel.Nifti1Pair(HEAD.T, np.diag([2.5, 2.5, 3, 1])).to_filename(source / "pair.hdr")
    (source / "._a.nii.gz").write_bytes(b"macOS")
    (source / ".imt-x1-b.mha").write_bytes(b"left by a killed run")
    (source / "readme.txt").write_text("notes")
    assert imt("translate", source, "--model", model, "--output", out, "--progress", "none").code == 0
    assert states(out) == dict.fromkeys(("a", "b", "c", "pair"), "done")


def write_cases(path: Path, rows: list[tuple[str, ...]], header: str = "case,subject,session,modality,path") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])
    return path


def test_a_table_of_cases_has_paths_relative_to_itself(imt, tmp_path, model, monkeypatch):
    head_file(tmp_path / "study" / "data" / "x 1.nii.gz", 1)
    head_file(tmp_path / "elsewhere" / "y.mha", 2)
    rows = [
        ("s1_a", "s1", "a", "T1", "data/x 1.nii.gz"),
        ("s2_a", "s2", "a", "t1", str(tmp_path / "elsewhere" / "y.mha")),
        ("s2_a", "s2", "a", "T2", "data/real T2.nii.gz"),
    ]
    table = write_cases(tmp_path / "study" / "cases.csv", rows)
    monkeypatch.chdir(tmp_path)
    extra = ("--uncertainty", "sd.nii.gz", "--samples", 2, "--progress", "json")
    run = imt("translate", "study/cases.csv", "--model", model, "--output", "out", *extra)
    assert run.code == 0
    assert check_progress(run.out)[-1]["stage"] == "done"
    assert [(r["case"], r["subject"], r["session"], r["state"]) for r in summary(tmp_path / "out")] == [
        ("s1_a", "s1", "a", "done"),
        ("s2_a", "s2", "a", "done"),
    ]
    assert sorted(p.name for p in images_in(tmp_path / "out")) == ["T2.nii.gz", "T2.nii.gz", "sd.nii.gz", "sd.nii.gz"]
    imt("translate", table, "--model", model, "--output", "out", *extra)
    assert set(states(tmp_path / "out").values()) == {"skipped"}


@pytest.mark.parametrize("damage", [b"no image", None], ids=["text", "missing"])
def test_a_broken_case_does_not_stop_the_others(imt, tmp_path, model, damage):
    rows = [(name, "", "", "T1", f"{name}.nii.gz") for name in ("a", "b", "c")]
    for name in ("a", "c"):
        head_file(tmp_path / f"{name}.nii.gz")
    if damage:
        (tmp_path / "b.nii.gz").write_bytes(damage)
    table, out = write_cases(tmp_path / "cases.csv", rows), tmp_path / "out"
    run = imt("translate", table, "--model", model, "--output", out)
    assert run.code == 3 and "Traceback" not in run.err
    first, last = run.err.splitlines()
    assert first.startswith("imt: b failed: ") and "b.nii.gz" in first
    assert last.startswith("imt: 2 translated, 0 finished before, 1 failed; see ")
    assert states(out) == {"a": "done", "b": "failed", "c": "done"}
    assert "b.nii.gz" in summary(out)[1]["message"]
    check_whole(out)
    assert not (out / "b").exists()
    head_file(tmp_path / "b.nii.gz")
    assert imt("translate", table, "--model", model, "--output", out).code == 0
    assert states(out) == {"a": "skipped", "b": "done", "c": "skipped"}


def test_a_real_image_in_the_output_folder_is_not_replaced(imt, tmp_path, model):
    source = tmp_path / "in"
    for name in ("a", "b"):
        head_file(source / name / "T1.nii.gz")
    real = head_file(source / "a" / "T2.nii.gz", 5)
    before = real.read_bytes()
    run = imt("translate", source, "--model", model, "--output", source)
    assert run.code == 3
    assert "no mark of IMT" in run.err.splitlines()[0] and "a/T2.nii.gz" in run.err.splitlines()[0]
    assert real.read_bytes() == before
    assert states(source) == {"a": "failed", "b": "done"}


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([("a", "T1", "a.nii.gz"), ("A", "T1", "b.nii.gz")], "case,modality,path", ("case A has two T1 images",)),
        ([("../x", "T1", "a.nii.gz")], "case,modality,path", ("'../x'", "Use letters, digits")),
        ([("..", "T1", "a.nii.gz")], "case,modality,path", ("'..'", "Use letters, digits")),
        ([("x/y", "T1", "a.nii.gz")], "case,modality,path", ("'x/y'", "Use letters, digits")),
        ([("{tmp}/x", "T1", "a.nii.gz")], "case,modality,path", ("Use letters, digits",)),
        ([("x\\y", "T1", "a.nii.gz")], "case,modality,path", ("Use letters, digits",)),
        ([("a", "a.nii.gz")], "case,path", ("modality", "The header line must be")),
        ([("a", "T1", "")], "case,modality,path", ("line 2", "must not be empty")),
        ([("a", "T1")], "case,modality,path", ("line 2", "must not be empty")),
        ([("a", "PD", "a.nii.gz")], "case,modality,path", ("no T1 image",)),
        ([], "case,modality,path", ("no rows",)),
    ],
)
def test_a_bad_table_of_cases_is_refused_before_anything_is_written(imt, tmp_path, model, rows, header, words):
    head_file(tmp_path / "a.nii.gz")
    head_file(tmp_path / "b.nii.gz")
    table = write_cases(tmp_path / "cases.csv", [tuple(v.format(tmp=tmp_path) for v in row) for row in rows], header)
    before = snapshot(tmp_path)
    imt("translate", table, "--model", model, "--output", tmp_path / "out" / "deep").refusal(2, "cases.csv", *words)
    assert snapshot(tmp_path) == before


def test_a_table_that_is_no_text_is_refused(imt, tmp_path, model):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00binary")
    imt("translate", tmp_path / "cases.csv", "--model", model, "--output", tmp_path / "out").refusal(2, "cases.csv", "UTF-8")


@pytest.mark.parametrize("uncertainty", ["sub/sd.nii.gz", "../sd.nii.gz", "sd.txt", "T2.nrrd", "t2.nii.gz"])
def test_a_bad_name_for_the_uncertainties_of_cases_is_refused_before_anything_is_written(imt, tmp_path, model, uncertainty):
    head_file(tmp_path / "in" / "a.nii.gz")
    run = imt("translate", tmp_path / "in", "--model", model, "--output", tmp_path / "out", "--uncertainty", uncertainty)
    run.refusal(2, uncertainty if "/" not in uncertainty else "file name such as")
    assert not (tmp_path / "out").exists()


def test_cases_need_a_folder_for_output(imt, tmp_path, model):
    head_file(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "file").write_text("in the way")
    imt("translate", tmp_path / "in", "--model", model, "--output", tmp_path / "file").refusal(2, "file", "--output is a folder")
    imt("translate", tmp_path / "in", "--model", model, "--output", tmp_path / "file" / "x").refusal(1, "in the way")


# ---------------------------------------------------------------- models, doctor, version


def test_models_are_listed_shown_and_verified_as_json(imt, tmp_path, monkeypatch):
    monkeypatch.setenv("IMT_MODELS", str(tmp_path))
    path = write_tiny_package(tmp_path, name="mine")
    listed = json.loads(imt("models", "list", "--json").out)
    (mine,) = [entry for entry in listed if entry["name"] == "mine"]
    assert (mine["source"], mine["target"], mine["present"], mine["path"]) == ("T1", "T2", True, str(path))
    shown = imt("models", "show", "mine", "--json")
    assert json.loads(shown.out) == json.loads(path.read_text(encoding="utf-8"))
    run = imt("models", "verify", "--json", "mine")
    assert (run.code, run.err) == (0, "")
    (entry,) = json.loads(run.out)
    assert (entry["name"], entry["state"]) == ("mine", "good") and mine["sha256"] in entry["detail"]
    for action in ("list", "show", "verify"):
        run = imt("models", action, *(["mine"] if action != "list" else []))
        assert run.code == 0 and "mine" in run.out

    path.with_suffix(".safetensors").write_bytes(b"changed")
    run = imt("models", "verify", "--json", "mine")
    run.refusal(2, "1 of 1 models are not usable")
    assert [entry["state"] for entry in json.loads(run.out)] == ["failed"]
    imt("models", "show", "none").refusal(2, "no model 'none'", "mine")


def test_a_model_in_the_users_folder_is_found_by_name_and_by_pair(imt, tmp_path, monkeypatch):
    monkeypatch.setenv("IMT_MODELS", str(tmp_path / "models"))
    write_tiny_package(tmp_path / "models", name="mine", source="T9", target="T8")
    source = head_file(tmp_path / "head.nii.gz")
    for name in ("mine", "T9-T8", tmp_path / "models", tmp_path / "models" / "mine.safetensors"):
        assert imt("translate", source, "--model", name, "--output", tmp_path / "T8.nii.gz").code == 0


def test_the_doctors_findings_are_json(imt, tmp_path, monkeypatch):
    monkeypatch.setenv("IMT_MODELS", str(tmp_path))
    write_tiny_package(tmp_path, name="0")
    run = imt("doctor", "--json")
    report = json.loads(run.out)
    found = {check["name"]: check for check in report["checks"]}
    assert report["imt"] == VERSION
    assert found["torch"]["detail"] == torch.__version__
    assert found["tiny run"]["state"] == "good", found["tiny run"]
    assert all(check["remedy"] for check in report["checks"] if check["state"] != "good")
    assert run.code == (1 if any(check["state"] == "bad" for check in report["checks"]) else 0)
    assert "tiny run" in imt("doctor").out


def test_the_version_is_told_without_loading_torch():
    program = "import sys; from IMTCommand.__main__ import main\ntry: main(['--version'])\nfinally: print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"imt {VERSION}", "False"]), done.stderr


# ---------------------------------------------------------------- any small volume


def translate_on_its_grid_or_refuse(volume: Volume, suffix: str, model: Path, folder: Path) -> int:
    """Translate a volume and check what came of it; returns the exit code."""
    source, output = folder / f"head{suffix}", folder / f"T2{suffix}"
    write_volume(source, volume)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        code = main(["translate", str(source), "--model", str(model), "--output", str(output)])
    assert code in (0, 2), errors.getvalue()
    if code:
        assert len(errors.getvalue().splitlines()) == 1 and "head" in errors.getvalue()
        assert [p.name for p in folder.iterdir()] == [source.name]
        return code
    assert all(line.startswith("imt: Warning: ") for line in errors.getvalue().splitlines())  # of a head this small
    read, written = read_volume(source), read_volume(output)
    assert written.geometry.is_close(read.geometry, 1e-4)
    assert written.geometry.is_close(volume.geometry, 1e-2)
    assert not written.array[read.array == 0].any() and written.array.any()
    return code


def test_any_small_volume_is_translated_on_its_grid_or_refused_in_words(tmp_path):
    models = {}
    for mode in ("spatial", "paper"):
        models[mode] = write_tiny_package(tmp_path / mode, mode=mode)
        card = json.loads(models[mode].read_text(encoding="utf-8"))
        models[mode].write_text(json.dumps({**card, "accepts": {"extent_mm": [4, 400]}}), encoding="utf-8")
    codes: list[int] = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        shape=st.tuples(*[st.integers(8, 24)] * 3),
        spacing=st.tuples(*[st.floats(0.5, 8.0)] * 3),
        orientation=st.sampled_from(ORIENTATIONS),
        turn=st.tuples(st.integers(0, 99), st.floats(0, 44)),
        dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
        suffix=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]),
        mode=st.sampled_from(["spatial", "paper"]),
    )
    def translate(shape, spacing, orientation, turn, dtype, suffix, mode):
        volume = store(head_phantom(shape, 200.0), orientation, spacing, rotation_matrix(*turn))
        volume = volume.with_array(volume.array.astype(dtype))
        with TemporaryDirectory() as folder:
            codes.append(translate_on_its_grid_or_refuse(volume, suffix, models[mode], Path(folder)))

    translate()
    assert len(codes) >= 60 and codes.count(0) >= len(codes) / 2 and 2 in codes
