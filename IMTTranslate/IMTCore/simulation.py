"""Seeded brain phantoms in several contrasts, with exact truth: labels, lesions, landmarks and the transform.

A phantom starts from tissue maps, is warped, and is imaged by the spin-echo signal equations. Its truth is known and
not estimated, so that translation, registration and segmentation can be scored without an error of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .errors import BadInput
from .tissue_maps import TissueMaps
from .tissues import BRAIN, SEQUENCES, TISSUES, PulseSequence
from .volume import Geometry, Volume
from .warps import SLAB, Warp, random_stream, random_warp, slabs, spline_field, voxel_offsets

BIAS_SMOOTHNESS_MM = 80.0  # a receive coil's field varies over the head, not over a gyrus
INTENSITY_SCALE = 1000.0  # a signal of 1 in the stored images


@dataclass(frozen=True)
class PhantomSpec:
    """What to simulate. The same values give the same bits.

    Attributes:
        seed: ≥ 0. Warp, lesions and each modality draw from streams of their own: leaving one out changes no other.
        modalities: keys of the sequences.
        warp_mm: length of the largest displacement of the smooth warp; 0 for none.
        smoothness_mm: distance of its control points; at least two voxels, and several times `warp_mm`.
        rotation_deg: rotation vector (axis × angle) about L, P, S through the grid's centre, output → source.
        translation_mm: LPS, output → source, after the rotation.
        bias: range of the multiplicative bias field; 0.2 is 0.9 to 1.1 (BrainWeb's 20 %).
        noise: Rician sigma over the largest signal of CSF, grey and white in that modality (0.03: BrainWeb's 3 %).
        lesions: number of lesions, centred in white matter and growing in it only; they may touch.
        lesion_radius_mm: smallest and largest radius.
        skull_stripped: set everything outside the brain to 0, as stripped data sets have it.
    """

    seed: int = 0
    modalities: tuple[str, ...] = ("T1", "T2", "PD", "FLAIR")
    warp_mm: float = 4.0
    smoothness_mm: float = 30.0
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    translation_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bias: float = 0.2
    noise: float = 0.03
    lesions: int = 0
    lesion_radius_mm: tuple[float, float] = (2.0, 6.0)
    skull_stripped: bool = False

    def __post_init__(self) -> None:
        low, high = self.lesion_radius_mm
        rigid = np.array([*self.rotation_deg, *self.translation_mm], dtype=np.float64)
        for right, message in (
            (isinstance(self.seed, int | np.integer) and self.seed >= 0, f"seed must be a whole number from 0, not {self.seed}"),
            (len(self.modalities) > 0, "modalities must name at least one"),
            (0 <= self.warp_mm < np.inf, f"warp_mm must be 0 or more, not {self.warp_mm}"),
            (0 < self.smoothness_mm < np.inf, f"smoothness_mm must be positive, not {self.smoothness_mm}"),
            (rigid.shape == (6,) and np.isfinite(rigid).all(), "rotation_deg and translation_mm must be 3 finite numbers each"),
            (0 <= self.bias < 2, f"bias must be from 0 to below 2, not {self.bias}"),
            (0 <= self.noise < np.inf, f"noise must be 0 or more, not {self.noise}"),
            (isinstance(self.lesions, int | np.integer) and self.lesions >= 0, f"lesions must be a count, not {self.lesions}"),
            (0 < low <= high < np.inf, f"lesion_radius_mm must be positive and ordered, not {self.lesion_radius_mm}"),
        ):
            if not right:
                raise BadInput(f"Bad phantom settings: {message}.")


@dataclass(frozen=True)
class Phantom:
    """The images of one phantom and its truth, all on one grid.

    `images`: modality → float32. `labels`: int16, the source's codes carried by nearest neighbour (lesions do not
    change them). `lesions`: uint8 mask, where lesion is half or more. `landmarks_lps` (N, 3) mm: the given landmarks'
    places in the phantom.
    """

    spec: PhantomSpec
    images: dict[str, Volume]
    labels: Volume
    lesions: Volume
    landmarks_lps: np.ndarray
    warp: Warp

    @property
    def displacement_lps(self) -> np.ndarray:
        """(K, J, I, 3) float32 mm, output → source."""
        return self.warp.displacement_lps


def simulate(
    tissues: TissueMaps,
    spec: PhantomSpec,
    landmarks_lps: np.ndarray | None = None,
    sequences: Mapping[str, PulseSequence] = SEQUENCES,
) -> Phantom:
    """Warp `tissues`, put lesions in, and image them with each of the spec's `sequences`.

    Args:
        landmarks_lps: (N, 3) points of the source, mm, to carry along.

    Raises:
        BadInput: an unknown modality, a warp that folds or is too fine for the grid, no white matter for lesions.
    """
    for modality in spec.modalities:
        if modality not in sequences:
            raise BadInput(f"Unknown modality {modality!r}: use some of {', '.join(sequences)}.")
    geometry = tissues.geometry
    warp = random_warp(geometry, spec.seed, spec.warp_mm, spec.smoothness_mm, spec.rotation_deg, spec.translation_mm)
    maps, labels = _carry(tissues, warp)
    if spec.lesions:
        _grow_lesions(maps, geometry, spec)
    air = np.zeros(geometry.shape, np.float32)
    lesions = maps.get("lesion", air) >= 0.5
    brain = sum((maps.get(name, air) for name in BRAIN), air) >= 0.5
    images = {}
    for modality in spec.modalities:
        image = _image(maps, sequences[modality], geometry, spec, modality)
        images[modality] = Volume(image * brain if spec.skull_stripped else image, geometry, f"phantom {spec.seed} {modality}")
    return Phantom(
        spec,
        images,
        Volume(labels, geometry, f"phantom {spec.seed} labels"),
        Volume(lesions.astype(np.uint8), geometry, f"phantom {spec.seed} lesions"),
        warp.to_output(np.zeros((0, 3)) if landmarks_lps is None else landmarks_lps),
        warp,
    )


def _carry(tissues: TissueMaps, warp: Warp) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The maps (linear) and labels (nearest) as the output grid sees them; air comes in from beyond the source."""
    from scipy.ndimage import map_coordinates

    geometry = tissues.geometry
    maps = {name: np.empty(geometry.shape, np.float32) for name in tissues.maps}
    labels = np.empty(geometry.shape, np.int16)
    voxels = np.indices((SLAB, *geometry.shape[1:]), dtype=np.float64)
    for part, points in slabs(geometry):
        # Whole voxels plus the displacement, and not the point's own index: exact where nothing moves.
        k_j_i = voxel_offsets(geometry, warp.displacement_at(part, points)) + voxels[:, : len(points)]
        k_j_i[0] += part.start
        for name, share in tissues.maps.items():
            maps[name][part] = map_coordinates(share, k_j_i, order=1, mode="constant", output=np.float32)
        labels[part] = map_coordinates(tissues.labels, k_j_i, order=0, mode="constant")
    return maps, labels


def _grow_lesions(maps: dict[str, np.ndarray], geometry: Geometry, spec: PhantomSpec) -> None:
    """Turn white matter into lesion within random ellipsoids whose edge is one voxel soft; changes `maps`."""
    stream = random_stream(spec.seed, "lesions")
    white = maps.get("white", np.zeros(geometry.shape, np.float32)).copy()
    places = np.argwhere(white > 0.9)
    if not len(places):
        raise BadInput("There is no white matter on the maps to put lesions into. Set lesions to 0 or give a white map.")
    share = np.zeros(geometry.shape, np.float32)
    for _ in range(spec.lesions):
        centre, radius = places[stream.integers(len(places))], stream.uniform(*spec.lesion_radius_mm)
        axes, _ = np.linalg.qr(stream.standard_normal((3, 3)))
        stretch = np.exp(stream.uniform(-0.25, 0.25, 3))
        reach = np.ceil(1.3 * radius / geometry.spacing_mm[::-1] + 1).astype(int)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, geometry.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        offsets = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1) - centre
        distance = np.linalg.norm((offsets * geometry.spacing_mm[::-1]) @ axes / stretch, axis=-1)
        share[box] = np.maximum(share[box], np.clip((radius - distance) / geometry.spacing_mm.mean() + 0.5, 0, 1))
    maps["white"] = white * (1 - share)
    maps["lesion"] = maps.get("lesion", np.float32(0)) + white * share


def _image(
    maps: Mapping[str, np.ndarray], sequence: PulseSequence, geometry: Geometry, spec: PhantomSpec, modality: str
) -> np.ndarray:
    """[k, j, i] float32: the shares' mixed signal, times the bias field, with Rician noise."""
    image = np.zeros(geometry.shape, np.float32)
    for name, share in maps.items():
        image += np.float32(INTENSITY_SCALE * sequence.signal(TISSUES[name])) * share
    if spec.bias:
        bias = spline_field(geometry, BIAS_SMOOTHNESS_MM, 1, random_stream(spec.seed, f"bias {modality}"))[..., 0]
        image *= 1 + np.float32(spec.bias / 2) * bias / np.abs(bias).max()
    if spec.noise:
        stream = random_stream(spec.seed, f"noise {modality}")
        brightest = max(sequence.signal(TISSUES[name]) for name in ("csf", "grey", "white"))
        sigma = np.float32(spec.noise * INTENSITY_SCALE * brightest)
        image += sigma * stream.standard_normal(image.shape, dtype=np.float32)
        image = np.hypot(image, sigma * stream.standard_normal(image.shape, dtype=np.float32))
    return image
