"""What the panel says when something is wrong; the scene stays as it was each time, and the logic says the same."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest
import slicer
from translate_fixtures import SAMPLES, add_head, bad_volumes, copy_models, node_ids

from slicer_harness.host import choose


def tiny(panel, node=None):
    """Choose an input and the tiny model."""
    node = node or add_head("Kopf T1")
    panel.parameters.inputVolume = node
    choose(panel.ui.modalityComboBox, "T1")
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    return node


def assert_refused(panel, *words: str) -> str:
    """Click Translate: one message with these words, nothing new in the scene; returns the message."""
    before = node_ids()
    text = panel.translate()
    assert all(word in text for word in words), text
    assert "\n" not in text and "Traceback" not in text
    assert node_ids() == before and panel.ui.applyButton.text == "Translate" and panel.ui.applyButton.enabled
    assert f"Error: {text}" in panel.ui.logTextEdit.plainText and "color" in panel.ui.statusLabel.styleSheet
    assert not panel.is_shown(panel.ui.progressBar)
    return text


# --- Input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["NaN", "4D", "empty volume"])
def test_a_volume_that_cannot_be_translated_is_named_in_panel_and_logic_alike(panel, what):
    make, words = bad_volumes()[what]
    node = make()
    choose(panel.ui.inputSelector, node.GetName())
    assert panel.ui.inputSelector.currentNode() is node
    choose(panel.ui.modalityComboBox, "T1")
    text = assert_refused(panel, words, node.GetName())
    with pytest.raises(ValueError) as caught:
        panel.widget.logic.translate(node, "T1-T2")
    assert str(caught.value) == text


def test_label_maps_and_colour_images_are_not_offered_as_input(panel):
    make = bad_volumes()
    make["label map"][0](), make["vector"][0](), add_head("Kopf T1")
    assert [node.GetName() for node in panel.ui.inputSelector.nodes()] == ["Kopf T1"]


def test_a_constant_image_is_refused_by_its_name_in_the_scene(panel):
    node = tiny(panel)
    slicer.util.arrayFromVolume(node)[:] = 100
    slicer.util.arrayFromVolumeModified(node)
    text = assert_refused(panel, "Kopf T1 is constant")
    with pytest.raises(ValueError) as caught:
        panel.widget.logic.translate(node, "T1-T2")
    assert str(caught.value) == text


def test_a_volume_of_another_modality_is_recognised_and_refused_until_the_user_insists(panel):
    node = slicer.util.loadVolume(str(SAMPLES / "IMT-phantom-T2.nii.gz"), properties={"name": "Series 7", "show": False})
    choose(panel.ui.inputSelector, "Series 7")
    assert panel.ui.guessLabel.text == "Taken for T2 by the image itself."
    choose(panel.ui.modalityComboBox, "T1")
    assert not panel.is_shown(panel.ui.guessLabel)
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    text = assert_refused(panel, "Series 7 looks like a T2 image", "under Advanced", "checkModality=False")
    assert "--" not in text
    panel.ui.checkModalityCheckBox.click()
    assert panel.translate().startswith("Made Series 7 T2 (synthetic)")
    assert node.GetAttribute("IMT.Synthetic") is None


# --- Models --------------------------------------------------------------------------------------------------------


def test_a_model_folder_that_is_missing_is_told(panel, tmp_path):
    panel.ui.modelFolderPathLineEdit.currentPath = str(tmp_path / "fehlt")
    assert panel.ui.noModelLabel.text == f"The model folder {tmp_path / 'fehlt'} does not exist."
    assert panel.is_shown(panel.ui.noModelLabel) and "tiny-T1-T2" not in panel.offered()["T2"]


def test_a_model_folder_without_models_is_told(panel, tmp_path):
    panel.ui.modelFolderPathLineEdit.currentPath = str(tmp_path)
    assert "holds no models" in panel.ui.noModelLabel.text and str(tmp_path) in panel.ui.noModelLabel.text


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not valid JSON"), ("[]", "not usable"), ('{"format": 1, "name": 7}', "not usable"), ("\udcff", "not valid")],
)
def test_a_broken_card_is_told_and_the_other_models_stay(panel, tmp_path, text, words):
    (tmp_path / "broken.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    panel.ui.modelFolderPathLineEdit.currentPath = str(tmp_path)
    assert words in panel.ui.noModelLabel.text and "broken.json" in panel.ui.noModelLabel.text
    assert "T1-T2" in panel.offered()["T2"]


def damage_weights(folder: Path) -> None:
    weights = folder / "tiny-T1-T2.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 0xFF
    weights.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "word"),
    [(damage_weights, "SHA-256"), (lambda folder: (folder / "tiny-T1-T2.safetensors").unlink(), "tiny-T1-T2.safetensors")],
    ids=["damaged", "missing"],
)
def test_damaged_or_missing_weights_are_named_and_nothing_is_made(panel, models, tmp_path, damage, word):
    folder = copy_models(models, tmp_path / "mo dels ö")
    damage(folder)
    panel.ui.modelFolderPathLineEdit.currentPath = str(folder)
    node = tiny(panel)
    text = assert_refused(panel, word)
    before = node_ids()
    with pytest.raises(ValueError) as caught:
        panel.widget.logic.translate(node, str(folder / "tiny-T1-T2.json"))
    assert str(caught.value) == text and node_ids() == before


def test_a_model_removed_after_it_was_chosen_is_named(panel, models, tmp_path):
    folder = copy_models(models, tmp_path / "own")
    panel.ui.modelFolderPathLineEdit.currentPath = str(folder)
    tiny(panel)
    for path in folder.iterdir():
        path.unlink()
    assert_refused(panel, "tiny-T1-T2.json", "cannot be read")


def test_a_card_of_another_hand_is_shown(panel, models, tmp_path):
    folder = copy_models(models, tmp_path / "own")
    card = json.loads((folder / "tiny-T1-T2.json").read_text(encoding="utf-8"))
    card["training"]["data"] = ["<b>any text</b>", {"name": "ADNI"}, {"name": "IXI", "subjects": 7}]
    card["metrics"] = ["a text", {"method": "tiny-T1-T2", "region": "volume", "psnr": None, "ssim": "x"}]
    (folder / "tiny-T1-T2.json").write_text(json.dumps(card), encoding="utf-8")
    panel.ui.modelFolderPathLineEdit.currentPath = str(folder)
    choose(panel.ui.modelT2ComboBox, "tiny-T1-T2")
    assert "Learned from: <b>any text</b>; ADNI; IXI (7)" in panel.ui.modelTextBrowser.plainText


# --- The worker ----------------------------------------------------------------------------------------------------


class Crashing:
    """A process that ends as if the system had killed it."""

    pid, exitCode = 1, -9

    def start(self, command, environment):
        pass

    def isRunning(self):
        return False

    def readLines(self):
        return [("stderr", "the last words")]

    def writeLine(self, text):
        pass

    closeInput = killTree = lambda self: None


def test_a_process_that_the_system_kills_is_told(panel):
    tiny(panel)
    panel.translate()
    worker = panel.widget.panel._worker
    worker.stop()
    make, worker._makeProcess = worker._makeProcess, Crashing
    before = node_ids()
    text = panel.translate()
    worker._makeProcess = make
    assert "killed" in text and "memory" in text and "the last words" in text and node_ids() == before
    worker.stop()
    worker._process = None
    assert panel.translate().startswith("Made ")


def test_a_temporary_folder_that_cannot_be_made_is_told(panel, tmp_path, monkeypatch):
    tiny(panel)
    (tmp_path / "file").touch()
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "file" / "below"))
    assert_refused(panel, "below")


# --- What must be installed ----------------------------------------------------------------------------------------


@pytest.fixture
def no_torch(monkeypatch):
    """Python without torch."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name, *more))


def provide_torch_extension(monkeypatch, calls: list) -> None:
    """Slicer's PyTorch extension, whose user says no."""
    module = types.ModuleType("PyTorchUtils")
    module.__spec__ = importlib.machinery.ModuleSpec("PyTorchUtils", None)
    logic = types.SimpleNamespace(installTorch=lambda **options: calls.append(options))
    module.PyTorchUtilsLogic = lambda: logic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)


def test_without_torch_the_panel_and_the_logic_say_what_to_install(panel, no_torch):
    node = tiny(panel)
    text = assert_refused(panel, "PyTorch extension", "Extensions Manager")
    with pytest.raises(RuntimeError) as caught:
        panel.widget.logic.translate(node, "T1-T2")
    assert str(caught.value) == text
    with pytest.raises(RuntimeError, match="PyTorch extension"):
        panel.widget.logic.evaluate(node, add_head("T2", "T2"))


def test_without_a_main_window_nothing_is_installed_and_nothing_is_asked(panel, no_torch, monkeypatch, dialogs):
    installed = []
    provide_torch_extension(monkeypatch, installed)
    tiny(panel)
    assert_refused(panel, "PyTorch")
    assert not installed and not dialogs.asked


def test_with_a_main_window_torch_is_installed_only_with_consent(panel, no_torch, monkeypatch):
    asked = []
    provide_torch_extension(monkeypatch, asked)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: object())
    tiny(panel)
    assert_refused(panel, "PyTorch", "not installed")
    assert asked == [{"askConfirmation": True}]


def test_missing_packages_are_named_and_installed_only_after_a_yes(panel, monkeypatch, dialogs):
    from slicer import packaging

    node = tiny(panel)
    monkeypatch.setattr(packaging, "pip_check", lambda requirement: "nibabel" not in str(requirement))
    text = assert_refused(panel, "nibabel", "PythonSlicer -m pip install")
    assert "safetensors" not in text
    with pytest.raises(RuntimeError) as caught:
        panel.widget.logic.translate(node, "T1-T2")
    assert str(caught.value) == text and not dialogs.asked
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: object())
    wanted = []

    def decline(requirements, **options):
        wanted.append((sorted(str(one) for one in requirements), options.get("prompt_install", True)))
        raise RuntimeError("User declined package installation")

    monkeypatch.setattr(packaging, "pip_ensure", decline)
    assert_refused(panel, "declined")
    assert wanted == [(["nibabel>=5.2", "safetensors>=0.4.3"], True)]
