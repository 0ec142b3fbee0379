"""A benchmark's report: a table, a page and plots."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from slt_gym.evaluation.benchmark.algorithms import STARTS, Algorithm
from slt_gym.evaluation.benchmark.settings import Benchmark
from slt_gym.evaluation.benchmark.summary import (
    Row,
    summarise,
    tabulate_rows,
    tabulate_settings,
    to_data,
)
from slt_gym.evaluation.files import replacing
from slt_gym.evaluation.report.page import draw_table, embed, make_page
from slt_gym.evaluation.report.tables import Table, to_markdown

_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
_LINES = {"scratch": "-", "base": "--"}
_LEVELS = ("-.", ":", (0, (1, 4)), (0, (5, 5)))


def write_report(
    benchmark: Benchmark,
    algorithms: Sequence[Algorithm],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
    command: str | None = None,
) -> list[Row]:
    """Write ``results.json``, ``table.md``, ``report.md``, ``report.html`` and ``plots/``.

    Args:
        benchmark: What the rows share.
        algorithms: The rows that were asked for.
        results: See :func:`summarise`.
        folder: The benchmark's.
        command: What made it, for the record.

    Returns:
        The rows, in the table's order.
    """
    rows = summarise(results)
    table = tabulate_rows(rows, benchmark)
    done = [row for row in algorithms if results.get(row.name)]
    settings = tabulate_settings(done, benchmark)
    figures = {"learning_curves": draw_curves(rows, benchmark), "auc": draw_scores(rows)}
    machine = next((part["machine"] for parts in results.values() for part in parts), None)
    data = {
        "command": command,
        "benchmark": benchmark.describe(),
        "machine": machine,
        "rows": to_data(rows),
    }
    made = f"Made by `{command}`." if command else ""
    files = {
        **{folder / "plots" / f"{name}.png": png for name, png in figures.items()},
        folder / "table.md": f"{to_markdown(table)}\n\n{table.note}\n".encode(),
        folder / "report.md": _to_markdown((table, settings), list(figures), made).encode(),
        folder / "report.html": _to_html((table, settings), figures, made).encode(),
        folder / "results.json": (json.dumps(data, indent=1) + "\n").encode(),
    }
    for path, content in files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return rows


def draw_curves(rows: Sequence[Row], benchmark: Benchmark) -> bytes:
    """Draw AUC on the learning curve's sequences against environment steps, as a PNG file.

    Lines are means over seeds, bands reach from the worst seed to the best; what does not learn is
    a level.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    learners = [row for row in rows if row.learns]
    for i, row in enumerate(learners):
        x, y = np.array(row.steps_axis), 100 * np.array(row.curves)
        (line,) = axes.plot(
            x,
            y.mean(axis=0),
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_LINES[row.start],
            marker="o",
            markersize=3,
            label=row.name,
        )
        if len(y) > 1:
            axes.fill_between(x, y.min(0), y.max(0), color=line.get_color(), alpha=0.15, lw=0)
    for i, row in enumerate(row for row in rows if not row.learns):
        level = 100 * float(np.mean(row.curves))
        axes.axhline(level, color="#444", lw=1, ls=_LEVELS[i % len(_LEVELS)], label=row.name)
    axes.set(
        xlabel="environment steps",
        ylabel=f"success AUC on {benchmark.val_sequences} {benchmark.val_split} sequences, %",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="mean; band: all seeds")
    return _to_png(figure)


def draw_scores(rows: Sequence[Row]) -> bytes:
    """Draw each row's AUC on the test sequences with its interval over seeds, as a PNG file."""
    figure = Figure(figsize=(6.4, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{row.name} ({STARTS[row.start]})" for row in rows]
    for i, row in enumerate(rows):
        colour = _COLOURS[list(STARTS).index(row.start)]
        if row.low is not None and row.high is not None:
            axes.plot([100 * row.low, 100 * row.high], [i, i], color=colour, lw=2, alpha=0.5)
        axes.plot(100 * row.auc, i, "o", color=colour)
    axes.set(xlabel="success AUC on test sequences, %; bar: 95 % over seeds", xlim=(0, 100))
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    return _to_png(figure)


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _to_markdown(tables: Sequence[Table], figures: Sequence[str], made: str) -> str:
    lines = ["# Benchmark", "", made]
    for number, table in enumerate(tables):
        lines += ["", f"## {table.title}", "", to_markdown(table), "", table.note]
        if number == 0:
            lines += ["", " ".join(f"![{name}](plots/{name}.png)" for name in figures)]
    return "\n".join(lines) + "\n"


def _to_html(tables: Sequence[Table], figures: Mapping[str, bytes], made: str) -> str:
    parts = []
    for number, table in enumerate(tables):
        parts.append(draw_table(table))
        if number == 0:
            images = "".join(embed(png, "image/png", name) for name, png in figures.items())
            parts.append(f'<div class="figures">{images}</div>')
    return make_page("Benchmark", made.replace("`", ""), parts)
