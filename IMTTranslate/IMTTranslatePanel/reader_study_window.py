"""The window of a reader study: two images, one of them synthetic, and the reader's answer."""

from __future__ import annotations

import time

import qt
import slicer
from slicer.i18n import tr as _

from IMTCore.errors import ImtError
from IMTCore.reader_study.answers import AnswerLog
from IMTCore.reader_study.trials import Trial
from IMTSlicerLib.signals import Signal

# A second press of a key or a mouse button that was meant for the trial before is no answer.
SHORTEST_SECONDS = 0.2
IMAGE_SHARE = (0.45, 0.65)  # of the main window's width and height, for one image
WINDOW_SIZE = (1200, 800)  # without a main window
SYNTHETIC_FRAME = "border: 3px solid #e67e22"
NO_FRAME = "border: 3px solid transparent"
FRAME = 3


class TrialWindow:
    """Shows the trials that a reader has not answered yet, one by one; each answer is on the disk before the next trial.

    In practice it says after each answer which image was synthetic; afterwards it never does.

    :param log: the reader's answers so far.
    :param uiPath: the window's .ui file.
    """

    def __init__(self, log: AnswerLog, uiPath: str) -> None:
        #: the reader has closed the window, or all trials are answered and it was closed
        self.closed = Signal()
        self._log = log
        self._trial: Trial | None = None
        self._state = "idle"  # "trial", "feedback", "break", "paused" or "done"
        self._shownAt = self._secondsBefore = 0.0
        self._window = slicer.util.loadUI(uiPath)
        if slicer.util.mainWindow() is not None:
            self._window.setParent(slicer.util.mainWindow(), qt.Qt.Window)
        self.ui = ui = slicer.util.childWidgetVariables(self._window)
        self._size = self._imageSize()
        for label in (ui.leftImageLabel, ui.rightImageLabel):
            label.setFixedSize(self._size.width() + 2 * FRAME, self._size.height() + 2 * FRAME)
        ui.trialProgressBar.maximum = len(log.study.trials)
        ui.leftButton.connect("clicked(bool)", lambda: self.answer("left"))
        ui.rightButton.connect("clicked(bool)", lambda: self.answer("right"))
        ui.nextButton.connect("clicked(bool)", self.goOn)
        ui.pauseButton.connect("clicked(bool)", self.togglePause)
        keys = {"Left": ui.leftButton, "Right": ui.rightButton, "Space": ui.nextButton, "P": ui.pauseButton}
        self._shortcuts = [self._connectKey(key, button) for key, button in keys.items()]
        self._window.connect("finished(int)", self._onFinished)

    def _connectKey(self, key: str, button):
        shortcut = qt.QShortcut(self._window)
        shortcut.setKey(qt.QKeySequence(key))
        shortcut.autoRepeat = False
        shortcut.connect("activated()", button.click)  # does nothing while the button is not enabled
        return shortcut

    def _imageSize(self):
        """One size for all images of the study: as large as two fit beside each other, in steps of a quarter."""
        main = slicer.util.mainWindow()
        width, height = (main.width, main.height) if main is not None else WINDOW_SIZE
        size = self._log.study.content["image_size"]
        factor = min(IMAGE_SHARE[0] * width / size["columns"], IMAGE_SHARE[1] * height / size["rows"])
        factor = max(0.25, int(4 * factor) / 4)
        return qt.QSize(int(factor * size["columns"]), int(factor * size["rows"]))

    def open(self) -> None:
        """Show the window with the first trial without an answer."""
        self._window.show()
        self._window.activateWindow()
        self._showNext()

    def close(self) -> None:
        """Close the window. Nothing is lost: every answer is stored."""
        self._window.close()

    def _onFinished(self, *_unused) -> None:
        self._state = "idle"
        self._window.deleteLater()
        self.closed.emit()

    # ---- trials

    def _showNext(self) -> None:
        before, self._trial = self._trial, self._log.next_trial()
        self._secondsBefore = 0.0
        if self._trial is None:
            self._enter("done", _("All trials are answered. Thank you. Close this window to see the result."))
        elif self._trial.phase == "main" and before is not None and before.phase == "practice":
            text = _("The practice is over. {count} trials follow, and no truth is told any more. Press Next to begin.")
            self._enter("break", text.format(count=self._log.study.count("main")))
        else:
            self._showTrial()

    def _showTrial(self) -> None:
        ui, study = self.ui, self._log.study
        for side, label in (("left", ui.leftImageLabel), ("right", ui.rightImageLabel)):
            path = study.image_path(self._trial, side)
            pixmap = qt.QPixmap(str(path))
            if pixmap.isNull():
                text = _("{path} cannot be read. Copy the study's folder again; your answers are kept.").format(path=path)
                self._enter("paused", text)
                return
            label.setPixmap(pixmap.scaled(self._size, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))
        self._enter("trial", "")
        self._shownAt = time.monotonic()

    def _enter(self, state: str, message: str) -> None:
        """Go into a state: what is shown and what can be pressed."""
        ui = self.ui
        self._state = state
        ui.messageLabel.text = message
        if state not in ("trial", "feedback"):
            for label in (ui.leftImageLabel, ui.rightImageLabel):
                label.clear()
        if state != "feedback":
            ui.leftImageLabel.styleSheet = ui.rightImageLabel.styleSheet = NO_FRAME
        for button in (ui.leftButton, ui.rightButton):
            button.enabled = state == "trial"
        ui.nextButton.enabled = state in ("feedback", "break")
        ui.nextButton.visible = self._log.study.count("practice") > 0
        ui.pauseButton.enabled = state in ("trial", "paused")
        ui.pauseButton.text = _("Go on (P)") if state == "paused" else _("Pause (P)")
        ui.questionLabel.text = self._heading()
        ui.trialProgressBar.value = len(self._log.answers)

    def _heading(self) -> str:
        if self._state in ("break", "done") or self._trial is None:
            return ""
        study = self._log.study
        if self._trial.phase == "practice":
            values = {"number": self._trial.number, "count": study.count("practice")}
            return _("<b>Which image is synthetic?</b> &nbsp; Practice {number} of {count}").format(**values)
        values = {"number": self._trial.number - study.count("practice"), "count": study.count("main")}
        return _("<b>Which image is synthetic?</b> &nbsp; Trial {number} of {count}").format(**values)

    # ---- what the reader does

    def answer(self, side: str) -> None:
        """The reader takes the image on a side for the synthetic one."""
        elapsed = time.monotonic() - self._shownAt
        if self._state != "trial" or elapsed < SHORTEST_SECONDS:
            return
        try:
            self._log.append(self._trial, side, self._secondsBefore + elapsed)
        except ImtError as error:
            self._secondsBefore += elapsed
            self._enter("paused", str(error))
            return
        if self._trial.phase == "practice":
            self._tellTruth(side)
        else:
            self._showNext()

    def _tellTruth(self, answer: str) -> None:
        truth = self._trial.side
        right = {trial.number: trial.side for trial in self._log.study.trials if trial.phase == "practice"}
        given = [number for number in self._log.answers if number in right]
        values = {"right": sum(self._log.answers[number].answer == right[number] for number in given), "count": len(given)}
        verdict = _("Right:") if answer == truth else _("Wrong:")
        told = _("the left image is synthetic, the right one real.") if truth == "left" else _("the right image is synthetic, the left one real.")
        self._enter("feedback", f"<b>{verdict}</b> {told}<br>" + _("{right} of {count} right so far.").format(**values))
        (self.ui.leftImageLabel if truth == "left" else self.ui.rightImageLabel).styleSheet = SYNTHETIC_FRAME

    def goOn(self, *_unused) -> None:
        """After the feedback, or the break before the main trials."""
        if self._state == "feedback":
            self._showNext()
        elif self._state == "break":
            self._showTrial()

    def togglePause(self, *_unused) -> None:
        """Hide the images and stop the clock, or go on."""
        if self._state == "trial":
            self._secondsBefore += time.monotonic() - self._shownAt
            self._enter("paused", _("Paused. Your answers are stored; you may also close this window and go on another day."))
        elif self._state == "paused":
            self._showTrial()
