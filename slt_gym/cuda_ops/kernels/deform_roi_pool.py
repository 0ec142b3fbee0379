"""Deformable RoI pooling: one program for each bin and block of channels.

The gradient of the features is added up atomically, in an order that changes from run to run; its
last digits do, too. The gradient of the offsets does not depend on an order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _round(x):
    """Round half away from zero."""
    whole = tl.floor(tl.abs(x) + 0.5)
    return tl.where(x < 0.0, -whole, whole)


@triton.jit
def _place_samples(low, high, scale, number, moved, BINS: tl.constexpr, SAMPLES: tl.constexpr):
    """Return a bin's first sample, the samples' distance and the region's size, along one axis."""
    corner = _round(low) * scale - 0.5
    size = tl.maximum((_round(high) + 1.0) * scale - 0.5 - corner, 0.1)
    step = tl.div_rn(size, BINS * 1.0)
    start = number * step + corner + moved * size
    return start, tl.div_rn(step, SAMPLES * 1.0), size


@triton.jit
def _is_kept(at, length):
    return (at >= -0.5) & (at <= length - 0.5)


@triton.jit
def _find_cells(at, length):
    """Return the cells before and behind positions, and the share of the latter."""
    at = tl.minimum(tl.maximum(at, 0.0), length - 1.0)
    before = tl.floor(at)
    return before.to(tl.int32), tl.ceil(at).to(tl.int32), at - before


@triton.jit
def _forward(
    features_ptr,  # (B, H, W, C)
    rois_ptr,  # (R, 5), float32
    offset_ptr,  # (R, 2, P, P), float32; not read unless MOVED
    out_ptr,  # (R, P, P, C)
    batch,
    height,
    width,
    channels,
    scale,
    offset_scale,
    MOVED: tl.constexpr,
    BINS: tl.constexpr,
    SAMPLES: tl.constexpr,
    LANES: tl.constexpr,  # the power of two from SAMPLES on
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0)
    region = place // (BINS * BINS)
    bin_y = (place // BINS) % BINS
    bin_x = place % BINS
    roi = rois_ptr + tl.cast(region, tl.int64) * 5
    move_x = 0.0
    move_y = 0.0
    if MOVED:
        moved = offset_ptr + (tl.cast(region, tl.int64) * 2 * BINS + bin_y) * BINS + bin_x
        move_x = tl.load(moved) * offset_scale
        move_y = tl.load(moved + BINS * BINS) * offset_scale
    start_x, step_x, _ = _place_samples(
        tl.load(roi + 1), tl.load(roi + 3), scale, bin_x, move_x, BINS, SAMPLES
    )
    start_y, step_y, _ = _place_samples(
        tl.load(roi + 2), tl.load(roi + 4), scale, bin_y, move_y, BINS, SAMPLES
    )
    image = tl.load(roi).to(tl.int64)
    exists = (image >= 0) & (image < batch)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, LANES)
    at_x = start_x + step_x * lane
    kept_x = _is_kept(at_x, width) & (lane < SAMPLES)
    left, right, along = _find_cells(at_x, width)
    along = along[:, None]
    total = tl.zeros([LANES, BLOCK], tl.float32)
    rows = 0.0
    for i in range(SAMPLES):
        at_y = start_y + step_y * i
        kept_y = _is_kept(at_y, height)
        rows += tl.where(kept_y, 1.0, 0.0)
        above, below, down = _find_cells(at_y, height)
        upper = (image * height + above) * width
        lower = (image * height + below) * width
        # Channels to read for each sample: none for those that are left out.
        limit = tl.where(kept_x, tl.where(exists & kept_y, channels, 0), 0)
        mask = channel[None, :] < limit[:, None]
        read = features_ptr + channel[None, :]
        v00 = tl.load(read + ((upper + left) * channels)[:, None], mask=mask, other=0.0)
        v01 = tl.load(read + ((upper + right) * channels)[:, None], mask=mask, other=0.0)
        v10 = tl.load(read + ((lower + left) * channels)[:, None], mask=mask, other=0.0)
        v11 = tl.load(read + ((lower + right) * channels)[:, None], mask=mask, other=0.0)
        over = (1.0 - along) * v00.to(tl.float32) + along * v01.to(tl.float32)
        under = (1.0 - along) * v10.to(tl.float32) + along * v11.to(tl.float32)
        total += (1.0 - down) * over + down * under
    kept = rows * tl.sum(tl.where(kept_x, 1.0, 0.0), axis=0)
    mean = tl.where(
        exists, tl.sum(total, axis=0) * tl.div_rn(1.0, tl.maximum(kept, 1.0)), float("nan")
    )
    at = tl.cast(place, tl.int64) * channels + channel
    tl.store(out_ptr + at, mean, mask=channel < channels)


@triton.jit
def _backward(
    features_ptr,
    rois_ptr,
    offset_ptr,
    grad_ptr,  # (R, P, P, C)
    to_features_ptr,  # (B, H, W, C), float32, zeros; not written unless TO_FEATURES
    partial_ptr,  # (R * P * P, blocks, 2), float32: x, y; not written unless TO_OFFSET
    batch,
    height,
    width,
    channels,
    scale,
    offset_scale,
    MOVED: tl.constexpr,
    TO_FEATURES: tl.constexpr,
    TO_OFFSET: tl.constexpr,
    BINS: tl.constexpr,
    SAMPLES: tl.constexpr,
    LANES: tl.constexpr,  # the power of two from SAMPLES on
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0)
    region = place // (BINS * BINS)
    bin_y = (place // BINS) % BINS
    bin_x = place % BINS
    roi = rois_ptr + tl.cast(region, tl.int64) * 5
    move_x = 0.0
    move_y = 0.0
    if MOVED:
        moved = offset_ptr + (tl.cast(region, tl.int64) * 2 * BINS + bin_y) * BINS + bin_x
        move_x = tl.load(moved) * offset_scale
        move_y = tl.load(moved + BINS * BINS) * offset_scale
    start_x, step_x, size_x = _place_samples(
        tl.load(roi + 1), tl.load(roi + 3), scale, bin_x, move_x, BINS, SAMPLES
    )
    start_y, step_y, size_y = _place_samples(
        tl.load(roi + 2), tl.load(roi + 4), scale, bin_y, move_y, BINS, SAMPLES
    )
    image = tl.load(roi).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = (image >= 0) & (image < batch)
    at = tl.cast(place, tl.int64) * channels + channel
    grad = tl.load(grad_ptr + at, mask=channel < channels, other=0.0).to(tl.float32)
    lane = tl.arange(0, LANES)
    at_x = start_x + step_x * lane
    kept_x = _is_kept(at_x, width) & (lane < SAMPLES)
    rows = 0.0
    for i in range(SAMPLES):
        rows += tl.where(_is_kept(start_y + step_y * i, height), 1.0, 0.0)
    kept = rows * tl.sum(tl.where(kept_x, 1.0, 0.0), axis=0)
    grad = (grad * tl.div_rn(1.0, tl.maximum(kept, 1.0)))[None, :]
    # Samples that are pulled back to the border do not move along with their bin.
    free_x = tl.where((at_x >= 0.0) & (at_x <= width - 1.0), 1.0, 0.0)[:, None]
    left, right, along = _find_cells(at_x, width)
    along = along[:, None]
    to_x = tl.zeros([LANES, BLOCK], tl.float32)
    to_y = tl.zeros([LANES, BLOCK], tl.float32)
    for i in range(SAMPLES):
        at_y = start_y + step_y * i
        free_y = tl.where((at_y >= 0.0) & (at_y <= height - 1.0), 1.0, 0.0)
        above, below, down = _find_cells(at_y, height)
        upper = (image * height + above) * width
        lower = (image * height + below) * width
        limit = tl.where(kept_x, tl.where(exists & _is_kept(at_y, height), channels, 0), 0)
        mask = channel[None, :] < limit[:, None]
        p00 = ((upper + left) * channels)[:, None] + channel[None, :]
        p01 = ((upper + right) * channels)[:, None] + channel[None, :]
        p10 = ((lower + left) * channels)[:, None] + channel[None, :]
        p11 = ((lower + right) * channels)[:, None] + channel[None, :]
        if TO_OFFSET:
            v00 = tl.load(features_ptr + p00, mask=mask, other=0.0).to(tl.float32)
            v01 = tl.load(features_ptr + p01, mask=mask, other=0.0).to(tl.float32)
            v10 = tl.load(features_ptr + p10, mask=mask, other=0.0).to(tl.float32)
            v11 = tl.load(features_ptr + p11, mask=mask, other=0.0).to(tl.float32)
            to_x += free_x * ((1.0 - down) * (v01 - v00) + down * (v11 - v10))
            to_y += free_y * ((1.0 - along) * (v10 - v00) + along * (v11 - v01))
        if TO_FEATURES:
            over = grad * (1.0 - down)
            under = grad * down
            out = to_features_ptr
            tl.atomic_add(out + p00, over * (1.0 - along), mask=mask, sem="relaxed")
            tl.atomic_add(out + p01, over * along, mask=mask, sem="relaxed")
            tl.atomic_add(out + p10, under * (1.0 - along), mask=mask, sem="relaxed")
            tl.atomic_add(out + p11, under * along, mask=mask, sem="relaxed")
    if TO_OFFSET:
        part = (tl.cast(place, tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 2
        tl.store(
            partial_ptr + part,
            tl.sum(tl.sum(to_x * grad, axis=1), axis=0) * (offset_scale * size_x),
        )
        tl.store(
            partial_ptr + part + 1,
            tl.sum(tl.sum(to_y * grad, axis=1), axis=0) * (offset_scale * size_y),
        )


def forward(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: int,
    spatial_scale: float,
    samples: int,
    offset_scale: float,
) -> Tensor:
    """Pool as :func:`slt_gym.cuda_ops.deform_roi_pool` does; NaN if there is no such image."""
    batch, channels, height, width = features.shape
    out = features.new_empty(len(rois), output_size, output_size, channels)
    if out.numel():
        block = _block(channels)
        rois = rois.float().contiguous()
        with torch.cuda.device_of(features):
            _forward[(len(rois) * output_size**2, triton.cdiv(channels, block))](
                features.permute(0, 2, 3, 1).contiguous(),
                rois,
                rois if offset is None else offset.float().contiguous(),
                out,
                batch,
                height,
                width,
                channels,
                float(spatial_scale),
                float(offset_scale),
                MOVED=offset is not None,
                BINS=output_size,
                SAMPLES=samples,
                LANES=triton.next_power_of_2(samples),
                BLOCK=block,
                enable_fp_fusion=False,  # samples on a border fall on the plain form's side of it
            )
    return out.permute(0, 3, 1, 2).contiguous()


def backward(
    grad: Tensor,
    needed: tuple[bool, ...],
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: int,
    spatial_scale: float,
    samples: int,
    offset_scale: float,
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of features and offset, each where it is needed."""
    batch, channels, height, width = features.shape
    block = _block(channels)
    blocks = triton.cdiv(channels, block)
    places = len(rois) * output_size**2
    rois = rois.float().contiguous()
    to_features = rois.new_zeros(batch, height, width, channels) if needed[0] else None
    partial = rois.new_zeros(places, blocks, 2) if needed[2] else None
    if grad.numel() and any(needed):
        with torch.cuda.device_of(features):
            _backward[(places, blocks)](
                features.permute(0, 2, 3, 1).contiguous(),
                rois,
                rois if offset is None else offset.float().contiguous(),
                grad.permute(0, 2, 3, 1).contiguous(),
                rois if to_features is None else to_features,
                rois if partial is None else partial,
                batch,
                height,
                width,
                channels,
                float(spatial_scale),
                float(offset_scale),
                MOVED=offset is not None,
                TO_FEATURES=to_features is not None,
                TO_OFFSET=partial is not None,
                BINS=output_size,
                SAMPLES=samples,
                LANES=triton.next_power_of_2(samples),
                BLOCK=block,
                enable_fp_fusion=False,
            )
    to_offset = None
    if partial is not None and offset is not None:
        parts = partial.sum(1).view(len(rois), output_size, output_size, 2)
        to_offset = parts.permute(0, 3, 1, 2).to(offset.dtype)
    if to_features is not None:
        to_features = to_features.permute(0, 3, 1, 2).to(features.dtype)
    return to_features, None, to_offset


def _block(channels: int) -> int:
    return min(triton.next_power_of_2(channels), 128)
