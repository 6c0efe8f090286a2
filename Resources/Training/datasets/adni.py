"""ADNI, as the Image Data Archive packs it: `<patient>/<series>/<date>/<image>/` with DICOM slices or one NIfTI file.

    ADNI/002_S_0295/Axial_PD_T2_FSE/2006-11-02_08_16_44.0/S21850/ADNI_002_S_0295_MR_Axial_PD_T2_FSE__br_raw_..._I28555.dcm

PD and T2 are two echoes of one series, in one folder: it is split by echo time, the shorter is PD. NIfTI files made of it by
dcm2niix end in `_e1` and `_e2`; one file that holds both echoes is not split.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from IMTCore.errors import BadInput
from IMTCore.files import stem_of
from IMTCore.modality_names import guess_from_text
from IMTCore.volume import Volume
from IMTCore.volume_io import image_suffix, read_volume

from .subject import Subject, add_image

_PATIENT = re.compile(r"\d{3}_S_\d{4,5}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?=_)")
_FILE = re.compile(r"ADNI_\d{3}_S_\d{4,5}_MR_(?P<series>.+?)_+br_raw_(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})")
_DUAL = re.compile(r"pd.{0,3}t2|double|dual", re.IGNORECASE)
_ECHO = re.compile(r"_e(?P<number>[12])$")


def find(root: Path) -> list[Subject]:
    """Subjects `adni/002_S_0295_2006-11-02`, one a patient and day; of a repeated series the second is `T1-2`."""
    images: dict[tuple[str, str], dict[str, Path]] = {}
    readers: dict[tuple[str, str], dict[str, partial[Volume]]] = {}
    for source in _sources(root):
        text = "/".join((root.name, *source.relative_to(root).parts))
        patient = _PATIENT.search(text)
        if not patient:
            continue
        series, date = _series_and_date(text, patient)
        key = (f"{patient[0]}_{date}" if date else patient[0], patient[0])
        files = images.setdefault(key, {})
        echo = _ECHO.search(stem_of(source))
        if not _DUAL.search(series):
            series = re.sub(r"mp-?rage", "mprage", series, flags=re.IGNORECASE)
            if modality := guess_from_text(series):
                add_image(files, modality, source)
        elif source.is_dir():
            for echo_index, modality in enumerate(("PD", "T2")):
                entry = add_image(files, modality, source)
                readers.setdefault(key, {})[entry] = partial(read_echo, index=echo_index)
        elif echo:
            add_image(files, "PD" if echo["number"] == "1" else "T2", source)
        else:
            add_image(files, "PD-T2", source)  # asked for PD, the error says that only this is there
    return [
        Subject(f"adni/{name}", patient, files, readers=readers.get((name, patient), {}))
        for (name, patient), files in images.items()
        if files
    ]


def _sources(root: Path) -> list[Path]:
    """NIfTI files, and folders with DICOM slices."""
    found = set()
    for path in root.rglob("*"):
        if path.suffix.lower() == ".dcm":
            found.add(path.parent)
        elif image_suffix(path) in (".nii", ".nii.gz"):
            found.add(path)
    return sorted(found)


def _series_and_date(text: str, patient: re.Match[str]) -> tuple[str, str]:
    """The series' description and the day, from the folders or, without them, from the file name."""
    folders = text[patient.end() :].split("/")[1:]
    named = _FILE.search(text.rpartition("/")[2])
    series = folders[0] if len(folders) > 1 else named["series"] if named else text.rpartition("/")[2]
    date = _DATE.search("/".join(folders))
    if date:
        return series, date[0]
    return series, "-".join((named["year"], named["month"], named["day"])) if named else ""


def read_echo(folder: Path, index: int) -> Volume:
    """One echo of a dual-echo series: 0 the shorter echo time (PD), 1 the longer (T2).

    Raises:
        BadInput: not two echo times, or what `read_volume` refuses.
    """
    echoes: dict[float, list[Path]] = {}
    for path, time in _echo_times(folder):
        echoes.setdefault(time, []).append(path)
    if len(echoes) != 2:
        times = ", ".join(f"{time:g}" for time in sorted(echoes)) or "none"
        raise BadInput(f"{folder} does not hold the two echoes of a PD and T2 pair (echo times in ms: {times}).")
    time = sorted(echoes)[index]
    with tempfile.TemporaryDirectory() as name:  # the core reads a folder with one series
        for path in echoes[time]:
            shutil.copy(path, name)
        try:
            return read_volume(name)
        except BadInput as error:
            raise BadInput(str(error).replace(name, f"{folder} (echo time {time:g} ms)")) from error


def _echo_times(folder: Path) -> Iterator[tuple[Path, float]]:
    import SimpleITK as sitk

    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() == ".dcm"):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            yield path, float(reader.GetMetaData("0018|0081"))
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"{path} is not a readable MR slice with an echo time. Download it again.") from error
