"""Checkpoints: written whole or not at all, read without unpickling, refused if they are another experiment's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiment import NOT_LEARNT, Config
from trainer import Trainer

from IMTCore.errors import BadInput
from IMTCore.files import whole_file


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state of `Trainer.state`.

    Raises:
        OutputFailure: if the disk is full or the folder not writable; a checkpoint that was there is as it was.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            # torch hides the reason behind an error of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises:
        BadInput: if it is missing, damaged, or of an older form.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its reader meets
        raise BadInput(f"{path} cannot be read as a checkpoint ({type(error).__name__}). Choose another, or start anew.") from error
    if not isinstance(state, dict) or "average" not in state:
        raise BadInput(f"{path} is no checkpoint of this trainer. Choose another, or start anew.")
    return state


def resume(trainer: Trainer, path: Path) -> dict[str, Any]:
    """Continue from a checkpoint of the same experiment; its whole state.

    Raises:
        BadInput: if it is damaged, of another experiment, or of another number of processes.
    """
    state = read_checkpoint(path)
    if state.get("format") != 2 or "adam_g" not in state:
        raise BadInput(f"{path} is of an earlier version of the trainer and cannot be resumed. Choose another --output.")
    differing = differences(Config.from_record(state["config"], str(path)), trainer.config)
    if differing:
        raise BadInput(f"{path} is of another experiment (differs in {', '.join(differing)}). Choose another --output.")
    ranks = len(state["torch_random"])
    if ranks != trainer.processes.size:
        raise BadInput(
            f"{path} is of {ranks} processes, this run has {trainer.processes.size}. Start as many (torchrun --nproc-per-node)."
        )
    trainer.load_state(state)
    return state


def differences(one: Config, other: Config) -> list[str]:
    """The settings in which two experiments would learn something else."""
    ours, theirs = asdict(one), asdict(other)
    return [name for name in ours if name not in NOT_LEARNT and ours[name] != theirs[name]]


def start_from(trainer: Trainer, path: Path) -> None:
    """Begin with the generator of another run's checkpoint, or of a `best.pt`.

    Raises:
        BadInput: if it is damaged, or of a generator of another shape.
    """
    state = read_checkpoint(path)
    try:
        trainer.start_from(state["average"])
    except (KeyError, RuntimeError) as error:
        raise BadInput(f"{path} holds a generator of another shape than this experiment's: {error}") from error
