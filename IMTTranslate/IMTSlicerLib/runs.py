"""A run of `imt` on nodes of the scene: from the scene to files, and from files back, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .jobs import Job, JobCancelled, JobFailed
from .nodes import fileNameFor, gridOf, writeMark, writeVolume
from .signals import Signal


class Run:
    """Runs `imt` on a volume node in the background; subclasses give `_requests` and `_take`, and call `_follow`.

    All that a run needs of the scene is taken at the start; what the user selects meanwhile changes nothing. The scene
    changes only at the end, and only if all went well.

    Signals: `progress(fraction, message, secondsLeft)`, `logged(line)`, and at the end `ended()`; then `state` is
    finished, failed or cancelled, and `errorMessage` says what was wrong.

    :param inputNode: the volume, which has been checked.
    """

    job: Job

    def __init__(self, inputNode) -> None:
        self.warnings: list[str] = []
        self.errorMessage = ""
        self.progress, self.logged, self.ended = Signal(), Signal(), Signal()
        self._inputID, self._inputName = inputNode.GetID(), inputNode.GetName()
        self._fileNames: dict[str, str] = {}  # what the written files are called in the scene
        self._matrix, self._dimensions = gridOf(inputNode)
        self._importError: Exception | None = None
        self._state: str | None = None

    def _follow(self, job: Job) -> None:
        """Make `job`, which asks for `self._requests`, the run's own."""
        self.job = job
        self.job.progress.connect(self.progress.emit)
        self.job.logged.connect(self.logged.emit)
        self.job.finished.connect(self._onFinished)
        self.job.ended.connect(self._onEnded)

    @property
    def state(self) -> str:
        """idle, running, finished, failed or cancelled."""
        return self._state or self.job.state

    def start(self) -> Any:
        """Write the inputs and start the process; returns at once."""
        self.job.start()
        return self

    def cancel(self) -> None:
        """End the run now; the scene stays as it is."""
        self.job.cancel()

    def wait(self) -> Any:
        """Wait for the end; Slicer stays alive.

        :raises ValueError: bad input or model. RuntimeError: the run failed or was cancelled. The scene is as it was.
        """
        try:
            self.job.wait()
        except (JobFailed, JobCancelled):
            raise
        except Exception:  # of a listener: the import's own error is more to the point
            if self._importError is None:
                raise
        if self._importError is not None:
            raise self._importError
        return self

    def inputNode(self):
        """The volume; None if it is not in the scene any more."""
        return slicer.mrmlScene.GetNodeByID(self._inputID)

    def _writeInput(self, folder: Path) -> Path:
        """Write the input volume, in a folder of its own: whatever its name, no result has that name."""
        return self._writeNode(self.inputNode(), folder / "input")

    def _writeNode(self, node, folder: Path) -> Path:
        """Write a volume node under its own name, which messages are to have, with its mark if IMT made it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{fileNameFor(node)}.nrrd"
        self._fileNames[path.name] = node.GetName()
        writeVolume(node, path)
        writeMark(node, path)
        return path

    def _requests(self, folder: Path) -> list[list[str]]:
        """Write what `imt` shall read into `folder`, and say what it shall do."""
        raise NotImplementedError

    def _take(self, folder: Path) -> None:
        """Bring the results into the scene, all or none; called only if `imt` went well."""
        raise NotImplementedError

    def _named(self, text: str) -> str:
        """A message of `imt` in terms of Slicer: the user has never seen the volumes' files, nor the command's options."""
        text = inPanelWords(text)
        for file, name in self._fileNames.items():
            text = text.replace(file, name)
        return text

    def _onFinished(self) -> None:
        try:
            self._take(self.job.folder)
        except Exception as error:
            self._importError = error
            self.errorMessage = str(error)
        self.warnings = list(dict.fromkeys(self._named(text) for text in self.warnings))

    def _onEnded(self) -> None:
        self._state = "failed" if self._importError is not None else self.job.state
        self.job.errorMessage = self._named(self.job.errorMessage)  # the job's own exception tells it too
        self.errorMessage = self.errorMessage or self.job.errorMessage
        self.ended.emit()


def inPanelWords(text: str) -> str:
    """A message of `imt` with Slicer's words for its options."""
    return text.replace("(--no-modality-check)", _("(in the panel under Advanced, in Python with checkModality=False)"))
