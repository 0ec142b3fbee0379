"""Where the target is in a score map, and whether to believe it (DiMP's advanced localisation)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.agents.trdimp.config import TrDiMPConfig


class Peak(NamedTuple):
    """The answer of :func:`localise`.

    Attributes:
        row: Row of the score map.
        column: Column of the score map.
        score: The best score of the map.
        flag: ``"normal"``, ``"hard_negative"`` (a distractor shows), ``"uncertain"`` or
            ``"not_found"``.
    """

    row: int
    column: int
    score: float
    flag: str


def find_peak(scores: NDArray[np.float32]) -> tuple[int, int]:
    """Return row and column of the highest score; of equals the leftmost, then the uppermost."""
    column = int(scores.max(axis=0).argmax())
    return int(scores[:, column].argmax()), column


def localise(
    scores: NDArray[np.float32],
    neighbourhood: NDArray[np.float64],
    previous: NDArray[np.float64],
    config: TrDiMPConfig,
) -> Peak:
    """Choose between the two highest peaks of a score map.

    Args:
        scores: Shape ``(n, n)``.
        neighbourhood: Height and width of the target's neighbourhood, in cells.
        previous: The previous position, (down, right) of the map's centre, in cells.
        config: The thresholds.
    """
    first = find_peak(scores)
    best = float(scores[first])
    if best < config.target_not_found_threshold:
        return Peak(*first, best, "not_found")
    masked = scores.copy()
    place = np.array(first)
    low = np.maximum(np.rint(place - neighbourhood / 2), 0).astype(int)
    high = np.minimum(np.rint(place + neighbourhood / 2 + 1), len(scores)).astype(int)
    masked[low[0] : high[0], low[1] : high[1]] = 0
    second = find_peak(masked)
    rival = float(masked[second])
    if rival > config.distractor_threshold * best:
        centre = len(scores) // 2
        far = config.displacement_scale * len(scores) / 2
        distance = [float(np.hypot(*(np.array(p) - centre - previous))) for p in (first, second)]
        if distance[1] > far > distance[0]:
            return Peak(*first, best, "hard_negative")
        if distance[1] < far < distance[0]:
            return Peak(*second, best, "hard_negative")
        return Peak(*first, best, "uncertain")
    if rival > max(config.hard_negative_threshold * best, config.target_not_found_threshold):
        return Peak(*first, best, "hard_negative")
    return Peak(*first, best, "normal")
