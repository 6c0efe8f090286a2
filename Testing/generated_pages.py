"""What the scripts that write pages of the documentation share: Markdown tables, and "write it, or say that it is old"."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "Resources" / "Documentation"


def cell(text: object) -> str:
    """`text` as it can stand in a cell of a Markdown table."""
    parts = " ".join(str(text).split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table as lines."""
    lines = [heading, ["---"] * len(heading), *rows]
    return ["| " + " | ".join(cell(value) for value in line) + " |" for line in lines]


def anchor(heading: str) -> str:
    """The address of a heading on its page, as GitHub makes it."""
    return "#" + "".join(letter for letter in heading.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def joined(lines: Iterable[str]) -> str:
    """A page of lines: no spaces at line ends, no two empty lines together, one line break at the end."""
    kept: list[str] = []
    for line in "\n".join(lines).splitlines():
        if line.strip() or (kept and kept[-1]):
            kept.append(line.rstrip())
    return "\n".join(kept).rstrip() + "\n"


def write_page(name: str, text: str, description: str | None, arguments: list[str] | None = None) -> int:
    """The command line of a script that writes one page.

    Args:
        name: file name in `PAGES`.
        text: what the page shall hold.
        description: of the script.
        arguments: of the command line; None takes the process's.

    Returns:
        The exit code: 1 if `--check` was given and the page is missing or old.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is old")
    values = parser.parse_args(arguments)
    path = PAGES / name
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    if values.check:
        print(f"{path.relative_to(ROOT)} is old.")
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {path.relative_to(ROOT)}")
    return 0
