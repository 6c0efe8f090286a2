"""The experiment "is translation worth it?": parts, controls, the rule for the answer, and one small run from end to end."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from labelled_heads import run_main, write_heads, write_translator

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Resources" / "Training"))

import segmentation_experiment
from segmentation_experiment_report import increment, main_table, notes_of, published_table
from segmentation_experiment_report import tests_table as comparisons_table
from segmentation_verdict import judge, scores_by_subject

HEADS = tuple(f"heads/s{number}" for number in range(6))
SMALL = [
    "--given", "T1", "--second", "FLAIR", "--labels", "tissues", "--network", "unet", "--filters", 4, "--depth", 2, "--spacing-mm", 6,
    "--steps", 6, "--batch", 4, "--augmentation", "none", "--device", "cpu", "--prefetch", 0,
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    write_heads(root, HEADS)
    return root


def run(data: Path, output: Path, *options: object) -> str:
    parts = ["--part-a", "heads/s[01]", "--part-b", "heads/s[23]", "--part-c", "heads/s[45]"]
    return run_main(segmentation_experiment.main, "--data", data, *SMALL, *parts, "--output", output, *options)


def refused(data: Path, output: Path, *options: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run_main(segmentation_experiment.main, "--data", data, *SMALL, "--output", output, *options)
    return str(caught.value.code)


def table(differences: dict[str, float], subjects: int = 12, noise: float = 0.005, seed: int = 0) -> list[dict]:
    """Made-up rows: TMS at 0.8, each other method lower by its difference; two seeds, one structure."""
    random = np.random.default_rng(seed)
    rows = []
    for method, difference in {"tms": 0.0, **differences}.items():
        for subject in range(subjects):
            for one in (0, 1):
                dice = 0.8 + 0.02 * np.sin(subject) - difference + random.normal(0, noise)
                rows.append({"method": method, "seed": one, "subject": f"s{subject}", "structure": "gm", "dice": dice, "accuracy": dice})
                rows.append({"method": method, "seed": one, "subject": f"s{subject}", "structure": "all", "dice": None, "accuracy": 0.9})
    return rows


# --- The rule ------------------------------------------------------------------------------------------------------


def test_the_answer_is_yes_only_if_all_three_controls_are_beaten() -> None:
    verdict = judge(table({"xxx": 0.03, "shuffled": 0.04, "blurred": 0.02, "given-only": 0.03}))
    assert verdict.answer == "yes" and "Yes: TMS is better than xxx" in verdict.text and "12 subjects" in verdict.text
    assert {c.second for c in verdict.comparisons} == {"xxx", "shuffled", "blurred", "given-only"}


def test_the_answer_is_no_if_a_control_is_as_good() -> None:
    verdict = judge(table({"xxx": 0.03, "shuffled": -0.004, "blurred": 0.02}))
    assert verdict.answer == "no" and "No: TMS is no better than shuffled (-0.00" in verdict.text
    # All else may be significant: one control that does as well without the translation's content is enough.
    assert all(c.t_p_adjusted < 0.05 for c in verdict.comparisons if c.second != "shuffled")


def test_the_answer_is_not_shown_if_a_gain_may_be_chance() -> None:
    verdict = judge(table({"xxx": 0.03, "shuffled": 0.03, "blurred": 0.004}, subjects=5, noise=0.02, seed=3))
    assert verdict.answer == "not shown" and "not significantly better than" in verdict.text


def test_a_missing_control_leaves_the_question_open() -> None:
    verdict = judge(table({"xxx": 0.03, "blurred": 0.02}))
    assert verdict.answer == "not asked" and "without a finished fit of shuffled" in verdict.text and len(verdict.comparisons) == 2


def test_holm_counts_every_comparison_of_the_table() -> None:
    few = {c.second: c for c in judge(table({"xxx": 0.006, "shuffled": 0.03, "blurred": 0.03}, seed=1)).comparisons}
    assert few["xxx"].t_p_adjusted >= few["xxx"].t_p
    assert few["shuffled"].t_p_adjusted == pytest.approx(min(3 * min(c.t_p for c in few.values()), 1), rel=3)


def test_seeds_are_averaged_before_subjects_are_compared() -> None:
    rows = [
        {"method": m, "seed": s, "subject": p, "structure": n, "dice": d}
        for m, s, p, n, d in [("tms", 0, "a", "gm", 0.8), ("tms", 0, "a", "wm", 0.6), ("tms", 1, "a", "gm", 0.6), ("tms", 1, "a", "wm", 0.4),
                              ("xxx", 0, "a", "gm", 0.5), ("xxx", 0, "a", "wm", 0.3), ("xxx", 1, "a", "gm", 0.5), ("xxx", 1, "a", "wm", 0.3)]
    ]  # fmt: skip
    assert scores_by_subject(rows)["tms"] == pytest.approx({"a": 0.6}) and scores_by_subject(rows)["xxx"] == pytest.approx({"a": 0.4})
    assert scores_by_subject(rows, "wm")["tms"] == pytest.approx({"a": 0.5})
    unfinished = [row for row in rows if (row["method"], row["seed"]) != ("xxx", 1)]
    assert scores_by_subject(unfinished)["tms"] == pytest.approx({"a": 0.7})  # of the seed that both have


def test_a_subject_without_the_structure_in_one_fit_is_left_out_of_all() -> None:
    rows = table({"xxx": 0.1}, subjects=3)
    next(row for row in rows if row["method"] == "xxx" and row["subject"] == "s1" and row["structure"] == "gm")["dice"] = None
    assert list(scores_by_subject(rows)["tms"]) == ["s0", "s2"] == list(scores_by_subject(rows)["xxx"])


# --- Tables --------------------------------------------------------------------------------------------------------


def test_the_table_has_the_papers_increments() -> None:
    header, lines = main_table(table({"given-only": 0.1}, noise=0.0), ["gm"], "T1", "FLAIR")
    assert header == ["method", "channels", "seeds", "Dice (gm)", "Δ", "accuracy (all)", "accuracy (gm)"]
    by_method = {line[0]: line for line in lines}
    assert by_method["tms"][1:3] == ["T1, T1, FLAIR^", 2] and by_method["given-only"][4] == "-"
    assert float(by_method["tms"][4].split()[0]) == pytest.approx(100 * 0.1 / 0.7, abs=0.3)
    assert increment(0.819, 0.760) == "+7.76 %"


def test_a_table_of_one_subject_has_no_interval_and_no_p_and_says_that_it_is_an_example() -> None:
    rows = table({"xxx": 0.1, "real": -0.1}, subjects=1)
    _, lines = comparisons_table(rows)
    assert all(line[2] == "-" and line[4:] == ["-"] * 4 for line in lines)
    assert notes_of(rows)[0] == "One subject: no test and no interval, an example."


def test_the_share_of_the_real_gain_is_told_only_where_the_translation_gains() -> None:
    assert "TMS has 50 %" in notes_of(table({"xxx": 0.1, "real": -0.1}, noise=0.0))[-1]
    assert not any("of what the real" in note for note in notes_of(table({"xxx": -0.1, "real": -0.2}, noise=0.0)))


def test_the_published_numbers_are_those_of_tables_6_and_7() -> None:
    lines = published_table().splitlines()
    assert "| 6 | BraTS2015 | T1 + FLAIR^ | tumour | 0.819 | +7.76 % |" in lines
    assert "| 7 | iSeg2017 | T2 + T1^ | wm | 0.669 | +3.08 % |" in lines and "| 7 | iSeg2017 | T2 + T1 | gm | 0.797 | +3.91 % |" in lines
    assert len(lines) == 2 + 11


# --- Runs ----------------------------------------------------------------------------------------------------------


def test_two_methods_are_trained_tested_and_reported_and_nothing_is_done_twice(data: Path, tmp_path: Path) -> None:
    translator = write_translator(tmp_path)
    card = json.loads(translator.read_text(encoding="utf-8"))
    card["training"]["held_out"] = list(HEADS)
    translator.write_text(json.dumps(card), encoding="utf-8")
    output, options = tmp_path / "out", ["--translator", translator, "--methods", "xxx", "tms", "--seeds", 0]
    said = run(data, output, *options)
    assert "2 fits, 0 finished before" in said and "Not asked: without a finished fit of shuffled, blurred" in said
    with open(output / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["method"], row["subject"]) for row in rows} == {(m, s) for m in ("xxx", "tms") for s in ("heads/s4", "heads/s5")}
    assert {row["structure"] for row in rows} == {"all", "csf", "gm", "wm"} and all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    record = json.loads((output / "tms" / "seed0" / "run" / "config.json").read_text(encoding="utf-8"))
    assert record["subjects"] == ["heads/s2", "heads/s3"] and record["channels"] == ["given", "given", "second"]
    package = json.loads((output / "tms" / "seed0" / "tms-seed0.json").read_text(encoding="utf-8"))
    assert package["second"]["translator"]["name"] == "T1-FLAIR-tiny" and package["training"]["held_out"] == ["heads/s4", "heads/s5"]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.pt")}
    said = run(data, output, *options[:-1], 0, 1, "--methods", "xxx")
    assert "2 fits, 1 finished before" in said
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    said = run(data, output, *options, "--report")
    assert "fits" not in said.splitlines()[0] and "| tms | T1, T1, FLAIR^ | 1 |" in said and (output / "table.md").read_text(encoding="utf-8") in said
    with pytest.raises(SystemExit, match="another experiment .differs in filters"):
        run(data, output, *options, "--filters", 5)


def test_a_stop_ends_the_experiment_and_not_one_fit_alone(data: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "given-only" / "seed0" / "run"

    def stop() -> None:
        for _ in range(600):
            if (run_folder / "checkpoint.pt").exists():  # the training listens by now
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.1)

    parts = ["--part-b", "heads/s[23]", "--part-c", "heads/s[45]", "--part-a", "heads/s[01]"]
    endless = ["--steps", 10**6, "--checkpoint-every", 5, "--methods", "given-only", "xxx", "--seeds", 0]
    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    with pytest.raises(SystemExit, match="Stopped at step"):
        run_main(segmentation_experiment.main, "--data", data, *SMALL, *parts, *endless, "--output", tmp_path)
    assert not (tmp_path / "xxx").exists()


def test_the_translator_is_trained_on_part_a_and_pretraining_uses_its_labels(data: Path, tmp_path: Path) -> None:
    settings = {"mode": "spatial", "spacing_mm": 6.0, "filters": 4, "depth": 2, "dropout_blocks": 0, "adversarial": 0.0, "steps": 2}
    (tmp_path / "translator.json").write_text(json.dumps(settings), encoding="utf-8")
    options = ["--translator-config", tmp_path / "translator.json", "--methods", "blurred", "pretrained", "--seeds", 0, "--steps", 2]
    run(data, tmp_path / "out", *options)
    card = json.loads((tmp_path / "out" / "translator" / "T1-FLAIR-part-A.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in card["training"]["data"]] == ["heads/s0", "heads/s1"]
    folder = tmp_path / "out" / "pretrained" / "seed0"
    first, then = (json.loads((folder / run / "config.json").read_text(encoding="utf-8")) for run in ("run-a", "run"))
    assert first["subjects"] == ["heads/s0", "heads/s1"] and then["subjects"] == ["heads/s2", "heads/s3"]
    assert then["initial_weights"] == "run-a after 2 steps on 2 subjects"


def test_parts_come_from_numbers_or_a_split_and_never_share_a_patient(data: Path, tmp_path: Path) -> None:
    plan = segmentation_experiment.make_plan
    parser = segmentation_experiment.make_parser()
    common = [str(word) for word in ("--data", data, *SMALL, "--output", tmp_path)]
    parts = plan(*parser.parse_known_args([*common, "--subjects", "heads/*", "--counts", "2", "1", "3"])).parts
    assert [len(parts[part]) for part in "abc"] == [2, 1, 3] and sorted(sum(parts.values(), [])) == list(HEADS)
    (tmp_path / "split.json").write_text(json.dumps({"train": HEADS[:4], "test": HEADS[4:]}), encoding="utf-8")
    parts = plan(*parser.parse_known_args([*common, "--parts", str(tmp_path / "split.json")])).parts
    assert parts["c"] == list(HEADS[4:]) and sorted(parts["a"] + parts["b"]) == list(HEADS[:4]) and len(parts["a"]) == 2
    said = refused(data, tmp_path, "--part-a", "heads/s0", "--part-b", "heads/s[0-3]", "--part-c", "heads/s4")
    assert "heads/s0 of part B is of the patient of heads/s0 in part A" in said


def test_what_cannot_be_asked_is_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    assert "Give the parts one way" in refused(data, tmp_path)
    parts = ["--part-a", "heads/s0", "--part-b", "heads/s1", "--part-c", "heads/s2"]
    assert "There is no method magic. Known: given-only, xxx" in refused(data, tmp_path, *parts, "--methods", "magic")
    assert "nothing to report" in refused(data, tmp_path / "none", *parts, "--report")
    assert "--jobs 0" in refused(data, tmp_path, *parts, "--jobs", 0)
    translator = write_translator(tmp_path / "models")
    said = refused(data, tmp_path / "seen", *parts, "--translator", translator)
    assert "does not say which subjects it was trained on" in said and "heads/s2" in said
