"""The series of a DICOM study as a table for people, and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from IMTCore.dicom_studies import StudySeries

from .text_table import columns

HEAD = ("No.", "Description", "Shows", "Agent", "Slices", "Size", "Voxel (mm)", "For IMT")


def study_lines(study: list[StudySeries], folder: Path) -> list[str]:
    """A table for each study of each patient, and below it why what cannot be used cannot."""
    lines: list[str] = []
    groups: dict[tuple[tuple[str, str], str], list[StudySeries]] = {}
    for series in study:
        groups.setdefault((series.patient, series.study_uid), []).append(series)
    patients = {series.patient for series in study}
    if len(patients) > 1:
        lines += [f"Warning: {folder} holds series of {len(patients)} patients. Look twice at which one you take.", ""]
    for (patient, _uid), members in groups.items():
        first = members[0]
        date = f"{first.study_date[:4]}-{first.study_date[4:6]}-{first.study_date[6:]}" if len(first.study_date) == 8 else "no date"
        lines.append(f"Patient {patient[0] or '(no ID)'}, study of {date}" + (f", {first.study_description!r}" if first.study_description else ""))
        lines += columns([HEAD, *(_row(series) for series in members)])
        remarks = [f"{series.title}: {text}" for series in members for text in (series.problem, _doubt(series)) if text]
        lines += ["", *remarks] if remarks else []
        lines.append("")
    lines.append("Take one with --series and its number, description or UID (--json prints the UIDs).")
    return lines


def study_record(study: list[StudySeries]) -> dict[str, Any]:
    """The same, in full. Patients are told apart by a number; their IDs are given, their names are not."""
    patients = sorted({series.patient for series in study})
    return {
        "patients": len(patients),
        "series": [
            {
                "patient": patients.index(series.patient) + 1,
                "patient_id": series.patient[0],
                "study_uid": series.study_uid,
                "study_date": series.study_date,
                "study_description": series.study_description,
                "uid": series.uid,
                "number": series.number,
                "description": series.description,
                "kind": series.kind,
                "modality": series.acquisition.modality,
                "named": series.acquisition.named,
                "timed": sorted(series.acquisition.timed),
                "agent": series.acquisition.agent or None,
                "repetition_ms": series.acquisition.repetition_ms,
                "echo_ms": series.acquisition.echo_ms,
                "inversion_ms": series.acquisition.inversion_ms,
                "synthetic": series.acquisition.synthetic,
                "files": len(series.files),
                "size": series.size,
                "spacing_mm": series.spacing_mm,
                "usable": not series.problem,
                "problem": series.problem or None,
            }
            for series in study
        ],
    }


def _row(series: StudySeries) -> tuple[str, ...]:
    size, spacing, shown = series.size, series.spacing_mm, series.acquisition.modality
    return (
        "-" if series.number is None else str(series.number),
        series.description or "-",
        shown or ("?" if series.kind == "MR" else series.kind or "-"),
        "yes" if series.acquisition.agent else "-",
        "-" if size is None else str(size[2]),
        "-" if size is None else f"{size[0]} x {size[1]}",
        "-" if spacing is None else " x ".join(f"{value:.3g}" for value in spacing),
        "synthetic" if series.acquisition.synthetic else "no" if series.problem else "yes",
    )


def _doubt(series: StudySeries) -> str:
    """What is to be said of names and times that disagree."""
    acquisition = series.acquisition
    if acquisition.named is None or acquisition.fits(acquisition.named):
        return ""
    return f"It is named {acquisition.named}, but has the times of {' or '.join(sorted(acquisition.timed))} ({acquisition.times()})."
