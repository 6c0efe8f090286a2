"""Bring-up: the core, PySide6 dressed as `qt`, the look-alikes, the stand-ins for Slicer's Python files, the modules."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import slicer

from . import core, dicom_database, sample_data


def _qt() -> Any:
    return sys.modules["qt"]


class QtApp(core.App):
    """slicer.app with a QApplication behind it."""

    def processEvents(self, *_: Any) -> None:
        _qt().application.processEvents()
        _qt().application.sendPostedEvents(None, _qt().QEvent.DeferredDelete)

    def settings(self) -> Any:
        return _qt().QSettings(self.slicerUserSettingsFilePath, _qt().QSettings.IniFormat)

    userSettings = revisionUserSettings = settings

    def setOverrideCursor(self, cursor: Any) -> None:
        _qt().QApplication.setOverrideCursor(_qt().QCursor(cursor))

    def restoreOverrideCursor(self) -> None:
        _qt().QApplication.restoreOverrideCursor()

    def topLevelWidgets(self) -> list:
        return _qt().QApplication.topLevelWidgets()

    def clipboard(self) -> Any:
        return _qt().QApplication.clipboard()

    def style(self) -> Any:
        return _qt().QApplication.style()

    def palette(self) -> Any:
        return _qt().QApplication.palette()

    def thread(self) -> Any:
        return _qt().application.thread()


class ScriptedModule(core.CoreModule):
    """slicer.modules.<name> of a scripted module; the `parent` of the module's Python class."""

    def __init__(self, path: str | Path):
        super().__init__(Path(path).stem)
        self.path = str(Path(path).resolve())
        self.icon: Any = None
        self.hidden = False
        self.widgetRepresentationCreationEnabled = True
        self.categories: list[str] = []
        self.dependencies: list[str] = []
        self.contributors: list[str] = []
        self.associatedNodeTypes: list[str] = []
        self.helpText = self.acknowledgementText = ""
        self._representation: Any = None

    def load(self) -> ScriptedModule:
        """Import the file and make an instance of the module's class."""
        folder = os.path.dirname(self.path)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(self.name, self.path)
        python = sys.modules[self.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(python)
        core.register_module(self)
        self.instance = getattr(python, self.name)(self)
        setattr(slicer.modules, f"{self.name}Instance", self.instance)
        return self

    def logic(self) -> Any:
        return slicer.vtkSlicerScriptedLoadableModuleLogic()

    def widgetRepresentation(self) -> Any:
        """The panel, made when it is first asked for."""
        if self._representation is None:
            self._representation = self.createNewWidgetRepresentation()
        return self._representation

    def createNewWidgetRepresentation(self) -> Any:
        """Another panel."""
        representation = slicer.qSlicerScriptedLoadableModuleWidget()
        representation.build(self)
        return representation


def _define_module_widget() -> None:
    from .dressing import QtWidgets, look_alike
    from .mrml_widgets import qSlicerWidget

    @look_alike
    class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
        """The widget that a scripted module fills; the `parent` of its Python panel."""

        def __init__(self, parent: Any = None):
            super().__init__(parent)
            self.setLayout(QtWidgets.QVBoxLayout())
            self._entered = False
            self._python: Any = None
            self._module: Any = None

        def build(self, module: ScriptedModule) -> None:
            """Make the module's Python panel."""
            self._module = module
            self.setMRMLScene(slicer.mrmlScene)
            self._python = getattr(sys.modules[module.name], f"{module.name}Widget")(self)
            setattr(slicer.modules, f"{module.name}Widget", self._python)
            self._python.setup()

        def reload(self) -> None:
            """Make it anew, after its file was imported again."""
            self.build(self._module)
            if self._entered and hasattr(self._python, "enter"):
                self._python.enter()

        def self(self) -> Any:
            return self._python

        def module(self) -> ScriptedModule:
            return self._module

        @property
        def isEntered(self) -> bool:
            """A property of the real class (Q_PROPERTY), not a method."""
            return self._entered

        def enter(self) -> None:
            """The user opens the module."""
            if not self._entered and hasattr(self._python, "enter"):
                self._python.enter()
            self._entered = True

        def exit(self) -> None:
            """The user opens another module."""
            if self._entered and hasattr(self._python, "exit"):
                self._python.exit()
            self._entered = False

    slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
    slicer.qSlicerScriptedLoadableModule = ScriptedModule


def _put_python_slicer_on_path(workdir: str) -> None:
    """Slicer's Python as a program: this Python, with pip refused unless SLICER_HARNESS_ALLOW_PIP=1 is set."""
    folder = Path(workdir) / "bin"
    folder.mkdir(exist_ok=True)
    launcher = folder / "PythonSlicer"
    launcher.write_text(
        "#!/bin/sh\n"
        'if [ "$1 $2" = "-m pip" ] && [ "$SLICER_HARNESS_ALLOW_PIP" != 1 ]; then\n'
        '  echo "slicer_harness: pip is refused (SLICER_HARNESS_ALLOW_PIP=1 allows it)" >&2; exit 1\n'
        f'fi\nexec "{sys.executable}" "$@"\n'
    )
    launcher.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def start(workdir: str | None = None, developer_mode: bool = False, testing: bool = True) -> Any:
    """Everything that a scripted module needs; returns slicer.app. What follows the first call does nothing."""
    if getattr(slicer, "app", None) is not None:
        return slicer.app
    from . import ctk_widgets, qt_module

    workdir = workdir or tempfile.mkdtemp(prefix="slicer_harness_")
    qt = qt_module.install(workdir)
    app = core.bootstrap_core(workdir, QtApp, testing)
    ctk_widgets.install()
    from . import mrml_widgets
    from .layout import LayoutManager

    mrml_widgets.install()
    _define_module_widget()
    for name in ("i18n", "packaging", "parameterNodeWrapper", "ScriptedLoadableModule"):
        importlib.import_module(f"slicer.{name}")
    sample_data.install()
    dicom_database.install()
    _put_python_slicer_on_path(workdir)
    app._layoutManager = LayoutManager()
    for settings in (qt.QSettings(), app.settings()):
        settings.setValue("Developer/DeveloperMode", developer_mode)
    return app


def load_module(path: str | Path) -> ScriptedModule:
    """Import a scripted module as Slicer does at its start."""
    app = start()
    module = ScriptedModule(path).load()
    app.emit("startupCompleted")
    app._callbacks.pop("startupCompleted", None)
    return module


def open_module(path: str | Path, size: tuple[int, int] = (520, 700)) -> Any:
    """Load a scripted module, open its panel and return the Python widget."""
    representation = load_module(path).widgetRepresentation()
    representation.enter()
    representation.resize(*size)
    representation.show()
    slicer.app.processEvents()
    return representation.self()


def close_module(widget: Any) -> None:
    """Leave the module and take its panel away, as when Slicer ends."""
    representation = widget.parent
    representation.exit()
    slicer.app.moduleManager().emit("moduleAboutToBeUnloaded", widget.moduleName)
    representation.hide()
    representation.deleteLater()
    slicer.app.processEvents()


def screenshot(widget: Any, path: str | Path) -> Path:
    """Write a PNG of a widget, or of a module's panel."""
    target = widget if hasattr(widget, "grab") else widget.parent
    slicer.app.processEvents()
    if not target.grab().save(str(path)):
        raise OSError(f"could not write {path}")
    return Path(path)


def choose(selector: Any, text: str) -> None:
    """Choose a row of a combo box or a node selector by its text, as a user does: a node, None, or an action."""
    box = getattr(selector, "_box", selector)
    row = box.findText(text)
    if row < 0:
        raise ValueError(f"no row {text!r} in {[box.itemText(index) for index in range(box.count)]}")
    if box.model().index(row, 0).flags() & _qt().Qt.ItemIsSelectable:
        box.setCurrentIndex(row)
        box.activated.emit(row)
    else:
        selector.activateExtraItem(box.model().index(row, 0))
