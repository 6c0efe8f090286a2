"""Claims on reader studies: nothing but anatomy tells real from synthetic, no answer is lost, and the scores are right."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import head_phantom, store
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest, fisher_exact

from IMTCommand.__main__ import main
from IMTCore.errors import BadInput, OutputFailure
from IMTCore.reader_study.answers import ANSWER_COLUMNS, open_log, read_answers
from IMTCore.reader_study.making import StudyOptions, make_study
from IMTCore.reader_study.pairs import Pair, common_mask, pairs_from_csv, pairs_from_folders
from IMTCore.reader_study.report import as_markdown
from IMTCore.reader_study.scores import fisher_p, proportion, score_study
from IMTCore.reader_study.trials import ReaderStudy, read_study
from IMTCore.volume_io import write_volume

SHAPE = (16, 40, 36)


def write_pair(folder: Path, case: str, brightness: float = 3.0, spacing=(1.0, 1.0, 1.0), shape=SHAPE) -> Pair:
    """A head with noise in the air around it, and a smoother, brighter one with a background of exactly 0."""
    head = head_phantom(shape)
    random = np.random.default_rng(len(case) + shape[1])
    noise = np.abs(random.normal(0, 12, shape)).astype(np.float32)
    smooth = np.where(head > 0, brightness * gaussian_filter(head, (0, 1.5, 1.5)), 0).astype(np.float32)
    pair = Pair(case, folder / f"{case}-real.nrrd", folder / f"{case}-synthetic.nrrd")
    write_volume(pair.real, store(head + noise, spacing_kji=spacing))
    write_volume(pair.synthetic, store(smooth, spacing_kji=spacing))
    return pair


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[Pair]:
    folder = tmp_path_factory.mktemp("pairs")
    return [write_pair(folder, "first"), write_pair(folder, "second", shape=(14, 30, 44))]


@pytest.fixture(scope="module")
def made(pairs, tmp_path_factory) -> ReaderStudy:
    """A study of 6 practice and 40 main trials: more than there are slices."""
    return make_study(pairs, tmp_path_factory.mktemp("studies") / "study", StudyOptions(6, 40, seed=3))[0]


@pytest.fixture
def study(made, tmp_path) -> ReaderStudy:
    """The same without any answers, to answer."""
    shutil.copytree(made.folder, tmp_path / "study")
    return read_study(tmp_path / "study")


def image(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def real_and_synthetic(study: ReaderStudy, trial) -> tuple[np.ndarray, np.ndarray]:
    other = {"left": "right", "right": "left"}
    return image(study.image_path(trial, other[trial.side])), image(study.image_path(trial, trial.side))


def answer_all(study: ReaderStudy, reader: str, fooled=lambda trial: False, upto: int | None = None) -> Path:
    """Answer all trials, or the first ones; `fooled` tells on which the reader is wrong."""
    log = open_log(study, reader)
    for trial in study.trials[:upto]:
        right = {"left": "right", "right": "left"}
        log.append(trial, right[trial.side] if fooled(trial) else trial.side, 4.0 if fooled(trial) else 2.0)
    return log.path


# --- Making --------------------------------------------------------------------------------------------------------


def test_a_study_has_the_planned_trials_with_the_synthetic_image_on_random_sides(made):
    assert [trial.phase for trial in made.trials] == ["practice"] * 6 + ["main"] * 40
    assert 10 < sum(trial.side == "left" for trial in made.trials) < 36
    assert {trial.case for trial in made.trials} == {"first", "second"}
    assert made.content["contains_synthetic_images"] is True


def test_the_same_seed_gives_the_same_study_and_another_one_another(made, pairs, tmp_path):
    again, _ = make_study(pairs, tmp_path / "again", StudyOptions(6, 40, seed=3))
    other, _ = make_study(pairs, tmp_path / "other", StudyOptions(6, 40, seed=4))
    assert again.study_id == made.study_id and again.trials == made.trials
    assert other.study_id != made.study_id and other.trials != made.trials


def test_neither_size_nor_air_nor_brightness_nor_file_tells_which_image_is_synthetic(made):
    sizes, tops = set(), []
    for trial in made.trials:
        real, synthetic = real_and_synthetic(made, trial)
        sizes |= {real.shape, synthetic.shape}
        assert real.dtype == synthetic.dtype == np.uint8
        black = synthetic == 0
        assert black.mean() > 0.2 and not real[black].any(), "noise in the air would tell"
        tops.append(np.percentile(real[~black], 99) / np.percentile(synthetic[~black], 99))
    assert sizes == {(made.content["image_size"]["rows"], made.content["image_size"]["columns"])}
    assert np.median(tops) == pytest.approx(1, abs=0.1)  # the synthetic volume is three times as bright
    files = list(made.folder.glob("images/*.png"))
    assert len({path.stat().st_mtime_ns for path in files}) == 1
    assert all(len(path.stem) == 16 and set(path.stem) <= set("0123456789abcdef") for path in files)


def test_no_pair_of_the_practice_comes_again_and_repeats_are_told(made, pairs, tmp_path):
    places = {phase: [(t.case, t.slice) for t in made.trials if t.phase == phase] for phase in ("practice", "main")}
    assert not set(places["practice"]) & set(places["main"])
    assert all(a != b for a, b in zip(places["main"], places["main"][1:], strict=False))
    counts = [places["main"].count(place) for place in set(places["main"])]
    assert max(counts) - min(counts) <= 1 and max(counts) > 1
    assert any("not independent" in note for note in made.content["notes"])
    small, notes = make_study(pairs, tmp_path / "small", StudyOptions(2, 8))
    assert len({(t.case, t.slice) for t in small.trials}) == 10 and notes == []


def test_slices_without_enough_head_are_not_shown(made):
    shares = [(real_and_synthetic(made, trial)[1] > 0).sum() for trial in made.trials if trial.case == "first"]
    assert min(shares) >= 0.2 * max(shares)


def test_non_square_pixels_are_drawn_square(tmp_path):
    pair = write_pair(tmp_path, "flat", spacing=(1.0, 2.0, 1.0), shape=(10, 20, 36))
    study, _ = make_study([pair], tmp_path / "study", StudyOptions(0, 3))
    rows, columns = ((real_and_synthetic(study, study.trials[0])[1] > 0).any(axis=axis).sum() for axis in (1, 0))
    # The phantom is 0.8 of its rows high and 0.75 of its columns wide: 32 mm × 27 mm.
    assert rows / columns == pytest.approx(32 / 27, abs=0.12)


def test_the_mask_keeps_the_head_whole_and_drops_noise():
    real, synthetic = np.zeros((2, 3, 40, 40))
    real[:, 8:32, 8:32] = synthetic[:, 8:32, 8:32] = 100
    synthetic[:, 15:20, 15:20] = 0  # a ventricle that the network made black
    real[:, 2, 2] = synthetic[:, 2, 2] = 5  # a speck in the air
    mask = common_mask(real, synthetic)
    assert mask[:, 8:32, 8:32].all() and mask.sum() == 3 * 24 * 24


def test_folders_as_imt_translate_writes_them_are_paired_by_name(tmp_path):
    for folder in ("real", "synthetic"):
        for case in ("a", "b"):
            (tmp_path / folder / case).mkdir(parents=True)
            (tmp_path / folder / case / "T2.nii.gz").touch()
    (tmp_path / "real" / "a" / "T1.nii.gz").touch()
    (tmp_path / "synthetic" / "b" / "T2_uncertainty.nii.gz").touch()
    found = pairs_from_folders(tmp_path / "real", tmp_path / "synthetic")
    assert [(p.case, p.real.parts[-3], p.synthetic.parts[-3]) for p in found] == [
        ("a/T2", "real", "synthetic"),
        ("b/T2", "real", "synthetic"),
    ]
    with pytest.raises(BadInput, match="same"):
        pairs_from_folders(tmp_path / "real", tmp_path / "real")


# --- Refusals ------------------------------------------------------------------------------------------------------


def damage(kind: str, folder: Path) -> Pair:
    pair = write_pair(folder, "broken")
    if kind == "grid":
        write_volume(pair.synthetic, store(head_phantom((16, 40, 35))))
    elif kind == "unreadable":
        pair.real.write_bytes(pair.real.read_bytes()[:300])
    elif kind == "missing":
        pair.synthetic.unlink()
    elif kind == "same":
        pair.synthetic.write_bytes(pair.real.read_bytes())
    elif kind == "exchanged":
        pair.real.with_suffix(".json").write_text('{"synthetic": true, "content": "translation"}')
    elif kind == "uncertainty":
        pair.synthetic.with_suffix(".json").write_text('{"synthetic": true, "content": "uncertainty"}')
    return pair


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("grid", "not on the grid"),
        ("unreadable", "cannot be read"),
        ("missing", "does not exist"),
        ("same", "holds the same image"),
        ("exchanged", "exchanged"),
        ("uncertainty", "not as a translation"),
    ],
)
def test_a_pair_that_cannot_be_used_is_named_and_nothing_is_left(tmp_path, pairs, kind, words):
    broken = damage(kind, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=words) as caught:
        make_study([*pairs, broken], tmp_path / "study", StudyOptions(1, 4))
    assert "Case broken" in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_is_not_touched(pairs, study, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_text("x")
    for folder, words in ((tmp_path / "photos", "not a reader study"), (study.folder, "a reader study already")):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(BadInput, match=words):
            make_study(pairs, folder, StudyOptions(1, 4))
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_too_few_slices_for_practice_and_trials_are_refused(tmp_path):
    pair = write_pair(tmp_path, "thin", shape=(1, 40, 36))
    with pytest.raises(BadInput, match="Only 1 slices"):
        make_study([pair], tmp_path / "study", StudyOptions(1, 4))


def test_a_folder_that_is_no_study_or_was_changed_is_refused(study, tmp_path):
    with pytest.raises(BadInput, match="no study.json"):
        read_study(tmp_path)
    path = study.folder / "study.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["trials"][0]["side"] = "left" if content["trials"][0]["side"] == "right" else "right"
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="was changed"):
        read_study(study.folder)


def test_a_study_without_one_of_its_images_is_refused(study):
    study.image_path(study.trials[4], "left").unlink()
    with pytest.raises(BadInput, match="lacks 1 of its images"):
        read_study(study.folder)


# --- Answers -------------------------------------------------------------------------------------------------------


def test_a_reader_goes_on_after_a_crash_that_cut_a_line_off(study):
    path = answer_all(study, "Ann", upto=5)
    whole = path.read_bytes()
    for cut in (whole[:-20], whole + b"half a li", whole[:10], b""):
        path.write_bytes(cut)
        log = open_log(study, "Ann")
        expected = 1 if len(cut) < 50 else 5 if cut == whole[:-20] else 6
        assert log.next_trial().number == expected
        log.append(log.next_trial(), "left", 1.0)
        kept = read_answers(path, study)
        assert [answer.trial for answer in kept.answers] == list(range(1, expected + 1)) and kept.notes == ()


def test_the_answers_file_does_not_tell_the_truth(study):
    rows = list(csv.DictReader(answer_all(study, "Ann").open(newline="")))
    assert tuple(rows[0]) == ANSWER_COLUMNS and len(rows) == 46
    assert {row["answer"] for row in rows} == {"left", "right"}


def test_an_answer_that_cannot_be_written_is_not_kept(study):
    log = open_log(study, "Ann")
    shutil.rmtree(study.folder)
    with pytest.raises(OutputFailure, match="Cannot write"):
        log.append(study.trials[0], "left", 1.0)
    assert log.next_trial().number == 1


def test_two_windows_of_one_reader_do_not_mix(study):
    first, second = open_log(study, "Ann"), open_log(study, "Ann")
    first.append(study.trials[0], "left", 1.0)
    with pytest.raises((BadInput, OutputFailure)):
        second.append(study.trials[0], "right", 1.0)
    assert len(read_answers(first.path, study).answers) == 1


@pytest.mark.parametrize("name", ["", "a/b", "../Ann", " Ann", "x" * 65])
def test_a_name_that_cannot_be_a_file_is_refused(study, name):
    with pytest.raises(BadInput, match="reader's name"):
        open_log(study, name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text, study: text.replace(study.study_id, "0123456789abcdef"), "another study"),
        (lambda text, study: text + text.splitlines()[-1] + "\n", "answered before"),
        (lambda text, study: text.replace(",2,practice", ",99,practice"), "no such trial"),
        (lambda text, study: text.replace("practice,left", "practice,both").replace("practice,right", "practice,both"), "left or right"),
        (lambda text, study: text.replace("seconds", "minutes"), "first line must be"),
    ],
    ids=["another study", "twice", "no such trial", "no side", "other columns"],
)
def test_answers_that_do_not_fit_the_study_are_refused(study, change, words):
    path = answer_all(study, "Ann", upto=4)
    path.write_text(change(path.read_text(encoding="utf-8"), study), encoding="utf-8")
    with pytest.raises(BadInput, match=words):
        read_answers(path, study)


# --- Scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "total"), [(250, 1000), (0, 10), (10, 10), (3, 7), (511, 1000)])
def test_the_interval_and_the_test_are_scipys(count, total):
    ours, known = proportion(count, total), binomtest(count, total)
    interval = known.proportion_ci(method="wilson")
    assert (ours.low, ours.high, ours.p_half) == pytest.approx((interval.low, interval.high, known.pvalue), rel=1e-9, abs=1e-12)


def test_the_test_of_change_is_fishers():
    for first, second in (((8, 20), (2, 20)), ((30, 50), (10, 51)), ((0, 5), (0, 5))):
        table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
        assert fisher_p(first, second) == pytest.approx(fisher_exact(table).pvalue, rel=1e-9)


def test_a_fooled_reader_is_counted_with_times_and_learning(study):
    # Fooled in the practice's first half and on every fourth main trial.
    path = answer_all(study, "Ann", lambda t: t.number <= 3 if t.phase == "practice" else t.number % 4 == 0)
    score = score_study(study, [read_answers(path, study)])
    main_score, practice = score.readers[0].main, score.readers[0].practice
    assert (main_score.fooled.count, main_score.fooled.total) == (10, 40)
    assert main_score.fooled.p_half == pytest.approx(binomtest(10, 40).pvalue)
    assert (main_score.seconds_fooled, main_score.seconds_right, main_score.seconds[1]) == (4.0, 2.0, 2.0)
    assert (practice.first_half.rate, practice.second_half.rate) == (1.0, 0.0) and practice.p_change == pytest.approx(0.1)
    text = as_markdown(score)
    assert "| Ann | 40 of 40 | 25.0 % | 14.2 to 40.2 % |" in text and "told from the real ones" in text


def test_a_reader_who_always_says_left_is_seen_as_biased(study):
    log = open_log(study, "Left")
    for trial in study.trials:
        log.append(trial, "left", 1.0)
    phase = score_study(study, [read_answers(log.path, study)]).readers[0].main
    assert phase.left.rate == 1 and phase.left.p_half < 1e-6
    assert phase.fooled.count == sum(t.side == "right" for t in study.trials if t.phase == "main")


def test_readers_are_pooled_and_averaged(study):
    from scipy.stats import t as student

    files = [answer_all(study, name, lambda t, n=n: t.number % n == 0) for name, n in (("A", 2), ("B", 4), ("C", 8))]
    score = score_study(study, [read_answers(path, study) for path in files])
    rates = np.array([20, 10, 5]) / 40
    assert score.pooled.rate == pytest.approx(35 / 120) and score.mean_rate == pytest.approx(rates.mean())
    half = student.ppf(0.975, 2) * rates.std(ddof=1) / np.sqrt(3)
    assert (score.mean_low, score.mean_high) == pytest.approx((max(0, rates.mean() - half), rates.mean() + half))


# --- The command ---------------------------------------------------------------------------------------------------


def test_the_command_makes_and_scores_a_study(pairs, tmp_path, capsys):
    table = tmp_path / "pairs.csv"
    table.write_text("case,real,synthetic\n" + "".join(f"{p.case},{p.real},{p.synthetic}\n" for p in pairs), encoding="utf-8")
    assert pairs_from_csv(table) == pairs
    folder = tmp_path / "study"
    assert main(["study", "make", "--pairs", str(table), "--output", str(folder), "--practice", "2", "--trials", "6"]) == 0
    assert "2 practice and 6 main trials" in capsys.readouterr().out
    study = read_study(folder)
    files = [answer_all(study, "Ann"), answer_all(study, "Bob", upto=4)]
    outputs = [str(tmp_path / "scores.csv"), str(tmp_path / "scores.json")]
    assert main(["study", "score", *map(str, files), "--csv", outputs[0], "--report", outputs[1]]) == 0
    text = capsys.readouterr().out
    assert "| **Pooled** | 8 | 0.0 % |" in text and "Bob has answered 2 of 6 main trials" in text
    report = json.loads(Path(outputs[1]).read_text(encoding="utf-8"))
    assert report["pooled"]["total"] == 8 and report["readers"][1]["main"]["fooled"]["total"] == 2
    rows = list(csv.DictReader(open(outputs[0], newline="", encoding="utf-8")))
    assert [(r["reader"], r["phase"], r["answered"]) for r in rows][-1] == ("Bob", "main", "2") and len(rows) == 4


def test_the_command_overwrites_no_answers_and_takes_each_reader_once(study, capsys):
    path = answer_all(study, "Ann", upto=3)
    before = path.read_bytes()
    assert main(["study", "score", str(path), "--csv", str(path)]) == 2
    assert main(["study", "score", str(path), "--report", str(study.folder / "study.json")]) == 2
    assert path.read_bytes() == before
    assert main(["study", "score", str(path), str(path)]) == 2
    assert "twice" in capsys.readouterr().err
    read_study(study.folder)


@pytest.mark.parametrize("arguments", [[], ["--real", "x"], ["--pairs", "x.csv", "--real", "x", "--synthetic", "y"]])
def test_the_command_wants_a_table_or_two_folders(arguments, tmp_path, capsys):
    assert main(["study", "make", *arguments, "--output", str(tmp_path / "study")]) == 2
    assert "Give either --pairs" in capsys.readouterr().err
