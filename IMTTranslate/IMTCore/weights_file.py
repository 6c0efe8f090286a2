"""The weights file of a package as bytes: in its place, of the size and hash that the card says. No torch."""

from __future__ import annotations

import hashlib

from .cards import PackageCard
from .errors import BadModel


def read_weights_file(card: PackageCard) -> bytes:
    """The file's bytes.

    Raises:
        BadModel: if it is missing, outside the card's folder, or of another size or hash than the card says.
    """
    path = card.weights_path

    def fail(problem: str) -> BadModel:
        return BadModel(f"The weights {path} were not loaded: {problem}.")

    if not path.is_file():
        where = "download it with: imt models download " + card.name if "url" in card.content["weights"] else "import it again"
        raise BadModel(f"The weights of model {card.name} are not there ({path}): {where}.")
    if path.resolve().parent != card.path.resolve().parent:
        raise fail("the file is a link that leads out of the card's folder")
    expected_bytes = card.content["weights"]["bytes"]
    if path.stat().st_size != expected_bytes:
        raise fail(f"the file has {path.stat().st_size} bytes, and the card says {expected_bytes}; get the model again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise fail(error.strerror or str(error)) from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise fail("its SHA-256 is not the card's: the file is damaged or was changed; get the model again")
    return content
