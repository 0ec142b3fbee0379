"""A report's plots, in the look that tracking papers use."""

from __future__ import annotations

import io
from typing import NamedTuple

from matplotlib.figure import Figure

from slt_gym.evaluation.report.build import Report
from slt_gym.evaluation.report.scores import TITLES, percent_scores

# Papers draw the best tracker in red, and tell the others apart in grey prints too.
_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
_STYLES = ("-", "--", "-.", ":")


class _Plot(NamedTuple):
    """A curve, its axes, and the scores that its legend may show: the one that the rule has."""

    curve: str
    xlabel: str
    ylabel: str
    keys: tuple[str, ...]


_PLOTS = (
    _Plot("success", "overlap threshold", "success rate", ("success_auc", "ao", "success_trapz")),
    _Plot("precision", "centre error, pixels", "precision", ("precision_20", "precision_trapz")),
    _Plot(
        "norm_precision",
        "centre error, target sizes",
        "normalised precision",
        ("norm_precision_020", "norm_precision_auc", "norm_precision_trapz"),
    ),
)


def draw_figures(report: Report) -> dict[str, bytes]:
    """Draw the curves that the rule scores as PNG files, by name.

    A tracker has one colour in all of them, and one place in the legends: the report's order.
    """
    return {
        plot.curve: _draw(report, plot, key)
        for plot in _PLOTS
        for key in plot.keys
        if key in report.rule.reports
    }


def _draw(report: Report, plot: _Plot, key: str) -> bytes:
    thresholds = getattr(report.rule.thresholds, plot.curve)
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, result in enumerate(report.trackers):
        name = result.name.replace("$", r"\$")  # Else what stands between two is a formula.
        axes.plot(
            thresholds,
            getattr(result.score.overall, plot.curve),
            label=f"[{percent_scores(result.score.overall)[key]:.1f}] {name}",
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_STYLES[i // len(_COLOURS) % len(_STYLES)],
            linewidth=1.8,
        )
    axes.set(
        xlabel=plot.xlabel,
        ylabel=plot.ylabel,
        title=f"{report.dataset} {report.split}",
        xlim=(thresholds[0], thresholds[-1]),
        ylim=(0, 1),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small", title=f"{TITLES[key]}, %", title_fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
