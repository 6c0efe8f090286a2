"""The DICOM header of a synthetic slice: what is taken from the source's slice, and what says that it is synthetic.

Only what is listed here is taken over: the patient, the study, the place in space. What describes the acquisition (scanner,
sequence, times, private attributes) would describe the source and not the synthetic image.

Sections C.* are those of DICOM PS3.3, codes (DCM) those of PS3.16.
"""

from __future__ import annotations

import copy
import datetime
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import BadInput
from .provenance import NOTICE
from .version import VERSION

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
DESCRIPTION_LENGTH = 64  # of LO, the series description's type
MARK = "SYNTHETIC"

# Patient, Clinical Trial Subject, General Study and Patient Study modules (C.7.1, C.7.2), and what was done to hide the patient.
# The character set is kept: the names are then written byte for byte as they were.
STUDY = (
    "SpecificCharacterSet TimezoneOffsetFromUTC "
    "PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence OtherPatientIDsSequence PatientBirthDate PatientSex "
    "PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence LongitudinalTemporalInformationModified "
    "RecognizableVisualFeatures ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID "
    "ClinicalTrialSiteName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID "
    "StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber IssuerOfAccessionNumberSequence "
    "ReferringPhysicianName PatientAge PatientSize PatientWeight"
).split()
# Frame of Reference and Image Plane modules (C.7.4.1, C.7.6.2), what part of the body is seen, and a loss that is passed on.
PLACE = (
    "FrameOfReferenceUID PositionReferenceIndicator PatientPosition BodyPartExamined ImagePositionPatient ImageOrientationPatient "
    "PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation "
    "LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod"
).split()
# Attributes of type 2, which must be there, empty if unknown. In the MR Image module (C.8.3.1) they describe an acquisition.
EMPTY = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName "
    "PositionReferenceIndicator SliceThickness ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoTrainLength"
).split()


@dataclass(frozen=True)
class SyntheticImage:
    """What the mark beside a synthetic volume says of it.

    Attributes:
        source, target: modalities.
        content: "translation" or "uncertainty".
        model, model_version, model_sha256: the model it was made by.
        input_sha256: of the file or DICOM folder it was made from.
        created: when, with its time zone.
    """

    source: str
    target: str
    content: str
    model: str
    model_version: str
    model_sha256: str
    input_sha256: str
    created: datetime.datetime

    @classmethod
    def from_mark(cls, mark: dict[str, Any]) -> SyntheticImage:
        """Read a mark of `provenance.mark`.

        Raises:
            BadInput: an entry is missing or of the wrong kind.
        """
        model, given = mark.get("model"), mark.get("input")
        model, given = (entry if isinstance(entry, dict) else {} for entry in (model, given))
        texts = {
            "source_modality": mark.get("source_modality"),
            "target_modality": mark.get("target_modality"),
            "content": mark.get("content"),
            "model.name": model.get("name"),
            "model.version": model.get("version"),
            "model.sha256": model.get("sha256"),
            "input.sha256": given.get("sha256"),
            "created": mark.get("created"),
        }
        for key, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise BadInput(f"its entry {key} is missing or no text")
        *rest, created = texts.values()
        try:
            return cls(*rest, datetime.datetime.fromisoformat(created))
        except ValueError as error:
            raise BadInput(f"its entry created is no time: {created!r}") from error

    @property
    def what(self) -> str:
        """Such as "T2 from T1"."""
        return f"{self.target} from {self.source}" + ("" if self.content == "translation" else f" {self.content}")


@dataclass(frozen=True)
class SyntheticSeries:
    """What all slices of a new series share.

    Attributes:
        image: what is written.
        uid: the new series' UID.
        number, description: the series' number and description.
        from_series: whether the image was made from the very series whose study it joins (its hash says so).
        slope, intercept: value = slope * stored + intercept, as decimal strings of DICOM.
        window_centre, window_width: the values shown at first, likewise.
        burned_in: whether text may be burned into the image, because it is into the source.
    """

    image: SyntheticImage
    uid: str
    number: int
    description: str
    from_series: bool
    slope: str
    intercept: str
    window_centre: str
    window_width: str
    burned_in: bool


def new_uid(*parts: str) -> str:
    """A UID under pydicom's root that depends on `parts` alone.

    A repeat gives the same UIDs, so that a series that is written and sent twice is one series in the archive, not two
    that look like independent images. Any other content gives others.
    """
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["\n".join(parts)]))


def series_description(image: SyntheticImage, text: str | None) -> str:
    """The series description, which begins with SYNTHETIC whatever `text` says.

    Raises:
        BadInput: as `check_description`.
    """
    return plain(f"{MARK} {image.what}", DESCRIPTION_LENGTH) if text is None else check_description(text)


def check_description(text: str) -> str:
    """A user's series description with SYNTHETIC before it.

    Raises:
        BadInput: `text` is too long, or has other characters than printable ASCII: the study's character set may lack them.
    """
    text = text.strip()
    if not re.fullmatch(r"[ -\[\]-~]+", text):
        raise BadInput("The series description must be ASCII letters, digits and signs without a backslash, on one line.")
    if not text.startswith(MARK):
        text = f"{MARK} {text}"
    if len(text) > DESCRIPTION_LENGTH:
        raise BadInput(f"The series description has {len(text)} characters with {MARK!r} before it; DICOM allows {DESCRIPTION_LENGTH}.")
    return text


def plain(text: str, length: int) -> str:
    """`text` on one line in ASCII, which every character set of DICOM holds, cut at `length`."""
    text = " ".join(text.replace("\\", "/").split())
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:length].rstrip()


def synthetic_header(source: Dataset, series: SyntheticSeries, instance_number: int) -> Dataset:
    """The header of one synthetic slice; its pixels are not in it.

    Args:
        source: the header of the source's slice.
        series: what the slices share.
        instance_number: the slice's number.
    """
    from pydicom.dataset import Dataset

    data = Dataset()
    for keyword in (*STUDY, *PLACE):
        if keyword in source:
            data.add(copy.deepcopy(source[keyword]))
    for keyword in EMPTY:
        if keyword not in data:
            setattr(data, keyword, None)
    data.remove_private_tags()  # in the sequences taken over
    _say_what_it_is(data, source, series)
    data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription = series.uid, series.number, series.description
    data.SOPClassUID, data.Modality = MR_IMAGE_STORAGE, "MR"
    data.SOPInstanceUID = new_uid(series.uid, str(source.SOPInstanceUID))
    data.InstanceNumber = instance_number
    # No sequence was played: of the values allowed, "research mode" and "none" claim least (C.8.3.1).
    data.ScanningSequence, data.SequenceVariant = "RM", "NONE"
    data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = "IMT", "IMT image modality translation", VERSION
    _say_when(data, series.image.created)
    data.BurnedInAnnotation = "YES" if series.burned_in else "NO"
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = series.slope, series.intercept, "US"
    data.WindowCenter, data.WindowWidth = series.window_centre, series.window_width
    data.VOILUTFunction = "LINEAR_EXACT"  # (C.11.2.1.3) from centre - width / 2 to centre + width / 2, also if that is below 1
    return data


def _say_what_it_is(data: Dataset, source: Dataset, series: SyntheticSeries) -> None:
    """The marks: SOP Common, General Image, General Equipment and Common Instance Reference modules (C.12.1, C.7.6.1, C.7.5.1, C.12.2)."""
    image = series.image
    by = f"model {image.model} {image.model_version}"
    given = "the source series" if series.from_series else "a file on the source series' grid"
    data.ImageType = ["DERIVED", "SECONDARY", "OTHER", MARK]
    data.SyntheticData = "YES"
    data.ContentQualification = "RESEARCH"
    data.DerivationDescription = plain(
        f"{MARK} {image.what}: computed, not acquired. IMT {VERSION}, {by}, SHA-256 of its weights {image.model_sha256}; "
        f"from {given}, SHA-256 {image.input_sha256}. {NOTICE}",
        1024,
    )
    data.ImageComments = plain(f"{MARK} image, not acquired: {image.what} by {by}, IMT {VERSION}. {NOTICE}", 1024)
    reference = _item(ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID)
    purpose = _code("121322", "Source image for image processing operation")
    data.SourceImageSequence = [
        _item(**_values(reference), SpatialLocationsPreserved="YES", PurposeOfReferenceCodeSequence=[purpose]),
    ]
    data.ReferencedSeriesSequence = [_item(SeriesInstanceUID=source.SeriesInstanceUID, ReferencedInstanceSequence=[reference])]
    data.ContributingEquipmentSequence = [
        _item(
            PurposeOfReferenceCodeSequence=[_code("109100", "Synthesizing Equipment")],
            Manufacturer="IMT",
            ManufacturerModelName=plain(image.model, 64),
            SoftwareVersions=[VERSION, plain(image.model_version, 64)],
            ContributionDateTime=image.created.strftime("%Y%m%d%H%M%S%z"),
            ContributionDescription=plain(f"Computed {image.what} by a neural network", 1024),
        )
    ]


def _say_when(data: Dataset, created: datetime.datetime) -> None:
    """Dates of creation, in the time zone that the study's own times are in: that of this computer, if it does not say."""
    zone = None
    with suppress(ValueError):
        zone = datetime.datetime.strptime(str(data.get("TimezoneOffsetFromUTC", "")), "%z").tzinfo
    when = created.astimezone(zone)
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    for kind in ("InstanceCreation", "Series", "Content"):
        setattr(data, kind + "Date", date)
        setattr(data, kind + "Time", time)


def _item(**values: Any) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _values(item: Dataset) -> dict[str, Any]:
    return {element.keyword: element.value for element in item}


def _code(value: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)
