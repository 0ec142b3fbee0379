from __future__ import annotations

import pytest
import torch

from slt_gym.cuda_ops import depthwise_xcorr


@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (2, 3, 9, 7), (3, 4, 5, 6)])
def test_values_are_those_of_a_loop_over_positions(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    search = torch.randn(shape, generator=generator, dtype=torch.float64)
    kernel = torch.randn((*shape[:2], 5, 4), generator=generator, dtype=torch.float64)
    out = depthwise_xcorr(search, kernel)
    expected = torch.zeros(*shape[:2], shape[2] - 4, shape[3] - 3, dtype=torch.float64)
    for i in range(expected.shape[2]):
        for j in range(expected.shape[3]):
            expected[:, :, i, j] = (search[:, :, i : i + 5, j : j + 4] * kernel).sum((2, 3))
    torch.testing.assert_close(out, expected)


def test_gradients_are_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    search = torch.randn(2, 2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 2, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise_xcorr, (search, kernel))
