"""Simulate subjects with several modalities, laid out as `<output>/<dataset>/<subject>/<modality>.nii.gz`.

Anatomies are label maps (`DATA/labelmaps/<subject>/labels.nii.gz`, FreeSurfer codes as in SynthSeg's training maps), or,
without any data, random warps of the ICBM152 template that nilearn ships. Each subject gets a warp, a coil's bias field and
Rician noise of its own; the spin-echo equations draw the images (IMTCore/simulation.py). Results on such pairs are
results on simulated data, and the data set's name says so. Beside the images lies `tissues.nii.gz`: 1 CSF, 2 grey matter
(with deep grey), 3 white matter (with lesions), by the nearest voxel.

Example:
    python Resources/Training/simulate_pairs.py --labels DATA/labelmaps --modalities PD T2 --downsample 2 --output runs/data
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

from IMTCore.errors import ImtError
from IMTCore.files import write_json
from IMTCore.simulation import Phantom, PhantomSpec, simulate
from IMTCore.tissue_maps import TissueMaps, icbm152_tissues, tissue_maps_from_labels
from IMTCore.tissues import CLASS_CODES, LABEL_TISSUES, SEQUENCES, PulseSequence
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume, write_volume

TISSUE_CODES = {"csf": 1, "grey": 2, "deep_grey": 2, "white": 3, "lesion": 3}
PREPARED_T1 = (2000.0, 4.0)  # TR and TE in ms of a T1 image with an inversion pulse, as 3D T1 sequences have


def anatomies(labels: Path | None, downsample: int, count: int) -> list[tuple[str, TissueMaps]]:
    """(subject name, tissue maps) of every label map in `labels`, or of `count` copies of the template."""
    if labels is None:
        found = importlib.util.find_spec("nilearn")
        if found is None or not found.submodule_search_locations:
            sys.exit("Without --labels this needs nilearn, which make setup installs.")
        tissues = icbm152_tissues(Path(next(iter(found.submodule_search_locations))) / "datasets" / "data", downsample)
        return [(f"template{number:02d}", tissues) for number in range(1, count + 1)]
    paths = sorted(labels.glob("*/labels.nii.gz"))
    if not paths:
        sys.exit(f"{labels} holds no <subject>/labels.nii.gz. Check --labels.")
    return [(path.parent.name, tissue_maps_from_labels(read_volume(path), downsample=downsample)) for path in paths]


def tissue_labels(phantom: Phantom, classes: dict[int, str]) -> Volume:
    """The phantom's tissues as codes 1 to 3, uint8. `classes`: what each of its label codes is."""
    codes = np.zeros(max(classes) + 1, np.uint8)
    for code, name in classes.items():
        codes[code] = TISSUE_CODES.get(name, 0)
    labels = phantom.labels.array
    found = codes[np.clip(labels, 0, len(codes) - 1)]
    found[np.asarray(phantom.lesions.array) > 0] = TISSUE_CODES["lesion"]
    return phantom.labels.with_array(found, "tissues")


def main(arguments: list[str] | None = None) -> None:
    """Simulate and write what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps; without it the ICBM152 template is warped")
    parser.add_argument("--subjects", type=int, default=10, help="number of subjects without --labels (default 10)")
    parser.add_argument("--modalities", nargs="+", default=["PD", "T2"], choices=sorted(SEQUENCES))
    parser.add_argument("--downsample", type=int, default=2, help="blocks of so many voxels of the anatomy become one (default 2)")
    parser.add_argument("--lesions", type=int, default=4, help="lesions in each subject's white matter (default 4)")
    parser.add_argument("--noise", type=float, default=0.03)
    parser.add_argument("--whole-head", action="store_true", help="keep what is outside the brain")
    parser.add_argument("--rotation-deg", type=float, default=0.0, help="largest rotation about each axis (default 0)")
    parser.add_argument("--t1-inversion-ms", type=float, help="T1 with an inversion pulse so long before (default: a spin echo without)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", default="simulated")
    parser.add_argument("--output", required=True, type=Path)
    values = parser.parse_args(arguments)
    sequences = dict(SEQUENCES)
    if values.t1_inversion_ms is not None:
        sequences["T1"] = PulseSequence(*PREPARED_T1, values.t1_inversion_ms)
    classes = LABEL_TISSUES if values.labels else {code: name for name, code in CLASS_CODES.items()}
    try:
        for number, (name, tissues) in enumerate(anatomies(values.labels, values.downsample, values.subjects)):
            folder = values.output / values.dataset / name
            seed = 1000 * values.seed + number
            rotation = np.random.Generator(np.random.PCG64(seed)).uniform(-1, 1, 3) * values.rotation_deg
            spec = PhantomSpec(
                seed=seed,
                rotation_deg=tuple(rotation.tolist()),
                modalities=tuple(values.modalities),
                lesions=values.lesions,
                noise=values.noise,
                skull_stripped=not values.whole_head,
            )
            record = {"simulated": True, "seed": spec.seed, "modalities": values.modalities, "lesions": values.lesions}
            record |= {"noise": values.noise, "downsample": values.downsample, "anatomy": name}
            record |= {"whole_head": values.whole_head, "rotation_deg": values.rotation_deg, "t1_inversion_ms": values.t1_inversion_ms}
            done = folder / "simulation.json"
            if done.exists() and json.loads(done.read_text(encoding="utf-8")) == record:
                continue
            phantom = simulate(tissues, spec, sequences=sequences)
            folder.mkdir(parents=True, exist_ok=True)
            for modality, volume in phantom.images.items():
                write_volume(folder / f"{modality}.nii.gz", volume, f"simulated {modality}, IMT")
            write_volume(folder / "tissues.nii.gz", tissue_labels(phantom, classes), "tissues of the simulated images, IMT")
            write_json(done, record)
            print(f"{values.dataset}/{name}: {', '.join(phantom.images)}", flush=True)
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
