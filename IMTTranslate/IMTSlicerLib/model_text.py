"""What a panel tells of a model before it is used, from its card."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from IMTCore.cards import ModelCard


def describeCard(card: ModelCard, facts: Mapping[str, str] | None = None, scores: str = "") -> str:
    """What a user should know of a model, as HTML.

    :param facts: what only this kind of model has: heading -> text.
    :param scores: how well it does, as HTML; empty if not known.
    """
    content = card.content
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in content["limits"])
    data = "; ".join(escape(_dataset(entry)) for entry in content["training"]["data"])
    missing = "" if card.weights_path.is_file() else f"<p><b>{_('Its weights are not here yet: imt models download.')}</b></p>"
    return (
        f"<p><b>{escape(content['title'])}</b> ({escape(card.name)} {escape(content['version'])})</p>{missing}"
        + (f"<p>{escape(content['description'])}</p>" if content.get("description") else "")
        + "".join(f"<p><b>{escape(heading)}</b> {escape(text)}</p>" for heading, text in (facts or {}).items())
        + (f"<p><b>{_('On patients it never saw:')}</b> {scores}</p>" if scores else "")
        + f"<p><b>{_('Limits:')}</b></p><ul>{limits}</ul>"
        f"<p><b>{_('Learned from:')}</b> {data}</p>"
        f"<p><b>{_('Use:')}</b> {escape(content['intended_use'])} <b>{_('Licence:')}</b> {escape(content['weights']['licence'])}</p>"
    )


def _dataset(entry) -> str:
    """One entry of the card's training data: an object with name and subjects, or any text."""
    if not isinstance(entry, dict):
        return str(entry)
    name, subjects = entry.get("name", ""), entry.get("subjects")
    return f"{name} ({subjects})" if subjects is not None else str(name)
