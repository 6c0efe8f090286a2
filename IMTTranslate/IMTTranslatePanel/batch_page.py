"""The panel's section "Batch": a folder in, a folder out, a table of cases with their states; stop and resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from IMTCore.errors import ImtError
from IMTSlicerLib import views
from IMTSlicerLib.labels import showWhole
from IMTSlicerLib.nodes import SYNTHETIC_ATTRIBUTE
from IMTSlicerLib.run_controller import ERROR_STYLE, duration

from .batch_models import BatchModels
from .batch_rows import FINISHED, REPORT, BatchRow, countsInWords, merged, readSummary
from .batch_run import BatchPlan, BatchRun, isGiven
from .batch_table import BatchTable
from .settings import GROUP
from .translation_run import TranslationOptions

TYPING_MILLISECONDS = 300  # after the last letter of a path
REMEMBERED = {"input": "batchInputPathLineEdit", "output": "batchOutputPathLineEdit"}


class BatchPage:
    """The section and the batch that it runs.

    :param uiFolder: the folder of the module's .ui files.
    :param logic: the module's logic.
    :param parameters: gives the parameter node, whose device and other advanced settings a batch takes; None while another
        module is open.
    :param log: takes a line.
    """

    def __init__(self, uiFolder: str, logic, parameters: Callable[[], object], log: Callable[[str], None]) -> None:
        self._logic, self._parameters, self._log = logic, parameters, log
        self.widget = slicer.util.loadUI(str(Path(uiFolder) / "IMTBatch.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._run: BatchRun | None = None
        self._started = 0.0
        self._found: list[BatchRow] = []  # the cases of the input
        self._foundIn: tuple | None = None  # what was looked through for them
        self._problem = ""  # why there are none
        self._rows: list[BatchRow] = []  # the same as far as they are
        self._status = "", False  # what is said, and whether it is an error
        self._outcome: tuple[str, bool] | None = None  # the same of the last batch
        self._models = BatchModels(self.ui, self.update)
        self._table = BatchTable(self.ui.batchTableWidget, self._showDetail, self._open)
        self._typing = qt.QTimer()
        self._typing.setSingleShot(True)
        self._typing.setInterval(TYPING_MILLISECONDS)
        self._typing.connect("timeout()", self.update)
        self._restore()
        ui = self.ui
        self.widget.connect("contentsCollapsed(bool)", self.update)
        for name in REMEMBERED.values():
            getattr(ui, name).connect("currentPathChanged(QString)", self._onPathChanged)
        ui.batchTableButton.connect("clicked(bool)", self.onTableButton)
        ui.batchStartButton.connect("clicked(bool)", self.onStartButton)
        ui.batchReportButton.connect("clicked(bool)", lambda *_unused: self._show(self._output() / REPORT))
        ui.batchFolderButton.connect("clicked(bool)", lambda *_unused: self._show(self._output()))
        self.update()

    def isRunning(self) -> bool:
        """Whether a batch goes on."""
        return self._run is not None and self._run.state == "running"

    def stop(self) -> None:
        """End the batch; the same folders go on with it."""
        self._typing.stop()
        if self._run is not None:
            self._run.stop()

    # ---- what is chosen

    def _input(self) -> Path:
        return Path(self.ui.batchInputPathLineEdit.currentPath.strip())

    def _output(self) -> Path:
        return Path(self.ui.batchOutputPathLineEdit.currentPath.strip())

    def _onPathChanged(self, *_unused) -> None:
        self._outcome = None
        self._typing.start()

    def onTableButton(self, *_unused) -> None:
        """Choose a CSV file as the input."""
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Table of cases"), "", _("Tables (*.csv)"))
        if path:
            self.ui.batchInputPathLineEdit.currentPath = path

    def _plan(self) -> BatchPlan:
        """What is chosen; uncertainty and trust maps, which the sections above ask for, are for single volumes."""
        node = self._parameters()
        options = TranslationOptions() if node is None else replace(TranslationOptions.of(node), uncertainty=False, trustMap=False)
        return BatchPlan(self._input(), self._output(), self._models.models, self._models.segmenter, options)

    def _restore(self) -> None:
        store = qt.QSettings()
        for name, widget in REMEMBERED.items():
            getattr(self.ui, widget).currentPath = str(store.value(f"{GROUP}/batch/{name}") or "")
        self._models.restore(str(store.value(f"{GROUP}/batch/models") or ""))

    def _remember(self) -> None:
        store = qt.QSettings()
        for name, widget in REMEMBERED.items():
            store.setValue(f"{GROUP}/batch/{name}", getattr(self.ui, widget).currentPath)
        store.setValue(f"{GROUP}/batch/models", self._models.asText())

    # ---- state of the widgets

    def update(self, *_unused) -> None:
        """Bring the section in step with what is chosen and what lies in the folders; nothing is read while it is closed."""
        if self.widget.collapsed:
            return
        if not self.isRunning():
            node = self._parameters()
            if node is not None:
                self._models.update(node.modelFolder if isGiven(node.modelFolder) else None)
            self._findCases()
            self._rows = merged(self._found, readSummary(self._output()))
            counts = countsInWords(self._rows) if self._rows else ""
            self._status = self._outcome or ((self._problem, True) if self._problem else (counts, False))
        self._table.show(self._rows, self.isRunning())
        self._updateButtons()
        self._say(*self._status)

    def _findCases(self) -> None:
        """List the cases of the input, if another one was chosen or it has changed."""
        path, modality = self._input(), self._models.modality
        try:
            where = (path, modality, path.stat().st_mtime_ns)
        except OSError:
            where = (path, modality)
        if where == self._foundIn:
            return
        self._found, self._foundIn, self._problem = [], where, ""
        if not isGiven(path):
            return
        if len(where) < 3:
            self._problem = _("{path} does not exist. Choose another input.").format(path=path)
            return
        from IMTCore.cases import read_cases

        try:
            with slicer.util.WaitCursor():
                self._found = [BatchRow(case.case, path=case.path) for case in read_cases(path, modality)]
        except (ImtError, OSError) as error:
            self._problem = str(error)

    def _updateButtons(self) -> None:
        ui, rows, running = self.ui, self._rows, self.isRunning()
        for name in (*REMEMBERED.values(), "batchTableButton"):
            getattr(ui, name).enabled = not running
        self._models.setEnabled(not running)
        ui.batchProgressBar.visible = running
        try:
            self._plan().check()
            problem = self._problem
        except ValueError as error:
            problem = str(error)
        begun = any(row.state for row in rows)
        left = any(row.state not in FINISHED for row in rows)
        button = ui.batchStartButton
        button.text = _("Stop") if running else _("Resume") if begun and left else _("Start")
        button.enabled = running or not problem
        tips = {
            _("Stop"): _("Stop now. What is finished stays, and the batch can be resumed."),
            _("Resume"): _("Go on with the cases that are not finished."),
            _("Start"): _("Start the batch.") if left or not begun else _("All are finished: only what has changed is done again."),
        }
        button.toolTip = problem if problem and not running else tips[button.text]
        ui.batchReportButton.enabled = isGiven(self._output()) and (self._output() / REPORT).is_file()
        ui.batchFolderButton.enabled = isGiven(self._output()) and self._output().is_dir()

    def _showDetail(self, row: BatchRow | None) -> None:
        """What there is to say of the chosen case."""
        text = f"{row.case}: {row.message}" if row is not None and row.message else ""
        showWhole(self.ui.batchDetailLabel, text, self.widget.width)

    def _say(self, text: str, isError: bool = False) -> None:
        self._status = text, isError
        if self.widget.collapsed:  # labels that become visible now would stand in the closed section
            return
        self.ui.batchStatusLabel.styleSheet = ERROR_STYLE if isError else ""
        showWhole(self.ui.batchStatusLabel, text, self.widget.width)

    # ---- the batch

    def onStartButton(self, *_unused) -> None:
        """Start or resume, or stop what runs."""
        if self.isRunning():
            self._run.stop()
            return
        self._outcome = None
        try:
            self._logic.ensureDependencies()
            run = BatchRun(self._plan())
            run.changed.connect(self._onChanged)
            run.progress.connect(self._onProgress)
            run.logged.connect(self._log)
            run.ended.connect(self._onEnded)
            self._run, self._started = run, time.monotonic()
            run.start()
        except (ValueError, RuntimeError, OSError) as error:
            self._run = None
            self._end(str(error), True)
            return
        self._remember()
        self.ui.batchProgressBar.value = 0
        self._status = _("Starting"), False
        self.update()

    def _onChanged(self) -> None:
        self._rows = merged(self._found, self._run.rows())
        if not self.widget.collapsed:
            self._table.show(self._rows, self.isRunning())
            self._updateButtons()

    def _onProgress(self, fraction: float, secondsLeft: float | None) -> None:
        self.ui.batchProgressBar.value = int(1000 * fraction)
        text = countsInWords(self._rows)
        if secondsLeft is not None:
            text = _("{message} About {time} left.").format(message=text, time=duration(secondsLeft))
        self._say(text)

    def _onEnded(self) -> None:
        run = self._run
        counts, seconds = countsInWords(merged(self._found, run.rows())), time.monotonic() - self._started
        if run.state == "failed":
            self._end(run.errorMessage, True)
        elif run.state == "cancelled":
            self._end(_("Stopped. {counts} Resume goes on from here.").format(counts=counts), False)
        else:
            self._end(_("Ended after {time}. {counts}").format(time=duration(seconds), counts=counts), False)

    def _end(self, text: str, isError: bool) -> None:
        self._outcome = text, isError
        self._log(_("Batch: {text}").format(text=text))
        self.update()

    # ---- looking at results

    def _show(self, path: Path) -> None:
        """Open a file or folder with the system's own program."""
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path.resolve()))):
            self._say(_("No program could be started for {path}. Open it by hand.").format(path=path), True)

    def _open(self, row: BatchRow) -> None:
        """Load a finished case into the scene."""
        if row.state not in FINISHED:
            return
        try:
            with slicer.util.WaitCursor():
                nodes = self._logic.loadBatchCase(self._output(), row.case, row.path)
                views.showVolume(next((node for node in nodes if node.GetAttribute(SYNTHETIC_ATTRIBUTE) == "true"), nodes[0]))
        except (ValueError, RuntimeError, OSError) as error:
            self._say(str(error), True)
