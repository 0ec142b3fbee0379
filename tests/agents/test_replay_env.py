"""A replay buffer of references that the callback gives its environment."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from slt_gym.agents import ReferenceReplayBuffer, ReplayEnvCallback, TrackerFeaturesExtractor
from slt_gym.errors import InvalidArgumentError

SMALL = {
    "geometry": "transt-tiny",
    "reward": "overlap",
    "num_frames": 5,
    "dataset_options": {"num_sequences": 4, "num_frames": 20, "width": 160, "height": 120},
}


def make_env(cls: type[VecEnv] = DummyVecEnv) -> VecEnv:
    """Make two single environments with Monitor around, as other programs do."""
    env_id = "slt_gym:SLTTrack-Synthetic-v0"
    return make_vec_env(env_id, n_envs=2, seed=0, env_kwargs=SMALL, vec_env_cls=cls)


def make_model(env: VecEnv) -> SAC:
    return SAC(
        "MultiInputPolicy",
        env,
        buffer_size=40,
        learning_starts=8,
        batch_size=4,
        replay_buffer_class=ReferenceReplayBuffer,
        policy_kwargs={"features_extractor_class": TrackerFeaturesExtractor},
        seed=0,
        device="cpu",
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_buffer_crops_what_single_environments_show(wrapped: bool) -> None:
    env = make_env()
    if wrapped:
        env = VecNormalize(env, norm_obs=False)
    model = make_model(env)
    model.learn(24, callback=ReplayEnvCallback())
    assert model._n_updates > 0
    buffer = model.replay_buffer
    assert buffer is not None
    assert buffer.size() == 12
    # What it would crop from the dataset is what the agent saw last.
    buffer._cache.clear()
    sample = buffer._get_samples(np.full(8, 11))
    shown = sample.next_observations["search"].numpy()
    last = model._last_obs["search"]
    ended = sample.dones.numpy()[:, 0] > 0
    assert all(ended[k] or any(np.array_equal(shown[k], one) for one in last) for k in range(8))
    env.close()


@pytest.mark.slow
def test_the_buffer_reads_by_itself_where_environments_are_processes() -> None:
    env = make_env(SubprocVecEnv)
    model = make_model(env)
    model.learn(16, callback=ReplayEnvCallback())
    assert model._n_updates > 0
    env.close()


def test_another_replay_buffer_is_refused() -> None:
    env = gym.make("slt_gym:SLTTrack-Synthetic-v0", **SMALL)
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, device="cpu")
    with pytest.raises(InvalidArgumentError, match=r"buffer is None.*ReferenceReplayBuffer"):
        model.learn(4, callback=ReplayEnvCallback())
