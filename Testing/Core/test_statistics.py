"""Paired statistics by subject, and the script that makes the paper's table from them."""

from __future__ import annotations

import csv
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from IMTCore.errors import BadInput
from IMTCore.statistics import (
    best_set,
    bootstrap_interval,
    compare,
    csv_table,
    holm,
    markdown_table,
    paired_t,
    subject_means,
    wilcoxon_floor,
    wilcoxon_signed_rank,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Resources" / "Training"))
import compare_methods


def scores_of(**methods: list[float]) -> dict[str, dict[str, float]]:
    return {name: {f"s{n}": value for n, value in enumerate(values)} for name, values in methods.items()}


# --- Tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 12, 60])
def test_both_tests_are_scipys_where_no_ranks_are_tied(n: int) -> None:
    random = np.random.default_rng(n)
    for shift in (0.0, 0.3, 2.0):
        a, b = random.normal(shift, 1, n), random.normal(0, 1, n)
        assert paired_t(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
        assert wilcoxon_signed_rank(a - b) == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue, rel=1e-9)


def test_the_signed_rank_test_is_exact_with_ties_and_zeros() -> None:
    for differences in ([1.0, 1, 2, -1, 3, 3, -2], [0.0, 0, 1, 2, 2, -1], [2.0, 2, 2, 2]):
        values = np.array(differences)
        nonzero = values[values != 0]
        ranks = stats.rankdata(np.abs(nonzero))
        sums = [sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in itertools.product((0, 1), repeat=len(ranks))]
        observed = ranks[nonzero > 0].sum()
        tail = min(np.mean(np.array(sums) <= observed), np.mean(np.array(sums) >= observed))
        assert wilcoxon_signed_rank(values) == pytest.approx(min(1, 2 * tail), abs=1e-12)


def test_degenerate_differences_have_plain_answers() -> None:
    assert paired_t(np.zeros(5)) == wilcoxon_signed_rank(np.zeros(5)) == 1
    assert paired_t(np.full(5, 2.0)) == 0 and wilcoxon_signed_rank(np.full(5, 2.0)) == wilcoxon_floor(5)
    assert math.isnan(paired_t(np.array([1.0]))) and math.isnan(wilcoxon_signed_rank(np.array([1.0])))


@pytest.mark.parametrize(("n", "floor"), [(4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_wilcoxon_cannot_go_below_its_floor_with_few_subjects(n: int, floor: float) -> None:
    assert wilcoxon_floor(n) == floor
    assert wilcoxon_signed_rank(np.arange(1.0, n + 1)) == pytest.approx(floor)


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04] and holm([]) == []
    kept = holm([0.01, float("nan"), 0.02])
    assert kept[0] == pytest.approx(0.02) and math.isnan(kept[1]) and kept[2] == pytest.approx(0.02)


def test_the_bootstrap_interval_covers_as_it_says_and_is_repeatable() -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(3, 1, 25) for _ in range(200)]
    intervals = [bootstrap_interval(sample) for sample in samples]
    assert 0.88 <= np.mean([i.low <= 3 <= i.high for i in intervals]) <= 0.99
    assert intervals[0] == bootstrap_interval(samples[0]) and intervals[0].mean == pytest.approx(samples[0].mean())
    assert bootstrap_interval(samples[0], 0.5).low > intervals[0].low
    single = bootstrap_interval([4.0])
    assert single.mean == 4 and single.subjects == 1 and math.isnan(single.low)


def test_slices_are_averaged_within_their_subject_first() -> None:
    rows = [("a", "s0", 1.0), ("a", "s0", 3.0), ("a", "s1", 10.0), ("b", "s1", 4.0), ("b", "s0", 5.0)]
    assert subject_means(rows) == {"a": {"s0": 2.0, "s1": 10.0}, "b": {"s0": 5.0, "s1": 4.0}}
    with pytest.raises(BadInput, match="b has no score for s1"):
        subject_means(rows[:3] + rows[4:])
    with pytest.raises(BadInput, match="The score of a on s0 is inf"):
        subject_means([("a", "s0", float("inf"))])


def test_more_slices_of_the_same_subjects_do_not_make_a_difference_significant() -> None:
    random = np.random.default_rng(3)
    subjects = random.normal(0.2, 1, 8)
    few, many = (
        subject_means(
            (m, f"s{n}", 25 + (d if m == "a" else 0)) for m in ("a", "b") for n, d in enumerate(subjects) for _ in range(slices)
        )
        for slices in (1, 50)
    )
    p_few, p_many = (compare(scores, [("a", "b")])[0].t_p for scores in (few, many))
    assert p_many == pytest.approx(p_few) and p_few > 0.3
    assert paired_t(np.repeat(subjects, 50)) < 0.01  # what counting slices would have claimed


def test_comparisons_are_paired_corrected_and_signed() -> None:
    base = np.random.default_rng(0).normal(25, 3, 9)
    wobble = 0.1 * np.sin(np.arange(9))
    scores = scores_of(a=list(base + 0.5 + wobble), b=list(base), c=list(base + 0.48 - wobble))
    first, second = compare(scores, [("a", "b"), ("a", "c")])
    assert first.difference.mean == pytest.approx(0.5 + wobble.mean()) and first.difference.low > 0.4
    assert first.t_p < 1e-5 and first.t_p_adjusted == pytest.approx(2 * first.t_p)
    assert second.t_p_adjusted == second.t_p > 0.1
    assert stats.ttest_ind(base + 0.5 + wobble, base).pvalue > 0.5  # unpaired, it would be lost between the subjects
    assert compare(scores, [("b", "a")], "none")[0].t_p_adjusted == first.t_p
    record = first.record()
    assert (record["first"], record["subjects"], record["difference"]) == ("a", 9, first.difference.mean)
    del scores["b"]["s0"]
    with pytest.raises(BadInput, match="not scored on the same subjects"):
        compare(scores, [("a", "b")])


# --- The best set --------------------------------------------------------------------------------------------------


@pytest.fixture
def three() -> dict[str, dict[str, float]]:
    """b is best by a hair over c; a is clearly behind."""
    base = np.random.default_rng(1).normal(25, 2, 10)
    noise = np.random.default_rng(2).normal(0, 0.3, (2, 10))
    return scores_of(a=list(base - 2 + noise[0]), b=list(base + 0.05), c=list(base + noise[1] - noise[1].mean()))


def test_all_methods_not_significantly_worse_are_best(three: dict[str, dict[str, float]]) -> None:
    found = best_set(three)
    assert found.best == "b" and found.members == ("b", "c")
    assert {c.second: c.t_p_adjusted < 0.05 for c in found.comparisons} == {"a": True, "c": False}
    lowest = best_set(three, higher_is_better=False)
    assert lowest.best == "a" and lowest.members == ("a",)


def test_a_correction_keeps_what_the_papers_rule_drops() -> None:
    base = np.random.default_rng(4).normal(25, 2, 8)
    lag = np.random.default_rng(5).normal(0, 0.3, 8)
    lag = lag - lag.mean() + 0.33 * lag.std(ddof=1) * 2.9  # t = 2.7 at 7 degrees of freedom: p = 0.03
    scores = scores_of(best=list(base), x=list(base - lag), y=list(base - 1.1 * lag), z=list(base - 1.2 * lag))
    assert best_set(scores, correction="none").members == ("best",)
    assert best_set(scores).members == ("best", "x", "y", "z")


def test_few_subjects_are_told_and_exclude_nobody_they_cannot(three: dict[str, dict[str, float]]) -> None:
    four = {method: dict(list(values.items())[:4]) for method, values in three.items()}
    ranked = best_set(four, test="wilcoxon")
    assert ranked.members == ("a", "b", "c")
    assert "With 4 subjects Wilcoxon's p cannot go below 0.125, 0.25 after Holm's correction over 2 comparisons" in ranked.notes[0]
    assert "no method can leave the best set" in ranked.notes[0]
    assert best_set(four).members == ("b", "c") and "bootstrap intervals are too narrow" in best_set(four).notes[-1]
    assert best_set(three, test="wilcoxon").members == ("b", "c") and best_set(three).notes == ()
    one = {method: {"s0": values["s0"]} for method, values in three.items()}
    assert best_set(one).members == ("a", "b", "c") and "no test is possible" in best_set(one).notes[0]


def test_unknown_names_are_refused(three: dict[str, dict[str, float]]) -> None:
    for options in ({"test": "z"}, {"correction": "bonferroni"}):
        with pytest.raises(BadInput, match="Unknown"):
            best_set(three, **options)
    with pytest.raises(BadInput, match="no methods"):
        best_set({})


def test_tables_keep_what_would_break_them() -> None:
    assert markdown_table(["a", "b"], [[1, "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"
    assert csv_table(["a", "b"], [[1, 'x,"y']]) == 'a,b\n1,"x,""y"\n'


# --- The script ----------------------------------------------------------------------------------------------------

COLUMNS = ["subject", "method", "scaling", "region", "mae", "psnr", "ssim", "mi"]


def write_scores(path: Path, methods: dict[str, float], subjects: list[str], seed: int = 0, more: tuple[str, ...] = ()) -> Path:
    """scores.csv with each method so many dB from a common value per subject; a second scaling is 5 dB lower."""
    base = dict(zip(subjects, np.random.default_rng(seed).normal(25, 2, len(subjects)), strict=True))
    noise = np.random.default_rng(seed + 1)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*COLUMNS, *more])
        for subject in subjects:
            for method, offset in methods.items():
                value = base[subject] + offset + noise.normal(0, 0.05)
                for scaling, shift in (("range", 0.0), ("p99.5", -5.0)):
                    psnr = value + shift
                    row = [subject, method, scaling, "volume", 0.5 * 10 ** (-psnr / 20), psnr, 0.5 + psnr / 60, psnr / 40]
                    writer.writerow(row + [0.8] * len(more))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_methods.py", *map(str, arguments)])
    compare_methods.main()


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


METHODS = {"RF": 1.0, "cGAN+L1": 0.0, "L1": 0.99}
SUBJECTS = [f"glioma/c{n}" for n in range(6)] + [f"ms/p{n}" for n in range(4)]


def test_the_table_has_the_papers_form_and_marks_the_best_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = write_scores(tmp_path / "scores.csv", METHODS, SUBJECTS, more=("sharpness",))
    run(monkeypatch, "--scores", f"T1 → T2={path}", "--output", tmp_path / "out")
    rows = read(tmp_path / "out" / "table.csv")
    assert [(row["data set"], row["transition"], row["subjects"]) for row in rows] == [("glioma", "T1 → T2", "6"), ("ms", "T1 → T2", "4")]
    assert list(rows[0])[3:8] == ["RF MAE ↓", "RF PSNR ↑", "RF MI ↑", "RF SSIM ↑", "RF sharpness"]
    scored = [row for row in read(path) if row["scaling"] == "range" and row["subject"].startswith("glioma")]
    mean = np.mean([float(row["psnr"]) for row in scored if row["method"] == "cGAN+L1"])
    assert rows[0]["cGAN+L1 PSNR ↑"] == f"{mean:.2f}" and rows[0]["RF sharpness"] == "0.800"
    for row in rows:
        for metric in ("MAE ↓", "PSNR ↑", "MI ↑", "SSIM ↑"):
            assert row[f"RF {metric}"].startswith("*") and row[f"L1 {metric}"].startswith("*") and "*" not in row[f"cGAN+L1 {metric}"]
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert f"| {mean:.2f} |" in text and "**" in text and "scaling range, region volume" in text
    assert "With 4 subjects Wilcoxon's p cannot go below 0.125" in text
    assert text in capsys.readouterr().out
    tests = read(tmp_path / "out" / "tests.csv")
    assert len(tests) == 2 * 4 * 2 and {row["other in best set"] for row in tests if row["other"] == "cGAN+L1"} == {"no"}
    means = {(r["data set"], r["method"], r["metric"]): r for r in read(tmp_path / "out" / "means.csv")}
    cell = means["glioma", "cGAN+L1", "psnr"]
    assert float(cell["mean"]) == pytest.approx(mean, abs=1e-3) and float(cell["low"]) < mean < float(cell["high"])


def test_options_choose_methods_convention_pooling_and_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scores(tmp_path / "scores.csv", METHODS, SUBJECTS)
    options = ["--scaling", "p99.5", "--methods", "L1", "cGAN+L1", "--pool", "--mae-scale", "255", "--correction", "none"]
    run(monkeypatch, "--scores", f"x={path}", "--output", tmp_path, *options)
    (row,) = read(tmp_path / "table.csv")
    assert row["data set"] == "all" and row["subjects"] == "10" and list(row)[3] == "L1 MAE ↓" and not any("RF" in name for name in row)
    maes = [255 * float(r["mae"]) for r in read(path) if r["scaling"] == "p99.5" and r["method"] == "cGAN+L1"]
    assert row["cGAN+L1 MAE ↓"] == f"{np.mean(maes):.4f}"
    assert "t p uncorrected" in read(tmp_path / "tests.csv")[0] and "not corrected, as in the paper" in (tmp_path / "table.md").read_text("utf-8")


def test_folds_come_together_and_scans_of_one_patient_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_scores(tmp_path / "1.csv", METHODS, ["ms/p1_study1", "ms/p1_study2", "ms/p2_study1"])
    second = write_scores(tmp_path / "2.csv", METHODS, ["ms/p3_study1", "ms/p4_study1"], seed=7)
    run(monkeypatch, "--scores", f"x={first}", f"x={second}", "--merge", "_study[0-9]+$", "--output", tmp_path / "out")
    (row,) = read(tmp_path / "out" / "table.csv")
    assert row["subjects"] == "4"
    with pytest.raises(SystemExit, match="RF is scored on ms/p1_study1 in .*1.csv and in .*copy.csv"):
        copy = tmp_path / "copy.csv"
        copy.write_bytes(first.read_bytes())
        run(monkeypatch, "--scores", f"x={first}", f"x={copy}", "--output", tmp_path / "out")


def test_bad_scores_end_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_scores(tmp_path / "good.csv", METHODS, SUBJECTS)
    text = good.read_text(encoding="utf-8")
    (tmp_path / "columns.csv").write_text("subject,method\na,b\n", encoding="utf-8")
    lines = text.splitlines()
    (tmp_path / "lacking.csv").write_text("\n".join(line for line in lines if not line.startswith("glioma/c2,L1,")), encoding="utf-8")
    (tmp_path / "infinite.csv").write_text(text.replace(lines[1], ",".join([*lines[1].split(",")[:5], "inf", "1", "1"])), encoding="utf-8")
    (tmp_path / "word.csv").write_text(text.replace(lines[1], ",".join([*lines[1].split(",")[:5], "good", "1", "1"])), encoding="utf-8")
    for name, options, message in (
        ("absent", [], "Cannot read .*absent.csv"),
        ("columns", [], "columns.csv has no column scaling, region, mae"),
        ("lacking", [], "L1 has no score for glioma/c2"),
        ("infinite", [], "The score of RF on glioma/c0 is inf"),
        ("word", [], "the psnr of RF on glioma/c0 is 'good', not a number"),
        ("good", ["--scaling", "none"], "no scores with scaling 'none' .* It has: --scaling range --region volume"),
        ("good", ["--methods", "RF", "GAN"], "has no method GAN on glioma. It has: RF, cGAN"),
        ("good", ["--merge", "("], "not a regular expression"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, "--scores", f"x={tmp_path / name}.csv", "--output", tmp_path / "out", *options)
        assert not (tmp_path / "out").exists()
