"""Rewards: what the overlap of one frame is worth."""

from __future__ import annotations

import numpy as np

# The 21 thresholds of the success plot (OTB's, LaSOT's), 0 to 1.
SUCCESS_THRESHOLDS = 0.05 * np.arange(21)

# What the environments' argument ``reward`` accepts.
REWARDS = ("auc", "overlap", "final_auc")


def success_auc(overlap: float) -> float:
    """Return the share of the success plot's thresholds that an overlap exceeds.

    Its mean over the frames of a sequence is the sequence's success AUC. It is 20/21 at most: no
    overlap exceeds the threshold 1.

    Args:
        overlap: Intersection over union, in [0, 1].
    """
    return float(np.count_nonzero(overlap > SUCCESS_THRESHOLDS) / len(SUCCESS_THRESHOLDS))


def frame_reward(kind: str, overlap: float, frames: int) -> float:
    """Return the reward of one visible frame that does not wait for the end of the clip.

    Args:
        kind: ``"auc"``, ``"overlap"`` or ``"final_auc"``.
        overlap: Intersection over union in this frame, in [0, 1].
        frames: Number of visible tracked frames in the clip: the rewards' sum is a mean over them.
    """
    if kind == "auc":
        return success_auc(overlap) / frames
    if kind == "overlap":
        return float(overlap) / frames
    return 0.0


def final_reward(kind: str, auc: float) -> float:
    """Return what the end of the clip adds to the last frame's reward.

    Args:
        kind: ``"auc"``, ``"overlap"`` or ``"final_auc"``.
        auc: The clip's success AUC.
    """
    return auc if kind == "final_auc" else 0.0
