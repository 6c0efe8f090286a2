"""Readers of the data sets that the two sources and their successors name: one family a file, one interface.

Each layout turns a folder, as its release is unpacked, into `Subject`s with modalities under the names of this project
(T1, T1C, T2, FLAIR, PD) and labels. Nothing is read until `Subject.volume` or `Subject.label` is called.
"""

from __future__ import annotations

from .labels import MERGED, merged_label
from .layouts import LAYOUTS, find_subjects
from .subject import Subject, check_same_grid, read_modalities

__all__ = ["LAYOUTS", "MERGED", "Subject", "check_same_grid", "find_subjects", "merged_label", "read_modalities"]
