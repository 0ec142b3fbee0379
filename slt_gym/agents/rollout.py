"""What exploration leaves for an update: sampled tracks of a batch of clips, and their returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from slt_gym.errors import InvalidArgumentError, unknown

Array: TypeAlias = NDArray


@dataclass
class ClipRollout:
    """``C`` clips, ``S`` sampled tracks of each, up to ``T`` tracked frames.

    Attributes:
        template: RGB uint8, shape ``(C, 3, Z, Z)``.
        search: RGB uint8, shape ``(T, C, S, 3, s, s)``, the crops that the sampled tracks saw.
        box: Float32, shape ``(T, C, S, 4)``, the previous estimates, crop units.
        index: Int64, shape ``(T, C, S)``, the proposals that were sampled.
        gt_box: Float32, shape ``(T, C, S, 4)``, ground truth in units of the same crops.
        alive: Booleans, shape ``(T, C, S)``, the frames before a track's end.
        rewards: Float64, shape ``(T, C, S)``, zero after the end.
        greedy_rewards: Float64, shape ``(T, C)``; None without a greedy track.
        template_box: Float32, shape ``(C, 4)``, the target in the template, crop units; None where
            the observations do not hold it.
    """

    template: Array
    search: Array
    box: Array
    index: Array
    gt_box: Array
    alive: Array
    rewards: Array
    greedy_rewards: Array | None = None
    template_box: Array | None = None


def greedy_baseline(returns: Array, greedy: Array | None) -> Array:
    """Subtract the greedy track's return (SLT, section 3.2).

    Args:
        returns: Shape ``(..., C, S)``.
        greedy: Shape ``(..., C)``.
    """
    if greedy is None:
        raise InvalidArgumentError("baseline 'greedy' needs a rollout with a greedy track")
    return returns - greedy[..., None]


def leave_one_out_baseline(returns: Array, greedy: Array | None) -> Array:
    """Subtract the mean return of the clip's other sampled tracks (Kool et al., 2019).

    Args:
        returns: Shape ``(..., C, S)`` with ``S`` of at least two.
        greedy: Not used.
    """
    del greedy
    count = returns.shape[-1]
    others = (returns.sum(axis=-1, keepdims=True) - returns) / (count - 1)
    return returns - others


BASELINES: dict[str, Callable[[Array, Array | None], Array]] = {
    "greedy": greedy_baseline,
    "leave_one_out": leave_one_out_baseline,
}


def check_baseline(baseline: str, n_samples: int) -> None:
    """Raise unless the baseline exists and works with that many sampled tracks."""
    if baseline not in BASELINES:
        raise unknown("baseline", baseline, BASELINES)
    if baseline == "leave_one_out" and n_samples < 2:
        raise InvalidArgumentError(
            "baseline 'leave_one_out' compares the sampled tracks of a clip: n_samples is "
            f"{n_samples}, it must be at least 2"
        )


def advantages(rollout: ClipRollout, baseline: str, reward_to_go: bool = False) -> Array:
    """Compute each action's advantage, float64, shape ``(T, C, S)``.

    Args:
        rollout: The tracks.
        baseline: A key of ``BASELINES``.
        reward_to_go: Count only the rewards from the action's frame on; otherwise every action of
            a track shares the whole return, as published.
    """

    def total(rewards: Array | None) -> Array | None:
        if rewards is None:
            return None
        if reward_to_go:
            return np.flip(np.cumsum(np.flip(rewards, 0), 0), 0)
        return np.broadcast_to(rewards.sum(0), rewards.shape)

    returns = total(rollout.rewards)
    assert returns is not None
    return BASELINES[baseline](returns, total(rollout.greedy_rewards))
