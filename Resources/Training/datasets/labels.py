"""Label maps of all data sets in one set of codes, merged as Yang et al. 2020 do (Datasets, step 1).

The paper merges necrosis, oedema, non-enhancing and enhancing tumour into one label and keeps grey and white matter.
Fluid is kept here too, as every data set with tissues has it.
"""

from __future__ import annotations

import numpy as np

from IMTCore.errors import BadInput
from IMTCore.volume import Volume

from .subject import Subject, check_same_grid

CSF, GREY, WHITE, TUMOUR = 1, 2, 3, 4
MERGED = {"csf": CSF, "grey": GREY, "white": WHITE, "tumour": TUMOUR}

# {label name: {the release's code: merged code}}; 0 is background in all.
RULES: dict[str, dict[int, int]] = {
    # BraTS: 1 necrosis, 2 oedema, 3 non-enhancing (2023 on: enhancing), 4 enhancing.
    "tumour": {1: TUMOUR, 2: TUMOUR, 3: TUMOUR, 4: TUMOUR},
    "tissues": {1: CSF, 2: GREY, 3: WHITE},
    # MRBrainS13, LabelsForTraining: 1 cortex, 2 basal ganglia, 3 white matter, 4 lesions in it, 5 fluid around the brain,
    # 6 ventricles; 7 cerebellum and 8 brainstem are background, as in the challenge's own evaluation.
    "structures": {1: GREY, 2: GREY, 3: WHITE, 4: WHITE, 5: CSF, 6: CSF, 7: 0, 8: 0},
    "iseg_tissues": {10: CSF, 150: GREY, 250: WHITE},
    "merged": {code: code for code in MERGED.values()},
}
# The first that a subject has counts; its tumour, if it has one, lies over it.
_TISSUES = ("merged", "structures", "tissues", "iseg_tissues")


def merged_label(subject: Subject) -> Volume:
    """The subject's label map in merged codes.

    Returns:
        uint8 [k, j, i]: 0 background, 1 fluid, 2 grey matter, 3 white matter, 4 tumour (`MERGED`).

    Raises:
        BadInput: no label map of a known kind, a code that its kind does not have, or maps on different grids.
    """
    base = next((name for name in _TISSUES if name in subject.labels), None)
    names = [name for name in (base, "tumour") if name in subject.labels]
    if not names:
        raise BadInput(f"{subject.name} has no label map that can be merged (one of {', '.join(RULES)}).")
    maps = {name: subject.label(name) for name in names}
    check_same_grid(subject, maps)
    merged = np.zeros(maps[names[0]].array.shape, np.uint8)
    for name, volume in maps.items():
        codes = merge_codes(volume.array, name, subject.name)
        merged[codes > 0] = codes[codes > 0]
    return maps[names[0]].with_array(merged, f"{subject.name} merged")


def merge_codes(codes: np.ndarray, name: str, subject: str) -> np.ndarray:
    """Codes of the label map `name` → merged codes, uint8, of the same shape."""
    merged = np.zeros(codes.shape, np.uint8)
    for code in np.unique(codes):
        if code == 0:
            continue
        if int(code) not in RULES[name]:
            known = ", ".join(str(known) for known in RULES[name])
            raise BadInput(f"{subject}: the label map {name} has the code {code}; known are 0, {known}. Is it another release?")
        merged[codes == code] = RULES[name][int(code)]
    return merged
