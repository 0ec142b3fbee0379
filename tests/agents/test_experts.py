"""Experts: what each of them does in an environment, in every form of actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv
from tiny import ENV_ID, VIDEO

from slt_gym.agents import TrackerFeaturesExtractor, TransTPolicy, create_tracker
from slt_gym.agents.baselines import StaticTracker
from slt_gym.agents.experts import Expert, make_expert
from slt_gym.agents.policy_tracker import PolicyTracker
from slt_gym.data import open_dataset
from slt_gym.envs import make_sb3_env
from slt_gym.envs.action_forms import ACTIONS
from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import iou

KWARGS: dict[str, Any] = {"geometry": "transt-tiny", "num_frames": 6, "dataset_options": VIDEO}


def make_env(n_envs: int = 2, **kwargs: Any) -> VecEnv:
    return make_sb3_env(ENV_ID, n_envs, seed=0, threads=1, **{**KWARGS, **kwargs})


def run(env: VecEnv, expert: Expert, episodes: int) -> list[list[dict[str, Any]]]:
    """Return the infos of each track's first episodes, without those of its starts."""
    obs, start = env.reset(), np.ones(env.num_envs, bool)
    done: list[list[dict[str, Any]]] = []
    running: list[list[dict[str, Any]]] = [[] for _ in range(env.num_envs)]
    while len(done) < episodes:
        actions = expert.act(obs, start)
        assert all(env.action_space.contains(action) for action in actions)
        obs, _, start, infos = env.step(actions)
        for i, info in enumerate(infos):
            running[i].append(info)
            if start[i]:
                done.append(running[i])
                running[i] = []
    env.close()
    return done


@pytest.mark.parametrize("action", ACTIONS)
def test_the_oracle_is_as_good_as_the_form_lets_it_be(action: str) -> None:
    env = make_env(action=action)
    ends = [infos[-1] for infos in run(env, make_expert("oracle", env), 6)]
    # 20/21 is the most; steps of 3 % and a grid of boxes only come near the truth.
    least = {"box": 20 / 21 - 1e-9, "delta": 0.94, "moves": 0.8, "proposals": 0.75}[action]
    assert np.mean([end["auc"] for end in ends]) >= least


def test_the_oracle_stays_where_the_target_is_hidden() -> None:
    # The small target of a crowd is hidden now and then.
    options = {**VIDEO, "num_frames": 40, "occluders": 16, "min_size": 0.12, "max_size": 0.12}
    env = make_env(num_frames=40, dataset_options=options, split="test")
    infos = [info for episode in run(env, make_expert("oracle", env), 8) for info in episode]
    hidden = [k for k in range(1, len(infos)) if not infos[k]["visible"]]
    assert hidden
    for k in hidden:
        if infos[k]["frame"] > infos[k - 1]["frame"]:  # of the same episode
            np.testing.assert_allclose(infos[k]["box"], infos[k - 1]["box"], atol=1e-4)


def test_a_network_of_the_environments_geometry_sees_its_crops() -> None:
    env = make_env(action="delta")
    policy = TransTPolicy(
        env.observation_space,
        spaces.Box(-1, 1, (4,), np.float32),
        tracker="transt-tiny",
        weights="pretrained",
    )
    boxes = [
        [info["box"] for infos in run(env, make_expert(expert, env), 4) for info in infos]
        for env, expert in (
            (make_env(action="delta"), "transt-tiny"),
            (make_env(action="delta"), policy),
            (make_env(action="box"), policy),
        )
    ]
    np.testing.assert_array_equal(boxes[0], boxes[1])
    # Both forms lead to the box that the policy named.
    np.testing.assert_allclose(boxes[1], boxes[2], atol=0.1)


@pytest.mark.parametrize("geometry", ["transt-tiny", "siamrpnpp"])
def test_a_tracker_follows_the_frames_as_it_would_a_video(geometry: str) -> None:
    env = make_env(1, split="test", num_frames=8, geometry=geometry, action="box")
    tracker = create_tracker("transt-tiny", "pretrained")
    (infos,) = run(env, make_expert(tracker, env), 1)
    sequence = open_dataset("synthetic", split="test", **VIDEO).get(infos[0]["sequence"])
    frames = [sequence.read(t) for t in range(8)]
    tracker.init(frames[0], sequence.boxes[0])
    expected = [tracker.update(frame) for frame in frames[1:]]
    np.testing.assert_allclose([info["box"] for info in infos], expected, atol=1e-3)


def test_copies_of_a_tracker_start_where_their_tracks_do() -> None:
    env = make_env(
        2,
        num_frames=12,
        restart=2,
        dataset_options={**VIDEO, "speed": 0.3, "min_size": 0.2, "max_size": 0.2},
    )
    obs, start = env.reset(), np.ones(2, bool)
    expert = make_expert(StaticTracker(), env)
    kept = [info["box"] for info in env.reset_infos]
    failures, restarts = [0, 0], 0
    for _ in range(60):
        obs, _, start, infos = env.step(expert.act(obs, start))
        for i, info in enumerate(infos):
            np.testing.assert_allclose(info["box"], kept[i], atol=1e-3)
            if start[i]:
                kept[i], failures[i] = env.reset_infos[i]["box"], 0
            elif info["failures"] > failures[i]:
                episode = env.get_attr("episodes")[0][i]
                kept[i], failures[i] = episode.box.copy(), info["failures"]
                restarts += 1
    env.close()
    assert restarts


def test_a_model_of_the_same_form_is_asked_as_it_is() -> None:
    env = make_env(action="proposals", split="test")
    model = A2C(
        "MultiInputPolicy",
        env,
        policy_kwargs={"features_extractor_class": TrackerFeaturesExtractor},
        device="cpu",
        seed=0,
    )
    obs = env.reset()
    expected, _ = model.predict(obs, deterministic=True)
    actions = make_expert(model, env).act(obs, np.ones(2, bool))
    np.testing.assert_array_equal(actions, expected)

    # Of another form, it follows the frames.
    other = make_env(action="delta", split="test")
    tracker = PolicyTracker(model, env.get_attr("rules")[0])
    ours = [[i["box"] for i in e] for e in run(other, make_expert(tracker, other), 2)]
    env.seed(0)
    theirs = [[i["box"] for i in e] for e in run(env, make_expert(model, env), 2)]
    assert min(iou(a, b).min() for a, b in zip(ours, theirs, strict=True)) > 0.9


def test_experts_act_in_any_vec_env_of_tracks() -> None:
    env = make_vec_env(ENV_ID, 2, seed=0, env_kwargs=KWARGS)
    ends = [infos[-1] for infos in run(env, make_expert("oracle", env), 4)]
    assert min(end["auc"] for end in ends) >= 20 / 21 - 1e-9


def test_what_is_no_expert_is_refused() -> None:
    env = make_env(geometry="transt")
    with pytest.raises(InvalidArgumentError, match=r"unknown expert 'orakle'.*mean 'oracle'"):
        make_expert("orakle", env)
    with pytest.raises(InvalidArgumentError, match="argument 'expert' is 3: accepted are"):
        make_expert(3, env)  # type: ignore[arg-type]
    other = make_env()
    policy = TransTPolicy(other.observation_space, other.action_space, tracker="transt-tiny")
    with pytest.raises(InvalidArgumentError, match=r"looks at 'search'.*geometry='transt-tiny'"):
        make_expert(policy, env)
    model = A2C("MultiInputPolicy", make_env(action="moves"), device="cpu")
    with pytest.raises(InvalidArgumentError, match="the expert's action_space is Discrete"):
        make_expert(model, other)
    with pytest.raises(InvalidArgumentError, match="experts act in tracking environments"):
        make_expert("oracle", make_vec_env("CartPole-v1"))
    with pytest.raises(InvalidArgumentError, match="reset it first"):
        make_expert("oracle", other).act({}, np.ones(2, bool))
