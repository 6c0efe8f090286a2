"""The life of the module: opening and what it costs, settings, leaving, reload, sample data, its own test."""

from __future__ import annotations

import importlib
import json

import pytest
import qt
import SampleData
import slicer
from panel_checks import HEAVY, ROOT, modules_of_opening, run_own_test, wait_until
from translate_fixtures import MODULE, Panel, add_head, children

from slicer_harness import host
from slicer_harness.host import choose

SLOW_IMPORT_US = 200_000

# --- Settings, reload ----------------------------------------------------------------------------------------------


def test_settings_are_remembered_in_a_new_scene_and_a_new_panel_but_not_the_input(nothing_left, open_module, models):
    panel = Panel(open_module(MODULE))
    panel.ui.keepModelCheckBox.click()
    panel.parameters.modelFolder = models
    add_head("Kopf T1")
    choose(panel.ui.inputSelector, "Kopf T1")
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    panel.ui.uncertaintyCheckBox.checked, panel.ui.samplesSpinBox.value = True, 3
    panel.ui.batchSpinBox.value, panel.ui.seedSpinBox.value = 5, 9
    choose(panel.ui.deviceComboBox, "cpu")
    choose(panel.ui.precisionComboBox, "fp32")
    panel.translate()
    pid = panel.widget.panel._worker.pid
    slicer.mrmlScene.Clear(False)
    assert panel.widget.panel._worker.pid == pid  # a new scene is no reason to load the model again
    for ui in (panel.ui, open_module(MODULE).ui):
        assert (ui.uncertaintyCheckBox.checked, ui.samplesSpinBox.value, ui.batchSpinBox.value) == (True, 3, 5)
        assert (ui.deviceComboBox.currentText, ui.precisionComboBox.currentText) == ("cpu", "fp32")
        assert ui.keepModelCheckBox.checked and ui.modelFolderPathLineEdit.currentPath == str(models)
        assert ui.seedSpinBox.value == 0 and ui.inputSelector.currentNode() is None


@pytest.mark.parametrize(("name", "value"), [("samples", "1000"), ("samples", "many"), ("device", "abacus"), ("batch", "")])
def test_settings_of_another_version_do_no_harm(nothing_left, open_module, name, value):
    qt.QSettings().setValue(f"IMTTranslate/{name}", value)
    slicer.mrmlScene.Clear(False)
    parameters = Panel(open_module(MODULE)).parameters
    assert getattr(parameters, name) == parameters.default(name).value


def test_reloading_the_module_ends_its_runs_and_works_again(nothing_left, open_module, models):
    widget = open_module(MODULE)
    panel = Panel(widget)
    panel.parameters.keepModelLoaded, panel.parameters.modelFolder = True, models
    node = add_head("Kopf T1")
    choose(panel.ui.inputSelector, "Kopf T1")
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    before = children()
    panel.translate()
    assert children() != before
    panel.start()
    widget.onReload()
    wait_until(lambda: children() <= before, 2)
    again = Panel(slicer.modules.IMTTranslateWidget)
    assert again.widget is not widget and again.ui.inputSelector.currentNode() is node
    assert again.ui.modelT2ComboBox.currentData == "tiny-T1-T2" and type(again.widget.panel) is not type(widget.panel)
    names = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    again.translate()
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == names + 1


# --- Opening -------------------------------------------------------------------------------------------------------

def test_opening_the_panel_and_choosing_a_volume_imports_nothing_heavy():
    slow: dict[str, int] = {}
    for _ in range(3):  # on a busy machine any import may take long once
        new, said = modules_of_opening(MODULE, "", "-X", "importtime")
        assert "IMTTranslatePanel.controller" in new
        assert not {name.split(".")[0] for name in new} & HEAVY
        lines = [line for line in said.splitlines() if line.startswith("import time:") and "cumulative" not in line]
        times = {name.strip(): int(total) for _own, total, name in (line.split("|") for line in lines)}
        assert "IMTTranslatePanel.controller" in times
        slow = {name: times[name] for name in new if times.get(name, 0) > SLOW_IMPORT_US}
        if not slow:
            break
    assert not slow


def test_the_phantoms_are_offered_in_the_sample_data_module_and_load_without_a_network(slicer_app):
    host.load_module(MODULE)
    sources = slicer.modules.sampleDataSources["IMT"]
    listed = json.loads((ROOT / "IMTTranslate/Resources/IMT-sample-data/IMT-sample-data.json").read_text(encoding="utf-8"))
    assert sorted(source.sampleName for source in sources) == sorted(entry["name"] for entry in listed)
    for source in sources:
        assert source.checksums[0].startswith("SHA256:") and source.uris[0].startswith("file://")
        node = SampleData.downloadSample(source.sampleName)
        assert node.GetName() == source.nodeNames[0] and slicer.util.arrayFromVolume(node).max() > 0


def test_the_modules_own_test_passes():
    run_own_test(MODULE)


def test_help_and_acknowledgement_name_both_papers_and_the_purpose(slicer_app):
    module = host.load_module(MODULE)
    assert "not for diagnosis" in module.helpText
    assert all(word in module.acknowledgementText for word in ("Yang", "Scientific Reports", "Avula"))


# --- The first translation -----------------------------------------------------------------------------------------


def test_a_shipped_model_translates_by_four_clicks_and_no_process_stays(nothing_left, open_module):
    panel = Panel(open_module(MODULE))
    before = children()
    add_head("Kopf T1")
    choose(panel.ui.inputSelector, "Kopf T1")
    panel.start()
    assert panel.ui.applyButton.text == "Cancel" and panel.is_shown(panel.ui.progressBar)
    assert "stays as it is" in panel.ui.applyButton.toolTip
    panel.wait()
    assert panel.ui.applyButton.text == "Translate" and not panel.is_shown(panel.ui.progressBar)
    assert panel.ui.statusLabel.text.startswith("Made Kopf T1 T2 (synthetic) in ")
    node = slicer.util.getNode("Kopf T1 T2 (synthetic)")
    assert node.GetAttribute("IMT.Model") == "T1-T2" and slicer.util.arrayFromVolume(node).std() > 1
    assert children() == before


@pytest.mark.parametrize("name", ["IMTTranslate", "IMTRegister", "IMTSegment"])
def test_a_panel_made_without_a_parent_leaves_no_observer_behind(slicer_app, name):
    host.load_module(ROOT / name / f"{name}.py")
    widget = getattr(importlib.import_module(name), f"{name}Widget")()
    assert any(node is slicer.mrmlScene for node, *_more in widget.Observations), "they would stay for ever"
    widget._onModuleAboutToBeUnloaded(name)
    assert not widget.Observations
    widget.parent.deleteLater()
