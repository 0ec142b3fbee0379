"""The Triton kernels against the plain forms: values and all gradients.

On a GPU compiled; with ``TRITON_INTERPRET=1`` in Triton's interpreter on a CPU, which
``test_kernels_interpreted.py`` does in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from slt_gym.cuda_ops import deform_roi_pool, dispatch, prroi_pool

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if importlib.util.find_spec("triton") is None:
    pytest.skip("needs Triton", allow_module_level=True)
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)
DEVICE = "cpu" if INTERPRETED else "cuda"

# Inside, over each border, wholly outside, a point, corners in the wrong order, around everything.
BOXES = (
    (8.2, 10.5, 40.7, 44.1),
    (-20.5, -13.2, 20.0, 25.5),
    (50.0, 45.0, 90.0, 88.0),
    (-200.0, 10.0, -120.0, 40.0),
    (20.0, 20.0, 20.0, 20.0),
    (40.0, 40.0, 10.0, 12.0),
    (40.0, 12.0, 10.0, 40.0),
    (-60.0, -60.0, 130.0, 130.0),
    (20.13, 30.21, 20.14, 30.23),
    (30.0, 8.0, 54.0, 8.5),
)
IMAGES = (0, 1, 1, 0, 0, 1, 0, 1, 1, 0)


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve tensors of the device by kernels, and make sure at the end that they did."""
    monkeypatch.setattr(dispatch, "KERNEL_DEVICES", (DEVICE,))
    failed: set[str] = set()
    monkeypatch.setattr(dispatch, "_failed", failed)
    yield
    assert not failed


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator)).to(DEVICE)


def number(boxes: tuple[tuple[float, ...], ...], images: tuple[int, ...]) -> Tensor:
    rows = [(image, *box) for image, box in zip(images, boxes, strict=True)]
    return torch.tensor(rows, device=DEVICE)


def differentiate(pool: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """Return the result and the gradients of a weighted sum of it."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    pooled = pool(*leaves)
    weights = draw(*pooled.shape, seed=9).to(pooled.dtype)
    return [pooled.detach(), *torch.autograd.grad((pooled * weights).sum(), leaves)]


def assert_like_plain(pool: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """Compare the kernels with the plain form; return what the kernels found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "KERNEL_DEVICES", ())
        expected = differentiate(pool, list(tensors))
    found = differentiate(pool, list(tensors))
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == plain.dtype
        assert ours.shape == plain.shape
        peak = float(plain.abs().max()) if plain.numel() else 0.0
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6 + 2e-5 * peak)
    return found


def test_deform_on_degenerate_regions() -> None:
    rois, features = number(BOXES, IMAGES), draw(2, 3, 9, 8)
    offset = draw(len(rois), 2, 2, 2, scale=3.0, seed=1)

    def pool(features: Tensor, offset: Tensor | None = None) -> Tensor:
        return deform_roi_pool(
            features, rois, offset, output_size=2, spatial_scale=9 / 64, samples=3
        )

    assert_like_plain(pool, features, offset)
    pooled, _ = assert_like_plain(pool, features)
    assert not pooled[3].any()  # wholly outside


# Boxes and masks of SiamAttn; the channels do not divide into whole blocks.
@pytest.mark.parametrize(("bins", "side", "regions", "channels"), [(4, 25, 1, 130), (16, 63, 1, 4)])
def test_deform_at_the_published_sizes(bins: int, side: int, regions: int, channels: int) -> None:
    boxes = ((80.3, 91.2, 171.8, 160.4), (-8.0, 130.0, 60.0, 262.0))[:regions]
    rois = number(boxes, (1, 0)[:regions])
    features, offset = draw(2, channels, side, side), draw(regions, 2, bins, bins, seed=1)

    def pool(features: Tensor, offset: Tensor) -> Tensor:
        return deform_roi_pool(features, rois, offset, output_size=bins, spatial_scale=side / 255)

    if INTERPRETED and bins == 16:  # too slow for the atomic additions of so many bins
        assert_like_plain(lambda o: pool(features, o), offset)
    else:
        assert_like_plain(pool, features, offset)


def test_deform_of_regions_of_images_that_are_not_there() -> None:
    rois = torch.tensor([[0.0, 1, 1, 3, 3], [1, 1, 1, 3, 3], [-1, 1, 1, 3, 3]], device=DEVICE)
    pooled = deform_roi_pool(draw(1, 2, 4, 4), rois, output_size=1, spatial_scale=1.0)
    assert pooled.isnan().flatten(1).all(1).tolist() == [False, True, True]


@pytest.mark.parametrize("numbered", [True, False])
def test_prroi_on_degenerate_boxes(numbered: bool) -> None:
    features = draw(2, 3, 5, 4)
    batched = torch.tensor(BOXES, device=DEVICE).view(2, -1, 4)
    rois = number(BOXES, IMAGES) if numbered else batched
    pooled, _, to_rois = assert_like_plain(lambda f, r: prroi_pool(f, r, 2, 5 / 64), features, rois)
    for flat in (pooled.reshape(len(BOXES), -1), to_rois.reshape(len(BOXES), -1)):
        # Wholly outside, a point, both kinds of wrong order.
        assert flat.any(1).tolist() == [k not in (3, 4, 5, 6) for k in range(len(BOXES))]


# The modulation, the two predictions and the filter of TrDiMP, with fewer channels and boxes.
@pytest.mark.parametrize(
    ("bins", "side", "stride", "channels"), [(1, 22, 16, 70), (3, 22, 16, 5), (5, 44, 8, 3)]
)
def test_prroi_at_the_published_sizes(bins: int, side: int, stride: int, channels: int) -> None:
    boxes = [[[143.1, 150.7, 201.4, 216.2]]]
    assert_like_plain(
        lambda f, r: prroi_pool(f, r, bins, 1 / stride),
        draw(1, channels, side, side),
        torch.tensor(boxes, device=DEVICE),
    )


def test_no_boxes_and_single_cells() -> None:
    features, none = draw(2, 3, 4, 5), torch.zeros(0, 5, device=DEVICE)
    offset = torch.zeros(0, 2, 2, 2, device=DEVICE)
    assert_like_plain(
        lambda f, o: deform_roi_pool(f, none, o, output_size=2, spatial_scale=1.0),
        features,
        offset,
    )
    assert_like_plain(lambda f, r: prroi_pool(f, r, 2, 1.0), features, none)
    assert_like_plain(
        lambda f, r: prroi_pool(f, r, 2, 1.0), features, torch.zeros(2, 0, 4, device=DEVICE)
    )
    cell, box = draw(1, 1, 1, 1), torch.tensor([[0.0, -0.3, -0.2, 0.6, 0.5]], device=DEVICE)
    assert_like_plain(lambda f, r: prroi_pool(f, r, 1, 1.0), cell, box)
    assert_like_plain(lambda f: deform_roi_pool(f, box, output_size=1, spatial_scale=1.0), cell)


def test_any_memory_layout() -> None:
    features = draw(2, 10, 4, 3).permute(0, 3, 1, 2)[:, :, ::2].requires_grad_()
    rois = number(BOXES[:3], IMAGES[:3])
    rois = torch.stack([rois, rois], dim=2)[..., 0].requires_grad_()
    offset = draw(3, 2, 2, 2, seed=1).transpose(2, 3).requires_grad_()
    assert not (features.is_contiguous() or rois.is_contiguous() or offset.is_contiguous())

    def pool() -> tuple[Tensor, ...]:
        deformed = deform_roi_pool(features, rois, offset, output_size=2, spatial_scale=0.1)
        precise = prroi_pool(features, rois, 2, 0.1)
        # Gradients that are broadcast have no memory of their own.
        total = deformed.sum() + precise.sum()
        return deformed, precise, *torch.autograd.grad(total, (features, rois, offset))

    found = pool()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "KERNEL_DEVICES", ())
        expected = pool()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_added_up_in_single_precision(dtype: torch.dtype) -> None:
    rois, features = number(BOXES[:2], IMAGES[:2]), draw(2, 3, 5, 4).to(dtype)
    offset = draw(2, 2, 2, 2, seed=1)
    deform = {"output_size": 2, "spatial_scale": 5 / 64}
    pools: tuple[tuple[Callable[..., Tensor], Tensor], ...] = (
        (lambda f, o: deform_roi_pool(f, rois, o, **deform), offset),
        (lambda f, r: prroi_pool(f, r, 2, 5 / 64), rois),
    )
    for pool, other in pools:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "KERNEL_DEVICES", ())
            expected = differentiate(pool, [features, other])
        found = differentiate(pool, [features, other])
        assert [f.dtype for f in found] == [dtype, dtype, torch.float32]
        # Both round the same sums once.
        step = torch.finfo(dtype).eps
        for ours, plain in zip(found[:2], expected[:2], strict=True):
            torch.testing.assert_close(ours, plain, rtol=step, atol=1e-6)
        torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-5)


def test_only_what_needs_a_gradient_gets_one() -> None:
    rois, features = number(BOXES[:2], IMAGES[:2]), draw(2, 3, 5, 4)
    offset = draw(2, 2, 2, 2, seed=1)
    assert_like_plain(
        lambda o: deform_roi_pool(features, rois, o, output_size=2, spatial_scale=0.1), offset
    )
    assert_like_plain(
        lambda f: deform_roi_pool(f, rois, offset, output_size=2, spatial_scale=0.1), features
    )
    assert_like_plain(lambda r: prroi_pool(features, r, 2, 0.1), rois)
    assert_like_plain(lambda f: prroi_pool(f, rois, 2, 0.1), features)
    assert not prroi_pool(features, rois, 2, 0.1).requires_grad


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is too slow for this, and sequential")
def test_prroi_gives_the_same_bits_again_on_large_inputs() -> None:
    features, corner = draw(4, 256, 44, 44), draw(4, 300, 2, scale=60.0) + 150
    rois = torch.cat([corner, corner + 60 + draw(4, 300, 2, scale=30.0, seed=1)], dim=2)
    first = assert_like_plain(lambda f, r: prroi_pool(f, r, 5, 1 / 8), features, rois)
    again = differentiate(lambda f, r: prroi_pool(f, r, 5, 1 / 8), [features, rois])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is too slow for this")
def test_deform_on_large_inputs() -> None:
    corner = 90 + draw(64, 2, scale=20.0)
    image = torch.arange(64, device=DEVICE)[:, None] % 4
    rois = torch.cat([image, corner, corner + 60], dim=1)
    assert_like_plain(
        lambda f, o: deform_roi_pool(f, rois, o, output_size=16, spatial_scale=63 / 255),
        draw(4, 256, 63, 63),
        draw(64, 2, 16, 16, seed=1),
    )


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_deterministic_algorithms_give_the_same_bits_again() -> None:
    corner = 90 + draw(64, 2, scale=20.0)
    image = torch.arange(64, device=DEVICE)[:, None] % 4
    rois = torch.cat([image, corner, corner + 60], dim=1)
    inputs = [draw(4, 256, 25, 25), draw(64, 2, 4, 4, seed=1)]

    def pool(features: Tensor, offset: Tensor) -> Tensor:
        return deform_roi_pool(features, rois, offset, output_size=4, spatial_scale=25 / 255)

    torch.use_deterministic_algorithms(True)
    try:
        first, again = differentiate(pool, inputs), differentiate(pool, inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
