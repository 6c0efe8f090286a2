"""`imt models`: list, show, verify, download, remove, import."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from IMTCore.card_checker import NAME_PATTERN
from IMTCore.cards import ModelCard
from IMTCore.catalogue import download, remove, user_folder
from IMTCore.errors import BadInput, BadModel
from IMTCore.files import whole_file

from .model_finding import find_model, folder_for, is_users_segmenter, list_models, segments
from .progress import close, listener
from .text_table import columns


def run(values: argparse.Namespace) -> int:
    """Do the action that the arguments name."""
    actions = {
        "list": show_list,
        "show": show,
        "verify": verify,
        "download": fetch,
        "remove": delete,
        "import": import_model,
    }
    return actions[values.action](values)


def show_list(values: argparse.Namespace) -> int:
    """Print all models."""
    cards, problems = list_models()
    if values.json:
        print(json.dumps([{"kind": kind_of(card), **card.summary()} for card in cards], indent=2))
    elif not cards:
        print(f"No models. Import one with: imt models import FILE (it goes into {user_folder()}).")
    else:
        print("\n".join(list_lines(cards)))
    for problem in problems:
        print(f"imt: {problem}", file=sys.stderr)
    return 0


def kind_of(card: ModelCard) -> str:
    """What such a model does, in a word."""
    return "segmentation" if segments(card) else "translation"


def list_lines(cards: list[ModelCard]) -> list[str]:
    """The models as lines for people: those that translate, then those that segment."""
    lines = []
    for heading, kind in ((("name", "from", "to"), "translation"), (("name", "from", "segments"), "segmentation")):
        rows = [(*heading, "size", "state", "licence")]
        for card in (card for card in cards if kind_of(card) == kind):
            weights = card.content["weights"]
            state = "ready" if card.weights_path.is_file() else "to download" if "url" in weights else "no weights"
            rows.append((card.name, *from_to(card), f"{weights['bytes'] / 1e6:.1f} MB", state, weights["licence"]))
        lines += ([""] if lines else []) + columns(rows) if len(rows) > 1 else []
    return lines


def from_to(card: ModelCard) -> tuple[str, str]:
    """What goes in and what comes out."""
    if not segments(card):
        return card.source, card.target
    source = card.source + (f" + {card.second}" if card.second else "")
    return source, f"{card.task}: {', '.join(entry.name for entry in card.classes.values())}"


def show(values: argparse.Namespace) -> int:
    """Print one card."""
    card = find_model(values.name)
    if values.json:
        print(json.dumps(card.content, indent=2, ensure_ascii=False))
    else:
        print("\n".join(describe(card)))
    return 0


def describe(card: ModelCard) -> list[str]:
    """A card as lines for people."""
    content = card.content
    training, weights = content["training"], content["weights"]
    lines = [
        f"{card.name} {content['version']}: {content['title']}",
        *(segmenter_lines(card) if segments(card) else translator_lines(card)),
        f"  card      {card.path}",
        f"  weights   {weights['file']}, {weights['bytes'] / 1e6:.1f} MB, SHA-256 {card.sha256}",
        f"  licence   {weights['licence']}",
        f"  network   {content['network']['kind']} {json.dumps(content['network']['arguments'])}",
        f"  slicing   {json.dumps(content['slicing'])}",
        f"  trained   {training['date']}",
    ]
    lines += [f"    data    {entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)}" for entry in training["data"]]
    if training.get("held_out"):
        lines.append(f"    held out {', '.join(training['held_out'])}")
    scores = describe_overlaps if segments(card) else describe_metrics
    lines += [f"    measured {line}" for line in scores(content["metrics"])]
    lines.append(f"  use       {content['intended_use']}")
    lines += [f"  limit     {limit}" for limit in content["limits"]]
    lines += [f"  cite      {citation}" for citation in content.get("citations", [])]
    return lines


def translator_lines(card: ModelCard) -> list[str]:
    """What a translation model makes of what."""
    between = f" (between {', '.join(card.modalities)})" if card.modalities else ""
    low, high = card.output_range
    return [f"  {card.source} -> {card.target}{between}", f"  output    float32, {low:g} to {high:g}, background 0"]


def segmenter_lines(card: Any) -> list[str]:
    """What a segmentation model makes of what."""
    lines = [f"  {' + '.join((card.source, *([card.second] if card.second else [])))} -> {card.task}"]
    if card.translator is not None:
        lines.append(f"  second    {card.second}, translated by {card.translator['name']}, or a real one")
    elif card.second is not None:
        lines.append(f"  second    {card.second}, real, or translated by a model of your choice")
    lines.append(f"  channels  {', '.join(card.channels)}")
    return lines + [f"  label     {code} {entry.name}" for code, entry in card.classes.items()]


def describe_metrics(metrics: list[Any]) -> list[str]:
    """The card's scores as lines: those whose scaling is "range" if there are any, else all. JSON has the rest."""
    rows = [row for row in metrics if isinstance(row, dict)]
    chosen = [row for row in rows if row.get("scaling") == "range"] or rows
    chosen.sort(key=lambda row: (str(row.get("dataset")), str(row.get("region")), str(row.get("method"))))
    numbers = (("mae", "MAE", ".4f"), ("psnr", "PSNR", ".2f"), ("ssim", "SSIM", ".4f"))
    lines = []
    for row in chosen:
        scores = [f"{label} {row[key]:{form}}" for key, label, form in numbers if isinstance(row.get(key), int | float)]
        words = [str(row.get(key, "?")) for key in ("dataset", "region", "method")]
        lines.append(f"{words[0]:<22} {words[1]:<7} {words[2]:<14} {', '.join(scores)} ({row.get('subjects', '?')} held-out subjects)")
    return lines


def describe_overlaps(metrics: list[Any]) -> list[str]:
    """A segmentation model's scores as lines, one a structure."""
    numbers = (("dice", "Dice", ".3f"), ("hausdorff_95_mm", "HD95 mm", ".2f"), ("difference_percent", "volume difference %", "+.1f"))
    lines = []
    for row in (row for row in metrics if isinstance(row, dict)):
        scores = [f"{label} {row[key]:{form}}" for key, label, form in numbers if isinstance(row.get(key), int | float)]
        if scores:
            words = f"{row.get('dataset', '')!s:<16} {row.get('structure', '?')!s:<16}"
            lines.append(f"{words} {', '.join(scores)} ({row.get('subjects', '?')} held-out subjects)")
    return lines


def verify(values: argparse.Namespace) -> int:
    """Load every model as a run would, and say what is wrong with those that fail."""
    from IMTCore.model_packages import read_weights

    cards, problems = list_models()
    chosen = [find_model(name) for name in values.name] or cards
    found = [("FAILED", None, problem) for problem in problems] if not values.name else []
    for card in chosen:
        if not card.weights_path.exists() and "url" in card.content["weights"] and not values.name:
            found.append(("absent", card.name, "to download"))
            continue
        try:
            tensors = read_weights(card)
        except BadModel as error:
            found.append(("FAILED", card.name, str(error)))
        else:
            found.append(("good", card.name, f"{len(tensors)} tensors, SHA-256 {card.sha256}"))
    if values.json:
        print(json.dumps([{"name": name, "state": state.lower(), "detail": detail} for state, name, detail in found], indent=2))
    else:
        for state, name, detail in found:
            print(f"{state:<6} " + (f"{name}: {detail}" if name else detail))
    failed = sum(state == "FAILED" for state, _, _ in found)
    if failed:
        raise BadModel(f"{failed} of {len(found)} models are not usable. Import or download them again.")
    return 0


def fetch(values: argparse.Namespace) -> int:
    """Download a model's weights, on the user's request."""
    card = find_model(values.name)
    if card.weights_path.is_file():
        print(f"{card.name} is here already: {card.weights_path}")
        return 0
    weights = card.content["weights"]
    print(f"Downloading {weights['bytes'] / 1e6:.1f} MB from {weights['url'] if 'url' in weights else '?'}; licence: {weights['licence']}", file=sys.stderr)
    progress = listener(values.progress)
    fetched = download(card, progress)
    close(progress)
    print(f"{card.name}: {fetched.weights_path}")
    return 0


def delete(values: argparse.Namespace) -> int:
    """Remove a model from the user's folder."""
    remove_model = remove
    if is_users_segmenter(values.name):
        from IMTSegmentLib.segmenter_catalogue import remove_segmenter as remove_model
    for path in remove_model(values.name):
        print(f"removed {path}")
    return 0


def import_model(values: argparse.Namespace) -> int:
    """Import a `.pth` state dict, or copy a whole package, into the user's folder."""
    from IMTCore.legacy_import import import_state_dict
    from IMTCore.model_packages import read_weights

    path: Path = values.file
    if not path.is_file():
        raise BadInput(f"{path} does not exist. Check the path.")
    if path.suffix in (".json", ".safetensors"):
        card = find_model(str(path))
        read_weights(card)
        folder = folder_for(card)
        for source in (card.weights_path, card.path):
            with whole_file(folder / source.name) as temporary:
                temporary.write_bytes(source.read_bytes())
        print(f"imported {card.name} into {folder}")
        return 0
    if values.source is None or values.target is None:
        raise BadInput("Say what the model translates, for example: imt models import FILE --from T1 --to T2.")
    name = values.name or path.stem
    if not NAME_PATTERN.fullmatch(name):
        raise BadInput(f"{name!r} cannot be a model's name: letters, digits and . _ + - only. Give one with --name.")
    card = import_state_dict(path, user_folder(), name, values.source, values.target, values.licence, values.size)
    print(f"imported {card.name}: {card.path}")
    return 0
