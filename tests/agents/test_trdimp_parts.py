"""TrDiMP's parts by hand-written formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from slt_gym.agents.trdimp import TRDIMP_TINY, TrDiMPConfig
from slt_gym.agents.trdimp.filter import FilterOptimizer, correlate, correlate_transposed
from slt_gym.agents.trdimp.labels import centre_distance, gaussian_label
from slt_gym.agents.trdimp.localisation import localise
from slt_gym.agents.trdimp.losses import density_loss, draw_proposals, hinge_loss
from slt_gym.agents.trdimp.memory import SampleMemory, TransformerMemory
from slt_gym.agents.trdimp.refinement import ascend, jitter, refine, select


class TestFilter:
    def test_correlation_is_a_convolution_of_each_sequence(self) -> None:
        maps, weights = torch.randn(2, 3, 5, 6, 6), torch.randn(2, 5, 4, 4)
        scores = correlate(maps.flatten(3).transpose(2, 3), weights, 6)
        for b in range(2):
            expected = F.conv2d(maps[b], weights[b : b + 1], padding=2)[:, 0]
            torch.testing.assert_close(scores[b], expected, rtol=1e-4, atol=1e-5)

    def test_the_transpose_is_the_gradient(self) -> None:
        tokens, weights = torch.randn(2, 3, 36, 5), torch.randn(2, 5, 4, 4, requires_grad=True)
        upstream = torch.randn(2, 3, 7, 7)
        correlate(tokens, weights, 6).backward(upstream)
        found = correlate_transposed(tokens, upstream, 4)
        torch.testing.assert_close(found, weights.grad, rtol=1e-4, atol=1e-5)

    def test_iterations_descend_along_the_losss_gradient(self) -> None:
        torch.manual_seed(0)
        optimizer = FilterOptimizer(stride=8).double()
        tokens = torch.randn(1, 3, 36, 5, dtype=torch.float64)
        box = torch.tensor([[[10.0, 14, 20, 16], [12, 8, 20, 16], [20, 20, 20, 16]]]).double()
        sample_weights = torch.tensor([[0.5, 0.3, 0.2]]).double()
        start = torch.randn(1, 5, 4, 4, dtype=torch.float64)

        def loss(weights: torch.Tensor) -> torch.Tensor:
            label, mask, weight = optimizer.maps(box, 7)
            scores = correlate(tokens, weights, 6)
            activation = torch.where(scores > 0, scores, mask * scores)
            residual = weight * sample_weights.sqrt()[..., None, None] * (activation - label)
            return residual.square().sum() + optimizer.filter_reg**2 * weights.square().sum()

        with torch.no_grad():
            iterates = optimizer(start, tokens, box, 4, sample_weights)
        leaf = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        step = iterates[1] - iterates[0]
        cosine = F.cosine_similarity(step.flatten(), -gradient.flatten(), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-9)
        with torch.no_grad():
            values = [float(loss(weights)) for weights in iterates]
        assert values == sorted(values, reverse=True)
        assert values[-1] < values[0] / 2

    def test_maps_are_the_bins_convolved(self) -> None:
        optimizer = FilterOptimizer(stride=8)
        box = torch.tensor([[[10.0, 14, 20, 17]]])
        u = centre_distance(box, 13, 8)[0, 0] / 0.1 - torch.arange(100)[:, None, None]
        bins = (1 - u.abs()).clamp(min=0)
        bins[-1] = (1 + u[-1]).clamp(0, 1)
        label, mask, weight = optimizer.maps(box, 13)
        expected = optimizer.label_map_predictor(bins[None])[0]
        torch.testing.assert_close(label[0], expected, atol=1e-5, rtol=1e-4)
        expected = optimizer.target_mask_predictor(bins[None])[0].sigmoid()
        torch.testing.assert_close(mask[0], expected, atol=1e-5, rtol=1e-4)
        assert (weight == 1).all()


def test_labels_peak_at_the_target() -> None:
    box = torch.tensor([40.0, 20.0, 16.0, 24.0])  # centre 48, 32: cells 6 and 4 of an 8 px grid
    label = gaussian_label(box, cells=12, stride=8, factor=0.1, extra=1)
    assert label.shape == (13, 13)
    assert divmod(int(label.argmax()), 13) == (4, 6)
    assert float(label[4, 6]) == pytest.approx(1)
    assert float(label[4, 7]) == pytest.approx(np.exp(-1 / (2 * 1.2**2)), rel=1e-5)
    distance = centre_distance(box, 13, 8)
    assert float(distance[4, 6]) == 0
    assert float(distance[7, 2]) == 5


def make_scores(*peaks: tuple[int, int, float]) -> np.ndarray:
    scores = np.full((23, 23), -0.1, np.float32)
    for row, column, value in peaks:
        scores[row, column] = value
    return scores


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([(11, 12, 0.2)], (11, 12, "not_found")),
        ([(11, 12, 0.9), (3, 3, 0.3)], (11, 12, "normal")),
        ([(11, 12, 0.9), (12, 12, 0.8)], (11, 12, "normal")),  # in the neighbourhood
        ([(11, 12, 0.9), (5, 5, 0.6)], (11, 12, "hard_negative")),
        ([(11, 12, 0.4), (5, 5, 0.22)], (11, 12, "normal")),  # too weak to be a distractor
        ([(11, 12, 0.9), (0, 0, 0.8)], (11, 12, "hard_negative")),  # far from where it was
        ([(0, 0, 0.9), (11, 12, 0.8)], (11, 12, "hard_negative")),  # the second is nearer
        ([(0, 0, 0.9), (22, 22, 0.8)], (0, 0, "uncertain")),
        ([(11, 12, 0.9), (7, 7, 0.8)], (11, 12, "uncertain")),
    ],
)
def test_localisation(peaks: list[Any], expected: tuple[int, int, str]) -> None:
    peak = localise(make_scores(*peaks), np.array([5.0, 4.0]), np.zeros(2), TrDiMPConfig())
    assert (peak.row, peak.column, peak.flag) == expected
    assert peak.score == pytest.approx(max(p[2] for p in peaks))


def test_localisation_prefers_the_leftmost_of_equals() -> None:
    scores = make_scores((5, 9, 0.9), (20, 3, 0.9))
    peak = localise(scores, np.array([50.0, 50.0]), np.zeros(2), TrDiMPConfig())
    assert (peak.row, peak.column) == (20, 3)


def test_memory_replaces_the_least_important_sample() -> None:
    config = TrDiMPConfig(sample_memory_size=5, init_samples_minimum_weight=0.25)
    memory = SampleMemory(torch.zeros(3, 2, 1), torch.zeros(3, 4), config)
    for value in range(1, 40):
        memory.add(torch.full((2, 1), float(value)), torch.full((4,), float(value)), 0.1)
        tokens, boxes, weights = memory.samples
        # Lifting the initial samples leaves a sum of nearly one, as published.
        assert float(weights.sum()) == pytest.approx(1, rel=0.02)
        assert float(weights[:3].sum()) >= 0.25 - 1e-5
        if value == 1:
            expected = torch.tensor([1 / 2.7] * 3 + [0.1])
            torch.testing.assert_close(weights, expected / expected.sum())
        if value == 2:
            ratio = float(weights[4] / weights[3])
            assert ratio == pytest.approx(1 / 0.9)
    assert not tokens[:3].any()
    assert sorted(boxes[3:, 0].tolist()) == [38.0, 39.0]


def test_transformer_memory_drops_the_oldest() -> None:
    config = TrDiMPConfig(transformer_memory_size=4)
    memory = TransformerMemory(torch.arange(3.0).view(3, 1, 1), torch.zeros(3, 1), config)
    for value in (10.0, 11.0):
        memory.add(torch.full((1, 1), value), torch.zeros(1))
    assert memory.tokens.flatten().tolist() == [11.0, 10.0, 0.0, 1.0]


class TestRefinement:
    config = TRDIMP_TINY
    target = torch.tensor([50.0, 40.0, 0.0, 0.0])

    def predict(self, boxes: torch.Tensor) -> torch.Tensor:
        centre = boxes[..., :2] + boxes[..., 2:] / 2
        return -((centre - self.target[:2]) ** 2).sum(-1) / 100

    def test_ascent_goes_uphill(self) -> None:
        boxes = torch.tensor([[[30.0, 30.0, 20.0, 30.0], [45.0, 20.0, 25.0, 20.0]]])
        moved, overlap = ascend(self.predict, boxes, self.config)
        assert (self.predict(moved) > overlap).all()
        assert (overlap > self.predict(boxes)).all()
        torch.testing.assert_close(moved[..., 2:], boxes[..., 2:])

    def test_jitter(self) -> None:
        box = torch.tensor([[10.0, 20.0, 8.0, 18.0]])  # mean side 12
        draws = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 1.0]])
        found = jitter(box, draws, self.config)
        torch.testing.assert_close(found[0, :2], box.expand(2, 4))
        w, h = max(8 - 3, 8 / 3), 18 + 3
        expected = torch.tensor([14.6 - w / 2, 28.4 - h / 2, w, h])
        torch.testing.assert_close(found[0, 2], expected)

    @given(
        st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.1, 100)] * 2),
        st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4), min_size=1, max_size=5),
    )
    def test_jitter_keeps_near_the_box(
        self, box: tuple[float, ...], draws: list[tuple[float, ...]]
    ) -> None:
        start = torch.tensor([box], dtype=torch.float64)
        found = jitter(start, torch.tensor(draws, dtype=torch.float64), self.config)[0]
        assert torch.equal(found[0], start[0])
        side = math.sqrt(box[2] * box[3])
        centre = start[0, :2] + start[0, 2:] / 2
        moved = (found[:, :2] + found[:, 2:] / 2 - centre).abs()
        assert (moved <= self.config.box_jitter_pos * side / 2 + 1e-9).all()
        assert (found[:, 2:] >= min(box[2:]) / 3 - 1e-9).all()
        grown = (found[:, 2:] - start[0, 2:]).clamp(min=0)
        assert (grown <= max(self.config.box_jitter_sz * side / 2, min(box[2:]) / 3) + 1e-9).all()

    def test_selection_averages_the_best_of_a_sensible_shape(self) -> None:
        boxes = torch.tensor([[[0.0, 0, 10, 1], [1, 1, 4, 4], [3, 3, 4, 4], [9, 9, 4, 4]]])
        config = TrDiMPConfig(iounet_k=2)
        box, found = select(boxes, torch.tensor([[9.0, 3.0, 2.0, 1.0]]), config)
        assert box.tolist() == [[2, 2, 4, 4]]
        assert found.all()
        _, found = select(boxes[:, :1], torch.tensor([[1.0]]), config)
        assert not found.any()

    def test_a_box_of_no_sensible_shape_comes_back(self) -> None:
        box = torch.tensor([[10.0, 20.0, 90.0, 2.0]])
        refined, found = refine(self.predict, box, torch.full((1, 4), 0.5), self.config)
        assert not found.any()
        torch.testing.assert_close(refined, box)


class TestLosses:
    gt = torch.tensor([[20.0, 30.0, 12.0, 16.0]]).double()

    def test_densities_are_those_that_boxes_are_drawn_from(self) -> None:
        generator = torch.Generator().manual_seed(0)
        boxes, density, gt_density = draw_proposals(self.gt, 20000, (0.05, 0.5), generator)
        # Importance sampling of 1, in the coordinates that the densities are of.
        assert float((gt_density / density).mean()) == pytest.approx(1, abs=0.03)
        shift = torch.log(boxes[0, :, 2] / 12)
        assert float(shift.std()) == pytest.approx(((0.05**2 + 0.5**2) / 2) ** 0.5, rel=0.03)

    def test_density_loss_is_least_at_the_true_density(self) -> None:
        generator = torch.Generator().manual_seed(0)
        _, density, gt_density = draw_proposals(self.gt, 128, (0.05, 0.5), generator)
        true = density_loss(gt_density.log().clamp(min=-50), density, gt_density)
        flat = density_loss(torch.zeros_like(density), density, gt_density)
        overlap = torch.linspace(-1, 1, 128)[None].double()
        by_hand = (
            torch.log((overlap.exp() / density).mean()) - (overlap * gt_density / density).mean()
        )
        torch.testing.assert_close(density_loss(overlap, density, gt_density), by_hand)
        assert true < flat

    def test_hinge_forgives_negative_scores_far_away(self) -> None:
        label = torch.tensor([[[1.0, 0.01]]])
        scores = torch.tensor([[[[0.4, -3.0]]]])
        assert float(hinge_loss(scores, label)) == pytest.approx(0.6**2 / 2)
