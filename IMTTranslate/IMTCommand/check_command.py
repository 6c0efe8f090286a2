"""`imt check`: would a model take this image, and what is unusual about it?"""

from __future__ import annotations

import argparse
import json

from IMTCore.errors import BadInput
from IMTCore.input_check import FINE, STOP, WARN, Finding, check_input, worst
from IMTCore.volume_io import read_volume

from .model_finding import find_model, segments
from .text_table import columns

VERDICTS = {
    STOP: "Stop: a run would refuse this image.",
    WARN: "Look at the warnings: the model would take this image, but may be wrong on it.",
    FINE: "Fine: nothing is unusual about this image.",
}


def run(values: argparse.Namespace) -> int:
    """Check, and print what was found; 2 if a run would refuse the image."""
    card = find_model(values.model)
    if card.source == "any" and values.source is None:
        raise BadInput(f"Model {card.name} translates between {', '.join(card.modalities)}: say what the image shows with --from.")
    if values.source is not None and values.source not in (card.source, *getattr(card, "modalities", ())):
        raise BadInput(f"Model {card.name} does not take {values.source} images. Leave --from out, or choose another model.")
    if not values.input.exists():
        raise BadInput(f"{values.input} does not exist. Check the path.")
    try:
        volume = read_volume(values.input)
        findings = check_input(volume, card, values.source, "segment" if segments(card) else "translate")
    except BadInput as error:  # no image at all
        findings = [Finding("image", STOP, str(error))]
    verdict = worst(findings)
    if values.json:
        rows = [{"check": one.check, "severity": one.severity, "text": one.text} for one in findings]
        print(json.dumps({"input": str(values.input), "model": card.name, "verdict": verdict, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        print("\n".join([*columns([(one.severity, one.check, one.text) for one in findings]), VERDICTS[verdict]]))
    return BadInput.exit_code if verdict == STOP else 0
