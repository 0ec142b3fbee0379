"""The tables of a report, as rows of text that every format prints."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from slt_gym.evaluation.dataset_scoring import average
from slt_gym.evaluation.report.build import Report
from slt_gym.evaluation.report.scores import TITLES, main_key, main_score, percent_scores

# What Markdown would take for its own.
_MARKUP = re.compile(r"([\\|<>*`])")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Its heading.
        head: The columns' names; the first column names the rows.
        rows: The cells.
        note: A sentence on how to read it.
        best: By row, the column with the number that is better than the others; None without one.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    best: tuple[int | None, ...]


def make_tables(report: Report) -> list[Table]:
    """Make all tables of a report, the trackers' scores first."""
    tables = [tabulate_scores(report), _tabulate_frames(report)]
    if len(report.trackers) > 1:
        tables.append(_tabulate_differences(report))
    if report.attributes:
        tables.append(_tabulate_attributes(report))
    return [*tables, _tabulate_sequences(report)]


def tabulate_scores(report: Report) -> Table:
    """Make the table of the trackers' scores, the best one first."""
    scores = [percent_scores(result.score.overall) for result in report.trackers]
    rows = [
        (result.name, *map(_format, values.values()), _format(result.fps))
        for result, values in zip(report.trackers, scores, strict=True)
    ]
    result = report.trackers[0].score
    total = len(result.sequences) + len(result.missing)
    some = any(result.score.missing for result in report.trackers)
    over = f"those of {total} sequences that a tracker has results for" if some else total
    note = (
        f"Percent, over {over}{'' if some else ' sequences'}; frames per second without reading "
        "the frames."
    )
    head = ("tracker", *(TITLES[key] for key in scores[0]), "frames/s")
    return _make("Scores", head, rows, note)


def _tabulate_frames(report: Report) -> Table:
    counts = [asdict(result.score.overall.counts) for result in report.trackers]
    rows = [
        (result.name, *map(str, values.values()), str(len(result.score.missing)))
        for result, values in zip(report.trackers, counts, strict=True)
    ]
    note = (
        "Frames: all; those that scores are divided by; whose ground truth is no valid box; "
        "flagged as absent; whose predicted row was replaced by the one before; without a "
        "predicted row; rows beyond the last frame, which were cut. Last, sequences without a "
        "result."
    )
    return _make("Frames", ("tracker", *counts[0], "sequences missing"), rows, note)


def _tabulate_differences(report: Report) -> Table:
    best = report.trackers[0].name
    rows = []
    for result in report.trackers[1:]:
        shared = len(report.shared_sequences(best, result.name))
        cells = ["-", "-"]
        if shared:
            mean, low, high = (100 * value for value in report.difference(best, result.name))
            cells = [f"{mean:+.2f}", f"{low:+.2f} … {high:+.2f}"]
        rows.append((f"{best} - {result.name}", str(shared), *cells))
    note = (
        "Mean difference of the sequences' success AUC, percent, and its bootstrap interval over "
        "the sequences that both have."
    )
    return _make("Differences", ("pair", "sequences", "AUC", "95 % interval"), rows, note)


def _tabulate_attributes(report: Report) -> Table:
    rows = []
    for attribute, names in report.attributes.items():
        values = []
        for result in report.trackers:
            part = [result.score.sequences[n] for n in names if n in result.score.sequences]
            mean = average(part, drop_zeros=report.rule.zeros_dropped) if part else None
            values.append(main_score(mean) if mean else math.nan)
        rows.append((attribute.replace("_", " "), len(names), values))
    title = TITLES[main_key(report.rule)]
    note = f"{title}, percent, over the sequences that have the attribute in any frame."
    return _compare("Attributes", ("attribute", "sequences"), report, rows, note)


def _tabulate_sequences(report: Report) -> Table:
    names = dict.fromkeys(n for result in report.trackers for n in result.score.sequences)
    rows = []
    for name in names:
        parts = [result.score.sequences.get(name) for result in report.trackers]
        frames = next(part.counts.frames for part in parts if part is not None)
        rows.append((name, frames, [main_score(part) if part else math.nan for part in parts]))
    note = f"{TITLES[main_key(report.rule)]}, percent."
    return _compare("Sequences", ("sequence", "frames"), report, rows, note)


def _make(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str) -> Table:
    return Table(title, head, tuple(rows), note, (None,) * len(rows))


def _compare(
    title: str,
    head: tuple[str, str],
    report: Report,
    rows: Sequence[tuple[str, int, list[float]]],
    note: str,
) -> Table:
    """Make a table with a column for each tracker, after two others."""
    return Table(
        title,
        (*head, *(result.name for result in report.trackers)),
        tuple((name, str(count), *map(_format, values)) for name, count, values in rows),
        note,
        tuple(_find_best(values) for _, _, values in rows),
    )


def _find_best(values: list[float]) -> int | None:
    """Return the column of the one value that is larger than all others, after two columns."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2 or known.count(max(known)) > 1:
        return None
    return 2 + values.index(max(known))


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, without its heading."""
    lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
    return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines)


def _escape(cell: str) -> str:
    return _MARKUP.sub(r"\\\1", cell)


def _format(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
