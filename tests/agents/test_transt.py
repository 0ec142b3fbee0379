from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import compute_losses, draw_observation, make_network, mark_positive_cells

from slt_gym.agents.network import Proposals, normalise
from slt_gym.agents.transt.fusion import sine_position
from slt_gym.agents.transt.losses import positive_cells
from slt_gym.errors import InvalidArgumentError

GRID = 12
coordinate = st.floats(-2.5, 2.5, width=32)
size = st.one_of(st.just(0.0), st.floats(0, 3, width=32))
# Float32 boxes in float64 tensors: the formula and the loop round alike.
any_box = st.tuples(coordinate, coordinate, size, size)


def draw_crops(count: int, side: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((count, 3, side, side)))


def test_a_batch_gives_what_single_calls_give() -> None:
    network = make_network().double()
    template, search = draw_crops(4, 48, 1), draw_crops(4, 96, 2)
    with torch.no_grad():
        together = network.propose(network.encode(template), search)
        for i in range(4):
            single = network.propose(network.encode(template[i : i + 1]), search[i : i + 1])
            torch.testing.assert_close(single.scores[0], together.scores[i], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(single.boxes[0], together.boxes[i], rtol=1e-9, atol=1e-11)
    assert together.scores.shape == (4, GRID * GRID)
    assert together.boxes.shape == (4, GRID * GRID, 4)
    # The rows differ, or the comparison above would say nothing.
    assert (together.scores[0] - together.scores[1]).abs().max() > 1e-3


def test_an_encoding_serves_every_frame() -> None:
    network = make_network().double()
    template, search = draw_crops(1, 48, 1), draw_crops(3, 96, 2)
    with torch.no_grad():
        once = network.propose(network.encode(template).expand(3, -1, -1), search)
        each = network.propose(network.encode(template.expand(3, -1, -1, -1)), search)
    torch.testing.assert_close(once.scores, each.scores, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(once.boxes, each.boxes, rtol=1e-9, atol=1e-11)


def test_dropout_acts_in_training_mode_alone() -> None:
    plain, dropping = make_network(), make_network(dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    obs = draw_observation(1)
    template, search = torch.from_numpy(obs["template"]), torch.from_numpy(obs["search"])
    with torch.no_grad():
        expected = plain.propose(plain.encode(template), search).scores
        assert torch.equal(dropping.propose(dropping.encode(template), search).scores, expected)
        dropping.featurefusion_network.train()
        features = dropping.encode(template)
        first, second = (dropping.propose(features, search).scores for _ in range(2))
    assert not torch.equal(first, second)


def test_integer_crops_are_normalised_and_floats_pass() -> None:
    crops = torch.from_numpy(draw_observation(2)["search"])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (crops.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(normalise(crops).numpy(), expected, atol=1e-6)
    floats = torch.rand(1, 3, 4, 4)
    assert normalise(floats) is floats


@given(box=any_box, official=st.booleans())
@example(box=(0.0, 0.0, 0.0, 0.0), official=True)
@example(box=(0.0, 0.0, 0.0, 0.0), official=False)
@example(box=(-1.5, -1.5, 1.0, 1.0), official=True)
@example(box=(-1.5, -1.5, 1.0, 1.0), official=False)
@example(box=(-0.25, 0.25, 0.5, 0.5), official=True)
@example(box=(0.96875, 0.96875, 1.0, 1.0), official=False)
@settings(max_examples=300, deadline=None)
def test_positive_cells_are_the_published_slices(
    box: tuple[float, float, float, float], official: bool
) -> None:
    marked = positive_cells(torch.tensor([box], dtype=torch.float64), GRID, official)
    expected = mark_positive_cells(box, GRID, clamped=not official)
    np.testing.assert_array_equal(marked[0].numpy(), expected)


@given(box=st.tuples(*[st.floats(0, 0.5, width=32)] * 2, *[st.floats(0.015625, 0.5, width=32)] * 2))
@settings(max_examples=100, deadline=None)
def test_the_quirks_concern_only_boxes_that_leave_the_crop(box: tuple[float, ...]) -> None:
    gt_box = torch.tensor([box], dtype=torch.float64)
    assert torch.equal(positive_cells(gt_box, GRID, True), positive_cells(gt_box, GRID, False))


def test_positive_cells_of_a_batch_are_those_of_its_boxes() -> None:
    rng = np.random.default_rng(0)
    boxes = torch.from_numpy(rng.uniform(-0.5, 1.0, (64, 4)))
    for official in (True, False):
        marked = positive_cells(boxes, GRID, official)
        for i in range(len(boxes)):
            assert torch.equal(marked[i], positive_cells(boxes[i : i + 1], GRID, official)[0])


def test_losses_equal_the_formulas() -> None:
    rng = np.random.default_rng(4)
    network = make_network()
    scores = torch.from_numpy(rng.standard_normal((3, GRID * GRID))).requires_grad_()
    boxes = torch.from_numpy(rng.uniform(0.05, 0.6, (3, GRID * GRID, 4))).requires_grad_()
    # One inside, one that leaves the crop, one that teaches nothing.
    gt_box = torch.tensor(
        [[0.3, 0.35, 0.2, 0.3], [0.8, -0.1, 0.5, 0.4], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64
    )
    positive = np.stack([mark_positive_cells(box, GRID, clamped=True) for box in gt_box.tolist()])
    assert positive.sum(axis=1).tolist()[2] == 0
    ours = network.losses(Proposals(scores, boxes), gt_box)
    by_hand = compute_losses(scores, boxes, gt_box, positive)
    assert ours.keys() == by_hand.keys()
    for name, value in by_hand.items():
        # torchvision's GIoU keeps an epsilon of 1e-7 under its fractions.
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)
        gradients = [
            torch.autograd.grad(loss, (scores, boxes), allow_unused=True, retain_graph=True)
            for loss in (ours[name], value)
        ]
        for got, expected in zip(*gradients, strict=True):
            zero = torch.zeros(1, dtype=torch.float64)
            torch.testing.assert_close(
                zero if got is None else got,
                zero.expand_as(zero if got is None else got) if expected is None else expected,
                rtol=1e-4,
                atol=1e-6,
            )


def test_a_batch_without_targets_teaches_no_box() -> None:
    network = make_network()
    scores = torch.zeros(2, GRID * GRID, requires_grad=True)
    boxes = torch.rand(2, GRID * GRID, 4, requires_grad=True)
    losses = network.losses(Proposals(scores, boxes), torch.zeros(2, 4))
    assert losses["l1"] == 0
    assert losses["giou"] == 0
    (losses["l1"] + losses["giou"]).backward()
    assert not boxes.grad.any()
    assert losses["classification"].item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_policy_follows_the_windowed_score() -> None:
    network = make_network()
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.standard_normal((50, GRID * GRID)).astype(np.float32) * 3)
    box = torch.zeros(50, 4)
    logits = network.action_logits(Proposals(scores, torch.zeros(50, GRID * GRID, 4)), box)
    assert logits.dtype == torch.float64
    window = np.outer(np.hanning(GRID), np.hanning(GRID)).reshape(-1)
    p = 1 / (1 + np.exp(-scores.double().numpy()))
    q = 0.51 * p + 0.49 * window
    assert logits.argmax(dim=1).tolist() == q.argmax(axis=1).tolist()
    z = 0.98 * q + 0.01
    np.testing.assert_allclose(logits.numpy(), 4 * np.log(z / (1 - z)), rtol=1e-4, atol=1e-5)


def test_the_priors_constants_can_be_overridden() -> None:
    network = make_network(window_influence=0.0, temperature=1.0, epsilon=0.0)
    scores = torch.randn(2, GRID * GRID)
    logits = network.action_logits(Proposals(scores, torch.zeros(2, GRID * GRID, 4)), None)
    torch.testing.assert_close(logits.float(), scores, rtol=1e-3, atol=1e-4)
    with pytest.raises(InvalidArgumentError, match=r"window_influence"):
        make_network(window_influenc=0.3)


@pytest.mark.parametrize(("height", "width", "channels"), [(3, 5, 8), (16, 16, 256)])
def test_sine_position_equals_the_loop(height: int, width: int, channels: int) -> None:
    half = channels // 2
    expected = np.empty((height, width, channels))
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                place, count = (y, height) if c < half else (x, width)
                v = (place + 1) / (count + 1e-6) * 2 * math.pi
                i = c % half
                angle = v / 10000 ** (2 * (i // 2) / half)
                expected[y, x, c] = math.cos(angle) if i % 2 else math.sin(angle)
    encoding = sine_position(height, width, channels)
    assert encoding.dtype == torch.float32
    np.testing.assert_allclose(
        encoding.numpy(), expected.reshape(height * width, channels), atol=2e-6
    )


def test_parameter_groups_hold_every_parameter_once() -> None:
    network = make_network(backbone_lr_scale=0.1)
    groups = network.parameter_groups()
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}
    scaled = {id(p) for group in groups if group["lr_scale"] == 0.1 for p in group["params"]}
    assert scaled == {id(p) for p in network.backbone.parameters()}


def test_every_parameter_learns() -> None:
    network = make_network()
    obs = draw_observation(2)
    proposals = network.propose(
        network.encode(torch.from_numpy(obs["template"])), torch.from_numpy(obs["search"])
    )
    losses = network.losses(proposals, torch.tensor([[0.3, 0.3, 0.4, 0.4]]).expand(2, 4))
    sum(losses.values()).backward()
    idle = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert idle == []
