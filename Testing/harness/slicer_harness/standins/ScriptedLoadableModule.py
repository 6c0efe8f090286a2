"""Stand-in for slicer.ScriptedLoadableModule: the four base classes of a scripted module."""

import importlib
import logging
import os
import unittest
from typing import Any

import slicer

__all__ = ["ScriptedLoadableModule", "ScriptedLoadableModuleLogic", "ScriptedLoadableModuleTest", "ScriptedLoadableModuleWidget"]


class ScriptedLoadableModule:
    """The module itself: title, category, help. `parent` is the application's module object."""

    def __init__(self, parent: Any):
        super().__init__()
        self.parent = parent
        self.moduleName = self.__class__.__name__
        parent.title = ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        parent.helpText = parent.acknowledgementText = ""
        for ending in (".svg", ".png"):
            icon = self.resourcePath(f"Icons/{self.moduleName}{ending}")
            if os.path.isfile(icon):
                import qt

                parent.icon = qt.QIcon(icon)
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        """The absolute path of a file below the module's Resources."""
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        """Run the class <module>Test of the module's file."""
        module = importlib.import_module(self.__module__)
        test_class = getattr(module, f"{self.moduleName}Test", None)
        if test_class is None:
            raise AssertionError(f"Test case class not found: {self.__module__}.{self.moduleName}Test")
        test = test_class()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The panel. `parent` is its widget; without one, a window of its own is made and shown."""

    def __init__(self, parent: Any = None):
        import qt

        super().__init__()
        self.moduleName = self.__class__.__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        if not parent:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        """The absolute path of a file below the module's Resources."""
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self) -> None:
        """Build the panel; here, the developer's section."""
        self.setupDeveloperSection()

    def cleanup(self) -> None:
        """For the derived class: the panel is about to go."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def setupDeveloperSection(self) -> None:
        """Reload, and Reload and Test, in developer mode."""
        if not self.developerMode:
            return
        import ctk
        import qt

        self.reloadCollapsibleButton = ctk.ctkCollapsibleButton()
        self.reloadCollapsibleButton.text = "Reload && Test"
        self.layout.addWidget(self.reloadCollapsibleButton)
        layout = qt.QHBoxLayout(self.reloadCollapsibleButton)
        self.reloadButton = qt.QPushButton("Reload")
        self.reloadButton.connect("clicked()", self.onReload)
        self.reloadTestButton = qt.QPushButton("Reload and Test")
        self.reloadTestButton.connect("clicked()", self.onReloadAndTest)
        layout.addWidget(self.reloadButton)
        layout.addWidget(self.reloadTestButton)

    def onReload(self) -> None:
        """Import the module's file again and build a new panel."""
        logging.info("Reloading module: %s", self.moduleName)
        slicer.util.reloadScriptedModule(self.moduleName)

    def onReloadAndTest(self, **kwargs: Any) -> None:
        """Reload, then run the tests."""
        with slicer.util.tryWithErrorDisplay("Reload and Test failed."):
            self.onReload()
            slicer.selfTests[self.moduleName](msec=10, **kwargs)


class ScriptedLoadableModuleLogic:
    """What the module does, usable without the panel."""

    def __init__(self, parent: Any = None):
        super().__init__()
        self.moduleName = self.__class__.__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """The module's parameter node in the scene, made if there is none."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node:
                if node.GetAttribute("ModuleName") != self.moduleName:  # closing the scene takes it away
                    node.SetAttribute("ModuleName", self.moduleName)
                return node
        elif nodes := self.getAllParameterNodes():
            return nodes[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list:
        """All parameter nodes of this module."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        """A new parameter node, not yet in the scene."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's own test."""

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Show a message for a moment: here, let Qt do what waits."""
        logging.info(message)
        slicer.app.processEvents()

    def runTest(self) -> None:
        """For the derived class: call setUp and each test. As in Slicer, nothing runs without that."""
        logging.warning("No test is defined in %s", self.__class__.__name__)
