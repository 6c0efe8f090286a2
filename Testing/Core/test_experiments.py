"""Experiments: a setting chosen on patients never trained on, errors of whole volumes, and failures found where they are."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import head_phantom, store
from packages import tiny_card, tiny_network

from IMTCore.catalogue import find_card
from IMTCore.metrics import unit_scaled
from IMTCore.model_packages import save_package
from IMTCore.orientation import anatomical_axes
from IMTCore.settings import TranslationSettings
from IMTCore.translation import Translator
from IMTCore.volume_io import read_volume, write_volume

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Resources" / "Training"))

import cross_validate
import failure_pictures
import validate_volume

SPACING = (4.0, 4.0, 4.0)
SHAPE = (12, 40, 36)
# Stored sagittally and flipped, so that a place found in the stored array would be a wrong one.
ORIENTATION = ((2, 0, 1), (True, False, True))
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans of three patients; of the last one's T2 the two uppermost slices were not acquired."""
    root = tmp_path_factory.mktemp("data")
    for n, name in enumerate(("p1_ses1", "p1_ses2", "p2", "p3")):
        t1 = head_phantom(SHAPE) * np.random.default_rng(n).uniform(0.9, 1.1, SHAPE)
        t2 = np.where(t1 > 0, 1300 - t1, 0)
        if name == "p3":
            t2[8:10] = 0
        for modality, image in (("T1", t1), ("T2", t2)):
            write_volume(root / "set" / name / f"{modality}.nii.gz", store(image.astype(np.float32), ORIENTATION, SPACING))
    return root


def said(capsys: pytest.CaptureFixture[str], script, *arguments: object) -> str:
    """What a command that succeeds prints."""
    script.main([*map(str, arguments)])
    return capsys.readouterr().out


def refused(script, *arguments: object) -> str:
    """The message of a command that fails."""
    with pytest.raises(SystemExit) as ended:
        script.main([*map(str, arguments)])
    return str(ended.value.code)


# --- Cross-validation ----------------------------------------------------------------------------------------------

TINY = ["--filters", 4, "--depth", 3, "--dropout-blocks", 1, "--size", 32, "--adversarial", 0, "--augmentation", "none"]


def cv_words(data: Path, output: Path, *options: object) -> list[object]:
    task = ["--data", data, "--source", "T1", "--targets", "T2", "--train", "set/*", "--folds", 2, "--output", output]
    return [*task, *TINY, "--steps", 3, *options]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation of two learning rates in two folds, p3 kept out."""
    output = tmp_path_factory.mktemp("runs") / "rates"
    options = ["--field", "learning_rate", "--values", 0.001, 0.01, "--exclude", "set/p3"]
    cross_validate.main([*map(str, cv_words(data, output, *options))])
    return output


def scores(output: Path) -> list[dict[str, str]]:
    with open(output / "scores.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_each_patient_is_scored_once_by_a_model_that_saw_none_of_its_scans(finished: Path) -> None:
    held = {}
    for fold in (0, 1):
        folder = finished / "learning_rate-0.01" / f"fold{fold}"
        trained = set(json.loads((folder / "run" / "config.json").read_text())["subjects"])
        held[fold] = set(json.loads((folder / "scores.json").read_text())["held_out"])
        assert trained | held[fold] == {"set/p1_ses1", "set/p1_ses2", "set/p2"}
        assert not trained & held[fold]
    assert {"set/p1_ses1", "set/p1_ses2"} in held.values() and {"set/p2"} in held.values()
    rows = [row for row in scores(finished) if (row["scaling"], row["region"]) == ("range", "volume")]
    assert sorted((row["value"], row["subject"]) for row in rows) == [
        (rate, f"set/{name}") for rate in ("0.001", "0.01") for name in ("p1_ses1", "p1_ses2", "p2")
    ]
    assert (finished / "curve.png").read_bytes()[:4] == PNG
    assert "| 2 |" in (finished / "table.md").read_text(encoding="utf-8"), "two patients, not three scans"


def test_the_fits_train_with_their_own_value(finished: Path) -> None:
    for rate in (0.001, 0.01):
        record = json.loads((finished / f"learning_rate-{rate:g}" / "fold0" / "run" / "config.json").read_text())
        assert record["learning_rate"] == rate and record["steps"] == 3 and record["adversarial"] == 0


def test_what_is_finished_is_not_done_again_and_another_experiment_is_not_mixed_in(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--field", "learning_rate", "--values", 0.001, 0.01, "--exclude", "set/p3"]
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")}
    assert "4 fits, 4 finished before" in said(capsys, cross_validate, *cv_words(data, finished, *options))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")} == before and before
    message = refused(cross_validate, *cv_words(data, finished, *options, "--l1", 7))
    assert "is of another cross-validation (differs in l1). Choose another --output." in message


def plan_of(words: list[object]) -> cross_validate.Plan:
    """What the command would do."""
    return cross_validate.make_plan(*cross_validate.make_parser().parse_known_args([str(word) for word in words]))


def give_scores(output: Path, fit: cross_validate.Fit, psnr: dict[str, float]) -> None:
    """A finished fit with these scores."""
    rows = [
        {"subject": name, "method": fit.label, "scaling": "range", "region": "volume", "mae": 10 ** (-psnr[name] / 20)}
        | {"psnr": psnr[name], "ssim": 0.5, "mi": 0.5, "sharpness": 1.0}
        for name in fit.held_out
    ]
    (output / fit.key).mkdir(parents=True)
    (output / fit.key / "scores.json").write_text(json.dumps({"rows": rows}))


@pytest.mark.parametrize(("spread", "verdict"), [(4.0, "is NOT significant"), (0.05, "is significantly better than the runner-up")])
def test_the_better_value_is_chosen_and_a_chance_difference_is_said_to_be_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spread: float, verdict: str
) -> None:
    words = cv_words(data, tmp_path, "--field", "l1", "--values", 10, 100)
    base = {"set/p1_ses1": 20.0, "set/p1_ses2": 20.0, "set/p2": 22.0, "set/p3": 24.0}
    gain = {"set/p1_ses1": 1.0, "set/p1_ses2": 1.0, "set/p2": 1.0 - spread, "set/p3": 1.0 + spread}
    for fit in plan_of(words).fits:
        better = fit.label == "l1 = 100"
        give_scores(tmp_path, fit, {name: value + better * gain[name] for name, value in base.items()})
    text = said(capsys, cross_validate, *words)
    assert "Chosen by PSNR: l1 = 100 (23.00)." in text
    assert verdict in text and "+1.00" in text and "3 patients" in text
    assert ("**10**" in text) == (spread > 1) and "**100**" in text


def test_a_value_that_cannot_be_trained_is_left_out_and_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = cv_words(data, tmp_path, "--field", "learning_rate", "--values", 0.001, 1e30, "--exclude", "set/p3")
    good = [fit for fit in plan_of(words).fits if fit.label == "learning_rate = 0.001"]
    bad = next(fit for fit in plan_of(words).fits if fit.label == "learning_rate = 1e+30" and len(fit.held_out) == 1)
    for fit in good:
        give_scores(tmp_path, fit, dict.fromkeys(fit.held_out, 20.0))
    other = next(fit for fit in plan_of(words).fits if fit.label == bad.label and fit.key != bad.key)
    give_scores(tmp_path, other, dict.fromkeys(other.held_out, 30.0))
    message = refused(cross_validate, *words)
    assert f"1 fits failed: {bad.key}" in message
    text = capsys.readouterr().out
    assert f"{bad.key}: FAILED train_translator.py failed: Training failed at step" in text
    assert "Chosen by PSNR: learning_rate = 0.001" in text and "| 1e+30 | not finished |" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--field", "train", "--values", "a", "b"], "--field train cannot be chosen by cross-validation"),
        (["--field", "l1", "--values", "1", "1.0"], "--values has 1 twice"),
        (["--field", "l1", "--values", "1", "2", "--stop-at", "2"], "--stop-at would leave every run unfinished"),
        (["--field", "l1", "--values", "1", "2", "--exclude", "set/p2", "set/p3"], "2 folds need 2 or more folds"),
        (["--field", "l1", "--values", "1", "2", "--initial", "other.pt"], "may have learnt from held-out subjects"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused_before_any_training(
    data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    assert message in refused(cross_validate, *cv_words(data, tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


# --- Whole volumes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says that it never saw p2 and p3."""
    content = tiny_card()
    content["training"] = {**content["training"], "held_out": ["set/p2", "set/p3"]}
    return save_package(tmp_path_factory.mktemp("model"), content, tiny_network(content)).path


def axial(path: Path) -> np.ndarray:
    volume = read_volume(path)
    return anatomical_axes(volume.geometry).apply(volume.array)


def test_totals_are_sums_over_slices_of_the_mean_error_of_each(
    data: Path, card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "--model", card, "--test", "set/p2", "set/p3", "--device", "cpu", "--output", tmp_path, "--shown", 2]
    text = said(capsys, validate_volume, *words)
    translator = Translator(find_card(str(card)), TranslationSettings(device="cpu", precision="fp32", check_modality=False))
    with open(tmp_path / "slices.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for name, counted in (("p2", list(range(12))), ("p3", [0, 1, 2, 3, 4, 5, 6, 7, 10, 11])):
        folder = data / "set" / name
        volume = read_volume(folder / "T1.nii.gz")
        made = anatomical_axes(volume.geometry).apply(translator.translate(volume).translation.array) / 255
        difference = (made - unit_scaled(axial(folder / "T2.nii.gz")))[counted].astype(np.float64)
        own = [row for row in rows if row["subject"] == f"set/{name}"]
        assert [int(row["slice"]) for row in own] == counted, "slices that were not acquired do not count"
        pixels = SHAPE[1] * SHAPE[2]
        mse, mae = (np.array([float(row[m]) for row in own]) for m in ("mse", "mae"))
        np.testing.assert_allclose(mse, (difference**2).sum(axis=(1, 2)) / pixels, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(mae, np.abs(difference).sum(axis=(1, 2)) / pixels, rtol=1e-5, atol=1e-9)
        line = next(line for line in text.splitlines() if line.startswith(f"| set/{name} "))
        numbers = [float(cell) for cell in line.strip("| ").split(" | ")[1:]]
        assert numbers[0] == len(counted)
        expected = [mse.sum(), mae.sum(), mse.sum() / len(counted), mae.sum() / len(counted)]
        assert numbers[2:6] == pytest.approx(expected, abs=1.1e-5)
        assert (tmp_path / f"set-{name}-slices.png").read_bytes()[:4] == PNG
        assert (tmp_path / f"set-{name}-curve.png").read_bytes()[:4] == PNG
    assert "imply 94.8 slices by the MSE but 85.4 by the MAE" in text
    assert (tmp_path / "table.md").read_text(encoding="utf-8").strip() == text[text.index("Model ") :].strip()


def test_a_run_is_validated_on_the_subjects_that_it_did_not_see_only(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished / "learning_rate-0.01" / "fold0" / "run"
    trained = json.loads((run / "config.json").read_text())["subjects"]
    words = ["--data", data, "--run", run, "--device", "cpu", "--output", tmp_path / "out"]
    assert f"The run was trained on {trained[0]}" in refused(validate_volume, *words, "--test", trained[0])
    assert "| set/p3 | 10 |" in said(capsys, validate_volume, *words, "--test", "set/p3")


# --- Failures ------------------------------------------------------------------------------------------------------

INVENTED, MISSING, BROKEN = (4, 15, 12), (8, 24, 20), (6, 17, 25)


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.indices(SHAPE)
    return sum((x - c) ** 2 for x, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects with striped truth, and translations: one perfect, one with an invented, a missing and a broken structure."""
    root = tmp_path_factory.mktemp("planted")
    head, i = head_phantom(SHAPE) > 0, np.arange(SHAPE[2])
    stripes = np.where(head, 0.4 + np.where(i > 17, 0.1, 0.05) * (-1.0) ** i, 0)
    stripes[ball((5, 27, 12), 3)] = 0.9
    for name in ("good", "bad"):
        made = stripes.copy()
        if name == "bad":
            broken = ball(BROKEN, 4.5) & head
            made[broken] = 0.8 - made[broken]  # dark stripes where there are bright ones
            made += 0.4 * ball(INVENTED, 1.6) - 0.3 * ball(MISSING, 1.6)
        for modality in ("T1", "T2"):
            image = store((1000 * stripes).astype(np.float32), ORIENTATION, SPACING)
            write_volume(root / "data" / "set" / name / f"{modality}.nii.gz", image)
        scaled = np.rint(255 * np.clip(made / 0.9, 0, 1)).astype(np.uint8)
        write_volume(root / "made" / f"{name}.nii.gz", store(scaled, ORIENTATION, SPACING))
    return root


def test_planted_failures_are_found_at_their_places(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", planted / "data", "--source", "T1", "--target", "T2", "--test", "set/*"]
    said(capsys, failure_pictures, *words, "--translations", f"my method={planted / 'made'}", "--output", tmp_path)
    page = (tmp_path / "index.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| my method")]
    found = {row[1]: row for row in rows}
    assert list(found) == ["invented", "missing", "broken", "best"]
    for kind, centre, within in (("invented", INVENTED, 1), ("missing", MISSING, 1), ("broken", BROKEN, 3)):
        assert found[kind][2] == "set/bad"
        assert np.abs(np.array([int(n) for n in found[kind][3:6]]) - centre).max() <= within, kind
    assert float(found["invented"][6]) > 0.2 > -0.2 > float(found["missing"][6])
    assert float(found["invented"][8]) > float(found["invented"][9]) + 0.3
    assert float(found["broken"][7]) < 0 < 0.99 < float(found["best"][7])
    assert found["best"][2] == "set/good"
    assert (tmp_path / "my-method.png").read_bytes()[:4] == PNG and "](my-method.png)" in page


def test_a_model_is_looked_at_on_unseen_subjects_only(data: Path, card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", data, "--source", "T1", "--target", "T2", "--model", f"tiny={card}", "--device", "cpu", "--output", tmp_path]
    assert "set/p1_ses1" in refused(failure_pictures, *words, "--test", "set/*")
    assert not list(tmp_path.iterdir())
    text = said(capsys, failure_pictures, *words, "--test", "set/p2")
    assert text.count("tiny: set/p2, slice") == 4
    assert {path.name for path in tmp_path.iterdir()} == {"index.md", "tiny.png"}


def test_a_translation_that_is_missing_or_of_another_grid_is_refused(planted: Path, tmp_path: Path) -> None:
    words = ["--data", planted / "data", "--source", "T1", "--target", "T2", "--test", "set/good", "--output", tmp_path / "out"]
    (tmp_path / "none").mkdir()
    assert "good.nii.gz does not exist" in refused(failure_pictures, *words, "--translations", tmp_path / "none")
    other = store(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), spacing_kji=SPACING)
    write_volume(tmp_path / "other" / "good.nii.gz", other)
    assert "is not on the grid of set/good" in refused(failure_pictures, *words, "--translations", tmp_path / "other")
    assert not (tmp_path / "out" / "index.md").exists()
