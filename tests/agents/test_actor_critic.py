from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import VecEnv
from tiny import ENV_ID, VIDEO, draw_observation, make_network, make_spaces

from slt_gym.agents import (
    TrackerActorCriticPolicy,
    TrackerPolicy,
    create_tracker,
    load_weights,
    save_weights,
)
from slt_gym.agents.beta import BetaDistribution
from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError

TRACKERS = ["transt-tiny", "siamrpnpp-tiny", "siamattn-tiny", "trdimp-tiny"]


def make_policy(tracker: str = "transt-tiny", **kwargs: Any) -> TrackerActorCriticPolicy:
    torch.manual_seed(0)
    spaces = make_spaces(tracker)
    return TrackerActorCriticPolicy(*spaces, lambda _: 1e-3, **{"tracker": tracker, **kwargs})


def make_env(n_envs: int = 2, **kwargs: Any) -> VecEnv:
    kwargs = {"geometry": "transt-tiny", "dataset_options": VIDEO, **kwargs}
    return make_sb3_env(ENV_ID, n_envs=n_envs, seed=0, num_frames=4, threads=1, **kwargs)


def observe(tracker: str, count: int = 3) -> dict[str, np.ndarray]:
    """Draw observations of a tracker's space: noise for pixels, plausible boxes."""
    space, _ = make_spaces(tracker)
    rng = np.random.default_rng(0)
    boxes = {key: rng.uniform(0.2, 0.5, (count, 4)).astype(np.float32) for key in space}
    images = {
        key: rng.integers(0, 256, (count, *space[key].shape), np.uint8)
        for key in ("template", "search")
    }
    return {**boxes, **images}


def to_tensors(observation: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Convert observations as rollout buffers do: every number is a float."""
    return {key: torch.as_tensor(value).float() for key, value in observation.items()}


@pytest.mark.parametrize("distribution", ["gaussian", "beta"])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_deterministic_predictions_are_the_trackers_own(tracker: str, distribution: str) -> None:
    policy = make_policy(tracker, distribution=distribution)
    alone = TrackerPolicy(*make_spaces(tracker), tracker=tracker)
    alone.network.load_state_dict(policy.network.state_dict())
    observation = observe(tracker)
    expected, _ = alone.predict(observation, deterministic=True)
    for _ in range(2):  # TrDiMP draws: the same in each call
        actions, _ = policy.predict(observation, deterministic=True)
        np.testing.assert_array_equal(actions, expected)
    # With gradients, too: the scores' surrogate adds nothing.
    actions, _, _ = policy.forward(to_tensors(observation), deterministic=True)
    assert actions.requires_grad
    np.testing.assert_allclose(actions.detach(), expected, atol=1e-6)


@pytest.mark.parametrize("distribution", ["gaussian", "beta"])
def test_samples_scatter_around_the_estimate(distribution: str) -> None:
    policy = make_policy(distribution=distribution, log_std_init=-4.0)
    one = draw_observation(1)
    greedy, _ = policy.predict(one, deterministic=True)
    with torch.no_grad():
        scattered = policy.get_distribution(to_tensors(one))
        actions = torch.cat([scattered.sample() for _ in range(1000)]).numpy()
    std = np.full(4, np.exp(-4))
    if distribution == "beta":  # narrower towards the space's ends
        std = std * np.sqrt(1 - greedy[0] ** 2)
    np.testing.assert_allclose(actions.std(0), std, rtol=0.15)
    np.testing.assert_allclose(actions.mean(0), greedy[0], atol=4 * std.max() / np.sqrt(1000))


@pytest.mark.parametrize("distribution", ["gaussian", "beta"])
def test_actions_are_evaluated_as_they_were_drawn(distribution: str) -> None:
    policy = make_policy(distribution=distribution)
    observation = draw_observation(4)
    with torch.no_grad():
        given = policy.obs_to_tensor(observation)[0]
        actions, values, log_prob = policy.forward(given)
        again = policy.evaluate_actions(to_tensors(observation), actions)
    torch.testing.assert_close(again[0], values)
    torch.testing.assert_close(again[1], log_prob)
    torch.testing.assert_close(policy.predict_values(given), values)
    assert again[2].shape == (4,)


def test_boxes_and_scores_learn_from_the_actions() -> None:
    policy = make_policy()
    observation = to_tensors(draw_observation(4))
    actions = policy.forward(observation)[0].detach()
    policy.evaluate_actions(observation, actions)[1].sum().backward()
    for part in ("class_embed", "bbox_embed", "backbone"):
        gradients = [p.grad for p in getattr(policy.network, part).parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), part


def test_scores_move_towards_proposals_that_lie_where_the_advantage_is() -> None:
    policy = make_policy()
    observation = to_tensors(draw_observation(1))

    def expect() -> float:
        """Return the horizontal centre, averaged over the proposals."""
        inner = policy.features_extractor.policy
        with torch.no_grad():
            features = inner.encode(observation["template"].to(torch.uint8))
            search = observation["search"].to(torch.uint8)
            proposals, distribution = inner.propose(features, search, observation["box"])
            centre = proposals.boxes[..., 0] + proposals.boxes[..., 2] / 2
        return float((distribution.log_probs.exp() * centre).sum())

    before = expect()
    # Only what the scores alone are made of learns, so that no box moves.
    learning = torch.optim.SGD(policy.network.class_embed.parameters(), lr=0.1)
    mean = policy.forward(observation, deterministic=True)[0].detach()
    for _ in range(5):
        learning.zero_grad()
        right = mean + torch.tensor([0.01, 0, 0, 0])
        (-policy.evaluate_actions(observation, right)[1]).sum().backward()
        learning.step()
    assert expect() > before + 1e-6


def test_the_critics_loss_leaves_the_tracker_alone() -> None:
    policy = make_policy()
    policy.predict_values(to_tensors(draw_observation(3))).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.network.parameters())
    assert all(p.grad.any() for p in policy.value_net.parameters())


def test_the_trackers_rates_are_scaled_in_every_step_and_no_further() -> None:
    policy = make_policy(
        tracker_lr_scale=0.25, backbone_lr_scale=0.1, optimizer_class=torch.optim.SGD
    )
    groups = policy.optimizer.param_groups
    assert [group["lr_scale"] for group in groups] == pytest.approx([0.25, 0.025, 1.0])
    assert sum(len(g["params"]) for g in groups) == len(list(policy.parameters()))
    before = [group["params"][0].detach().clone() for group in groups]
    for _ in range(2):  # as the algorithms set it
        for group in groups:
            group["lr"] = 0.5
        for group in groups:
            group["params"][0].grad = torch.ones_like(group["params"][0])
        policy.optimizer.step()
    moved = [
        float((b - g["params"][0].detach()).mean()) for b, g in zip(before, groups, strict=True)
    ]
    assert moved == pytest.approx([0.25, 0.025, 1.0], rel=1e-3)
    assert [group["lr"] for group in groups] == pytest.approx([0.5] * 3)


def test_the_tracker_stays_in_eval_mode_and_its_statistics_fixed() -> None:
    policy = make_policy()
    before = {name: value.clone() for name, value in policy.network.named_buffers()}
    policy.set_training_mode(True)
    assert policy.value_net.training
    assert not any(module.training for module in policy.network.modules())
    policy.forward(to_tensors(draw_observation(2)))
    for name, value in policy.network.named_buffers():
        assert torch.equal(value, before[name]), name


def test_frozen_parameters_are_left_out_of_those_that_learn() -> None:
    policy = make_policy("siamrpnpp-tiny", frozen=("conv1", "bn1"))
    frozen = [p for p in policy.network.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.requires_grad for p in policy.parameters())
    assert any("conv1" in name for name in policy.state_dict())


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"distribution": "cauchy"}, r"unknown distribution 'cauchy'.*beta.*gaussian"),
        ({"use_sde": True}, r"'use_sde' is True"),
        ({"tracker": "transt"}, r"geometry='transt'"),
        ({"temprature": 2.0}, r"unknown field .*'temprature'"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        TrackerActorCriticPolicy(
            *make_spaces(), lambda _: 1e-3, **{"tracker": "transt-tiny", **kwargs}
        )


def test_other_forms_of_action_are_refused() -> None:
    env = make_env(action="moves")
    with pytest.raises(InvalidArgumentError, match=r"action='box'"):
        PPO(TrackerActorCriticPolicy, env, policy_kwargs={"tracker": "transt-tiny"}, device="cpu")
    env.close()


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_a_fine_tuned_tracker_is_saved_loaded_and_tracks(
    algorithm: type[PPO] | type[A2C], tmp_path: Path
) -> None:
    env = make_env()
    policy_kwargs = {"tracker": "transt-tiny", "weights": "pretrained", "distribution": "beta"}
    model = algorithm(
        TrackerActorCriticPolicy,
        env,
        policy_kwargs=policy_kwargs,
        n_steps=8,
        learning_rate=1e-3,
        seed=0,
        device="cpu",
        **({"batch_size": 8, "n_epochs": 2} if algorithm is PPO else {}),
    )
    base = make_network()
    load_weights(base, "pretrained", "transt-tiny")
    for key, value in model.policy.network.state_dict().items():
        assert torch.equal(value, base.state_dict()[key])
    model.learn(32)
    changed = [
        key
        for key, value in model.policy.network.state_dict().items()
        if not torch.equal(value, base.state_dict()[key])
    ]
    assert any(key.startswith("class_embed") for key in changed)
    assert any(key.startswith("backbone") for key in changed)
    assert not any("running" in key for key in changed)
    observation = env.reset()
    expected, _ = model.predict(observation, deterministic=True)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)
    # The policy alone, and the tracker alone.
    model.policy.save(str(tmp_path / "policy.pt"))
    policy = TrackerActorCriticPolicy.load(str(tmp_path / "policy.pt"))
    np.testing.assert_array_equal(policy.predict(observation, deterministic=True)[0], expected)
    assert policy.distribution == "beta"
    p = model.policy
    folder = save_weights(p.network, tmp_path / "weights", p.tracker, p.overrides)
    tracker = create_tracker("transt-tiny", weights=folder)
    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    tracker.init(frame, (40, 40, 30, 20))
    assert np.isfinite(tracker.update(frame)).all()
    env.close()


def test_trpo_fine_tunes_through_second_derivatives() -> None:
    contrib = pytest.importorskip("sb3_contrib", reason="TRPO is sb3-contrib's")
    env = make_env()
    policy_kwargs = {"tracker": "transt-tiny", "distribution": "beta"}
    model = contrib.TRPO(
        TrackerActorCriticPolicy,
        env,
        n_steps=2,
        batch_size=4,
        cg_max_steps=2,
        n_critic_updates=1,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )
    # TRPO takes one derivative for each parameter: the fewer, the faster.
    model.policy.network.backbone.requires_grad_(False)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(4)
    found = model.logger.name_to_value
    assert found["train/is_line_search_success"] == 1
    assert 0 < found["train/kl_divergence_loss"] < model.target_kl
    changed = {
        key for key, v in model.policy.state_dict().items() if not torch.equal(v, before[key])
    }
    assert any("bbox_embed" in key for key in changed)
    assert any("class_embed" in key for key in changed)
    assert any(key.startswith("value_net") for key in changed)
    assert any("featurefusion" in key for key in changed)
    assert not any("backbone" in key for key in changed)
    env.close()


class TestBeta:
    def make(self, mode: float, std: float) -> BetaDistribution:
        modes = torch.full((1, 2), mode)
        return BetaDistribution(2).proba_distribution(modes, torch.tensor([std, std]).log())

    @pytest.mark.parametrize("mode", [-1.0, -0.75, 0.0, 0.4, 1.0])
    def test_the_density_integrates_to_one_and_is_highest_at_the_mode(self, mode: float) -> None:
        distribution = self.make(mode, 0.1)
        x = torch.linspace(-1, 1, 4001)
        density = distribution.log_prob(x[:, None].expand(-1, 2)).exp().sqrt()  # of one number
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=0.01)
        assert float(x[density.argmax()]) == pytest.approx(mode, abs=1e-3)
        assert torch.equal(distribution.mode(), torch.full((1, 2), mode))
        entropy = -torch.trapezoid(density * density.clamp(min=1e-30).log(), x)
        assert float(distribution.entropy()) == pytest.approx(2 * float(entropy), abs=0.02)

    def test_the_standard_deviation_is_the_one_given_at_the_middle(self) -> None:
        x = torch.linspace(-1, 1, 20001)
        density = self.make(0.0, 0.05).log_prob(x[:, None].expand(-1, 2)).exp().sqrt()
        assert float(torch.trapezoid(density * x**2, x)) == pytest.approx(0.05**2, rel=0.01)

    def test_wide_ones_are_uniform(self) -> None:
        distribution = self.make(0.3, 5.0)
        actions = torch.tensor([[-1.0, 1.0], [0.0, 0.3]])
        torch.testing.assert_close(
            distribution.log_prob(actions), torch.full((2,), -2 * np.log(2), dtype=torch.float32)
        )

    @pytest.mark.parametrize("mode", [-1.0, 0.2, 1.0])
    def test_samples_stay_inside_and_have_finite_densities(self, mode: float) -> None:
        torch.manual_seed(0)
        distribution = self.make(mode, 0.02)
        samples = torch.cat([distribution.sample() for _ in range(200)])
        assert samples.abs().max() <= 1
        assert torch.isfinite(distribution.log_prob(samples)).all()
