"""Claims on translating one volume: its grid and values, what must not change them, memory, and cancelling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ORIENTATIONS, head_phantom, rotation_matrix, store
from packages import tiny_card, tiny_network

from IMTCore.cards import ModelCard, read_card
from IMTCore.catalogue import shipped_folder
from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.inference import SliceRunner
from IMTCore.intensity import normalisation_of
from IMTCore.model_packages import load_network, save_package
from IMTCore.networks import dropout_masks
from IMTCore.orientation import anatomical_axes
from IMTCore.preparation import prepare
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator, modality_codes, translate_file
from IMTCore.volume_io import read_volume, write_volume

HEAD = head_phantom()
SPACING_KJI = (2.0, 2.0, 2.5)
RANGE = 255.0
MODES = ("spatial", "paper")
MODALITIES = ("T1", "T2", "PD")


@pytest.fixture(scope="session")
def card_of(tmp_path_factory):
    """Gives the card of a package whose random network has some contrast: pix2pix's initial weights give a flat grey."""
    made: dict[str, ModelCard] = {}

    def make(**options) -> ModelCard:
        key = repr(sorted(options.items()))
        if key not in made:
            card = tiny_card(**options)
            network = tiny_network(card, seed=5)
            with torch.no_grad():
                network.decoder[-1].weight *= 30
            made[key] = save_package(tmp_path_factory.mktemp("package"), card, network)
        return made[key]

    return make


def translator(card: ModelCard, **settings) -> Translator:
    return Translator(card, TranslationSettings(**{"device": "cpu", "precision": "fp32", **settings}))


def translated(card: ModelCard, volume, **settings) -> np.ndarray:
    return translator(card, **settings).translate(volume).translation.array


def psnr(a: np.ndarray, b: np.ndarray, value_range: float = RANGE) -> float:
    return float(10 * np.log10(value_range**2 / np.mean((a.astype(np.float64) - b) ** 2)))


# ---------------------------------------------------------------- grid and values


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("offset", [0.0, -300.0, 40.0])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_translation_lies_on_the_inputs_grid_within_the_cards_range_and_leaves_the_background_0(card_of, mode, offset, dtype):
    volume = store(HEAD, spacing_kji=SPACING_KJI, rotation=rotation_matrix(1, 12.0))
    volume = volume.with_array((volume.array + offset).astype(dtype))
    before = volume.array.copy()
    result = translator(card_of(mode=mode)).translate(volume)
    output = result.translation
    assert output.array.dtype == np.float32
    assert output.geometry == volume.geometry or output.geometry.is_close(volume.geometry, 1e-9)
    background = HEAD == 0
    assert not output.array[background].any()
    assert 0 <= output.array.min() and output.array.max() <= RANGE
    assert output.array[~background].std() > 0.02 * RANGE  # there is an image
    assert (output.array[~background] > 0).mean() > 0.9
    assert np.array_equal(volume.array, before)  # the input is left as it was
    assert (result.source, result.target) == ("T1", "T2")


def test_the_normalisation_is_recorded_so_that_it_can_be_repeated(card_of):
    volume = store(HEAD - 300, spacing_kji=SPACING_KJI)
    record = translator(card_of()).translate(volume).settings
    assert record["normalisation"] == normalisation_of(volume.array).record()
    assert record["normalisation"]["background"] == -300
    assert record["output_range"] == [0, RANGE]
    assert (record["seed"], record["dropout"], record["samples"]) == (0, False, 0)
    assert (record["device"], record["precision"]) == ("cpu", "fp32")


def test_a_linear_change_of_the_input_changes_nothing(card_of):
    plain = translated(card_of(), store(HEAD, spacing_kji=SPACING_KJI))
    changed = translated(card_of(), store(HEAD * 0.37 + 90, spacing_kji=SPACING_KJI))
    assert np.abs(plain - changed).max() <= 1e-4 * RANGE


def test_a_head_without_flat_background_is_translated_everywhere(card_of):
    noisy = HEAD + np.random.default_rng(0).normal(0, 8, HEAD.shape).astype(np.float32)
    output = translated(card_of(mode="paper"), store(noisy, spacing_kji=SPACING_KJI))
    assert (output > 0).mean() > 0.99


# ---------------------------------------------------------------- orientation and size


@pytest.fixture(scope="module")
def references(card_of):
    """Axial translations [k, j, i] of the head, by mode."""
    return {mode: translated(card_of(mode=mode), store(HEAD, spacing_kji=SPACING_KJI)) for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("neighbours", [(0.0,), (-4.0, 0.0, 4.0)], ids=["one", "three"])
def test_the_way_a_head_is_stored_does_not_change_its_translation(card_of, mode, neighbours):
    model = translator(card_of(mode=mode, neighbours_mm=neighbours))
    reference = model.translate(store(HEAD, spacing_kji=SPACING_KJI)).translation.array
    for orientation in ORIENTATIONS:
        volume = store(HEAD, orientation, SPACING_KJI)
        output = model.translate(volume).translation
        assert output.array.shape == volume.array.shape
        back = anatomical_axes(output.geometry).apply(output.array)
        assert np.abs(back - reference).max() <= 1e-4 * RANGE, orientation


@pytest.mark.parametrize("mode", MODES)
def test_a_head_stored_obliquely_has_the_same_translation(card_of, references, mode, oblique):
    for orientation in (ORIENTATIONS[0], ORIENTATIONS[13], ORIENTATIONS[46]):
        output = translator(card_of(mode=mode)).translate(store(HEAD, orientation, SPACING_KJI, oblique)).translation
        back = anatomical_axes(output.geometry).apply(output.array)
        assert np.abs(back - references[mode]).max() <= 1e-4 * RANGE


def test_another_orientation_of_the_head_itself_is_another_translation(card_of, references):
    # The claims above would hold for a network that sees nothing.
    flipped = translated(card_of(), store(HEAD[:, :, ::-1], spacing_kji=SPACING_KJI))[:, :, ::-1]
    assert np.abs(flipped - references["spatial"]).max() > 0.02 * RANGE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ratio", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("plane_of_acquisition", [0, 1, 2], ids=["axial", "coronal", "sagittal"])
def test_thick_slices_of_any_plane_are_translated(card_of, mode, ratio, plane_of_acquisition):
    thickness = [1.3, 1.3, 1.3]
    thickness[plane_of_acquisition] *= ratio
    shape = [33, 37, 35]
    shape[plane_of_acquisition] = max(9, shape[plane_of_acquisition] // ratio)
    volume = store(head_phantom(tuple(shape)), spacing_kji=tuple(thickness))
    output = translated(card_of(mode=mode), volume)
    head = volume.array > 0
    assert output.shape == volume.array.shape
    assert not output[~head].any()
    assert np.isfinite(output).all()
    assert output[head].std() > 0.02 * RANGE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 24, 21), (3, 17, 31), (7, 23, 19), (5, 64, 9)])
def test_odd_sizes_and_single_axial_slices_are_translated(card_of, mode, shape):
    volume = store(head_phantom(shape), spacing_kji=(5.0, 3.0, 4.0))
    output = translated(card_of(mode=mode), volume)
    assert output.shape == shape
    assert np.array_equal(output > 0, volume.array > 0)


def test_neighbours_of_a_single_slice_are_the_slice_itself(card_of):
    one = head_phantom((1, 24, 21))
    model = card_of(neighbours_mm=(-4.0, 0.0, 4.0))
    alone, among_equals = (translated(model, store(np.repeat(one, n, axis=0), spacing_kji=SPACING_KJI)) for n in (1, 5))
    for k in range(5):
        assert np.abs(among_equals[k] - alone[0]).max() <= 5e-3 * RANGE  # a percentile of 5 × n values is a bit another


def test_neighbours_count_by_their_distance_in_mm(card_of):
    model = card_of(neighbours_mm=(-4.0, 0.0, 4.0))
    changed = HEAD.copy()
    changed[11] = 0.5 * changed[11]
    changed[0, 0, 0] = 0
    plain, other = (translated(model, store(array, spacing_kji=SPACING_KJI)) for array in (HEAD, changed))
    moved = np.abs(plain - other).max(axis=(1, 2)) > 1e-3 * RANGE
    assert np.flatnonzero(moved).tolist() == [9, 11, 13]  # 4 mm are two slices


@pytest.mark.parametrize("axis", [1, 2], ids=["coronal", "sagittal"])
def test_a_single_slice_of_another_plane_is_refused_by_name(card_of, axis):
    volume = store(np.take(HEAD, [10], axis=axis), spacing_kji=SPACING_KJI)
    with pytest.raises(BadInput, match="voxels in the axial plane.* of axial orientation") as refusal:
        translator(card_of()).translate(volume)
    assert "head" in str(refusal.value)


@pytest.mark.parametrize("spacing", [(0.1, 0.1, 0.1), (1000.0, 1000.0, 1000.0)], ids=["tiny", "huge"])
@pytest.mark.parametrize("mode", MODES)
def test_a_head_of_impossible_size_is_refused_before_memory_is_asked_for(card_of, mode, spacing):
    with pytest.raises(BadInput, match=r"mm in the axial plane.*Check the voxel size"):
        translator(card_of(mode=mode)).translate(store(HEAD, spacing_kji=spacing))


def test_a_label_map_of_floats_is_refused(card_of):
    with pytest.raises(BadInput, match="head has fewer than 10 different values"):
        translator(card_of()).translate(store(np.round(HEAD / 200), spacing_kji=SPACING_KJI))


def test_an_unusual_histogram_is_named_and_translated(card_of, tmp_path):
    card = card_of()
    content = {**card.content, "accepts": {"median": [0.9, 1.0]}}
    result = translator(ModelCard(card.path, content)).translate(store(HEAD, spacing_kji=SPACING_KJI))
    assert len(result.warnings) == 1 and "unlike the T1 images" in result.warnings[0]
    content = {**card.content, "accepts": {"median": [0.1, 0.9]}}
    assert not translator(ModelCard(card.path, content)).translate(store(HEAD, spacing_kji=SPACING_KJI)).warnings


# ---------------------------------------------------------------- what must not change the numbers


@pytest.mark.parametrize("mode", MODES)
def test_the_batch_does_not_change_the_numbers(card_of, mode):
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    outputs = [translated(card_of(mode=mode), volume, batch=batch) for batch in (1, 3, 16)]
    for output in outputs[1:]:
        assert np.abs(output - outputs[0]).max() <= 1e-5 * RANGE


def test_a_repetition_gives_the_same_bits(card_of):
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    model = translator(card_of())
    first = model.translate(volume).translation.array
    assert np.array_equal(first, model.translate(volume).translation.array)
    assert np.array_equal(first, translated(card_of(), volume, seed=9))  # no noise, no seed


@pytest.mark.parametrize("mode", MODES)
def test_bf16_is_50_db_from_fp32(card_of, mode):
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    full, half = (translated(card_of(mode=mode), volume, precision=precision) for precision in ("fp32", "bf16"))
    head = volume.array > 0
    assert not np.array_equal(full, half)
    assert psnr(half[head], full[head]) >= 50


def shipped_card() -> ModelCard:
    path = shipped_folder() / "T1-T2.json"
    if not path.is_file() or not read_card(path).weights_path.is_file():
        pytest.skip("the model T1-T2 is not among the shipped models yet")
    return read_card(path)


def template():
    nilearn = pytest.importorskip("nilearn")
    data = Path(nilearn.__file__).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    if not data.is_file():
        pytest.skip("this nilearn has no ICBM152 template")
    volume = read_volume(data)
    middle = volume.array.shape[0] // 2
    return store(volume.array[middle - 2 : middle + 2, ::-1, ::-1].astype(np.float32))


def test_the_shipped_model_in_bf16_is_50_db_from_fp32():
    card, volume = shipped_card(), template()
    full, half = (translated(card, volume, precision=precision) for precision in ("fp32", "bf16"))
    assert full.std() > 0.05 * card.output_range[1]
    assert psnr(half, full, card.output_range[1]) >= 50


# ---------------------------------------------------------------- noise


def test_dropout_is_a_function_of_the_seed_and_not_of_the_batch(card_of):
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    plain = translated(card_of(), volume)
    drawn = translated(card_of(), volume, dropout=True, seed=3, batch=1)
    for batch in (3, 16):
        assert np.abs(translated(card_of(), volume, dropout=True, seed=3, batch=batch) - drawn).max() <= 1e-5 * RANGE
    for other in (plain, translated(card_of(), volume, dropout=True, seed=4)):
        assert np.abs(other - drawn).max() > 0.01 * RANGE


@pytest.mark.parametrize("mode", MODES)
def test_the_uncertainty_is_the_standard_deviation_over_the_samples(card_of, mode):
    card, volume, samples, seed = card_of(mode=mode), store(HEAD, spacing_kji=SPACING_KJI), 5, 11
    result = translator(card, samples=samples, seed=seed, batch=4).translate(volume)
    # Each sample of each slice alone, through the network as it is.
    network = load_network(card)
    prepared = prepare(volume, card.slicing, network.stride, card.percentile)
    slices = np.flatnonzero(prepared.filled).tolist()
    drawn = np.empty((samples, len(slices), *prepared.images.shape[1:]))
    with torch.inference_mode():
        for n, k in enumerate(slices):
            features = network.encode(torch.from_numpy(prepared.batch([k])))
            for sample in range(samples):
                masks = dropout_masks(network, *prepared.images.shape[1:], seed, sample, [k])
                drawn[sample, n] = network.decode(features, masks)[0, 0].double().numpy()
    expected = prepared.restore(slices, drawn.std(axis=0, ddof=1) / 2 * RANGE)
    uncertainty = result.uncertainty.array
    assert np.abs(uncertainty - expected).max() <= 1e-4 * RANGE
    assert uncertainty[HEAD > 0].mean() > 0.01 * RANGE
    assert not uncertainty[HEAD == 0].any() and uncertainty.min() >= 0
    # The translation beside it is the one without noise; the first sample is the one with.
    assert np.array_equal(result.translation.array, translated(card, volume, batch=4))
    first = prepared.restore(slices, (drawn[0] + 1) / 2 * RANGE)
    assert np.abs(translated(card, volume, dropout=True, seed=seed) - first).max() <= 1e-4 * RANGE


def test_a_model_without_dropout_gives_no_uncertainty(card_of):
    for settings in ({"samples": 4}, {"dropout": True}):
        with pytest.raises(BadInput, match="T1-T2 has no dropout"):
            translator(card_of(dropout_blocks=0), **settings)


@pytest.mark.parametrize("settings", [{"batch": 0}, {"seed": -1}, {"samples": 1}, {"samples": 1001}, {"precision": "fp8"}])
def test_settings_out_of_range_are_refused(card_of, settings):
    with pytest.raises(BadInput):
        translator(card_of(), **settings)


# ---------------------------------------------------------------- any to any


def test_an_any_to_any_model_must_be_told_the_pair_and_heeds_it(card_of):
    card, volume = card_of(name="any", modalities=MODALITIES), store(HEAD, spacing_kji=SPACING_KJI)
    for pair in ({}, {"source": "T1"}, {"target": "T2"}):
        with pytest.raises(BadInput, match=r"T1, T2, PD: say which with --from and --to"):
            translator(card, **pair)
    for pair in (("T1", "T1"), ("T1", "FLAIR")):
        with pytest.raises(BadInput, match="between T1, T2, PD, not T1 to"):
            translator(card, source=pair[0], target=pair[1])
    t2, pd, back = (translated(card, volume, source=s, target=t) for s, t in (("T1", "T2"), ("T1", "PD"), ("T2", "T1")))
    for a, b in ((t2, pd), (t2, back), (pd, back)):
        assert np.abs(a - b).max() > 0.01 * RANGE


def test_code_channels_name_the_source_then_the_target():
    assert modality_codes(list(MODALITIES), "T1", "PD").tolist() == [1, -1, -1, -1, -1, 1]


def test_a_model_of_one_pair_refuses_another(card_of):
    with pytest.raises(BadInput, match="T1 to T2, not T1 to PD"):
        translator(card_of(), target="PD")


# ---------------------------------------------------------------- memory and cancelling


def with_little_memory(model: Translator, most: int) -> list[str]:
    """Let the model's network run out of memory for batches over `most`, as PyTorch says it; gives what it says aloud."""
    said: list[str] = []
    network, decode = model.runner.network, model.runner.network.decode

    def greedy(features, masks=None):
        if len(features[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return decode(features, masks)

    network.decode = greedy
    model.runner.say = said.append
    return said


@pytest.mark.parametrize("samples", [0, 3])
def test_full_memory_halves_the_batch_aloud_and_changes_no_number(card_of, samples):
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    plain = translator(card_of(), batch=12, samples=samples).translate(volume)
    model = translator(card_of(), batch=12, samples=samples)
    said = with_little_memory(model, 4)
    done = []
    result = model.translate(volume, lambda stage, fraction, message: done.append((stage, fraction)))
    assert said == [f"The memory of cpu is full: the batch is now {n} slices." for n in (6, 3)]
    assert model.runner.batch == 3
    assert np.abs(result.translation.array - plain.translation.array).max() <= 1e-5 * RANGE
    if samples:
        assert np.abs(result.uncertainty.array - plain.uncertainty.array).max() <= 1e-4 * RANGE
    fractions = [fraction for stage, fraction in done if stage == "translate"]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    # What was learnt is kept: the next volume starts with the small batch.
    model.translate(volume)
    assert len(said) == 2


def test_not_even_one_slice_in_the_cpus_memory_is_said_in_words(card_of):
    model = translator(card_of(), batch=3)
    said = with_little_memory(model, 0)
    with pytest.raises(ImtError, match="not enough memory for a single slice. Close other programs") as failure:
        model.translate(store(HEAD, spacing_kji=SPACING_KJI))
    assert failure.value.exit_code == 1
    assert [line.split()[-2] for line in said] == ["1"]


def test_another_error_is_not_taken_for_full_memory(card_of):
    model = translator(card_of())

    def broken(features, masks=None):
        raise RuntimeError("the kernel has a bug")

    model.runner.network.decode = broken
    with pytest.raises(RuntimeError, match="the kernel has a bug"):
        model.translate(store(HEAD, spacing_kji=SPACING_KJI))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, whose memory is then made small")
def test_a_gpu_too_small_for_one_slice_leaves_the_work_to_the_cpu(card_of):
    volume = store(HEAD, spacing_kji=SPACING_KJI)
    model = translator(card_of(mode="paper"), device="cuda")
    said: list[str] = []
    model.runner.say = said.append
    decode = model.runner.network.decode

    def greedy(features, masks=None):
        if features[0].is_cuda:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")  # a real error of the real allocator
        return decode(features, masks)

    model.runner.network.decode = greedy
    result = model.translate(volume)
    assert "the CPU takes over" in said[-1]
    assert result.settings["device"] == "cpu" and result.settings["precision"] == "fp32"
    assert np.abs(result.translation.array - translated(card_of(mode="paper"), volume)).max() <= 1e-5 * RANGE


def test_the_cpu_takes_over_in_fp32_with_its_own_batch(card_of):
    # Without a GPU only the change itself can be seen: a runner on another device, here without storage.
    said: list[str] = []
    network = load_network(card_of())
    runner = SliceRunner(network, torch.device("cpu"), torch.bfloat16, 1, say=said.append)
    runner.device = torch.device("meta")  # the network stays where it is
    runner._make_room(1)
    assert (runner.device.type, runner.dtype, runner.batch) == ("cpu", torch.float32, 8)
    assert said == ["The memory of meta is full even for one slice: the CPU takes over, in fp32 and slower."]


def test_a_cancelled_run_stops_between_batches_and_writes_nothing(card_of, tmp_path):
    source, output = tmp_path / "head.nii.gz", tmp_path / "out" / "T2.nii.gz"
    write_volume(source, store(HEAD, spacing_kji=SPACING_KJI))
    told: list[str] = []

    def cancelled() -> bool:
        return any("slice" in message for message in told)

    model = translator(card_of(), batch=2)
    with pytest.raises(Cancelled, match="nothing was written") as stop:
        translate_file(model, source, output, progress=lambda s, f, message: told.append(message), cancelled=cancelled)
    assert stop.value.exit_code == 130
    assert sum("slice" in message for message in told) == 1  # the batch under way was the last
    assert [p.name for p in tmp_path.rglob("*")] == ["head.nii.gz"]
    translate_file(model, source, output)  # and the translator is still good
    assert sorted(p.name for p in output.parent.iterdir()) == ["T2.json", "T2.nii.gz"]
