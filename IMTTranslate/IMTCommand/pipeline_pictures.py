"""Small pictures of a case for the report: one axial slice of its input and of all that was made of it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from IMTCore.errors import ImtError, OutputFailure
from IMTCore.files import sha256_of, whole_file
from IMTCore.label_names import LabelNames, colour_table, default_label, read_label_names
from IMTCore.metrics import error_map
from IMTCore.orientation import AxisMap, anatomical_axes
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume
from IMTSegmentLib.second_modality import fit_second

from .evaluate_command import output_top
from .pipeline_record import CaseRecord
from .pipeline_scores import Comparison, comparisons
from .pipeline_steps import PipelineJob

PICTURES = "pictures"
SIZE = 180  # pixels of a picture's longer side
WINDOW = (1.0, 99.5)  # percentiles shown as black and white
BELOW_TOP_MM = 65.0  # where the brain's largest slices lie
AREA_SHARE = 0.1  # of the largest slice's area; below it is noise over the head
ERROR_TOP = 50.0  # percent of the range that is shown as white
# Burnt into the pixels, so that a picture that leaves the report says it too: 5 x 7 dots a letter.
LETTERS = {
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "Y": "10001 10001 01010 00100 00100 00100 00100",
    "N": "10001 11001 10101 10101 10011 10001 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "I": "01110 00100 00100 00100 00100 00100 01110",
    "C": "01111 10000 10000 10000 10000 10000 01111",
}
MARK = "SYNTHETIC"
MARK_COLOUR = (255, 210, 0)


def draw_case(job: PipelineJob, record: CaseRecord, made: set[Path]) -> None:
    """Draw the pictures of a case that is not drawn yet as it is now, and note them in its record.

    A picture that cannot be drawn is left out and logged: the case's results are what counts.

    Raises:
        OutputFailure.
    """
    if not made:
        return
    state = {path.name: sha256_of(path) for path in sorted(made)}
    drawn = record.content.get("pictures")
    if isinstance(drawn, dict) and drawn.get("of") == state and all((job.files.folder / entry["file"]).is_file() for entry in drawn["pictures"]):
        return
    folder = Path(PICTURES) / job.case.case
    pictures = []
    try:
        for name, caption, alt, pixels in _pictures(job, made):
            file = folder / f"{name}.png"
            write_png(job.files.folder / file, pixels)
            pictures.append({"file": file.as_posix(), "caption": caption, "alt": alt})
    except OutputFailure:
        raise
    except (ImtError, ValueError, MemoryError) as error:
        record.log(f"pictures: not all could be drawn: {error}")
    record.content["pictures"] = {"of": state, "pictures": pictures}
    record.write()


class PictureSlice:
    """The slice that is shown of all images of a case: axial, the one with most labels, or without labels one through the brain.

    Args:
        given: the input.
        labels: [k, j, i] on its grid, or None.
    """

    def __init__(self, given: Volume, labels: np.ndarray | None = None) -> None:
        self.geometry = given.geometry
        self.axes: AxisMap = anatomical_axes(given.geometry, "axial")
        array = self.axes.apply(given.array)
        thickness, height, width = self.axes.spacing_kji(given.geometry)
        if labels is not None and labels.any():
            self.k = int((self.axes.apply(labels) > 0).sum(axis=(1, 2)).argmax())
        else:
            self.k = _brain_slice(array > np.percentile(array, 50), thickness)
        rows, columns = array.shape[1] * height, array.shape[2] * width
        scale = SIZE / max(rows, columns)
        self.shape = max(8, round(rows * scale)), max(8, round(columns * scale))

    def cut(self, array: np.ndarray, nearest: bool = False) -> np.ndarray:
        """The slice [row, column] of an array [k, j, i] on the case's grid, at the pictures' size."""
        image = self.axes.apply(array)[self.k]
        rows, columns = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(self.shape, image.shape, strict=True))
        if nearest:
            return image[np.ix_(*(np.clip(np.rint(at), 0, m - 1).astype(int) for at, m in zip((rows, columns), image.shape, strict=True)))]
        from scipy.ndimage import map_coordinates

        return map_coordinates(image.astype(np.float32), np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")


def _brain_slice(head: np.ndarray, thickness_mm: float) -> int:
    """The slice [of k, from below to above] through the brain of a head that may have a neck: counted from its top."""
    areas = head.sum(axis=(1, 2))
    shown = np.flatnonzero(areas > AREA_SHARE * areas.max())
    below = min(BELOW_TOP_MM / thickness_mm, (shown[-1] - shown[0]) / 2)
    return int(round(shown[-1] - below))


def _pictures(job: PipelineJob, made: set[Path]):
    """(name, caption, alternative text, pixels [row, column, 3] uint8) of each picture."""
    given = read_volume(job.case.path)
    labels = _labels(job, made)
    shown = PictureSlice(given, labels[0][2] if labels else None)
    plain = grey(shown.cut(given.array))
    yield "input", f"{job.case.modality}, input", f"Axial slice of the {job.case.modality} image of {job.case.case}", plain
    scored = {one.made: one for one in comparisons(job)[0]}
    for number, step in enumerate(job.steps.translations):
        path = job.translate_job(number).output
        if path not in made:
            continue
        volume = read_volume(path)
        name = f"{step.target} {step.label}".strip()
        pixels = stamped(grey(shown.cut(volume.array)))
        yield f"synthetic{number}", f"{name}, synthetic", f"The same slice of the synthetic {name} image, marked SYNTHETIC", pixels
        if path in scored:
            yield from _truth(scored[path], volume, shown, f"{number}", name)
    for name, caption, array, path in labels:
        found = shown.cut(array, nearest=True)
        pixels = outlined(plain, found, read_label_names(colour_table(path)))
        yield name, caption, f"Outlines of the labels ({caption}) over the input", pixels


def _labels(job: PipelineJob, made: set[Path]) -> list[tuple[str, str, np.ndarray, Path]]:
    """(name, caption, labels [k, j, i], file) of the label volumes that were made."""
    volumes = []
    if job.steps.segmentation is not None:
        volumes.append(("segmentation", job.steps.segmentation.card.task, job.segment_job().output))
    if job.steps.registration is not None:
        volumes.append(("atlas", "atlas labels", job.register_job().output))
    return [(name, caption, read_volume(path, constant=True).array, path) for name, caption, path in volumes if path in made]


def _truth(one: Comparison, prediction: Volume, shown: PictureSlice, number: str, name: str):
    truth, _ = fit_second(read_volume(one.truth), prediction)
    yield f"acquired{number}", f"{name}, acquired", f"The same slice of the acquired {name} image", grey(shown.cut(truth.array))
    difference = shown.cut(error_map(truth.array, prediction.array, output_top(one.made)))
    text = f"Absolute difference of the synthetic and the acquired {name} image: black 0 to white {ERROR_TOP:.0f}% of the range"
    yield f"difference{number}", f"{name}, difference (white: {ERROR_TOP:.0f}%)", text, heat(difference / ERROR_TOP)


def grey(image: np.ndarray) -> np.ndarray:
    """An image [row, column] in grey between its percentiles, uint8 [row, column, 3]."""
    low, high = np.percentile(image, WINDOW)
    values = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return np.repeat(np.round(255 * values).astype(np.uint8)[..., None], 3, axis=2)


def heat(share: np.ndarray) -> np.ndarray:
    """Shares from 0 to 1 as black, red, yellow, white; uint8 [row, column, 3]."""
    steps = np.clip(3 * share[..., None] - np.arange(3), 0, 1)
    return np.round(255 * steps).astype(np.uint8)


def outlined(picture: np.ndarray, labels: np.ndarray, names: LabelNames) -> np.ndarray:
    """A picture [row, column, 3] with the outlines of labels [row, column] in their colours."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    result = picture.copy()
    for code in np.unique(labels[labels > 0]):
        entry = names[int(code)] if int(code) in names else default_label(int(code))
        result[_touching(labels == code, edge)] = entry.colour
    return result


def _touching(structure: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """The pixels of a structure that lie at an edge on either side."""
    near = edge.copy()
    near[:-1] |= edge[1:]
    near[:, :-1] |= edge[:, 1:]
    return structure & near


def stamped(picture: np.ndarray) -> np.ndarray:
    """A picture [row, column, 3] with the word SYNTHETIC in its lower edge."""
    rows = [[int(dot) for letter in MARK for dot in LETTERS[letter].split()[row] + "0"] for row in range(7)]
    word = np.array(rows, bool)
    factor = max(1, picture.shape[1] // word.shape[1])
    word = word.repeat(factor, 0).repeat(factor, 1)[: picture.shape[0] - 2, : picture.shape[1] - 2]
    result = picture.copy()
    place = result[-word.shape[0] - 1 : -1, 1 : word.shape[1] + 1]
    place //= 3
    place[word] = MARK_COLOUR
    return result


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [row, column, 3] as PNG, whole or not at all.

    Raises:
        OutputFailure.
    """
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # each line without a filter

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")
    with whole_file(path) as temporary:
        temporary.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
