"""Simulate subjects with several modalities, laid out as `<output>/<dataset>/<subject>/<modality>.nii.gz`.

Anatomies are label maps (`DATA/labelmaps/<subject>/labels.nii.gz`, FreeSurfer codes as in SynthSeg's training maps), or,
without any data, random warps of the ICBM152 template that nilearn ships. Each subject gets a warp, a coil's bias field and
Rician noise of its own; the spin-echo equations draw the images (IMTCore/simulation.py). Results on such pairs are
results on simulated data, and the data set's name says so.

Example:
    python Resources/Training/simulate_pairs.py --labels DATA/labelmaps --modalities PD T2 --downsample 2 --output runs/data
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

from IMTCore.errors import ImtError
from IMTCore.files import write_json
from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import TissueMaps, icbm152_tissues, tissue_maps_from_labels
from IMTCore.tissues import SEQUENCES
from IMTCore.volume_io import read_volume, write_volume


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


def main(arguments: list[str] | None = None) -> None:
    """Simulate and write what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps; without it the ICBM152 template is warped")
    parser.add_argument("--subjects", type=int, default=10, help="number of subjects without --labels (default 10)")
    parser.add_argument("--modalities", nargs="+", default=["PD", "T2"], choices=sorted(SEQUENCES))
    parser.add_argument("--downsample", type=int, default=2, help="blocks of so many voxels of the anatomy become one (default 2)")
    parser.add_argument("--lesions", type=int, default=4, help="lesions in each subject's white matter (default 4)")
    parser.add_argument("--noise", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", default="simulated")
    parser.add_argument("--output", required=True, type=Path)
    values = parser.parse_args(arguments)
    try:
        for number, (name, tissues) in enumerate(anatomies(values.labels, values.downsample, values.subjects)):
            folder = values.output / values.dataset / name
            spec = PhantomSpec(
                seed=1000 * values.seed + number,
                modalities=tuple(values.modalities),
                lesions=values.lesions,
                noise=values.noise,
                skull_stripped=True,
            )
            record = {"simulated": True, "seed": spec.seed, "modalities": values.modalities, "lesions": values.lesions}
            record |= {"noise": values.noise, "downsample": values.downsample, "anatomy": name}
            done = folder / "simulation.json"
            if done.exists() and json.loads(done.read_text(encoding="utf-8")) == record:
                continue
            phantom = simulate(tissues, spec)
            folder.mkdir(parents=True, exist_ok=True)
            for modality, volume in phantom.images.items():
                write_volume(folder / f"{modality}.nii.gz", volume, f"simulated {modality}, IMT")
            write_json(done, record)
            print(f"{values.dataset}/{name}: {', '.join(phantom.images)}", flush=True)
    except ImtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
