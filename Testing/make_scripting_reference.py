"""Write Resources/Documentation/scripting.md, the public Python interface, from its docstrings.

    python Testing/make_scripting_reference.py            write it
    python Testing/make_scripting_reference.py --check    only say if it is old
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from docstring_pages import describe
from generated_pages import anchor, joined, write_page

HEAD = """\
# Scripting reference

Written by `python Testing/make_scripting_reference.py` from the docstrings: change those, not this page.

Arrays are `[k, j, i]` (slice, row, column). World coordinates are LPS in mm in `IMTCore` and the libraries, RAS in nodes of Slicer.
What the user can mend is raised as `BadInput` (or a kind of it), whose message names the input, the reason and the remedy; in Slicer it
arrives as `ValueError`, and what fails during a run as `RuntimeError`. Examples: the pages of
[IMT Translate](../../IMTTranslate/README.md#scripting), [IMT Register](../../IMTRegister/README.md#scripting) and
[IMT Segment](../../IMTSegment/README.md#scripting)."""

# Heading, what it is for, and what is described: module and names.
SECTIONS: tuple[tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (
        "In Slicer: IMT Translate",
        "The logic does what the panel does, and never opens a dialog.",
        (
            ("IMTTranslate", ("IMTTranslateLogic",)),
            ("IMTTranslatePanel.translation_run", ("TranslationOptions", "TranslationRun")),
        ),
    ),
    (
        "In Slicer: IMT Register",
        "",
        (
            ("IMTRegister", ("IMTRegisterLogic",)),
            ("IMTRegisterPanel.registration_run", ("RegistrationOptions",)),
            ("IMTRegisterPanel.scene_atlases", ("SceneAtlas",)),
        ),
    ),
    (
        "In Slicer: IMT Segment",
        "",
        (
            ("IMTSegment", ("IMTSegmentLogic",)),
            ("IMTSegmentPanel.segmentation_run", ("SegmentationOptions",)),
            ("IMTSlicerLib.segmentation_quality", ("SegmentationComparison",)),
        ),
    ),
    (
        "Volumes and files",
        "`IMTCore` runs in any Python; it needs numpy, and torch and SimpleITK where they are used.",
        (
            ("IMTCore.volume", ("Volume", "Geometry")),
            ("IMTCore.volume_io", ("read_volume", "write_volume")),
            ("IMTCore.cases", ("Case", "read_cases")),
            ("IMTCore.provenance", ("sidecar_path", "is_mark", "read_mark")),
            ("IMTCore.dicom_writing", ("write_synthetic_series",)),
        ),
    ),
    (
        "Translation",
        "",
        (
            ("IMTCore.catalogue", ("list_cards", "find_card")),
            ("IMTCore.cards", ("ModelCard", "read_card")),
            ("IMTCore.settings", ("TranslationSettings",)),
            ("IMTCore.translation", ("Translator", "translate_file")),
            ("IMTCore.outputs", ("TranslationResult",)),
        ),
    ),
    (
        "Scores",
        "",
        (
            ("IMTCore.metrics", ("mae", "psnr", "mutual_information", "sharpness", "error_map", "Scores", "evaluate")),
            ("IMTCore.conventions", ("evaluate_conventions",)),
            ("IMTCore.label_scores", ("LabelScores", "score_labels", "dice", "hausdorff_95", "mean_surface_distance")),
        ),
    ),
    (
        "Registration",
        "Transforms map points of the fixed image to points of the moving one.",
        (
            ("IMTRegisterLib.registration.settings", ("RegistrationSettings",)),
            ("IMTRegisterLib.registration.outputs", ("RegistrationOutputs",)),
            ("IMTRegisterLib.registration.subject", ("register_subject",)),
            ("IMTRegisterLib.atlases.atlas_sets", ("AtlasSet", "read_atlas_set", "check_atlas_set")),
            ("IMTRegisterLib.atlases.building", ("build_atlas_set",)),
            ("IMTRegisterLib.atlases.landmarks", ("read_landmarks", "landmark_distances")),
            ("IMTRegisterLib.engines.interface", ("engine_problem", "EngineSession")),
            ("IMTRegisterLib.deformations.transforms", ("Transform", "read_transform", "write_transform")),
            ("IMTRegisterLib.deformations.fusion", ("fuse",)),
            ("IMTRegisterLib.deformations.fields", ("compose", "inverse", "exponential", "logarithm", "jacobian", "folds")),
            ("IMTRegisterLib.deformations.resampling", ("warp_image", "warp_labels", "inverse_transform")),
        ),
    ),
    (
        "Segmentation",
        "",
        (
            ("IMTSegmentLib.segmenter_catalogue", ("list_segmenters", "find_segmenter")),
            ("IMTSegmentLib.segmenter_cards", ("SegmenterCard",)),
            ("IMTSegmentLib.segmentation_settings", ("SegmentationSettings",)),
            ("IMTSegmentLib.segmentation", ("Segmenter",)),
            ("IMTSegmentLib.segmentation_results", ("SegmentationResult", "StructureStatistics")),
            ("IMTSegmentLib.segmentation_outputs", ("SegmentationOutputs",)),
            ("IMTSegmentLib.segment_files", ("segment_file",)),
            ("IMTSegmentLib.comparison", ("compare_labels",)),
        ),
    ),
    (
        "Errors",
        "",
        (("IMTCore.errors", ("ImtError", "BadInput", "BadModel", "DeviceUnavailable", "OutputFailure", "SomeCasesFailed", "Cancelled")),),
    ),
)


def reference() -> Iterator[str]:
    """The Python interface as lines of Markdown."""
    for heading, text, modules in SECTIONS:
        yield from (f"## {heading}", "")
        if text:
            yield from (text, "")
        for module, names in modules:
            for name in names:
                yield from describe(module, name)


def page() -> str:
    """The whole page."""
    contents = [f"- [{heading}]({anchor(heading)})" for heading, _, _ in SECTIONS]
    return joined([HEAD, "", *contents, "", *reference()])


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it."""
    return write_page("scripting.md", page(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
