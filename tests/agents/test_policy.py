from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from tiny import ENV_ID, VIDEO, draw_observation, make_network, make_spaces

from slt_gym.agents import TrackerPolicy, TransTPolicy, save_weights
from slt_gym.envs import make_sb3_env
from slt_gym.envs.actions import box_to_action
from slt_gym.errors import CheckpointError, InvalidArgumentError


def make_policy(**kwargs: Any) -> TransTPolicy:
    torch.manual_seed(0)
    return TransTPolicy(*make_spaces(), **{"tracker": "transt-tiny", **kwargs})


def watch_encode(policy: TransTPolicy, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return the list that the crops of each encoding will be added to."""
    encoded: list[np.ndarray] = []
    encode = policy.encode

    def watch(crops: np.ndarray) -> torch.Tensor:
        encoded.append(crops)
        return encode(crops)

    monkeypatch.setattr(policy, "encode", watch)
    return encoded


def test_the_state_saves_the_encoding_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, obs = make_policy(), draw_observation(3)
    encoded = watch_encode(policy, monkeypatch)
    state = None
    for t in range(3):
        obs = {**draw_observation(3, seed=t), "template": obs["template"]}
        with_state, state = policy.predict(obs, state, deterministic=True)
        without, _ = policy.predict(obs, deterministic=True)
        np.testing.assert_array_equal(with_state, without)
    # The first call, and the three without a state.
    assert [len(crops) for crops in encoded] == [3, 3, 3, 3]


def test_an_episodes_start_encodes_that_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, first, second = make_policy(), draw_observation(3, 1), draw_observation(3, 2)
    _, state = policy.predict(first, deterministic=True)
    kept = state.features.clone()
    encoded = watch_encode(policy, monkeypatch)
    start = np.array([False, True, False])
    actions, after = policy.predict(second, state, start, deterministic=True)
    assert len(encoded) == 1
    np.testing.assert_array_equal(encoded[0], second["template"][1:2])
    # Rows 0 and 2 still look for their old target, and the old state is not written to.
    mixed = {
        **second,
        "template": np.where(start[:, None, None, None], second["template"], first["template"]),
    }
    np.testing.assert_allclose(actions, policy.predict(mixed, deterministic=True)[0], atol=1e-6)
    assert torch.equal(state.features, kept)
    assert torch.equal(after.features[[0, 2]], kept[[0, 2]])
    assert not torch.equal(after.features[1], kept[1])


def test_a_single_observation_gives_a_single_action() -> None:
    policy, obs = make_policy(), draw_observation(2)
    batch, _ = policy.predict(obs, deterministic=True)
    one = {key: value[1] for key, value in obs.items()}
    action, state = policy.predict(one, deterministic=True)
    assert batch.shape == (2, 4)
    assert action.shape == (4,)
    assert action.dtype == np.float32
    assert policy.action_space.contains(action)
    np.testing.assert_allclose(action, batch[1], atol=1e-5)
    again, _ = policy.predict(one, state, np.array([False]), deterministic=True)
    np.testing.assert_array_equal(again, action)


def test_the_action_is_the_most_probable_proposals_box() -> None:
    policy, obs = make_policy(), draw_observation(4)
    with torch.no_grad():
        proposals, distribution = policy.propose(
            policy.encode(obs["template"]), obs["search"], obs["box"]
        )
    index = distribution.log_probs.argmax(dim=1)
    expected = box_to_action(np.stack([proposals.boxes[i, n].numpy() for i, n in enumerate(index)]))
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], expected)


def test_sampling_draws_proposals_from_the_policys_own_generator() -> None:
    obs = draw_observation(16)
    policy = make_policy(seed=5)
    greedy = policy.predict(obs, deterministic=True)[0]
    before = torch.get_rng_state()
    first, second = (policy.predict(obs)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, greedy)
    policy.set_seed(5)
    np.testing.assert_array_equal(policy.predict(obs)[0], first)
    with torch.no_grad():
        proposals, _ = policy.propose(policy.encode(obs["template"]), obs["search"], obs["box"])
    candidates = box_to_action(proposals.boxes.numpy())  # (16, N, 4)
    assert (np.abs(candidates - first[:, None]).max(axis=2).min(axis=1) == 0).all()
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], greedy)


def test_some_tracks_can_be_greedy_while_others_sample() -> None:
    policy, obs = make_policy(), draw_observation(16)
    with torch.no_grad():
        features = policy.encode(obs["template"])
    greedy = np.arange(16) % 2 == 0
    actions, index, distribution = policy.act(features, obs, greedy)
    mode = distribution.mode()
    assert torch.equal(index[greedy], mode[greedy])
    assert not torch.equal(index[~greedy], mode[~greedy])
    assert actions.shape == (16, 4)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (make_spaces("transt")[0], make_spaces()[1], r"geometry='transt-tiny'"),
        (spaces.Box(0, 1, (3,)), make_spaces()[1], r"SLTTrack-"),
        (make_spaces()[0], spaces.Discrete(11), r"action='box'"),
        (make_spaces()[0], spaces.Box(-1, 1, (3,)), r"action='box'"),
    ],
)
def test_a_wrong_environment_is_refused(
    observation_space: spaces.Space, action_space: spaces.Space, words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        TransTPolicy(observation_space, action_space, tracker="transt-tiny")


def test_unknown_trackers_and_fields_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"unknown tracker 'transt-tyny'.*transt-tiny"):
        make_policy(tracker="transt-tyny")
    with pytest.raises(InvalidArgumentError, match=r"unknown field .*'temprature'.*temperature"):
        make_policy(temprature=2.0)


def test_a_saved_policy_acts_the_same(tmp_path: Path) -> None:
    policy = make_policy(window_influence=0.2, seed=9)
    obs = draw_observation(8)
    expected = policy.predict(obs, deterministic=True)[0]
    policy.save(str(tmp_path / "policy.pt"))
    loaded = TransTPolicy.load(str(tmp_path / "policy.pt"))
    assert isinstance(loaded, TransTPolicy)
    assert loaded.network.config == policy.network.config
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    # A fresh generator from the same seed, too.
    policy.set_seed(9)
    np.testing.assert_array_equal(loaded.predict(obs)[0], policy.predict(obs)[0])


def test_the_configuration_stored_with_weights_is_taken_over(tmp_path: Path) -> None:
    network = make_network(seed=4, hidden_dim=32, window_influence=0.1)
    folder = save_weights(
        network, tmp_path / "w", "transt-tiny", {"hidden_dim": 32, "window_influence": 0.1}
    )
    policy = make_policy(weights=folder)
    assert policy.network.config == network.config
    for key, value in network.state_dict().items():
        assert torch.equal(policy.network.state_dict()[key], value)
    assert make_policy(weights=folder, window_influence=0.3).network.config.window_influence == 0.3
    with pytest.raises(CheckpointError, match=r"'transt-tiny', not of 'transt'"):
        TransTPolicy(*make_spaces("transt"), tracker="transt", weights=folder)


def test_batch_norm_statistics_never_change() -> None:
    policy = make_policy()
    before = {name: value.clone() for name, value in policy.named_buffers()}
    assert any("running_mean" in name for name in before)
    for t in range(3):
        policy.predict(draw_observation(2, t))
    for name, value in policy.named_buffers():
        assert torch.equal(value, before[name]), name


def test_the_optimizer_gets_the_networks_groups() -> None:
    policy = make_policy(
        lr_schedule=lambda progress: 2e-3 * progress,
        backbone_lr_scale=0.1,
        optimizer_class=torch.optim.SGD,
        optimizer_kwargs={"momentum": 0.5},
    )
    assert isinstance(policy.optimizer, torch.optim.SGD)
    assert [group["lr"] for group in policy.optimizer.param_groups] == pytest.approx([2e-3, 2e-4])
    assert {group["momentum"] for group in policy.optimizer.param_groups} == {0.5}
    assert not hasattr(make_policy(), "optimizer")


def test_stable_baselines_evaluates_the_policy() -> None:
    torch.manual_seed(0)
    env = make_sb3_env(
        ENV_ID,
        n_envs=2,
        seed=1,
        geometry="transt-tiny",
        num_frames=4,
        threads=1,
        reward="overlap",
        dataset_options=VIDEO,
    )
    policy = TrackerPolicy(env.observation_space, env.action_space, tracker="transt-tiny")
    returns, lengths = evaluate_policy(
        policy, env, n_eval_episodes=4, deterministic=True, return_episode_rewards=True
    )
    env.close()
    assert lengths == [3] * 4
    assert all(0 <= value <= 1 for value in returns)
