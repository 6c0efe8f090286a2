"""The page and the files of the table experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from IMTCore.files import write_text
from IMTCore.statistics import best_set, csv_table, markdown_table

from .measures import (
    AGAINST_ARITHMETIC,
    AGAINST_BETTER,
    AGAINST_GIVEN,
    MARGIN,
    MEANS,
    Comparison,
    Harm,
    Measure,
    comparisons_of,
    complete,
    harms_of,
    measures_of,
    scores_of,
    structures_of,
)
from .methods import SECOND, Method
from .table import Record, TableExperiment

SHOWN_STRUCTURES = 12  # with more, tests by structure are in tests.csv alone
TESTS_HEADER = (
    *("engine", "against", "measure", "structure", "method", "reference", "subjects", "difference", "low", "high"),
    *("t p", "t p Holm", "Wilcoxon p", "Wilcoxon p Holm", "Wilcoxon floor"),
)


def write_report(experiment: TableExperiment, records: Sequence[Record], warnings: Sequence[str], margin: float = MARGIN) -> str:
    """Write table.md, scores.csv, tests.csv and harm.csv into the experiment's folder; returns the page.

    Raises:
        OutputFailure: a file cannot be written.
    """
    titles = titles_of(experiment)
    scores, tests, harm, pages, notes = [], [], [], [], []
    for engine in experiment.engines:
        own = [record for record in records if record.engine == engine]
        scores += [row for record in own for row in _score_rows(record, titles[record.method])]
        comparisons, harms = comparisons_of(own, experiment.methods), harms_of(own, experiment.methods, margin)
        tests += [_test_row(engine, comparison, titles) for comparison in comparisons]
        harm += [row for one in harms for row in _harm_rows(engine, one, titles)]
        pages.append(_engine_page(engine, experiment, own, comparisons, harms, titles, notes))
    text = "\n".join([_head(experiment), *pages, _foot(experiment, records, [*notes, *warnings], margin)])
    folder = experiment.output
    write_text(folder / "scores.csv", csv_table(("engine", "method", "title", "subject", "measure", "structure", "value"), scores))
    write_text(folder / "tests.csv", csv_table(TESTS_HEADER, tests))
    write_text(folder / "harm.csv", csv_table(("engine", "method", "structure", "better single", "difference", "margin", "holds"), harm))
    write_text(folder / "table.md", text)
    return text


def titles_of(experiment: TableExperiment) -> dict[str, str]:
    """Method -> as the table names it; its own name where two would be called the same."""
    titles = {m.name: m.title(experiment.base.modality, experiment.second or "") for m in experiment.methods}
    return {name: title if list(titles.values()).count(title) == 1 else f"{title} ({name})" for name, title in titles.items()}


def means_table(records: Sequence[Record], methods: Sequence[Method], titles: Mapping[str, str], notes: list[str]) -> str:
    """A row a method: mean scores, best sets in bold; folds and seconds a subject."""
    measures = [measure for measure in MEANS if any(record.values(measure.key) for record in records)]
    columns = [_cells(scores_of(records, measure), measure, notes) for measure in measures]
    rows = []
    for method in methods:
        own = [record for record in records if record.method == method.name and record.scores is not None]
        if own:
            seconds = np.mean([sum(record.scores["seconds"].values()) for record in own])
            folds = np.mean([record.scores["folds"] for record in own])
            cells = [column.get(method.name, "") for column in columns]
            rows.append([titles[method.name], len(own), *cells, f"{folds:.1f}", f"{seconds:.1f}"])
    header = ["method", "subjects", *(measure.title for measure in measures), "folds a subject", "registration s a subject"]
    return markdown_table(header, rows)


def structures_table(records: Sequence[Record], methods: Sequence[Method], titles: Mapping[str, str], notes: list[str]) -> str:
    """A row a structure: the mean Dice of each method, best sets in bold."""
    shown = [method.name for method in methods if any(r.method == method.name and r.scores is not None for r in records)]
    rows = []
    for structure in structures_of(records):
        cells = _cells(scores_of(records, Measure("dice", structure)), MEANS[0], notes)
        rows.append([structure, *(cells.get(name, "") for name in shown)])
    return markdown_table(["Dice", *(titles[name] for name in shown)], rows)


def _cells(scores: Mapping[str, Mapping[str, float]], measure: Measure, notes: list[str]) -> dict[str, str]:
    """Method -> mean, bold in the best set; with n where a method has fewer subjects than others and so is in no set."""
    full = complete(scores)
    best = best_set(full, measure.higher) if len(full) > 1 else None
    if best is not None:
        notes += [note for note in best.notes if note not in notes]
    cells = {}
    for method, values in scores.items():
        text = f"{np.mean(list(values.values())):.{measure.digits}f}"
        if method not in full:
            text += f" (n = {len(values)})"
        cells[method] = f"**{text}**" if best is not None and method in best.members else text
    return cells


def _engine_page(
    engine: str,
    experiment: TableExperiment,
    records: Sequence[Record],
    comparisons: Sequence[Comparison],
    harms: Sequence[Harm],
    titles: Mapping[str, str],
    notes: list[str],
) -> str:
    parts = [f"## {engine}, preset {experiment.base.preset}\n", means_table(records, experiment.methods, titles, notes)]
    parts += ["### Dice by structure\n", structures_table(records, experiment.methods, titles, notes)]
    many = len(structures_of(records)) > SHOWN_STRUCTURES
    for against, heading in (
        (AGAINST_GIVEN, "Against the given modality alone"),
        (AGAINST_BETTER, "Fusions against the better single modality"),
        (AGAINST_ARITHMETIC, "Fusions against the arithmetic mean (0.5)"),
    ):
        own = [c for c in comparisons if c.against == against and not (many and c.measure.structure)]
        if own:
            parts += [f"### {heading}\n", _tests_table(own, titles)]
    if harms:
        parts += ["### Does fusion do harm?\n", _harm_table(harms, titles)]
    return "\n".join(parts)


def _tests_table(comparisons: Sequence[Comparison], titles: Mapping[str, str]) -> str:
    rows = []
    for comparison in comparisons:
        r, digits = comparison.result, comparison.measure.digits + 1
        interval = f"{r.difference.low:+.{digits}f} to {r.difference.high:+.{digits}f}" if r.subjects > 1 else ""
        p_values = (_p(r.t_p), _p(r.t_p_adjusted), _p(r.wilcoxon_p), _p(r.wilcoxon_p_adjusted))
        names = (comparison.measure.title, titles[r.first], titles[r.second])
        rows.append([*names, r.subjects, f"{r.difference.mean:+.{digits}f}", interval, *p_values])
    header = ["measure", "method", "against", "n", "difference", "95 % interval", "t-test p", "Holm", "Wilcoxon p", "Holm"]
    return markdown_table(header, rows)


def _harm_table(harms: Sequence[Harm], titles: Mapping[str, str]) -> str:
    rows = []
    for harm in harms:
        worst = harm.worst
        count = f"{len(harm.holding)} of {len(harm.differences)}"
        text = f"{worst}: {harm.differences[worst]:+.4f} against {titles[harm.better[worst]]}"
        rows.append([titles[harm.method], "holds" if harm.holds else "**does not hold**", count, text])
    return markdown_table(["fusion", f"never below the better single by more than {harms[0].margin:g}", "structures that hold", "worst"], rows)


def _head(experiment: TableExperiment) -> str:
    base, second = experiment.base, experiment.second
    translated = any(method.source == "translated" for method in experiment.methods)
    how = "images given" if experiment.translated else f"model {experiment.model or 'of the pair'}"
    pair = f" and {second}{f' ({how} for the translated one)' if translated else ''}" if second else ""
    atlases = ", ".join(atlas.name for atlas in experiment.atlas_set.atlases)
    return (
        f"# Registration of {base.modality}{pair}\n\n"
        f"{len(experiment.subjects)} subjects ({', '.join(s.name for s in experiment.subjects)}), {len(experiment.atlas_set.atlases)} atlases "
        f"({atlases}); labels fused by {base.labels}; seed {base.seed}.\n"
    )


def _foot(experiment: TableExperiment, records: Sequence[Record], notes: Sequence[str], margin: float) -> str:
    lines = [
        ("Means over subjects. Bold: the best set, the best method and all that are not significantly worse (paired t-test, Holm's "
         "correction over the methods, p < 0.05). Tests are two-sided and paired by subject, corrected by Holm's method over the methods "
         "of one measure; differences are method less reference, with the 95 % bootstrap interval over subjects."),
        f"Do no harm: in each structure the mean Dice of the fusion less that of the better single modality is at least -{margin:g}.",
        ("Seconds are those of all atlases one after the other, as computed (results from the cache count with the time they "
         "took); stages that methods share count for each of them."),
    ]
    if any(measure.key == "landmarks_mm" for measure in measures_of(records)):
        lines.append("Landmarks: mean distance in the atlas's image, over landmarks and atlases (the paper's Dist).")
    if any(method.name == SECOND for method in experiment.methods):
        lines.append("The translated one alone still begins from a linear part on the given one, as imt register --weight 0.")
    failed = [f"{r.subject}, {r.engine}, {r.method}: {r.error}" for r in records if r.scores is None]
    lines += [f"FAILED: {text}" for text in failed]
    lines += [f"Without atlas {n}: {r.subject}, {r.engine}, {r.method} ({e})" for r in records if r.scores for n, e in r.scores["failed"].items()]
    return "## Notes\n\n" + "".join(f"- {line}\n" for line in dict.fromkeys([*lines, *notes]))


def _score_rows(record: Record, title: str) -> list[list[object]]:
    first = [record.engine, record.method, title, record.subject]
    rows: list[list[object]] = []
    for measure in (measure.key for measure in MEANS):
        rows += [[*first, measure, name, "" if value is None else f"{value:.6g}"] for name, value in record.values(measure).items()]
    if record.scores is not None:
        rows.append([*first, "folds", "", record.scores["folds"]])
        rows += [[*first, "seconds", stage, value] for stage, value in record.scores["seconds"].items()]
    return rows


def _test_row(engine: str, comparison: Comparison, titles: Mapping[str, str]) -> list[object]:
    r, measure = comparison.result, comparison.measure
    numbers = (r.difference.mean, r.difference.low, r.difference.high, r.t_p, r.t_p_adjusted)
    numbers += (r.wilcoxon_p, r.wilcoxon_p_adjusted, r.wilcoxon_floor)
    names = (engine, comparison.against, measure.key, measure.structure, titles[r.first], titles[r.second])
    return [*names, r.subjects, *(f"{number:.5g}" for number in numbers)]


def _harm_rows(engine: str, harm: Harm, titles: Mapping[str, str]) -> list[list[object]]:
    return [
        [engine, titles[harm.method], name, titles[harm.better[name]], f"{value:.6f}", harm.margin, "yes" if value >= -harm.margin else "no"]
        for name, value in harm.differences.items()
    ]


def _p(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}"
