"""Random-forest regression of a target modality's intensities, voxel by voxel, without scikit-learn.

The baseline "RF" of Yang et al. 2020 (Table 1; their ref. 5, Jog et al.; also Jog et al. 2017, REPLICA). A second forest
may follow the first and see its translation too: auto-context (Tu and Bai 2010, IEEE TPAMI 32:1744-1757).

Forests are fitted by Resources/Training/train_forest.py. Their trees are plain tensors, so that they are stored in
safetensors, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from .errors import Cancelled
from .forest_features import FeatureSpec, VolumeFeatures
from .progress import never, quiet

MAX_DEPTH = 128  # no tree that training grows is nearly as deep; without a limit a hostile one could take for ever
LEAF = -1
# Voxels worked on at once. On a CPU their features are to stay in its cache.
CHUNK = {"cpu": 1 << 14}
OTHER_CHUNK = 1 << 19
SORT_OUT = 4  # after so many levels those who have reached a leaf are left out


class RegressionForest(nn.Module):
    """One forest, or two of which the second also sees the first's translation (auto-context).

    The trees are buffers [passes, trees, nodes], each tree's nodes in breadth-first order from 0, its root; the rest of a
    smaller tree's row is leaves that nothing leads to:
        feature: int16, the feature that a split looks at; -1 for a leaf.
        child: int32, the child for values up to the threshold; the other child is the next node. 0 for a leaf.
        number: float32, a split's threshold, or a leaf's value.

    Args:
        trees: trees of each forest.
        nodes: nodes of the largest tree.
        passes: number of forests, 1 or 2.
        step_mm, neighbours, levels: the features, see `FeatureSpec`.

    Raises:
        ValueError: for a number of passes or neighbours that is not possible.
    """

    works_on = "volume"
    stride = 1

    def __init__(
        self, trees: int, nodes: int, passes: int = 1, step_mm: float = 1.0, neighbours: int = 6, levels: int = 4
    ) -> None:
        super().__init__()
        if passes not in (1, 2):
            raise ValueError(f"passes must be 1 or 2, not {passes}")
        self.trees, self.nodes, self.passes = trees, nodes, passes
        self.spec = FeatureSpec(float(step_mm), neighbours, levels)
        shape = (passes, trees, nodes)
        self.register_buffer("feature", torch.full(shape, LEAF, dtype=torch.int16))
        self.register_buffer("child", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("number", torch.zeros(shape, dtype=torch.float32))

    @property
    def arguments(self) -> dict[str, int | float]:
        """What builds a forest of this shape: a card's network.arguments."""
        spec = {"step_mm": self.spec.step_mm, "neighbours": self.spec.neighbours, "levels": self.spec.levels}
        return {"trees": self.trees, "nodes": self.nodes, "passes": self.passes, **spec}

    def check(self) -> None:
        """Make sure that every descent ends in a leaf and reads nothing out of bounds.

        Raises:
            ValueError: if a feature is none that the forest has, a child does not lie behind its parent, so many nodes are
                reached that some have two parents, a tree is deeper than 128, or a number is not finite.
        """
        if not torch.isfinite(self.number).all():
            raise ValueError("a threshold or value is not finite")
        features = torch.tensor([self.spec.count(n + 1) for n in range(self.passes)], device=self.feature.device)
        if (self.feature < LEAF).any() or (self.feature >= features[:, None, None]).any():
            raise ValueError("a split looks at a feature that there is not")
        inner = self.feature != LEAF
        own = torch.arange(self.nodes, device=self.child.device)
        if (inner & ((self.child <= own) | (self.child >= self.nodes - 1))).any():
            raise ValueError("a child does not lie behind its parent, within the tree")
        inner, child = inner.flatten(), self.child.flatten()
        roots = torch.arange(self.passes * self.trees, device=child.device) * self.nodes
        level, first = roots, roots
        visited = 0
        for _ in range(MAX_DEPTH + 1):
            visited += len(level)
            if visited > len(inner):
                raise ValueError("a node has two parents")
            split = inner[level]
            first = first[split].repeat(2)
            below = child[level[split]]
            level = torch.cat([below, below + 1]) + first
            if not len(level):
                return
        raise ValueError(f"a tree is deeper than {MAX_DEPTH}")

    def predict(self, n: int, features: Tensor) -> Tensor:
        """The mean over the trees of forest `n` (0 or 1): features (features, voxels) float32 → values (voxels,)."""
        return _mean_of_trees(_tables(self, n), features)

    def translate_volume(
        self,
        images: Tensor,
        spacing_kji: tuple[float, float, float],
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> Tensor:
        """Translate a whole volume.

        Args:
            images: float32 [k, rows, columns] in [-1, 1], anatomical orientation, -1 in the background.
            spacing_kji: its distances in mm.
            progress: told how many of the k slices are done; of two passes, half of them in each.
            cancelled: asked between chunks of slices.

        Returns:
            The translation, of the same shape, in [-1, 1], and -1 where `images` is background.

        Raises:
            Cancelled: if `cancelled` says so.
        """
        head = images > -1
        counts = head.sum(dim=(1, 2)).tolist()
        known = [images]
        for n in range(self.passes):
            features = VolumeFeatures(known, spacing_kji, self.spec)
            groups = slice_groups(counts, CHUNK.get(images.device.type, OTHER_CHUNK))
            result = torch.full_like(images, -1.0)
            for (first, last), values in zip(groups, self._values(n, features, head, groups, cancelled), strict=True):
                result[first:last][head[first:last]] = values
                progress((n * len(images) + last) // self.passes)
            known = [images, result]
        return result

    def _values(
        self, n: int, features: VolumeFeatures, head: Tensor, groups: list[tuple[int, int]], cancelled: Callable[[], bool]
    ) -> Iterator[Tensor]:
        """What forest `n` says of the head's voxels of each group of slices, on as many threads as torch has."""
        tables = _tables(self, n)

        def work(group: tuple[int, int]) -> Tensor:
            with torch.inference_mode():
                k, j, i = head[slice(*group)].nonzero(as_tuple=True)
                return _mean_of_trees(tables, features.at((k + group[0], j, i))).clamp_(-1, 1)

        threads = torch.get_num_threads() if head.device.type == "cpu" else 1
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(work, group) for group in groups]
            try:
                for future in waiting:
                    if cancelled():
                        raise Cancelled("Cancelled: nothing was written.")
                    yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)


def slice_groups(counts: list[int], most: int) -> list[tuple[int, int]]:
    """Neighbouring slices in groups (first, end) of at most `most` voxels, or of a single slice."""
    groups, first, voxels = [], 0, 0
    for k, count in enumerate(counts):
        if k > first and voxels + count > most:
            groups.append((first, k))
            first, voxels = k, 0
        voxels += count
    return [*groups, (first, len(counts))]


def _tables(forest: RegressionForest, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Forest `n` for the descent: feature, first child and threshold (trees, nodes), and the leaves' values.

    A leaf is its own child, with a threshold above everything: who is there stays there.
    """
    feature, child, number = forest.feature[n].long(), forest.child[n].long(), forest.number[n]
    leaf = feature == LEAF
    own = torch.arange(forest.nodes, device=child.device)
    return (
        feature.masked_fill(leaf, 0),
        torch.where(leaf, own, child),
        number.masked_fill(leaf, float("inf")),
        torch.where(leaf, number, 0),
    )


def _mean_of_trees(tables: tuple[Tensor, Tensor, Tensor, Tensor], features: Tensor) -> Tensor:
    features = features.contiguous()
    voxels = features.shape[1]
    flat, everyone = features.reshape(-1), torch.arange(voxels, device=features.device)
    total = torch.zeros(voxels, device=features.device)
    for feature, child, threshold, value in zip(*tables, strict=True):
        ends = torch.empty_like(everyone)
        who, node = everyone, torch.zeros_like(everyone)  # who is still on the way, and where
        for level in range(1, MAX_DEPTH + 1):
            seen = flat.index_select(0, feature.index_select(0, node).mul_(voxels).add_(who))
            below = child.index_select(0, node).add_(seen > threshold.index_select(0, node))
            if level % SORT_OUT == 0:
                going = below != node
                ends[who] = below
                going = going.nonzero().flatten()
                if not len(going):
                    break
                who, below = who.index_select(0, going), below.index_select(0, going)
            node = below
        total += value.index_select(0, ends)
    return total / len(tables[0])
