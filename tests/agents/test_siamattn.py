"""SiamAttn at a laptop's size: attention, regions, masks, tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from slt_gym.agents import create_tracker
from slt_gym.agents.siamattn import SiamAttn, siamattn_tiny
from slt_gym.agents.siamattn.attention import (
    ChannelAttention,
    SpatialAttention,
    channel_affinity,
)
from slt_gym.agents.siamattn.losses import cut_masks, mask_loss, sample_regions
from slt_gym.errors import SltGymError


def make_network(seed: int = 0, **overrides: Any) -> SiamAttn:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = siamattn_tiny(**overrides)
        for parameter in network.parameters():
            if parameter.ndim == 1 and not parameter.any():
                torch.nn.init.normal_(parameter, 0, 0.1)  # the attention's weights begin at 0
        return network.eval()


def draw_crops(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    template, search = (
        torch.from_numpy(rng.integers(0, 256, (count, 3, s, s), np.uint8)) for s in (63, 127)
    )
    return template, search


def test_attention_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    spatial, channel = SpatialAttention(8).double(), ChannelAttention().double()
    torch.nn.init.constant_(spatial.gamma, 0.7)
    torch.nn.init.constant_(channel.gamma, -0.4)
    x, other = torch.randn(2, 1, 8, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        out = spatial(x)
        q, k, v = (
            conv(x)[0].flatten(1)
            for conv in (spatial.query_conv, spatial.key_conv, spatial.value_conv)
        )
        for n in range(6):
            weight = F.softmax(torch.stack([q[:, n] @ k[:, j] for j in range(6)]), 0)
            seen = sum(weight[j] * v[:, j] for j in range(6))
            expected = 0.7 * seen + x[0].flatten(1)[:, n]
            torch.testing.assert_close(out[0].flatten(1)[:, n], expected)
        affinity = channel_affinity(other)
        out = channel(x, affinity)
        flat, rows = x[0].flatten(1), other[0].flatten(1)
        for c in range(8):
            energy = torch.stack([rows[c] @ rows[j] for j in range(8)])
            weight = F.softmax(energy.max() - energy, 0)
            torch.testing.assert_close(affinity[0, c], weight)
            expected = -0.4 * (weight @ flat) + flat[c]
            torch.testing.assert_close(out[0].flatten(1)[c], expected)


def test_batches_do_not_mix() -> None:
    network = make_network()
    template, search = draw_crops(3)
    box = torch.full((3, 4), 0.3)
    index = torch.tensor([5, 200, 404])
    with torch.no_grad():
        features = network.encode(template)
        together = network.propose(features, search)
        resolved = network.resolve(together, index, box)
        for b in range(3):
            alone = network.propose(features[b : b + 1], search[b : b + 1])
            torch.testing.assert_close(alone.scores[0], together.scores[b], rtol=1e-3, atol=1e-3)
            one = network.resolve(alone, index[b : b + 1], box[b : b + 1])
            torch.testing.assert_close(one[0], resolved[b], rtol=1e-3, atol=1e-3)


def test_without_refinement_the_clipped_proposal_is_taken() -> None:
    network = make_network(size_lr=0.0)
    for parameter in network.refine_head.tail_det_box.parameters():
        torch.nn.init.zeros_(parameter)
    template, search = draw_crops(1)
    with torch.no_grad():
        proposals = network.propose(network.encode(template), search)
        proposals.boxes[0, 3] = torch.tensor([-0.8, 0.4, 0.2, 0.02])
        box = torch.tensor([[0.3, 0.3, 0.5, 0.25]])
        resolved = network.resolve(proposals, torch.tensor([3]), box)[0]
    # The centre is clipped to the crop; with size_lr 0 the size stays.
    expected = [0.0 - 0.25, 0.41 - 0.125, 0.5, 0.25]
    np.testing.assert_allclose(resolved.numpy(), expected, atol=1e-5)


def test_regions_overlap_the_target() -> None:
    rng = np.random.default_rng(0)
    target = torch.tensor(
        [[30.0, 30.0, 40.0, 20.0], [0.0, 0.0, 0.0, 0.0], [50.0, 10.0, 20.0, 30.0]]
    )
    boxes = target[:, None] + torch.from_numpy(rng.normal(0, 2, (3, 40, 4)).astype(np.float32))
    boxes[2, :, :2] += 60  # only the target itself is left
    regions = sample_regions(boxes, target, rng, official_quirks=True)
    assert regions.rois[:, 0].tolist() == [0] * 16 + [2] * 16
    assert len(torch.unique(regions.rois[:16], dim=0)) == 16
    alone = torch.tensor([2, 50, 10, 70, 40.0])
    assert (regions.rois[16:] == alone).all()
    assert (regions.deltas[16:] == 0).all()
    low, high = regions.rois[:16, 1:3], regions.rois[:16, 3:]
    size, deltas = high - low, regions.deltas[:16] * torch.tensor([0.1, 0.1, 0.2, 0.2])
    centre = (low + high) / 2 + deltas[:, :2] * size
    torch.testing.assert_close(centre, torch.tensor([[50.0, 40.0]]).expand(16, 2))
    torch.testing.assert_close(size * deltas[:, 2:].exp(), target[:1, 2:].expand(16, 2))
    nothing = sample_regions(boxes, torch.zeros(3, 4), rng, official_quirks=False)
    assert nothing.rois.shape == (0, 5)


def test_masks_are_cut_to_the_nearest_pixel() -> None:
    mask = torch.zeros(2, 20, 20)
    mask[1, 4:8, 6:12] = 1
    rois = torch.tensor([[1, 6.0, 4.0, 11.9, 7.2], [0, 6, 4, 11, 7], [1, -9, -5, 40, 60]])
    cut = cut_masks(mask, rois, 8)
    assert (cut[0] == 1).all()
    assert (cut[1] == 0).all()
    nearest = F.interpolate(mask[1][None, None], (8, 8), mode="nearest")[0, 0]
    assert torch.equal(cut[2], nearest)


@given(
    st.integers(1, 24),
    st.tuples(*[st.floats(-10, 30)] * 2),
    st.tuples(*[st.floats(0, 40)] * 2),
    st.integers(0, 2**32 - 1),
)
def test_cut_masks_hold_the_pixels_of_a_loop(
    size: int, corner: tuple[float, float], extent: tuple[float, float], seed: int
) -> None:
    side = 20
    mask = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (1, side, side)))
    x1, y1 = corner
    x2, y2 = x1 + extent[0], y1 + extent[1]
    roi = torch.tensor([[0, x1, y1, x2, y2]], dtype=torch.float64)
    cut = cut_masks(mask, roi, size)[0]
    left, top, right, bottom = (int(min(max(v, 0), side - 1)) for v in (x1, y1, x2, y2))
    for i in range(size):
        for k in range(size):
            row = top + i * (bottom - top + 1) // size
            column = left + k * (right - left + 1) // size
            assert cut[i, k] == mask[0, row, column]


def test_the_hardest_pixels_teach_masks() -> None:
    logits = torch.linspace(-3, 3, 10).reshape(1, 2, 5)
    losses = sorted(F.softplus(logits).flatten().tolist(), reverse=True)[:7]
    assert float(mask_loss(logits, torch.zeros(1, 2, 5))) == pytest.approx(np.mean(losses))


def test_known_masks_reach_the_mask_head_alone() -> None:
    network = make_network()
    template, search = draw_crops(3)
    proposals = network.propose(network.encode(template), search)
    gt_box = torch.tensor([[0.3, 0.3, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.3]])
    masks = torch.zeros(3, 127, 127)
    masks[:, 40:80, 40:80] = 1
    assert float(network.losses(proposals, gt_box)["mask"]) == 0
    unknown = network.losses(
        proposals, gt_box, mask=masks, has_mask=torch.zeros(3, dtype=torch.bool)
    )
    assert float(unknown["mask"]) == 0
    known = network.losses(proposals, gt_box, mask=masks)
    assert float(known["mask"].detach()) > 0
    known["mask"].backward()
    assert network.mask_head.conv_logits.weight.grad.abs().sum() > 0
    assert network.refine_head.tail_det_box.weight.grad is None


def test_crops_without_a_target_teach_nothing() -> None:
    network = make_network()
    template, search = draw_crops(2)
    proposals = network.propose(network.encode(template), search)
    losses = network.losses(proposals, torch.zeros(2, 4), mask=torch.zeros(2, 127, 127))
    assert {name: float(value.detach()) for name, value in losses.items()} == dict.fromkeys(
        ("classification", "regression", "refinement", "mask"), 0.0
    )


def test_masks_are_given_on_request() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 80, 100, 3), np.uint8)
    torch.manual_seed(0)
    tracker = create_tracker("siamattn-tiny", mask_threshold=0.0)
    tracker.init(frames[0], (40, 30, 20, 12))
    with pytest.raises(SltGymError, match="before update"):
        tracker.segment()
    box = tracker.update(frames[1])
    mask = tracker.segment()
    assert mask.shape == (80, 100)
    rows, columns = np.nonzero(mask)
    # Every pixel counts at threshold 0: the mask is the region of the box.
    np.testing.assert_allclose([columns.min(), rows.min()], box[:2], atol=2.5)
    np.testing.assert_allclose([columns.max(), rows.max()], box[:2] + box[2:], atol=2.5)
    polygon = tracker.polygon()
    assert polygon.shape == (4, 2)
    np.testing.assert_allclose(polygon.mean(0), box[:2] + box[2:] / 2, atol=2.5)
    tracker.network.config = type(tracker.network.config)(mask_threshold=1.0)
    assert not tracker.segment().any()
    x, y, w, h = box
    np.testing.assert_allclose(tracker.polygon(), [[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    before = tracker.update(frames[2])
    tracker.segment()
    np.testing.assert_array_equal(before, tracker._box)


@pytest.mark.parametrize("form", ["bare", "state_dict", "module", "original"])
def test_checkpoints_of_every_published_form(tmp_path: Path, form: str) -> None:
    network = make_network(seed=1)
    state = network.state_dict()
    content: dict[str, Any] = dict(state)
    if form == "state_dict":
        content = {"epoch": 3, "state_dict": state, "optimizer": {"param_groups": []}}
    elif form == "module":
        content = {f"module.{key}": value for key, value in state.items()}
    elif form == "original":
        content = {key.replace("refine_head", "bbox_head"): value for key, value in state.items()}
    torch.save(content, tmp_path / "weights.pth")
    tracker = create_tracker("siamattn-tiny", weights=str(tmp_path / "weights.pth"))
    for key, value in tracker.network.state_dict().items():
        assert torch.equal(value, state[key]), key
