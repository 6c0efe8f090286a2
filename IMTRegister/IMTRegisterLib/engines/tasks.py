"""What an engine is asked for: one registration of one pair of heads, in one or several modalities."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from IMTCore.errors import BadInput

from ..deformations.transforms import Transform

STAGES = ("linear", "deformable")


@dataclass(frozen=True)
class Channel:
    """A pair of images of one modality; `weight` is its share of the metric, against the other channels'."""

    fixed: Path
    moving: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Task:
    """One registration.

    Attributes:
        stage: "linear" (rigid, then affine) or "deformable".
        channels: image files that `read_volume` reads. All fixed images are on one grid, all moving ones on another.
        initial: where to begin. The deformable stage keeps its matrix, and starts from its field (a warm start). Without
            one, the linear stage begins with the coordinates as they are or with the centres of mass on one another,
            whichever gives more mutual information.
        fixed_mask, moving_mask: where the images count (above 0), on their grids.
        dimension: 3; or 2 to register slice k of the fixed image (array axis 0) to slice k of the moving one, each by
            itself, as Yang et al. 2020 did. The images then have the same numbers of voxels. Slices that show less than
            1 % of foreground, whose foregrounds do not meet, or whose linear result matches far less than its start,
            keep their start.
        seed: the same task with the same seed gives the same bits with one thread; with more threads ANTs and Elastix
            may differ in the order of sums, which is far below a voxel.
    """

    stage: str
    channels: tuple[Channel, ...]
    initial: Transform = field(default_factory=Transform)
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    dimension: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for right, message in (
            (self.stage in STAGES, f"the stage {self.stage!r} is none of {', '.join(STAGES)}"),
            (len(self.channels) > 0, "there is no channel"),
            (all(0 < channel.weight < np.inf for channel in self.channels), "a channel's weight must be above 0"),
            (self.dimension in (2, 3), f"dimension must be 2 or 3, not {self.dimension}"),
            (0 <= self.seed < 2**31 - 1, f"the seed must be a whole number from 0 to 2147483646, not {self.seed}"),
            (
                self.stage == "deformable" or self.initial.displacement is None or self.dimension == 2,
                "the linear stage cannot begin with a displacement field",
            ),
        ):
            if not right:
                raise BadInput(f"Bad registration task: {message}.")
