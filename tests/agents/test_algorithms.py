"""Stable-Baselines3's and sb3-contrib's algorithms, each on a tracking environment."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from tiny import ENV_ID, VIDEO

from slt_gym.agents import ReferenceReplayBuffer, TrackerFeaturesExtractor
from slt_gym.envs import make_sb3_env
from slt_gym.geometry import TransTGeometry
from slt_gym.geometry import base as geometries

STEPS, N_ENVS, FRAMES = 2000, 4, 6
ON_POLICY = {"n_steps": 125}
OFF_POLICY = {
    "replay_buffer_class": ReferenceReplayBuffer,
    "buffer_size": STEPS,
    "learning_starts": 200,
    "batch_size": 16,
    "train_freq": 8,
}


@dataclass(frozen=True)
class Case:
    """An algorithm, where it comes from and what it is given."""

    name: str
    kwargs: dict[str, Any]
    action: str = "delta"
    module: str = "stable_baselines3"
    policy: str = "MultiInputPolicy"
    policy_kwargs: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("PPO", {**ON_POLICY, "batch_size": 100, "n_epochs": 2}),
    Case("A2C", {"n_steps": 10}),
    Case(
        "TRPO",
        {**ON_POLICY, "batch_size": 100, "cg_max_steps": 3, "n_critic_updates": 1},
        module="sb3_contrib",
        policy_kwargs={"net_arch": [8]},  # one derivative for each parameter
    ),
    Case(
        "RecurrentPPO",
        {**ON_POLICY, "batch_size": 100, "n_epochs": 2},
        module="sb3_contrib",
        policy="MultiInputLstmPolicy",
        policy_kwargs={"lstm_hidden_size": 16},
    ),
    Case("SAC", OFF_POLICY),
    Case("TD3", OFF_POLICY),
    Case("TQC", OFF_POLICY, module="sb3_contrib"),
    Case("DQN", OFF_POLICY, action="proposals"),
    Case("QRDQN", OFF_POLICY, action="moves", module="sb3_contrib"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_algorithm_trains_saves_and_loads(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The smallest images that Stable-Baselines3 takes have 36 pixels a side.
    smallest = TransTGeometry(template_size=36, search_size=72)
    monkeypatch.setitem(geometries._GEOMETRIES, "smallest", smallest)
    reason = f"{case.name} is sb3-contrib's: pip install sb3-contrib"
    library = pytest.importorskip(case.module, reason=reason)
    algorithm: type[BaseAlgorithm] = getattr(library, case.name)
    env = make_sb3_env(
        ENV_ID,
        n_envs=N_ENVS,
        geometry="smallest",
        action=case.action,
        # Moves come several a frame: at most two here, so that episodes are short.
        action_options={"max_moves": 2} if case.action == "moves" else None,
        reward="overlap",
        num_frames=FRAMES,
        threads=1,
        dataset_options=VIDEO,
    )
    kwargs = dict(case.kwargs)
    if "replay_buffer_class" in kwargs:
        kwargs["replay_buffer_kwargs"] = {"env": env, "threads": 1}
    model = algorithm(
        case.policy,
        env,
        policy_kwargs={
            "features_extractor_class": TrackerFeaturesExtractor,
            "features_extractor_kwargs": {"hidden": 8, "channels": 4},
            **case.policy_kwargs,
        },
        learning_rate=1e-3,
        seed=0,
        device="cpu",
        **kwargs,
    )
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(STEPS)

    assert model.num_timesteps >= STEPS
    after = model.policy.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("encoder" in key for key in changed)
    assert any("sharpness" in key for key in changed)
    assert any("features_extractor" not in key for key in changed)

    # Every episode is as long as its clip, and its return is a mean overlap.
    episodes = list(model.ep_info_buffer)
    assert len(episodes) >= min(100, STEPS // (2 * (FRAMES - 1)) - N_ENVS)
    assert all(np.isfinite(episode["r"]) and 0 <= episode["r"] <= 1 for episode in episodes)
    lengths = {episode["l"] for episode in episodes}
    most = 2 * (FRAMES - 1) if case.action == "moves" else FRAMES - 1
    assert max(lengths) <= most
    assert min(lengths) >= FRAMES - 1

    observation = env.reset()
    expected, state = model.predict(observation, deterministic=True)
    assert (state is not None) == (case.name == "RecurrentPPO")
    check_actions(expected, env.action_space)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    assert loaded.num_timesteps == model.num_timesteps
    actions, _ = loaded.predict(observation, deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    check_actions(loaded.predict(observation)[0], env.action_space)
    env.close()


def check_actions(actions: np.ndarray, space: spaces.Space) -> None:
    """Assert that every track's action is one of its space's."""
    assert len(actions) == N_ENVS
    assert all(space.contains(action) for action in actions)


def test_the_list_is_complete() -> None:
    names = {case.name for case in CASES}
    assert names == {"PPO", "A2C", "TRPO", "RecurrentPPO", "SAC", "TD3", "TQC", "DQN", "QRDQN"}
    for case in CASES:
        if importlib.util.find_spec(case.module) is not None:
            assert hasattr(importlib.import_module(case.module), case.name)
