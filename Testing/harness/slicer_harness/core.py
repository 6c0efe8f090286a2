"""The application without Qt: `bootstrap_core()` gives plain slicer-core what slicer.util and module logics expect.

That is slicer.mrmlScene, slicer.app, slicer.modules and slicer.moduleNames. Inside Slicer, where slicer.app exists, it
does nothing, so that the same script runs in both.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
import vtk

from .io_manager import CoreIOManager

#: slicer.modules.<name in small letters>: class of its logic
LOGICS = {
    "Annotations": "vtkSlicerAnnotationModuleLogic",
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
#: nodes of these classes get an item in the subject hierarchy when they are added; in Slicer its plugins do that
IN_SUBJECT_HIERARCHY = (
    *("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTransformNode", "vtkMRMLModelNode", "vtkMRMLMarkupsNode"),
    *("vtkMRMLTableNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTextNode"),
)


class Callbacks:
    """connect("signal(type)", f) and disconnect() for objects that are no QObject here."""

    def __init__(self):
        self._callbacks: dict[str, list[Callable]] = {}

    def connect(self, signature: str, callback: Callable) -> bool:
        self._callbacks.setdefault(signature.partition("(")[0], []).append(callback)
        return True

    def disconnect(self, signature: str, callback: Callable) -> bool:
        callbacks = self._callbacks.get(signature.partition("(")[0], [])
        if callback in callbacks:
            callbacks.remove(callback)
        return True

    def emit(self, name: str, *arguments: Any) -> None:
        """Call what is connected."""
        for callback in list(self._callbacks.get(name, [])):
            callback(*arguments)


class CoreModule:
    """slicer.modules.<name> of a module that Slicer has in C++: its logic, no panel."""

    def __init__(self, name: str, logic: Any = None):
        self.name = self.title = name
        self.path = ""
        self._logic = logic

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> None:
        raise NotImplementedError(f"slicer_harness does not imitate the panel of the module {self.name}")

    createNewWidgetRepresentation = widgetRepresentation


class ModuleManager(Callbacks):
    """slicer.app.moduleManager(), and its factoryManager()."""

    def __init__(self):
        super().__init__()
        self.modules: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        return self.modules.get(name)

    def factoryManager(self) -> ModuleManager:
        return self

    def loadedModuleNames(self) -> list[str]:
        return list(self.modules)


class App(Callbacks):
    """slicer.app without windows. host.QtApp adds what needs Qt."""

    applicationName = "Slicer"
    applicationVersion = "5.13.0"
    majorVersion, minorVersion = 5, 13
    revision = repositoryRevision = "slicer_harness"

    def __init__(self, workdir: str, testing: bool = False):
        super().__init__()
        self.testing = testing
        self.slicerUserSettingsFilePath = os.path.join(workdir, "Slicer.ini")
        for attribute in ("temporaryPath", "slicerHome", "extensionsInstallPath", "cachePath"):
            folder = os.path.join(workdir, attribute.removesuffix("Path"))
            os.makedirs(folder, exist_ok=True)
            setattr(self, attribute, folder)
        self._moduleManager = ModuleManager()
        self._ioManager = CoreIOManager(self)
        self._layoutManager = None  # as in Slicer with --no-main-window

    def makeScene(self) -> None:
        """The scene and the logics that belong to the application."""
        self._scene = scene = slicer.vtkMRMLScene()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        logic = self._logic = slicer.vtkSlicerApplicationLogic()
        logic.SetMRMLScene(scene)
        logic.SetTemporaryPath(self.temporaryPath)
        logic.GetColorLogic().SetMRMLScene(scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        # The cache and the data manager: ReadFromMRB asks the scene for both.
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLScene(scene)
        self._remote.SetMRMLApplicationLogic(logic)
        self._remote.GetCacheManager().SetRemoteCacheDirectory(self.cachePath)
        self._dataIO = slicer.vtkDataIOManagerLogic()
        self._dataIO.SetMRMLScene(scene)
        self._dataIO.SetMRMLApplicationLogic(logic)
        self._dataIO.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self._remote.AddDataIOToScene()

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    mrmlApplicationLogic = applicationLogic

    def moduleManager(self) -> ModuleManager:
        return self._moduleManager

    def coreIOManager(self) -> CoreIOManager:
        return self._ioManager

    ioManager = coreIOManager

    def layoutManager(self) -> Any:
        return self._layoutManager

    def testingEnabled(self) -> bool:
        """Whether to behave as under `Slicer --testing`: no message boxes, no installing."""
        return self.testing

    def commandOptions(self) -> Any:
        return types.SimpleNamespace(noMainWindow=True, testingEnabled=self.testing)

    def processEvents(self, *_: Any) -> None:
        pass

    def startupEnvironment(self) -> dict[str, str]:
        return dict(os.environ)

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def setOverrideCursor(self, *_: Any) -> None:
        pass

    def restoreOverrideCursor(self) -> None:
        pass

    def topLevelWidgets(self) -> list:
        return []

    def pythonConsole(self) -> None:
        return None


def register_module(module: Any) -> None:
    """Make a module known as slicer.modules.<name in small letters> and to the module manager."""
    setattr(slicer.modules, module.name.lower(), module)
    setattr(slicer.moduleNames, module.name, module.name)
    slicer.app.moduleManager().modules[module.name] = module


def _observe_subject_hierarchy(scene: Any) -> None:
    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(_caller: Any, _event: str, node: Any) -> None:
        if node is not None and not node.GetHideFromEditors() and any(node.IsA(name) for name in IN_SUBJECT_HIERARCHY):
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, added)


def bootstrap_core(workdir: str | None = None, app_class: type[App] = App, testing: bool = False) -> Any:
    """Give slicer-core its application; returns slicer.app. Does nothing where there is one already.

    :param workdir: folder for settings, cache and temporary files; None makes one that goes when Python ends.
    """
    if getattr(slicer, "app", None) is not None:
        return slicer.app
    if workdir is None:
        workdir = tempfile.mkdtemp(prefix="slicer_harness_")
        atexit.register(shutil.rmtree, workdir, ignore_errors=True)
    for name in ("modules", "moduleNames"):
        module = sys.modules[f"slicer.{name}"] = types.ModuleType(f"slicer.{name}")
        setattr(slicer, name, module)
    slicer.__path__.append(str(Path(__file__).with_name("standins")))
    app = slicer.app = app_class(workdir, testing)
    app.makeScene()
    slicer.mrmlScene = app.mrmlScene()
    _observe_subject_hierarchy(slicer.mrmlScene)
    warnings = vtk.vtkObject.GetGlobalWarningDisplay()
    for name, class_name in LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(app.applicationLogic())
        vtk.vtkObject.SetGlobalWarningDisplay(name not in ("Colors", "Terminologies"))  # the wheel has not their data
        logic.SetMRMLScene(slicer.mrmlScene)
        vtk.vtkObject.SetGlobalWarningDisplay(warnings)
        app.applicationLogic().SetModuleLogic(name, logic)
        register_module(CoreModule(name, logic))
    return app
