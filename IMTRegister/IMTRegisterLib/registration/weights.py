"""Which shares of the two modalities' deformations a run needs, and so which registrations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from IMTCore.label_names import LabelNames

from .settings import AUTO, RegistrationSettings, StructureWeights

LOCAL = "local"
Share = float | str  # of the given modality: a number, AUTO (one for the pair) or LOCAL (one for each voxel)


@dataclass(frozen=True)
class WeightPlan:
    """The shares of one run.

    Attributes:
        main: for the background, the transforms that are written and the warped images.
        of_code: label code -> share, where structures have shares of their own; empty otherwise.
        joint: one registration with both modalities takes the place of two.
    """

    main: Share
    of_code: Mapping[int, float]
    joint: bool = False

    @property
    def shares(self) -> list[Share]:
        """All different shares, the main one first."""
        return list(dict.fromkeys([self.main, *self.of_code.values()]))

    @property
    def needs_given(self) -> bool:
        """Whether the given modality's own deformation takes part."""
        return not self.is_joint and any(share != 0 for share in self.shares)

    @property
    def needs_second(self) -> bool:
        """Whether the second modality's own deformation takes part."""
        return not self.is_joint and any(share != 1 for share in self.shares)

    @property
    def is_joint(self) -> bool:
        """Whether one registration has both modalities as channels: not where one has all the weight."""
        return self.joint and self.main not in (0, 1)

    def groups(self, codes: Iterable[int]) -> dict[Share, list[int]]:
        """The codes that each share's transforms carry."""
        result: dict[Share, list[int]] = {}
        for code in codes:
            result.setdefault(self.of_code.get(code, self.main), []).append(code)
        return result


def plan_weights(settings: RegistrationSettings, names: LabelNames, codes: Iterable[int]) -> WeightPlan:
    """The plan for these settings; `names` are all the atlases' labels, `codes` those to carry over.

    Raises:
        BadInput: weights for structures that the atlases do not have, or none for one that they have.
    """
    weight = settings.weight
    if settings.fusion == "none":
        return WeightPlan(1.0, {})
    if settings.fusion == "local":
        return WeightPlan(LOCAL, {})
    if isinstance(weight, StructureWeights):
        return WeightPlan(float(weight.background), weight.by_code(names, codes))
    return WeightPlan(AUTO if weight == AUTO else float(weight), {}, settings.fusion == "joint")
