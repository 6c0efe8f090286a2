"""The panel's section "Reader study": choose a study and a reader, start or go on, and see the result at the end."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IMTCore.errors import ImtError
from IMTCore.reader_study.answers import AnswerLog, open_log, read_answers
from IMTCore.reader_study.trials import STUDY_FILE, ReaderStudy, read_study
from IMTSlicerLib.labels import showWhole

from .reader_study_window import TrialWindow


class ReaderStudyPage:
    """The section and the window that it opens.

    :param uiFolder: the folder of the module's .ui files.
    """

    def __init__(self, uiFolder: str) -> None:
        self._uiFolder = Path(uiFolder)
        self.widget = slicer.util.loadUI(str(self._uiFolder / "IMTReaderStudy.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.window: TrialWindow | None = None
        self._study: ReaderStudy | None = None
        self._studyKey: tuple | None = None
        self.ui.studyPathLineEdit.connect("currentPathChanged(QString)", self.update)
        self.ui.readerLineEdit.connect("textChanged(QString)", self.update)
        self.ui.studyStartButton.connect("clicked(bool)", self.onStartButton)
        self.update()

    def close(self) -> None:
        """The panel goes away: close the window, every answer is stored."""
        if self.window is not None:
            self.window.close()

    def update(self, *_unused) -> None:
        """Say what was chosen and what can be done."""
        ui = self.ui
        ui.studyStartButton.enabled = False
        ui.studyStartButton.text = _("Start")
        self._say(ui.studyResultLabel, "")
        ui.studyPathLineEdit.enabled = ui.readerLineEdit.enabled = self.window is None
        try:
            text = self._describe()
        except (ImtError, OSError) as error:
            ui.studyStateLabel.styleSheet = "color: #c0392b"
            self._say(ui.studyStateLabel, str(error))
        else:
            ui.studyStateLabel.styleSheet = ""
            self._say(ui.studyStateLabel, text)

    def _say(self, label, text: str) -> None:
        showWhole(label, text, self.widget.width)

    def _describe(self) -> str:
        """What is chosen, in words; enables the button."""
        ui = self.ui
        folder, reader = ui.studyPathLineEdit.currentPath.strip(), ui.readerLineEdit.text.strip()
        if folder in ("", "."):
            return _("Choose the folder of a study.")
        study = self._read(Path(folder))
        values = {"practice": study.count("practice"), "main": study.count("main")}
        text = _("{practice} practice trials, where the truth is told, and {main} trials without.").format(**values)
        if not reader:
            return f"{text} {_('Enter your name or a code.')}"
        log = open_log(study, reader)
        if log.next_trial() is None:
            self._showResult(study, log)
            return f"{text} {_('{reader} has answered all of them.').format(reader=reader)}"
        ui.studyStartButton.enabled = self.window is None
        if not log.answers:
            return text
        ui.studyStartButton.text = _("Resume")
        return f"{text} {_('{reader} has answered {count}.').format(reader=reader, count=len(log.answers))}"

    def _read(self, folder: Path) -> ReaderStudy:
        """The study of a folder, read again only if it has changed: this is called for every letter of the reader's name."""
        path = folder / STUDY_FILE
        key = (folder, path.stat().st_mtime_ns) if path.is_file() else None
        if self._study is None or key is None or key != self._studyKey:
            self._study, self._studyKey = None, None
            self._study = read_study(folder)
            self._studyKey = key
        return self._study

    def onStartButton(self, *_unused) -> None:
        """Open the window with the next trial."""
        try:
            study = read_study(self._study.folder)  # all images are still there
            log = open_log(study, self.ui.readerLineEdit.text.strip())
        except (ImtError, OSError):
            self._studyKey = None
            self.update()  # says the same
            return
        self.window = TrialWindow(log, str(self._uiFolder / "IMTReaderStudyTrial.ui"))
        self.window.closed.connect(self._onClosed)
        self.update()
        self._say(self.ui.studyStateLabel, _("The trials are shown in a window of their own."))
        self.window.open()

    def _onClosed(self) -> None:
        self.window = None
        self.update()

    def _showResult(self, study: ReaderStudy, log: AnswerLog) -> None:
        """The reader's score; only when all trials are answered, as it would tell how the reader does."""
        from IMTCore.reader_study.report import p_value, percent, seconds, verdict
        from IMTCore.reader_study.scores import score_reader

        score = score_reader(study, read_answers(log.path, study)).main
        text = _("Median time {time} a trial. Answered left on {left} (p = {p} for a side bias).")
        more = text.format(time=seconds(score.seconds[1]), left=percent(score.left.rate), p=p_value(score.left.p_half))
        self._say(self.ui.studyResultLabel, f"{verdict(score.fooled)}\n{more}")
        self.ui.studyStartButton.text = _("Done")
