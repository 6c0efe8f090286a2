"""The stand-ins for Slicer's Python files: parameter nodes bound to panels, scripted modules, packaging, sample data."""

from __future__ import annotations

import enum
import hashlib
import sys
from pathlib import Path
from typing import Annotated, Union

import ctk
import numpy as np
import pytest
import qt
import SampleData
import slicer
from slicer import packaging
from slicer.parameterNodeWrapper import (
    Choice,
    Decimals,
    Default,
    Maximum,
    Minimum,
    WithinRange,
    findChildWidgetForParameter,
    parameterNodeWrapper,
    parameterPack,
)
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic


class Device(enum.Enum):
    """With labels, as in Slicer's documentation."""

    AUTO = "auto"
    GPU = "cuda"

    def label(self) -> str:
        """What the panel shows."""
        return {"AUTO": "Automatic", "GPU": "Graphics card"}[self.name]


@parameterPack
class Advanced:
    """A pack."""

    tile: Annotated[int, WithinRange(8, 512), Default(64)]
    keep: bool = True


@parameterNodeWrapper
class Parameters:
    """One of each type."""

    overwrite: bool
    stay: bool = True
    samples: Annotated[int, WithinRange(1, 32), Default(4)]
    threads: Annotated[int, Minimum(0), Maximum(8)]
    strength: Annotated[float, WithinRange(0, 1), Decimals(3)] = 0.5
    offset: float
    name: str = "T2"
    notes: str
    model: Annotated[str, Choice(["T1-T2", "T1-FLAIR"])] = "T1-FLAIR"
    device: Device
    output: Path
    folder: Path
    volume: slicer.vtkMRMLScalarVolumeNode
    either: Union[slicer.vtkMRMLModelNode, slicer.vtkMRMLTableNode, None]  # noqa: UP007 - Slicer takes this form only
    advanced: Advanced


WIDGETS = {
    "overwrite": qt.QCheckBox,
    "stay": qt.QPushButton,
    "samples": qt.QSpinBox,
    "threads": qt.QSlider,
    "strength": ctk.ctkSliderWidget,
    "offset": qt.QDoubleSpinBox,
    "name": qt.QLineEdit,
    "notes": qt.QTextEdit,
    "model": qt.QComboBox,
    "device": qt.QComboBox,
    "output": ctk.ctkPathLineEdit,
    "folder": ctk.ctkDirectoryButton,
    "volume": slicer.qMRMLNodeComboBox,
    "either": slicer.qMRMLNodeComboBox,
    "advanced.tile": qt.QSpinBox,
    "advanced.keep": qt.QCheckBox,
}


def add_volume(name: str = "T1"):
    return slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name=name)


@pytest.fixture
def node(slicer_app):
    """A parameter node in the scene."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


@pytest.fixture
def panel(slicer_app):
    """A widget with a child for each parameter."""
    panel = qt.QWidget()
    layout = qt.QVBoxLayout(panel)
    for name, kind in WIDGETS.items():
        widget = kind()
        widget.name = name
        widget.setProperty("SlicerParameterName", name)
        if kind is slicer.qMRMLNodeComboBox:
            widget.noneEnabled = True
            widget.setMRMLScene(slicer.mrmlScene)
        layout.addWidget(widget)
    panel.findChild(qt.QPushButton, "stay").checkable = True
    return panel


def find(panel, name):
    return findChildWidgetForParameter(panel, name)


# --- Values --------------------------------------------------------------------------------------------------------


def test_defaults_and_types_in_the_node(node):
    parameters = Parameters(node)
    assert (parameters.overwrite, parameters.stay, parameters.samples, parameters.threads) == (False, True, 4, 0)
    assert (parameters.strength, parameters.offset, parameters.name, parameters.notes) == (0.5, 0.0, "T2", "")
    assert (parameters.model, parameters.device, parameters.output) == ("T1-FLAIR", Device.AUTO, Path("."))
    assert (parameters.volume, parameters.either, parameters.advanced) == (None, None, Advanced(64, True))
    parameters.device, parameters.output, parameters.volume = Device.GPU, Path("/a b/c"), add_volume()
    parameters.either = table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    assert node.GetParameter("device") == "GPU" and node.GetParameter("output") == "/a b/c"
    assert node.GetNodeReference("volume").GetName() == "T1"
    again = Parameters(node)
    assert (again.device, again.output, again.volume.GetName(), again.either) == (Device.GPU, Path("/a b/c"), "T1", table)
    assert again.isCached("samples") and not again.isCached("advanced")
    assert again.default("samples").value == 4
    slicer.mrmlScene.RemoveNode(again.volume)
    assert again.volume is None


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("samples", 0, ValueError),
        ("samples", 1.5, TypeError),
        ("samples", None, ValueError),
        ("threads", 9, ValueError),
        ("strength", "0.5", TypeError),
        ("model", "T2-T1", ValueError),
        ("output", "text", TypeError),
        ("advanced.tile", 4, ValueError),
        ("advanced.nothing", 4, ValueError),
        ("nothing", 4, ValueError),
    ],
)
def test_bad_values_change_nothing(node, name, value, error):
    parameters = Parameters(node)
    before = {name: node.GetParameter(name) for name in node.GetParameterNames()}
    with pytest.raises(error):
        parameters.setValue(name, value)
    assert {name: node.GetParameter(name) for name in node.GetParameterNames()} == before
    with pytest.raises(TypeError):
        parameters.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")


def test_bad_declarations_fail(node):
    with pytest.raises(TypeError, match="serializer"):
        parameterNodeWrapper(type("Wrong", (), {"__annotations__": {"names": list[str]}}))
    without_default = parameterNodeWrapper(type("Wrong", (), {"__annotations__": {"n": Annotated[int, WithinRange(1, 2)]}}))
    with pytest.raises(ValueError, match="within range"):  # as in Slicer, whose default is 0 all the same
        without_default(node)
    with pytest.raises(ValueError, match="default parameter"):
        parameterPack(type("Wrong", (), {"__annotations__": {"n": Annotated[int, WithinRange(1, 2)]}}))


def test_packs_write_back_and_observers_see_new_values(node):
    parameters, seen = Parameters(node), []
    parameters.AddObserver("ModifiedEvent", lambda *_: seen.append((parameters.samples, parameters.advanced.tile)))
    parameters.advanced.tile = 128
    parameters.samples = 7
    parameters.advanced = Advanced(tile=16)
    assert seen == [(4, 128), (7, 128), (7, 16)]
    assert node.GetParameter("advanced.tile") == "16" and Parameters(node).advanced.tile == 16
    with slicer.util.NodeModify(parameters):
        parameters.samples, parameters.name = 1, "x"
    assert len(seen) == 4


def test_closing_the_scene_brings_defaults_back(slicer_app):
    logic = ScriptedLoadableModuleLogic()
    logic.moduleName = "Sample"
    parameters = Parameters(logic.getParameterNode())
    assert logic.getParameterNode() is parameters.parameterNode and len(logic.getAllParameterNodes()) == 1
    parameters.samples, parameters.volume = 9, add_volume()
    slicer.mrmlScene.Clear(False)
    parameters = Parameters(logic.getParameterNode())
    assert (parameters.samples, parameters.volume) == (4, None)


# --- Widgets -------------------------------------------------------------------------------------------------------


def test_parameters_show_in_widgets(node, panel):
    parameters = Parameters(node)
    parameters.connectGui(panel)
    assert find(panel, "samples").maximum == 32 and find(panel, "strength").decimals == 3
    box = find(panel, "device")
    assert [box.itemText(index) for index in range(box.count)] == ["Automatic", "Graphics card"]
    assert find(panel, "model").currentText == "T1-FLAIR"
    parameters.overwrite, parameters.stay, parameters.samples, parameters.threads = True, False, 9, 3
    parameters.strength, parameters.offset, parameters.name, parameters.notes = 0.125, -2e6, "FLAIR", "a\nb"
    parameters.model, parameters.device, parameters.output, parameters.folder = "T1-T2", Device.GPU, Path("/x"), Path("/y")
    parameters.volume, parameters.advanced = add_volume(), Advanced(16, False)
    parameters.either = table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    values = [find(panel, name).value for name in ("samples", "threads", "strength", "offset", "advanced.tile")]
    assert values == [9, 3, 0.125, -2e6, 16]
    assert [find(panel, name).checked for name in ("overwrite", "stay", "advanced.keep")] == [True, False, False]
    assert (find(panel, "name").text, find(panel, "notes").plainText) == ("FLAIR", "a\nb")
    assert (find(panel, "model").currentText, find(panel, "device").currentIndex) == ("T1-T2", 1)
    assert (find(panel, "output").currentPath, find(panel, "folder").directory) == ("/x", "/y")
    assert find(panel, "volume").currentNode() is parameters.volume and find(panel, "either").currentNode() is table


def test_widgets_write_parameters(node, panel):
    parameters = Parameters(node)
    parameters.connectGui(panel)
    volume = add_volume()
    find(panel, "overwrite").click()
    find(panel, "stay").click()
    for name, value in {"samples": 2, "threads": 5, "strength": 0.25, "offset": 1.5, "advanced.tile": 100}.items():
        find(panel, name).value = value
        assert parameters.getValue(name) == value
    find(panel, "name").text = "PD"
    find(panel, "notes").plainText = "two\nlines"
    find(panel, "model").currentIndex = 0
    find(panel, "device").currentIndex = 1
    find(panel, "output").currentPath = "/out put"
    find(panel, "folder").directory = "/folder"
    find(panel, "volume").setCurrentNode(volume)
    assert (parameters.overwrite, parameters.stay) == (True, False)
    assert (parameters.name, parameters.notes, parameters.model) == ("PD", "two\nlines", "T1-T2")
    assert (parameters.device, parameters.output, parameters.folder) == (Device.GPU, Path("/out put"), Path("/folder"))
    assert parameters.volume is volume and node.GetNodeReferenceID("volume") == volume.GetID()
    slicer.mrmlScene.RemoveNode(volume)
    assert find(panel, "volume").currentNode() is None and parameters.volume is None


def test_disconnecting(node, panel):
    parameters = Parameters(node)
    assert parameters.connectGui(panel) is None  # as in Slicer: issue 7547
    box = qt.QSpinBox()
    tag = parameters.connectParametersToGui({"samples": box})
    parameters.disconnectGui(tag)
    box.value = 3
    parameters.threads = 1
    assert (parameters.samples, box.value, find(panel, "threads").value) == (4, 3, 1)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("name", qt.QComboBox),  # without Choice
        ("name", qt.QPlainTextEdit),
        ("threads", qt.QDoubleSpinBox),
        ("strength", ctk.ctkDoubleSpinBox),
        ("samples", type("MySpinBox", (qt.QSpinBox,), {})),
        ("overwrite", qt.QToolButton),
        ("model", ctk.ctkComboBox),
        ("volume", slicer.qMRMLCheckableNodeComboBox),
        ("output", qt.QLineEdit),
    ],
)
def test_other_widgets_do_not_bind(node, name, kind):
    with pytest.raises(RuntimeError):
        Parameters(node).connectParametersToGui({name: kind()})


def test_unbounded_sliders_do_not_bind(node):
    with pytest.raises(RuntimeError, match="unbounded"):
        Parameters(node).connectParametersToGui({"offset": ctk.ctkSliderWidget()})


# --- Scripted modules ----------------------------------------------------------------------------------------------

MODULE = """
import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import *
VERSION = 1
class Sample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Sample")
        slicer.app.connect("startupCompleted()", lambda: setattr(slicer, "sampleStarted", True))
class SampleWidget(ScriptedLoadableModuleWidget):
    log = []
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.log.append("setup")
    def enter(self): self.log.append("enter")
    def exit(self): self.log.append("exit")
    def cleanup(self): self.log.append("cleanup")
class SampleTest(ScriptedLoadableModuleTest):
    def setUp(self): slicer.mrmlScene.Clear()
    def runTest(self):
        self.setUp()
        self.delayDisplay("testing")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
"""


def test_module_life(open_module, tmp_path):
    path = tmp_path / "Sample.py"
    path.write_text(MODULE, encoding="utf-8")
    widget = open_module(path)
    log = widget.log
    assert slicer.modules.sample.title == "Sample" and slicer.modules.SampleWidget is widget and slicer.sampleStarted
    assert widget.resourcePath("x.txt") == str(tmp_path / "Resources" / "x.txt")
    assert slicer.util.getModuleWidget("Sample") is widget and widget.parent.visible
    slicer.modules.SampleInstance.runTest(msec=1)
    path.write_text(MODULE.replace("VERSION = 1", "VERSION = 2"), encoding="utf-8")
    widget.onReload()
    assert log == ["setup", "enter", "cleanup"]
    assert sys.modules["Sample"].VERSION == 2 and slicer.modules.SampleWidget.log == ["setup", "enter"]


def test_packaging_refuses_to_install(slicer_app, tmp_path, monkeypatch):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# comment\n--no-deps\nnumpy>=1\nno-such-package>=2\n", encoding="utf-8")
    listed = packaging.load_requirements(requirements)
    assert [item.name for item in listed] == ["numpy", "no-such-package"]
    assert packaging.pip_check("numpy") and not packaging.pip_check(listed) and not packaging.pip_check("numpy<1")
    assert packaging.pip_ensure(listed, requester="IMT") is None  # as under Slicer --testing
    with pytest.raises(RuntimeError, match="no-such-package.* is refused"):
        packaging.pip_ensure(listed, skip_in_testing=False, prompt_install=False)
    with pytest.raises(RuntimeError, match="refused"):
        slicer.util.pip_install("no-such-package")


def test_sample_data(slicer_app, tmp_path, monkeypatch):
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {})
    path = tmp_path / "T1 head.nrrd"
    assert slicer.util.exportNode(add_volume(), str(path), properties={})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    logic = SampleData.SampleDataLogic
    logic.registerCustomSampleDataCategory("IMT", "Image modality translation")
    fields = {"uris": path.as_uri(), "fileNames": "T1.nrrd", "nodeNames": "Head"}
    for name, checksum in (("Good", digest), ("Bad", "0" * 64)):
        logic.registerCustomSampleDataSource("IMT", name, checksums=f"SHA256:{checksum}", **fields)
    logic.registerCustomSampleDataSource("IMT", "Far", uris="https://example.org/T1.nrrd", fileNames="a", nodeNames="a")
    assert [source.checksums for source in slicer.modules.sampleDataSources["IMT"]][0] == [f"SHA256:{digest}"]
    node = SampleData.downloadSample("Good")
    assert node.GetName() == "Head" and node.GetStorageNode() is None and slicer.util.arrayFromVolume(node).shape == (2, 3, 4)
    for name in ("Bad", "Far"):
        with pytest.raises(ValueError):
            SampleData.downloadSample(name)
    logic.provide("Far", add_volume)
    assert SampleData.downloadSample("Far").GetName() == "T1"
    with pytest.raises(ValueError):
        logic.registerCustomSampleDataSource("IMT", "Wrong", checksums="SHA1:00", **fields)
