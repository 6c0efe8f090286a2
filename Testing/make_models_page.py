"""Write Resources/Documentation/model-cards.md: the cards of the shipped models in readable form.

    python Testing/make_models_page.py            write it
    python Testing/make_models_page.py --check    only say if it is old
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from generated_pages import ROOT, anchor, joined, table, write_page

FOLDERS = ("IMTTranslate/Resources/IMT-models", "IMTSegment/Resources/IMT-segment-models")
HEAD = """\
# Model cards

Written by `python Testing/make_models_page.py` from the cards beside the weights: change those, not this page. `imt models show NAME`
prints a card, `--json` all of it. What the models can and cannot do, in short: [models and their limits](models.md).

In the tables of translations the truth is divided by its 99.5th foreground percentile. The prediction is divided by the top of its
output range (scaling *range*), or by its own percentile (*p99.5*). Region *mask* is the truth's foreground. Sharpness is the gradient
energy of the prediction over the truth's: 1 is as sharp, less is blurred."""

# What has a place of its own on the page; any other key of a card is printed as it is.
TOLD = {
    *("format", "kind", "name", "version", "default", "title", "description", "source", "target", "task", "second", "channels", "classes"),
    *("network", "slicing", "percentile", "output_range", "weights", "intended_use", "limits", "citations", "training", "metrics"),
}
NUMBERS = {
    "mae": "MAE",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "mi": "MI",
    "sharpness": "sharpness",
    "dice": "Dice",
    "hausdorff_95_mm": "HD95 (mm)",
    "difference_percent": "volume difference (%)",
    "accuracy": "accuracy",
    "subjects": "held-out subjects",
}
WORDS = {"dataset": "data", "method": "method", "model": "model", "region": "region", "structure": "structure"}


def card(content: dict[str, Any]) -> Iterator[str]:
    """One card as lines of Markdown."""
    weights, training = content["weights"], content["training"]
    yield from (f"## {content['name']}", "", f"**{content['title']}** (version {content['version']})", "")
    if "description" in content:
        yield from (content["description"], "")
    yield from (*table(("", ""), facts(content)), "")
    yield from ("**Use.** " + content["intended_use"], "", "**Limits.**", "", *(f"- {limit}" for limit in content["limits"]), "")
    yield from scores(content["metrics"])
    picture = f"reliability-{content['name']}.png"
    if (ROOT / "Resources" / "Images" / picture).is_file():
        yield from (f"![Coverage and reliability of the uncertainty of {content['name']}](../Images/{picture})", "")
    for key in sorted(content.keys() - TOLD):
        yield from (f"**{key.replace('_', ' ').capitalize()}.**", "", *nested(content[key]), "")
    yield from ("**Trained on.**", "", *(f"- {data(entry)}" for entry in training["data"]), "")
    if training.get("held_out"):
        yield from (f"Held out: {', '.join(training['held_out'])}.", "")
    if training.get("notes"):
        yield from (training["notes"], "")
    yield from ("```text", training["command"], "```", "")
    yield from ("**Cite.**", "", *(f"- {citation}" for citation in content.get("citations", [])), "")
    yield f"Weights: {weights['file']}, {weights['bytes'] / 1e6:.1f} MB, SHA-256 `{weights['sha256']}`, trained {training['date']}."
    yield ""


def facts(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What goes in, what comes out, and by what."""
    second = content.get("second")
    yield "from", content["source"] + (f" and {second['modality']}" if second else "")
    if second and "translator" in second:
        yield "second image", f"translated by {second['translator']['name']}, or a real one"
    if "target" in content:
        low, high = content["output_range"]
        yield "to", f"{content['target']}, {low:g} to {high:g}, background 0"
    else:
        yield "to", f"{content['task']}: " + ", ".join(f"{entry['code']} {entry['name']}" for entry in content["classes"])
    network, slicing = content["network"], content["slicing"]
    yield "network", f"{network['kind']}: " + ", ".join(f"{key} {value}" for key, value in network["arguments"].items())
    planes = ", ".join(slicing.get("planes", [slicing["plane"]]))
    spacing = f", {slicing['spacing_mm']:g} mm in the plane" if slicing.get("spacing_mm") else ""
    yield "slices", f"{planes}; mode {slicing['mode']}{spacing}"
    yield "input scaled by", f"its foreground's percentile {content['percentile']:g}"
    yield "terms", content["weights"]["licence"]


def data(entry: str | dict[str, Any]) -> str:
    """A data set that was trained on."""
    if isinstance(entry, str):
        return entry
    told = [entry["name"], entry.get("subjects"), entry.get("terms"), *entry.get("citations", [])]
    return "; ".join(str(part) for part in told if part)


def scores(metrics: list[dict[str, Any]]) -> Iterator[str]:
    """The scores as tables, one for each scaling; what no row has is left out."""
    scalings = sorted({str(row.get("scaling", "")) for row in metrics}, key=lambda name: (name != "range", name))
    for scaling in scalings:
        rows = [row for row in metrics if str(row.get("scaling", "")) == scaling and any(isinstance(row.get(key), int | float) for key in NUMBERS)]
        columns = [key for key in (*WORDS, *NUMBERS) if any(row.get(key) is not None for row in rows)]
        rows.sort(key=lambda row: tuple(str(row.get(key, "")) for key in ("dataset", "region", "method", "structure")))
        yield from ("**Measured on held-out subjects" + (f", scaling {scaling}" if scaling else "") + ".**", "")
        shown = ([number(row.get(key)) for key in columns] for row in rows)
        yield from (*table([{**WORDS, **NUMBERS}[key] for key in columns], shown), "")


def number(value: object) -> str:
    """A cell: numbers as the card has them, nothing for what was not measured."""
    return "" if value is None else str(value)


def nested(value: Any, depth: int = 0) -> Iterator[str]:
    """Any JSON value as nested lists."""
    indent = "  " * depth
    if isinstance(value, dict):
        for key, entry in value.items():
            if is_drawing(entry):
                yield from (f"{indent}- {key}:", "", *(f"{indent}  {line}" for line in ("```text", *entry, "```")), "")
            elif isinstance(entry, dict) or (isinstance(entry, list) and any(isinstance(part, dict | list) for part in entry)):
                yield f"{indent}- {key}:"
                yield from nested(entry, depth + 1)
            else:
                yield f"{indent}- {key}: {plain(entry)}"
    elif isinstance(value, list) and value and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
        rows = ([plain(entry) for entry in row.values()] for row in value)
        yield from (["", *(f"{indent}{line}" for line in table(list(value[0]), rows)), ""])
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        for part in value:
            yield f"{indent}- {plain(part)}"
    else:
        yield f"{indent}- {plain(value)}"


def is_drawing(value: Any) -> bool:
    """Whether a value is a picture in letters, one text a row."""
    return isinstance(value, list) and len(value) > 1 and all(isinstance(row, str) and re.fullmatch(r"[#.]+", row) for row in value)


def plain(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, list) and not any(isinstance(part, dict | list) for part in value):
        return ", ".join(plain(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def page() -> str:
    """The whole page."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.json"))]
    links = [f"- [{content['name']}]({anchor(content['name'])}): {content['title']}" for content in contents]
    return joined([HEAD, "", *links, "", *(line for content in contents for line in card(content))])


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it."""
    return write_page("model-cards.md", page(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
