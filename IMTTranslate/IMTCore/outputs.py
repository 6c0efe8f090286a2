"""What a translation gives, and how it is written: every file whole and with its mark, or none."""

from __future__ import annotations

import json
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cards import ModelCard
from .errors import BadInput
from .files import alone_in, check_writable, sha256_of, whole_file
from .label_names import LabelNames, colour_table, write_label_names
from .provenance import check_sidecar_free, header_line, mark, sidecar_path
from .volume import Volume
from .volume_io import check_output_path, image_suffix, save_volume

TRUST_MAP = "trust map"  # what its mark calls it


@dataclass(frozen=True)
class TranslationResult:
    """A translated volume and what a repeat needs.

    Attributes:
        translation: on the input's grid, float32, background 0, in the card's output range.
        uncertainty: standard deviation over the noise samples, same grid and units, or None; calibrated if
            `settings["uncertainty"]` says so.
        source, target: modalities.
        settings: seed, device, precision, normalisation … for the sidecar.
        seconds: time by stage.
        warnings: what was unusual about the input, in words for the user.
        trust_map: labels of where not to trust the translation, same grid, uint8, or None.
        trust_names: the legend of those labels.
    """

    translation: Volume
    uncertainty: Volume | None
    source: str
    target: str
    settings: dict[str, Any]
    seconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    trust_map: Volume | None = None
    trust_names: LabelNames = field(default_factory=LabelNames)


def check_paths(source: Path, outputs: list[Path]) -> None:
    """Refuse outputs that cannot or must not be written, before any work is done.

    Raises:
        BadInput: output equal to the input or to another output, of unknown format, or whose sidecar would
            overwrite a foreign file. OutputFailure: not writable.
    """
    seen: dict[Path, Path] = {source.resolve(): source}
    for output in outputs:
        check_output_path(output)
        if output.resolve() == source.resolve():
            raise BadInput(f"The output {output} is the input itself: choose another output name.")
        for path in (output, sidecar_path(output)):
            if path.resolve() in seen:
                raise BadInput(f"{path} is the same file as {seen[path.resolve()]}: choose another output name.")
            seen[path.resolve()] = path
        if output.exists() and source.is_file() and output.samefile(source):
            raise BadInput(f"The output {output} is the input itself: choose another output name.")
        check_sidecar_free(output)
        check_writable(output)


def write_result(
    card: ModelCard,
    result: TranslationResult,
    output: Path,
    uncertainty: Path | None,
    input_name: str,
    input_hash: str,
    trust_map: Path | None = None,
) -> None:
    """Write a result's volumes, each with its sidecar: all of them or none.

    Args:
        card: the model used.
        result: what `Translator.translate` gave.
        output, uncertainty, trust_map: files to write; the last two may be None. Beside a trust map goes its legend.
        input_name, input_hash: the input's name and SHA-256, for the marks.

    Raises:
        OutputFailure: if a file cannot be written.
    """

    parts = [(output, result.translation, "translation")]
    if uncertainty is not None and result.uncertainty is not None:
        parts.append((uncertainty, result.uncertainty, "uncertainty"))
    if trust_map is not None and result.trust_map is not None:
        parts.append((trust_map, result.trust_map, TRUST_MAP))
    metadata = {"IMT_synthetic": "true", "IMT_model": card.name, "IMT_model_sha256": card.sha256}
    settings = {**result.settings, "warnings": result.warnings}
    # Everything is written under temporary names, then renamed in the reverse order of this stack: the sidecars
    # first, so that no image is ever there without its mark. A run killed in between leaves a mark that does not
    # have the hash of the image beside it.
    with ExitStack() as stack:
        hashes = []
        if trust_map is not None and result.trust_map is not None:
            write_label_names(stack.enter_context(whole_file(colour_table(trust_map))), result.trust_names)
        for path, volume, content in parts:
            temporary = stack.enter_context(whole_file(path))
            save_volume(temporary, volume, header_line(card, result.source, result.target, content), metadata)
            check_written(temporary)
            hashes.append(sha256_of(temporary))
        for (path, _, content), output_hash in zip(parts, hashes, strict=True):
            output_record = {"output": {"name": path.name, "sha256": output_hash}}
            record = mark(card, result.source, result.target, input_name, input_hash, content, output_record | settings)
            temporary = stack.enter_context(whole_file(sidecar_path(path)))
            temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with alone_in(*{path.parent for path, _, _ in parts}):
            stack.close()


def check_written(path: Path) -> None:
    """Check a NRRD file's end: on a full disk ITK loses it and says nothing."""
    if image_suffix(path) != ".nrrd":
        return
    with open(path, "rb") as stream:
        while stream.readline().strip():  # the header ends with an empty line
            pass
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            while block := stream.read(1 << 20):
                unpacked.decompress(block)
        except zlib.error:
            pass
    if not unpacked.eof:
        raise OSError("it was not written to its end. Is the disk full? Free some space or choose another output folder")
