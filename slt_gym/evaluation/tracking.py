"""Tracking whole splits with policies, many sequences side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from slt_gym.agents import TrackerPolicy
from slt_gym.envs import TrackingVectorEnv
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.metrics import success_auc


@dataclass(frozen=True)
class SequenceResult:
    """One sequence, tracked once.

    Attributes:
        boxes: Float64, shape ``(T + 1, 4)``, ``(x, y, w, h)``, frame pixels; the first is given.
        ious: Shape ``(V,)``, the overlaps of the tracked frames where the target is visible.
    """

    boxes: NDArray[np.float64]
    ious: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Success AUC over the tracked visible frames: the return of the environment's episode."""
        return success_auc(self.ious)


def track_split(
    policies: Mapping[str, TrackerPolicy],
    env_id: str,
    *,
    split: str = "test",
    parallel: int = 16,
    progress_bar: bool = False,
    **env_kwargs: Any,
) -> dict[str, dict[str, SequenceResult]]:
    """Track every sequence of a split once with each policy, greedily.

    The policies share each decoded frame; none sees anything of the others.

    Args:
        policies: By name, all of one tracker; each takes its most probable proposal.
        env_id: A tracking environment's id.
        split: ``"val"`` or ``"test"``; its sequences are walked in order.
        parallel: Sequences tracked side by side; changes the results by rounding at most.
        progress_bar: Show one, with rate and remaining time.
        **env_kwargs: The environment's arguments; ``geometry`` defaults to the policies' tracker
            and ``num_frames`` to None, whole sequences.

    Returns:
        For each policy the results by sequence, in the order of the walk.

    Raises:
        InvalidArgumentError: The policies are of different trackers, or the split is drawn at
            random.
    """
    trackers = {policy.tracker for policy in policies.values()}
    if len(trackers) != 1:
        raise InvalidArgumentError(f"policies of one tracker see the same crops; got {trackers}")
    if split == "train":
        raise InvalidArgumentError(
            "split 'train' is drawn at random: accepted are 'val' and 'test'"
        )
    env_kwargs = {"geometry": trackers.pop(), "num_frames": None, **env_kwargs}
    k = len(policies)
    envs = gym.make_vec(
        env_id.removeprefix("slt_gym:"),
        num_envs=parallel * k,
        tracks_per_clip=k,
        split=split,
        autoreset_mode="same_step",
        **env_kwargs,
    )
    assert isinstance(envs, TrackingVectorEnv)
    names = envs.sequence_names
    results: dict[str, dict[str, SequenceResult]] = {name: {} for name in policies}
    rows = list(results.values())  # track i belongs to policy i % k
    bar = tqdm(total=len(names), desc=f"tracking {split}", disable=not progress_bar, unit="seq")
    try:
        obs, infos = envs.reset_tracks(seed=0)
        boxes = [[info["box"]] for info in infos if info is not None]
        ious: list[list[float]] = [[] for _ in boxes]
        states: list[Any] = [None] * k
        start = np.ones(len(boxes), bool)
        actions = np.empty((len(boxes), 4), np.float32)
        while min(len(row) for row in rows) < len(names):
            for j, policy in enumerate(policies.values()):
                part = {key: value[j::k] for key, value in obs.items()}
                actions[j::k], states[j] = policy.predict(
                    part, states[j], start[j::k], deterministic=True
                )
            obs, steps = envs.step_tracks(actions)
            start = np.array([step.terminated for step in steps])
            for i, step in enumerate(steps):
                info = step.info if step.final_info is None else step.final_info
                boxes[i].append(info["box"])
                if info["visible"]:
                    ious[i].append(info["iou"])
                if step.terminated:
                    # A short shard comes round again while the others finish.
                    if info["sequence"] not in rows[i % k]:
                        result = SequenceResult(np.array(boxes[i]), np.array(ious[i]))
                        rows[i % k][info["sequence"]] = result
                        bar.update(i % k == 0)
                    boxes[i], ious[i] = [step.info["box"]], []
    finally:
        bar.close()
        envs.close()
    return {name: {seq: row[seq] for seq in names} for name, row in results.items()}


def aucs(results: Mapping[str, SequenceResult]) -> NDArray[np.float64]:
    """Return the sequences' success AUCs, shape ``(N,)``."""
    return np.array([result.auc for result in results.values()])
