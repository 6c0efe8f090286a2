"""Pieces of a page in HTML: one file, no script, nothing from elsewhere. All text from outside goes through `escape`."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

STYLE = """
:root { color-scheme: light dark; --text: #1c2128; --back: #ffffff; --soft: #f2f4f7; --line: #c9d0d9; --bad: #b3261e; --warn: #8a5a00; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --back: #15181d; --soft: #20252c; --line: #414a56; --bad: #ff8a80; --warn: #ffc766; --link: #8ab8ff; }
}
body { font: 16px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 1200px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; } h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
a { color: var(--link); } .notice { color: var(--warn); font-weight: 600; } .quiet { opacity: 0.8; }
.counts { display: flex; flex-wrap: wrap; gap: 0.7rem; padding: 0; list-style: none; }
.counts li { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 1rem; }
.counts b { display: block; font-size: 1.5rem; } .bad b, .bad h3 { color: var(--bad); } .warn h3 { color: var(--warn); }
article { border-left: 4px solid var(--line); background: var(--soft); padding: 0.4rem 0.8rem; margin: 0.6rem 0; overflow-wrap: anywhere; }
article.bad { border-color: var(--bad); } article.warn { border-color: var(--warn); } article h3 { margin: 0; } article p { margin: 0.2rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.4rem 0; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { border: 1px solid var(--line); padding: 0.2rem 0.6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); } td.number { text-align: right; } td { overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: 0.6rem; } figure { margin: 0; max-width: 200px; } figcaption { font-size: 0.85rem; }
figure img { display: block; max-width: 100%; background: #000; }
"""


class Figure(str):
    """A number, as a table shows it."""


def escape(text: object) -> str:
    """A text as HTML shows it; characters that no page may hold are replaced."""
    plain = "".join(c if c in "\t\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return html.escape(plain)


def page(title: str, body: Iterable[str]) -> str:
    """The whole page."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
    content = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{policy}<style>{STYLE}</style></head>\n<body><main>\n{content}\n</main></body></html>\n'


def section(title: str, content: Iterable[str]) -> list[str]:
    """A part with its heading; nothing if it has no content."""
    lines = list(content)
    return [f"<section><h2>{escape(title)}</h2>", *lines, "</section>"] if lines else []


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def counts(entries: Iterable[tuple[str, object, bool]]) -> str:
    """Large numbers: (what, number, whether it is bad)."""
    items = "".join(f'<li{" class=bad" if bad else ""}><b>{escape(number)}</b>{escape(what)}</li>' for what, number, bad in entries)
    return f'<ul class="counts">{items}</ul>'


def note(title: str, texts: Sequence[str], kind: str, links: Sequence[tuple[str, str]] = ()) -> str:
    """A box: `kind` is bad or warn; links: (text, path from the page)."""
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in texts)
    more = " ".join(f'<a href="{escape(quote(path))}">{escape(text)}</a>' for text, path in links)
    return f'<article class="{kind}"><h3>{escape(title)}</h3>{paragraphs}{f"<p>{more}</p>" if more else ""}</article>'


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; the first cell of a row is its heading, numbers are set to the right."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = []
    for first, *rest in rows:
        kinds = (' class="number"' if isinstance(value, int | float | Figure) else "" for value in rest)
        cells = "".join(f"<td{kind}>{escape(value)}</td>" for kind, value in zip(kinds, rest, strict=True))
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    content = f'<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody>'
    return f'<div class="wide"><table>{content}</table></div>'


def picture(path: Path, caption: str, alt: str) -> str:
    """A picture with its pixels in the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img src="data:image/png;base64,{content}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'
