"""SLT's settings that make other algorithms of it, against formulas written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from test_slt_update import draw_rollout
from tiny import make_slt

from slt_gym.agents import SLT, Proposals
from slt_gym.agents.critic import ProposalCritic
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.objective import policy_loss
from slt_gym.agents.rollout import advantages
from slt_gym.envs.rewards import success_auc
from slt_gym.errors import InvalidArgumentError

GRPO: dict[str, Any] = {
    "baseline": "group",
    "n_samples": 3,
    "n_epochs": 2,
    "clip_range": 0.2,
    "kl_weight": 0.04,
}
ACTOR_CRITIC: dict[str, Any] = {
    "baseline": "critic",
    "reward_to_go": True,
    "gae_lambda": 0.9,
    "entropy_weight": 0.01,
}


class Records(KVWriter):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


def learn(updates: int = 1, **kwargs: Any) -> tuple[SLT, dict[str, Any]]:
    """Train for some updates; return the model and what it recorded last."""
    model, records = make_slt(**kwargs), Records()
    model.set_logger(Logger(None, [records]))
    model.learn(updates * model.env.num_envs * 3)
    return model, records.rows[-1]


def stub(monkeypatch: pytest.MonkeyPatch, model: SLT, logits: torch.Tensor) -> None:
    """Let the policy propose with these logits, one row a frame of ``draw_rollout``."""
    boxes = torch.full((*logits.shape, 4), 0.25, dtype=logits.dtype)
    proposals = Proposals(logits, boxes)
    monkeypatch.setattr(model.policy.network, "encode", lambda template: template)
    monkeypatch.setattr(
        model.policy, "propose", lambda *_: (proposals, ProposalDistribution(logits, proposals))
    )


def test_the_clipped_loss_is_ppos() -> None:
    # Ratios below, in and above the range, with advantages of both signs.
    ratio = np.array([0.5, 0.5, 0.9, 0.9, 1.1, 1.1, 1.7, 1.7])
    advantage = np.array([2.0, -2.0] * 4)
    old = np.full(8, -1.3)
    log_prob = torch.from_numpy(old + np.log(ratio)).requires_grad_()
    terms = policy_loss(log_prob, torch.from_numpy(advantage), torch.from_numpy(old), 0.2)
    terms["policy_gradient_loss"].backward()
    clipped = np.array([0.8, 0.8, 0.9, 0.9, 1.1, 1.1, 1.2, 1.2])
    expected = -np.minimum(ratio * advantage, clipped * advantage).mean()
    assert terms["policy_gradient_loss"].item() == pytest.approx(expected, rel=1e-12)
    # What is out of range teaches only where that leads back.
    teaches = np.array([1, 0, 1, 1, 1, 1, 0, 1])
    np.testing.assert_allclose(log_prob.grad, -advantage * ratio * teaches / 8, atol=1e-12)
    assert terms["clip_fraction"].item() == pytest.approx(0.5)
    assert terms["approx_kl"].item() == pytest.approx((ratio - 1 - np.log(ratio)).mean())


def test_the_group_baseline_is_grpos() -> None:
    rollout = draw_rollout(frames=3, clips=2, samples=4)
    advantage = advantages(rollout, "group")
    returns = rollout.rewards.sum(axis=0)
    for t, c, s in np.ndindex(3, 2, 4):
        expected = (returns[c, s] - np.mean(returns[c])) / np.std(returns[c])
        assert advantage[t, c, s] == pytest.approx(expected, rel=1e-4)
    rollout.rewards[:] = rollout.rewards[:, :, :1] + 1e-15 * np.arange(4)
    np.testing.assert_allclose(advantages(rollout, "group"), 0, atol=1e-8)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_generalised_advantages_are_sums_of_errors(gae_lambda: float) -> None:
    rollout = draw_rollout(frames=4, clips=2, samples=1)
    rollout.values = np.random.default_rng(1).uniform(0, 1, (4, 2, 1))
    rollout.alive[2:, 1] = False
    rollout.rewards[~rollout.alive] = 0
    advantage = advantages(rollout, "critic", reward_to_go=True, gae_lambda=gae_lambda)
    for c, end in ((0, 4), (1, 2)):
        value = [*rollout.values[:end, c, 0], 0.0]
        error = [rollout.rewards[t, c, 0] + value[t + 1] - value[t] for t in range(end)]
        for t in range(end):
            expected = sum(gae_lambda ** (k - t) * error[k] for k in range(t, end))
            assert advantage[t, c, 0] == pytest.approx(expected, abs=1e-12)
        if gae_lambda == 1:
            to_go = rollout.rewards[:, c, 0].sum()
            assert advantage[0, c, 0] == pytest.approx(to_go - value[0], abs=1e-12)


def test_the_critic_pools_what_is_proposed() -> None:
    torch.manual_seed(0)
    critic = ProposalCritic(8).double()
    logits = torch.randn(3, 5, dtype=torch.float64)
    proposals = Proposals(torch.randn(3, 5).double(), torch.rand(3, 5, 4).double())
    box, frame = torch.rand(3, 4).double(), torch.tensor([0, 3, 9])
    distribution = ProposalDistribution(logits, proposals)
    values = critic(proposals, distribution, box, frame)
    p = torch.softmax(logits, dim=1)
    for b in range(3):
        mean = weighted = torch.zeros(8, dtype=torch.float64)
        for n in range(5):
            seen = torch.stack([proposals.scores[b, n] / 10, p[b, n].log() / 10])
            feature = critic.features(torch.cat([seen, proposals.boxes[b, n]]))
            mean, weighted = mean + feature / 5, weighted + p[b, n] * feature
        context = torch.cat([box[b], torch.log(1 + frame[b : b + 1].double())])
        torch.testing.assert_close(
            values[b], critic.value(torch.cat([mean, weighted, context]))[0], rtol=1e-9, atol=1e-12
        )
    # The order of the proposals does not matter.
    order = torch.tensor([3, 1, 4, 0, 2])
    other = Proposals(proposals.scores[:, order], proposals.boxes[:, order])
    again = critic(other, ProposalDistribution(logits[:, order], other), box, frame)
    torch.testing.assert_close(again, values)


def test_the_value_loss_teaches_the_critic_alone() -> None:
    model = make_slt(
        baseline="critic", n_clips=2, policy_weight=0.0, loss_weights={}, value_weight=3.0
    )
    model.policy.double()
    rollout = draw_rollout(frames=2, clips=2)
    rollout.values = np.zeros(rollout.rewards.shape)
    advantage = advantages(rollout, "critic")
    terms = model.loss(rollout, advantage, rollout.alive, slice(0, 2))
    terms["loss"].backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.policy.parameters())
    assert all(p.grad is not None for p in model.critic.parameters())

    features = model.policy.encode(rollout.template)
    errors = []
    for t, c, s in np.ndindex(rollout.rewards.shape):
        crop = rollout.search[t, c, s][None], rollout.box[t, c, s][None]
        proposals, distribution = model.policy.propose(features[c : c + 1], *crop)
        box = torch.from_numpy(rollout.box[t, c, s][None])
        value = model.critic(proposals, distribution, box, torch.tensor([t]))
        errors.append((value[0] - rollout.rewards[:, c, s].sum()) ** 2)  # the whole return
    expected = torch.stack(errors).mean()
    assert terms["value_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx(3 * expected.item(), rel=1e-5)
    gradient = torch.autograd.grad(3 * expected, list(model.critic.parameters()))
    for parameter, wanted in zip(model.critic.parameters(), gradient, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)


def test_penalties_are_their_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_slt(loss_weights={}, policy_weight=0.0, entropy_weight=0.3, kl_weight=0.7)
    rollout = draw_rollout(frames=2, clips=2)
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.standard_normal((4, 144))).requires_grad_()
    base_logits = torch.from_numpy(rng.standard_normal((4, 144)))
    stub(monkeypatch, model, logits)
    monkeypatch.setattr(model.base_policy.network, "encode", lambda template: template)
    monkeypatch.setattr(
        model.base_policy, "propose", lambda *_: (None, ProposalDistribution(base_logits))
    )
    terms = model.loss(rollout, np.zeros((2, 2, 1)), rollout.alive, slice(0, 2))
    terms["loss"].backward()
    p, q = torch.softmax(logits.detach(), 1).numpy(), torch.softmax(base_logits, 1).numpy()
    entropy = -(p * np.log(p)).sum(1)
    divergence = (p * np.log(p / q)).sum(1)
    assert terms["entropy_loss"].item() == pytest.approx(-entropy.mean())
    assert terms["kl_to_base"].item() == pytest.approx(divergence.mean())
    expected = 0.3 * p * (np.log(p) + entropy[:, None])
    expected += 0.7 * p * (np.log(p / q) - divergence[:, None])
    np.testing.assert_allclose(logits.grad, expected / 4, atol=1e-14)


def test_on_the_policys_own_actions_the_clipped_gradient_is_reinforces() -> None:
    collected = []
    for clip_range in (None, 0.2):
        model = make_slt(clip_range=clip_range, loss_weights={}, n_samples=2)
        seen: list[Any] = []
        model.train = seen.append  # type: ignore[method-assign]
        model.learn(1)
        rollout = seen[0]
        rollout.rewards += np.linspace(0, 1, rollout.rewards.size).reshape(rollout.rewards.shape)
        advantage = advantages(rollout, "greedy")
        terms = model.loss(rollout, advantage, rollout.alive, slice(0, 2))
        terms["loss"].backward()
        collected.append([p.grad.clone() for p in model.policy.parameters() if p.grad is not None])
    # What exploration noted is what the update finds, up to rounding.
    assert terms["clip_fraction"].item() == 0
    assert terms["approx_kl"].item() == pytest.approx(0, abs=1e-6)
    scale = max(gradient.abs().max() for gradient in collected[0])
    for plain, clipped in zip(*collected, strict=True):
        torch.testing.assert_close(clipped, plain, rtol=1e-3, atol=1e-4 * float(scale))


def test_each_epoch_is_a_step_on_the_whole_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}}
    kwargs: dict[str, Any] = {
        "loss_weights": {},
        "policy_weight": 1.0,
        "clip_range": 0.2,
        "max_grad_norm": 1e9,
        "micro_batch": 2,
        "policy_kwargs": plain,
    }
    model = make_slt(n_epochs=4, learning_rate=1.0, **kwargs)
    records = Records()
    model.set_logger(Logger(None, [records]))
    rollout = draw_rollout(frames=1, clips=2)
    rollout.rewards[:] = [[[1.0], [0.0]]]
    rollout.greedy_rewards[:] = 0.5
    logits = torch.nn.Parameter(torch.zeros(2, 144, dtype=torch.float64))
    rollout.log_prob = np.full((1, 2, 1), -np.log(144))
    stub(monkeypatch, model, logits)
    monkeypatch.setattr(model.policy, "parameters", lambda: iter([logits]))
    model.policy.optimizer.param_groups[0]["params"] = [logits]
    model.train(rollout)

    theirs = np.zeros((2, 144))
    chosen = np.eye(144)[rollout.index.reshape(-1)]
    out = 0
    for _ in range(4):
        p = np.exp(theirs) / np.exp(theirs).sum(1, keepdims=True)
        ratio = (p * chosen).sum(1, keepdims=True) * 144
        sign = np.array([[0.5], [-0.5]])
        teaches = np.where(sign > 0, ratio < 1.2, ratio > 0.8)
        out = np.mean(np.abs(ratio - 1) > 0.2)
        theirs += sign * ratio * teaches * (chosen - p) / 2
    np.testing.assert_allclose(logits.detach(), theirs, atol=1e-12)
    assert model._n_updates == 4
    model.logger.dump(0)
    assert records.rows[-1]["train/clip_fraction"] == pytest.approx(out)
    assert out > 0


@pytest.mark.parametrize("settings", [GRPO, ACTOR_CRITIC], ids=["grpo", "actor-critic"])
def test_variants_train_log_and_go_on_after_a_load(settings: Any, tmp_path: Path) -> None:
    model, row = learn(2, **settings)
    assert np.isfinite([row["train/loss"], row["train/grad_norm"]]).all()
    assert "rollout/greedy_auc" not in row
    assert model.env.num_envs == 2 * settings.get("n_samples", 1)
    if "clip_range" in settings:
        assert row["train/n_updates"] == 4
        assert row["train/approx_kl"] > 0
        assert 0 <= row["train/clip_fraction"] <= 1
        assert row["train/kl_to_base"] > 0
    else:
        assert row["train/value_loss"] > 0
        assert row["train/explained_variance"] <= 1
        assert row["train/entropy_loss"] == pytest.approx(-row["train/entropy"], rel=0.05)
    model.save(tmp_path / "run")
    loaded = SLT.load(tmp_path / "run", device="cpu")
    ours, theirs = model.get_parameters(), loaded.get_parameters()
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"policy.optimizer"}:
        for key, value in ours[name].items():
            assert torch.equal(theirs[name][key], value)
    if model.base_policy is not None:  # the base has stayed what training started from
        start = make_slt(**settings).policy.state_dict()
        for key, value in theirs["base_policy"].items():
            assert torch.equal(value, start[key])
    before = {key: value.clone() for key, value in theirs["policy"].items()}
    loaded.learn(1, reset_num_timesteps=False)
    after = loaded.get_parameters()["policy"]
    assert any(not torch.equal(value, before[key]) for key, value in after.items())


def test_the_critics_rate_is_its_own() -> None:
    model, _ = learn(1, baseline="critic", critic_learning_rate=0.02, learning_rate=1e-4)
    rates = [group["lr"] for group in model.policy.optimizer.param_groups]
    assert rates[-1] == 0.02
    assert max(rates[:-1]) == 1e-4


def test_the_critic_learns_the_returns() -> None:
    model = make_slt(
        baseline="critic",
        critic_learning_rate=1e-2,
        policy_weight=0.0,
        loss_weights={},
        learning_rate=0.0,
    )
    records = Records()
    model.set_logger(Logger(None, [records]))
    model.policy.double()
    rollout = draw_rollout(frames=3, clips=2)
    rollout.rewards[:] = np.array([0.1, 0.3])[None, :, None]
    losses = []
    for _ in range(15):
        rollout.values = np.zeros(rollout.rewards.shape)
        model.train(rollout)
        model.logger.dump(0)
        losses.append(records.rows[-1]["train/value_loss"])
    assert losses[-1] < 0.2 * losses[0]


def test_rewards_mix() -> None:
    mixture = {"overlap": 1.0, "final_auc": 0.5, "lost_penalty": 0.25}
    model = make_slt(env_kwargs={"reward": mixture}, n_samples=2)
    ious: list[list[float]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            ious.append([info["iou"] for info in self.locals["infos"]])
            assert all(info["visible"] for info in self.locals["infos"])
            return True

    seen: list[Any] = []
    model.train = seen.append  # type: ignore[method-assign]
    model.learn(1, callback=Watch())
    tracks = np.array(ious).T.reshape(2, 3, 3)  # (clips, tracks, frames)
    auc = np.vectorize(success_auc)(tracks).mean(axis=2)
    expected = tracks.mean(axis=2) + 0.5 * auc - 0.25 * (tracks == 0).mean(axis=2)
    np.testing.assert_allclose(seen[0].rewards.sum(axis=0), expected[:, 1:], rtol=1e-6)
    # Per frame: only the last one knows the clip's AUC.
    frames = (tracks - 0.25 * (tracks == 0)) / 3
    np.testing.assert_allclose(seen[0].rewards[0], frames[:, 1:, 0], rtol=1e-6)
    last = frames[..., 2] + 0.5 * auc
    np.testing.assert_allclose(seen[0].rewards[2], last[:, 1:], rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_epochs": 0}, "n_epochs is 0"),
        ({"n_epochs": 3}, "n_epochs is 3 without clip_range"),
        ({"clip_range": 0.0}, "clip_range is 0.0: it must be above 0"),
        ({"gae_lambda": 1.5}, "from 0 to 1"),
        ({"gae_lambda": 0.9}, "goes with baseline='critic'"),
        ({"gae_lambda": 0.9, "baseline": "critic"}, "reward_to_go=True"),
        ({"baseline": "group"}, "baseline 'group' compares.*n_samples is 1"),
        ({"baseline": "critics"}, "did you mean 'critic'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        make_slt(**wrong)


def test_a_rollout_without_values_has_no_critics_advantage() -> None:
    with pytest.raises(InvalidArgumentError, match="critic's values"):
        advantages(draw_rollout(), "critic")
