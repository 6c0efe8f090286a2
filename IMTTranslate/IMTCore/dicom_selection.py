"""One series of a study as a folder of its own, which everything that reads a DICOM folder takes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .dicom import series_in
from .dicom_studies import StudySeries, choose_series, list_of, read_study
from .errors import BadInput, ImtError, OutputFailure
from .files import describe_write_error


@contextmanager
def series_folder(folder: Path, wanted: str | None) -> Iterator[Path]:
    """Give a folder that holds one series alone.

    Where the series has a folder to itself, that is given. Else it is a temporary one, with links to the series' files (copies
    where the system has no links), that goes when the block ends; messages of errors in the block name the study instead.

    Args:
        folder: with one series or several, in any layout.
        wanted: which, as for `choose_series`; None for the only one.

    Raises:
        BadInput: no series, several and none named, none or several of that name, or one that IMT cannot use.
        OutputFailure: no temporary folder can be made. ImtError: pydicom is needed and missing.
    """
    folder = Path(folder)
    if wanted is None and (len(series_in(folder)) == 1 or importlib.util.find_spec("pydicom") is None):
        yield folder  # without pydicom, reading it tells what is wrong with it
        return
    study = read_study(folder)
    if wanted is not None:
        series = choose_series(study, wanted, folder)
    elif len(study) == 1:
        series = study[0]
    else:
        raise BadInput(f"{folder} holds {len(study)} DICOM series: {list_of(study)}. Name one with --series.")
    if series.problem:
        raise BadInput(f"{series.title} in {folder} cannot be used: {series.problem}")
    own = series.files[0].parent
    if _has_to_itself(series, own, study):
        yield own
        return
    with _links(series, folder) as place:
        try:
            yield place
        except ImtError as error:
            raise type(error)(str(error).replace(str(place), f"{folder} ({series.title})")) from error


def _has_to_itself(series: StudySeries, folder: Path, study: list[StudySeries]) -> bool:
    inside = {path for other in study for path in (*other.files, *other.copies) if path.parent == folder}
    return inside == set(series.files)


@contextmanager
def _links(series: StudySeries, study: Path) -> Iterator[Path]:
    """A temporary folder with the series' files, in the order of their names where these differ."""
    work: Path | None = None
    names = [path.name for path in series.files]
    if len(set(names)) < len(names):  # from several folders
        names = [f"{number:05d}-{name}" for number, name in enumerate(names, 1)]
    try:
        try:
            work = Path(tempfile.mkdtemp(prefix="IMT-series-"))
            place = work / re.sub(r"[^A-Za-z0-9._-]+", "_", f"{study.resolve().name} {series.title}").strip("._")[:80]
            place.mkdir()
            for path, name in zip(series.files, names, strict=True):
                try:
                    (place / name).symlink_to(path.resolve())
                except OSError:  # Windows allows links to some users only
                    shutil.copyfile(path, place / name)
        except OSError as error:
            raise OutputFailure(describe_write_error(Path(tempfile.gettempdir()), error)) from error
        yield place
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
