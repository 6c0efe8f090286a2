"""What kind of image is this volume? From its DICOM tags, its name, or the image itself, in this order."""

from __future__ import annotations

from typing import NamedTuple

# Series description, protocol name, sequence name.
DICOM_TAGS = ("0008,103e", "0018,1030", "0018,0024")


class ModalityGuess(NamedTuple):
    """A modality and why it is thought to be that one; `modality` is None if nothing tells."""

    modality: str | None
    reason: str


def guessInputModality(node) -> ModalityGuess:
    """Guess the modality of a volume node; the scene is only read.

    :param node: a scalar volume with an image.
    """
    from slicer.i18n import tr as _

    from IMTCore.modality_names import guess_from_text

    tags = dicomTexts(node)
    found = guess_from_text(*tags)
    if found:
        return ModalityGuess(found, _("its DICOM tags"))
    found = guess_from_text(node.GetName())
    if found:
        return ModalityGuess(found, _("its name"))
    found = _fromImage(node)
    return ModalityGuess(found, _("the image itself") if found else "")


def dicomTexts(node) -> list[str]:
    """The texts of a volume's DICOM tags that may tell its sequence; empty if it was not loaded from DICOM."""
    import slicer

    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return []
    file = database.fileForInstance(instances[0])
    return [database.fileValue(file, tag) for tag in DICOM_TAGS] if file else []


def _fromImage(node) -> str | None:
    from IMTCore.contrast import UNSURE, guess_modality
    from IMTCore.errors import ImtError

    from .nodes import checkVolume

    try:
        checkVolume(node)
        found = guess_modality(volumeOf(node)).modality
    except (ImtError, ValueError):  # no image of a head, or of none that IMT can read
        return None
    return None if found == UNSURE else found


def volumeOf(node):
    """The core's `Volume` of a volume node; shares the node's voxels."""
    import slicer
    import vtk

    from IMTCore.volume import Geometry, Volume

    array = slicer.util.arrayFromVolume(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return Volume(array, Geometry.from_affine_ras(slicer.util.arrayFromVTKMatrix(matrix), array.shape), node.GetName())
