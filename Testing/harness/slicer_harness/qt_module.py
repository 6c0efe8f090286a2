"""The module `qt`: the names of PySide6, dressed as PythonQt's."""

from __future__ import annotations

import sys
import types
from typing import Any

from . import dialogs, dressing
from .dressing import NotImitatedError, QtCore, QtGui, QtUiTools, QtWidgets
from .ui_loader import QUiLoader


class _QtModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        for module in (QtWidgets, QtGui, QtCore, QtUiTools):
            if name.startswith("Q") and hasattr(module, name):
                value = getattr(module, name)
                setattr(self, name, value)
                return value
        raise NotImitatedError(f"module 'qt' has no attribute {name!r} here")


def _message(kind: Any, context: Any, text: str) -> None:
    if "propagateSizeHints" not in text:  # the offscreen platform says this of every window
        print(f"Qt: {text}", file=sys.stderr)


def install(workdir: str) -> types.ModuleType:
    """Dress PySide6, create the QApplication and make `import qt` work; settings go into `workdir`."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, workdir)
    QtCore.QCoreApplication.setOrganizationName("slicer_harness")
    QtCore.QCoreApplication.setApplicationName("slicer_harness")
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["slicer_harness"])
    application.setQuitOnLastWindowClosed(False)
    QtCore.qInstallMessageHandler(_message)
    dressing.dress()
    dialogs.install()
    color_name = QtGui.QColor.name
    QtGui.QColor.name = lambda self, kind=QtGui.QColor.HexRgb: color_name(self, QtGui.QColor.NameFormat(kind))
    module = sys.modules["qt"] = _QtModule("qt", __doc__)
    module.QUiLoader = QUiLoader
    module.application = application
    return module
