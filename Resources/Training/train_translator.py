"""Train a translator: cGAN + 100·L1 as in Yang et al. 2020 (Methods, Training), or another experiment.

The defaults are the paper's: U-Net-256 with 64 filters on single axial slices resized to 256×256, 70×70 PatchGAN,
Adam 2e-4 with β1 0.5, batch 1, D then G, D's loss halved, jitter and flips. `--config` reads another experiment
(Resources/Training/configs), options go over it. Every run can be killed and resumed; the resumed run gives
bit-identical weights.

Several targets may be trained at once (one output channel each); a subject need not have all of them.

Example:
    python Resources/Training/train_translator.py --data DATA --source T1 --targets T2 --train 'ixi/*' \
        --steps 100000 --output runs/T1-T2
    torchrun --nproc-per-node 4 Resources/Training/train_translator.py --config paper-l1.json ... --device cuda
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

# Else torch's threads spin while they wait, which is slow beside any other program.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # --deterministic needs it, and it must come before CUDA

import torch

from checkpoints import resume, start_from
from experiment import Config, read_split_slices
from losses import was_acquired
from prediction import add_context
from processes import Processes
from threads import choose_threads
from trainer import Trainer
from trainer_arguments import RunOptions, parse
from training_data import Pair, check_patients, keep_slices, load_pairs
from training_run import TrainingRun
from validation import Best

from IMTCore.devices import choose_device
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_json

__all__ = ["Config", "Trainer", "main", "was_acquired"]


def load(config: Config, patterns: Sequence[str], held_out: Sequence[str], purpose: str) -> list[Pair]:
    """The pairs of the subjects that match.

    Raises:
        BadInput: if there are none, or a subject cannot be used.
    """
    pairs = load_pairs(
        Path(config.data), patterns, held_out, config.source, config.targets, config.slicings, config.stride, config.layout
    )
    if config.split:
        pairs = keep_slices(pairs, read_split_slices(Path(config.split)))
    if not pairs:
        wanted = f"{config.source} and {' or '.join(config.targets)}"
        raise BadInput(f"No {purpose} subjects with {wanted} in {config.data}. Look at --{'train' if held_out else 'validate'}.")
    return pairs


def prepare(config: Config, options: RunOptions, processes: Processes) -> TrainingRun:
    """All that a run needs, read and checked; the trainer is where its checkpoint was.

    Raises:
        BadInput: if the data or the checkpoint cannot be used. OutputFailure: if the output folder cannot be written.
    """
    checkpoint = options.output / "checkpoint.pt"
    if processes.writes:  # one process alone: each would make the folder to try it, and take it away again
        check_writable(checkpoint)
    held_out = [*config.exclude, *config.validate]
    check_patients(Path(config.data), config.train, held_out, config.layout)
    pairs = load(config, config.train, held_out, "training")
    validation = load(config, config.validate, config.exclude, "validation") if config.validate and processes.writes else []
    slices = sum(len(pair.slices) for pair in pairs)
    config = config.with_steps(slices)
    if config.context_of:
        add_context([*pairs, *validation], config, processes.device)
    if processes.device.type == "cpu" and config.network != "context":
        torch.set_num_threads(choose_threads(config.generator(), (1, config.in_channels, *pairs[0].source.images.shape[1:])))
    trainer = Trainer(config, pairs, processes, options.channels_last, options.prefetch)
    trainer.generator.checkpointing = options.gradient_checkpointing
    best = None
    if checkpoint.exists():
        best = Best(**resume(trainer, checkpoint)["best"])
        print(f"resumed at step {trainer.step}", flush=True)
    elif config.initial:
        start_from(trainer, Path(config.initial))
    if processes.writes:
        subjects = sorted({pair.name for pair in pairs})
        write_json(options.output / "config.json", {**asdict(config), "subjects": subjects, "command": sys.argv})
        print(f"{len(subjects)} subjects, {slices} slices", flush=True)
    return TrainingRun(trainer, options, pairs, validation, best)


def main(arguments: list[str] | None = None) -> None:
    """Train or resume one experiment; an error is one sentence on the screen."""
    processes = None
    try:
        config, options = parse(arguments, __doc__)
        device = choose_device(options.device)
        torch.backends.cudnn.benchmark = not options.deterministic
        torch.use_deterministic_algorithms(options.deterministic)
        processes = Processes.join(device)
        run = prepare(config, options, processes)
        try:
            run.run()
        finally:
            run.trainer.close()
    except ImtError as error:
        sys.exit(str(error))
    finally:
        if processes is not None:
            processes.leave()


if __name__ == "__main__":
    main()
