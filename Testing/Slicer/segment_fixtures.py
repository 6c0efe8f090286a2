"""What the tests of IMTSegment share: tiny segmentation models, and the panel as its users have it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import qt
import slicer
from panel_checks import ROOT, OpenPanel, wait_until
from translate_fixtures import add_head, children

from slicer_harness import host
from slicer_harness.host import choose

MODULE = ROOT / "IMTSegment" / "IMTSegment.py"
UI = ROOT / "IMTSegment" / "Resources" / "UI" / "IMTSegment.ui"
COLOURS = {"CSF": (60, 100, 220), "grey matter": (150, 150, 150), "white matter": (240, 240, 240)}
GREY_MATTER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~"
    "SCT^389081007^Gray matter~^^~Anatomic codes - DICOM master list~^^~^^"
)
MAKE_MODELS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from packages import write_tiny_package
from tiny_segmenters import tiny_segmenter_card, write_tiny_segmenter
from IMTCore.cards import read_card
folder, terminology = Path(sys.argv[1]), sys.argv[2]
translator = read_card(write_tiny_package(folder / "translators", 1, name="tiny-T1-T2", source="T1", target="T2"))
classes = tiny_segmenter_card()["classes"]
classes[1]["terminology"] = terminology
models = folder / "segmenters"
options = {"channels": ("given", "given", "second"), "translator": translator, "classes": classes}
write_tiny_segmenter(models, 1, name="tiny-tms", **options, default=True)
write_tiny_segmenter(models, 2, name="tiny-given")
write_tiny_segmenter(models, 3, name="tiny-t2", source="T2")
"""


@dataclass(frozen=True)
class Models:
    """Folders of tiny models: `tiny-tms` (T1 and translated T2), `tiny-given` (T1 alone), `tiny-t2` (T2 alone)."""

    segmenters: Path
    translators: Path


class SegmentPanel(OpenPanel):
    """The open panel as a user has it before the eyes."""

    verb = "Segment"
    segment = OpenPanel.run

    def prepare(self, model: str = "tiny-tms", name: str = "Kopf T1"):
        """Choose a small head and a model. Returns the input node."""
        node = add_head(name)
        choose(self.ui.inputSelector, name)
        choose(self.ui.modelComboBox, f"tissue: {model}")
        return node

    @property
    def results(self):
        """Of the last run."""
        return self.widget.panel._run.results

    def offered(self) -> list[str]:
        """The names of the models in the list."""
        box = self.ui.modelComboBox
        return [box.itemData(index) for index in range(box.count)]


@pytest.fixture(scope="session")
def segment_models(tmp_path_factory) -> Models:
    """Tiny models, made once; with letters in their path that are not ASCII."""
    folder = tmp_path_factory.mktemp("Segmentierer ö")
    paths = [str(ROOT / part) for part in ("Testing/Core", "IMTTranslate", "IMTSegment")]
    subprocess.run([sys.executable, "-c", MAKE_MODELS, str(folder), GREY_MATTER, *paths], check=True)
    return Models(folder / "segmenters", folder / "translators")


@pytest.fixture
def tiny_models(segment_models: Models, temporary: Path, monkeypatch) -> Models:
    """The tiny models are the user's own."""
    monkeypatch.setenv("IMT_SEGMENT_MODELS", str(segment_models.segmenters))
    monkeypatch.setenv("IMT_MODELS", str(segment_models.translators))
    return segment_models


@pytest.fixture(scope="module")
def segment_opened() -> Iterator:
    """One open panel for the tests of a file."""
    widget = host.open_module(MODULE, (520, 1100))
    yield widget
    host.close_module(widget)


@pytest.fixture
def segment_panel(tiny_models: Models, segment_opened, slicer_app, temporary: Path) -> Iterator[SegmentPanel]:
    """The panel in a new scene, without remembered settings; nothing may be left of the test."""
    qt.QSettings().remove("IMTSegment")
    slicer.mrmlScene.Clear(False)
    panel = SegmentPanel(segment_opened)
    panel.ui.logTextEdit.clear()
    panel.ui.statusLabel.text = ""
    before = children()
    yield panel
    segment_opened.panel.stop()
    slicer.app.processEvents()
    wait_until(lambda: children() <= before, 5)
    qt.QSettings().remove("IMTSegment")
    assert not list(temporary.iterdir())


@pytest.fixture
def segment_logic(tiny_models: Models, nothing_left):
    """The module's logic, in a scene without its panel."""
    host.load_module(MODULE)
    return importlib.import_module("IMTSegment").IMTSegmentLogic()


def segments(node) -> dict[str, object]:
    """Name -> segment."""
    found = node.GetSegmentation()
    return {found.GetNthSegment(n).GetName(): found.GetNthSegment(n) for n in range(found.GetNumberOfSegments())}


def columns_of(tableNode) -> dict[str, list]:
    """Title -> values."""
    table = tableNode.GetTable()
    columns = (table.GetColumn(n) for n in range(table.GetNumberOfColumns()))
    return {column.GetName(): [column.GetValue(row) for row in range(column.GetNumberOfValues())] for column in columns}
