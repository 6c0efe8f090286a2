"""Names and colours of label codes, and their file `labels.csv`."""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import BadInput
from .files import stem_of, write_text

FILE_NAME = "labels.csv"
COLUMNS = ("code", "name", "red", "green", "blue", "terminology")
COLOURS = ("red", "green", "blue")
MAX_CODE = 65535  # what an unsigned 16-bit label map holds
GOLDEN_RATIO = 0.618033988749895  # steps of this share of a circle never come close to an earlier one


@dataclass(frozen=True)
class LabelName:
    """What one code stands for.

    Attributes:
        code: 1 to 65535; 0 is the background and has no name.
        colour: red, green, blue, 0 to 255.
        terminology: Slicer's own text for a segment's terminology, as `labels.csv` has it; empty if none.
    """

    code: int
    name: str
    colour: tuple[int, int, int]
    terminology: str = ""


class LabelNames(Mapping[int, LabelName]):
    """code -> `LabelName`, in the order of the codes.

    Raises:
        BadInput: a code outside 1 to 65535, twice the same code, or twice the same name (in whatever case).
    """

    def __init__(self, entries: Iterable[LabelName] = ()) -> None:
        self._entries: dict[int, LabelName] = {}
        names: set[str] = set()
        for entry in sorted(entries, key=lambda entry: entry.code):
            if not 1 <= entry.code <= MAX_CODE:
                raise BadInput(f"The label code {entry.code} ({entry.name}) is not from 1 to {MAX_CODE}.")
            if entry.code in self._entries:
                raise BadInput(f"The label code {entry.code} comes twice: {self._entries[entry.code].name} and {entry.name}.")
            if entry.name.casefold() in names:
                raise BadInput(f"Two labels are called {entry.name}. Give every label its own name.")
            names.add(entry.name.casefold())
            self._entries[entry.code] = entry

    def __getitem__(self, code: int) -> LabelName:
        return self._entries[code]

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def name_of(self, code: int) -> str:
        """The code's name; "label 3" for one without."""
        return self._entries[code].name if code in self._entries else default_label(code).name

    def select(self, structures: Sequence[str]) -> list[int]:
        """The codes, ascending, that `structures` names by name (in whatever case) or by code.

        Raises:
            BadInput: one that is not there; the message names all that are.
        """
        by_name = {entry.name.casefold(): code for code, entry in self.items()}
        by_name = {str(code): code for code in self} | by_name
        unknown = [text for text in structures if text.strip().casefold() not in by_name]
        if unknown:
            known = ", ".join(f"{entry.name} ({code})" for code, entry in self.items())
            raise BadInput(f"There is no structure {', '.join(unknown)}. The atlases have {known}.")
        return sorted({by_name[text.strip().casefold()] for text in structures})


def default_label(code: int) -> LabelName:
    """The name and colour of a code that nobody named: "label 3", each code in a colour of its own."""
    value = 0.95 if code % 2 else 0.7
    colour = colorsys.hsv_to_rgb(code * GOLDEN_RATIO % 1, 0.75, value)
    return LabelName(code, f"label {code}", tuple(round(255 * part) for part in colour))


def default_names(codes: Iterable[int]) -> LabelNames:
    """Names and colours for codes without `labels.csv`."""
    return LabelNames(default_label(int(code)) for code in codes if code)


def read_label_names(path: Path | str) -> LabelNames:
    """Read `labels.csv`: a header line code,name,red,green,blue[,terminology], one line a label, UTF-8.

    A line of code 0, the background, is passed over. A line whose three colours are empty gets one of its own.

    Raises:
        BadInput: no such file, no CSV, columns missing, a cell that is no such value (with its line), a code or a name twice.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no file {path} with the labels' names. Check the path.")
    rows = read_rows(path, ("code", "name", *COLOURS), f"{','.join(COLUMNS)} (the last may be missing)")
    entries = [entry for number, row in rows if (entry := _entry(path, number, row)).code]
    try:
        return LabelNames(entries)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def colour_table(labels: Path) -> Path:
    """`<stem>_labels.csv` beside a label volume."""
    return labels.with_name(f"{stem_of(labels)}_labels.csv")


def write_label_names(path: Path | str, names: Mapping[int, LabelName]) -> None:
    """Write `labels.csv`, whole or not at all.

    Raises:
        OutputFailure: it cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((entry.code, entry.name, *entry.colour, entry.terminology) for entry in names.values())
    write_text(Path(path), stream.getvalue())


def read_rows(path: Path, needed: Sequence[str], header: str) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV file with their numbers; columns in lower case, cells stripped, empty lines left out.

    Raises:
        BadInput: not readable, no lines, a line with more cells than the header, or without the columns `needed`; `header`
        is what the message asks for.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a readable CSV file in UTF-8 ({error}).") from error
    missing = [column for column in needed if column not in columns]
    if missing:
        raise BadInput(f"{path} lacks the column(s) {', '.join(missing)}. Its header line must be {header}.")
    if long := [number for number, row in rows if None in row]:
        raise BadInput(f"{path}, line {long[0]}: it has more cells than the header line. Put a text with a comma in quotes.")
    cleaned = [(number, {column: (cell or "").strip() for column, cell in row.items()}) for number, row in rows]
    cleaned = [(number, row) for number, row in cleaned if any(row.values())]
    if not cleaned:
        raise BadInput(f"{path} has no lines after its header line.")
    return cleaned


def _entry(path: Path, number: int, row: dict[str, str]) -> LabelName:
    try:
        code = int(row["code"])
    except ValueError:
        raise BadInput(f"{path}, line {number}: the code {row['code']!r} is no whole number.") from None
    if code == 0:
        return LabelName(0, row["name"], (0, 0, 0))
    if not row["name"]:
        raise BadInput(f"{path}, line {number}: the label {code} has no name.")
    cells = [row[column] for column in COLOURS]
    if not any(cells):
        return LabelName(code, row["name"], default_label(code).colour, row.get("terminology", ""))
    if not all(cell.isascii() and cell.isdigit() and int(cell) <= 255 for cell in cells):
        raise BadInput(f"{path}, line {number}: red, green and blue must be whole numbers from 0 to 255, not {', '.join(cells)}.")
    red, green, blue = map(int, cells)
    return LabelName(code, row["name"], (red, green, blue), row.get("terminology", ""))
