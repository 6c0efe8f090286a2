"""What the tests of IMTRegister share: phantom heads with exact labels and landmarks, and the panel as its users have it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
from panel_checks import ROOT, OpenPanel, wait_until
from translate_fixtures import children, matrix_of

from slicer_harness import host

MODULE = ROOT / "IMTRegister" / "IMTRegister.py"
UI = ROOT / "IMTRegister" / "Resources" / "UI" / "IMTRegister.ui"
GREY_MATTER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~"
    "SCT^389081007^Gray matter~^^~Anatomic codes - DICOM master list~^^~^^"
)
LABELS_CSV = (
    "code,name,red,green,blue,terminology\n"
    "1,csf,30,60,200,\n"
    f"2,grey,130,130,130,{GREY_MATTER}\n"
    "7,white,240,240,240,\n"
)
CODES = {"csf": 1, "grey": 2, "white": 7}
DOWNSAMPLE = 5  # 5 mm: 39 x 46 x 37 voxels
LANDMARKS_LPS = {"L1": (-15.0, 10.0, 20.0), "L2": (15.0, 10.0, 20.0), "L3": (-10.0, 30.0, 5.0), "L4": (12.0, -25.0, 10.0)}


@dataclass(frozen=True)
class Cohort:
    """Phantoms: the subject's files, and an atlas folder with `head1` and `head2`."""

    subject: Path
    atlases: Path
    landmarks: dict[str, np.ndarray]  # of the subject, LPS mm

    def volume(self, modality: str = "T2", name: str | None = None):
        """The subject's image as a node, under no transform and without its file."""
        return load_volume(self.subject / f"{modality}.nii.gz", name or f"Anna {modality}")

    def points(self, name: str = "landmarks"):
        """The subject's landmarks as a point list."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        for title, (left, posterior, superior) in self.landmarks.items():
            node.AddControlPoint([-left, -posterior, superior], title)
        return node

    def labels(self, name: str = "reference"):
        """The subject's true labels as a segmentation, with the names of the atlases' labels."""
        from IMTSlicerLib.segmentations import Structure, fillSegmentation

        volume = load_volume(self.subject / "labels.nii.gz", "labels")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        structures = [Structure(code, title, (0.1 * code, 0.5, 0.5)) for title, code in CODES.items()]
        fillSegmentation(node, slicer.util.arrayFromVolume(volume), matrix_of(volume), structures)
        slicer.mrmlScene.RemoveNode(volume)
        return node


def load_volume(path: Path, name: str):
    """An image file as a volume node that forgets its file."""
    node = slicer.util.loadVolume(str(path), properties={"name": name, "show": False})
    slicer.mrmlScene.RemoveNode(node.GetStorageNode())
    return node


def write_cohort(folder: Path) -> Cohort:
    """Three simulated heads: each a warp of the ICBM152 maps, rotated and shifted."""
    from IMTCore.simulation import PhantomSpec, simulate
    from IMTCore.tissue_maps import icbm152_tissues
    from IMTCore.volume import Volume
    from IMTCore.volume_io import write_volume
    from IMTRegisterLib.atlases.landmarks import write_landmarks

    nilearn = importlib.util.find_spec("nilearn")
    if nilearn is None:
        pytest.skip("the phantoms need nilearn's ICBM152 maps: pip install -r Resources/requirements/test.txt")
    tissues = icbm152_tissues(Path(next(iter(nilearn.submodule_search_locations))) / "datasets" / "data", DOWNSAMPLE)
    points = np.array(list(LANDMARKS_LPS.values()))
    codes = np.array([0, *CODES.values()], np.uint8)
    for number in range(3):
        moves = {"rotation_deg": (0, 0, 5.0 * number), "translation_mm": (3.0 * number, 0, 0)}
        spec = PhantomSpec(seed=number, modalities=("T1", "T2"), warp_mm=8, smoothness_mm=40, skull_stripped=True, **moves)
        phantom = simulate(tissues, spec, points)
        place = folder / "atlases" / f"head{number}" if number else folder / "subject"
        for modality, volume in phantom.images.items():
            write_volume(place / f"{modality}.nii.gz", volume)
        labels = Volume(codes[np.clip(phantom.labels.array, 0, 3)], phantom.labels.geometry)
        write_volume(place / "labels.nii.gz", labels)
        landmarks = dict(zip(LANDMARKS_LPS, phantom.landmarks_lps, strict=True))
        write_landmarks(place / "landmarks.mrk.json", landmarks)
        if number == 0:
            subject = landmarks
    (folder / "atlases" / "labels.csv").write_text(LABELS_CSV, encoding="utf-8")
    return Cohort(folder / "subject", folder / "atlases", subject)


def engine_missing() -> str:
    """Why no registration can be tested here; empty if it can."""
    host.load_module(MODULE)
    from IMTRegisterLib.engines.interface import engine_problem

    return engine_problem("greedy") or ""


class RegisterPanel(OpenPanel):
    """The open panel as a user has it before the eyes."""

    verb, seconds = "Register", 120.0
    register = OpenPanel.run

    def prepare(self, cohort: Cohort, modality: str = "T2", second: str | None = None):
        """Choose the subject and the atlas folder; with `second`, its real image too. Returns the input node."""
        node = cohort.volume(modality)
        host.choose(self.ui.inputSelector, node.GetName())
        self.ui.atlasFolderPathLineEdit.currentPath = str(cohort.atlases)
        if second is not None:
            host.choose(self.ui.translateToComboBox, second)
            host.choose(self.ui.secondSelector, cohort.volume(second).GetName())
        self.parameters.jobs = 1
        return node


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Cohort:
    """The phantoms, made once; with letters in their path that are not ASCII."""
    missing = engine_missing()
    if missing:
        pytest.skip(missing)
    return write_cohort(tmp_path_factory.mktemp("köhorte"))


@pytest.fixture(scope="session", autouse=True)
def register_cache(tmp_path_factory) -> Iterator[Path]:
    """Registrations are kept for the tests' time, so that each is computed once; and never for the tester."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMT_REGISTER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def register_opened() -> Iterator:
    """One open panel for the tests of a file."""
    widget = host.open_module(MODULE, (520, 1100))
    yield widget
    host.close_module(widget)


@pytest.fixture
def register_panel(register_opened, slicer_app, temporary: Path) -> Iterator[RegisterPanel]:
    """The panel in a new scene, without remembered settings; nothing may be left of the test."""
    qt.QSettings().remove("IMTRegister")
    slicer.mrmlScene.Clear(False)
    panel = RegisterPanel(register_opened)
    panel.ui.logTextEdit.clear()
    panel.ui.statusLabel.text = ""
    before = children()
    yield panel
    register_opened.panel.stop()
    slicer.app.processEvents()
    wait_until(lambda: children() <= before, 5)
    qt.QSettings().remove("IMTRegister")
    assert not list(temporary.iterdir())


@pytest.fixture
def register_logic(nothing_left):
    """The module's logic, in a scene without its panel."""
    host.load_module(MODULE)
    return importlib.import_module("IMTRegister").IMTRegisterLogic()
