"""Scoring trackers on one dataset side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import Sequence as TrackedSequence
from slt_gym.data import SequenceDataset
from slt_gym.errors import InvalidArgumentError, SltGymError, unknown
from slt_gym.evaluation.dataset_scoring import (
    DatasetScore,
    GroundTruth,
    read_truths,
    score_dataset,
)
from slt_gym.evaluation.metrics import paired_interval
from slt_gym.evaluation.names import match_names
from slt_gym.evaluation.protocols import DEFAULT_PROTOCOL, find_rule
from slt_gym.evaluation.report.scores import main_score
from slt_gym.evaluation.results import load_repetitions, load_times, mean_speed
from slt_gym.evaluation.rules import Rule, get_rule

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class TrackerResult:
    """What one tracker scored.

    Attributes:
        name: The tracker's name.
        score: Its score, sequence by sequence and overall.
        boxes: By sequence, the first repetition's: float64 ``(T, 4)``, ``(x, y, w, h)``, frame
            pixels; NaN in frames that it leaves out.
        fps: Frames per second, NaN where no times lie with the results.
    """

    name: str
    score: DatasetScore
    boxes: dict[str, Boxes]
    fps: float


@dataclass(frozen=True)
class Report:
    """Trackers on one dataset under one rule.

    Attributes:
        dataset: The dataset's name.
        split: Its split.
        protocol: Whose rule it is; None where the rule itself was asked for.
        rule: The rule.
        trackers: The best one first.
        attributes: The sequences that have each attribute, where the dataset names any.
    """

    dataset: str
    split: str
    protocol: str | None
    rule: Rule
    trackers: tuple[TrackerResult, ...]
    attributes: dict[str, tuple[str, ...]]

    def __getitem__(self, tracker: str) -> TrackerResult:
        """Return the result of a tracker.

        Raises:
            InvalidArgumentError: The report has no such tracker.
        """
        results = {result.name: result for result in self.trackers}
        if tracker not in results:
            raise unknown("tracker of this report", tracker, results)
        return results[tracker]

    def shared_sequences(self, tracker: str, other: str) -> list[str]:
        """Return the sequences that both trackers have results for."""
        theirs = self[other].score.sequences
        return [name for name in self[tracker].score.sequences if name in theirs]

    def difference(self, tracker: str, other: str) -> tuple[float, float, float]:
        """Estimate how much a tracker's success AUC exceeds another's.

        Returns:
            The mean over the sequences that both have and its 95 % bootstrap interval, in 0…1.

        Raises:
            InvalidArgumentError: They share no sequence, or one of them is not in the report.
        """
        names = self.shared_sequences(tracker, other)
        if not names:
            raise InvalidArgumentError(f"{tracker!r} and {other!r} have no sequence in common")
        a, b = self[tracker].score.sequences, self[other].score.sequences
        return paired_interval(
            [a[name].success_auc for name in names], [b[name].success_auc for name in names]
        )

    def rank_by_difference(self, tracker: str, other: str) -> list[str]:
        """Return the sequences that both have, those first where their success differs most."""
        a, b = self[tracker].score.sequences, self[other].score.sequences
        return sorted(
            self.shared_sequences(tracker, other),
            key=lambda name: -abs(a[name].success_auc - b[name].success_auc),
        )


def build_report(
    results: Mapping[str, str | Path],
    dataset: SequenceDataset,
    protocol: str = DEFAULT_PROTOCOL,
    *,
    rule: str | None = None,
    sequences: Iterable[str] | None = None,
    allow_missing: bool = False,
) -> Report:
    """Score trackers' result files on a dataset.

    Args:
        results: Each tracker's folder (or zip) of result files, of any toolkit, by its name.
        dataset: The dataset.
        protocol: Whose rule to score by, see :func:`slt_gym.evaluation.protocols.find_rule`.
        rule: A key of :data:`slt_gym.evaluation.rules.RULES` instead.
        sequences: Names of those to score; None for all.
        allow_missing: Score the sequences that a tracker has results for.

    Raises:
        InvalidArgumentError: No results are given, or the protocol or a sequence is unknown.
        ResultsError: Results are missing, garbled, or refused by the rule.
        AnnotationError: The ground truth is not public, or the rule refuses it.
    """
    if not results:
        raise InvalidArgumentError("there is nothing to report: give the results of a tracker")
    chosen = get_rule(rule or find_rule(dataset.name, protocol))
    scored = [dataset.get(name) for name in sequences or dataset.names]
    runs = {path: load_repetitions(path) for path in results.values()}
    truths = read_truths(scored, chosen.name)
    trackers = [
        _score(name, path, runs[path], truths, chosen, allow_missing)
        for name, path in results.items()
    ]
    return Report(
        dataset.name,
        dataset.split,
        None if rule else protocol,
        chosen,
        tuple(sorted(trackers, key=_rank)),
        _group_by_attribute(scored),
    )


def _score(
    name: str,
    path: str | Path,
    runs: Mapping[str, list[Boxes]],
    truths: Mapping[str, GroundTruth],
    rule: Rule,
    allow_missing: bool,
) -> TrackerResult:
    try:
        score = score_dataset(truths, runs, rule.name, allow_missing=allow_missing)
    except SltGymError as error:
        raise type(error)(f"{path}: {error}") from None
    boxes = {
        sequence: _align(runs[result][0], truths[sequence])
        for sequence, result in match_names(runs, truths).results.items()
    }
    # The first frame's time is that of the tracker's start.
    speed = mean_speed({key: times[1:] for key, times in load_times(path).items()})
    return TrackerResult(name, score, boxes, speed)


def _align(boxes: Boxes, truth: GroundTruth) -> Boxes:
    """Give each of a sequence's frames a row."""
    frames = len(truth.boxes)
    start = truth.omitted if len(boxes) == frames - truth.omitted else 0
    rows = np.full((frames, 4), np.nan)
    rows[start : start + len(boxes)] = boxes[: frames - start]
    return rows


def _rank(result: TrackerResult) -> float:
    value = main_score(result.score.overall)
    return math.inf if math.isnan(value) else -value


def _group_by_attribute(sequences: Sequence[TrackedSequence]) -> dict[str, tuple[str, ...]]:
    """Return the sequences of each attribute: flags of a sequence, or of any of its frames."""
    groups: dict[str, list[str]] = {}
    for sequence in sequences:
        for name in _list_attributes(sequence):
            groups.setdefault(name, []).append(sequence.name)
    return {name: tuple(groups[name]) for name in sorted(groups)}


def _list_attributes(sequence: TrackedSequence) -> list[str]:
    values = {key: np.asarray(value) for key, value in sequence.attributes.items()}
    flags = [key for key, value in values.items() if value.dtype == bool and value.any()]
    return [*flags, *values.get("tags", np.array([], str)).tolist()]  # UAV123 names its own.
