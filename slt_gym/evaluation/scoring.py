"""Scoring one sequence under a toolkit's rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.errors import AnnotationError, InvalidArgumentError, ResultsError
from slt_gym.evaluation.metrics import centre_errors, precision_curve, success_curve
from slt_gym.evaluation.rules import Array, Fault, Mask, Rule, Verdict, get_rule

_FAULTS: dict[Fault, Callable[[Array], Mask]] = {
    "NaN": lambda boxes: np.any(np.isnan(boxes), axis=1),
    "negative size": lambda boxes: np.any(boxes[:, 2:] < 0, axis=1),
    "zero size": lambda boxes: np.any(boxes[:, 2:] == 0, axis=1),
}
# In the place of an overlap that misses, and of a centre error that hits or misses, at all
# thresholds.
_NO_OVERLAP = -1.0
_ERRORS = {"hit": -1.0, "miss": np.inf}


@dataclass(frozen=True)
class Counts:
    """How many frames of what kind went into a score.

    Attributes:
        frames: With ground truth.
        counted: That scores are divided by.
        invalid: Whose ground truth is no valid box under the rule.
        absent: Flagged as absent (with the GOT-10k rule: with cover 0).
        repaired: Whose predicted row was replaced by the one before.
        missing: Without a predicted row.
        surplus: Predicted rows without ground truth, which were cut.
    """

    frames: int = 0
    counted: int = 0
    invalid: int = 0
    absent: int = 0
    repaired: int = 0
    missing: int = 0
    surplus: int = 0


@dataclass(frozen=True)
class Measured:
    """What a rule makes of one sequence, or of several.

    Attributes:
        rule: The rule.
        success: Curve, shares in 0…1, shape ``(K,)``.
        precision: Curve, shares.
        norm_precision: Curve, shares.
        overlap: Mean overlap of the judged frames; NaN without any.
        coverage: Share of the frames with a predicted box whose four numbers add up above 0.
        counts: How many frames of what kind.
    """

    rule: Rule
    success: Array
    precision: Array
    norm_precision: Array
    overlap: float
    coverage: float
    counts: Counts

    @property
    def scores(self) -> dict[str, Any]:
        """What the toolkit returns, by the rule's keys: floats, and curves of shape ``(K,)``."""
        return {key: _REPORTS[key](self) for key in self.rule.reports}

    @property
    def success_auc(self) -> float:
        """Mean of the success curve, under any rule."""
        return float(self.success.mean())

    def success_at(self, threshold: float) -> float:
        """Return the success at an overlap threshold, such as 0.5 (OP50) or 0.75 (OP75)."""
        return float(self.success[round(threshold * (len(self.success) - 1))])


def _percent_area(curve: Array) -> float:
    """Return the area under a curve over [0, 1] by the trapezoidal rule, percent."""
    return float(100 * (curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1))


_REPORTS: dict[str, Callable[[Measured], float | NDArray[np.float64]]] = {
    "success_curve": lambda m: m.success,
    "succ_curve_101": lambda m: m.success,
    "precision_curve": lambda m: m.precision,
    "norm_precision_curve": lambda m: m.norm_precision,
    "success_auc": lambda m: m.success_auc,
    "op50": lambda m: m.success_at(0.5),
    "op75": lambda m: m.success_at(0.75),
    "sr50": lambda m: m.success_at(0.5),
    "sr75": lambda m: m.success_at(0.75),
    "precision_20": lambda m: float(m.precision[20]),
    "norm_precision_020": lambda m: float(m.norm_precision[20]),
    "norm_precision_auc": lambda m: float(m.norm_precision.mean()),
    "avg_overlap": lambda m: m.overlap,
    "ao": lambda m: m.overlap,
    "coverage": lambda m: 100 * m.coverage,
    "success_trapz": lambda m: _percent_area(m.success),
    "precision_trapz": lambda m: _percent_area(m.precision),
    "norm_precision_trapz": lambda m: _percent_area(m.norm_precision),
}


def score(
    gt: ArrayLike,
    prediction: ArrayLike,
    rule: str,
    *,
    absent: ArrayLike | None = None,
    full_occlusion: ArrayLike | None = None,
    out_of_view: ArrayLike | None = None,
    cover: ArrayLike | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Score one sequence as a toolkit does.

    The rules and their differences are in the documentation's page on evaluation; ``"lasot"`` and
    ``"trackingnet"`` are the benchmarks' own, ``"got10k_val"`` is GOT-10k's.

    Args:
        gt: Ground truth, shape ``(T, 4)``, ``(x, y, w, h)``, pixels, NaN where there is none.
        prediction: Shape ``(P, 4)``, the first frame's box included.
        rule: A key of :data:`slt_gym.evaluation.rules.RULES`.
        absent: Shape ``(T,)``, not 0 where the target is absent.
        full_occlusion: Shape ``(T,)``; not 0 counts as absent too.
        out_of_view: Shape ``(T,)``; not 0 counts as absent too.
        cover: Shape ``(T,)``, visible eighths, 0 to 8, as in GOT-10k; None covers nothing.
        image_size: ``(width, height)``, pixels; boxes stay unclipped without it.

    Returns:
        The toolkit's scores and curves by name. Scores and curves are in 0…1, those of
        ``"trackingnet"`` in percent.

    Raises:
        ResultsError: The toolkit refuses such a prediction: too short or too long, or with rows
            that it accepts not.
        AnnotationError: The toolkit refuses such a ground truth.
        InvalidArgumentError: The rule is unknown, or an array has another shape.
    """
    boxes = check_boxes(gt, "ground truth")
    flags = [absent, full_occlusion, out_of_view]
    names = ["absent", "full_occlusion", "out_of_view"]
    given = [
        check_flags(flag, name, len(boxes))
        for flag, name in zip(flags, names, strict=True)
        if flag is not None
    ]
    return measure(
        get_rule(rule),
        boxes,
        check_boxes(prediction, "prediction"),
        absent=np.logical_or.reduce(given) if given else None,
        uncovered=None if cover is None else ~check_flags(cover, "cover", len(boxes)),
        image_size=image_size,
    ).scores


def check_boxes(boxes: ArrayLike, name: str) -> Array:
    """Return boxes as float64 of shape ``(T, 4)``, T at least 1.

    Raises:
        InvalidArgumentError: They are of another shape.
    """
    array = np.asarray(boxes, np.float64)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise InvalidArgumentError(
            f"the {name} has shape {array.shape}: needed is (T, 4), one row x, y, w, h per frame"
        )
    return array


def check_flags(flags: ArrayLike, name: str, frames: int) -> Mask:
    """Return which flags are not 0, shape ``(T,)``.

    Raises:
        InvalidArgumentError: There are more or fewer than frames.
    """
    array = np.asarray(flags) != 0
    if array.shape != (frames,):
        raise InvalidArgumentError(
            f"{name} has shape {array.shape}: needed is one flag for each of {frames} frames"
        )
    return array


def measure(
    rule: Rule,
    gt: Array,
    prediction: Array,
    *,
    absent: Mask | None = None,
    uncovered: Mask | None = None,
    image_size: tuple[int, int] | None = None,
) -> Measured:
    """Apply a rule to one sequence.

    Args:
        rule: The rule.
        gt: Shape ``(T, 4)``.
        prediction: Shape ``(P, 4)``.
        absent: Shape ``(T,)``; None: nowhere.
        uncovered: Shape ``(T,)``, frames with cover 0; None: none.
        image_size: ``(width, height)``, pixels.

    Raises:
        ResultsError: The rule refuses the prediction.
        AnnotationError: The rule refuses the ground truth.
    """
    total = len(gt)
    missing, surplus = max(total - len(prediction), 0), max(len(prediction) - total, 0)
    never = np.zeros(total, bool)
    absent, uncovered = (never if flags is None else flags for flags in (absent, uncovered))
    flagged = np.count_nonzero(uncovered if rule.uncovered_dropped else absent)
    prediction, repaired = _repair(rule, prediction)
    _check_truth(rule, gt)
    gt, prediction = _fit_lengths(rule, gt, prediction)
    absent, uncovered = absent[: len(gt)], uncovered[: len(gt)]
    coverage = float(np.count_nonzero(prediction.sum(axis=1) > 0) / total)
    if rule.first_frame == "ground truth":
        prediction = np.concatenate([gt[:1], prediction[1:]])

    kept = np.ones(len(gt), bool)
    if rule.first_frame == "dropped":
        kept[0] = False
    if rule.uncovered_dropped:
        kept &= ~uncovered
    if rule.nan_truth == "dropped":
        kept &= ~_FAULTS["NaN"](gt)
    valid = rule.valid(gt)
    invalid = len(gt) - np.count_nonzero(valid)
    if not kept.all():
        gt, prediction, absent, valid = gt[kept], prediction[kept], absent[kept], valid[kept]

    misses = absent if rule.absent_misses else np.zeros(len(gt), bool)
    overlaps, errors, norm_errors = _compare(rule, gt, prediction, image_size)
    located = valid if rule.located is None else rule.located(gt)
    judged = ~misses if rule.invalid[0] == "as others" else valid & ~misses
    _settle(errors, ~located, rule.invalid[1])
    _settle(norm_errors, ~located, rule.invalid[2])
    _settle(errors, misses, "miss")
    _settle(norm_errors, misses, "miss")
    counted = int(np.count_nonzero(valid & ~misses)) if rule.divide_by_valid else len(gt)
    return Measured(
        rule,
        success_curve(
            np.where(judged, overlaps, _NO_OVERLAP),
            rule.thresholds.success,
            frames=counted,
            at_least=rule.success_at_least,
        ),
        precision_curve(errors, rule.thresholds.precision, frames=counted),
        precision_curve(norm_errors, rule.thresholds.norm_precision, frames=counted),
        overlap=float(overlaps[judged].mean()) if judged.any() else float("nan"),
        coverage=coverage,
        counts=Counts(
            frames=total,
            counted=counted,
            invalid=int(invalid),
            absent=int(flagged),
            repaired=repaired,
            missing=missing,
            surplus=surplus,
        ),
    )


def _repair(rule: Rule, prediction: Array) -> tuple[Array, int]:
    """Refuse or replace faulty rows; return the prediction and how many rows were replaced."""
    for fault in rule.refused:
        rows = np.flatnonzero(_FAULTS[fault](prediction))
        if len(rows):
            raise ResultsError(
                f"row {rows[0] + 1} of the prediction is {_show(prediction[rows[0]])} "
                f"({fault}; {len(rows)} such rows), which {_describe(rule)} refuses"
            )
    faulty = np.zeros(len(prediction), bool)
    for fault in rule.repaired:
        faulty |= _FAULTS[fault](prediction)
    faulty[0] = False  # There is no row before.
    if not faulty.any():
        return prediction, 0
    rows = np.arange(len(prediction))
    rows[faulty] = 0
    return prediction[np.maximum.accumulate(rows)], int(np.count_nonzero(faulty))


def _check_truth(rule: Rule, gt: Array) -> None:
    rows = np.flatnonzero(_FAULTS["NaN"](gt))
    if rule.nan_truth == "error" and len(rows):
        raise AnnotationError(
            f"row {rows[0] + 1} of the ground truth is {_show(gt[rows[0]])} ({len(rows)} such "
            f"rows): {_describe(rule)} accepts no NaN"
        )


def _fit_lengths(rule: Rule, gt: Array, prediction: Array) -> tuple[Array, Array]:
    missing = len(gt) - len(prediction)
    if (missing > 0 and rule.short == "error") or (missing < 0 and rule.long == "error"):
        needed = "at least as many" if rule.long == "cut" else "as many"
        raise ResultsError(
            f"the prediction has {len(prediction)} rows for {len(gt)} frames: {_describe(rule)} "
            f"needs {needed}"
        )
    if missing > 0 and rule.short == "cut":
        return gt[: len(prediction)], prediction
    if missing > 0:
        rows = np.full((missing, 4), 0.0 if rule.short == "zeros" else np.nan)
        return gt, np.concatenate([prediction, rows])
    return gt, prediction[: len(gt)]


def _compare(
    rule: Rule, gt: Array, prediction: Array, image_size: tuple[int, int] | None
) -> tuple[Array, Array, Array]:
    """Return overlaps, centre errors and normalised centre errors, each of shape ``(T,)``."""
    if rule.rounded:
        gt, prediction = gt.round(), prediction.round()
    if rule.clipped and image_size is not None:
        gt, prediction = _clip(gt, image_size), _clip(prediction, image_size)
    unknown = np.isnan(gt + prediction).any(axis=1)
    overlaps = np.where(unknown, np.nan, rule.overlap(gt, prediction))
    size = gt[:, 2:]
    if rule.norm_least_size is not None:
        size = np.maximum(size, rule.norm_least_size)
    return overlaps, centre_errors(gt, prediction), centre_errors(gt, prediction, size)


def _clip(boxes: Array, image_size: tuple[int, int]) -> Array:
    """Clip as the GOT-10k toolkit does: a corner that moves in leaves the size as it is."""
    corner = np.clip(boxes[:, :2], 0, image_size)
    return np.concatenate([corner, np.clip(boxes[:, 2:], 0, image_size - corner)], axis=1)


def _settle(errors: Array, frames: Mask, verdict: Verdict) -> None:
    """Make the errors of some frames hit or miss at every threshold."""
    if verdict != "as others":
        errors[frames] = _ERRORS[verdict]


def _describe(rule: Rule) -> str:
    return f"rule {rule.name!r} ({rule.title})"


def _show(box: Array) -> str:
    return ", ".join(f"{value:g}" for value in box)
