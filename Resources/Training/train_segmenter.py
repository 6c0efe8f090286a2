"""Train a segmenter: TMS, an FCN-8s on [given, given, translated] (Yang et al. 2020, Cross-modality segmentation), or another.

The defaults are the paper's: FCN-32s, then 16s, then 8s, each from the one before, on axial slices of 256×256 with 100 pixels
of padding, fixed deconvolutions, batch 1, the mean cross-entropy at a rate of 1e-4 (biases at twice that, without decay),
momentum 0.99, weight decay 5e-4, dropout 0.5. --network unet trains a modern U-Net instead (Adam 1e-3 to 0 by a cosine,
cross-entropy and soft Dice, augmentation). Channels are data: --channels given given second with --second FLAIR and
--second-from translated (by --translator), real, or the controls shuffled and blurred. Every run can be killed and
resumed; the resumed run gives bit-identical weights.

Example:
    python Resources/Training/train_segmenter.py --data DATA --given T1 --second FLAIR --channels given given second \
        --translator T1-FLAIR --labels tissues --train 'nichart/*' --exclude nichart/subject03 --network unet \
        --planes axial coronal sagittal --steps 4000 --output runs/tms
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

# Else torch's threads spin while they wait, which is slow beside any other program.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "IMTTranslate"))

import torch

from segmenter_arguments import SegmenterRunOptions, parse
from segmenter_config import SegmenterConfig
from segmenter_data import find_labelled, load_examples, prepare_subject
from segmenter_run import SegmenterRun
from segmenter_second import SecondModality
from segmenter_trainer import SegmenterTrainer
from segmenter_validation import BestDice
from threads import choose_threads
from training_data import check_patients
from unseen_subjects import check_unseen

from IMTCore.devices import choose_device
from IMTCore.errors import BadInput, ImtError
from IMTCore.files import check_writable, write_json


def say(text: str) -> None:
    """A line on the screen, at once."""
    print(text, flush=True)


def second_of(config: SegmenterConfig, options: SegmenterRunOptions, names: list[str]) -> SecondModality | None:
    """What gives the second images; None if no channel needs one.

    Raises:
        BadModel, BadInput: as `SecondModality`.
    """
    if "second" not in config.images:
        return None
    second = SecondModality(config, options.device, options.cache, say)
    if second.card is not None:
        try:
            check_unseen(second.card, names)
        except BadInput as error:  # PartA and PartB are apart in the paper; it is for the user to judge
            say(f"note: {error} Translations of subjects that the translator has seen are better than those of new ones will be.")
    return second


def prepare(config: SegmenterConfig, options: SegmenterRunOptions) -> SegmenterRun:
    """All that a run needs, read and checked; the trainer is where its checkpoint was.

    Raises:
        BadInput: if the data or the checkpoint cannot be used. OutputFailure: if the output folder cannot be written.
    """
    checkpoint = options.output / "checkpoint.pt"
    check_writable(checkpoint)
    device = choose_device(options.device)
    held_out = [*config.exclude, *config.validate]
    check_patients(Path(config.data), config.train, held_out, config.layout)
    subjects = find_labelled(config, config.train, held_out, "training")
    watched = find_labelled(config, config.validate, config.exclude, "validation") if config.validate else []
    second = second_of(config, options, [subject.name for subject in (*subjects, *watched)])
    examples = load_examples(subjects, config, second)
    validation = [prepared for subject in watched for prepared in prepare_subject(subject, config, second, config.strip_share > 0)]
    if device.type == "cpu":
        torch.set_num_threads(choose_threads(config.build(config.phases[0]), (1, len(config.channels), *examples[0].images.shape[2:])))
    trainer = SegmenterTrainer(config, examples, device, options.prefetch)
    best = None
    if checkpoint.exists():
        best = BestDice(**trainer.load(checkpoint)["best"])
        say(f"resumed at step {trainer.step}")
    else:
        trainer.start(say)
    slices = sum(len(example.images) for example in examples)
    channels = ", ".join({"given": config.given, "second": config.second}[channel] for channel in config.channels)
    say(f"{len(trainer.subjects)} subjects, {slices} slices; channels {channels}; classes {', '.join(config.names)}")
    translator = None if second is None or second.card is None else {"name": second.card.name, "sha256": second.card.sha256}
    record = {"subjects": trainer.subjects, "validated": [subject.name for subject in watched], "translator_card": translator}
    write_json(options.output / "config.json", {**asdict(config), **record, "initial_weights": trainer.initial, "command": sys.argv})
    return SegmenterRun(trainer, options, validation, best)


def train(config: SegmenterConfig, options: SegmenterRunOptions) -> SegmenterRun:
    """Train or resume one segmenter. ImtError: as the parts raise it."""
    run = prepare(config, options)
    run.run()
    if run.trainer.step < config.total_steps:
        say(f"stopped at step {run.trainer.step} of {config.total_steps}: the same command goes on")
    return run


def main(arguments: list[str] | None = None) -> None:
    """The command; an error is one sentence on the screen."""
    try:
        train(*parse(arguments, __doc__))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
