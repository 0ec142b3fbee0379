"""Rewards by name and their mixtures, in numbers and in episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import MemorySequence, draw_boxes

from slt_gym.envs import TrackingEnv, box_to_action
from slt_gym.envs.rewards import (
    REWARDS,
    FrameScore,
    final_reward,
    frame_reward,
    generalised_iou,
    success_auc,
    untracked_reward,
)
from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import iou

Memory = Callable[..., list[MemorySequence]]
SIDES = st.floats(0.5, 50)
BOXES = st.tuples(st.floats(-50, 50), st.floats(-50, 50), SIDES, SIDES).map(np.array)
SCORES = st.builds(FrameScore, st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1))
WEIGHTS = st.dictionaries(st.sampled_from(REWARDS), st.floats(-2, 2), min_size=1)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 0, 2, 2], 1 / 3),  # the hull holds nothing else
        ([0, 0, 2, 2], [2, 0, 2, 2], 0.0),  # side by side
        ([0, 0, 2, 2], [4, 0, 2, 2], -1 / 3),
        ([0, 0, 1, 1], [9, 9, 1, 1], 2 / 100 - 1),
        ([0, 0, 2, 2], [1, 1, 2, 2], 1 / 7 - 2 / 9),
    ],
)
def test_generalised_iou_of_known_boxes(a: list, b: list, expected: float) -> None:
    assert generalised_iou(np.array(a, float), np.array(b, float)) == pytest.approx(expected)


@given(BOXES, BOXES)
def test_generalised_iou_is_iou_less_the_emptiness_of_the_hull(
    a: np.ndarray, b: np.ndarray
) -> None:
    value = generalised_iou(a, b)
    assert -1 < value <= float(iou(a, b)) + 1e-9
    assert value == pytest.approx(generalised_iou(b, a))
    assert generalised_iou(a, a) == pytest.approx(1.0)


@given(SCORES)
def test_each_reward_of_a_frame(score: FrameScore) -> None:
    found = {name: 4 * frame_reward(name, score, 4) for name in REWARDS}
    assert found == pytest.approx(
        {
            "auc": success_auc(score.overlap),
            "overlap": score.overlap,
            "final_auc": 0.0,
            "iou_gain": score.overlap - score.kept,
            "giou": score.giou,
            "lost_penalty": -1.0 if score.overlap == 0 else 0.0,
        }
    )


@given(WEIGHTS, SCORES, st.floats(0, 1))
def test_mixtures_are_weighted_sums(weights: dict, score: FrameScore, share: float) -> None:
    def mix(reward: Callable[[Any], float]) -> Any:
        expected = sum(weight * reward(name) for name, weight in weights.items())
        assert reward(weights) == pytest.approx(expected, abs=1e-12)

    mix(lambda reward: frame_reward(reward, score, 7))
    mix(lambda reward: untracked_reward(reward, share))
    mix(lambda reward: final_reward(reward, share))


def run(reward: Any, seed: int = 0, spread: float = 0.25, **kwargs: Any) -> list[tuple]:
    """Follow one clip with the same random boxes whatever the reward; rewards and infos."""
    env = TrackingEnv("memory", reward=reward, geometry="transt-tiny", num_frames=10, **kwargs)
    observation, info = env.reset(options={"sequence": "m0"})
    steps, terminated = [(0.0, info)], False
    rng = np.random.default_rng(seed)
    while not terminated:
        noise = rng.uniform(-spread, spread, 4) * [1, 1, 0.1, 0.1]
        observation, reward, terminated, _, info = env.step(
            box_to_action(observation["box"]) + noise
        )
        steps.append((reward, info))
    return steps


def test_returns_of_the_shaped_rewards(memory: Memory) -> None:
    boxes = draw_boxes(0)
    boxes[4] = np.nan
    memory(MemorySequence("m0", boxes))
    infos = [info for _, info in run("auc")]
    seen = [t for t in range(1, 10) if t != 4]
    expected = {
        "iou_gain": [infos[t]["iou"] - float(iou(infos[t - 1]["box"], boxes[t])) for t in seen],
        "giou": [generalised_iou(infos[t]["box"], boxes[t]) for t in seen],
        "lost_penalty": [-float(infos[t]["iou"] == 0) for t in seen],
    }
    for name, values in expected.items():
        steps = run(name)
        rewards = [steps[t][0] for t in seen]
        np.testing.assert_allclose(rewards, np.array(values) / 8, atol=1e-12)
        assert any(rewards)
        assert steps[4][0] == 0.0  # nobody is there
        for (_, info), other in zip(steps, infos, strict=True):
            np.testing.assert_equal(info, other)  # the AUC, too


def test_a_mixture_adds_up_step_by_step(memory: Memory) -> None:
    memory()
    weights = {"auc": 1.0, "iou_gain": 0.5, "final_auc": 2, "lost_penalty": 0.25}
    mixed = [reward for reward, _ in run(weights)]
    parts = [weight * np.array([r for r, _ in run(name)]) for name, weight in weights.items()]
    np.testing.assert_allclose(mixed, np.sum(parts, axis=0), atol=1e-12)


@pytest.mark.parametrize("reward", ["giou", "lost_penalty"])
def test_to_give_up_early_does_not_pay(memory: Memory, reward: str) -> None:
    memory(MemorySequence("m0", np.tile([60.0, 40.0, 12.0, 12.0], (14, 1))))
    env = TrackingEnv("memory", reward=reward, geometry="transt-tiny", num_frames=10, lost_after=2)
    env.reset(options={"sequence": "m0"})
    steps = [env.step(np.array([1, 1, -1, -1], np.float32)) for _ in range(2)]
    assert steps[-1][2] is True
    score = {
        "giou": [generalised_iou(step[4]["box"], step[4]["gt_box"]) for step in steps],
        "lost_penalty": [-1.0, -1.0],
    }[reward]
    assert sum(step[1] for step in steps) == pytest.approx((sum(score) - 7) / 9)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({}, r"'reward' is an empty dict: accepted are weights of auc, overlap"),
        ({"auc": 1, "gain": 1}, r"unknown reward 'gain'.*did you mean 'iou_gain'"),
        ({"auc": "1"}, r"'reward' gives 'auc' the weight '1': accepted are finite numbers"),
        ({"auc": float("inf")}, r"the weight inf"),
        ({"auc": True}, r"the weight True"),
        (["auc"], r"unknown reward \['auc'\]"),
        (None, r"unknown reward None"),
    ],
)
def test_refuses_wrong_rewards(memory: Memory, reward: Any, message: str) -> None:
    memory()
    with pytest.raises(InvalidArgumentError, match=message):
        TrackingEnv("memory", reward=reward)
