"""Two baselines that any translator must beat: an intensity look-up table and a random forest on local features.

Both see volumes in axial orientation, scaled as the scores are (divided by the 99.5th foreground percentile, clipped
to 0–1), and leave the background 0.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

TABLE_BINS = 256
SMOOTHINGS_VOXELS = (1, 2, 4, 8)


class LookUpTable:
    """Mean target intensity for each of 256 source intensities."""

    def fit(self, sources: list[np.ndarray], targets: list[np.ndarray]) -> LookUpTable:
        """Learn from paired volumes [k, j, i] in 0–1; background (source 0) does not count."""
        sums, counts = np.zeros(TABLE_BINS), np.zeros(TABLE_BINS)
        for source, target in zip(sources, targets, strict=True):
            head = source > 0
            index = np.minimum((source[head] * TABLE_BINS).astype(int), TABLE_BINS - 1)
            sums += np.bincount(index, target[head], TABLE_BINS)
            counts += np.bincount(index, minlength=TABLE_BINS)
        known = counts > 0
        self.table = np.interp(np.arange(TABLE_BINS), np.flatnonzero(known), sums[known] / counts[known])
        return self

    def predict(self, source: np.ndarray) -> np.ndarray:
        """Translate a volume [k, j, i] in 0–1."""
        index = np.minimum((source * TABLE_BINS).astype(int), TABLE_BINS - 1)
        return np.where(source > 0, self.table[index], 0)


def local_features(source: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Intensity, 6 neighbours, Gaussian smoothings at 1, 2, 4, 8 voxels, and position in the head's box (0–1).

    Args:
        source: [k, j, i] in 0–1.
        where: boolean [k, j, i], the voxels wanted.

    Returns:
        (voxels, 14) float32.
    """
    columns = [source[where]]
    for axis in range(3):
        for step in (-1, 1):
            columns.append(np.roll(source, step, axis)[where])
    columns += [gaussian_filter(source, sigma)[where] for sigma in SMOOTHINGS_VOXELS]
    for axis, index in enumerate(np.nonzero(where)):
        seen = np.flatnonzero((source > 0).any(axis=tuple(a for a in range(3) if a != axis)))
        columns.append((index - seen[0]) / max(seen[-1] - seen[0], 1))
    return np.stack(columns, axis=1).astype(np.float32)


class RandomForest:
    """scikit-learn's random-forest regression on `local_features`."""

    def __init__(self, trees: int = 30, voxels_per_subject: int = 40_000, leaf: int = 8, seed: int = 0) -> None:
        self.trees, self.voxels, self.leaf, self.seed = trees, voxels_per_subject, leaf, seed

    def fit(self, sources: list[np.ndarray], targets: list[np.ndarray]) -> RandomForest:
        """Learn from random foreground voxels of paired volumes [k, j, i] in 0–1."""
        from sklearn.ensemble import RandomForestRegressor

        random = np.random.default_rng(self.seed)
        features, values = [], []
        for source, target in zip(sources, targets, strict=True):
            head = np.flatnonzero(source > 0)
            chosen = np.zeros(source.size, bool)
            chosen[random.choice(head, min(self.voxels, head.size), replace=False)] = True
            chosen = chosen.reshape(source.shape)
            features.append(local_features(source, chosen))
            values.append(target[chosen])
        self.forest = RandomForestRegressor(self.trees, min_samples_leaf=self.leaf, n_jobs=-1, random_state=self.seed)
        self.forest.fit(np.concatenate(features), np.concatenate(values))
        return self

    def predict(self, source: np.ndarray) -> np.ndarray:
        """Translate a volume [k, j, i] in 0–1."""
        head = source > 0
        result = np.zeros(source.shape)
        result[head] = self.forest.predict(local_features(source, head))
        return result
