"""IMTTranslate: translate an MRI volume of the scene into another modality.

Thin: the work is done by the `imt` command in a child process of Slicer's Python, so Slicer never freezes and never
imports torch itself.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

POLL_SECONDS = 0.05
CANCEL_SECONDS = 1.0


class IMTTranslate(ScriptedLoadableModule):
    """The module's entry in Slicer's module list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("IMT Translate")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        self.parent.dependencies = []
        self.parent.contributors = ["IMT developers"]
        self.parent.helpText = _(
            "Image modality translation: makes a missing MRI contrast (for example T2 or FLAIR) from an acquired one (T1). "
            "The result is synthetic. For research, not for diagnosis."
        )
        self.parent.acknowledgementText = _(
            "Method: Q. Yang et al., MRI Cross-Modality Image-to-Image Translation, Scientific Reports 10 (2020). "
            "T1 to T2 toolkit idea: A. K. Avula, Medical Image Translation Using Convolutional Neural Networks (2020)."
        )


class IMTTranslateWidget(ScriptedLoadableModuleWidget):
    """The panel: input volume, model, Apply and Cancel."""

    def setup(self):
        """Build the panel."""
        import qt

        ScriptedLoadableModuleWidget.setup(self)
        self.logic = IMTTranslateLogic()
        form = qt.QFormLayout()
        self.inputSelector = slicer.qMRMLNodeComboBox()
        self.inputSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.inputSelector.addEnabled = False
        self.inputSelector.removeEnabled = False
        self.inputSelector.noneEnabled = True
        self.inputSelector.toolTip = _("The acquired volume.")
        self.inputSelector.setMRMLScene(slicer.mrmlScene)
        form.addRow(_("Input volume:"), self.inputSelector)
        self.modelSelector = qt.QComboBox()
        self.modelSelector.toolTip = _("What to translate from and to.")
        for card in self.logic.models():
            self.modelSelector.addItem(f"{card.source} → {card.target} ({card.name})", card.name)
        form.addRow(_("Model:"), self.modelSelector)
        self.applyButton = qt.QPushButton(_("Translate"))
        self.applyButton.toolTip = _("Make a new volume of the wanted modality on the input's grid.")
        form.addRow(self.applyButton)
        self.progressBar = qt.QProgressBar()
        self.progressBar.maximum = 1000
        self.progressBar.visible = False
        form.addRow(self.progressBar)
        self.statusLabel = qt.QLabel(_("For research, not for diagnosis."))
        self.statusLabel.wordWrap = True
        form.addRow(self.statusLabel)
        self.layout.addLayout(form)
        self.layout.addStretch(1)
        self.running = False
        self.cancelRequested = False
        self.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._checkCanApply)
        self._checkCanApply()

    def _checkCanApply(self, *unused):
        ready = self.inputSelector.currentNode() is not None and self.modelSelector.count > 0
        self.applyButton.enabled = self.running or ready

    def onApplyButton(self, *unused):
        """Start a translation, or cancel the one that runs."""
        if self.running:
            self.cancelRequested = True
            return
        self.running, self.cancelRequested = True, False
        self.applyButton.text = _("Cancel")
        self.progressBar.value = 0
        self.progressBar.visible = True
        try:
            self.logic.ensureDependencies(self.resourcePath("IMT-requirements.txt"))
            node = self.logic.translate(
                self.inputSelector.currentNode(),
                self.modelSelector.currentData,
                progressCallback=self._onProgress,
                isCancelled=lambda: self.cancelRequested,
            )
            slicer.util.setSliceViewerLayers(background=node)
            self.statusLabel.text = _("Made {name}. For research, not for diagnosis.").format(name=node.GetName())
        except (RuntimeError, ValueError) as error:
            self.statusLabel.text = str(error)
        finally:
            self.running = False
            self.applyButton.text = _("Translate")
            self.progressBar.visible = False
            self._checkCanApply()

    def _onProgress(self, fraction, message):
        self.progressBar.value = int(1000 * fraction)
        self.statusLabel.text = message


class IMTTranslateLogic(ScriptedLoadableModuleLogic):
    """Translation without a panel.

    >>> logic = IMTTranslateLogic()
    >>> t2 = logic.translate(slicer.util.getNode("T1"), "T1-T2")
    """

    @staticmethod
    def models():
        """The cards of all models."""
        from IMTCore.catalogue import list_cards

        return list_cards()[0]

    @staticmethod
    def ensureDependencies(requirementsPath):
        """Install what is missing, with the user's consent: torch through the PyTorch extension, the rest by pip."""
        import importlib.util

        from slicer import packaging

        if importlib.util.find_spec("torch") is None:
            try:
                import PyTorchUtils
            except ModuleNotFoundError as error:
                raise RuntimeError(_("Install the PyTorch extension in the Extensions Manager, restart Slicer, and try again.")) from error
            if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
                raise RuntimeError(_("IMT needs PyTorch, which was not installed."))
        packaging.pip_ensure(packaging.load_requirements(requirementsPath), requester="IMT")

    def translate(self, inputNode, model, outputNode=None, progressCallback=None, isCancelled=None):
        """Translate a volume node; blocks, but keeps Slicer alive.

        :param inputNode: vtkMRMLScalarVolumeNode to translate.
        :param model: a model's name, or a pair of modalities such as "T1-T2".
        :param outputNode: scalar volume node to fill, or None for a new one.
        :param progressCallback: called with (fraction, message).
        :param isCancelled: called often; True stops the run.
        :return: the output node, on the input's grid and under its parent transform.
        :raises ValueError: bad input. RuntimeError: the run failed or was cancelled. The scene stays as it was.
        """
        if inputNode is None or not inputNode.IsA("vtkMRMLScalarVolumeNode") or inputNode.GetImageData() is None:
            raise ValueError(_("Select an input volume that has an image."))
        inputID, inputName, transformID = inputNode.GetID(), inputNode.GetName(), inputNode.GetTransformNodeID()
        outputID = outputNode.GetID() if outputNode is not None else None
        with tempfile.TemporaryDirectory(prefix="IMT-") as folder:
            source, result = Path(folder) / "input.nrrd", Path(folder) / "output.nrrd"
            if not slicer.util.exportNode(inputNode, str(source), properties={"useCompression": 0}):
                raise RuntimeError(_("Cannot write the input volume to {folder}.").format(folder=folder))
            arguments = ["translate", str(source), "--model", model, "--output", str(result), "--progress", "json"]
            self._run(arguments, progressCallback or (lambda *_: None), isCancelled or (lambda: False))
            if slicer.mrmlScene.GetNodeByID(inputID) is None:
                raise RuntimeError(_("The input volume was removed during the run; its translation was dropped."))
            record = json.loads(result.with_suffix(".json").read_text(encoding="utf-8"))
            loaded = slicer.util.loadVolume(str(result), properties={"show": False})
        if outputID is not None:
            node = slicer.mrmlScene.GetNodeByID(outputID)
            if node is None:
                slicer.mrmlScene.RemoveNode(loaded)
                raise RuntimeError(_("The output volume was removed during the run; the translation was dropped."))
            node.CopyContent(loaded)
            slicer.mrmlScene.RemoveNode(loaded)
        else:
            node = loaded
            if node.GetStorageNode():  # it points into the temporary folder
                slicer.mrmlScene.RemoveNode(node.GetStorageNode())
            name = f"{inputName} {record['target_modality']} (synthetic)"
            node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
        node.SetAndObserveTransformNodeID(transformID)
        node.SetAttribute("IMT.Synthetic", "true")
        node.SetAttribute("IMT.Mark", json.dumps(record))
        return node

    @staticmethod
    def _run(arguments, progressCallback, isCancelled):
        """Run `imt` in a child process of Slicer's Python; read its JSON lines; raise its error."""
        import queue
        import threading

        environment = dict(os.environ)
        paths = [str(Path(__file__).resolve().parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        environment.pop("ITK_AUTOLOAD_PATH", None)
        python = shutil.which("PythonSlicer") or sys.executable
        process = subprocess.Popen(
            [python, "-m", "IMTCommand", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        lines = queue.Queue()
        reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True)
        reader.start()
        last, problem = "", ""
        try:
            while process.poll() is None or reader.is_alive() or not lines.empty():
                if isCancelled():
                    raise RuntimeError(_("Cancelled: nothing was changed."))
                slicer.app.processEvents()
                try:
                    last = lines.get(timeout=POLL_SECONDS).strip() or last
                except queue.Empty:
                    continue
                try:
                    event = json.loads(last)
                except ValueError:
                    continue
                if event["stage"] == "error":
                    problem = event["message"]
                else:
                    progressCallback(event["fraction"], f"{event['stage']}: {event['message']}")
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(CANCEL_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if process.returncode != 0:
            raise (ValueError if process.returncode == 2 else RuntimeError)(problem or last or _("The imt command failed."))


class IMTTranslateTest(ScriptedLoadableModuleTest):
    """What can be tested inside Slicer."""

    def runTest(self):
        """Run all tests."""
        self.setUp()
        self.test_resultLiesOnTheInputsGrid()
        self.setUp()
        self.test_missingInputLeavesTheSceneAsItWas()

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def test_resultLiesOnTheInputsGrid(self):
        """A translated oblique volume has the input's matrix, and is marked as synthetic."""
        import numpy as np
        import vtk

        k, j, i = np.indices((12, 60, 50)) - np.array([6, 30, 25])[:, None, None, None]
        radius = np.sqrt((k / 5) ** 2 + (j / 25) ** 2 + (i / 20) ** 2)
        head = np.where(radius < 1, 100 + 80 * np.cos(4 * radius) + i, 0).astype(np.int16)
        node = slicer.util.addVolumeFromArray(head, name="T1")
        node.SetSpacing(2.0, 2.0, 4.0)
        node.SetIJKToRASDirections(0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
        result = IMTTranslateLogic().translate(node, "T1-T2")
        expected, actual = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(expected)
        result.GetIJKToRASMatrix(actual)
        for row in range(4):
            for column in range(4):
                self.assertAlmostEqual(expected.GetElement(row, column), actual.GetElement(row, column), places=5)
        self.assertEqual(slicer.util.arrayFromVolume(result).shape, head.shape)
        self.assertEqual(result.GetAttribute("IMT.Synthetic"), "true")

    def test_missingInputLeavesTheSceneAsItWas(self):
        """No volume gives one clear message."""
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(ValueError):
            IMTTranslateLogic().translate(None, "T1-T2")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
