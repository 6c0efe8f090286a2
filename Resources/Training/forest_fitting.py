"""Fit `IMTCore.forest.RegressionForest` with scikit-learn: draw voxels, grow trees, take them over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from losses import AIR, BACKGROUND
from training_data import Pair

from IMTCore.forest import LEAF, RegressionForest
from IMTCore.forest_features import FeatureSpec, VolumeFeatures


@dataclass(frozen=True)
class GrowthSpec:
    """How trees are grown.

    Attributes:
        trees: their number.
        leaf: least voxels in a leaf.
        depth: splits from the root to the deepest leaf, at most.
        share: share of the features tried at each split.
        seed: of the bootstrap and of the features tried.
        jobs: trees grown at once; -1 for as many as there are cores. The trees are the same for any.
    """

    trees: int = 30
    leaf: int = 8
    depth: int = 64
    share: float = 1 / 3
    seed: int = 0
    jobs: int = -1


# --- Voxels to learn from ------------------------------------------------------------------------------------------


def learnable(source: np.ndarray, target: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Where the target may be learned, boolean [k, rows, columns].

    That is in the source's foreground, on usable slices, and not where the target is background amid the head: there the
    field of view was cut off, or the two brain masks differ.

    Args:
        source, target: [k, rows, columns] in [-1, 1].
        usable: [k] boolean.
    """
    return (source > -1) & usable[:, None, None] & ~((source > AIR) & (target < BACKGROUND))


@dataclass
class Sample:
    """The voxels drawn from one subject.

    Attributes:
        name: `<dataset>/<subject>`.
        images: the source, float32 [k, rows, columns] in [-1, 1].
        spacing: its distances along k, rows and columns in mm.
        kji: where the voxels are, three int64 index tensors (voxels,).
        values: the target there, float32 (voxels,) in [-1, 1].
    """

    name: str
    images: Tensor
    spacing: tuple[float, float, float]
    kji: tuple[Tensor, Tensor, Tensor]
    values: np.ndarray

    def features(self, spec: FeatureSpec, translation: Tensor | None = None) -> np.ndarray:
        """(voxels, features) float32 of the drawn voxels; with `translation`, like `images`, those of both images."""
        images = [self.images] if translation is None else [self.images, translation]
        return VolumeFeatures(images, self.spacing, spec).at(self.kji).T.numpy()


def draw(pair: Pair, target: str, voxels: int, seed: list[int]) -> Sample | None:
    """At most `voxels` voxels of a subject, each once; None if it has none to learn from."""
    truth = pair.targets[target].astype(np.float32)
    there = np.flatnonzero(learnable(pair.source.images, truth, pair.usable[target]))
    if not there.size:
        return None
    chosen = np.sort(np.random.default_rng(seed).choice(there, min(voxels, there.size), replace=False))
    k, j, i = (torch.from_numpy(index) for index in np.unravel_index(chosen, truth.shape))
    return Sample(pair.name, torch.from_numpy(pair.source.images), pair.source.spacing, (k, j, i), truth.ravel()[chosen])


# --- Trees ---------------------------------------------------------------------------------------------------------


def stored_tree(tree: object) -> dict[str, np.ndarray]:
    """A fitted scikit-learn tree (`estimator.tree_`) in `RegressionForest`'s form: feature, child, number, each (nodes,)."""
    order, level = [np.zeros(1, int)], np.zeros(1, int)
    while level.size:
        split = level[tree.children_left[level] >= 0]
        level = np.stack([tree.children_left[split], tree.children_right[split]], axis=1).ravel()
        order.append(level)
    old = np.concatenate(order)
    new = np.empty_like(old)
    new[old] = np.arange(old.size)
    leaf = tree.children_left[old] < 0
    threshold = tree.threshold[old].astype(np.float32)
    # Rounded down: then float32 features compare with it as they do with scikit-learn's float64.
    threshold = np.where(threshold > tree.threshold[old], np.nextafter(threshold, np.float32(-np.inf)), threshold)
    return {
        "feature": np.where(leaf, LEAF, tree.feature[old]).astype(np.int16),
        "child": np.where(leaf, 0, new[tree.children_left[old]]).astype(np.int32),
        "number": np.where(leaf, tree.value[old, 0, 0], threshold).astype(np.float32),
    }


def grow(growth: GrowthSpec, features: list[np.ndarray], values: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Fit scikit-learn's random forest and take over its trees.

    Args:
        growth: how.
        features: per subject, (voxels, features) float32.
        values: per subject, (voxels,).
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        growth.trees,
        min_samples_leaf=growth.leaf,
        max_depth=growth.depth,
        max_features=growth.share,
        n_jobs=growth.jobs,
        random_state=growth.seed,
    )
    forest.fit(np.concatenate(features), np.concatenate(values))
    return [stored_tree(estimator.tree_) for estimator in forest.estimators_]


def assemble(spec: FeatureSpec, forests: list[list[dict[str, np.ndarray]]]) -> RegressionForest:
    """The forest of one or two passes that these trees make."""
    nodes = max(len(tree["feature"]) for trees in forests for tree in trees)
    result = RegressionForest(len(forests[0]), nodes, len(forests), spec.step_mm, spec.neighbours, spec.levels)
    for n, trees in enumerate(forests):
        for t, tree in enumerate(trees):
            for name, content in tree.items():
                getattr(result, name)[n, t, : len(content)] = torch.from_numpy(content)
    result.check()
    return result


def first_translations(
    growth: GrowthSpec, spec: FeatureSpec, samples: list[Sample], features: list[np.ndarray], folds: int
) -> list[Tensor]:
    """Each subject's translation [k, rows, columns] by a forest fitted without the subject's fold."""
    folds = min(folds, len(samples))
    translations: list[Tensor] = [torch.empty(0)] * len(samples)
    for fold in range(folds):
        others = [n for n in range(len(samples)) if n % folds != fold]
        forest = assemble(spec, [grow(growth, [features[n] for n in others], [samples[n].values for n in others])])
        for n in range(fold, len(samples), folds):
            translations[n] = forest.translate_volume(samples[n].images, samples[n].spacing)
        print(f"auto-context: fold {fold + 1} of {folds}", flush=True)
    return translations


def fit_forest(growth: GrowthSpec, spec: FeatureSpec, samples: list[Sample], folds: int = 0) -> RegressionForest:
    """Fit the first forest, and with `folds` (2 or more) the second, which sees the first's translation too."""
    values = [sample.values for sample in samples]
    features = [sample.features(spec) for sample in samples]
    forests = [grow(growth, features, values)]
    print(f"first forest: {sum(map(len, values))} voxels, {spec.count(1)} features", flush=True)
    if folds:
        translations = first_translations(growth, spec, samples, features, folds)
        both = [sample.features(spec, image) for sample, image in zip(samples, translations, strict=True)]
        forests.append(grow(growth, both, values))
        print(f"second forest: {spec.count(2)} features", flush=True)
    return assemble(spec, forests)
