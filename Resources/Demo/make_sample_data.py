"""Make the phantoms that IMTTranslate offers in Slicer's Sample Data module, and their checksums.

Simulated from the tissue maps of the ICBM152 template that nilearn ships: T1, T2 and FLAIR of one skull-stripped brain with
lesions, at 2 mm, one grid. They are drawn by equations, not acquired and not translated.

    python Resources/Demo/make_sample_data.py
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np

from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import icbm152_tissues
from IMTCore.volume_io import write_volume

FOLDER = Path(__file__).resolve().parents[2] / "IMTTranslate" / "Resources" / "IMT-sample-data"
SPEC = PhantomSpec(seed=7, modalities=("T1", "T2", "FLAIR"), lesions=6, lesion_radius_mm=(3.0, 6.0), noise=0.02, skull_stripped=True)


def main() -> None:
    """Write `IMT-phantom-<modality>.nii.gz` and `IMT-sample-data.json`."""
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("This needs nilearn, which make setup installs.")
    tissues = icbm152_tissues(Path(next(iter(found.submodule_search_locations))) / "datasets" / "data", downsample=2)
    phantom = simulate(tissues, SPEC)
    FOLDER.mkdir(parents=True, exist_ok=True)
    entries = []
    for modality, volume in phantom.images.items():
        top = np.percentile(volume.array[volume.array > 0], 99.9)
        array = np.where(volume.array > 0, np.clip(np.rint(volume.array * (255 / top)), 1, 255), 0).astype(np.uint8)
        path = FOLDER / f"IMT-phantom-{modality}.nii.gz"
        write_volume(path, volume.with_array(array), f"simulated {modality} phantom, IMT")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append({"name": f"IMTPhantom{modality}", "file": path.name, "node": f"Phantom {modality}", "sha256": sha256})
        print(path.name, path.stat().st_size // 1024, "KiB")
    (FOLDER / "IMT-sample-data.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
