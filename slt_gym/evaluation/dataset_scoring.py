"""Scoring a tracker's results on a whole dataset under a toolkit's rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import Sequence as TrackedSequence
from slt_gym.errors import AnnotationError, ResultsError, SltGymError
from slt_gym.evaluation.metrics import weighted_mean
from slt_gym.evaluation.names import match_names
from slt_gym.evaluation.rules import Rule, get_rule
from slt_gym.evaluation.scoring import Counts, Measured, check_boxes, measure

# The readers' attributes that flag absence, where a dataset has flags.
_ABSENCE = ("absent", "absence", "full_occlusion", "out_of_view")
_LISTED = 5

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class GroundTruth:
    """What a rule needs of a sequence.

    Attributes:
        boxes: Float64, shape ``(T, 4)``, ``(x, y, w, h)``, pixels.
        absent: Shape ``(T,)``, or None.
        uncovered: Shape ``(T,)``, frames with cover 0, or None.
        image_size: ``(width, height)``, pixels, or None.
        omitted: Frames at the start that some toolkits leave out (five of OTB's Tiger1); results
            that are shorter by these begin after them.
    """

    boxes: Boxes
    absent: NDArray[np.bool_] | None = None
    uncovered: NDArray[np.bool_] | None = None
    image_size: tuple[int, int] | None = None
    omitted: int = 0


@dataclass(frozen=True)
class DatasetScore:
    """A tracker's score on a dataset under one rule.

    Attributes:
        rule: The rule.
        sequences: What each sequence gives, in the dataset's order; with several repetitions their
            average.
        overall: The rule's average over the sequences, with the sums of the counts.
        missing: Sequences without a result, which were left out.
        unknown: Results of no sequence, which were passed over.
    """

    rule: Rule
    sequences: dict[str, Measured]
    overall: Measured
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def scores(self) -> dict[str, Any]:
        """The toolkit's scores and curves of the dataset, as :func:`slt_gym.evaluation.score`."""
        return self.overall.scores


def score_dataset(
    truths: Mapping[str, GroundTruth],
    results: Mapping[str, Boxes | Sequence[Boxes]],
    rule: str,
    *,
    allow_missing: bool = False,
) -> DatasetScore:
    """Score results on all sequences of a dataset and average as the rule's toolkit does.

    Args:
        truths: By sequence; of a dataset: :func:`read_truths`.
        results: Boxes ``(T, 4)`` by sequence, or a list of repetitions' boxes; names may be any
            toolkit's, see :func:`slt_gym.evaluation.names.match_names`.
        rule: A key of :data:`slt_gym.evaluation.rules.RULES`; by dataset and protocol:
            :func:`slt_gym.evaluation.protocols.find_rule`.
        allow_missing: Average over the sequences that have a result.

    Returns:
        Scores, curves and counts of each sequence and of all.

    Raises:
        ResultsError: A sequence has no result, or several that could be its own; or the rule
            refuses one.
        AnnotationError: The rule refuses a ground truth.
        InvalidArgumentError: The rule is unknown, or boxes are of another shape.
    """
    row = get_rule(rule)
    names = match_names(results, truths)
    for name, candidates in names.ambiguous.items():
        raise ResultsError(
            f"sequence {name!r} could have any of the results {_list(candidates)}: rename the one "
            "that belongs to it"
        )
    if names.missing and (not allow_missing or not names.results):
        raise ResultsError(
            f"{len(names.missing)} of {len(truths)} sequences have no result: "
            f"{_list(names.missing)}"
        )
    measured = {}
    for name, result in names.results.items():
        given = results[result]
        runs = [given] if isinstance(given, np.ndarray) else given
        try:
            measured[name] = average([_measure(row, truths[name], run) for run in runs])
        except SltGymError as error:
            raise type(error)(f"sequence {name!r}: {error}") from None
    overall = average(list(measured.values()), drop_zeros=row.zeros_dropped)
    return DatasetScore(row, measured, overall, names.missing, names.unknown)


def read_truths(sequences: Iterable[TrackedSequence], rule: str) -> dict[str, GroundTruth]:
    """Collect from a dataset's sequences what a rule needs.

    Absent are the frames that the dataset flags so; where it has no flags, those in which the
    target is not visible.

    Args:
        sequences: A dataset, or some of its sequences.
        rule: The rule; for GOT-10k's the first frame of each sequence is read, for its size.

    Raises:
        AnnotationError: Only the first box of a sequence is published.
        FrameError: A frame cannot be read.
    """
    clipped = get_rule(rule).clipped
    return {sequence.name: _read_truth(sequence, clipped) for sequence in sequences}


def _read_truth(sequence: TrackedSequence, clipped: bool) -> GroundTruth:
    if len(sequence) > 1 and np.isnan(sequence.boxes[1:]).all():
        raise AnnotationError(
            f"sequence {sequence.name!r} has a ground truth for its first frame only: the "
            "benchmark's server scores it"
        )
    flags = [sequence.attributes[key] for key in _ABSENCE if key in sequence.attributes]
    cover = sequence.attributes.get("cover")
    height, width = sequence.read(0).shape[:2] if clipped else (0, 0)
    return GroundTruth(
        sequence.boxes,
        np.any(flags, axis=0) if flags else ~sequence.visible,
        None if cover is None else cover == 0,
        (width, height) if clipped else None,
        int(sequence.attributes.get("init_omit", 0)),
    )


def _measure(rule: Rule, truth: GroundTruth, boxes: Boxes) -> Measured:
    boxes = check_boxes(boxes, "prediction")
    start = truth.omitted if len(boxes) == len(truth.boxes) - truth.omitted else 0
    return measure(
        rule,
        truth.boxes[start:],
        boxes,
        absent=None if truth.absent is None else truth.absent[start:],
        uncovered=None if truth.uncovered is None else truth.uncovered[start:],
        image_size=truth.image_size,
    )


def average(measured: Sequence[Measured], *, drop_zeros: bool = False) -> Measured:
    """Average over repetitions, or over sequences, as their rule does.

    Args:
        measured: Of one rule, at least one.
        drop_zeros: Leave out of a curve's average those that are zero everywhere.
    """
    rule = measured[0].rule
    ones = np.ones(len(measured))
    counted = np.array([m.counts.counted for m in measured])
    frames = np.array([m.counts.frames for m in measured])
    weights = counted if rule.pooled else ones

    def mean_curve(kind: Literal["success", "precision", "norm_precision"]) -> Boxes:
        curves = np.array([getattr(m, kind) for m in measured])
        return weighted_mean(curves, weights * curves.any(axis=1) if drop_zeros else weights)

    overlaps, coverage = (
        np.array([getattr(m, field) for m in measured]) for field in ("overlap", "coverage")
    )
    totals = [asdict(m.counts) for m in measured]
    return Measured(
        rule,
        mean_curve("success"),
        mean_curve("precision"),
        mean_curve("norm_precision"),
        overlap=float(weighted_mean(overlaps, weights)),
        coverage=float(weighted_mean(coverage, frames)),  # As the development kit does.
        counts=Counts(**{key: sum(total[key] for total in totals) for key in totals[0]}),
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join([*map(repr, names[:_LISTED]), *(["…"] if len(names) > _LISTED else [])])
