"""Behaviour cloning: what it learns from, what it learns, and what it keeps."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv
from tiny import ENV_ID, VIDEO

from slt_gym.agents import BehaviourCloning, TrackerActorCriticPolicy, TrackerFeaturesExtractor
from slt_gym.agents.baselines import StaticTracker
from slt_gym.agents.experts import Expert
from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError

EXTRACTOR = {
    "features_extractor_class": TrackerFeaturesExtractor,
    "features_extractor_kwargs": {"hidden": 8, "channels": 4},
}


def make_env(action: str = "delta", n_envs: int = 2, **kwargs: Any) -> VecEnv:
    defaults = {"geometry": "transt-tiny", "num_frames": 6, "dataset_options": VIDEO, "threads": 1}
    return make_sb3_env(ENV_ID, n_envs, action=action, **{**defaults, **kwargs})


def make_model(env: VecEnv | None, **kwargs: Any) -> BehaviourCloning:
    defaults = {"n_steps": 4, "batch_size": 8, "gradient_steps": 2, "seed": 0, "device": "cpu"}
    defaults |= {"policy_kwargs": EXTRACTOR, "replay_buffer_kwargs": {"threads": 1}}
    return BehaviourCloning("MultiInputPolicy", env, **{**defaults, **kwargs})


class _Mean:
    """An expert of constant actions."""

    def __init__(self, action: Any) -> None:
        self.action = np.array(action)

    def act(self, observation: Any, episode_start: np.ndarray) -> np.ndarray:
        del observation
        return np.stack([self.action] * len(episode_start))


Expert.register(_Mean)


@pytest.mark.parametrize(
    ("action", "wanted"), [("delta", np.float32([0.3, -0.2, 0.1, 0.0])), ("moves", 10)]
)
def test_it_learns_the_experts_actions(action: str, wanted: Any) -> None:
    model = make_model(make_env(action), expert=_Mean(wanted), learning_rate=1e-2)
    errors, losses = [], []

    def watch(local: dict[str, Any], _: dict[str, Any]) -> bool:
        logged = local["self"].logger.name_to_value
        if "train/loss" in logged:
            losses.append(logged["train/loss"])
            errors.append(logged.get("train/action_error", logged.get("train/accuracy")))
        return True

    model.learn(240, callback=watch, log_interval=0)
    assert model.num_timesteps == 240
    assert model._n_updates == 60
    assert losses[-1] < losses[0] - 0.5
    if action == "delta":
        assert errors[-1] < errors[0] / 3
        assert errors[-1] < 0.06
    else:
        assert errors[-1] == 1.0
    actions, _ = model.predict(model.env.reset(), deterministic=True)
    np.testing.assert_allclose(actions, np.stack([wanted] * 2), atol=0.1)


def test_steps_are_those_of_the_expert_and_labels_are_its_actions() -> None:
    env = make_env("delta")
    model = make_model(env, expert="oracle", replay_buffer_kwargs={"cache_bytes": 0, "threads": 1})
    taken: dict[bytes, np.ndarray] = {}
    step = env.step

    def watch(actions: np.ndarray) -> Any:
        for search, action in zip(model._last_obs["search"], actions, strict=True):
            taken[search.tobytes()] = action
        return step(actions)

    env.step = watch
    model.learn(40)
    episodes = list(model.ep_info_buffer)
    assert len(episodes) == 8
    assert min(episode["r"] for episode in episodes) > 0.9
    memory = model.replay_buffer
    assert memory.size() * memory.n_envs == 40
    obs, actions = memory.sample_actions(16, np.random.default_rng(0))
    assert {key: value.shape[0] for key, value in obs.items()} == dict.fromkeys(obs, 16)
    for search, action in zip(obs["search"].numpy(), actions.numpy(), strict=True):
        np.testing.assert_array_equal(action, taken[search.tobytes()])


def test_with_beta_zero_the_learner_acts_and_the_expert_labels() -> None:
    env, taken = make_env("delta"), []
    step = env.step
    env.step = lambda actions: (taken.append(actions.copy()), step(actions))[1]
    model = make_model(env, expert=_Mean(np.float32([0.5, 0, 0, 0])), beta=0.0, learning_rate=1e-9)
    obs = model.env.reset()
    model.learn(8)
    own, _ = model.predict(obs, deterministic=True)
    assert np.abs(own).max() < 0.3
    assert np.abs(np.array(taken)[..., 0]).max() < 0.3
    np.testing.assert_array_equal(model.replay_buffer.actions[:4, :, 0], 0.5)


def test_beta_mixes_both_and_may_follow_the_progress() -> None:
    env, taken = make_env("delta"), []
    step = env.step
    env.step = lambda actions: (taken.append(actions.copy()), step(actions))[1]
    expert = _Mean(np.float32([0.9, 0, 0, 0]))
    model = make_model(env, expert=expert, beta=lambda left: left, learning_rate=1e-9)
    model.learn(160)
    experts = np.isclose(np.array(taken)[..., 0], 0.9).mean(axis=1)  # (80,)
    assert experts[:4].all()
    assert experts[:40].mean() > 0.6
    assert 0 < experts[40:].mean() < 0.45


def test_the_same_seed_learns_the_same() -> None:
    weights = []
    for _ in range(2):
        model = make_model(make_env(), beta=0.5).learn(32)
        weights.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert torch.equal(*weights)


def test_save_load_and_go_on(tmp_path: Path) -> None:
    env = make_env()
    model = make_model(env, beta=0.5)
    sizes = []
    for steps in (0, 16):
        model.learn(steps).save(tmp_path / "model")
        with zipfile.ZipFile(tmp_path / "model.zip") as saved:
            sizes.append(len(saved.read("data")))
    assert sizes[1] < sizes[0] + 20_000  # neither observations nor memory
    loaded = BehaviourCloning.load(tmp_path / "model", device="cpu")
    obs = env.reset()
    expected = model.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    assert (loaded.expert, loaded.beta, loaded.num_timesteps) == ("oracle", 0.5, 16)
    with pytest.raises(InvalidArgumentError, match="neither an environment nor demonstrations"):
        loaded.learn(8)
    loaded.set_env(make_env())
    loaded.learn(8, reset_num_timesteps=False)
    assert loaded.num_timesteps == 24

    make_model(env, expert=StaticTracker()).save(tmp_path / "static")
    with pytest.raises(InvalidArgumentError, match="give it again"):
        BehaviourCloning.load(tmp_path / "static", env=env, device="cpu").learn(8)
    again = BehaviourCloning.load(tmp_path / "static", env=env, device="cpu", expert="static")
    assert again.learn(8).num_timesteps == 8


def test_a_tracker_learns_from_the_oracle_and_ppo_takes_over() -> None:
    env = make_env("box")
    policy_kwargs = {"tracker": "transt-tiny", "weights": "pretrained"}
    kwargs: dict[str, Any] = {"policy_kwargs": policy_kwargs, "device": "cpu", "n_steps": 4}
    model = BehaviourCloning(
        TrackerActorCriticPolicy, env, batch_size=4, gradient_steps=1, **kwargs
    )
    before = [p.clone() for p in model.policy.network.parameters() if p.requires_grad]
    model.learn(16)
    after = [p for p in model.policy.network.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    ppo = PPO(TrackerActorCriticPolicy, env, batch_size=8, **kwargs)
    ppo.policy.load_state_dict(model.policy.state_dict())
    obs = env.reset()
    ours, theirs = (m.predict(obs, deterministic=True)[0] for m in (model, ppo))
    np.testing.assert_array_equal(ours, theirs)


def test_an_id_makes_the_environment() -> None:
    assert isinstance(make_model(ENV_ID).action_space, spaces.Box)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta": 1.5}, "argument 'beta' is 1.5"),
        ({"n_steps": 0}, "argument 'n_steps' is 0"),
        ({"batch_size": 0}, "argument 'batch_size' is 0"),
        ({"gradient_steps": -1}, "argument 'gradient_steps' is -1"),
        ({"env": None}, "give env or demonstrations"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    env = kwargs.pop("env") if "env" in kwargs else make_env()
    with pytest.raises(InvalidArgumentError, match=message):
        make_model(env, **kwargs)


def test_policies_without_a_likelihood_are_refused() -> None:
    policy = SAC.policy_aliases["MultiInputPolicy"]
    with pytest.raises(InvalidArgumentError, match="sub-classes of ActorCriticPolicy"):
        BehaviourCloning(policy, make_env(), device="cpu")


@pytest.mark.slow
def test_a_clone_of_the_oracle_beats_the_static_box() -> None:
    video = {"width": 128, "height": 96, "num_frames": 16, "speed": 0.08, "occluders": 0}
    kwargs = {"num_frames": 12, "n_envs": 8, "dataset_options": video}
    model = make_model(
        make_env(**kwargs),
        learning_rate=1e-3,
        n_steps=16,
        batch_size=32,
        gradient_steps=12,
        policy_kwargs={"features_extractor_class": TrackerFeaturesExtractor},
    )
    held_out = {**kwargs, "split": "test", "dataset_options": {**video, "num_sequences": 24}}

    def score(tracker: Any) -> float:
        return float(evaluate_policy(tracker, make_env(**held_out), 24, deterministic=True)[0])

    class Static:
        def predict(self, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
            return np.zeros((8, 4), np.float32), None

    untrained = score(model)
    model.learn(2048)
    trained, static = score(model), score(Static())
    assert trained > static + 0.04
    assert trained > untrained + 0.04
