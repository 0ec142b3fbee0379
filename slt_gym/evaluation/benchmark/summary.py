"""Means and intervals of a benchmark's rows, and its tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.evaluation.benchmark.algorithms import STARTS, Algorithm
from slt_gym.evaluation.benchmark.settings import Benchmark
from slt_gym.evaluation.metrics import paired_interval
from slt_gym.evaluation.report.tables import Table

# The row that others are compared with.
REFERENCE = "static"
# 97.5 % quantiles of Student's t distribution with 1, 2, … 30 degrees of freedom.
_T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL_QUANTILE = 1.960


@dataclass(frozen=True)
class Row:
    """One algorithm's results.

    Attributes:
        name: The row's name.
        start: See :class:`Algorithm`.
        learns: Whether it takes steps.
        seeds: Of the runs, in order.
        auc: The mean over the seeds of the test sequences' mean success AUC, 0…1.
        low: Lower end of the 95 % interval of that mean over seeds, Student's t; None for one
            seed.
        high: Its upper end.
        gain: Mean over sequences of the difference to the static box, runs averaged; None without
            that row.
        gain_low: Lower end of its 95 % bootstrap interval over sequences.
        gain_high: Its upper end.
        steps: Environment steps of a run, the mean over seeds.
        seconds: Wall time of the training, without the tests, the mean over seeds.
        cpu_seconds: The process's CPU time of the training.
        memory_mib: The largest resident memory of a run's process, tests included.
        parameters: Numbers that learn.
        steps_axis: Points of the learning curve, environment steps, shape ``(P,)``.
        curves: AUC on the learning curve's sequences by seed, shape ``(seeds, P)``.
    """

    name: str
    start: str
    learns: bool
    seeds: tuple[int, ...]
    auc: float
    low: float | None
    high: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    steps: float
    seconds: float
    cpu_seconds: float
    memory_mib: float
    parameters: int
    steps_axis: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]


def seed_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by Student's t; None for fewer than two values.

    Args:
        values: One number for each seed, shape ``(S,)``.
    """
    sample = np.asarray(values, np.float64)
    if sample.size < 2:
        return None
    degrees = sample.size - 1
    quantile = _T_QUANTILES[degrees - 1] if degrees <= len(_T_QUANTILES) else _NORMAL_QUANTILE
    half = float(quantile * sample.std(ddof=1) / math.sqrt(sample.size))
    return float(sample.mean()) - half, float(sample.mean()) + half


def summarise(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Summarise the jobs' results, by row; the best row of each start first.

    Args:
        results: What the jobs' ``results.json`` hold, by the row's name, in the order of seeds;
            rows without a result are left out.
    """
    runs = {name: parts for name, parts in results.items() if parts}
    static = _by_sequence(runs[REFERENCE]) if REFERENCE in runs else None
    rows = [_summarise(name, parts, static) for name, parts in runs.items()]
    order = list(STARTS)
    return sorted(rows, key=lambda row: (order.index(row.start), -row.auc))


def _summarise(
    name: str, parts: Sequence[Mapping[str, Any]], static: NDArray[np.float64] | None
) -> Row:
    aucs = [part["auc"] for part in parts]
    low, high = seed_interval(aucs) or (None, None)
    gain: tuple[float | None, ...] = (None, None, None)
    if static is not None and name != REFERENCE:
        gain = paired_interval(_by_sequence(parts), static)

    def mean(key: str) -> float:
        return float(np.mean([part[key] for part in parts]))

    return Row(
        name=name,
        start=parts[0]["algorithm"]["start"],
        learns=parts[0]["algorithm"]["kind"] == "learner",
        seeds=tuple(part["seed"] for part in parts),
        auc=float(np.mean(aucs)),
        low=low,
        high=high,
        gain=gain[0],
        gain_low=gain[1],
        gain_high=gain[2],
        steps=mean("steps"),
        seconds=mean("seconds"),
        cpu_seconds=mean("cpu_seconds"),
        memory_mib=max(part["peak_memory_mib"] for part in parts),
        parameters=parts[0]["parameters"],
        steps_axis=tuple(np.mean([[x for x, _ in part["curve"]] for part in parts], axis=0)),
        curves=tuple(tuple(y for _, y in part["curve"]) for part in parts),
    )


def _by_sequence(parts: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return each sequence's AUC, the mean over runs, shape ``(N,)``."""
    return np.mean([list(part["sequences"].values()) for part in parts], axis=0)


def to_data(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the rows by name as JSON values."""
    return {row.name: asdict(row) for row in rows}


def tabulate_rows(rows: Sequence[Row], benchmark: Benchmark) -> Table:
    """Make the table of results."""
    head = (
        *("algorithm", "starts from", "AUC %", "95 % over seeds", "above the static box"),
        *("env steps", "minutes", "CPU minutes", "memory, MiB", "seeds"),
    )
    cells = []
    for row in rows:
        spread = "-" if row.low is None else _range(row.low, row.high)
        gain = "-"
        if row.gain is not None:
            gain = f"{100 * row.gain:+.1f} ({_range(row.gain_low, row.gain_high, '+')})"
        cost = ("-", "-", "-")
        if row.learns:
            cost = (
                f"{row.steps:,.0f}",
                f"{row.seconds / 60:.1f}",
                f"{row.cpu_seconds / 60:.1f}",
            )
        cells.append(
            (
                *(row.name, STARTS[row.start], f"{100 * row.auc:.1f}", spread, gain),
                *(*cost, f"{row.memory_mib:.0f}", str(len(row.seeds))),
            )
        )
    sequences = f"{benchmark.test_sequences} sequences of the split {benchmark.test_split!r}"
    note = (
        f"Success AUC of the deterministic policy on whole {sequences} of {benchmark.env_id}, the "
        "mean over seeds with its 95 % interval by Student's t. Above the static box: the paired "
        "difference and its 95 % bootstrap interval over the sequences, runs averaged. Minutes: "
        "training alone, wall time beside the other jobs, and the process's CPU time. Memory: the "
        "largest resident set of a run's process, PyTorch included."
    )
    return _make("Results", head, cells, note)


def tabulate_settings(algorithms: Sequence[Algorithm], benchmark: Benchmark) -> Table:
    """Make the table of how each row was trained."""
    cells = []
    for row in algorithms:
        if row.learns:
            extractor = " with TrackerFeaturesExtractor" if row.features else ""
            policy = row.policy.rpartition(":")[2] + extractor
            reward = row.reward if isinstance(row.reward, str) else json.dumps(row.reward)
            scaled = ", scaled" if row.normalise_reward else ""
            kwargs = {**row.kwargs, **{f"policy {k}": v for k, v in row.policy_kwargs.items()}}
            settings = ", ".join(f"{key}={value}" for key, value in kwargs.items())
            tracks = str(row.n_envs) if "n_clips" not in row.kwargs else "-"
            cells.append(
                (row.name, row.title, row.action, f"{reward}{scaled}", policy, tracks, settings)
            )
        else:
            what = f"tracker {row.title}" if row.kind == "tracker" else "uniform actions"
            action = row.action if row.kind == "random" else "-"
            settings = ", ".join(f"{key}={value}" for key, value in row.kwargs.items())
            cells.append((row.name, what, action, "-", "-", "-", settings or "-"))
    note = (
        f"Training clips of {benchmark.env_id} with {json.dumps(benchmark.env_kwargs)} and "
        f"{json.dumps(benchmark.train_kwargs)}; {benchmark.steps:,} environment steps. Scaled "
        "rewards are divided by the running deviation of the return. Settings that are not named "
        "are the classes' defaults."
    )
    head = ("algorithm", "class", "action", "reward", "policy", "tracks", "settings")
    return _make("Settings", head, cells, note)


def _make(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str) -> Table:
    return Table(title, head, tuple(rows), note, (None,) * len(rows))


def _range(low: float | None, high: float | None, sign: str = "") -> str:
    assert low is not None
    assert high is not None
    return f"{100 * low:{sign}.1f} … {100 * high:{sign}.1f}"
