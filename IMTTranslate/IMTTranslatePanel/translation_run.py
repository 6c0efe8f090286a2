"""One translation of a volume node into one or several modalities: from the scene to `imt` and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.jobs import Job, JobCancelled, JobFailed
from IMTSlicerLib.nodes import (
    brightest,
    checkOutput,
    checkVolume,
    fileNameFor,
    fillVolume,
    gridOf,
    markNode,
    placeBeside,
    readVolume,
    removeVolume,
    showInRange,
    writeVolume,
)
from IMTSlicerLib.saved_marks import followSaving
from IMTSlicerLib.signals import Signal
from IMTSlicerLib.workers import Worker


@dataclass(frozen=True)
class TranslationOptions:
    """How to translate; the defaults suit most.

    Attributes: `uncertainty`, `samples` (passes for it), `device` (auto, cpu, cuda, cuda:N, mps), `precision` (auto, fp32,
    bf16, fp16), `batch` (slices at once, 0 for automatic), `seed`, `singlePlane` (of a model of several planes, the
    first alone: faster, less accurate), `biasCorrection` (N4 first), `checkModality`.
    """

    uncertainty: bool = False
    samples: int = 8
    device: str = "auto"
    precision: str = "auto"
    batch: int = 0
    seed: int = 0
    singlePlane: bool = False
    biasCorrection: bool = False
    checkModality: bool = True

    def arguments(self) -> list[str]:
        """As `imt translate` takes them."""
        arguments = ["--device", self.device, "--precision", self.precision, "--seed", str(self.seed)]
        if self.batch:
            arguments += ["--batch", str(self.batch)]
        if self.singlePlane:
            arguments.append("--single-plane")
        if self.biasCorrection:
            arguments.append("--bias-correction")
        if not self.checkModality:
            arguments.append("--no-modality-check")
        return arguments


@dataclass(frozen=True)
class TranslationTarget:
    """What to make: `model` (name, pair or card's path), the modality, and the node to fill (None for a new one)."""

    model: str
    modality: str | None = None
    outputNode: object | None = None


class TranslationRun:
    """Translates one volume node into one or several modalities in the background.

    All that it needs of the scene is taken at the start; what the user selects meanwhile changes nothing. The scene
    changes only at the end, and only if all went well.

    Signals: `progress(fraction, message, secondsLeft)`, `logged(line)`, and at the end `ended()`; then `state` is
    finished, failed or cancelled, `errorMessage` says what was wrong, and `outputNodes`, `uncertaintyNodes` and
    `warnings` hold what came out.

    :raises ValueError: if the input or an output node cannot be used.
    """

    def __init__(
        self,
        inputNode,
        targets: list[TranslationTarget],
        options: TranslationOptions | None = None,
        sourceModality: str | None = None,
        worker: Worker | None = None,
    ) -> None:
        checkVolume(inputNode, _("input volume"))
        if not targets:
            raise ValueError(_("Choose at least one modality to translate to."))
        given = [target.outputNode for target in targets if target.outputNode is not None]
        for node in given:
            checkOutput(node)
        if any(node is inputNode for node in given):
            raise ValueError(_("The output volume is the input volume. Choose another one, or a new volume."))
        if len({node.GetID() for node in given}) < len(given):
            raise ValueError(_("Two modalities have the same output volume. Choose another one for one of them."))
        self.options = options or TranslationOptions()
        self.outputNodes: list = []
        self.uncertaintyNodes: list = []
        self.warnings: list[str] = []
        self.errorMessage = ""
        self.progress, self.logged, self.ended = Signal(), Signal(), Signal()
        self._targets = [(target.model, target.modality, target.outputNode and target.outputNode.GetID()) for target in targets]
        self._source = sourceModality
        self._inputID, self._inputName = inputNode.GetID(), inputNode.GetName()
        self._fileName = fileNameFor(inputNode)
        self._matrix, self._dimensions = gridOf(inputNode)
        self._importError: Exception | None = None
        self._state: str | None = None
        self.job = Job(self._requests, worker, title=_("Translate {name}").format(name=self._inputName))
        self.job.progress.connect(self.progress.emit)
        self.job.logged.connect(self.logged.emit)
        self.job.finished.connect(self._onFinished)
        self.job.ended.connect(self._onEnded)

    @property
    def state(self) -> str:
        """idle, running, finished, failed or cancelled."""
        return self._state or self.job.state

    def start(self) -> TranslationRun:
        """Write the input and start the process; returns at once."""
        self.job.start()
        return self

    def cancel(self) -> None:
        """End the run now; the scene stays as it is."""
        self.job.cancel()

    def wait(self) -> TranslationRun:
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

    def _requests(self, folder: Path) -> list[list[str]]:
        node = slicer.mrmlScene.GetNodeByID(self._inputID)
        source = writeVolume(node, folder / f"{self._fileName}.nrrd")
        requests = []
        for number, (model, modality, _outputID) in enumerate(self._targets):
            request = ["translate", str(source), "--model", model, "--output", str(folder / f"output-{number}.nrrd")]
            request += ["--progress", "json", *self.options.arguments()]
            if self._source is not None and modality is not None:
                request += ["--from", self._source, "--to", modality]
            if self.options.uncertainty:
                request += ["--uncertainty", str(folder / f"uncertainty-{number}.nrrd"), "--samples", str(self.options.samples)]
            requests.append(request)
        return requests

    def _named(self, text: str) -> str:
        """A message of `imt` in terms of Slicer: the user has never seen the volume's file, nor the command's options."""
        text = text.replace("(--no-modality-check)", _("(in the panel under Advanced, in Python with checkModality=False)"))
        return text.replace(f"{self._fileName}.nrrd", self._inputName)

    def _onFinished(self) -> None:
        try:
            self._import(self.job.folder)
        except Exception as error:
            self._importError = error
            self.errorMessage = str(error)

    def _onEnded(self) -> None:
        self._state = "failed" if self._importError is not None else self.job.state
        self.job.errorMessage = self._named(self.job.errorMessage)  # the job's own exception tells it too
        self.errorMessage = self.errorMessage or self.job.errorMessage
        self.ended.emit()

    def _import(self, folder: Path) -> None:
        """Bring the results into the scene, all or none."""
        inputNode = slicer.mrmlScene.GetNodeByID(self._inputID)
        if inputNode is None:
            raise RuntimeError(_("The input volume {name} was removed during the run; its translation was dropped.").format(name=self._inputName))
        outputs = []
        for _model, _modality, outputID in self._targets:
            output = slicer.mrmlScene.GetNodeByID(outputID) if outputID else None
            if outputID and output is None:
                raise RuntimeError(_("An output volume was removed during the run; the translation was dropped."))
            outputs.append(output)
        loaded: list = []
        try:
            results = []
            for number, output in enumerate(outputs):
                for stem in ("output", "uncertainty"):
                    path = folder / f"{stem}-{number}.nrrd"
                    if stem == "uncertainty" and not self.options.uncertainty:
                        continue
                    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                    loaded.append(readVolume(path, self._matrix))
                    if tuple(loaded[-1].GetImageData().GetDimensions()) != self._dimensions:
                        raise RuntimeError(_("The result has another size than the input; it was dropped."))
                    results.append((stem, loaded[-1], output if stem == "output" else None, record))
            for stem, node, output, record in results:
                self._place(stem, node, output, record, inputNode)
        except Exception:
            for node in filter(slicer.mrmlScene.IsNodePresent, loaded):
                removeVolume(node)
            raise

    def _place(self, stem: str, loaded, output, record: dict, inputNode) -> None:
        node = fillVolume(loaded, output, self._matrix)
        target = record["target_modality"]
        if output is None:
            what = target if stem == "output" else _("{modality} uncertainty").format(modality=target)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(f"{self._inputName} {what} (synthetic)"))
        record = {**record, "input": {**record.get("input", {}), "node": self._inputName}}
        markNode(node, record)
        followSaving(node)
        placeBeside(node, inputNode)
        if stem == "output":
            showInRange(node, float(record["output_range"][0]), brightest(node))
            self.outputNodes.append(node)
            warnings = [self._named(text) for text in record.get("warnings", [])]
            self.warnings += [text for text in warnings if text not in self.warnings]
        else:
            showInRange(node, 0.0, brightest(node), heat=True)
            self.uncertaintyNodes.append(node)
