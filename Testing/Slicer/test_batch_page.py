"""The batch in the panel, as its users have it: folders in and out, a table that follows, stop and resume, results in the scene."""

from __future__ import annotations

import csv
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
from panel_checks import ROOT, wait_until, without_tooltip
from segment_fixtures import segments
from translate_fixtures import MODULE, children, head_array, matrix_of, node_ids

from slicer_harness import host
from slicer_harness.host import choose

UI = ROOT / "IMTTranslate" / "Resources" / "UI" / "IMTBatch.ui"
MANY = 9
SECONDS = 180  # no batch of a test takes longer, on a busy machine either
CASES = ["anna", "berta", "clara"]


class Batch:
    """The open section as a user has it before the eyes."""

    def __init__(self, widget) -> None:
        self.widget, self.page, self.ui = widget, widget.batch, widget.batch.ui

    def choose(self, source: Path, output: Path, *models: str, segmenter: str = "") -> None:
        """Choose folders and models."""
        self.ui.batchInputPathLineEdit.currentPath = str(source)
        self.ui.batchOutputPathLineEdit.currentPath = str(output)
        self.settle()
        choose(self.ui.batchModalityComboBox, "T1")
        self.tick(*models)
        if segmenter:
            choose(self.ui.batchSegmenterComboBox, segmenter)

    def tick(self, *models: str) -> None:
        """Tick these translation models, and no others."""
        offered = self.ui.batchModelsListWidget
        for row in range(offered.count):
            item = offered.item(row)
            item.setCheckState(qt.Qt.Checked if item.text() in models else qt.Qt.Unchecked)

    def settle(self) -> None:
        """Wait until what was typed is taken in."""
        wait_until(lambda: not self.page._typing.active)

    def start(self, verb: str = "Start") -> None:
        """Click the button."""
        button = self.ui.batchStartButton
        assert button.enabled and button.text == verb, (button.text, button.toolTip)
        button.click()

    def wait(self) -> str:
        """Wait for the end; returns what the section says then."""
        wait_until(lambda: not self.page.isRunning(), SECONDS)
        return self.ui.batchStatusLabel.text

    def column(self, number: int) -> list[str]:
        """The texts of a column of the table."""
        table = self.ui.batchTableWidget
        return [table.item(row, number).text() for row in range(table.rowCount)]

    @property
    def states(self) -> dict[str, str]:
        """Case -> state, as the table shows them."""
        return dict(zip(self.column(0), self.column(1), strict=True))

    def row(self, case: str) -> int:
        """The row of a case."""
        return self.column(0).index(case)


def write_cases(folder: Path, names: list[str]) -> Path:
    """A folder with one small T1 for each case."""
    from IMTCore.volume import Geometry, Volume
    from IMTCore.volume_io import write_volume

    head = head_array("T1").astype(np.float32)
    for number, name in enumerate(names):
        geometry = Geometry(head.shape, [1, 1, 3], [number, -5, 7], np.eye(3))
        write_volume(folder / name / "T1.nii.gz", Volume(head + number * (head > 0), geometry))
    return folder


@dataclass(frozen=True)
class Finished:
    """A batch that has ended: three cases, the second of them broken; T2 by tiny-T1-T2, labels by tiny-tms."""

    cohort: Path
    output: Path
    states: dict[str, str]


@pytest.fixture(scope="module")
def originals(tmp_path_factory, opened):
    """Three cases, and many. (`opened`: the harness has started.)"""
    folder = tmp_path_factory.mktemp("Kohorte ö")
    write_cases(folder / "three", CASES)
    write_cases(folder / "many", [f"case{number}" for number in range(MANY)])
    return folder


def copy_with_one_broken(originals: Path, folder: Path) -> Path:
    """Three cases, the second of them cut off."""
    shutil.copytree(originals / "three", folder)
    image = folder / "berta" / "T1.nii.gz"
    image.write_bytes(image.read_bytes()[:2000])
    return folder


@pytest.fixture
def three(originals, tmp_path) -> Path:
    """Three cases, the second of them broken."""
    return copy_with_one_broken(originals, tmp_path / "Kohorte ö")


@pytest.fixture(scope="module")
def finished(originals, opened, segment_models, tmp_path_factory) -> Finished:
    """A batch that a script has run."""
    folder = tmp_path_factory.mktemp("fertig ö")
    cohort = copy_with_one_broken(originals, folder / "cohort")
    translator = segment_models.translators / "tiny-T1-T2.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMT_MODELS", str(segment_models.translators))
        segmenter = segment_models.segmenters / "tiny-tms.json"
        run = opened.logic.runBatch(cohort, folder / "results", translator, segmenter, device="auto")
    assert run.state == "finished" and run.plan.output == folder / "results"
    return Finished(cohort, folder / "results", {row.case: row.state for row in run.rows()})


@pytest.fixture
def many(originals) -> Path:
    return originals / "many"


@pytest.fixture
def batch(opened, slicer_app, tiny_models, temporary):
    """The section in a new scene, with tiny models; nothing may be left of the test."""
    qt.QSettings().remove("IMTTranslate")
    before = children()
    batch = Batch(opened)
    batch.page.widget.collapsed = False
    yield batch
    batch.page.stop()
    wait_until(lambda: children() <= before, 5)
    assert not list(temporary.iterdir())
    batch.tick()
    batch.ui.batchSegmenterComboBox.currentIndex = 0
    batch.ui.batchInputPathLineEdit.currentPath = batch.ui.batchOutputPathLineEdit.currentPath = ""
    batch.settle()
    batch.page.widget.collapsed = True
    qt.QSettings().remove("IMTTranslate")


def summary(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "summary.csv", newline="", encoding="utf-8") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def translations(folder: Path) -> dict[Path, int]:
    """The synthetic images and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*_desc-synthetic_*.nii.gz")}


# --- Before the start ----------------------------------------------------------------------------------------------


def test_everything_that_can_be_clicked_or_read_has_a_tooltip():
    assert not without_tooltip(UI)


def test_the_button_says_what_is_missing(batch, three, tmp_path):
    ui = batch.ui
    assert not ui.batchStartButton.enabled and "Choose the input" in ui.batchStartButton.toolTip
    ui.batchInputPathLineEdit.currentPath = str(three)
    batch.settle()
    assert "Choose the output folder" in ui.batchStartButton.toolTip
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    batch.settle()
    assert not ui.batchStartButton.enabled and "Tick at least one" in ui.batchStartButton.toolTip
    batch.tick("T2 by tiny-T1-T2")
    assert ui.batchStartButton.enabled and ui.batchStartButton.text == "Start"
    assert not ui.batchReportButton.enabled and not ui.batchFolderButton.enabled


def test_the_cases_are_listed_before_the_start(batch, three, tmp_path):
    batch.choose(three, tmp_path / "results")
    assert batch.states == dict.fromkeys(CASES, "") and "3 cases." in batch.ui.batchStatusLabel.text
    assert not (tmp_path / "results").exists()


def test_a_table_of_cases_is_chosen_with_its_button(batch, three, tmp_path, dialogs):
    table = tmp_path / "cases.csv"
    table.write_text(f"case,modality,path\nZoë,T1,{three / 'anna' / 'T1.nii.gz'}\n", encoding="utf-8")
    dialogs.answer("QFileDialog.getOpenFileName", str(table))
    batch.ui.batchTableButton.click()
    batch.settle()
    assert list(batch.states) == ["Zoë"]


def test_the_cases_of_a_bids_folder_are_listed_by_their_names(batch, three, tmp_path):
    image = tmp_path / "bids" / "sub-07" / "ses-2" / "anat" / "sub-07_ses-2_run-1_T1w.nii.gz"
    image.parent.mkdir(parents=True)
    shutil.copy(three / "anna" / "T1.nii.gz", image)
    batch.choose(tmp_path / "bids", tmp_path / "results")
    assert list(batch.states) == ["sub-07_ses-2_run-1"]


@pytest.mark.parametrize(("name", "says"), [("empty", "holds no T1 image"), ("none", "does not exist"), ("broken.csv", "lacks the column")])
def test_an_input_without_cases_is_refused_with_the_reason(batch, tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.csv").write_text("name\nanna\n", encoding="utf-8")
    batch.choose(tmp_path / name, tmp_path / "results", "T2 by tiny-T1-T2")
    assert says in batch.ui.batchStatusLabel.text and batch.ui.batchStatusLabel.styleSheet
    assert not batch.ui.batchStartButton.enabled and says in batch.ui.batchStartButton.toolTip
    assert batch.column(0) == []


def test_the_models_follow_the_modality_and_the_own_model_folder(batch, models):
    def offered() -> list[str]:
        rows = range(batch.ui.batchModelsListWidget.count)
        return [batch.ui.batchModelsListWidget.item(row).text() for row in rows]

    choose(batch.ui.batchModalityComboBox, "T1")
    assert "T2 by tiny-T1-T2" in offered() and "CT by tiny-T1-CT" not in offered()
    batch.widget._parameterNode.modelFolder = models
    assert "CT by tiny-T1-CT" in offered() and not any("tiny-any" in text for text in offered())
    choose(batch.ui.batchModalityComboBox, "T2")
    assert "T1 by tiny-T2-T1" in offered() and "T2 by tiny-T1-T2" not in offered()
    box = batch.ui.batchSegmenterComboBox
    assert {"(no segmentation)", "tissue: tiny-t2"} == {box.itemText(row) for row in range(box.count)}


# --- A whole batch -------------------------------------------------------------------------------------------------


def test_a_batch_does_all_cases_tells_of_the_broken_one_and_leaves_the_scene_alone(batch, three, tmp_path, dialogs):
    output, before = tmp_path / "Ergebnis ö", node_ids()
    batch.choose(three, output, "T2 by tiny-T1-T2", segmenter="tissue: tiny-given")
    batch.start()
    assert batch.ui.batchStartButton.text == "Stop" and not batch.ui.batchProgressBar.isHidden()
    assert not batch.ui.batchInputPathLineEdit.enabled and not batch.ui.batchModelsListWidget.enabled
    batch.widget.parent.exit()  # another module is opened meanwhile
    batch.wait()
    batch.widget.parent.enter()
    said = batch.ui.batchStatusLabel.text
    assert "3 cases: 2 done, 1 failed." in said and not batch.ui.batchStatusLabel.styleSheet
    assert batch.states == {"anna": "done", "berta": "failed", "clara": "done"}
    assert batch.ui.batchProgressBar.isHidden() and batch.ui.batchInputPathLineEdit.enabled
    row, table = batch.row("berta"), batch.ui.batchTableWidget
    message = summary(output)["berta"]["message"]
    assert "T1.nii.gz" in message and batch.column(2)[row] == "translate"
    assert "T1.nii.gz" in table.item(row, 1).toolTip()
    assert batch.ui.batchDetailLabel.isHidden()
    table.setCurrentCell(row, 0)
    assert batch.ui.batchDetailLabel.text == f"berta: {message}" and not batch.ui.batchDetailLabel.isHidden()
    assert float(batch.column(3)[batch.row("anna")]) > 0
    assert node_ids() == before
    # A failed case can be tried again; the others are not done twice.
    shutil.copy(three / "anna" / "T1.nii.gz", three / "berta" / "T1.nii.gz")
    written = translations(output)
    batch.start("Resume")
    assert "1 done, 2 finished before" in batch.wait()
    assert batch.states == {"anna": "finished before", "berta": "done", "clara": "finished before"}
    assert written.items() < translations(output).items() and len(translations(output)) == 3
    assert batch.ui.batchStartButton.text == "Start" and "All are finished" in batch.ui.batchStartButton.toolTip
    dialogs.answer("QDesktopServices.openUrl", True, True)
    batch.ui.batchReportButton.click()
    batch.ui.batchFolderButton.click()
    opened = [Path(arguments[0].toLocalFile()) for name, arguments in dialogs.asked if name == "QDesktopServices.openUrl"]
    assert opened == [output / "report.html", output]


def test_a_folder_with_another_plan_is_refused_with_what_differs(batch, finished):
    batch.choose(finished.cohort, finished.output, "T2 by tiny-T1-T2", segmenter="tissue: tiny-tms")
    assert batch.states == {"anna": "done", "berta": "failed", "clara": "done"}, "as the earlier run left them"
    before = summary(finished.output)
    batch.widget._parameterNode.seed = 7
    batch.start("Resume")
    said = batch.wait()
    assert "another plan" in said and "seed is 0 there and 7 here" in said and batch.ui.batchStatusLabel.styleSheet
    assert summary(finished.output) == before and batch.states["anna"] == "done"
    batch.widget._parameterNode.seed = 0
    batch.tick()
    assert "another plan" in batch.ui.batchStatusLabel.text, "it stays until folders are chosen or a batch is started"


def test_an_output_that_is_a_file_is_one_clear_error(batch, three, tmp_path):
    (tmp_path / "results").write_text("mine", encoding="utf-8")
    batch.choose(three, tmp_path / "results", "T2 by tiny-T1-T2")
    batch.start()
    said = batch.wait()
    assert "results is a file" in said and batch.ui.batchStatusLabel.styleSheet
    assert (tmp_path / "results").read_text(encoding="utf-8") == "mine"


# --- Results in the scene ------------------------------------------------------------------------------------------


def test_a_double_click_loads_the_case_marked_as_synthetic_and_only_once(batch, finished, tmp_path):
    batch.choose(finished.cohort, finished.output)
    table, before = batch.ui.batchTableWidget, node_ids()
    table.cellDoubleClicked.emit(batch.row("berta"), 0)  # failed
    assert node_ids() == before
    table.cellDoubleClicked.emit(batch.row("clara"), 1)
    given, synthetic = slicer.util.getNode("clara T1"), slicer.util.getNode("clara T1 T2 (synthetic)")
    assert synthetic.GetAttribute("IMT.Synthetic") == "true" and synthetic.GetAttribute("IMT.Model") == "tiny-T1-T2"
    np.testing.assert_allclose(matrix_of(synthetic), matrix_of(given), atol=1e-6)
    assert np.corrcoef(*(slicer.util.arrayFromVolume(node).ravel() > 0 for node in (given, synthetic)))[0, 1] > 0.9
    labels = slicer.util.getNode("clara T1 tissue (from a synthetic image)")
    assert set(segments(labels)) == {"CSF", "grey matter", "white matter"}
    assert labels.GetAttribute("IMT.DerivedFromSynthetic") == "true"
    loaded = node_ids()
    table.cellDoubleClicked.emit(batch.row("clara"), 1)
    assert node_ids() == loaded
    assert slicer.util.exportNode(synthetic, str(tmp_path / "other.nrrd"), properties={})
    assert slicer.util.saveNode(synthetic, str(tmp_path / "saved.nrrd"))
    assert '"synthetic": true' in (tmp_path / "saved.json").read_text(encoding="utf-8"), "the mark goes with the file"


def test_a_result_that_was_cut_off_is_refused_and_the_scene_stays_as_it_was(batch, finished, tmp_path):
    output = shutil.copytree(finished.output, tmp_path / "results")
    (path,) = (path for path in translations(output) if "anna" in path.name)
    path.write_bytes(path.read_bytes()[:-400])
    batch.choose(finished.cohort, output)
    slicer.mrmlScene.GetSubjectHierarchyNode()  # is made when it is first asked for
    before = node_ids()
    batch.ui.batchTableWidget.cellDoubleClicked.emit(batch.row("anna"), 0)
    assert node_ids() == before
    assert path.name in batch.ui.batchStatusLabel.text and batch.ui.batchStatusLabel.styleSheet
    (finished.cohort / "clara").rename(tmp_path / "moved")
    try:
        batch.ui.batchTableWidget.cellDoubleClicked.emit(batch.row("clara"), 0)
        assert node_ids() == before and "is not there any more" in batch.ui.batchStatusLabel.text
    finally:
        (tmp_path / "moved").rename(finished.cohort / "clara")


# --- Stop and resume -----------------------------------------------------------------------------------------------


def run_until_some_are_done(batch, verb: str = "Start") -> None:
    """Start a batch and wait until the table shows two cases done in this run, others not."""
    batch.start(verb)
    if verb == "Resume":
        wait_until(lambda: "finished before" in batch.states.values(), SECONDS)
    wait_until(lambda: sum(state == "done" for state in batch.states.values()) >= 2, SECONDS)
    assert batch.page.isRunning()


def test_a_batch_goes_on_where_it_was_stopped_or_the_scene_was_closed(batch, many, tmp_path):
    output, before = tmp_path / "results", children()
    batch.choose(many, output, "T2 by tiny-T1-T2")
    run_until_some_are_done(batch)
    began = time.monotonic()
    batch.ui.batchStartButton.click()
    assert not batch.page.isRunning() and time.monotonic() - began < 1.5
    wait_until(lambda: children() <= before, 2)
    assert batch.ui.batchStatusLabel.text.startswith("Stopped.")
    done = {case for case, state in batch.states.items() if state == "done"}
    assert 2 <= len(done) < MANY and "running" not in batch.states.values()
    written = {path: time for path, time in translations(output).items() if any(case in path.name for case in done)}
    assert len(written) == len(done)

    run_until_some_are_done(batch, "Resume")
    slicer.mrmlScene.Clear(False)
    assert not batch.page.isRunning() and "Stopped." in batch.ui.batchStatusLabel.text
    wait_until(lambda: children() <= before, 2)

    batch.start("Resume")
    batch.wait()
    assert {case for case, state in batch.states.items() if state == "finished before"} > done
    assert set(batch.states.values()) <= {"done", "finished before"} and len(translations(output)) == MANY
    assert written.items() <= translations(output).items(), "what was finished was not written again"


def test_closing_the_panel_ends_the_batch_and_a_new_panel_offers_to_resume(tiny_models, nothing_left, many, tmp_path, open_module):
    first = Batch(host.open_module(MODULE))
    first.page.widget.collapsed = False
    first.choose(many, tmp_path / "results", "T2 by tiny-T1-T2")
    run_until_some_are_done(first)
    host.close_module(first.widget)
    assert not first.page.isRunning()
    again = Batch(open_module(MODULE))
    assert again.column(0) == [], "nothing is read while the section is closed"
    again.page.widget.collapsed = False
    again.settle()
    assert again.ui.batchStartButton.text == "Resume" and again.ui.batchStartButton.enabled
    assert list(again.states.values()).count("done") >= 2


# --- Without a panel -----------------------------------------------------------------------------------------------


def test_a_script_reads_how_each_case_ended_and_loads_one(logic, finished):
    assert finished.states == {"anna": "done", "berta": "failed", "clara": "done"}
    given, synthetic, labels = logic.loadBatchCase(finished.output, "anna")
    assert given.GetName() == "anna T1" and synthetic.GetAttribute("IMT.Synthetic") == "true"
    assert labels.IsA("vtkMRMLSegmentationNode")
    with pytest.raises(ValueError, match="no record of a case otto"):
        logic.loadBatchCase(finished.output, "otto")
    with pytest.raises(ValueError, match="Nothing of berta is finished"):
        logic.loadBatchCase(finished.output, "berta")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"models": []}, "Tick at least one"),
        ({"models": ["tiny-T1-T2"], "trustMap": True}, "no trust maps"),
        ({"models": ["none-such"]}, "none-such"),
        ({"models": ["tiny-T1-T2"], "inputPath": "nowhere"}, "does not exist"),
        ({"models": ["tiny-T1-T2"], "outputFolder": ""}, "output folder"),
    ],
)
def test_a_batch_that_cannot_be_is_a_value_error_and_writes_nothing(logic, tiny_models, three, tmp_path, arguments, says):
    arguments = {"inputPath": three, "outputFolder": tmp_path / "results", **arguments}
    with pytest.raises(ValueError, match=says):
        logic.runBatch(**arguments)
    assert not list((tmp_path / "results").glob("sub-*"))


def test_the_time_left_is_not_told_by_cases_that_were_finished_before(slicer_app, opened):
    from IMTTranslatePanel.batch_rows import BatchRow
    from IMTTranslatePanel.batch_run import TimeLeft

    now = 0.0
    left = TimeLeft(lambda: now)
    before = [BatchRow(f"old{number}", "skipped", seconds=0.01) for number in range(50)]
    waiting = [BatchRow(f"new{number}", "waiting") for number in range(10)]
    assert left.update(50 / 60, before + waiting) is None
    now = 2.0
    assert left.update(50.2 / 60, before + waiting) == pytest.approx(98)  # 10 s each, 2 s of them over
    now = 10.0
    waiting[0] = BatchRow("new0", "done", seconds=10.0)
    assert left.update(51 / 60, before + waiting) == pytest.approx(90)
    waiting[1] = BatchRow("new1", "failed", seconds=0.1)
    assert left.update(52 / 60, before + waiting) == pytest.approx(80)
    now = 15.0
    assert left.update(52.5 / 60, before + waiting) == pytest.approx(75)
