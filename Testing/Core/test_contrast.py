"""Claims on recognising the modality of an image, and on the input check that stands on it."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ORIENTATIONS, head_phantom, rotation_matrix, store
from packages import write_tiny_package

from IMTCommand.__main__ import main
from IMTCore import contrast
from IMTCore.cards import read_card
from IMTCore.catalogue import list_cards
from IMTCore.contrast import (
    FEATURES,
    MODALITIES,
    NAMED,
    UNSURE,
    ModalityGuess,
    contrast_features,
    guess_from_features,
    guess_modality,
)
from IMTCore.errors import BadInput, BadModel
from IMTCore.inputs import prepare_input
from IMTCore.orientation import anatomical_axes
from IMTCore.settings import TranslationSettings
from IMTCore.simulation import PhantomSpec, simulate
from IMTCore.tissue_maps import icbm152_tissues
from IMTCore.volume import Volume
from IMTCore.volume_io import read_volume, write_volume

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "IMTTranslate" / "Resources" / "IMT-sample-data"
DATA = ROOT.parent / "shared" / "data"
HELD_OUT = json.loads(contrast.coefficients_path().read_text(encoding="utf-8"))["held_out"]


@pytest.fixture(scope="module")
def template(icbm152) -> Volume:
    """A T1 that no coefficient was fitted on."""
    return read_volume(icbm152 / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")


@pytest.fixture(scope="module")
def phantoms(icbm152) -> dict[str, Volume]:
    """The template's anatomy in every modality, at 2 mm, bare brain, with lesions."""
    spec = PhantomSpec(seed=11, lesions=5, skull_stripped=True)
    return simulate(icbm152_tissues(icbm152, downsample=2), spec).images


def blocks(volume: Volume, factors: tuple[int, int, int]) -> Volume:
    """Means over blocks of voxels of an axial array: a coarser acquisition."""
    axes = anatomical_axes(volume.geometry)
    array, spacing = axes.apply(volume.array).astype(np.float32), axes.spacing_kji(volume.geometry)
    k, j, i = (n // f for n, f in zip(array.shape, factors, strict=True))
    array = array[: k * factors[0], : j * factors[1], : i * factors[2]]
    array = array.reshape(k, factors[0], j, factors[1], i, factors[2]).mean(axis=(1, 3, 5))
    return store(array, spacing_kji=tuple(s * f for s, f in zip(spacing, factors, strict=True)))


def shares(guess: ModalityGuess) -> np.ndarray:
    return np.array([guess.probabilities[name] for name in MODALITIES])


# ---------------------------------------------------------------- what is recognised


@pytest.mark.parametrize("modality", NAMED)
def test_a_phantom_of_an_anatomy_that_was_not_fitted_on_is_recognised(phantoms, modality):
    guess = guess_modality(phantoms[modality])
    assert guess.modality == modality
    assert shares(guess).sum() == pytest.approx(1) and guess.probabilities[modality] >= 0.8
    assert not guess.is_sure_not(modality) and not guess.speaks_against(modality)


def test_pd_is_not_named_and_not_taken_for_another_modality(phantoms):
    guess = guess_modality(phantoms["PD"])
    assert guess.modality == UNSURE
    assert not any(guess.speaks_against(wanted) or guess.is_sure_not(wanted) for wanted in MODALITIES)
    assert not any(guess_modality(phantoms[m]).is_sure_not("PD") for m in NAMED)  # nor does one speak surely against it


@pytest.mark.parametrize("modality", NAMED)
def test_the_sample_data_are_recognised(modality):
    assert guess_modality(read_volume(SAMPLES / f"IMT-phantom-{modality}.nii.gz")).modality == modality


def test_the_icbm_template_is_a_t1_and_surely_no_t2(template):
    guess = guess_modality(template)
    assert guess.modality == "T1" and guess.is_sure_not("T2")
    assert guess.probabilities["T1"] > 0.95
    assert guess.odds_against("T2") == pytest.approx(guess.probabilities["T1"] / guess.probabilities["T2"])
    assert guess.odds_against("T2") > contrast.SURE_ODDS and guess.odds_against("T1") == 0


@pytest.mark.parametrize(("wanted_share", "sure"), [(0.0099, False), (0.0089, True), (0.0, True)])
def test_a_guess_is_sure_from_a_hundred_to_one_on(wanted_share, sure):
    """Less is no ground to refuse an image: real ones were given a wrong name at up to 8 to 1, phantoms at 50 to 1."""
    guess = ModalityGuess("T1", {"T1": 0.9, "T2": wanted_share, "FLAIR": 0.1 - wanted_share, "PD": 0.0}, 1.0)
    assert guess.speaks_against("T2") and guess.is_sure_not("T2") == sure
    assert not guess.is_sure_not("PD") and not guess.is_sure_not("T1")


@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 1, 1), (1, 1, 4), (1, 4, 1)], ids=str)
def test_the_resolution_does_not_change_the_guess(template, factors):
    assert guess_modality(blocks(template, factors)).modality == "T1"


def test_a_slab_of_the_head_is_enough(template):
    axial = anatomical_axes(template.geometry).apply(template.array).astype(np.float32)
    for first, last in ((60, 110), (85, 100)):
        assert guess_modality(store(axial[first:last])).modality == "T1"


@pytest.mark.parametrize("modality", ["T1", "T2"])
def test_neither_storage_nor_unit_nor_offset_changes_the_guess(phantoms, modality):
    volume = phantoms[modality]
    axial = anatomical_axes(volume.geometry).apply(volume.array)
    spacing = (2.0, 2.0, 2.0)
    reference = shares(guess_modality(store(axial, spacing_kji=spacing)))
    for number, orientation in enumerate(ORIENTATIONS[::5]):
        turned = store(axial, orientation, spacing, rotation_matrix(number, 20.0))
        assert np.abs(shares(guess_modality(turned)) - reference).max() < 1e-6, orientation
    for array in (axial * 0.013, axial * 3 - 700, (axial * 4).astype(np.int16)):
        assert np.abs(shares(guess_modality(store(array, spacing_kji=spacing))) - reference).max() < 0.01


@pytest.mark.parametrize("modality", NAMED)
@pytest.mark.parametrize("air", ["zero", "lowest"])
def test_z_scores_are_recognised(phantoms, modality, air):
    array = phantoms[modality].array
    head = array > 0
    scores = (array - array[head].mean()) / array[head].std()
    scores[~head] = 0 if air == "zero" else scores.min() - 0.5
    assert guess_modality(phantoms[modality].with_array(scores)).modality == modality


@pytest.mark.parametrize("modality", NAMED)
@pytest.mark.parametrize("gamma", [0.7, 1.4])
def test_a_moderate_change_of_contrast_makes_no_wrong_guess(phantoms, modality, gamma):
    volume = phantoms[modality]
    changed = volume.with_array((volume.array / volume.array.max()) ** gamma)
    assert not guess_modality(changed).speaks_against(modality)


def test_what_is_no_head_is_unsure():
    random = np.random.default_rng(0)
    ellipsoid = head_phantom((60, 90, 80)) > 0
    images = {
        "noise": random.normal(size=(60, 90, 80)),
        "noise in an ellipsoid": ellipsoid * random.integers(100, 200, ellipsoid.shape),
        "a flat ellipsoid": ellipsoid * 100.0 + random.normal(0, 0.01, ellipsoid.shape),
        "a ramp": np.broadcast_to(np.arange(80.0), (60, 90, 80)),
        "blobs": head_phantom((60, 90, 80)),
        "another ellipsoid of blobs": head_phantom((20, 100, 80)),
    }
    for name, array in images.items():
        assert guess_modality(store(array.astype(np.float32), spacing_kji=(2.5, 2.0, 2.0))).modality == UNSURE, name


def test_a_head_too_small_or_too_large_or_too_little_of_it_is_unsure(template):
    axial = anatomical_axes(template.geometry).apply(template.array).astype(np.float32)
    for array, millimetres in ((axial, 0.3), (axial, 3.0), (axial[90:91], 1.0), (axial[:, :, 90:91], 1.0)):
        volume = store(array, spacing_kji=(millimetres,) * 3)
        assert contrast_features(volume) is None
        guess = guess_modality(volume)
        assert (guess.modality, guess.unusual, set(shares(guess))) == (UNSURE, np.inf, {0.25})


def test_a_guess_takes_less_than_a_third_of_a_second(template):
    large = np.zeros((155, 240, 240), np.float32)
    part = anatomical_axes(template.geometry).apply(template.array)[20:175, :232, :196]
    large[: len(part), : part.shape[1], 20 : 20 + part.shape[2]] = part
    volume, taken = store(large), []
    for _ in range(3):
        start = time.process_time()  # of this process: other programs do not count
        assert guess_modality(volume).modality == "T1"
        taken.append(time.process_time() - start)
    assert min(taken) < 0.3


def test_damaged_coefficients_are_named(template, tmp_path, monkeypatch):
    good = json.loads(contrast.coefficients_path().read_text(encoding="utf-8"))
    assert tuple(good["features"]) == FEATURES and len(good["weights"]) == len(MODALITIES)
    path = tmp_path / "IMT-contrast.json"
    monkeypatch.setattr(contrast, "coefficients_path", lambda: path)
    for content in (None, "{", json.dumps({**good, "features": []}), json.dumps({k: v for k, v in good.items() if k != "bias"})):
        if content is not None:
            path.write_text(content, encoding="utf-8")
        contrast._shipped_coefficients.cache_clear()
        with pytest.raises(BadModel, match=r"IMT-contrast\.json.*Install IMT again"):
            guess_modality(template)
    contrast._shipped_coefficients.cache_clear()


# ---------------------------------------------------------------- the input check


@pytest.fixture
def imt(capfd) -> Callable[..., tuple[int, str, str]]:
    """Call the command line: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Tiny packages of random weights."""
    folder = tmp_path_factory.mktemp("models")
    pairs = {"T1-T2": ("T1", "T2"), "T2-T1": ("T2", "T1"), "PD-T2": ("PD", "T2"), "CT-T1": ("CT", "T1"), "T1C-T2": ("T1C", "T2")}
    made = {name: write_tiny_package(folder, name=name, source=a, target=b) for name, (a, b) in pairs.items()}
    return made | {"any": write_tiny_package(folder, name="any", modalities=("T1", "T2", "FLAIR"))}


def saved(volume: Volume, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, volume)
    return path


def test_a_t2_given_to_a_t1_model_is_refused_in_one_line_and_nothing_is_written(imt, tmp_path, models, phantoms):
    source, output = saved(phantoms["T2"], tmp_path / "mine.nii.gz"), tmp_path / "out" / "T2.nii.gz"
    code, out, err = imt("translate", source, "--model", models["T1-T2"], "--output", output)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "mine.nii.gz looks like a T2 image, but model T1-T2 translates T1 images" in line
    assert "Choose another model" in line and "--no-modality-check" in line
    assert [p.name for p in tmp_path.rglob("*")] == ["mine.nii.gz"]


def test_without_the_check_it_is_translated_with_a_warning(imt, tmp_path, models, phantoms):
    source, output = saved(phantoms["T2"], tmp_path / "mine.nii.gz"), tmp_path / "out" / "T2.nii.gz"
    code, _, err = imt("translate", source, "--model", models["T1-T2"], "--output", output, "--no-modality-check")
    assert code == 0
    (line,) = err.splitlines()
    assert "Warning" in line and "mine.nii.gz looks like a T2 image" in line
    record = json.loads(output.with_name("T2.json").read_text(encoding="utf-8"))
    assert any("looks like a T2 image" in text for text in record.get("warnings", []))
    assert read_volume(output).array.max() > 0


@pytest.mark.parametrize(
    ("modality", "model"), [("T1", "T1-T2"), ("T2", "T2-T1"), ("PD", "T1-T2"), ("PD", "PD-T2"), ("T1", "T1C-T2")]
)
def test_the_right_modality_and_an_unsure_one_pass_without_a_word(imt, tmp_path, models, phantoms, modality, model):
    source = saved(phantoms[modality], tmp_path / "mine.nii.gz")
    code, _, err = imt("translate", source, "--model", models[model], "--output", tmp_path / "out.nii.gz")
    assert (code, err) == (0, "")


def test_a_model_of_an_unknown_modality_takes_everything_and_one_of_pd_only_warns(phantoms, models):
    ct, pd = read_card(models["CT-T1"]), read_card(models["PD-T2"])
    for modality in NAMED:
        assert prepare_input(phantoms[modality], ct).warnings == []
        (warning,) = prepare_input(phantoms[modality], pd).warnings
        assert f"may be a {modality} image" in warning and "Check that it is a PD image" in warning


def test_an_any_to_any_model_is_checked_for_the_chosen_source(imt, tmp_path, models, phantoms):
    source = saved(phantoms["T2"], tmp_path / "mine.nii.gz")
    given = ("translate", source, "--model", models["any"], "--output", tmp_path / "out.nii.gz", "--to", "FLAIR", "--from")
    code, _, err = imt(*given, "T1")
    assert code == 2 and "looks like a T2 image" in err and "translates T1 images" in err
    assert imt(*given, "T2")[0] == 0


def test_of_many_cases_only_the_wrong_one_fails(imt, tmp_path, models, phantoms):
    for case, modality in (("good", "T1"), ("wrong", "T2")):
        saved(phantoms[modality], tmp_path / "cases" / case / "T1.nii.gz")
    code, _, err = imt("translate", tmp_path / "cases", "--model", models["T1-T2"], "--output", tmp_path / "out")
    assert code == 3 and "wrong failed" in err and "looks like a T2 image" in err
    assert [p.parent.name for p in (tmp_path / "out").glob("*/T2.nii.gz")] == ["good"]


def test_a_guess_that_is_not_sure_only_warns(template, models, monkeypatch):
    monkeypatch.setattr(contrast, "SURE_ODDS", 1e12)
    (warning,) = prepare_input(template, read_card(models["T2-T1"])).warnings
    assert "may be a T1 image" in warning and "likely" in warning
    monkeypatch.setattr(contrast, "SURE_ODDS", 100.0)
    with pytest.raises(BadInput, match="looks like a T1 image"):
        prepare_input(template, read_card(models["T2-T1"]))
    settings = TranslationSettings(check_modality=False)
    (warning,) = prepare_input(template, read_card(models["T2-T1"]), settings).warnings
    assert "the check of the modality was left out" in warning


def test_the_shipped_models_take_the_sample_data_of_their_source_and_no_other():
    cards = [card for card in list_cards()[0] if card.source in NAMED]
    assert {card.source for card in cards} >= {"T1", "T2"}
    for card in cards:
        for modality in NAMED:
            volume = read_volume(SAMPLES / f"IMT-phantom-{modality}.nii.gz")
            if modality == card.source:
                assert prepare_input(volume, card).warnings == []
            else:
                with pytest.raises(BadInput, match=f"looks like a {modality} image"):
                    prepare_input(volume, card)


# ---------------------------------------------------------------- the script that fits the coefficients


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_contrast", ROOT / "Resources" / "Training" / "fit_contrast.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up there
        spec.loader.exec_module(module)
    return module


def test_the_script_fits_coefficients_and_reports_wrong_guesses_with_their_odds(script, tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    centres = {name: 4.0 * np.eye(len(FEATURES))[n] for n, name in enumerate(MODALITIES)}
    rows = []
    for dataset in ("glioma_brats2018", "open_ms_mni", "phantoms", "malf2012"):
        for name in MODALITIES:
            for n in range(12):
                values = centres[name] + random.normal(0, 0.5, len(FEATURES))
                rows.append([dataset, f"s{n}", name, "varied" if n % 2 else "original", values.tolist()])
    rows.append(["malf2012", "mislabelled", "T2", "original", centres["T1"].tolist()])
    features, output, report = (tmp_path / name for name in ("features.json", "contrast.json", "report.md"))
    features.write_text(json.dumps(rows), encoding="utf-8")
    arguments = ("--data", tmp_path, "--features", features, "--output", output, "--report", report)
    held_out = "glioma_brats2018/s0"
    monkeypatch.setattr(sys, "argv", ["fit_contrast.py", *map(str, arguments), "--held-out", held_out])
    script.main()

    content = json.loads(output.read_text(encoding="utf-8"))
    assert (tuple(content["features"]), tuple(content["modalities"])) == (FEATURES, MODALITIES)
    assert content["held_out"] == [held_out] and sorted(content["fitted_on"].values()) == [0] * 4 + [44, 48, 48]
    fitted = {name: np.array(content[name]) for name in contrast.COEFFICIENTS}
    for name in NAMED:
        assert guess_from_features(centres[name], fitted).modality == name
    wrong = guess_from_features(centres["T1"], fitted)
    text = report.read_text(encoding="utf-8")
    assert text.strip() in capsys.readouterr().out
    assert "| held out: glioma_brats2018 | T1 | 1 | 1 | 0 | 0 |" in text
    assert "| scored only: malf2012 | T2 | 7 | 6 | 0 | 1 |" in text  # the mislabelled one is wrong, and no other
    assert float(text.rpartition("real image: ")[2].strip(" .\n")) == pytest.approx(wrong.odds_against("T2"), rel=0.01)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (None, "nowhere is not a folder. Give --data"),
        ("{", "features.json does not hold features"),
        ('[["phantoms", "s", "T1", "original", [1, 2]]]', "features.json does not hold features"),
        ("[]", "no real T1 and no T2 and no FLAIR image"),
    ],
)
def test_the_script_names_what_it_cannot_use_and_writes_nothing(script, tmp_path, monkeypatch, features, words):
    if features is not None:
        (tmp_path / "features.json").write_text(features, encoding="utf-8")
    arguments = ("--data", tmp_path / "nowhere", "--features", tmp_path / "features.json", "--output", tmp_path / "out.json")
    monkeypatch.setattr(sys, "argv", ["fit_contrast.py", *map(str, arguments)])
    with pytest.raises(SystemExit, match=words):
        script.main()
    assert not (tmp_path / "out.json").exists()


# ---------------------------------------------------------------- held-out patients

ABSENT = "the real images are not here (../shared/data): they are not part of the project"
real = pytest.mark.skipif(not DATA.is_dir(), reason=ABSENT)


def held_out_images() -> list[tuple[str, str]]:
    names = [(name, modality) for name in HELD_OUT for modality in NAMED]
    return [(name, modality) for name, modality in names if (DATA / name / f"{modality}.nii.gz").exists()]


@real
def test_no_held_out_patient_is_taken_for_another_modality():
    images = held_out_images()
    assert len(images) >= 20
    right = {modality: [] for modality in NAMED}
    for name, modality in images:
        guess = guess_modality(read_volume(DATA / name / f"{modality}.nii.gz"))
        assert not guess.speaks_against(modality), (name, modality, guess)
        right[modality].append(guess.modality == modality)
    for modality, least in (("T1", 0.85), ("T2", 1.0), ("FLAIR", 0.7)):
        assert np.mean(right[modality]) >= least, modality


@real
def test_every_held_out_t2_is_refused_by_the_t1_models_and_the_other_way_round():
    for name, modality in held_out_images():
        if modality != "FLAIR":
            guess = guess_modality(read_volume(DATA / name / f"{modality}.nii.gz"))
            assert guess.is_sure_not({"T1": "T2", "T2": "T1"}[modality]), (name, modality, guess)


@real
def test_t1_after_contrast_agent_is_never_taken_for_t2_and_never_surely_for_flair():
    images = sorted(DATA.glob("glioma_brats2013/*/T1C.nii.gz"))
    assert images
    for path in images:
        guess = guess_modality(read_volume(path))
        assert guess.modality != "T2" and not guess.is_sure_not("T1"), (path, guess)
