"""Precise RoI pooling against exact integration, piece by piece."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.cuda_ops import prroi_pool
from slt_gym.errors import InvalidArgumentError


def interpolate(surface: np.ndarray, y: float, x: float) -> np.ndarray:
    """Return the bilinear surface ``(C, H, W)`` at a point, zero outside."""
    rows = np.maximum(0, 1 - np.abs(y - np.arange(surface.shape[1])))
    columns = np.maximum(0, 1 - np.abs(x - np.arange(surface.shape[2])))
    return np.einsum("chw,h,w->c", surface, rows, columns)


def integrate(surface: np.ndarray, y0: float, y1: float, x0: float, x1: float) -> np.ndarray:
    """Integrate over a rectangle: cut at the cells, each piece with two Gauss nodes an axis.

    A piece is bilinear, which two nodes integrate exactly.
    """

    def nodes(low: float, high: float) -> list[tuple[float, float]]:
        cuts = [low, *range(int(np.floor(low)) + 1, int(np.ceil(high))), high]
        found = []
        for a, b in itertools.pairwise(cuts):
            middle, half = (a + b) / 2, (b - a) / 2
            found += [(middle - half / 3**0.5, half), (middle + half / 3**0.5, half)]
        return found

    total = np.zeros(len(surface))
    for y, wy in nodes(y0, y1):
        for x, wx in nodes(x0, x1):
            total += wy * wx * interpolate(surface, y, x)
    return total


def pool_by_hand(surface: np.ndarray, box: np.ndarray, bins: int, scale: float) -> np.ndarray:
    x1, y1, x2, y2 = box * scale
    width, height = max(x2 - x1, 0) / bins, max(y2 - y1, 0) / bins
    pooled = np.zeros((len(surface), bins, bins))
    if width * height == 0:
        return pooled
    for i in range(bins):
        for j in range(bins):
            top, left = y1 + i * height, x1 + j * width
            mass = integrate(surface, top, top + height, left, left + width)
            pooled[:, i, j] = mass / (width * height)
    return pooled


BOXES = {
    "inside": (1.3, 2.1, 5.2, 6.4),
    "on the cells": (1.0, 1.0, 4.0, 3.0),
    "over the border": (-3.2, -2.5, 4.4, 11.0),
    "around everything": (-5.0, -6.0, 20.0, 19.0),
    "just beside": (-0.9, 2.0, -0.2, 3.0),
    "outside": (30.0, 30.0, 34.0, 37.0),
    "below a pixel": (3.21, 4.02, 3.23, 4.05),
    "inverted": (5.0, 2.0, 3.0, 4.0),
    "without height": (1.0, 2.0, 4.0, 2.0),
}


@pytest.fixture(scope="module")
def surface() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 7, 9)))


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize(("bins", "scale"), [(1, 1.0), (3, 1.0), (4, 0.5)])
def test_values_are_the_integrals(
    surface: torch.Tensor, name: str, bins: int, scale: float
) -> None:
    box = np.array(BOXES[name]) / scale
    pooled = prroi_pool(surface[1:], torch.from_numpy(box)[None, None], bins, scale)
    assert pooled.shape == (1, 1, 3, bins, bins)
    expected = pool_by_hand(surface[1].numpy(), box, bins, scale)
    np.testing.assert_allclose(pooled[0, 0].numpy(), expected, rtol=0, atol=1e-12)
    if name in ("outside", "inverted", "without height"):
        assert not pooled.any()


@settings(max_examples=40, deadline=None)
@given(
    corner=st.tuples(st.floats(-4, 10), st.floats(-4, 10)),
    size=st.tuples(st.floats(0.01, 12), st.floats(0.01, 12)),
    bins=st.integers(1, 3),
)
def test_values_are_the_integrals_anywhere(
    surface: torch.Tensor, corner: tuple[float, float], size: tuple[float, float], bins: int
) -> None:
    box = np.array([*corner, corner[0] + size[0], corner[1] + size[1]])
    pooled = prroi_pool(surface[:1], torch.from_numpy(box)[None, None], bins, 1.0)[0, 0]
    expected = pool_by_hand(surface[0].numpy(), box, bins, 1.0)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("bins", [1, 3])
def test_gradients_are_the_finite_differences(surface: torch.Tensor, bins: int) -> None:
    # Off the cells, where the surface has a derivative of the second order.
    names = ("inside", "over the border", "around everything", "below a pixel")
    boxes = torch.tensor([BOXES[name] for name in names], dtype=torch.float64) + 0.0137
    boxes = boxes[None].requires_grad_()
    features = surface[:1, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, b: prroi_pool(f, b, bins, 0.7), (features, boxes), eps=1e-7, atol=1e-5
    )


def test_gradients_reach_the_boxes_own_images(surface: torch.Tensor) -> None:
    names = ("inside", "outside", "over the border", "inverted", "below a pixel")
    boxes = torch.tensor([BOXES[name] for name in names], dtype=torch.float64) + 0.0137
    image = torch.tensor([[1.0], [0], [0], [1], [1]], dtype=torch.float64)
    features = surface[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, b: prroi_pool(f, torch.cat([image, b], dim=1), 2, 1.0),
        (features, boxes.requires_grad_()),
        eps=1e-7,
        atol=1e-5,
    )


def test_the_gradient_on_a_cell_is_the_surfaces_own(surface: torch.Tensor) -> None:
    # d/dx2 of the mean over [x1, x2] is (value at x2 - mean) / length, also where x2 is a cell.
    box = torch.tensor([[[1.0, 1.0, 4.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    pooled = prroi_pool(surface[:1], box, 1, 1.0).sum()
    pooled.backward()
    numpy = surface[0].numpy()
    edge = integrate(numpy, 1.0, 3.0, 4 - 1e-7, 4 + 1e-7).sum() / (2 * 2e-7)
    slope = (edge - float(pooled.detach())) / 3
    assert box.grad[0, 0, 2].item() == pytest.approx(slope, rel=1e-5)


def test_boxes_without_an_area_have_no_gradient(surface: torch.Tensor) -> None:
    box = torch.tensor([[BOXES["inverted"], BOXES["without height"]]], dtype=torch.float64)
    box.requires_grad_()
    features = surface[:1].clone().requires_grad_()
    prroi_pool(features, box, 3, 1.0).sum().backward()
    assert not box.grad.any()
    assert not features.grad.any()


def test_numbered_rois_equal_the_batched_ones(surface: torch.Tensor) -> None:
    boxes = torch.tensor(list(BOXES.values()), dtype=torch.float64)
    batched = prroi_pool(surface, boxes[None].expand(2, -1, -1), 2, 1.0)
    image = torch.arange(len(boxes)) % 2
    rois = torch.cat([image[:, None].double(), boxes], dim=1)
    numbered = prroi_pool(surface, rois, 2, 1.0)
    torch.testing.assert_close(numbered, batched[image, torch.arange(len(boxes))])


def test_single_precision_keeps_its_digits_in_tiny_bins() -> None:
    features = torch.rand(1, 1, 8, 8)
    box = torch.tensor([[[3.25, 4.5, 3.25 + 2**-10, 4.5 + 2**-10]]])
    single = prroi_pool(features, box, 1, 1.0)
    double = prroi_pool(features.double(), box.double(), 1, 1.0)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)


def test_no_boxes_give_no_rows(surface: torch.Tensor) -> None:
    assert prroi_pool(surface, torch.zeros(2, 0, 4), 3, 1.0).shape == (2, 0, 3, 3, 3)
    assert prroi_pool(surface, torch.zeros(0, 5), 3, 1.0).shape == (0, 3, 3, 3)


@pytest.mark.parametrize("shape", [(3, 4), (1, 4, 4), (4,), (2, 4, 5)])
def test_other_shapes_are_refused(surface: torch.Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"rois have shape"):
        prroi_pool(surface, torch.zeros(shape), 3, 1.0)


def test_an_image_that_is_not_there_is_refused(surface: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match=r"images 2 to 2: there are 2"):
        prroi_pool(surface, torch.tensor([[2.0, 0, 0, 1, 1]]), 3, 1.0)
    with pytest.raises(InvalidArgumentError, match=r"output_size is 0"):
        prroi_pool(surface, torch.zeros(0, 5), 0, 1.0)
