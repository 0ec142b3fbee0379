"""SiamRPN++ at a laptop's size: losses, policy, tracker, training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from tiny import ENV_ID, VIDEO

from slt_gym.agents import SLT, create_tracker, pretrain
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.rollout import ClipRollout, advantages
from slt_gym.agents.siamrpnpp import SiamRPNpp, siamrpnpp_tiny
from slt_gym.agents.siamrpnpp.anchors import decode, encode, make_anchors, paired_iou
from slt_gym.agents.siamrpnpp.losses import (
    AnchorLabels,
    classification_loss,
    label_anchors,
    regression_loss,
)
from slt_gym.agents.tracker import ProposalTracker
from slt_gym.data import open_dataset
from slt_gym.data.pairs import PairBatch, PairSampler
from slt_gym.errors import InvalidArgumentError, SltGymError
from slt_gym.geometry import get_geometry, iou


def make_network(seed: int = 0, **overrides: Any) -> SiamRPNpp:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return siamrpnpp_tiny(**overrides).eval()


def draw_crops(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    sizes = (63, 127)
    template, search = (
        torch.from_numpy(rng.integers(0, 256, (count, 3, s, s), np.uint8)) for s in sizes
    )
    return template, search


def make_slt(tracker: str = "siamrpnpp-tiny", **kwargs: Any) -> SLT:
    env_kwargs = {"num_frames": 4, "threads": 1, "dataset_options": VIDEO}
    policy_kwargs = {"tracker": tracker, **kwargs.pop("policy_kwargs", {})}
    policy = "SiamAttnPolicy" if "attn" in tracker else "SiamRPNppPolicy"
    defaults = {"n_clips": 2, "seed": 3, "device": "cpu"}
    return SLT(
        policy, ENV_ID, env_kwargs=env_kwargs, policy_kwargs=policy_kwargs, **{**defaults, **kwargs}
    )


def test_the_published_anchors() -> None:
    anchors = make_anchors(25, 8)
    assert anchors.shape == (3125, 4)
    sizes = [[104, 32], [88, 40], [64, 64], [40, 80], [32, 96]]
    assert anchors[::625, 2:].tolist() == sizes
    assert anchors[2 * 625 + 3 * 25 + 7].tolist() == [8 * (7 - 12), 8 * (3 - 12), 64, 64]


def test_decoding_inverts_encoding() -> None:
    rng = np.random.default_rng(0)
    anchors = torch.from_numpy(make_anchors(9, 4)).double()
    boxes = torch.from_numpy(rng.uniform(5, 60, (len(anchors), 4)))
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes)
    for extreme in (1e4, -1e4):
        box = decode(torch.full((1, 4), extreme, dtype=torch.float64), anchors[:1])
        assert torch.isfinite(box).all()
        assert (box[:, 2:] > 0).all()
    corners = [torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, 2:]], 1).numpy() for b in (boxes, anchors)]
    np.testing.assert_allclose(paired_iou(boxes, anchors).numpy(), iou(*corners), atol=1e-12)


def test_labels_are_bounded_subsets() -> None:
    anchors = torch.from_numpy(make_anchors(25, 8))
    boxes = torch.tensor([[0.0, 0.0, 70.0, 66.0], [3.0, 0.0, 80.0, 40.0], [0.0, 0.0, 0.0, 0.0]])
    # A finer grid has more positives than may learn.
    fine = anchors.clone()
    fine[:, :2] /= 8
    labels = label_anchors(fine, boxes, np.random.default_rng(0))
    overlap = paired_iou(fine[None], boxes[:, None])
    assert ((overlap > 0.6).sum(1)[:2] > 16).all()
    assert labels.positive.sum(1).tolist() == [16, 16, 0]
    assert labels.negative.sum(1).tolist()[2] == 0
    assert (overlap[labels.positive] > 0.6).all()
    assert (overlap[labels.negative] < 0.3).all()
    again, other = (label_anchors(fine, boxes, np.random.default_rng(s)) for s in (0, 1))
    assert torch.equal(again.positive, labels.positive)
    assert not torch.equal(other.positive, labels.positive)
    assert not labels.deltas[2].any()


def test_negative_pairs_teach_the_background_around_the_other_target() -> None:
    anchors = torch.from_numpy(make_anchors(25, 8))
    target = torch.tensor([[0.0, 0.0, 70.0, 66.0], [0.0] * 4, [0.0] * 4])
    # Nearest the cells (3, -5) and (12, 12), the last of the grid.
    other = torch.tensor([[0.0] * 4, [26.0, -37.0, 40.0, 20.0], [99.0, 97.0, 30.0, 30.0]])
    draws: list[np.ndarray] = []
    for seed in range(40):
        labels = label_anchors(anchors, target, np.random.default_rng(seed), other)
        assert not labels.positive[1:].any()
        assert not labels.deltas[1:].any()
        assert labels.negative.sum(1).tolist() == [48, 16, 16]
        draws.append(labels.negative.numpy())
    alone = label_anchors(anchors, target, np.random.default_rng(39))
    assert torch.equal(labels.positive, alone.positive)
    assert torch.equal(labels.negative[0], alone.negative[0])
    cells = anchors[:, :2] / 8
    seen = [cells[torch.from_numpy(np.any([d[row] for d in draws], 0))] for row in (1, 2)]
    for points, low, high in zip(seen, ([0, -8], [9, 9]), ([6, -2], [12, 12]), strict=True):
        assert points.amin(0).tolist() == low
        assert points.amax(0).tolist() == high


def test_losses_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    deltas, target = torch.randn(2, 3, 8, 4, generator=generator, dtype=torch.float64)
    positive = torch.rand(3, 8, generator=generator) < 0.3
    positive[2] = False
    negative = ~positive & (torch.rand(3, 8, generator=generator) < 0.5)
    labels = AnchorLabels(positive, negative, target)
    regression, pos, neg = 0.0, [], []
    for b in range(3):
        found = [n for n in range(8) if positive[b, n]]
        for n in found:
            regression += float((deltas[b, n] - target[b, n]).abs().sum()) / len(found) / 3
        pos += [math.log(1 + math.exp(-scores[b, n])) for n in found]
        neg += [math.log(1 + math.exp(scores[b, n])) for n in range(8) if negative[b, n]]
    assert float(regression_loss(deltas, labels)) == pytest.approx(regression, rel=1e-5)
    expected = (np.mean(pos) + np.mean(neg)) / 2
    assert float(classification_loss(scores, labels)) == pytest.approx(expected)
    none = AnchorLabels(positive & False, negative & False, target)
    assert float(classification_loss(scores, none)) == 0
    assert float(regression_loss(deltas, none)) == 0


def test_logits_are_the_published_formula() -> None:
    network = make_network()
    template, search = draw_crops(2)
    box = torch.tensor([[0.4, 0.4, 0.25, 0.15], [0.3, 0.45, 0.3, 0.1]])
    with torch.no_grad():
        proposals = network.propose(network.encode(template), search)
        logits = network.action_logits(proposals, box)
        resolved = network.resolve(proposals, torch.tensor([7, 333]), box)
    assert proposals.scores.shape == (2, 405)
    assert logits.dtype == torch.float64
    hann = np.outer(np.hanning(9), np.hanning(9))

    def context(w: float, h: float) -> float:
        return math.sqrt((w + (w + h) / 2) * (h + (w + h) / 2))

    for b, i in ((0, 7), (1, 333), (1, 40)):
        x, y, w, h = proposals.boxes[b, i].tolist()
        _, _, w0, h0 = box[b].tolist()
        scale, shape = context(w, h) / context(w0, h0), (w0 / h0) / (w / h)
        change = max(scale, 1 / scale) * max(shape, 1 / shape)
        score = math.exp(-(change - 1) * 0.05) / (1 + math.exp(-float(proposals.scores[b, i])))
        final = 0.58 * score + 0.42 * hann[i % 81 // 9, i % 9]
        odds = 0.98 * final + 0.01
        assert float(logits[b, i]) == pytest.approx(8 * math.log(odds / (1 - odds)), rel=1e-5)
        if (b, i) in ((0, 7), (1, 333)):
            rate = 0.38 * score
            size = [w0 * (1 - rate) + w * rate, h0 * (1 - rate) + h * rate]
            expected = [x + w / 2 - size[0] / 2, y + h / 2 - size[1] / 2, *size]
            np.testing.assert_allclose(resolved[b].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_colours_are_flipped_inside() -> None:
    network = make_network()
    template, _ = draw_crops(1)
    with torch.no_grad():
        ours = network.encode(template)
        floats = network.encode(template.flip(1).float())
    assert torch.equal(ours, floats)


def test_quirks_shift_the_labels_by_half_a_pixel() -> None:
    box = torch.tensor([[0.25, 0.5, 0.25, 0.125]])
    plain = make_network().to_grid(box)
    quirky = make_network(official_quirks=True).to_grid(box)
    torch.testing.assert_close(plain, torch.tensor([[-15.875, 7.9375, 31.75, 15.875]]))
    torch.testing.assert_close(quirky - plain, torch.tensor([[0.5, 0.5, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"window_influence": "a"},
            "window_influence of SiamRPNppConfig is 'a': it must be a number",
        ),
        ({"window_influence": 1.5}, "accepted are numbers from 0 to 1"),
        ({"epsilon": 0.6}, "numbers from 0 to 0.5"),
        ({"anchor_scale": 0}, "numbers from 1 on"),
        ({"anchor_scale": 2.5}, "must be a whole number"),
        ({"hidden": True}, "must be a whole number"),
        ({"official_quirks": 1}, "must be True or False"),
        ({"planes": 8}, "must be a tuple"),
        ({"planes": (8, 16)}, "has 4 layers"),
        ({"frozen": ("layer9",)}, "unknown part of the backbone 'layer9'"),
    ],
)
def test_a_network_that_cannot_be_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        create_tracker("siamrpnpp-tiny", **overrides)


@pytest.mark.parametrize("name", ["siamrpnpp-tiny", "siamattn-tiny", "siamrpnpp", "siamattn"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_untrained_tracker_keeps_inside_the_frame(name: str, seed: int) -> None:
    # The published sizes' residual layers amplify: raw outputs reach thousands, and sizes would be
    # 0 or infinite.
    frames = np.random.default_rng(0).integers(0, 256, (4, 80, 100, 3), np.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tracker = create_tracker(name)
    tracker.init(frames[0], (90, 70, 20, 12))
    for frame in frames[1:]:
        x, y, w, h = tracker.update(frame)
        assert 0 <= x + w / 2 <= 100
        assert 0 <= y + h / 2 <= 80
        assert 10 <= w <= 100
        assert 10 <= h <= 80
        assert 0 <= tracker.score <= 1


@pytest.mark.parametrize("name", ["siamrpnpp-tiny", "siamattn-tiny"])
def test_a_field_that_there_is_none_of_is_named(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"unknown field .* 'penalty'"):
        create_tracker(name, penalty=0.1)


def test_damaged_weights_are_named() -> None:
    tracker = create_tracker("siamrpnpp-tiny")
    assert isinstance(tracker, ProposalTracker)
    with torch.no_grad():
        next(tracker.network.parameters()).fill_(math.nan)
    frame = np.zeros((80, 100, 3), np.uint8)
    tracker.init(frame, (40, 30, 20, 12))
    with pytest.raises(SltGymError, match=r"'siamrpnpp-tiny' gives the box \[nan, .* damaged"):
        tracker.update(frame)


def test_frozen_layers_do_not_learn_nor_count() -> None:
    network = make_network(frozen=("conv1", "bn1", "layer1")).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    template, search = draw_crops(2)
    proposals = network.propose(network.encode(template), search)
    sum(network.losses(proposals, torch.full((2, 4), 0.3)).values()).backward()
    grouped = {id(p) for group in network.parameter_groups() for p in group["params"]}
    for name, parameter in network.named_parameters():
        frozen = name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))
        assert (parameter.grad is None) == frozen, name
        assert (id(parameter) in grouped) != frozen
    after = network.state_dict()
    for name in ("bn1", "layer1.0.bn1", "layer2.0.bn1"):
        key = f"backbone.{name}.running_mean"
        assert torch.equal(before[key], after[key]) == (name != "layer2.0.bn1")


@pytest.mark.parametrize("name", ["siamrpnpp-tiny", "siamattn-tiny"])
def test_sequence_level_training_takes_the_published_settings(name: str) -> None:
    model = make_slt(name)
    before = {k: v.clone() for k, v in model.policy.state_dict().items()}
    optimizer = model.policy.optimizer
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4
    assert model.max_grad_norm == 10
    rates = [model.lr_schedule(1 - e / 20) for e in range(20)]
    np.testing.assert_allclose(rates, [1e-5 * 0.1 ** (e / 19) for e in range(20)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)
    model.learn(12)
    for key, value in model.policy.state_dict().items():
        # Synthetic video has masks, so that SiamAttn's mask head and what feeds it learn, too.
        fixed = "running_" in key or "num_batches" in key
        assert torch.equal(value, before[key]) == fixed, key


def draw_rollout(rng: np.random.Generator) -> ClipRollout:
    shape = (2, 3, 1)
    return ClipRollout(
        template=rng.integers(0, 256, (3, 3, 63, 63), np.uint8),
        search=rng.integers(0, 256, (*shape, 3, 127, 127), np.uint8),
        box=rng.uniform(0.2, 0.4, (*shape, 4)).astype(np.float32),
        index=rng.integers(0, 405, shape),
        gt_box=rng.uniform(0.25, 0.4, (*shape, 4)).astype(np.float32),
        alive=np.array([[1, 1, 1], [1, 0, 1]], bool)[..., None],
        rewards=rng.uniform(0, 1, shape),
        greedy_rewards=rng.uniform(0, 1, (2, 3)),
    )


def test_micro_batches_are_averaged_by_their_frames() -> None:
    rollout = draw_rollout(np.random.default_rng(5))
    gradients = []
    for micro_batch in (1, 3):
        model = make_slt(n_clips=3, micro_batch=micro_batch, max_grad_norm=1e9, learning_rate=0.0)
        model.set_logger(Logger(None, []))
        model.train(rollout)
        gradients.append([p.grad for p in model.policy.parameters()])
    advantage = advantages(rollout, "greedy")
    assert (advantage != 0).any()
    for one, three in zip(*gradients, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-5 * float(three.abs().max()))


@pytest.mark.parametrize("name", ["siamrpnpp-tiny", "siamattn-tiny"])
def test_frame_level_training_learns_a_batch_by_heart(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = create_tracker(name).network  # type: ignore[attr-defined]
    dataset = open_dataset("synthetic", num_frames=4, width=96, height=80, num_sequences=2)
    geometry = get_geometry(name)
    pairs = network.pretraining_pairs
    batch = PairSampler(dataset, geometry, 4, seed=4, config=pairs).batch(0)
    assert batch.negative.sum() == 1

    def same(self: PairSampler, index: int) -> PairBatch:
        assert self.config is pairs
        return batch

    monkeypatch.setattr(PairSampler, "batch", same)
    rows: list[dict[str, float]] = []
    config = PretrainingConfig(
        steps=12, batch_size=4, learning_rate=3e-3, max_grad_norm=10.0, threads=1
    )
    pretrain(
        network, dataset, geometry, config, log=lambda _, row: rows.append(row), log_interval=2
    )
    weights = network.pretraining_weights
    for row in rows:
        weighted = sum(weight * row[key] for key, weight in weights.items())
        assert row["loss"] == pytest.approx(weighted, rel=1e-4)
    for key in ("loss", "classification", "regression"):
        assert rows[-1][key] < 0.6 * rows[0][key], key
