"""The phantoms that come with IMT, offered in Slicer's Sample Data module."""

from __future__ import annotations

import json
from pathlib import Path

CATEGORY = "IMT"


def register(resources: Path) -> None:
    """Register them, in a category of their own.

    :param resources: the module's `Resources` folder.
    """
    import SampleData

    folder = resources / "IMT-sample-data"
    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # Slicer 5.12 and later
        logic.registerCustomSampleDataCategory(CATEGORY, title="IMT: image modality translation")
    for entry in json.loads((folder / "IMT-sample-data.json").read_text(encoding="utf-8")):
        thumbnail = folder / f"{Path(entry['file']).name.split('.')[0]}.png"
        logic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=entry["name"],
            thumbnailFileName=str(thumbnail) if thumbnail.is_file() else None,
            uris=(folder / entry["file"]).as_uri(),
            fileNames=entry["file"],
            checksums=f"SHA256:{entry['sha256']}",
            nodeNames=entry["node"],
        )
