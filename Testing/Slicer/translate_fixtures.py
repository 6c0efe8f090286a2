"""What the tests of IMTTranslate share: a small head, tiny models, a panel with its process kept, and what must not be left."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import qt
import slicer
import vtk
from panel_checks import ROOT, OpenPanel, wait_until

from slicer_harness import host

MODULE = ROOT / "IMTTranslate" / "IMTTranslate.py"
SAMPLES = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data"
SPACING = (1.0, 1.0, 3.0)
MAKE_MODELS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from packages import write_tiny_package
folder = Path(sys.argv[1])
for number, (source, target) in enumerate((("T1", "T2"), ("T1", "FLAIR"), ("T2", "T1"), ("T1", "CT"))):
    write_tiny_package(folder, number, name=f"tiny-{source}-{target}", source=source, target=target)
write_tiny_package(folder, 5, name="tiny-any", modalities=("T1", "T2", "PD"))
"""


def node_ids() -> list[str]:
    """The IDs of all nodes of the scene, in order."""
    nodes = slicer.mrmlScene.GetNodes()
    return [nodes.GetItemAsObject(index).GetID() for index in range(nodes.GetNumberOfItems())]


def children() -> set[int]:
    """The numbers of the processes that this one has started, and of theirs."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if child.is_running() and child.status() != psutil.STATUS_ZOMBIE}


def matrix_of(node) -> np.ndarray:
    """IJK to RAS."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def set_matrix(node, matrix: np.ndarray) -> None:
    """Give a volume its IJK to RAS matrix."""
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.asarray(matrix, float)))


_heads: dict[str, np.ndarray] = {}


def head_array(modality: str = "T1") -> np.ndarray:
    """The shipped phantom, every second voxel of every sixth slice: 12 slices of 58 × 49."""
    if modality not in _heads:
        node = slicer.util.loadVolume(str(SAMPLES / f"IMT-phantom-{modality}.nii.gz"), properties={"show": False})
        _heads[modality] = slicer.util.arrayFromVolume(node)[10:80:6, ::2, ::2].copy()
        for part in (node.GetStorageNode(), node.GetDisplayNode(), node):
            slicer.mrmlScene.RemoveNode(part)
    return _heads[modality].copy()


def add_head(name: str = "T1", modality: str = "T1", array: np.ndarray | None = None):
    """A volume node of a small head."""
    node = slicer.util.addVolumeFromArray(head_array(modality) if array is None else array, name=name)
    node.SetSpacing(*SPACING)
    node.SetOrigin(-20.0, 15.0, 40.0)
    return node


def add_rotation(name: str = "Rotation"):
    """A linear transform node."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(30, 1, 2, 3)
    transform.Translate(5, -7, 11)
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


def add_warp(name: str = "Warp"):
    """A non-linear transform node."""
    points = vtk.vtkPoints(), vtk.vtkPoints()
    for point in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (30, 30, 30)):
        points[0].InsertNextPoint(point)
        points[1].InsertNextPoint(point[0] + 3, point[1] - 2 * (point[2] > 0), point[2] + point[0] / 10)
    warp = vtk.vtkThinPlateSplineTransform()
    warp.SetBasisToR()
    warp.SetSourceLandmarks(points[0])
    warp.SetTargetLandmarks(points[1])
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetAndObserveTransformToParent(warp)
    return node


def bad_volumes() -> dict[str, Callable]:
    """What cannot be translated: what a user would call it → (makes the node, what the message must say)."""

    def with_nan():
        array = head_array().astype(np.float32)
        array[3, 4, 5] = np.nan
        return add_head("Broken", array=array)

    def vector():
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Colours")
        slicer.util.updateVolumeFromArray(node, np.zeros((4, 8, 9, 3), np.uint8))
        return node

    def several_components():
        node = add_head("Phases")
        image = vtk.vtkImageData()
        image.SetDimensions(9, 8, 4)
        image.AllocateScalars(vtk.VTK_SHORT, 5)
        node.SetAndObserveImageData(image)
        return node

    def labels():
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
        slicer.util.updateVolumeFromArray(node, np.ones((4, 8, 9), np.uint8))
        return node

    def empty():
        return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")

    def table():
        return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Table")

    return {
        "NaN": (with_nan, "not numbers"),
        "vector": (vector, "3 values a voxel"),
        "4D": (several_components, "5 values a voxel"),
        "label map": (labels, "no scalar volume"),
        "empty volume": (empty, "no image"),
        "table": (table, "no scalar volume"),
        "nothing": (lambda: None, "Select the input volume"),
    }


class Panel(OpenPanel):
    """The open panel as a user has it before the eyes."""

    verb = "Translate"

    translate = OpenPanel.run

    def compare(self) -> str:
        """Click Compare and wait; returns what the panel says then."""
        assert self.ui.compareButton.enabled
        self.ui.compareButton.click()
        wait_until(lambda: self.ui.scoresLabel.text != "Comparing…" and self.ui.compareButton.enabled)
        return self.ui.scoresLabel.text

    def offered(self) -> dict[str, list[str]]:
        """The rows of modalities that are shown, with their models."""
        rows = {}
        for target in ("T1", "T2", "FLAIR", "PD", "Other"):
            check, models = getattr(self.ui, f"translateTo{target}CheckBox"), getattr(self.ui, f"model{target}ComboBox")
            output = getattr(self.ui, f"output{target}Selector")
            hidden = {widget.isHidden() for widget in (check, models, output)}
            assert len(hidden) == 1, f"half of the row {target} is shown"
            if hidden == {False}:
                rows[target] = [models.itemData(index) for index in range(models.count)]
        return rows


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of tiny models: T1 to T2, FLAIR and CT, T2 to T1, and any to any of T1, T2 and PD."""
    folder = tmp_path_factory.mktemp("eigene Modelle ö")
    paths = [str(ROOT / "Testing" / "Core"), str(ROOT / "IMTTranslate")]
    subprocess.run([sys.executable, "-c", MAKE_MODELS, str(folder), *paths], check=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory) -> Iterator[Path]:
    """Slicer's temporary folder, with a space and letters that are not ASCII; and no models of the tester's own."""
    folder = tmp_path_factory.mktemp("t m p ö 脳")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicer.app, "temporaryPath", str(folder))
        patch.setenv("IMT_MODELS", str(tmp_path_factory.mktemp("none")))
        yield folder


@pytest.fixture
def nothing_left(slicer_app, temporary: Path) -> Iterator[None]:
    """No settings at the start; no process and no temporary folder is left by the test."""
    qt.QSettings().remove("IMTTranslate")
    before = children()
    yield
    wait_until(lambda: children() <= before, 5)
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def opened() -> Iterator:
    """One open panel for the tests of a file; its process keeps the model loaded."""
    widget = host.open_module(MODULE, (520, 900))
    yield widget
    host.close_module(widget)


@pytest.fixture
def panel(opened, slicer_app, temporary: Path, models: Path) -> Iterator[Panel]:
    """The panel in a new scene, with the tiny models and the model kept; nothing may be left of the test."""
    panel = Panel(opened)
    panel.parameters.keepModelLoaded = True
    panel.parameters.modelFolder = models
    panel.ui.logTextEdit.clear()
    yield panel
    opened.panel.cancel()
    slicer.app.processEvents()
    kept = opened.panel._worker
    process = {kept.pid} if kept is not None and kept.pid else set()
    family = {child.pid for pid in process for child in psutil.Process(pid).children(recursive=True)}
    wait_until(lambda: children() <= process | family, 5)
    qt.QSettings().remove("IMTTranslate")
    qt.QSettings().setValue("IMTTranslate/keepModelLoaded", "True")  # the next test's scene starts with it
    assert not list(temporary.iterdir())


@pytest.fixture
def logic(nothing_left):
    """The module's logic, in a scene without its panel."""
    host.load_module(MODULE)
    return importlib.import_module("IMTTranslate").IMTTranslateLogic()


@pytest.fixture(scope="module")
def worker(temporary) -> Iterator:
    """One process for the tests that ask what comes out, not how it is started."""
    host.load_module(MODULE)
    from IMTSlicerLib.workers import Worker

    worker = Worker(keepSeconds=300)
    yield worker
    worker.stop()


@pytest.fixture
def run(worker, slicer_app, models: Path) -> Callable:
    """Translates T1 to T2 with the tiny model in the kept process; returns the output node."""
    from IMTTranslatePanel.translation_run import TranslationOptions, TranslationRun, TranslationTarget

    def translate(node, output=None, **options):
        target = TranslationTarget(str(models / "tiny-T1-T2.json"), "T2", output)
        return TranslationRun(node, [target], TranslationOptions(**options), "T1", worker).start().wait().outputNodes[0]

    return translate


def copy_models(models: Path, folder: Path) -> Path:
    """A copy of the tiny models, to damage."""
    shutil.copytree(models, folder)
    return folder
