"""The adapter to Stable-Baselines3."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest

from slt_gym.envs import TrackingVectorEnv, box_to_action, make_sb3_env
from slt_gym.errors import InvalidArgumentError

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

ID = "SLTTrack-Folder-v0"


@pytest.fixture
def kwargs(folder_root: str) -> dict:
    return {"root": folder_root, "geometry": "transt-tiny", "num_frames": 5}


def test_is_dummy_vec_env_over_single_environments(kwargs: dict) -> None:
    ours = make_sb3_env(ID, n_envs=3, seed=4, threads=2, **kwargs)
    theirs = DummyVecEnv([lambda: gym.make(ID, **kwargs) for _ in range(3)])
    theirs.seed(4)
    observations, expected = ours.reset(), theirs.reset()
    np.testing.assert_equal(observations, dict(expected))
    np.testing.assert_equal(ours.reset_infos, theirs.reset_infos)
    rng = np.random.default_rng(0)
    total, ends = np.zeros(3), 0
    for _ in range(9):
        actions = box_to_action(observations["box"])
        actions += rng.uniform(-0.1, 0.1, actions.shape).astype(np.float32)
        observations, rewards, dones, infos = ours.step(actions)
        expected, their_rewards, their_dones, their_infos = theirs.step(actions)
        np.testing.assert_equal(observations, dict(expected))
        np.testing.assert_array_equal(rewards, their_rewards)
        np.testing.assert_array_equal(dones, their_dones)
        assert (rewards.dtype, dones.dtype) == (their_rewards.dtype, their_dones.dtype)
        total += rewards
        for i in np.flatnonzero(dones):
            episode = infos[i].pop("episode")
            assert episode["r"] == pytest.approx(total[i], abs=1e-5)
            assert episode["r"] == pytest.approx(infos[i]["auc"], abs=1e-5)
            assert episode["l"] == 4
            assert episode["t"] >= 0
            total[i] = 0
        ends += dones.sum()
        np.testing.assert_equal(infos, their_infos)
        np.testing.assert_equal(ours.reset_infos, theirs.reset_infos)
    assert ends == 6
    ours.close()
    ours.close()


def test_seed_and_options_last_for_one_reset(kwargs: dict) -> None:
    venv = make_sb3_env("slt_gym:" + ID, n_envs=2, seed=1, **kwargs)
    first = venv.reset()
    second = venv.reset()
    venv.seed(1)
    np.testing.assert_equal(venv.reset(), first)
    np.testing.assert_equal(venv.reset(), second)
    venv.set_options({"sequence": "video2"})
    venv.reset()
    assert [info["sequence"] for info in venv.reset_infos] == ["video2", "video2"]
    venv.set_options([{"sequence": "video0", "start": 3}, {"sequence": "video1"}])
    venv.reset()
    found = [(info["sequence"], info["frame"]) for info in venv.reset_infos]
    assert found == [("video0", 3), ("video1", 0)]
    venv.close()


def test_attributes_methods_and_pictures(kwargs: dict) -> None:
    venv = make_sb3_env(ID, n_envs=3, tracks_per_clip=3, render_mode="rgb_array", **kwargs)
    assert isinstance(venv, VecEnv)
    assert venv.render_mode == "rgb_array"
    assert venv.get_attr("tracks_per_clip") == [3, 3, 3]
    assert venv.get_attr("tracks_per_clip", indices=[1]) == [3]
    assert not venv.has_attr("action_masks")
    venv.set_attr("label", "run 1")
    assert venv.get_attr("label", indices=0) == ["run 1"]
    venv.reset()
    assert len(venv.env_method("render", indices=[0, 2])) == 2
    pictures = venv.get_images()
    assert [picture.shape for picture in pictures] == [(288, 384, 3)] * 3  # 96x72, four times
    assert venv.render().shape == (2 * 288, 2 * 384, 3)
    assert isinstance(venv.unwrapped.tracks, TrackingVectorEnv)
    venv.close()


def make_small_ppo(venv: VecEnv) -> PPO:
    return PPO(
        "MultiInputPolicy",
        venv,
        n_steps=8,
        batch_size=8,
        n_epochs=1,
        policy_kwargs={
            "net_arch": [16],
            "features_extractor_kwargs": {"cnn_output_dim": 8},
        },
        seed=0,
        device="cpu",
    )


def test_ppo_learns_and_is_evaluated(kwargs: dict) -> None:
    venv = make_sb3_env(ID, n_envs=2, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make_small_ppo(venv)
        model.learn(16)
        evaluated = make_sb3_env(ID, n_envs=2, split="test", **kwargs)
        returns, lengths = evaluate_policy(
            model, evaluated, n_eval_episodes=4, return_episode_rewards=True
        )
    assert model.num_timesteps == 16
    assert len(model.ep_info_buffer) == 4  # two tracks, two whole episodes of four steps each
    assert all(0 <= episode["r"] <= 20 / 21 for episode in model.ep_info_buffer)
    assert lengths == [4] * 4
    assert all(0 <= value <= 20 / 21 for value in returns)
    venv.close()
    evaluated.close()


def test_ppo_takes_an_id() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PPO(
            "MultiInputPolicy",
            "slt_gym:SLTTrack-Synthetic-v0",
            policy_kwargs={"features_extractor_kwargs": {"cnn_output_dim": 8}},
            n_steps=8,
            batch_size=8,
            device="cpu",
        )
    action, _ = model.predict(model.env.reset(), deterministic=True)
    assert action.shape == (1, 4)


def test_refuses_other_environments_and_modes(kwargs: dict) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'Pendulum-v1' is no tracking environment"):
        make_sb3_env("Pendulum-v1")
    with pytest.raises(InvalidArgumentError, match=r"'CartPole-v1' is no tracking environment"):
        make_sb3_env("CartPole-v1")
    with pytest.raises(InvalidArgumentError, match=r"'autoreset_mode' is 'disabled': leave it out"):
        make_sb3_env(ID, autoreset_mode="disabled", **kwargs)
    with pytest.raises(gym.error.NameNotFound, match="SLTTrack-LaSOT"):
        make_sb3_env("SLTTrack-LaSoT-v0")
