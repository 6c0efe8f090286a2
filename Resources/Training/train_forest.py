"""Train the random-forest baseline: regression on each voxel's neighbours and context, with an auto-context pass if wanted.

After Jog et al. 2017 (REPLICA; the RF of Yang et al. 2020, Table 1, is their ref. 5 of the same authors). The forest sees each
voxel's neighbours, smoothed copies around it and its place in the head. With `--auto-context` a second forest sees the same
of the first's translation too. So that it learns from translations as bad as those of unseen subjects, these come from
forests fitted without the subject (`--folds`).

scikit-learn grows the trees; what is written needs it no more. A run is the same for the same seed, whatever --jobs.

Example:
    python Resources/Training/train_forest.py --data DATA --source T1 --target T2 --train 'glioma_brats2018/*' \
        --exclude glioma_brats2018/case_02 --output runs/T1-T2-forest
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from datasets import LAYOUTS
from experiment import read_split
from forest_fitting import GrowthSpec, draw, fit_forest
from training_data import load_pairs

from IMTCore.errors import BadInput, BadModel, ImtError
from IMTCore.files import check_writable, whole_file, write_json
from IMTCore.forest import MAX_DEPTH, RegressionForest
from IMTCore.forest_features import FeatureSpec
from IMTCore.slicing import SlicingSpec

LEVELS = 4  # smoothings with context
WEIGHTS, ARGUMENTS, RECORD = "forest.safetensors", "arguments.json", "config.json"
BOUNDS = {
    "trees": (1, 500),
    "voxels_per_subject": (1, 10**8),
    "leaf": (1, 10**6),
    "depth": (1, MAX_DEPTH),
    "folds": (2, 100),
    "share": (0.001, 1),
    "spacing_mm": (0.1, 10),
}


@dataclass(frozen=True)
class Config:
    """One experiment; saved as JSON beside its forest."""

    data: str
    source: str
    target: str
    train: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    split: str = ""
    layout: str = "folders"
    trees: int = 30
    voxels_per_subject: int = 40_000
    leaf: int = 8
    depth: int = 64
    share: float = 1 / 3
    context: bool = True
    auto_context: bool = False
    folds: int = 3
    neighbours: int = 6
    spacing_mm: float = 1.0
    seed: int = 0
    jobs: int = -1

    @property
    def slicing(self) -> SlicingSpec:
        """The slicing that the forest will want."""
        return SlicingSpec(mode="spatial", spacing_mm=self.spacing_mm)

    @property
    def features(self) -> FeatureSpec:
        """What the forest sees."""
        return FeatureSpec(self.spacing_mm, self.neighbours, LEVELS if self.context else 0)

    @property
    def growth(self) -> GrowthSpec:
        """How its trees are grown."""
        return GrowthSpec(self.trees, self.leaf, self.depth, self.share, self.seed, self.jobs)

    def check(self) -> None:
        """Raises BadInput for a number that is not possible."""
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"--{name.replace('_', '-')} must be {least} to {most}, not {getattr(self, name)}.")
        if self.seed < 0 or self.jobs == 0:
            raise BadInput("--seed must not be negative, and --jobs not 0.")


# --- Runs ----------------------------------------------------------------------------------------------------------


def save_run(run: Path, config: Config, forest: RegressionForest, record: dict) -> None:
    """Write a run's files, the record last.

    Raises:
        OutputFailure: if one cannot be written.
    """
    from safetensors.torch import save

    content = save({key: value.contiguous() for key, value in forest.state_dict().items()}, metadata={"format": "pt"})
    with whole_file(run / WEIGHTS) as temporary:
        temporary.write_bytes(content)
    write_json(run / ARGUMENTS, forest.arguments)
    write_json(run / RECORD, {**asdict(config), **record})


def load_run(run: Path) -> RegressionForest:
    """The forest of a finished run, checked.

    Raises:
        BadModel: if a file is missing, or its content is no forest.
    """
    from safetensors.torch import load_file

    try:
        arguments = json.loads((run / ARGUMENTS).read_text(encoding="utf-8"))
        with torch.device("meta"):
            forest = RegressionForest(**arguments)
        forest.load_state_dict(load_file(run / WEIGHTS), assign=True)
        forest.check()
    except Exception as error:  # safetensors raises its own kinds
        raise BadModel(f"{run} holds no finished run of train_forest.py ({error}). Train it anew.") from error
    return forest.eval()


def parse(arguments: list[str] | None = None) -> tuple[Config, Path]:
    """The experiment and its output folder.

    Raises:
        BadInput: if the split cannot be read, or a number is not possible.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {item.name: item.default for item in fields(Config)}
    parser.add_argument("--data", required=True, help="folder of the data")
    parser.add_argument("--source", required=True, help="modality of the given image")
    parser.add_argument("--target", required=True, help="modality to translate to")
    parser.add_argument("--train", nargs="+", default=[], help="patterns of <dataset>/<subject>")
    parser.add_argument("--exclude", nargs="*", default=[], help="patterns of subjects held out")
    parser.add_argument("--split", default="", help="JSON file of a saved split, in place of --train and --exclude")
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="folders", help="how the data lie")
    for name, text in (
        ("trees", "of each forest"),
        ("voxels_per_subject", "drawn at random from the foreground"),
        ("leaf", "least voxels in a leaf"),
        ("depth", "splits to the deepest leaf"),
        ("share", "of the features, tried at each split"),
        ("folds", "of subjects, for the translations that the second forest learns from"),
        ("spacing_mm", "in-plane, and distance of the patch's voxels"),
        ("neighbours", "of the patch: 26, 6 or 0"),
        ("seed", "of the voxels drawn and of the trees"),
        ("jobs", "trees fitted at once; -1: as many as there are cores"),
    ):
        default = defaults[name]
        choices = [0, 6, 26] if name == "neighbours" else None
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, choices=choices, help=f"{text} (default: {default:g})")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--context", action=switch, default=True, help="smoothed copies around the voxel")
    parser.add_argument("--auto-context", action=switch, default=False, help="a second forest that sees the first's translation")
    parser.add_argument("--output", required=True, type=Path, help="folder of the run; it must not hold a forest yet")
    values = vars(parser.parse_args(arguments))
    output = values.pop("output")
    if bool(values["split"]) == bool(values["train"]) or (values["split"] and values["exclude"]):
        parser.error("give either --train (and --exclude) or --split")
    if values["split"]:
        parts = read_split(Path(values["split"]))  # validation subjects are not trained on
        values |= {"train": parts["train"], "exclude": parts["exclude"] + parts["validate"]}
    config = Config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    config.check()
    return config, output


def train(config: Config, output: Path) -> None:
    """Read, fit, save.

    Raises:
        BadInput: if there is nothing to learn from, too little for auto-context, or an image cannot be used.
        OutputFailure: if `output` holds a forest already or cannot be written.
    """
    if (output / WEIGHTS).exists():
        raise BadInput(f"{output} holds a finished run already. Choose another --output.")
    check_writable(output / WEIGHTS)
    pairs = load_pairs(
        Path(config.data), config.train, config.exclude, config.source, [config.target], [config.slicing], 1, config.layout
    )
    drawn = [draw(pair, config.target, config.voxels_per_subject, [config.seed, n]) for n, pair in enumerate(pairs)]
    samples = [sample for sample in drawn if sample is not None]
    if not samples:
        raise BadInput(
            f"No training subjects with {config.source} and {config.target} in {config.data}. Check --train and --exclude."
        )
    if config.auto_context and len(samples) < 2:
        raise BadInput(f"Auto-context needs two subjects or more, and there is only {samples[0].name}. Give --no-auto-context.")
    print(f"{len(samples)} subjects: {', '.join(sample.name for sample in samples)}", flush=True)
    start = time.perf_counter()
    forest = fit_forest(config.growth, config.features, samples, config.folds if config.auto_context else 0)
    seconds = round(time.perf_counter() - start, 1)
    record = {"subjects": [sample.name for sample in samples], "command": sys.argv, "fit_seconds": seconds}
    save_run(output, config, forest, record)
    size = (output / WEIGHTS).stat().st_size / 1e6
    print(
        f"{output / WEIGHTS}: {forest.passes} x {forest.trees} trees of up to {forest.nodes} nodes, {size:.1f} MB, fitted in {seconds} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Train one forest."""
    try:
        train(*parse(arguments))
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
