"""Testing a policy or a tracker on the first sequences of a split."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from slt_gym.agents import Tracker, create_tracker
from slt_gym.data import Sequence, whole_clip
from slt_gym.envs import make_sb3_env
from slt_gym.evaluation.benchmark.algorithms import Algorithm
from slt_gym.evaluation.benchmark.settings import Benchmark
from slt_gym.evaluation.metrics import success_auc
from slt_gym.evaluation.runner import track_sequence
from slt_gym.geometry import iou


class Policy(Protocol):
    """What is tested: Stable-Baselines3's ``predict``."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Return an action for each observation, and the next state."""
        ...


class RandomPolicy:
    """Draws actions uniformly from the space.

    Args:
        space: Of the actions.
        seed: Of the draws.
    """

    def __init__(self, space: spaces.Space[Any], seed: int) -> None:
        self._space = space
        self._space.seed(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Draw an action for each observation."""
        del state, episode_start, deterministic
        count = len(observation["box"])
        return np.array([self._space.sample() for _ in range(count)]), None


def make_test_env(benchmark: Benchmark, algorithm: Algorithm, split: str, tracks: int) -> VecEnv:
    """Return an environment that walks a split's whole sequences."""
    return make_sb3_env(
        benchmark.env_id,
        n_envs=tracks,
        seed=0,
        **{"num_frames": None, "threads": 1, **benchmark.env_kwargs},
        action=algorithm.action,
        action_options=algorithm.action_options or None,
        split=split,
    )


def score_policy(
    policy: Policy, benchmark: Benchmark, algorithm: Algorithm, split: str, count: int
) -> dict[str, float]:
    """Track the first sequences of a split, whole, with a policy's deterministic actions.

    Args:
        policy: What is tested.
        benchmark: The environment.
        algorithm: The row, for its form of actions.
        split: ``"val"``, ``"test"``, …
        count: How many sequences; fewer where the split has fewer.

    Returns:
        The success AUC of each sequence, 0…1, by name.
    """
    env = make_test_env(benchmark, algorithm, split, min(benchmark.parallel, count))
    try:
        names = env.get_attr("sequence_names", [0])[0][:count]
        scores: dict[str, float] = {}
        observation, state = env.reset(), None
        start = np.ones(env.num_envs, np.bool_)
        while not scores.keys() >= set(names):
            actions, state = policy.predict(observation, state, start, deterministic=True)
            observation, _, start, infos = env.step(actions)
            for info in infos:
                # Tracks that are done with their share go on while the others finish.
                if "auc" in info:
                    scores.setdefault(info["sequence"], float(info["auc"]))
    finally:
        env.close()
    return {name: scores[name] for name in names}


def make_tracker(benchmark: Benchmark, algorithm: Algorithm) -> Tracker:
    """Return the tracker that a row names."""
    options = dict(algorithm.kwargs)
    if algorithm.algorithm == "oracle":
        options = {"geometry": benchmark.geometry, **options}
    weights = options.pop("weights", None)
    return create_tracker(str(algorithm.algorithm), weights, benchmark.device, **options)


def score_tracker(
    tracker: Tracker, benchmark: Benchmark, algorithm: Algorithm, split: str, count: int
) -> dict[str, float]:
    """Track the first sequences of a split with a tracker, as :func:`score_policy` does."""
    env = make_test_env(benchmark, algorithm, split, 1)
    try:
        dataset = env.get_attr("sequences", [0])[0]
    finally:
        env.close()
    scores = {}
    for name in dataset.names[:count]:
        clip = whole_clip(dataset.get(name), num_frames=None, start=None)
        boxes, _ = track_sequence(tracker, cast(Sequence, clip))
        overlaps = iou(np.array(boxes), clip.boxes)
        scores[name] = success_auc(overlaps[1:][clip.visible[1:]])
    return scores
