"""The reader study in the panel, as a reader has it: two images, an answer, no truth once the practice is over."""

from __future__ import annotations

import csv
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from translate_fixtures import head_array

PRACTICE, MAIN = 3, 5
GUARD = 0.02  # s; in the panel a press sooner than 0.2 s after the images is ignored


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small study: the phantom's T2 against a smooth one."""
    from scipy.ndimage import gaussian_filter

    from IMTCore.reader_study.making import StudyOptions, make_study
    from IMTCore.reader_study.pairs import Pair
    from IMTCore.volume import Geometry, Volume
    from IMTCore.volume_io import write_volume

    folder = tmp_path_factory.mktemp("Leser ö")
    head = head_array("T2").astype(np.float32)
    geometry = Geometry(head.shape, [2, 2, 6], [0, 0, 0], np.eye(3))
    smooth = np.where(head > 0, gaussian_filter(head, (0, 2, 2)), 0)
    for name, array in (("real", head), ("synthetic", smooth)):
        write_volume(folder / f"{name}.nrrd", Volume(array, geometry))
    pair = Pair("phantom", folder / "real.nrrd", folder / "synthetic.nrrd")
    return make_study([pair], folder / "study", StudyOptions(PRACTICE, MAIN, seed=1))[0]


@pytest.fixture
def study(original, tmp_path):
    """The same without answers."""
    from IMTCore.reader_study.trials import read_study

    shutil.copytree(original.folder, tmp_path / "Studie ö")
    return read_study(tmp_path / "Studie ö")


@pytest.fixture
def page(opened, slicer_app, monkeypatch):
    """The section of the panel, empty."""
    from IMTTranslatePanel import reader_study_window

    monkeypatch.setattr(reader_study_window, "SHORTEST_SECONDS", GUARD)
    page = opened.readerStudy
    page.widget.collapsed = False
    page.ui.studyPathLineEdit.currentPath = ""
    page.ui.readerLineEdit.text = ""
    yield page
    page.close()
    page.ui.studyPathLineEdit.currentPath = ""  # the folder goes with its test
    page.widget.collapsed = True


def choose_study(page, study, reader: str = "Ann"):
    page.ui.studyPathLineEdit.currentPath = str(study.folder)
    page.ui.readerLineEdit.text = reader


def start(page, study, reader: str = "Ann"):
    choose_study(page, study, reader)
    assert page.ui.studyStartButton.enabled, page.ui.studyStateLabel.text
    page.ui.studyStartButton.click()
    slicer.app.processEvents()
    return page.window


def press(window, button) -> None:
    time.sleep(1.5 * GUARD)
    button.click()


def answer(window, side: str) -> None:
    press(window, window.ui.leftButton if side == "left" else window.ui.rightButton)


def rows(study, reader: str = "Ann") -> list[dict]:
    path = study.folder / f"answers-{reader}.csv"
    return list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []


def shown(label) -> np.ndarray:
    """The pixels of an image label, grey."""
    picture = label.pixmap.toImage()
    return np.array([[picture.pixelColor(x, y).red() for x in range(0, picture.width(), 5)] for y in range(0, picture.height(), 5)])


def texts(window) -> str:
    """All that the window says."""
    names = ("questionLabel", "messageLabel", "leftImageLabel", "rightImageLabel")
    names += ("leftButton", "rightButton", "nextButton", "pauseButton")
    return " ".join(f"{getattr(window.ui, name).text} {getattr(window.ui, name).toolTip}" for name in names)


# --- The section ---------------------------------------------------------------------------------------------------


def test_the_section_says_what_is_missing(page, study):
    assert not page.ui.studyStartButton.enabled and "Choose the folder" in page.ui.studyStateLabel.text
    page.ui.studyPathLineEdit.currentPath = str(study.folder)
    assert "3 practice trials" in page.ui.studyStateLabel.text and "Enter your name" in page.ui.studyStateLabel.text
    assert not page.ui.studyStartButton.enabled
    page.ui.readerLineEdit.text = "Ann"
    assert page.ui.studyStartButton.enabled and page.ui.studyStartButton.text == "Start"
    page.ui.readerLineEdit.text = "a/b"
    assert not page.ui.studyStartButton.enabled and "reader's name" in page.ui.studyStateLabel.text


def test_a_folder_that_is_no_study_is_refused(page, tmp_path):
    page.ui.readerLineEdit.text = "Ann"
    page.ui.studyPathLineEdit.currentPath = str(tmp_path)
    assert "not a reader study" in page.ui.studyStateLabel.text and not page.ui.studyStartButton.enabled
    page.ui.studyPathLineEdit.currentPath = str(tmp_path / "none")
    assert "is no folder" in page.ui.studyStateLabel.text


def test_answers_of_another_study_are_not_gone_on_with(page, study):
    path = study.folder / "answers-Ann.csv"
    path.write_text("study,reader,trial,phase,answer,seconds,time\n0123456789abcdef,Ann,1,practice,left,1.0,\n", encoding="utf-8")
    choose_study(page, study)
    assert "another study" in page.ui.studyStateLabel.text and not page.ui.studyStartButton.enabled


# --- The trials ----------------------------------------------------------------------------------------------------


def test_the_practice_tells_the_truth_and_the_trials_do_not(page, study):
    window = start(page, study)
    for trial in study.trials[:PRACTICE]:
        assert "Practice" in window.ui.questionLabel.text
        assert not any(word in texts(window) for word in ("Right:", "Wrong:"))
        answer(window, "left")
        assert f"the {trial.side} image is synthetic" in window.ui.messageLabel.text
        assert ("Right:" in window.ui.messageLabel.text) == (trial.side == "left")
        framed = window.ui.leftImageLabel if trial.side == "left" else window.ui.rightImageLabel
        assert "transparent" not in framed.styleSheet and not window.ui.leftButton.enabled
        press(window, window.ui.nextButton)
    assert "practice is over" in window.ui.messageLabel.text and not window.ui.leftButton.enabled
    press(window, window.ui.nextButton)
    seen = set()
    for number in range(MAIN):
        assert f"Trial {number + 1} of {MAIN}" in window.ui.questionLabel.text
        assert window.ui.messageLabel.text == ""
        assert window.ui.leftImageLabel.styleSheet == window.ui.rightImageLabel.styleSheet
        seen.add(texts(window).replace(f"Trial {number + 1} of", ""))
        answer(window, "right")
    assert len(seen) == 1, "nothing that is said may depend on the truth"
    assert "Thank you" in window.ui.messageLabel.text


def test_the_two_images_of_the_trial_are_shown_on_their_sides_in_one_size(page, study):
    import SimpleITK as sitk

    window = start(page, study)
    for side, label in (("left", window.ui.leftImageLabel), ("right", window.ui.rightImageLabel)):
        picture = sitk.GetArrayFromImage(sitk.ReadImage(str(study.image_path(study.trials[0], side))))
        assert shown(label).mean() == pytest.approx(picture.mean(), rel=0.05)
        assert shown(label).shape[0] / shown(label).shape[1] == pytest.approx(picture.shape[0] / picture.shape[1], rel=0.05)
    assert shown(window.ui.leftImageLabel).shape == shown(window.ui.rightImageLabel).shape
    assert not np.array_equal(shown(window.ui.leftImageLabel), shown(window.ui.rightImageLabel))


def test_every_answer_is_on_the_disk_at_once_with_its_time(page, study):
    window = start(page, study)
    assert rows(study) == []
    time.sleep(0.3)
    answer(window, "right")
    (row,) = rows(study)
    assert (row["reader"], row["trial"], row["phase"], row["answer"]) == ("Ann", "1", "practice", "right")
    assert 0.3 <= float(row["seconds"]) < 3


def test_arrow_keys_answer_and_space_goes_on(page, study):
    window = start(page, study)
    for number, key in enumerate((Qt.Key_Left, Qt.Key_Right, Qt.Key_Left), start=1):
        time.sleep(1.5 * GUARD)
        QTest.keyClick(window._window, key)
        assert len(rows(study)) == number
        QTest.keyClick(window._window, key)  # no answer while the truth is told
        assert len(rows(study)) == number
        QTest.keyClick(window._window, Qt.Key_Space)
    assert [row["answer"] for row in rows(study)] == ["left", "right", "left"]


def test_a_double_click_answers_one_trial(page, study, monkeypatch):
    from IMTTranslatePanel import reader_study_window

    window = start(page, study)
    for _ in range(PRACTICE):
        answer(window, "left")
        press(window, window.ui.nextButton)
    press(window, window.ui.nextButton)
    monkeypatch.setattr(reader_study_window, "SHORTEST_SECONDS", 0.2)
    time.sleep(0.21)
    window.ui.leftButton.click()
    window.ui.leftButton.click()
    assert len(rows(study)) == PRACTICE + 1


def test_a_pause_hides_the_images_and_stops_the_clock(page, study):
    window = start(page, study)
    press(window, window.ui.pauseButton)
    assert window.ui.leftImageLabel.pixmap.isNull() and not window.ui.leftButton.enabled
    assert "Paused" in window.ui.messageLabel.text
    time.sleep(0.5)
    window.ui.pauseButton.click()
    assert not window.ui.leftImageLabel.pixmap.isNull() and "Practice 1 of" in window.ui.questionLabel.text
    answer(window, "left")
    assert 2 * GUARD < float(rows(study)[0]["seconds"]) < 0.4


def test_a_closed_study_goes_on_where_it_was_left_and_shows_the_result_only_at_the_end(page, study):
    window = start(page, study)
    for _ in range(PRACTICE):
        answer(window, "left")
        press(window, window.ui.nextButton)
    press(window, window.ui.nextButton)
    answer(window, study.trials[PRACTICE].side)
    window.close()
    assert page.window is None and page.ui.studyStartButton.text == "Resume"
    assert f"Ann has answered {PRACTICE + 1}" in page.ui.studyStateLabel.text and page.ui.studyResultLabel.isHidden()
    window = start(page, study)
    assert f"Trial 2 of {MAIN}" in window.ui.questionLabel.text
    for trial in study.trials[PRACTICE + 1 :]:
        answer(window, trial.side)
    window.close()
    assert "Fooled on 0 of 5 trials" in page.ui.studyResultLabel.text and not page.ui.studyResultLabel.isHidden()
    assert not page.ui.studyStartButton.enabled
    page.ui.readerLineEdit.text = "Bob"
    assert page.ui.studyResultLabel.isHidden() and page.ui.studyStartButton.enabled


def test_an_answer_that_cannot_be_stored_is_told_and_can_be_given_again(page, study):
    window = start(page, study)
    blocked: Path = study.folder / "answers-Ann.csv"
    blocked.mkdir()
    answer(window, "left")
    assert "Cannot write" in window.ui.messageLabel.text and not window.ui.leftButton.enabled
    blocked.rmdir()
    window.ui.pauseButton.click()
    answer(window, "left")
    assert len(rows(study)) == 1


def test_leaving_the_panel_closes_the_window_and_keeps_the_answers(study, slicer_app):
    from translate_fixtures import MODULE

    from slicer_harness import host

    widget = host.open_module(MODULE)
    window = start(widget.readerStudy, study)
    time.sleep(0.25)
    window.ui.leftButton.click()
    host.close_module(widget)
    assert widget.readerStudy.window is None and len(rows(study)) == 1
