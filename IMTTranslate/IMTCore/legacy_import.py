"""Turn a `.pth` state dict of the pix2pix PyTorch port, or of IMT's own layout, into a model package.

The file is read with `weights_only=True`: tensors and plain containers, no code.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .cards import ModelCard
from .errors import BadInput, BadModel
from .model_packages import save_package
from .networks import UNetGenerator

_STATISTICS = re.compile(r"(running_mean|running_var|num_batches_tracked)$")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file.

    Raises:
        BadInput: missing, not a state dict, or one that needs code to load.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} does not exist. Check the path.")
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks to report files of other kinds to its authors
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadInput(
            f"{path} is not a plain PyTorch state dict (tensors only), so it was not loaded. "
            "Save the generator's state_dict() with torch.save and import that."
        ) from error
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(f"{path} is not a state dict: it must map names to tensors.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _check_archive(path: Path) -> None:
    """torch stores the parts of its archives as they are. Raises ValueError for one that would unpack to more than the file has."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("compressed parts")


def rename_port_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of the pix2pix port's nested U-Net (`model.model.1.model.3…`) → this project's flat ones.

    The port nests block in block: the outermost is [down, inner, ReLU, up, tanh]; the others
    [leaky ReLU, down, norm, inner, ReLU, up, norm], the innermost without inner and first norm.

    Raises:
        BadModel: if the nesting is not that of a U-Net.
    """
    if not any(key.startswith("model.model.") for key in state):
        return state
    depth_of = {key: len(re.findall(r"model\.", key)) - 2 for key in state}
    innermost = max(depth_of.values())
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"model\.model\.(?:\d+\.model\.)*(\d+)\.(\w+)", key)
        if match is None:
            raise BadModel(f"Unknown key {key!r} for a U-Net of the pix2pix port.")
        level, index, kind = depth_of[key], int(match[1]), match[2]
        up = innermost - level
        if level == 0:
            place = {0: "encoder.0", 3: f"decoder.{up}"}
        elif level == innermost:
            place = {1: f"encoder.{level}", 3: f"decoder.{up}", 4: f"decoder_norms.{up}"}
        else:
            place = {1: f"encoder.{level}", 2: f"encoder_norms.{level}", 5: f"decoder.{up}", 6: f"decoder_norms.{up}"}
        if index not in place:
            raise BadModel(f"Unknown key {key!r} for a U-Net of the pix2pix port.")
        renamed[f"{place[index]}.{kind}"] = value
    return renamed


def infer_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Depth, filters and channels of a U-Net from the shapes of its tensors.

    Raises:
        BadModel: if the tensors are not those of this project's U-Net.
    """
    try:
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("encoder."))
        first = state["encoder.0.weight"]
        widest = max(state[f"encoder.{n}.weight"].shape[0] for n in range(depth))
        return {
            "in_channels": first.shape[1],
            "out_channels": state[f"decoder.{depth - 1}.weight"].shape[1],
            "filters": first.shape[0],
            "depth": depth,
            "max_multiplier": widest // first.shape[0],
            "layout": "lua" if "encoder.0.bias" in state else "torch",
        }
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise BadModel("The file's tensors are not those of a U-Net generator (pix2pix layout).") from error


def import_state_dict(path: Path, folder: Path, name: str, source: str, target: str, licence: str, size: int = 256) -> ModelCard:
    """Make a package from a `.pth` file; the card says that its training is not known to IMT.

    Batch-normalisation statistics are dropped: inference uses each slice's own, as pix2pix does.

    Raises:
        BadInput, BadModel: if the file is not a state dict of a U-Net with one output channel.
    """
    stored = read_state_dict(path)
    try:
        state = {k: v for k, v in rename_port_keys(stored).items() if not _STATISTICS.search(k)}
        arguments = infer_arguments(state)
    except BadModel as error:
        raise BadModel(f"{path}: {error}") from error
    if state.keys() != {k for k in stored if not _STATISTICS.search(k)}:
        # The port drops out in other blocks than the paper: noise that the weights never met would be no uncertainty.
        arguments["dropout_blocks"] = 0
    if arguments["in_channels"] not in (1, 3) or arguments["out_channels"] != 1:
        raise BadModel(
            f"{path} takes {arguments['in_channels']} channels and gives {arguments['out_channels']}: IMT imports generators "
            "from one slice (or a slice and its two neighbours) to one."
        )
    try:
        with torch.device("meta"):  # shapes are compared before any memory is asked for
            network = UNetGenerator(**arguments)
        network.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise BadModel(f"{path} does not fit a U-Net generator: {str(error).splitlines()[-1].strip()}") from error
    card = {
        "format": 1,
        "name": name,
        "version": "imported",
        "title": f"{source} to {target}, imported from {Path(path).name}",
        "source": source,
        "target": target,
        "network": {"kind": "unet", "arguments": arguments},
        "slicing": {
            "plane": "axial",
            "mode": "paper",
            "size": [size, size],
            "neighbours_mm": [0.0] if arguments["in_channels"] == 1 else [-1.0, 0.0, 1.0],
        },
        "percentile": 99.5,
        "output_range": [0, 255],
        "weights": {"licence": licence},
        "training": {"data": ["not known to IMT"], "command": "not known to IMT", "date": "not known to IMT"},
        "metrics": [],
        "intended_use": "Research only, not for diagnosis. Imported: its user answers for its training and its fitness.",
        "limits": ["Imported weights: check the result on data with a known answer before use."],
    }
    return save_package(folder, card, network, torch.float32)
