"""Plots in the look that tracking papers use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from slt_gym.envs.rewards import SUCCESS_THRESHOLDS
from slt_gym.evaluation.files import replacing


def plot_success(curves: Mapping[str, ArrayLike], path: str | Path, title: str = "") -> None:
    """Draw success plots: the share of frames whose overlap exceeds each threshold.

    Args:
        curves: By legend, 21 shares each (see :func:`slt_gym.evaluation.metrics.success_curve`).
        path: Of the PNG.
        title: Over the plot.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    order = sorted(curves, key=lambda name: -np.mean(np.asarray(curves[name])))
    for name in order:
        curve = np.asarray(curves[name])
        axes.plot(SUCCESS_THRESHOLDS, curve, label=f"[{100 * curve.mean():.1f}] {name}")
    axes.set(
        xlabel="overlap threshold", ylabel="success rate", title=title, xlim=(0, 1), ylim=(0, 1)
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", title="[AUC %]")
    _save(figure, path)


def plot_learning_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str | Path, smooth: int = 10
) -> None:
    """Draw the success AUC on training clips against environment steps.

    Args:
        curves: By legend, environment steps and AUCs in 0…1, one value for each update.
        path: Of the PNG.
        smooth: Updates that the thick line averages over.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, (steps, values) in curves.items():
        x, y = np.asarray(steps, float), 100 * np.asarray(values, float)
        window = min(smooth, len(y))
        if not window:
            continue
        (line,) = axes.plot(x, y, alpha=0.25, linewidth=0.8)
        mean = np.convolve(y, np.full(window, 1 / window), mode="valid")
        axes.plot(x[window - 1 :], mean, color=line.get_color(), label=name)
    axes.set(xlabel="environment steps", ylabel="success AUC on training clips, %")
    axes.grid(alpha=0.3)
    axes.legend(title=f"mean of {smooth} updates")
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
