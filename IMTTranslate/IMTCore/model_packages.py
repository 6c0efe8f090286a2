"""Load and save models as packages: `<name>.safetensors` beside `<name>.json`.

Only safetensors is loaded. The bytes that are checked are the bytes that are used, and nothing is kept of a package
that fails any check.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .card_checks import check_card
from .cards import PackageCard, read_card
from .errors import BadModel
from .files import whole_file
from .weights_file import read_weights_file

MAX_HEADER_BYTES = 1 << 20  # safetensors' own limit is 100 MB; a U-Net needs a few kB
ALLOWED_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
INDEX_DTYPES = {"I16": torch.int16, "I32": torch.int32}  # of a forest's tables, each as the network has it
Card = TypeVar("Card", bound=PackageCard)


def load_network(card: PackageCard, content: bytes | None = None, as_stored: bool = False) -> nn.Module:
    """The card's network with its weights, in evaluation mode, on the CPU.

    Args:
        card: the model's card.
        content: what `read_weights_file` gave, if it was called before.
        as_stored: keep the weights' number type; else float32.

    Raises:
        BadModel: weights missing, outside the card's folder, of another size or hash than the card says, with an
            over-long or broken header, with unknown or missing keys, wrong shapes or types, or values not finite.
    """
    tensors = read_weights(card, content)
    with torch.device("meta"):  # no time for initial weights that are replaced at once
        network = card.build_network()
    network.load_state_dict(tensors, assign=True)
    if hasattr(network, "check"):  # tables that lead from one place to the next must lead to an end
        try:
            network.check()
        except ValueError as error:
            raise BadModel(f"The weights {card.weights_path} were not loaded: {error}.") from error
    channel = card.content["network"].get("channel")
    if channel is not None:
        network.keep_output(channel)
    return (network if as_stored else network.float()).eval()


def read_weights(card: PackageCard, content: bytes | None = None) -> dict[str, Tensor]:
    """The checked tensors of a package, as stored. Arguments and errors as `load_network`."""
    content = read_weights_file(card) if content is None else content

    def fail(problem: str) -> BadModel:
        return BadModel(f"The weights {card.weights_path} were not loaded: {problem}.")

    header = _read_header(content, fail)
    with torch.device("meta"):
        expected = card.build_network().state_dict()
    _check_keys(header, expected, fail)
    from safetensors.torch import load

    try:
        tensors = load(content)
    except Exception as error:  # safetensors raises its own kinds for offsets that do not fit
        raise fail(f"it is not a valid safetensors file ({error})") from error
    for key, value in tensors.items():
        # NaN and infinity survive a sum, which is several times quicker than a look at each half-precision value.
        if value.is_floating_point() and not torch.isfinite(value.sum(dtype=torch.float32)) and not torch.isfinite(value).all():
            raise fail(f"{key} has values that are not finite")
    return tensors


def _read_header(content: bytes, fail: Any) -> dict[str, Any]:
    if len(content) < 10:
        raise fail("it is too short for a safetensors file")
    (length,) = struct.unpack("<Q", content[:8])
    if length > MAX_HEADER_BYTES or length > len(content) - 8:
        raise fail(f"its header claims {length} bytes, which is too long")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise fail(f"its header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise fail("its header is not an object")
    header.pop("__metadata__", None)
    return header


def _check_keys(header: dict[str, Any], expected: dict[str, Tensor], fail: Any) -> None:
    unknown, missing = sorted(set(header) - set(expected)), sorted(set(expected) - set(header))
    if unknown or missing:
        parts = [f"unknown {unknown[0]!r} and {len(unknown) - 1} more"] if unknown else []
        parts += [f"missing {missing[0]!r} and {len(missing) - 1} more"] if missing else []
        raise fail(f"its tensors are not the network's ({'; '.join(parts)})")
    for key, entry in header.items():
        shape = list(expected[key].shape)
        if not isinstance(entry, dict) or entry.get("shape") != shape:
            raise fail(f"{key} has the wrong shape (the network needs {shape})")
        index = [name for name, dtype in INDEX_DTYPES.items() if dtype == expected[key].dtype]
        if not isinstance(entry.get("dtype"), str) or entry["dtype"] not in (index or ALLOWED_DTYPES):
            raise fail(f"{key} has the type {entry.get('dtype')!r}, and only {', '.join(index or ALLOWED_DTYPES)} are accepted")


def save_package(
    folder: Path,
    card: dict[str, Any],
    network: nn.Module,
    dtype: torch.dtype = torch.float16,
    stem: str = "",
    check: Callable[[Any, Path], None] = check_card,
    read: Callable[[Path], Card] = read_card,
) -> Card:
    """Write a package: the weights in `dtype` (tables of whole numbers as they are), and the card with their file, size and hash filled in.

    Args:
        folder: where to put `<name>.safetensors` and `<name>.json`.
        card: the card's content; `weights` needs only the licence (and a URL, if there is one).
        network: the trained network.
        stem: the weights' file name, if it is not the card's (models that share their weights).
        check, read: of this kind of card; by default a translation model's.

    Raises:
        BadModel: if the card is not valid (nothing is written) or a weight does not fit `dtype`.
    """
    from safetensors.torch import save

    tensors = {
        key: value.detach().to("cpu", value.dtype if value.dtype in INDEX_DTYPES.values() else dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BadModel(f"{key} has values that are not finite in {dtype}: the package was not written.")
    content = save(tensors, metadata={"format": "pt"})
    name = card["name"]
    weights = {"file": f"{stem or name}.safetensors", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    card = {**card, "weights": {**weights, **{k: v for k, v in card["weights"].items() if k not in weights}}}
    card_path = Path(folder) / f"{name}.json"
    check(card, card_path)
    with ExitStack() as stack:  # the card is renamed last: no card without its weights
        card_file = stack.enter_context(whole_file(card_path))
        weights_file = stack.enter_context(whole_file(Path(folder) / weights["file"]))
        card_file.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        weights_file.write_bytes(content)
    return read(card_path)
