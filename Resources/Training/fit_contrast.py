"""Fit the coefficients by which `IMTCore.contrast` recognises a modality, and measure how well it does.

Real images, as they are, with the skull taken off where a mask exists, and varied at random (gamma, coil, noise,
resolution, cropping, z-scores), and phantoms simulated from label maps with random pulse sequences. Whatever data set
or patient is scored was not fitted on.

Example:
    python Resources/Training/fit_contrast.py --data DATA --held-out $HELD_OUT \
        --output IMTTranslate/Resources/IMT-contrast.json --report RESULTS/contrast.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from scipy.optimize import minimize

from IMTCore.contrast import (
    CLIP, COEFFICIENTS, FEATURES, MODALITIES, NAMED, ModalityGuess, contrast_features, guess_from_features,
)  # fmt: skip
from IMTCore.errors import ImtError
from IMTCore.files import write_text
from IMTCore.intensity import background_value, foreground_mask
from IMTCore.orientation import anatomical_axes
from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import tissue_maps_from_labels
from IMTCore.tissues import TISSUES, PulseSequence
from IMTCore.volume import Geometry, Volume
from IMTCore.volume_io import read_volume

# Sets whose terms allow weights that are shipped; what is not here is at most scored.
FITTED = {
    "glioma_brats2018": "BraTS 2018 cases, 8-bit restack (research use; Menze 2015, Bakas 2017, 2018)",
    "open_ms_mni": "MS brains in MNI space (CC BY; Lesjak 2017)",
    "open_ms_longitudinal": "longitudinal MS (CC BY; Lesjak 2016)",
    "tcga_lgg": "TCGA-LGG, one case (CC BY 3.0; Pedano 2016)",
    "nichart": "NiChart demo data (University of Pennsylvania SBIA licence)",
    "templates": "SPM's (GPL) and HCP's MNI152 average heads",
    "phantoms": "simulated from SynthSeg's label maps",
}
REAL = tuple(name for name in FITTED if name != "phantoms")
SCORED_ONLY = ("malf2012", "glioma_brats2013")
IMAGES = (*MODALITIES, "T1C")
MASKS = ("brainmask", "prob_brainmask", "tissues")
VARIATIONS = 10  # of each real image
PHANTOMS = 4  # of each label map, in every modality, with two variations each
RIDGE = 3e-3
SHARE = {"PD": 0.25}  # of a modality beside 1 for the others: few images are PD
USUAL = 99.5  # per cent of the images fitted on; what is more unusual than these is not judged


@dataclass(frozen=True, eq=False)
class Example:
    """One image's features. `how`: "original", "stripped" or "varied"."""

    dataset: str
    subject: str
    image: str
    how: str
    values: np.ndarray

    @property
    def modality(self) -> str:
        """What it should be called: T1 after contrast agent is T1."""
        return "T1" if self.image == "T1C" else self.image


# --- Images --------------------------------------------------------------------------------------------------------


def axial(volume: Volume) -> Volume:
    """The same volume, float32, stored along patient axes: variations can then cut and thin it."""
    axes = anatomical_axes(volume.geometry)
    array = np.ascontiguousarray(axes.apply(volume.array), dtype=np.float32)
    return on_grid(array, np.array(axes.spacing_kji(volume.geometry)))


def on_grid(array: np.ndarray, spacing_kji: np.ndarray) -> Volume:
    """An axial array as a volume."""
    return Volume(array, Geometry(array.shape, spacing_kji[::-1], np.zeros(3), np.eye(3)))


def stripped(volume: Volume, mask: np.ndarray) -> Volume:
    """Everything but the brain set to 0."""
    return volume.with_array(np.where(mask, volume.array, np.float32(0)))


def varied(volume: Volume, mask: np.ndarray | None, random: np.random.Generator) -> Volume:
    """A random variation of an axial volume, as another scanner, protocol or pipeline might have given it."""
    if mask is not None and random.random() < 0.5:
        volume = stripped(volume, mask)
    array, spacing = volume.array, volume.geometry.spacing_mm[::-1]
    head = foreground_mask(array, background_value(array))
    low, high = np.percentile(array[head], [0.1, 99.8])
    low = min(float(low), 0.0)
    unit = np.where(head, np.clip((array - low) / (high - low), 0, 1.2), 0).astype(np.float32)
    if random.random() < 0.6:
        unit **= np.float32(np.exp(random.normal(0, 0.25)))
    if random.random() < 0.6:  # the coil: a field of second order
        axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in unit.shape), indexing="ij", sparse=True)
        field = sum(np.float32(random.normal(0, 0.2)) * x for x in axes)
        field = field + sum(np.float32(random.normal(0, 0.15)) * axes[a] * axes[b] for a in range(3) for b in range(a, 3))
        unit = unit * np.exp(np.clip(field, -0.6, 0.6))
    if random.random() < 0.4:
        sigma, in_air = np.float32(random.uniform(0, 0.05)), random.random() < 0.5
        real, imaginary = (random.standard_normal(unit.shape, dtype=np.float32) * sigma for _ in range(2))
        unit = np.where(head | in_air, np.hypot(unit + real, imaginary), unit)
    factors = np.ones(3, int)
    choice = random.random()
    if choice < 0.3:  # thick slices of any orientation
        factors[random.integers(3)] = max(1, round(random.uniform(2, 5) / spacing.min()))
    elif choice < 0.5:
        factors[:] = np.maximum(1, np.round(random.uniform(2, 4) / spacing))
    if factors.max() > 1:
        unit, head, spacing = thinned(unit, factors), thinned(head.astype(np.float32), factors) > 0.5, spacing * factors
    if random.random() < 0.3:  # a part of the head only
        shown = np.flatnonzero(head.any(axis=(1, 2)))
        first, last = random.uniform(0, 0.4), random.uniform(0.65, 1)
        part = slice(shown[int(first * len(shown))], shown[min(int(last * len(shown)), len(shown) - 1)] + 1)
        if (part.stop - part.start) * spacing[0] > 30:
            unit, head = unit[part], head[part]
    if random.random() < 0.3:  # z-scores, with air at 0 or below everything
        unit = (unit - unit[head].mean()) / unit[head].std()
        unit = np.where(head, unit, 0 if random.random() < 0.5 else unit.min())
    return on_grid(np.ascontiguousarray(unit, dtype=np.float32), spacing)


def thinned(array: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Means over blocks of voxels."""
    k, j, i = (n // f for n, f in zip(array.shape, factors, strict=True))
    array = array[: k * factors[0], : j * factors[1], : i * factors[2]]
    return array.reshape(k, factors[0], j, factors[1], i, factors[2]).mean(axis=(1, 3, 5))


def random_sequences(random: np.random.Generator) -> dict[str, PulseSequence]:
    """Pulse sequences as scanners use them; T1 by spin echo or after an inversion (MPRAGE)."""
    spin_echo = PulseSequence(random.uniform(400, 700), random.uniform(8, 15))
    inversion = PulseSequence(random.uniform(1700, 2500), random.uniform(2, 5), random.uniform(800, 1050))
    repetition, fluid = random.uniform(8000, 11000), TISSUES["csf"].t1_ms
    null = fluid * (np.log(2) - np.log1p(np.exp(-repetition / fluid)))
    return {
        "T1": spin_echo if random.random() < 0.5 else inversion,
        "T2": PulseSequence(random.uniform(3000, 7000), random.uniform(75, 120)),
        "PD": PulseSequence(random.uniform(2000, 5000), random.uniform(8, 30)),
        "FLAIR": PulseSequence(repetition, random.uniform(80, 140), null * random.uniform(0.95, 1.05)),
    }


def real_images(root: Path) -> Iterator[tuple[str, str, str, Volume, np.ndarray | None]]:
    """(data set, subject, modality, volume as read, brain mask on the axial grid)."""
    for path in sorted(root.glob("*/*/*.nii.gz")):
        dataset, subject, image = path.parts[-3], path.parts[-2], path.name.removesuffix(".nii.gz")
        if image not in IMAGES or dataset not in (*FITTED, *SCORED_ONLY):
            continue
        masks = [path.with_name(f"{name}.nii.gz") for name in MASKS] if dataset in ("nichart", "templates") else []
        mask = next((axial(read_volume(m)).array > 0.5 for m in masks if m.exists()), None)
        yield dataset, subject, image, read_volume(path), mask


def phantoms(root: Path) -> Iterator[tuple[str, str, Volume]]:
    """(label map, modality, volume) of heads and brains at 2 mm."""
    for path in sorted(root.glob("labelmaps/*/labels.nii.gz")):
        tissues = tissue_maps_from_labels(read_volume(path), downsample=2)
        for n in range(PHANTOMS):
            seed = crc32(f"{path.parent.name} {n}".encode())
            random = np.random.default_rng(seed)
            spec = PhantomSpec(
                seed=seed, bias=random.uniform(0, 0.6), noise=random.uniform(0.005, 0.05),
                lesions=int(random.integers(0, 12)), skull_stripped=bool(random.random() < 0.4),
            )  # fmt: skip
            for modality, volume in simulate(tissues, spec, sequences=random_sequences(random)).images.items():
                yield path.parent.name, modality, volume


def load_examples(data: Path, features: Path | None) -> list[Example]:
    """The examples of `features`, if that file is there; else those of `data`, which it then keeps."""
    if features is not None and features.exists():
        try:
            rows = json.loads(features.read_text(encoding="utf-8"))
            examples = [Example(*row[:4], np.array(row[4], np.float64).reshape(len(FEATURES))) for row in rows]
        except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
            sys.exit(f"{features} does not hold features of this script ({error}). Delete it to have it made anew from --data.")
    else:
        if not data.is_dir():
            sys.exit(f"{data} is not a folder. Give --data the folder that holds <data set>/<subject>/<modality>.nii.gz.")
        examples = collect(data)
        if features is not None:
            rows = [[e.dataset, e.subject, e.image, e.how, e.values.tolist()] for e in examples]
            write_text(features, json.dumps(rows))
    missing = [name for name in NAMED if not any(e.modality == name and e.dataset in REAL for e in examples)]
    if missing:
        sys.exit(f"{data} has no real {' and no '.join(missing)} image of {', '.join(REAL)}. Check --data (and --features).")
    return examples


def collect(root: Path) -> list[Example]:
    """All examples; prints those in which no head was found."""
    found: list[Example] = []

    def add(dataset: str, subject: str, image: str, how: str, volume: Volume) -> None:
        values = contrast_features(volume)
        if values is None:
            print(f"no features: {dataset}/{subject}/{image} {how}", flush=True)
        else:
            found.append(Example(dataset, subject, image, how, values))

    for dataset, subject, image, volume, mask in real_images(root):
        random = np.random.default_rng(crc32(f"{dataset}/{subject}/{image}".encode()))
        add(dataset, subject, image, "original", volume)
        plain = axial(volume)
        if mask is not None:
            add(dataset, subject, image, "stripped", stripped(plain, mask))
        for _ in range(VARIATIONS):
            add(dataset, subject, image, "varied", varied(plain, mask, random))
    for subject, modality, volume in phantoms(root):
        random = np.random.default_rng(crc32(f"{subject} {modality} {volume.name}".encode()))
        add("phantoms", subject, modality, "original", volume)
        for _ in range(2):
            add("phantoms", subject, modality, "varied", varied(axial(volume), None, random))
    return found


# --- Fit -----------------------------------------------------------------------------------------------------------


def fit(examples: list[Example]) -> dict[str, np.ndarray]:
    """Multinomial logistic regression with a ridge.

    Within a modality, a data set counts as the square root of its number of images.
    """
    values = np.array([e.values for e in examples])
    classes = np.array([MODALITIES.index(e.modality) for e in examples])
    datasets = np.array([e.dataset for e in examples])
    weight = np.array([1 / np.sqrt(((datasets == d) & (classes == c)).sum()) for d, c in zip(datasets, classes, strict=True)])
    for c, name in enumerate(MODALITIES):
        weight[classes == c] *= SHARE.get(name, 1) / len(MODALITIES) / max(weight[classes == c].sum(), 1e-9)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scaled = (values - mean) / scale
    clipped = np.column_stack([np.clip(scaled, -CLIP, CLIP), np.ones(len(values))])
    shape = len(MODALITIES), clipped.shape[1]
    truth = np.eye(len(MODALITIES))[classes]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = flat.reshape(shape)
        scores = clipped @ matrix.T
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        ridge = matrix * ([1.0] * (shape[1] - 1) + [0.0])
        value = -(weight * np.log(shares[truth > 0] + 1e-12)).sum() + RIDGE * (ridge**2).sum()
        return value, (((shares - truth) * weight[:, None]).T @ clipped + 2 * RIDGE * ridge).ravel()

    matrix = minimize(loss, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B", options={"maxiter": 5000}).x.reshape(shape)
    centres = np.array([scaled[classes == c].mean(axis=0) for c in range(shape[0])])
    precision = np.linalg.inv(np.cov((scaled - centres[classes]).T) + 0.01 * np.eye(len(FEATURES)))
    offsets = scaled[:, None] - centres
    unusual = np.sqrt(np.einsum("ncf,fg,ncg->nc", offsets, precision, offsets).min(axis=1))
    return {
        "mean": mean, "scale": scale, "weights": matrix[:, :-1], "bias": matrix[:, -1],
        "centres": centres, "precision": precision, "most_unusual": np.percentile(unusual, USUAL),
    }  # fmt: skip


def judge(examples: list[Example], held_out: list[str]) -> list[tuple[str, Example, ModalityGuess]]:
    """(group, example, guess) by coefficients that were fitted without the example's data set (for phantoms also: without
    its label map); for held-out patients and sets that are only scored, by the final ones."""
    learnt = [e for e in examples if is_fitted(e, held_out)]
    judged = []
    for dataset in FITTED:
        coefficients = fit([e for e in learnt if e.dataset != dataset])
        judged += [(dataset, e, guess_from_features(e.values, coefficients)) for e in learnt if e.dataset == dataset]
    for subject in dict.fromkeys(e.subject for e in learnt if e.dataset == "phantoms"):
        left_out = [e for e in learnt if (e.dataset, e.subject) == ("phantoms", subject)]
        coefficients = fit([e for e in learnt if e not in left_out])
        judged += [("phantoms of another head", e, guess_from_features(e.values, coefficients)) for e in left_out]
    coefficients = fit(learnt)
    for e in examples:
        if not is_fitted(e, held_out):
            group = f"held out: {e.dataset}" if e.dataset in FITTED else f"scored only: {e.dataset}"
            judged.append((group, e, guess_from_features(e.values, coefficients)))
    return judged


def is_fitted(example: Example, held_out: list[str]) -> bool:
    """Whether the final coefficients may learn from this example."""
    return example.dataset in FITTED and f"{example.dataset}/{example.subject}" not in held_out


# --- Report --------------------------------------------------------------------------------------------------------


def report(judged: list[tuple[str, Example, ModalityGuess]]) -> str:
    """Markdown tables: how often the guess is right, and what the input check makes of it."""
    lines = ["| data | image | as they are | right | unsure | wrong | varied | right | unsure | wrong | odds of the worst |"]
    lines.append("|" + " --- |" * 11)
    for group, image in dict.fromkeys((group, e.image) for group, e, _ in judged):
        rows = [(e, g) for name, e, g in judged if (name, e.image) == (group, image)]
        cells = []
        for kept in ([(e, g) for e, g in rows if e.how != "varied"], [(e, g) for e, g in rows if e.how == "varied"]):
            right = sum(g.modality == e.modality for e, g in kept)
            wrong = sum(g.speaks_against(e.modality) for e, g in kept)
            cells += [len(kept), right, len(kept) - right - wrong, wrong]
        worst = max(g.odds_against(e.modality) for e, g in rows)
        lines.append(f"| {group} | {image} | {' | '.join(map(str, cells))} | {worst:.0f} |")
    real = [(e, g) for _, e, g in judged if e.dataset != "phantoms"]
    lines += ["", "| image | model wants | as they are | refused | warned | varied | refused | warned |", "|" + " --- |" * 8]
    for image in IMAGES:
        for wanted in NAMED:
            cells = []
            for varied_ones in (False, True):
                guesses = [g for e, g in real if e.image == image and (e.how == "varied") == varied_ones]
                refused = sum(g.is_sure_not(wanted) for g in guesses)
                cells += [len(guesses), refused, sum(g.speaks_against(wanted) for g in guesses) - refused]
            lines.append(f"| {image} | {wanted} | {' | '.join(map(str, cells))} |")
    lines += ["", f"Largest odds of a wrong name on a real image: {max(g.odds_against(e.modality) for e, g in real):.1f}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Collect, score, fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--held-out", nargs="*", default=[], help="<dataset>/<subject>, never fitted on")
    parser.add_argument("--features", type=Path, help="keep the examples' features in this file, and take them from it")
    parser.add_argument("--output", type=Path, help="coefficients to write")
    parser.add_argument("--report", type=Path, help="tables to write")
    values = parser.parse_args()
    try:
        run(values)
    except ImtError as error:  # an image that cannot be read, a file that cannot be written
        sys.exit(str(error))


def run(values: argparse.Namespace) -> None:
    """What the arguments say."""
    examples = load_examples(values.data, values.features)
    text = report(judge(examples, values.held_out))
    print(text)
    if values.report:
        write_text(values.report, text)
    if values.output:
        learnt = [e for e in examples if is_fitted(e, values.held_out)]
        fitted = fit(learnt)
        coefficients = {name: np.round(fitted[name], 6).tolist() for name in COEFFICIENTS}
        counts = {f"{name}: {terms}": sum(e.dataset == name for e in learnt) for name, terms in FITTED.items()}
        content = {"modalities": list(MODALITIES), "features": list(FEATURES), **coefficients, "fitted_on": counts}
        content["held_out"] = sorted(values.held_out)
        write_text(values.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
