"""`imt models`: list, show, verify, download, remove, import."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from IMTCore.card_checks import NAME_PATTERN
from IMTCore.cards import ModelCard, read_card
from IMTCore.catalogue import download, find_card, list_cards, remove, user_folder
from IMTCore.errors import BadInput, BadModel
from IMTCore.files import whole_file

from .progress import ProgressBar, listener


def run(values: argparse.Namespace) -> int:
    """Do the action that the arguments name."""
    actions = {
        "list": list_models,
        "show": show,
        "verify": verify,
        "download": fetch,
        "remove": delete,
        "import": import_model,
    }
    return actions[values.action](values)


def list_models(values: argparse.Namespace) -> int:
    """Print all models."""
    cards, problems = list_cards()
    if values.json:
        print(json.dumps([card.summary() for card in cards], indent=2))
    elif not cards:
        print(f"No models. Import one with: imt models import FILE (it goes into {user_folder()}).")
    else:
        print(f"{'name':<16} {'from':<6} {'to':<6} {'size':>8}  {'state':<12} licence")
        for card in cards:
            weights = card.content["weights"]
            state = "ready" if card.weights_path.is_file() else "to download" if "url" in weights else "no weights"
            print(f"{card.name:<16} {card.source:<6} {card.target:<6} {weights['bytes'] / 1e6:>5.1f} MB  {state:<12} {weights['licence']}")
    for problem in problems:
        print(f"imt: {problem}", file=sys.stderr)
    return 0


def show(values: argparse.Namespace) -> int:
    """Print one card."""
    card = find_card(values.name)
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
        f"  {card.source} -> {card.target}" + (f" (between {', '.join(card.modalities)})" if card.modalities else ""),
        f"  card      {card.path}",
        f"  weights   {weights['file']}, {weights['bytes'] / 1e6:.1f} MB, SHA-256 {card.sha256}",
        f"  licence   {weights['licence']}",
        f"  network   {content['network']['kind']} {json.dumps(content['network']['arguments'])}",
        f"  slicing   {json.dumps(content['slicing'])}",
        f"  output    float32, {card.output_range[0]:g} to {card.output_range[1]:g}, background 0",
        f"  trained   {training['date']}",
    ]
    lines += [f"    data    {entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)}" for entry in training["data"]]
    if training.get("held_out"):
        lines.append(f"    held out {', '.join(training['held_out'])}")
    lines += [f"    measured {line}" for line in describe_metrics(content["metrics"])]
    lines.append(f"  use       {content['intended_use']}")
    lines += [f"  limit     {limit}" for limit in content["limits"]]
    lines += [f"  cite      {citation}" for citation in content.get("citations", [])]
    return lines


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


def verify(values: argparse.Namespace) -> int:
    """Load every model as a translation would, and say what is wrong with those that fail."""
    from IMTCore.model_packages import read_weights

    cards, problems = list_cards()
    chosen = [find_card(name) for name in values.name] or cards
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
    card = find_card(values.name)
    if card.weights_path.is_file():
        print(f"{card.name} is here already: {card.weights_path}")
        return 0
    weights = card.content["weights"]
    print(f"Downloading {weights['bytes'] / 1e6:.1f} MB from {weights['url'] if 'url' in weights else '?'}; licence: {weights['licence']}", file=sys.stderr)
    progress = listener(values.progress)
    fetched = download(card, progress)
    if isinstance(progress, ProgressBar):
        progress.close()
    print(f"{card.name}: {fetched.weights_path}")
    return 0


def delete(values: argparse.Namespace) -> int:
    """Remove a model from the user's folder."""
    for path in remove(values.name):
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
        card = read_card(path.with_suffix(".json"))
        read_weights(card)
        folder = user_folder()
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
