"""Tracking whole splits with policies, many sequences side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from slt_gym.agents import TrackerPolicy
from slt_gym.agents.processes import Processes
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

    The policies share each decoded frame; none sees anything of the others. Under ``torchrun``
    every process tracks its share of the sequences, and returns the results of all.

    Args:
        policies: By name, all of one tracker; each takes its most probable proposal.
        env_id: A tracking environment's id.
        split: ``"val"`` or ``"test"``; its sequences are walked in order.
        parallel: Sequences that a process tracks side by side; changes the results by rounding at
            most.
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
    processes = Processes.join()
    env_kwargs = {"geometry": trackers.pop(), "num_frames": None, **env_kwargs}
    envs = gym.make_vec(
        env_id.removeprefix("slt_gym:"),
        num_envs=parallel * len(policies),
        tracks_per_clip=len(policies),
        split=split,
        autoreset_mode="disabled",
        **env_kwargs,
    )
    assert isinstance(envs, TrackingVectorEnv)
    names = envs.sequence_names
    own = names[processes.rank :: processes.count]
    bar = tqdm(total=len(own), desc=f"tracking {split}", disable=not progress_bar, unit="seq")
    try:
        results = _track(list(policies.values()), envs, own, bar) if own else [{} for _ in policies]
    finally:
        bar.close()
        envs.close()
    gathered = processes.gather(results)
    return {
        policy: {name: gathered[i % processes.count][j][name] for i, name in enumerate(names)}
        for j, policy in enumerate(policies)
    }


def _track(
    policies: Sequence[TrackerPolicy], envs: TrackingVectorEnv, names: Sequence[str], bar: tqdm
) -> list[dict[str, SequenceResult]]:
    """Track the sequences ``names`` with each policy; track i belongs to policy i % k."""
    k = len(policies)
    results: list[dict[str, SequenceResult]] = [{} for _ in policies]
    queues = [deque(names) for _ in policies]
    boxes: list[list[NDArray[np.float64]]] = [[] for _ in range(envs.num_envs)]
    ious: list[list[float]] = [[] for _ in range(envs.num_envs)]
    states: list[Any] = [None] * k
    actions = np.empty((envs.num_envs, 4), np.float32)
    start = np.ones(envs.num_envs, bool)
    while True:
        for name, mask in _hand_out(queues, start, names[0]):
            options = {"sequence": name, "reset_mask": mask}
            obs, infos = envs.reset_tracks(options=options)
            for i in np.flatnonzero(mask).tolist():
                info = infos[i]
                assert info is not None
                boxes[i], ious[i] = [info["box"]], []
        for j, policy in enumerate(policies):
            part = {key: value[j::k] for key, value in obs.items()}
            actions[j::k], states[j] = policy.predict(
                part, states[j], start[j::k], deterministic=True
            )
        obs, steps = envs.step_tracks(actions)
        start = np.array([step.terminated for step in steps])
        for i, step in enumerate(steps):
            boxes[i].append(step.info["box"])
            if step.info["visible"]:
                ious[i].append(step.info["iou"])
            name = step.info["sequence"]
            if step.terminated and name not in results[i % k]:
                results[i % k][name] = SequenceResult(np.array(boxes[i]), np.array(ious[i]))
                bar.update(i % k == 0)
        if all(len(done) == len(names) for done in results):
            return results


def _hand_out(
    queues: Sequence[deque[str]], ended: NDArray[np.bool_], spare: str
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Give each track that has ended its policy's next sequence.

    Args:
        queues: Names by policy; what is handed out is taken from them.
        ended: Which tracks need one.
        spare: What goes round again in tracks that are left over, while the others finish.

    Returns:
        Names, and the tracks side by side that get them, booleans of ``ended``'s shape.
    """
    given: dict[tuple[int, str], NDArray[np.bool_]] = {}
    for i in np.flatnonzero(ended).tolist():
        group, policy = divmod(i, len(queues))
        name = queues[policy].popleft() if queues[policy] else spare
        given.setdefault((group, name), np.zeros(len(ended), bool))[i] = True
    return [(name, mask) for (_, name), mask in given.items()]


def aucs(results: Mapping[str, SequenceResult]) -> NDArray[np.float64]:
    """Return the sequences' success AUCs, shape ``(N,)``."""
    return np.array([result.auc for result in results.values()])
