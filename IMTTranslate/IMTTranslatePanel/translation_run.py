"""One translation of a volume node into one or several modalities: from the scene to `imt` and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IMTSlicerLib.jobs import Job
from IMTSlicerLib.nodes import (
    brightest,
    checkOutput,
    checkVolume,
    fillVolume,
    markNode,
    placeBeside,
    readVolume,
    removeNode,
    showInRange,
)
from IMTSlicerLib.runs import Run
from IMTSlicerLib.saved_marks import followSaving
from IMTSlicerLib.workers import Worker

from .dicom_export import rememberSource
from .trust_map_node import placeTrustMap, readTrustMap


@dataclass(frozen=True)
class TranslationOptions:
    """How to translate; the defaults suit most.

    Attributes: `uncertainty`, `samples` (passes for it), `device` (auto, cpu, cuda, cuda:N, mps), `precision` (auto, fp32,
    bf16, fp16), `batch` (slices at once, 0 for automatic), `seed`, `singlePlane` (of a model of several planes, the
    first alone: faster, less accurate), `biasCorrection` (N4 first), `checkModality`, `trustMap` (labels of where not to trust it).
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
    trustMap: bool = False

    @classmethod
    def of(cls, parameterNode) -> TranslationOptions:
        """As the panel's parameter node says."""
        return cls(**{option.name: getattr(parameterNode, option.name) for option in fields(cls)})

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


class TranslationRun(Run):
    """Translates one volume node into one or several modalities; at the end `outputNodes`, `uncertaintyNodes` and `trustNodes` hold what came out.

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
        super().__init__(inputNode)
        self.options = options or TranslationOptions()
        self.outputNodes: list = []
        self.uncertaintyNodes: list = []
        self.trustNodes: list = []
        self._targets = [(target.model, target.modality, target.outputNode and target.outputNode.GetID()) for target in targets]
        self._source = sourceModality
        self._follow(Job(self._requests, worker, title=_("Translate {name}").format(name=self._inputName)))

    def _requests(self, folder: Path) -> list[list[str]]:
        source = self._writeInput(folder)
        requests = []
        for number, (model, modality, _outputID) in enumerate(self._targets):
            request = ["translate", str(source), "--model", model, "--output", str(folder / f"output-{number}.nrrd")]
            request += ["--progress", "json", *self.options.arguments()]
            if self._source is not None and modality is not None:
                request += ["--from", self._source, "--to", modality]
            if self.options.uncertainty:
                request += ["--uncertainty", str(folder / f"uncertainty-{number}.nrrd")]
            if self.options.trustMap:
                request += ["--trust-map", str(folder / f"trust-{number}.nrrd")]
            if self.options.uncertainty or self.options.trustMap:
                request += ["--samples", str(self.options.samples)]
            requests.append(request)
        return requests

    def _take(self, folder: Path) -> None:
        """Bring the results into the scene, all or none."""
        inputNode = self.inputNode()
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
                made = {"output": True, "uncertainty": self.options.uncertainty, "trust": self.options.trustMap}
                for stem in (stem for stem, wanted in made.items() if wanted):
                    path = folder / f"{stem}-{number}.nrrd"
                    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                    read = readTrustMap if stem == "trust" else readVolume
                    loaded.append(read(path, self._matrix, self._dimensions))
                    results.append((stem, loaded[-1], output if stem == "output" else None, record))
            for stem, node, output, record in results:
                self._place(stem, node, output, record, inputNode)
        except Exception:
            for node in filter(slicer.mrmlScene.IsNodePresent, loaded):
                removeNode(node)
            raise

    def _place(self, stem: str, loaded, output, record: dict, inputNode) -> None:
        if stem == "trust":
            self.trustNodes.append(loaded)
            title = _("{input} {modality} trust map (synthetic)").format(input=self._inputName, modality=record["target_modality"])
            placeTrustMap(loaded, title, {**record, "input": {**record.get("input", {}), "node": self._inputName}}, inputNode)
            return
        node = fillVolume(loaded, output, self._matrix)
        target = record["target_modality"]
        if output is None:
            what = target if stem == "output" else _("{modality} uncertainty").format(modality=target)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(f"{self._inputName} {what} (synthetic)"))
        record = {**record, "input": {**record.get("input", {}), "node": self._inputName}}
        markNode(node, record)
        followSaving(node)
        rememberSource(node, inputNode)
        placeBeside(node, inputNode)
        if stem == "output":
            showInRange(node, float(record["output_range"][0]), brightest(node))
            self.outputNodes.append(node)
            self.warnings += record.get("warnings", [])
        else:
            showInRange(node, 0.0, brightest(node), heat=True)
            self.uncertaintyNodes.append(node)
