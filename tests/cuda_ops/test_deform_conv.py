from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F

from slt_gym.cuda_ops import deform_conv2d


def read(features: np.ndarray, y: float, x: float) -> np.ndarray:
    """Read ``(C, H, W)`` bilinearly at a position, zero outside."""
    height, width = features.shape[1:]
    value = np.zeros(len(features))
    if not (-1 < y < height and -1 < x < width):
        return value
    y0, x0 = int(np.floor(y)), int(np.floor(x))
    for i, j in np.ndindex(2, 2):
        if 0 <= y0 + i < height and 0 <= x0 + j < width:
            weight = (1 - abs(y - y0 - i)) * (1 - abs(x - x0 - j))
            value += weight * features[:, y0 + i, x0 + j]
    return value


def convolve_by_hand(x: np.ndarray, offset: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Convolve 3x3 with padding 1, tap by tap; first the vertical offset, then the horizontal."""
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for b, row, col, tap in np.ndindex(len(x), *x.shape[2:], 9):
        dy, dx = offset[b, 2 * tap : 2 * tap + 2, row, col]
        seen = read(x[b], row - 1 + tap // 3 + dy, col - 1 + tap % 3 + dx)
        out[b, :, row, col] += weight[:, :, tap // 3, tap % 3] @ seen
    return out


@pytest.mark.parametrize("spread", [0.0, 0.7, 4.0])
def test_values_are_those_of_a_loop_over_taps(spread: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 5, 6)), rng.standard_normal((4, 3, 3, 3))
    offset = rng.normal(0, spread, (2, 18, 5, 6))
    out = deform_conv2d(*map(torch.from_numpy, (x, offset, weight)), padding=1)
    np.testing.assert_allclose(out.numpy(), convolve_by_hand(x, offset, weight), atol=1e-10)
    if not spread:
        plain = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=1)
        np.testing.assert_allclose(out.numpy(), plain.numpy(), atol=1e-10)


def test_gradients_are_finite_differences() -> None:
    rng = np.random.default_rng(1)
    shapes = (1, 2, 4, 3), (1, 18, 4, 3), (2, 2, 3, 3)
    inputs = [torch.from_numpy(rng.normal(0, 0.8, shape)).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(lambda *args: deform_conv2d(*args, padding=1), inputs)


def test_both_devices_operators_agree() -> None:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    settings = {"stride": 2, "padding": 1, "dilation": 2}
    x, offset, weight, bias = draw(2, 4, 9, 8), draw(2, 12, 5, 3), draw(3, 4, 2, 3), draw(3)
    outs = [
        operator(x, 2 * offset, weight, bias, **settings)
        for operator in (deform_conv2d, torchvision.ops.deform_conv2d)
    ]
    torch.testing.assert_close(*outs)
    ours, theirs = (
        torch.autograd.grad(out.square().sum(), (x, offset, weight, bias)) for out in outs
    )
    torch.testing.assert_close(ours, theirs)
