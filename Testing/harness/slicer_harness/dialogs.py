"""Modal dialogs would wait for ever without a user: a test answers them beforehand, and an unanswered one is an error.

>>> dialogs.answer("QFileDialog.getOpenFileName", "T1.nii.gz")
>>> qt.QFileDialog.getOpenFileName(None, "Open")
'T1.nii.gz'
"""

from __future__ import annotations

from typing import Any

from .dressing import QtCore, QtGui, QtWidgets

#: What was asked: (dialog, arguments), in order.
asked: list[tuple[str, tuple]] = []
_answers: dict[str, list] = {}

CLOSING_MS = 5000
_plain_execute = QtWidgets.QDialog.exec
STATIC = {
    QtWidgets.QFileDialog: (
        *("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"),
        *("getOpenFileUrl", "getSaveFileUrl", "getExistingDirectoryUrl"),
    ),
    QtWidgets.QInputDialog: ("getText", "getItem", "getInt", "getDouble", "getMultiLineText"),
    QtWidgets.QMessageBox: ("question", "information", "warning", "critical", "about"),
    QtWidgets.QColorDialog: ("getColor",),
    QtGui.QDesktopServices: ("openUrl",),
}


def answer(dialog: str, *values: Any) -> None:
    """Let the next calls of a dialog, such as "QMessageBox.question", return these values, one each."""
    known = {f"{cls.__name__}.{name}" for cls, names in STATIC.items() for name in names}
    if dialog not in known | {"QDialog.exec", "QMenu.exec"}:
        raise ValueError(f"no such dialog: {dialog}")
    _answers.setdefault(dialog, []).extend(values)


def reset() -> None:
    """Forget all answers and what was asked."""
    _answers.clear()
    asked.clear()


def ask(dialog: str, *arguments: Any) -> Any:
    """The next answer for a dialog."""
    asked.append((dialog, arguments))
    if not _answers.get(dialog):
        raise RuntimeError(f"{dialog}{arguments} waits for a user: answer it with slicer_harness.dialogs.answer")
    return _answers[dialog].pop(0)


def _execute(self: Any) -> Any:
    """QDialog.exec: the answer, or what the dialog returns if it closes itself within CLOSING_MS."""
    if _answers.get("QDialog.exec"):
        return ask("QDialog.exec", self)
    asked.append(("QDialog.exec", (self,)))
    stuck = []
    timer = QtCore.QTimer()
    timer.connect("timeout()", lambda: (stuck.append(self.windowTitle), self.reject()))
    timer.start(CLOSING_MS)
    result = _plain_execute(self)
    timer.stop()
    if stuck:
        raise RuntimeError(f"the dialog {stuck[0]!r} waits for a user: answer it with slicer_harness.dialogs.answer")
    return result


def install() -> None:
    """Replace the static dialogs and the modal loops."""
    for cls, names in STATIC.items():
        for name in names:
            full = f"{cls.__name__}.{name}"
            setattr(cls, name, staticmethod(lambda *arguments, _full=full, **named: ask(_full, *arguments, *named.values())))
    QtWidgets.QDialog.exec = QtWidgets.QDialog.exec_ = _execute
    QtWidgets.QMenu.exec = QtWidgets.QMenu.exec_ = lambda self, *arguments: ask("QMenu.exec", self, *arguments)
