"""How each toolkit scores a sequence: the differences between them, as data.

A rule is a row of :data:`RULES`; :mod:`slt_gym.evaluation.scoring` applies it. The names of the
rules and of what they report are those by which the toolkits' results are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.envs.rewards import SUCCESS_THRESHOLDS
from slt_gym.errors import unknown
from slt_gym.evaluation.metrics import (
    NORM_PRECISION_THRESHOLDS,
    PRECISION_THRESHOLDS,
    inclusive_iou,
)
from slt_gym.geometry import iou

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Verdict = Literal["as others", "hit", "miss"]
Fault = Literal["NaN", "negative size", "zero size"]


def positive_size(boxes: Array) -> Mask:
    """Tell which boxes have a positive width and height; NaN is not positive."""
    return np.all(boxes[:, 2:] > 0, axis=1)


def positive_box(boxes: Array) -> Mask:
    """Tell which boxes are positive in all four numbers."""
    return np.all(boxes > 0, axis=1)


def positive_centre(boxes: Array) -> Mask:
    """Tell which boxes have a centre that is positive in x and y."""
    return np.all(boxes[:, :2] + (boxes[:, 2:] - 1) / 2 > 0, axis=1)


class Thresholds(NamedTuple):
    """Where the curves are sampled: overlaps, pixels, and fractions of the target's size."""

    success: NDArray[np.floating[Any]] = SUCCESS_THRESHOLDS
    precision: Array = PRECISION_THRESHOLDS
    norm_precision: Array = NORM_PRECISION_THRESHOLDS


_USUAL_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Rule:
    """One toolkit's way to score a sequence and to average over sequences.

    Attributes:
        name: Its key in :data:`RULES`.
        title: What it is, for people.
        reports: The keys of what it returns, in order.
        overlap: Of ground truth and prediction, two arrays ``(T, 4)``.
        rounded: Boxes are rounded to whole pixels first.
        clipped: Boxes are clipped to the image first.
        first_frame: Counted as ``"predicted"``, with the ``"ground truth"`` in the prediction's
            place, or ``"dropped"``.
        refused: Faults of a predicted row that are errors.
        repaired: Faults of a predicted row that put the row before in its place.
        short: A prediction with too few rows is an ``"error"``, is padded with ``"zeros"`` or
            ``"NaN"``, or the ground truth is ``"cut"``.
        long: One with too many rows is an ``"error"`` or ``"cut"``.
        nan_truth: Rows of NaN in the ground truth are ``"kept"``, ``"dropped"`` from all sums and
            the divisor, or an ``"error"``.
        valid: Which ground-truth boxes are valid.
        located: Which of them precision judges, where that differs from ``valid``.
        invalid: What an invalid frame is to success, precision and normalised precision.
        absent_misses: Frames flagged as absent miss everywhere; else the flags are not looked at.
        uncovered_dropped: Frames with cover 0 are dropped from the sums and from the divisor.
        divide_by_valid: The divisor is the number of valid frames, invalid ones still hitting.
        thresholds: Of the curves.
        success_at_least: An overlap that equals the threshold succeeds too.
        norm_least_size: Of the target, pixels; what is smaller counts as this for normalisation.
        pooled: Averages go over all frames of all sequences; else over the sequences.
        zeros_dropped: Averages leave out sequences whose curve is zero everywhere.
    """

    name: str
    title: str
    reports: tuple[str, ...]
    overlap: Callable[[Array, Array], Array] = inclusive_iou
    rounded: bool = False
    clipped: bool = False
    first_frame: Literal["predicted", "ground truth", "dropped"] = "ground truth"
    refused: tuple[Fault, ...] = ()
    repaired: tuple[Fault, ...] = ()
    short: Literal["error", "zeros", "NaN", "cut"] = "error"
    long: Literal["error", "cut"] = "cut"
    nan_truth: Literal["kept", "dropped", "error"] = "kept"
    valid: Callable[[Array], Mask] = positive_size
    located: Callable[[Array], Mask] | None = None
    invalid: tuple[Verdict, Verdict, Verdict] = ("as others", "as others", "as others")
    absent_misses: bool = False
    uncovered_dropped: bool = False
    divide_by_valid: bool = False
    thresholds: Thresholds = _USUAL_THRESHOLDS
    success_at_least: bool = False
    norm_least_size: float | None = None
    pooled: bool = False
    zeros_dropped: bool = False


_SCORES = ("success_auc", "op50", "op75", "precision_20", "norm_precision_020")
_CURVES = ("success_curve", "precision_curve", "norm_precision_curve")

_PYSOT = Rule(
    "pysot_ope",
    "pysot, one-pass evaluation",
    (*_SCORES, *_CURVES),
    overlap=iou,
    first_frame="predicted",
    long="error",
    located=positive_centre,
    invalid=("miss", "hit", "hit"),
)
_PYTRACKING = Rule(
    "pytracking_otb",
    "pytracking, OTB and NFS",
    (*_SCORES, "avg_overlap", *_CURVES),
    refused=("NaN", "negative size"),
    repaired=("zero size",),
    short="zeros",
    nan_truth="error",
    valid=positive_box,
    invalid=("miss", "miss", "hit"),
)
_PYTRACKING_LASOT = replace(
    _PYTRACKING,
    name="pytracking_lasot",
    title="pytracking, LaSOT",
    short="error",
    absent_misses=True,
)
_GOT10K = Rule(
    "got10k_otb",
    "GOT-10k toolkit, OTB",
    ("success_curve", "precision_curve", "success_auc", "precision_20", "op50"),
    overlap=iou,
    short="cut",
)

_ALL = (
    _PYSOT,
    replace(
        _PYSOT,
        name="pysot_ope_absent",
        title="pysot, one-pass evaluation with flags of absence",
        absent_misses=True,
    ),
    _PYTRACKING,
    replace(
        _PYTRACKING,
        name="pytracking_uav",
        title="pytracking, UAV123",
        nan_truth="kept",
        invalid=("miss", "hit", "hit"),
    ),
    _PYTRACKING_LASOT,
    replace(
        _PYTRACKING_LASOT,
        name="pytracking_lasot_exclude_invalid",
        title="pytracking, LaSOT with exclude_invalid_frames",
        divide_by_valid=True,
    ),
    replace(
        _PYTRACKING,
        name="slt_fork_otb",
        title="pytracking as in SLTtrack and OSTrack, OTB and NFS",
        valid=positive_size,
    ),
    replace(
        _PYTRACKING_LASOT,
        name="slt_fork_lasot",
        title="pytracking as in SLTtrack and OSTrack, LaSOT",
        valid=positive_size,
    ),
    Rule(
        "got10k_val",
        "GOT-10k",
        ("ao", "sr50", "sr75", "succ_curve_101"),
        overlap=iou,
        clipped=True,
        first_frame="dropped",
        long="error",
        uncovered_dropped=True,
        thresholds=Thresholds(success=np.linspace(0, 1, 101)),
        pooled=True,
    ),
    _GOT10K,
    replace(_GOT10K, name="got10k_uav123", title="GOT-10k toolkit, UAV123", nan_truth="dropped"),
    replace(
        _GOT10K,
        name="got10k_lasot",
        title="GOT-10k toolkit, LaSOT",
        reports=(*_CURVES, "success_auc", "precision_20", "norm_precision_auc", "op50"),
        nan_truth="dropped",
        norm_least_size=1.0,
    ),
    Rule(
        "trackingnet",
        "TrackingNet's development kit",
        ("coverage", "success_trapz", "precision_trapz", "norm_precision_trapz"),
        rounded=True,
        short="NaN",
        success_at_least=True,
        thresholds=Thresholds(
            precision=np.linspace(0, 50, 21), norm_precision=np.linspace(0, 0.5, 21)
        ),
    ),
    Rule(
        "lasot",
        "LaSOT's and TNL2K's MATLAB toolkits",
        (*_SCORES, *_CURVES),
        repaired=("NaN", "negative size", "zero size"),
        valid=positive_box,
        invalid=("miss", "hit", "hit"),
        absent_misses=True,
        zeros_dropped=True,
    ),
)
RULES = {rule.name: rule for rule in _ALL}


def get_rule(name: str) -> Rule:
    """Return a rule by name.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if name not in RULES:
        raise unknown("rule", name, RULES)
    return RULES[name]
