from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.cuda_ops import deform_roi_pool


def pool_by_hand(
    features: np.ndarray,
    rois: np.ndarray,
    offset: np.ndarray | None,
    p: int,
    scale: float,
    samples: int = 4,
) -> np.ndarray:
    """Pool sample by sample."""
    channels, height, width = features.shape[1:]
    out = np.zeros((len(rois), channels, p, p))

    def half_away(x: float) -> float:
        return math.copysign(math.floor(abs(x) + 0.5), x)

    for r, (b, x1, y1, x2, y2) in enumerate(rois):
        left, top = half_away(x1) * scale - 0.5, half_away(y1) * scale - 0.5
        roi_w = max((half_away(x2) + 1) * scale - 0.5 - left, 0.1)
        roi_h = max((half_away(y2) + 1) * scale - 0.5 - top, 0.1)
        for ph, pw in np.ndindex(p, p):
            tx, ty = (0.0, 0.0) if offset is None else 0.1 * offset[r, :, ph, pw]
            kept = []
            for ih, iw in np.ndindex(samples, samples):
                x = left + pw * roi_w / p + tx * roi_w + iw * roi_w / p / samples
                y = top + ph * roi_h / p + ty * roi_h + ih * roi_h / p / samples
                if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                    continue
                x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
                x0, y0, dx, dy = math.floor(x), math.floor(y), x % 1, y % 1
                at = features[int(b)]
                value = (1 - dx) * (1 - dy) * at[:, y0, x0]
                value = value + dx * (1 - dy) * at[:, y0, math.ceil(x)]
                value = value + (1 - dx) * dy * at[:, math.ceil(y), x0]
                kept.append(value + dx * dy * at[:, math.ceil(y), math.ceil(x)])
            if kept:
                out[r, :, ph, pw] = np.mean(kept, axis=0)
    return out


# Inside, over each border, wholly outside, a point, corners in the wrong order, around everything.
ROIS = np.array(
    [
        [0, 8.2, 10.5, 40.7, 44.1],
        [1, -20.5, -13.2, 20.0, 25.5],
        [1, 50.0, 45.0, 90.0, 88.0],
        [0, -200.0, 10.0, -120.0, 40.0],
        [0, 20.0, 20.0, 20.0, 20.0],
        [1, 40.0, 40.0, 10.0, 12.0],
        [0, -60.0, -60.0, 130.0, 130.0],
        [0, 20.5, 30.5, 40.5, 50.5],
    ]
)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("shifted", [False, True])
def test_values_are_those_of_a_loop_over_samples(size: int, shifted: bool) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 3, 9, 8))
    offset = rng.normal(0, 3, (len(ROIS), 2, size, size)) if shifted else None
    pooled = deform_roi_pool(
        torch.from_numpy(features),
        torch.from_numpy(ROIS),
        None if offset is None else torch.from_numpy(offset),
        output_size=size,
        spatial_scale=9 / 64,
    )
    assert pooled.shape == (len(ROIS), 3, size, size)
    expected = pool_by_hand(features, ROIS, offset, size, 9 / 64)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-9, atol=1e-12)
    if not shifted:
        assert (pooled[3] == 0).all()  # wholly outside


@settings(max_examples=40, deadline=None)
@given(
    roi=st.tuples(*[st.floats(-30, 90)] * 4),
    moved=st.lists(st.floats(-8, 8), min_size=8, max_size=8),
    size=st.sampled_from([1, 2]),
    samples=st.sampled_from([1, 2, 4]),
)
def test_values_are_those_of_a_loop_anywhere(
    roi: tuple[float, ...], moved: list[float], size: int, samples: int
) -> None:
    features = np.random.default_rng(2).standard_normal((2, 2, 9, 8))
    rois = np.array([[1.0, *roi]])
    offset = np.array(moved).reshape(1, 2, 2, 2)[..., :size, :size]
    pooled = deform_roi_pool(
        *map(torch.from_numpy, (features, rois, offset)),
        output_size=size,
        spatial_scale=9 / 64,
        samples=samples,
    )
    expected = pool_by_hand(features, rois, offset, size, 9 / 64, samples)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_pooled_in_single_precision(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.standard_normal((2, 3, 9, 8))).to(dtype)
    rois = torch.from_numpy(ROIS)
    pooled = deform_roi_pool(features, rois, output_size=3, spatial_scale=9 / 64)
    exact = deform_roi_pool(features.float(), rois, output_size=3, spatial_scale=9 / 64)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, exact.to(dtype), rtol=0, atol=0)


def test_gradients_are_finite_differences() -> None:
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.standard_normal((2, 2, 6, 7))).requires_grad_()
    offset = torch.from_numpy(rng.normal(0, 1, (len(ROIS), 2, 2, 2))).requires_grad_()
    rois = torch.from_numpy(ROIS).requires_grad_()

    def pool(features: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return deform_roi_pool(features, rois, offset, output_size=2, spatial_scale=0.1, samples=3)

    assert torch.autograd.gradcheck(pool, (features, offset))
    pool(features, offset).sum().backward()
    assert rois.grad is None


def test_no_regions_give_no_bins() -> None:
    pooled = deform_roi_pool(
        torch.zeros(1, 5, 4, 4), torch.zeros(0, 5), output_size=3, spatial_scale=1.0
    )
    assert pooled.shape == (0, 5, 3, 3)
