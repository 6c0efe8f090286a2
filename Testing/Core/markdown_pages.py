"""The Markdown pages of the project taken apart: links, headings, code, and the command lines that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from source_tree import ROOT, project_files

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """Without the fenced blocks."""
        return FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> list[str]:
        """The fenced blocks in one of these languages."""
        return [match[3] for match in FENCE.finditer(self.text) if match[2] in languages]

    @cached_property
    def inline_code(self) -> list[str]:
        """What stands between single backticks, on one line."""
        return [" ".join(code.split()) for code in INLINE.findall(self.prose)]

    @cached_property
    def links(self) -> list[tuple[bool, str]]:
        """Whether it is a picture, and the address, of each link."""
        return [(bool(mark), address) for mark, _, address in LINK.findall(INLINE.sub("code", self.prose))]

    @cached_property
    def anchors(self) -> set[str]:
        """The addresses of its headings, as GitHub makes them."""
        words = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().replace(" ", "-") for heading in HEADING.findall(self.prose))
        return {"".join(letter for letter in word if letter.isalnum() or letter in "-_") for word in words}

    def shell_lines(self) -> Iterator[list[str]]:
        """The commands of its shell blocks and indented blocks, as words; variables set before a command are left out."""
        indented = "".join(f"{line[4:]}\n" for line in re.findall(r"^    (?![-*|`]).*$", self.prose, re.MULTILINE))
        for block in [*self.blocks("sh", "bash", ""), indented]:
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r" && | \| |; ", line):
                    try:
                        words = shlex.split(command, comments=True)
                    except ValueError:  # a quotation mark in prose
                        continue
                    while words and re.fullmatch(r"\w+=.*", words[0]):
                        words = words[1:]
                    if words:
                        yield words


def pages() -> list[Page]:
    """All pages."""
    return [Page(path) for path in project_files() if path.suffix == ".md"]


def imt_words(words: list[str]) -> list[str] | None:
    """What follows `imt` in a command line, or None if it is another program."""
    if Path(words[0]).name == "imt":
        return words[1:]
    return words[3:] if words[1:3] == ["-m", "IMTCommand"] else None
