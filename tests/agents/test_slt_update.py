"""Sequence-level training's loss and gradient, against loops and formulas written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from tiny import compute_losses, make_slt, mark_positive_cells

from slt_gym.agents import SLT, Proposals
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.rollout import ClipRollout, advantages
from slt_gym.errors import InvalidArgumentError

GRID = 12


def draw_rollout(frames: int = 2, clips: int = 2, samples: int = 1, seed: int = 0) -> ClipRollout:
    """Draw a rollout with float64 crops, which a float64 network takes as they are."""
    rng = np.random.default_rng(seed)
    shape = (frames, clips, samples)
    return ClipRollout(
        template=rng.standard_normal((clips, 3, 48, 48)),
        search=rng.standard_normal((*shape, 3, 96, 96)),
        box=rng.uniform(0.2, 0.5, (*shape, 4)).astype(np.float32),
        index=rng.integers(0, GRID * GRID, shape),
        gt_box=rng.uniform(0.2, 0.4, (*shape, 4)),
        alive=np.ones(shape, bool),
        rewards=rng.uniform(0, 1, shape) / frames,
        greedy_rewards=rng.uniform(0, 1, (frames, clips)) / frames,
    )


def gradients(model: SLT) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.policy.named_parameters()
        if parameter.grad is not None
    }


def test_the_loss_is_that_of_a_loop_over_frames() -> None:
    model = make_slt(n_clips=3, n_samples=2)
    model.policy.double()
    network = model.policy.network
    rollout = draw_rollout(frames=2, clips=3, samples=2)
    rollout.alive[1, 1, 1] = False
    advantage = advantages(rollout, "greedy")
    terms = model.loss(rollout, advantage, rollout.alive, slice(1, 3))  # the last two clips
    terms["loss"].backward()
    ours = gradients(model)

    model.policy.zero_grad()
    hann = np.outer(np.hanning(GRID), np.hanning(GRID)).reshape(-1)
    policy_terms, scores, boxes, gt, positive = [], [], [], [], []
    for t, c, s in np.argwhere(rollout.alive):
        if c < 1:
            continue
        # The template is encoded again for each frame, as in the published code.
        features = network.encode(torch.from_numpy(rollout.template[c : c + 1]))
        search = torch.from_numpy(rollout.search[t, c, s][None])
        logits, raw = network.predict(features, search)
        score = logits[0, :, 0] - logits[0, :, 1]
        q = 0.51 / (1 + torch.exp(-score)) + 0.49 * torch.from_numpy(hann)
        z = 0.98 * q + 0.01
        weight = torch.exp(4 * torch.log(z / (1 - z)))
        log_prob = torch.log(weight[rollout.index[t, c, s]] / weight.sum())
        reward = rollout.rewards[:, c, s].sum() - rollout.greedy_rewards[:, c].sum()
        policy_terms.append(-log_prob * reward)
        scores.append(score)
        centre, size = raw[0, :, :2], raw[0, :, 2:]
        boxes.append(torch.cat([centre - size / 2, size], dim=1))
        gt.append(rollout.gt_box[t, c, s])
        positive.append(mark_positive_cells(tuple(gt[-1]), GRID, clamped=True))
    own = compute_losses(
        torch.stack(scores), torch.stack(boxes), torch.from_numpy(np.stack(gt)), np.stack(positive)
    )
    expected = torch.stack(policy_terms).mean()
    total = 15 * expected + 5 * own["l1"] + 2 * own["giou"]
    total.backward()
    torch.testing.assert_close(terms["policy_gradient_loss"], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(terms["l1"], own["l1"], rtol=1e-9, atol=0)
    torch.testing.assert_close(terms["giou"], own["giou"], rtol=1e-6, atol=0)
    torch.testing.assert_close(terms["loss"], total, rtol=1e-6, atol=0)
    assert "classification" not in terms
    naive = gradients(model)
    assert ours.keys() == naive.keys()
    for name, gradient in naive.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-5, atol=1e-7 * gradient.abs().max()
        )


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_micro_batches_add_up(micro_batch: int) -> None:
    model = make_slt(n_clips=3, micro_batch=micro_batch, max_grad_norm=1e9, learning_rate=0.0)
    model.policy.double()
    model.set_logger(Logger(None, []))
    rollout = draw_rollout(frames=2, clips=3)
    model.train(rollout)
    ours = gradients(model)
    advantage = advantages(rollout, "greedy")
    expected: dict[str, torch.Tensor] = {}
    for first in range(0, 3, micro_batch):
        model.policy.zero_grad()
        clips = slice(first, first + micro_batch)
        model.loss(rollout, advantage, rollout.alive, clips)["loss"].backward()
        for name, gradient in gradients(model).items():
            expected[name] = expected.get(name, 0) + gradient
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-12)


def test_the_policy_gradient_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_slt(loss_weights={}, policy_weight=3.0)
    rollout = draw_rollout(frames=2, clips=2)
    advantage = advantages(rollout, "greedy")
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.standard_normal((4, GRID * GRID))).requires_grad_()
    boxes = torch.full((4, GRID * GRID, 4), 0.25, dtype=torch.float64)
    monkeypatch.setattr(model.policy.network, "encode", lambda template: template)
    monkeypatch.setattr(
        model.policy,
        "propose",
        lambda *_: (Proposals(logits, boxes), ProposalDistribution(logits)),
    )
    terms = model.loss(rollout, advantage, rollout.alive, slice(0, 2))
    terms["loss"].backward()
    assert terms.keys() == {"loss", "policy_gradient_loss"}
    chosen = np.eye(GRID * GRID)[rollout.index.reshape(-1)]
    pull = chosen - torch.softmax(logits.detach(), dim=1).numpy()
    np.testing.assert_allclose(
        logits.grad.numpy(), -3 * advantage.reshape(-1, 1) * pull / 4, rtol=1e-9, atol=1e-14
    )


def test_a_step_makes_good_actions_likelier_than_bad_ones() -> None:
    plain = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}}
    model = make_slt(loss_weights={}, learning_rate=1e-5, policy_kwargs=plain)
    model.set_logger(Logger(None, []))
    model.policy.double()
    rollout = draw_rollout(frames=1, clips=2)
    rollout.rewards[:] = [[[0.9], [0.1]]]
    rollout.greedy_rewards[:] = 0.5

    def log_probs() -> np.ndarray:
        with torch.no_grad():
            features = model.policy.encode(rollout.template)
            crops = rollout.search[0, :, 0], rollout.box[0, :, 0]
            _, distribution = model.policy.propose(features, *crops)
            return distribution.log_prob(torch.from_numpy(rollout.index[0, :, 0])).numpy()

    before = log_probs()
    model.train(rollout)
    change = log_probs() - before
    assert change[0] - change[1] > 1e-6


def test_without_policy_weight_the_losses_alone_teach() -> None:
    model = make_slt(policy_weight=0.0)
    model.policy.double()
    rollout = draw_rollout()
    collected = []
    for scale in (1.0, -5.0):
        model.policy.zero_grad()
        advantage = scale * advantages(rollout, "greedy")
        model.loss(rollout, advantage, rollout.alive, slice(0, 2))["loss"].backward()
        collected.append(gradients(model))
    for name in collected[0]:
        assert torch.equal(collected[0][name], collected[1][name])
    assert any(gradient.any() for gradient in collected[0].values())
    # The score's head is fed by the policy term alone: L1 and GIoU do not see it.
    heads = {name for name in collected[0] if "class_embed" in name}
    assert heads
    assert not any(collected[0][name].any() for name in heads)


def test_losses_are_weighted_by_name() -> None:
    model = make_slt(loss_weights={"classification": 3.0, "l1": 0.5}, policy_weight=2.0)
    model.policy.double()
    rollout = draw_rollout()
    terms = model.loss(rollout, advantages(rollout, "greedy"), rollout.alive, slice(0, 2))
    assert terms.keys() == {"loss", "policy_gradient_loss", "classification", "l1"}
    expected = 2 * terms["policy_gradient_loss"] + 3 * terms["classification"] + terms["l1"] / 2
    torch.testing.assert_close(terms["loss"], expected)


def test_frames_that_do_not_take_part_have_no_gradient() -> None:
    model = make_slt()
    model.policy.double()
    rollout = draw_rollout(frames=3)
    used = rollout.alive.copy()
    used[1] = False
    advantage = advantages(rollout, "greedy")
    losses = []
    for scramble in (False, True):
        if scramble:
            rollout.search[1] = 0
            rollout.index[1] = 0
            rollout.gt_box[1] = 0.3
        losses.append(model.loss(rollout, advantage, used, slice(0, 2))["loss"].item())
    assert losses[0] == losses[1]


def test_a_fraction_of_the_frames_is_drawn_anew_each_time() -> None:
    model = make_slt(frame_fraction=0.4, n_clips=2, n_samples=2, micro_batch=2)
    model.set_logger(Logger(None, []))
    seen: list[np.ndarray] = []

    def watch(rollout: ClipRollout, advantage: Any, used: np.ndarray, clips: slice) -> Any:
        seen.append(used)
        return {"loss": next(model.policy.parameters()).sum() * 0}

    model.loss = watch  # type: ignore[method-assign]
    rollout = draw_rollout(frames=1, clips=2, samples=2)
    big = ClipRollout(
        **{
            **vars(rollout),
            "alive": np.ones((200, 2, 2), bool),
            "rewards": np.zeros((200, 2, 2)),
            "greedy_rewards": np.zeros((200, 2)),
        }
    )
    big.alive[150:, 0] = False
    for _ in range(2):
        model.train(big)
    for used in seen:
        assert not used[~big.alive].any()
        # 700 frames: four standard deviations are 0.074.
        assert used[big.alive].mean() == pytest.approx(0.4, abs=0.08)
    assert not np.array_equal(seen[0], seen[1])


def test_the_greedy_baseline_is_subtracted() -> None:
    rollout = draw_rollout(frames=3, clips=2, samples=2)
    advantage = advantages(rollout, "greedy")
    assert advantage.shape == (3, 2, 2)
    for t, c, s in np.ndindex(3, 2, 2):
        expected = sum(rollout.rewards[:, c, s]) - sum(rollout.greedy_rewards[:, c])
        assert advantage[t, c, s] == pytest.approx(expected, abs=1e-12)
    rollout.greedy_rewards = None
    with pytest.raises(InvalidArgumentError, match="greedy track"):
        advantages(rollout, "greedy")


def test_leave_one_out_compares_with_the_others() -> None:
    rollout = draw_rollout(frames=3, clips=2, samples=4)
    advantage = advantages(rollout, "leave_one_out")
    returns = rollout.rewards.sum(axis=0)
    for t, c, s in np.ndindex(3, 2, 4):
        others = [returns[c, i] for i in range(4) if i != s]
        assert advantage[t, c, s] == pytest.approx(returns[c, s] - np.mean(others), abs=1e-12)
    np.testing.assert_allclose(advantage.sum(axis=2), 0, atol=1e-12)


@pytest.mark.parametrize("baseline", ["greedy", "leave_one_out"])
def test_reward_to_go_counts_from_the_actions_frame_on(baseline: str) -> None:
    rollout = draw_rollout(frames=4, clips=2, samples=2)
    advantage = advantages(rollout, baseline, reward_to_go=True)
    for t, c, s in np.ndindex(4, 2, 2):
        mine = rollout.rewards[t:, c, s].sum()
        other = (
            rollout.greedy_rewards[t:, c].sum()
            if baseline == "greedy"
            else rollout.rewards[t:, c, 1 - s].sum()
        )
        assert advantage[t, c, s] == pytest.approx(mine - other, abs=1e-12)
