"""The pictures of the READMEs, drawn by the offscreen harness: the panels in their states, and what the slice views show.

They show the project's own panels with imitated widgets (Testing/harness), not a screen of Slicer.

    python Testing/make_screenshots.py [--output Resources/Images] [--only segment]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Testing" / "harness"), str(ROOT / "Testing" / "Slicer")]

import slicer

from slicer_harness import host, views

PANEL = (520, 980)
REGISTER_PANEL = (520, 1070)
SEGMENT_PANEL = (520, 830)
TRUST_PANEL = (520, 620)
ORIENTATIONS = (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal"))
DICOM_PANEL = (520, 600)
BATCH_PANEL = (520, 860)
BATCH_CASES = 6
BATCH_BROKEN = 3  # the number of the case whose file is cut off
SEGMENT_MM = 2
TISSUE_WORDS = {"csf": 1, "grey": 2, "gray": 2, "white": 3}  # in the names of a model's structures: the phantoms' codes
PHANTOM_MM = 3
# Outlines in the colours of the tests' phantoms would be grey on grey.
PHANTOM_LABELS = "code,name,red,green,blue\n1,csf,70,150,255\n2,grey,60,200,90\n7,white,255,190,40\n"
TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
TIMEOUT_SECONDS = 600
VIEW = (360, 400)


def wait_for(condition: Callable[[], bool]) -> None:
    """Let Qt work until the condition holds."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("The panel did not come to an end.")
        slicer.app.processEvents()
        time.sleep(0.02)


def icbm_t1() -> Path:
    """The ICBM152 T1 template in nilearn's wheel: the average of 152 real heads."""
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("The pictures need nilearn, which make setup installs.")
    return Path(next(iter(found.submodule_search_locations))) / TEMPLATE


def beside(pictures: list, path: Path) -> None:
    """Join pictures of one height into one PNG."""
    import numpy as np
    from matplotlib import image

    image.imsave(path, np.ascontiguousarray(np.concatenate(pictures, axis=1)))
    print("wrote", path)


def picture(view: str, orientation: str, background, overlay=None, opacity: float = 0.5, title: str = ""):
    """What a slice view shows of a volume and an overlay with its colour scale, [row, column, red green blue]."""
    shown = views.SliceView(view, orientation, VIEW).show(background, overlay, opacity=opacity)
    if overlay is not None:
        # A view draws only the legends that were made after it.
        old = slicer.modules.colors.logic().GetColorLegendDisplayNode(overlay)
        if old is not None:
            slicer.mrmlScene.RemoveNode(old)
        views.show_color_legend(overlay).SetTitleText(title)
    return shown.array()


def slices(background, overlay=None) -> list:
    """Pictures of the three slice views."""
    return [
        picture(name, orientation, background, overlay, title="std. dev.")
        for name, orientation in ORIENTATIONS
    ]


def shots(widget, folder: Path) -> Callable[[str], None]:
    """A function that takes a picture of a panel under a name."""

    def shot(name: str) -> None:
        for _ in range(10):  # layouts settle one level at a time
            slicer.app.processEvents()
        print("wrote", host.screenshot(widget, folder / f"{name}.png"))

    return shot


def translate_pictures(folder: Path) -> None:
    """IMTTranslate: its panel, its results on the template and on the phantom."""
    t1 = slicer.util.loadVolume(str(icbm_t1()), properties={"name": "T1", "show": False})
    widget = host.open_module(ROOT / "IMTTranslate" / "IMTTranslate.py", PANEL)
    ui, shot = widget.ui, shots(widget, folder)

    ui.inputSelector.setCurrentNode(t1)
    ui.translateToFLAIRCheckBox.checked = True
    ui.uncertaintyCheckBox.checked = True
    shot("panel-idle")
    ui.applyButton.click()
    wait_for(lambda: ui.progressBar.value > 600)
    shot("panel-running")
    wait_for(lambda: not widget.panel.isRunning())
    shot("panel-done")
    t2 = slicer.util.getNode("T1 T2 (synthetic)")
    uncertainty = slicer.util.getNode("T1 T2 uncertainty (synthetic)")
    beside(slices(t2), folder / "slices-result.png")
    beside(slices(t2, uncertainty), folder / "slices-uncertainty.png")

    slicer.mrmlScene.Clear(False)
    samples = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data"
    phantoms = {m: slicer.util.loadVolume(str(samples / f"IMT-phantom-{m}.nii.gz"), properties={"name": f"Phantom {m}", "show": False}) for m in ("T1", "T2")}
    widget.initializeParameterNode()
    ui.inputSelector.setCurrentNode(phantoms["T1"])
    ui.uncertaintyCheckBox.checked = False
    ui.applyButton.click()
    wait_for(lambda: not widget.panel.isRunning())
    ui.compareCollapsibleButton.collapsed = False
    ui.realSelector.setCurrentNode(phantoms["T2"])
    ui.compareButton.click()
    wait_for(lambda: "PSNR" in ui.scoresLabel.text)
    shot("panel-compared")
    synthetic = slicer.util.getNode("Phantom T1 T2 (synthetic)")
    error = slicer.util.getNode("*error (%)*")
    layers = ((phantoms["T2"], None), (synthetic, None), (synthetic, error))
    axial = [picture("Red", "Axial", background, overlay, 0.7, "error %") for background, overlay in layers]
    beside(axial, folder / "slices-error.png")

    ui.compareCollapsibleButton.collapsed = True
    slicer.util.arrayFromVolume(phantoms["T1"])[:] = 100
    slicer.util.arrayFromVolumeModified(phantoms["T1"])
    ui.applyButton.click()
    wait_for(lambda: not widget.panel.isRunning())
    shot("panel-error")
    widget.panel.stop()
    host.close_module(widget)


def trust_picture(view: str, orientation: str, background, doubts):
    """What a slice view shows of a volume, with a trust map and its legend over it, as the panel shows them."""
    from IMTTranslatePanel.trust_map_node import OPACITY, nameLegend

    shown = views.SliceView(view, orientation, VIEW).show(background, label=doubts, labelOpacity=OPACITY)
    old = slicer.modules.colors.logic().GetColorLegendDisplayNode(doubts)
    if old is not None:  # a view draws only the legends that were made after it
        slicer.mrmlScene.RemoveNode(old)
    nameLegend(views.show_color_legend(doubts))
    return shown.array()


def trust_pictures(folder: Path) -> None:
    """IMTTranslate's warning of an unusual input, and the trust map over the FLAIR made from the phantom's T1."""
    import vtk

    slicer.mrmlScene.Clear(False)
    path = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data" / "IMT-phantom-T1.nii.gz"
    t1 = slicer.util.loadVolume(str(path), properties={"name": "Phantom T1", "show": False})
    cut = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(t1)[:50].copy(), name="Cut T1")
    matrix = vtk.vtkMatrix4x4()
    t1.GetIJKToRASMatrix(matrix)
    cut.SetIJKToRASMatrix(matrix)
    widget = host.open_module(ROOT / "IMTTranslate" / "IMTTranslate.py", TRUST_PANEL)
    ui, shot = widget.ui, shots(widget, folder)
    ui.inputSelector.setCurrentNode(cut)
    ui.translateToT2CheckBox.checked = False
    ui.translateToFLAIRCheckBox.checked = True
    ui.trustMapCheckBox.checked = True
    shot("trust-check")
    ui.inputSelector.setCurrentNode(t1)
    ui.samplesSpinBox.value = 4
    ui.applyButton.click()
    wait_for(lambda: not widget.panel.isRunning())
    print(ui.statusLabel.text)
    flair, doubts = slicer.util.getNode("Phantom T1 FLAIR (synthetic)"), slicer.util.getNode("* trust map (synthetic)")
    beside([trust_picture(name, orientation, flair, doubts) for name, orientation in ORIENTATIONS], folder / "trust-map.png")
    widget.panel.stop()
    host.close_module(widget)


def batch_pictures(folder: Path) -> None:
    """IMTTranslate's section Batch: a BIDS folder of phantoms, one of them broken, with the models that come with IMT."""
    import qt

    slicer.mrmlScene.Clear(False)
    widget = host.open_module(ROOT / "IMTTranslate" / "IMTTranslate.py", BATCH_PANEL)
    page, ui, shot = widget.batch, widget.batch.ui, shots(widget, folder)
    for button in (widget.ui.inputsCollapsibleButton, widget.ui.targetsCollapsibleButton):
        button.collapsed = True
    with tempfile.TemporaryDirectory(prefix="IMT-") as work, contextlib.chdir(work):  # so that short paths are shown
        write_batch_cases(Path("cohort"))
        page.widget.collapsed = False
        ui.batchInputPathLineEdit.currentPath, ui.batchOutputPathLineEdit.currentPath = "cohort", "results"
        widget._parameterNode.singlePlane = True  # in a third of the time
        wait_for(lambda: ui.batchTableWidget.rowCount == BATCH_CASES)
        rows = (ui.batchModelsListWidget.item(row) for row in range(ui.batchModelsListWidget.count))
        next(item for item in rows if item.text().endswith("T1-T2")).setCheckState(qt.Qt.Checked)
        host.choose(ui.batchSegmenterComboBox, "tissue: tissue-T1")
        shot("batch-idle")
        ui.batchStartButton.click()
        wait_for(lambda: not page.isRunning() or batch_table(ui)[2:4] == [["failed", "translate"], ["running", "segment"]])
        shot("batch-running")
        ui.batchStartButton.click()  # stop
        ui.batchStartButton.click()  # and resume
        wait_for(lambda: not page.isRunning())
        print(ui.batchStatusLabel.text)
        ui.batchTableWidget.setCurrentCell(BATCH_BROKEN - 1, 0)
        shot("batch-done")
    widget.panel.stop()
    host.close_module(widget)


def batch_table(ui) -> list[list[str]]:
    """State and stage of each case, as the table shows them."""
    table = ui.batchTableWidget
    return [[table.item(row, column).text() for column in (1, 2)] for row in range(table.rowCount)]


def write_batch_cases(folder: Path) -> None:
    """The sample phantom as some subjects of a BIDS folder; one file is cut off."""
    sample = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data" / "IMT-phantom-T1.nii.gz"
    for number in range(1, BATCH_CASES + 1):
        image = folder / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz"
        image.parent.mkdir(parents=True)
        content = sample.read_bytes()
        image.write_bytes(content[: len(content) // 2] if number == BATCH_BROKEN else content)


def register_pictures(folder: Path) -> None:
    """IMTRegister: its panel, and its labels on a phantom; a coarse set, made and registered in about a minute."""
    import register_fixtures  # imports qt: after the harness has started

    register_fixtures.DOWNSAMPLE = PHANTOM_MM
    slicer.mrmlScene.Clear(False)
    widget = host.open_module(register_fixtures.MODULE, REGISTER_PANEL)
    ui, shot = widget.ui, shots(widget, folder)
    with tempfile.TemporaryDirectory(prefix="IMT-") as work:
        os.environ["IMT_REGISTER_CACHE"] = str(Path(work) / "cache")
        cohort = register_fixtures.write_cohort(Path(work))
        (cohort.atlases / "labels.csv").write_text(PHANTOM_LABELS, encoding="utf-8")
        host.choose(ui.inputSelector, cohort.volume("T2", "Phantom T2").GetName())
        host.choose(ui.translateToComboBox, "T1")
        poor = shutil.copytree(cohort.atlases, Path(work) / "poor")
        (poor / "head2" / "T1.nii.gz").unlink()
        ui.atlasFolderPathLineEdit.currentPath = str(poor)
        shot("register-error")
        ui.atlasFolderPathLineEdit.currentPath = str(cohort.atlases)
        shot("register-idle")
        ui.applyButton.click()
        wait_for(lambda: not widget.panel.isRunning() or ui.progressBar.value > 550)
        shot("register-running")
        wait_for(lambda: not widget.panel.isRunning())
        print(ui.statusLabel.text)
        results = widget.panel._run.results
        for button in (ui.inputsCollapsibleButton, ui.atlasesCollapsibleButton, ui.registrationCollapsibleButton):
            button.collapsed = True
        ui.qualityCollapsibleButton.collapsed = False
        shot("register-done")
        widget._parameterNode.referenceSegmentation = cohort.labels("Phantom truth")
        ui.compareButton.click()
        wait_for(lambda: "Dice" in ui.scoresLabel.text)
        shot("register-compared")
        register_slices(widget, results, folder)
        widget.panel.stop()
        host.close_module(widget)


def register_slices(widget, results, folder: Path) -> None:
    """The labels' outlines, and the atlases' agreement, over the input."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    widget.ui.outlinesCheckBox.checked = True
    for number in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = slicer.mrmlScene.GetNthNodeByClass(number, "vtkMRMLSegmentationNode")
        hierarchy.SetItemDisplayVisibility(hierarchy.GetItemByDataNode(node), int(node is results.segmentationNode))
    beside(slices(results.inputNode()), folder / "register-outlines.png")
    results.segmentationNode.GetDisplayNode().SetVisibility(False)
    beside([picture("Red", "Axial", results.inputNode(), results.agreementNode, title="agreement")], folder / "register-agreement.png")


def segment_pictures(folder: Path) -> None:
    """IMTSegment: its panel, and its labels on a phantom whose true labels are known, with the default model for tissue."""
    import segment_fixtures  # imports qt: after the harness has started

    slicer.mrmlScene.Clear(False)
    widget = host.open_module(segment_fixtures.MODULE, SEGMENT_PANEL)
    ui, shot = widget.ui, shots(widget, folder)
    from IMTSegmentPanel.segmentation_run import findCard

    card = findCard("tissue")
    t1, truth = segment_phantom(card)
    ui.inputSelector.setCurrentNode(t1)
    host.choose(ui.modalityComboBox, card.source)
    widget._parameterNode.model = card.name
    ui.probabilitiesCheckBox.checked = True
    if ui.compareModelComboBox.count > 1:
        ui.compareModelComboBox.currentIndex = 1
    shot("segment-idle")
    ui.applyButton.click()
    wait_for(lambda: not widget.panel.isRunning() or ui.progressBar.value > 450)
    shot("segment-running")
    wait_for(lambda: not widget.panel.isRunning())
    print(ui.statusLabel.text)
    results = widget.panel._run.results
    for button in (ui.inputsCollapsibleButton, ui.outputsCollapsibleButton):
        button.collapsed = True
    shot("segment-done")
    beside(slices(t1), folder / "segment-labels.png")
    ui.surfacesCheckBox.checked = True
    beside([views.ThreeDView(size=VIEW).array()], folder / "segment-surfaces.png")
    ui.surfacesCheckBox.checked = False
    results.segmentationNode.GetDisplayNode().SetVisibility(False)
    structure, probability = list(results.probabilityNodes.items())[1]
    beside([picture("Red", "Axial", t1, probability, title=structure)], folder / "segment-probability.png")
    widget._parameterNode.referenceSegmentation = truth
    ui.compareButton.click()
    wait_for(lambda: "Dice" in ui.scoresLabel.text)
    ui.modelCollapsibleButton.collapsed = True
    shot("segment-compared")
    ui.regionsComboBox.currentIndex = 2
    beside(slices(t1), folder / "segment-regions.png")
    host.choose(ui.modalityComboBox, "PD")
    for button in (ui.inputsCollapsibleButton, ui.modelCollapsibleButton):
        button.collapsed = False
    ui.resultCollapsibleButton.collapsed = True
    shot("segment-error")
    widget.panel.stop()
    host.close_module(widget)


def segment_phantom(card) -> tuple:
    """A simulated head as a volume node, and its true labels as a segmentation with the names of a model's structures."""
    from translate_fixtures import set_matrix

    from IMTCore.simulation import PhantomSpec, simulate
    from IMTCore.tissue_maps import icbm152_tissues
    from IMTSlicerLib.segmentations import Structure, fillSegmentation

    phantom = simulate(icbm152_tissues(icbm_t1().parent, SEGMENT_MM), PhantomSpec(seed=4, modalities=(card.source,), warp_mm=6))
    image = phantom.images[card.source]
    matrix = image.geometry.affine_ras
    node = slicer.util.addVolumeFromArray(image.array, name=f"Phantom {card.source}")
    set_matrix(node, matrix)
    codes = {entry.name: next((code for word, code in TISSUE_WORDS.items() if word in entry.name.lower()), 0) for entry in card.classes.values()}
    truth = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Phantom truth")
    structures = [Structure(code, name, (0.5, 0.5, 0.5)) for name, code in codes.items() if code]
    fillSegmentation(truth, phantom.labels.array, matrix, structures)
    truth.GetDisplayNode().SetVisibility(False)
    return node, truth


def dicom_pictures(folder: Path) -> None:
    """IMTTranslate: a translation of a volume from Slicer's DICOM database is written as a series of its study."""
    import dicom_fixtures  # imports qt: after the harness has started
    from dicom_studies import write_study

    from slicer_harness import dialogs

    slicer.mrmlScene.Clear(False)
    widget = host.open_module(ROOT / "IMTTranslate" / "IMTTranslate.py", DICOM_PANEL)
    ui, page, shot = widget.ui, widget.dicom, shots(widget, folder)
    with tempfile.TemporaryDirectory(prefix="IMT-") as work:
        phantom = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data" / "IMT-phantom-T1.nii.gz"
        node = slicer.util.loadVolume(str(phantom), properties={"show": False})
        head = dicom_fixtures.head_volume(slicer.util.arrayFromVolume(node), node.GetSpacing())
        slicer.mrmlScene.RemoveNode(node)
        study = write_study(Path(work) / "study", {"T1": head, "T2": head}, flat=True)
        ui.inputSelector.setCurrentNode(dicom_fixtures.add_from_dicom(study, head))
        ui.applyButton.click()
        wait_for(lambda: not widget.panel.isRunning())
        for button in (ui.inputsCollapsibleButton, ui.targetsCollapsibleButton):
            button.collapsed = True
        page.widget.collapsed = False
        page.ui.dicomDatabaseCheckBox.checked = True
        place = Path(work) / "synthetic series"
        place.mkdir()
        dialogs.answer("QFileDialog.getExistingDirectory", str(place))
        page.ui.dicomSaveButton.click()
        wait_for(lambda: not page.isRunning())
        shot("dicom-saved")
    widget.panel.stop()
    host.close_module(widget)


PICTURES = {
    "translate": translate_pictures,
    "trust": trust_pictures,
    "batch": batch_pictures,
    "register": register_pictures,
    "segment": segment_pictures,
    "dicom": dicom_pictures,
}


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "Resources" / "Images")
    parser.add_argument("--only", choices=PICTURES, help="the pictures of one module")
    values = parser.parse_args()
    values.output.mkdir(parents=True, exist_ok=True)
    host.start()
    for name, draw in PICTURES.items():
        if values.only in (None, name):
            draw(values.output)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Qt, VTK and Python take each other down in no certain order
