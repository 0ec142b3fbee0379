"""Saved models of any algorithm as trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, DQN
from tiny import ENV_ID, VIDEO, make_slt

from slt_gym.agents.policy_tracker import PolicyTracker, load_policy_tracker
from slt_gym.data import open_dataset
from slt_gym.envs import make_sb3_env
from slt_gym.errors import CheckpointError, InvalidArgumentError, SltGymError

ENV = {"geometry": "transt-tiny", "dataset_options": VIDEO, "num_frames": None}


@pytest.fixture(scope="module")
def a2c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained actor-critic, saved."""
    path = tmp_path_factory.mktemp("a2c") / "model.zip"
    env = make_sb3_env(ENV_ID, n_envs=1, **ENV)
    A2C("MultiInputPolicy", env, seed=1, device="cpu").save(path)
    return path


def follow_in_env(model: Any, **options: Any) -> list[np.ndarray]:
    env = gym.make(ENV_ID, split="test", **{**ENV, **options})
    observation, info = env.reset()
    boxes, state, done = {info["frame"]: info["box"]}, None, False
    while not done:
        action, state = model.predict(observation, state, deterministic=True)
        observation, _, done, _, info = env.step(action)
        boxes[info["frame"]] = info["box"]  # The last one of each frame.
    return list(boxes.values())


def follow_outside(tracker: PolicyTracker) -> list[np.ndarray]:
    sequence = open_dataset("synthetic", split="test", **VIDEO)[0]
    tracker.init(sequence.read(0), sequence.boxes[0])
    rest = [tracker.update(sequence.read(t)) for t in range(1, len(sequence))]
    return [sequence.boxes[0], *rest]


def test_the_boxes_are_those_of_the_environment(a2c: Path) -> None:
    tracker = load_policy_tracker(a2c, "A2C", "transt-tiny")
    assert tracker.name == "model"
    expected = follow_in_env(A2C.load(a2c, device="cpu"))
    np.testing.assert_allclose(follow_outside(tracker), expected, atol=1e-3)
    # init forgets what went before
    np.testing.assert_allclose(follow_outside(tracker), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("action", "options"),
    [("delta", {}), ("moves", {"step": 0.1, "max_moves": 4}), ("proposals", {"grid": 5})],
)
def test_every_form_of_actions(action: str, options: dict[str, Any], tmp_path: Path) -> None:
    given = {"action": action, "action_options": options}
    env = make_sb3_env(ENV_ID, n_envs=1, **ENV, **given)
    path = tmp_path / "model.zip"
    A2C("MultiInputPolicy", env, seed=2, device="cpu").save(path)
    tracker = load_policy_tracker(path, "A2C", "transt-tiny", **given)
    expected = follow_in_env(A2C.load(path, device="cpu"), **given)
    assert len(expected) == VIDEO["num_frames"]
    found = follow_outside(tracker)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert not np.allclose(found[-1], found[0], atol=0.5)
    if action != "delta":
        with pytest.raises(
            InvalidArgumentError, match=r"was trained with action Discrete\(\d+\), "
        ):
            load_policy_tracker(path, "A2C", "transt-tiny")


def test_slt_knows_its_geometry(tmp_path: Path) -> None:
    model = make_slt()
    model.save(tmp_path / "slt.zip")
    tracker = load_policy_tracker(tmp_path / "slt.zip", "SLT")
    assert tracker.rules.geometry.search_size == 96
    boxes = follow_outside(tracker)
    np.testing.assert_allclose(boxes, follow_in_env(model.policy), atol=1e-3)


def test_wrong_input(a2c: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model .*none\.zip"):
        load_policy_tracker(tmp_path / "none.zip", "A2C", "transt-tiny")
    with pytest.raises(InvalidArgumentError, match="algorithm 'A3C'"):
        load_policy_tracker(a2c, "A3C", "transt-tiny")
    with pytest.raises(InvalidArgumentError, match="give the geometry that"):
        load_policy_tracker(a2c, "stable_baselines3:A2C")
    with pytest.raises(
        InvalidArgumentError, match=r"was trained with search Box\(0, 255, \(3, 96.*\(3, 256"
    ):
        load_policy_tracker(a2c, "A2C", "transt")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"cannot load .*broken\.zip as a model of A2C"):
        load_policy_tracker(tmp_path / "broken.zip", "A2C", "transt-tiny")
    cartpole = tmp_path / "cartpole.zip"
    DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10).save(cartpole)
    with pytest.raises(InvalidArgumentError, match="not trained in a tracking environment"):
        load_policy_tracker(cartpole, "DQN", "transt-tiny")
    tracker = load_policy_tracker(a2c, "A2C", "transt-tiny")
    with pytest.raises(SltGymError, match="update was called before init"):
        tracker.update(np.zeros((20, 20, 3), np.uint8))
