"""Success: the overlap metric of single-object tracking."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.envs.rewards import SUCCESS_THRESHOLDS
from slt_gym.errors import InvalidArgumentError


def success_curve(ious: ArrayLike) -> NDArray[np.float64]:
    """Compute the share of frames whose overlap exceeds each threshold.

    Args:
        ious: Overlaps of a sequence's tracked frames, shape ``(T,)``.

    Returns:
        Shares for the thresholds 0, 0.05, …, 1, shape ``(21,)``; zeros for an empty sequence.
    """
    overlaps = np.asarray(ious, np.float64).reshape(-1)
    if not overlaps.size:
        return np.zeros(len(SUCCESS_THRESHOLDS))
    return (overlaps[:, None] > SUCCESS_THRESHOLDS).mean(axis=0)


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
