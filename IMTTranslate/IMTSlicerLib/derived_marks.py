"""Marks of nodes that were computed with the help of a synthetic image, without being one: labels, transforms, maps."""

from __future__ import annotations

import json
from typing import Any

from .nodes import MARK_ATTRIBUTE

DERIVED_ATTRIBUTE = "IMT.DerivedFromSynthetic"


def markDerived(node, record: dict[str, Any], content: str = "") -> None:
    """Say on a node how it came to be, and whether a synthetic image took part.

    :param record: the mark that `imt` wrote beside its file, with "derived_from_synthetic" and "notice".
    :param content: what the node holds; as the record has it, if empty.
    """
    from slicer.i18n import tr as _

    derived = bool(record.get("derived_from_synthetic"))
    record = {**record, "content": content or record.get("content", "")}
    record.pop("output", None)  # the hash of the file that `imt` wrote, which is not this node's
    settings = record.get("settings", {})
    values = {
        DERIVED_ATTRIBUTE: "true" if derived else "false",
        "IMT.MadeBy": record.get("made_by", ""),
        "IMT.Notice": record.get("notice", ""),
        "IMT.Content": record["content"],
        "IMT.Engine": settings.get("engine", ""),
        "IMT.Model": (record.get("model") or {}).get("name", ""),
        "IMT.ModelSHA256": (record.get("model") or {}).get("sha256", ""),
        "IMT.Versions": json.dumps(record.get("versions", {}), sort_keys=True),
        MARK_ATTRIBUTE: json.dumps(record, sort_keys=True, ensure_ascii=True),
    }
    for key, value in values.items():
        node.SetAttribute(key, value)
    notice = record.get("notice", "")
    if derived:
        notice += " " + _("A synthetic image took part.")
    node.SetDescription(notice.strip())
