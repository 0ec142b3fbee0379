"""Overlap, centre error, the curves over them, and intervals: what every rule is built from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.envs.rewards import SUCCESS_THRESHOLDS
from slt_gym.errors import InvalidArgumentError

# Pixels, and fractions of the target's size.
PRECISION_THRESHOLDS = np.arange(51.0)
NORM_PRECISION_THRESHOLDS = np.arange(51) / 100


def inclusive_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Compute the intersection over union of boxes whose last pixel is at ``x + w - 1``.

    In exact arithmetic this is :func:`slt_gym.geometry.iou`. In floating point it is what MATLAB
    toolkits compute, down to the rounding: equal boxes with decimals may overlap by 1 + 2e-16.

    Args:
        a: Shape ``(..., 4)``, ``(x, y, w, h)``, pixels.
        b: Shape broadcastable with ``a``.

    Returns:
        Overlaps of the broadcast shape ``(...)``; NaN where a coordinate is or the union is empty.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    last = np.minimum(a[..., :2] + a[..., 2:] - 1, b[..., :2] + b[..., 2:] - 1)
    sides = np.maximum(last - np.maximum(a[..., :2], b[..., :2]) + 1, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(intersection / union, np.float64)


def centre_errors(
    gt: ArrayLike, prediction: ArrayLike, size: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """Compute the distances between the centres ``x + (w - 1) / 2`` of boxes.

    Args:
        gt: Shape ``(T, 4)``, ``(x, y, w, h)``, pixels.
        prediction: The same shape.
        size: What x and y are divided by, shape ``(T, 2)``: the target's for normalised errors.

    Returns:
        Shape ``(T,)``; NaN or infinite where a coordinate or a size makes it so.
    """
    gt, prediction = np.asarray(gt, np.float64), np.asarray(prediction, np.float64)
    centres = (boxes[:, :2] + (boxes[:, 2:] - 1) / 2 for boxes in (prediction, gt))
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = np.subtract(*centres) / size
    return np.asarray(np.hypot(offset[:, 0], offset[:, 1]), np.float64)


def success_curve(
    ious: ArrayLike,
    thresholds: NDArray[np.floating[Any]] = SUCCESS_THRESHOLDS,
    *,
    frames: int | None = None,
    at_least: bool = False,
) -> NDArray[np.float64]:
    """Compute the share of frames whose overlap exceeds each threshold.

    Args:
        ious: Overlaps of a sequence's tracked frames, shape ``(T,)``; NaN exceeds nothing.
        thresholds: Shape ``(K,)``; 0, 0.05, …, 1 unless given.
        frames: What the counts are divided by; T unless given.
        at_least: Count overlaps that equal the threshold too.

    Returns:
        Shares, shape ``(K,)``; zeros where there is no frame to divide by.
    """
    overlaps = np.asarray(ious, np.float64).reshape(-1)
    ordered = np.sort(overlaps[~np.isnan(overlaps)])
    hits = len(ordered) - np.searchsorted(ordered, thresholds, "left" if at_least else "right")
    return hits / max(len(overlaps) if frames is None else frames, 1)


def precision_curve(
    errors: ArrayLike,
    thresholds: NDArray[np.floating[Any]] = PRECISION_THRESHOLDS,
    *,
    frames: int | None = None,
) -> NDArray[np.float64]:
    """Compute the share of frames whose centre error is at most each threshold.

    Args:
        errors: Shape ``(T,)``, in the thresholds' unit; NaN is within none.
        thresholds: Shape ``(K,)``; 0, 1, …, 50 unless given.
        frames: What the counts are divided by; T unless given.

    Returns:
        Shares, shape ``(K,)``; zeros where there is no frame to divide by.
    """
    ordered = np.sort(np.asarray(errors, np.float64).reshape(-1))  # NaN comes last
    hits = np.searchsorted(ordered, thresholds, "right")
    return hits / max(len(ordered) if frames is None else frames, 1)


def weighted_mean(values: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Average over the first axis; what weighs nothing may be NaN.

    Args:
        values: Shape ``(N, ...)``.
        weights: Shape ``(N,)``; where all are 0 they count as equal.

    Returns:
        Shape ``(...)``.
    """
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if not weights.any():
        return np.asarray(values.mean(axis=0))
    weighed = weights > 0
    return np.asarray(np.average(values[weighed], axis=0, weights=weights[weighed]))


def success_auc(ious: ArrayLike) -> float:
    """Compute the area under the success curve: the mean of its 21 values."""
    return float(success_curve(ious).mean())


def paired_interval(
    a: ArrayLike, b: ArrayLike, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float, float]:
    """Estimate the mean difference of two paired samples and its bootstrap interval.

    Args:
        a: One value per sequence, shape ``(N,)``.
        b: The same sequences' values under another tracker.
        seed: Of the bootstrap.
        resamples: How often the sequences are drawn with replacement.
        level: Share of the resampled means inside the interval.

    Returns:
        The mean of ``a - b`` and the interval's ends (percentile bootstrap, Efron 1979).

    Raises:
        InvalidArgumentError: The samples are empty or of different lengths.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise InvalidArgumentError(
            f"paired samples have shapes {a.shape} and {b.shape}: needed are two equal ones (N,)"
        )
    difference = a - b
    rng = np.random.default_rng(seed)
    # Counts of each sequence in a resample: a matrix product instead of a gather.
    counts = rng.multinomial(
        len(difference), np.full(len(difference), 1 / len(difference)), resamples
    )
    means = counts @ difference / len(difference)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), float(low), float(high)
