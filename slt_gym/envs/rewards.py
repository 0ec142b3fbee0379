"""Rewards: what one frame is worth, by name, and mixtures of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The 21 thresholds of the success plot (OTB's, LaSOT's), 0 to 1.
SUCCESS_THRESHOLDS = 0.05 * np.arange(21)
_THRESHOLDS: list[float] = SUCCESS_THRESHOLDS.tolist()


def success_auc(overlap: float) -> float:
    """Return the share of the success plot's thresholds that an overlap exceeds.

    Its mean over the frames of a sequence is the sequence's success AUC. It is 20/21 at most: no
    overlap exceeds the threshold 1.

    Args:
        overlap: Intersection over union, in [0, 1].
    """
    return bisect_left(_THRESHOLDS, overlap) / len(_THRESHOLDS)


def generalised_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the generalised IoU of two boxes (Rezatofighi et al., CVPR 2019), in (-1, 1].

    It is the IoU less the share of the smallest enclosing box that neither of the two covers: it
    still tells near from far where they do not overlap.

    Args:
        a: ``(x, y, w, h)`` with positive width and height, any unit.
        b: The same, in the same unit.
    """
    size = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    intersection = float(np.prod(np.maximum(size, 0.0)))
    union = float(a[2] * a[3] + b[2] * b[3]) - intersection
    hull = np.maximum(a[:2] + a[2:], b[:2] + b[2:]) - np.minimum(a[:2], b[:2])
    return intersection / union - 1.0 + union / float(np.prod(hull))


class FrameScore(NamedTuple):
    """What rewards know of one visible frame.

    Attributes:
        overlap: IoU of the estimate, in [0, 1].
        kept: IoU that the previous frame's estimate has in this frame.
        giou: Generalised IoU of the estimate.
    """

    overlap: float
    kept: float = 0.0
    giou: float = 0.0


class _Reward(NamedTuple):
    """A frame's reward before the division by T; what a frame that is never tracked counts."""

    of_frame: Callable[[FrameScore], float]
    untracked: float = 0.0
    overlap_suffices: bool = True


_REWARDS = {
    "auc": _Reward(lambda score: success_auc(score.overlap)),
    "overlap": _Reward(lambda score: score.overlap),
    "final_auc": _Reward(lambda score: 0.0),
    "iou_gain": _Reward(lambda score: score.overlap - score.kept, overlap_suffices=False),
    # The worst there is, so that to lose the target for good never pays.
    "giou": _Reward(lambda score: score.giou, untracked=-1.0, overlap_suffices=False),
    "lost_penalty": _Reward(lambda score: -float(score.overlap == 0.0), untracked=-1.0),
}

# What the environments' argument ``reward`` accepts, alone or as keys of a dict of weights.
REWARDS = tuple(_REWARDS)


def frame_reward(
    reward: str | Mapping[str, float], score: FrameScore | float, frames: int
) -> float:
    """Return the reward of one visible frame that does not wait for the end of the clip.

    Args:
        reward: One of :data:`REWARDS`, or weights by their names.
        score: How the frame went; an overlap alone where the reward asks for nothing else.
        frames: Number of visible tracked frames in the clip: the rewards' sum is a mean over them.
    """
    if not isinstance(score, FrameScore):
        score = FrameScore(score)
    total = sum(w * _REWARDS[name].of_frame(score) for name, w in _weights(reward).items())
    return float(total / frames)


def overlap_suffices(reward: str | Mapping[str, float]) -> bool:
    """Tell whether a reward asks for nothing of a frame but the estimate's overlap."""
    return all(_REWARDS[name].overlap_suffices for name in _weights(reward))


def untracked_reward(reward: str | Mapping[str, float], share: float) -> float:
    """Return the reward of visible frames that are left out after a failure.

    Args:
        reward: One of :data:`REWARDS`, or weights by their names.
        share: Number of these frames over the number of visible tracked frames in the clip.
    """
    return share * sum(w * _REWARDS[name].untracked for name, w in _weights(reward).items())


def final_reward(reward: str | Mapping[str, float], auc: float) -> float:
    """Return what the end of the clip adds to the last frame's reward.

    Args:
        reward: One of :data:`REWARDS`, or weights by their names.
        auc: The clip's success AUC.
    """
    return auc * _weights(reward).get("final_auc", 0.0)


def _weights(reward: str | Mapping[str, float]) -> Mapping[str, float]:
    return {reward: 1.0} if isinstance(reward, str) else reward
