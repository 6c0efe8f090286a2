"""The offscreen Slicer itself: what it does as Slicer does, and that it refuses what it does not imitate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ctk
import numpy as np
import pytest
import qt
import slicer

from slicer_harness import host, views

ROOT = Path(__file__).resolve().parents[2]
UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Panel</class>
 <widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout">
  <item><widget class="{widget}" name="thing">{properties}</widget></item>
 </layout></widget>
 <connections><connection>
  <sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>thing</receiver><slot>{slot}</slot>
 </connection></connections>
</ui>"""
NODE_TYPES = '<property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>'


@pytest.fixture
def load_ui(slicer_app, tmp_path):
    """Write and load a panel with one widget in it."""

    def load(widget: str = "qMRMLNodeComboBox", properties: str = "", slot: str = "setMRMLScene(vtkMRMLScene*)"):
        path = tmp_path / "Panel.ui"
        path.write_text(UI.format(widget=widget, properties=properties, slot=slot), encoding="utf-8")
        panel = slicer.util.loadUI(str(path))
        return panel, slicer.util.childWidgetVariables(panel)

    return load


def add_volume(name: str = "T1", kind: str = "vtkMRMLScalarVolumeNode", value: int = 100):
    return slicer.util.addVolumeFromArray(np.full((8, 16, 16), value, np.int16), name=name, nodeClassName=kind)


# --- What is not imitated is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("module, name", [(slicer, "qMRMLSegmentEditorWidget"), (ctk, "ctkMatrixWidget"), (qt, "QWebEngineView")])
def test_unknown_classes_fail_by_name(slicer_app, module, name):
    assert not hasattr(module, name)
    with pytest.raises(AttributeError, match=name):
        getattr(module, name)


def test_ui_files_fail_on_unknown_classes_properties_and_slots(load_ui):
    with pytest.raises(AttributeError, match="qMRMLTransformSliders"):
        load_ui("qMRMLTransformSliders")
    with pytest.raises(AttributeError, match="sortByName"):
        load_ui(properties='<property name="sortByName"><bool>true</bool></property>')
    with pytest.raises(AttributeError, match="setMRMLScen"):
        load_ui(slot="setMRMLScen(vtkMRMLScene*)")


def test_unknown_methods_signals_and_attributes_fail_by_name(slicer_app):
    slider = ctk.ctkSliderWidget()
    with pytest.raises(AttributeError, match="sliderHandle"):
        slider.sliderHandle()
    with pytest.raises(AttributeError, match="sliderReleased"):
        slider.connect("sliderReleased()", print)
    for widget in (slider, qt.QPushButton(), slicer.qMRMLNodeComboBox()):
        with pytest.raises(AttributeError, match="enabeld"):
            widget.enabeld = False
    with pytest.raises(AttributeError, match="currentNodeChanged"):
        slicer.qMRMLNodeComboBox().connect("currentNodeChanged(vtkMRMLScene*)", print)


def test_unanswered_dialogs_fail(slicer_app, dialogs):
    with pytest.raises(RuntimeError, match="waits for a user"):
        qt.QMessageBox.question(None, "Really?", "Remove it?")
    dialogs.answer("QFileDialog.getOpenFileName", "T1.nii.gz")
    assert qt.QFileDialog.getOpenFileName(None, "Open") == "T1.nii.gz"
    assert [name for name, _ in dialogs.asked] == ["QMessageBox.question", "QFileDialog.getOpenFileName"]


def test_exceptions_in_slots_are_collected(slicer_app, slot_errors):
    button, node = qt.QPushButton(), add_volume()
    button.connect("clicked(bool)", lambda *_: 1 / 0)
    button.click()
    node.AddObserver("ModifiedEvent", lambda *_: [].pop())
    node.Modified()
    assert ["ZeroDivisionError" in slot_errors[0], "IndexError" in slot_errors[1]] == [True, True]
    slot_errors.clear()


# --- PythonQt ------------------------------------------------------------------------------------------------------


def test_properties_are_attributes(slicer_app):
    box = qt.QSpinBox()
    box.maximum, box.value, box.enabled, box.name = 7, 5.0, False, "threads"
    assert (box.value, box.isEnabled(), box.objectName, box.className()) == (5, False, "threads", "QSpinBox")
    combo = qt.QComboBox()
    combo.addItem("T2", "T1-T2")
    assert (combo.currentIndex, combo.currentText, combo.currentData, combo.count) == (0, "T2", "T1-T2", 1)


def test_connecting_by_signature(slicer_app):
    button, seen = qt.QPushButton(), []
    button.checkable = True
    button.connect("clicked(bool)", seen.append)
    button.connect("toggled(bool)", lambda: seen.append("toggled"))
    button.connect("clicked()", lambda *arguments: seen.append(arguments))
    button.click()
    assert seen == ["toggled", True, ()]
    assert button.disconnect("clicked(bool)", seen.append)
    button.click()
    assert seen[3:] == ["toggled", ()]
    label = qt.QLineEdit()
    qt.QObject.connect(label, "textChanged(QString)", button, "setText(QString)")
    label.text = "Translate"
    assert button.text == "Translate"


def test_timers_and_settings(slicer_app):
    seen = []
    qt.QTimer.singleShot(0, lambda: seen.append("shot"))
    timer = qt.QTimer()
    timer.singleShot, timer.interval = True, 0
    timer.connect("timeout()", lambda: seen.append("timer"))
    timer.start()
    for _ in range(5):
        slicer_app.processEvents()
    assert sorted(seen) == ["shot", "timer"]
    qt.QSettings().setValue("IMT/threads", 3)
    assert slicer.util.settingsValue("IMT/threads", 0, converter=int) == 3


# --- CTK -----------------------------------------------------------------------------------------------------------


def test_collapsing_hides_and_shows(slicer_app):
    button, seen = ctk.ctkCollapsibleButton(), []
    layout = qt.QVBoxLayout(button)
    shown, hidden = qt.QLabel("shown"), qt.QLabel("hidden")
    layout.addWidget(shown)
    layout.addWidget(hidden)
    hidden.visible = False
    button.show()
    button.connect("contentsCollapsed(bool)", seen.append)
    button.collapsed = True
    assert (shown.visible, hidden.visible, button.checked) == (False, False, False)
    button.collapsed = False
    assert (shown.visible, hidden.visible, seen) == (True, False, [True, False])


def test_paths_ask_by_their_filters(slicer_app, dialogs, tmp_path):
    line, seen = ctk.ctkPathLineEdit(), []
    line.connect("currentPathChanged(QString)", seen.append)
    line.filters = ctk.ctkPathLineEdit.Dirs
    dialogs.answer("QFileDialog.getExistingDirectory", str(tmp_path))
    line.browse()
    assert line.currentPath == str(tmp_path) and seen == [str(tmp_path)]
    button = ctk.ctkDirectoryButton()
    button.connect("directoryChanged(QString)", seen.append)
    button.directory = str(tmp_path / "a" / ".." / "b")
    assert seen[1:] == [str(tmp_path / "b")]


def test_checkable_combo_box(slicer_app):
    box, seen = ctk.ctkCheckableComboBox(), []
    box.connect("checkedIndexesChanged()", lambda: seen.append(len(box.checkedIndexes())))
    for name in ("T1", "T2"):
        box.addItem(name)
    box.setCheckState(box.checkableModel().index(1, 0), qt.Qt.Checked)
    assert [index.data() for index in box.checkedIndexes()] == ["T2"] and seen == [1]


# --- Nodes in widgets ----------------------------------------------------------------------------------------------


def test_node_selector_from_a_ui_file(load_ui):
    panel, ui = load_ui(properties=NODE_TYPES + '<property name="noneEnabled"><bool>true</bool></property>')
    assert not ui.thing.enabled
    panel.setMRMLScene(slicer.mrmlScene)
    volume = add_volume()
    add_volume("labels", "vtkMRMLLabelMapVolumeNode")
    assert ui.thing.enabled and ui.thing.currentNode() is None and ui.thing.nodeCount() == 2
    ui.thing.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    assert ui.thing.nodes() == [volume]
    ui.thing.setCurrentNodeID(volume.GetID())
    assert ui.thing.currentNode() is volume and ui.thing.currentNodeID == volume.GetID()


def selector(node_types=("vtkMRMLScalarVolumeNode",), **properties):
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = node_types
    for name, value in properties.items():
        setattr(box, name, value)
    box.setMRMLScene(slicer.mrmlScene)
    return box


def test_node_selector_selects_as_slicer_does(slicer_app):
    bare = selector(addEnabled=False, removeEnabled=False)
    with_actions, with_none = selector(), selector(noneEnabled=True)
    first, second, third = (add_volume(name) for name in "abc")
    assert bare.currentNode() is first  # a QComboBox takes the first row that comes
    assert with_actions.currentNode() is None and with_none.currentNode() is None
    assert selector(addEnabled=False, removeEnabled=False).currentNode() is None  # not what was there before
    for box in (bare, with_actions, with_none):
        box.setCurrentNode(third)
    slicer.mrmlScene.RemoveNode(third)
    assert {box.currentNode().GetName() for box in (bare, with_actions, with_none)} == {"b"}
    for box in (bare, with_actions, with_none):
        box.setCurrentNode(first)
    slicer.mrmlScene.RemoveNode(first)
    assert {box.currentNode().GetName() for box in (bare, with_actions, with_none)} == {"b"}
    slicer.mrmlScene.RemoveNode(second)
    assert {box.currentNode() for box in (bare, with_actions, with_none)} == {None}
    add_volume("d")
    slicer.mrmlScene.Clear(False)
    assert [box.nodeCount() for box in (bare, with_actions, with_none)] == [0, 0, 0]
    assert [box.currentNodeID for box in (bare, with_actions, with_none)] == ["", "", ""]


def test_node_selector_signals(slicer_app):
    box, nodes, ids, flags = selector(noneEnabled=True), [], [], []
    box.connect("currentNodeChanged(vtkMRMLNode*)", nodes.append)
    box.connect("currentNodeChanged(bool)", flags.append)
    box.connect("currentNodeIDChanged(QString)", ids.append)
    volume = add_volume()
    assert nodes == []
    box.setCurrentNode(volume)
    box.setCurrentNode(volume)
    box.setCurrentNode(None)
    assert nodes == [volume, None] and ids == [volume.GetID(), ""] and flags == [True, False]


def test_node_selector_adds_renames_and_deletes(slicer_app, dialogs):
    box = selector(("vtkMRMLTransformNode", "vtkMRMLTableNode"), renameEnabled=True, noneEnabled=True)
    box.baseName = "Result"
    added = []
    box.connect("nodeAddedByUser(vtkMRMLNode*)", added.append)
    host.choose(box, "Create new Transform")
    host.choose(box, "Create new Transform")
    assert [node.GetName() for node in added] == ["Result", "Result_1"] and box.currentNode() is added[1]
    assert box.addNode("vtkMRMLTableNode").GetClassName() == "vtkMRMLTableNode"
    dialogs.answer("QInputDialog.getText", "Lesions")
    host.choose(box, "Rename current node")
    assert box.currentNode().GetName() == "Lesions"
    host.choose(box, "Delete current node")
    assert box.nodes() == added[:2]
    host.choose(box, "None")
    assert box.currentNode() is None
    with pytest.raises(ValueError, match="Create new Model"):
        host.choose(box, "Create new Model")


def test_node_selector_by_attribute(slicer_app):
    box, synthetic = selector(noneEnabled=True), add_volume("synthetic")
    add_volume("real")
    synthetic.SetAttribute("IMT.Synthetic", "true")
    box.addAttribute("vtkMRMLScalarVolumeNode", "IMT.Synthetic", "true")
    assert box.nodes() == [synthetic]
    assert box.addNode().GetAttribute("IMT.Synthetic") == "true"
    box.removeAttribute("vtkMRMLScalarVolumeNode", "IMT.Synthetic")
    assert box.nodeCount() == 3


def test_checkable_node_selector_and_table_view(slicer_app):
    box = slicer.qMRMLCheckableNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer.mrmlScene)
    first, second = add_volume("a"), add_volume("b")
    box.setCheckState(second, qt.Qt.Checked)
    assert box.checkedNodes() == [second] and box.uncheckedNodes() == [first]
    table, view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode"), slicer.qMRMLTableView()
    slicer.util.updateTableFromArray(table, [np.array([1.5, 2.5])], ["Dice"])
    view.setMRMLTableNode(table)
    assert (view.rowCount, view.columnCount, view.item(1, 0).text()) == (2, 1, "2.5")
    view.item(0, 0).setText("9")
    assert table.GetCellText(0, 0) == "9"


# --- Scenes, files and pictures ------------------------------------------------------------------------------------


def test_scene_bundle_round_trip(slicer_app, tmp_path):
    volume = add_volume(value=7)
    volume.SetSpacing(1, 2, 3)
    volume.SetAttribute("IMT.Synthetic", "true")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "to T2")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    path = str(tmp_path / "scene with a space.mrb")
    assert slicer.util.saveScene(path, properties={})
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(path, properties={})
    again = slicer.util.getNode("T1")
    assert again.GetSpacing() == (1, 2, 3) and again.GetAttribute("IMT.Synthetic") == "true"
    assert again.GetParentTransformNode().GetName() == "to T2"
    assert np.array_equal(slicer.util.arrayFromVolume(again), np.full((8, 16, 16), 7))


@pytest.mark.parametrize("name", ["v.nrrd", "v.nii.gz", "v.mha"])
def test_volume_files(slicer_app, tmp_path, name):
    volume = add_volume(value=5)
    assert slicer.util.exportNode(volume, str(tmp_path / name), properties={})
    assert volume.GetStorageNode() is None
    loaded = slicer.util.loadVolume(str(tmp_path / name), properties={})
    assert loaded.GetName() == "v" and slicer.util.arrayFromVolume(loaded).max() == 5
    composite = slicer_app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == loaded.GetID()
    with pytest.raises(RuntimeError, match="File not found"):
        slicer.util.loadVolume(str(tmp_path / "none.nrrd"), properties={})


def test_screenshot_is_not_blank(slicer_app, tmp_path):
    panel = slicer.qMRMLWidget()
    layout = qt.QVBoxLayout(panel)
    layout.addWidget(qt.QPushButton("Translate"))
    layout.addWidget(ctk.ctkCollapsibleButton("Advanced"))
    panel.resize(200, 100)
    image = qt.QImage(str(host.screenshot(panel, tmp_path / "panel.png")))
    colours = {image.pixel(x, y) for x in range(0, 200, 2) for y in range(0, 100, 2)}
    assert (image.width(), image.height()) == (200, 100) and len(colours) > 10


def test_slice_view_shows_layers_segmentation_and_legend(slicer_app, tmp_path):
    """Grey background; red is foreground, green the label, blue the segment, each in its own quarter."""
    background = add_volume(value=100)
    background.GetDisplayNode().AutoWindowLevelOff()
    background.GetDisplayNode().SetWindowLevel(200, 100)

    def part(name, rows, columns, kind="vtkMRMLScalarVolumeNode", value=1):
        array = np.zeros((8, 16, 16), np.int16)
        array[:, rows, columns] = value
        return slicer.util.addVolumeFromArray(array, name=name, nodeClassName=kind)

    def count(view, channel):
        picture = view.array().astype(int)
        return int((picture[..., channel] > picture[..., [c for c in range(3) if c != channel]].max(axis=-1) + 60).sum())

    view = views.SliceView("Red", size=(160, 160)).show(background=background)
    assert [count(view, channel) for channel in range(3)] == [0, 0, 0]
    assert view.array().std() > 0 or view.array().max() > 0

    foreground = part("overlay", slice(0, 8), slice(0, 8))
    foreground.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
    foreground.GetDisplayNode().AutoWindowLevelOff()
    foreground.GetDisplayNode().SetWindowLevel(1, 0.5)
    view.show(background=background, foreground=foreground, opacity=1.0)
    red = count(view, 0)
    assert red > 500

    label = part("label", slice(0, 8), slice(8, 16), "vtkMRMLLabelMapVolumeNode", 12)  # 12 is green
    view.show(background=background, foreground=foreground, label=label)
    assert count(view, 1) > 500

    segments = part("segments", slice(8, 16), slice(8, 16), "vtkMRMLLabelMapVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "regions")
    segmentation.CreateDefaultDisplayNodes()
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(segments, segmentation)
    segmentation.GetSegmentation().GetNthSegment(0).SetColor(0, 0, 1)
    segmentation.GetDisplayNode().SetAllSegmentsOpacity2DFill(1.0)
    segmentation.GetDisplayNode().SetOpacity2DFill(1.0)
    assert count(view, 2) > 500

    before = view.array().copy()
    views.show_color_legend(background)
    assert (before != view.array()).any()
    assert view.save(tmp_path / "red.png").stat().st_size > 500

    assert segmentation.CreateClosedSurfaceRepresentation()
    assert count(views.ThreeDView(size=(160, 160)), 2) > 200


# --- Processes -----------------------------------------------------------------------------------------------------


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(ROOT / "Testing" / "harness"), str(ROOT / "IMTTranslate")])
    variables = dict(os.environ, PYTHONPATH=paths, **environment)
    return subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, text=True, timeout=300)


def test_headless_core_needs_no_qt():
    code = (
        "from slicer_harness.core import bootstrap_core; bootstrap_core(); bootstrap_core(); import slicer, sys, numpy\n"
        "node = slicer.util.addVolumeFromArray(numpy.zeros((2, 3, 4), numpy.uint8), name='T1')\n"
        "assert slicer.util.array('T1').shape == (2, 3, 4) and not slicer.app.testingEnabled()\n"
        "assert slicer.modules.volumes.logic() and slicer.app.layoutManager() is None and slicer.util.mainWindow() is None\n"
        "assert not {'qt', 'PySide6'} & set(sys.modules)"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr


def test_run_module_reports_what_went_wrong(tmp_path):
    module = tmp_path / "Sample.py"
    module.write_text(
        "from slicer.ScriptedLoadableModule import *\n"
        "class Sample(ScriptedLoadableModule):\n"
        "    pass\n"
        "class SampleWidget(ScriptedLoadableModuleWidget):\n"
        "    def setup(self):\n"
        "        import qt\n"
        "        self.button = qt.QPushButton('Go')\n"
        "        self.layout.addWidget(self.button)\n"
        "        self.button.connect('clicked(bool)', lambda: 1 / 0)\n"
        "class SampleTest(ScriptedLoadableModuleTest):\n"
        "    def runTest(self):\n"
        "        self.fail('on purpose')\n"
    )
    good = run_python("-m", "slicer_harness.run_module", str(module), "--screenshot", str(tmp_path / "panel.png"))
    assert good.returncode == 0 and (tmp_path / "panel.png").exists(), good.stderr
    assert run_python("-m", "slicer_harness.run_module", str(module), "--code", "widget.button.click()").returncode == 2
    failed = run_python("-m", "slicer_harness.run_module", str(module), "--test")
    assert failed.returncode == 1 and "on purpose" in failed.stderr


@pytest.mark.parametrize("module", ["slicer", "PySide6", "PySide6.QtWidgets"])
def test_panel_tests_are_skipped_where_something_is_missing(module):
    code = f"import sys; sys.modules[{module!r}] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    result = run_python("-c", code, "-p", "no:xdist", "-p", "no:cacheprovider", str(ROOT / "Testing" / "Slicer"))
    assert result.returncode == 0 and "skipped" in result.stdout and "passed" not in result.stdout, result.stdout
    assert "requirements/test.txt" in result.stdout and ("libegl1" in result.stdout) == ("Qt" in module)
