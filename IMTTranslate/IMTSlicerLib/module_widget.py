"""What the panels of all modules share of their life: built, bound to the scene's parameter node, let go, reloaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class ModuleWidget:
    """Base of a module's widget, before `ScriptedLoadableModuleWidget` and `VTKObservationMixin`.

    >>> class IMTTranslateWidget(ModuleWidget, ScriptedLoadableModuleWidget, VTKObservationMixin):
    ...     packages = ("IMTTranslatePanel", "IMTSlicerLib", "IMTCore")
    ...     def setup(self):
    ...         ScriptedLoadableModuleWidget.setup(self)
    ...         self.build("UI/IMTTranslate.ui", IMTTranslateLogic(), IMTTranslateParameterNode, PanelController)

    Attributes: `packages`, what is dropped at a reload, so that changed code is read again; after `build`, `ui` (the named
    widgets), `logic`, and `panel`, the controller: an object with `setParameterNode`, `update`, `cancel` and `stop`.
    """

    packages: tuple[str, ...] = ()
    ui: Any = None
    logic: Any = None
    panel: Any = None
    _parameterNode: Any = None
    _wrapperClass: Any = None
    _wrapper: Any = None
    _connection: Any = None

    def build(self, uiFile: str, logic, parameterNodeClass, makePanel: Callable[[Any, Any], Any]) -> Any:
        """Load the widgets, make the controller, and follow the scene.

        :param uiFile: path below the module's Resources.
        :param logic: the module's logic.
        :param parameterNodeClass: the class that wraps the scene's parameter node.
        :param makePanel: makes the controller from the widgets and the logic.
        :return: the widget that was loaded.
        """
        import slicer

        uiWidget = slicer.util.loadUI(self.resourcePath(uiFile))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        named = [(widget.property("SlicerParameterName"), widget) for widget in vars(self.ui).values()]
        self._boundWidgets = {name: widget for name, widget in named if name}
        self.logic, self._wrapperClass = logic, parameterNodeClass
        self.panel = makePanel(self.ui, logic)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        return uiWidget

    def cleanup(self) -> None:
        """The panel goes away: end what runs."""
        try:
            if self.panel is not None:  # else setup has failed
                self.panel.stop()
                self.setParameterNode(None)
        finally:
            self.removeObservers()

    def enter(self) -> None:
        """The user opens the module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """The user leaves the module: a run goes on, the widgets are let go."""
        self.setParameterNode(None)

    def onReload(self) -> None:
        """Read the code of IMT's packages again too."""
        self.cleanup()
        for name in list(sys.modules):
            if name.split(".")[0] in self.packages:
                del sys.modules[name]
        super().onReload()

    def onSceneStartClose(self, caller, event) -> None:
        """The scene goes: its runs end, and no result comes into the next scene."""
        self.panel.cancel()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """An empty scene."""
        if getattr(self.parent, "isEntered", True):  # a panel in a window of its own has no such thing
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        """A scene was loaded into this one: its parameters have taken the place of what the open panel shows."""
        if self._wrapper is not None:
            self._wrapper.Modified()  # it has kept the references that it read before their nodes were there
        if self._parameterNode is not None:
            self.setParameterNode(None)
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node, with the user's settings if it is new."""
        from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

        # One wrapper for one node: each leaves its observers on the node, which nothing removes.
        holder = ScriptedLoadableModuleLogic.getParameterNode(self.logic)
        if self._wrapper is None or self._wrapper.parameterNode is not holder:
            self._wrapper = self._wrapperClass(holder)
        if self._parameterNode is not self._wrapper:
            self.setParameterNode(self._wrapper)

    def setParameterNode(self, parameterNode) -> None:
        """Bind the widgets to a parameter node, or to none."""
        import vtk

        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._connection)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterNodeModified)
        self._parameterNode = parameterNode
        self.panel.setParameterNode(parameterNode)
        if parameterNode is not None:
            # Not connectGui: it returns no tag (Slicer issue 7547), and the widgets could not be let go again.
            self._connection = parameterNode.connectParametersToGui(self._boundWidgets)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterNodeModified)
            self._onParameterNodeModified()

    def _onParameterNodeModified(self, caller=None, event=None) -> None:
        self.panel.update()
