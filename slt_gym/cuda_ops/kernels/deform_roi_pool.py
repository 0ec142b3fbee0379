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
def _count(start, step, length, SAMPLES: tl.constexpr):
    """Count the samples along one axis that are not left out."""
    at = start + step * 0.0
    count = tl.where(_is_kept(at, length), 1.0, 0.0)
    for i in tl.static_range(1, SAMPLES):
        count += tl.where(_is_kept(start + step * i, length), 1.0, 0.0)
    return count


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
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(SAMPLES):
        at_y = start_y + step_y * i
        kept_y = _is_kept(at_y, height)
        at_y = tl.minimum(tl.maximum(at_y, 0.0), height - 1.0)
        above = tl.floor(at_y)
        down = at_y - above
        upper = (image * height + above.to(tl.int32)) * width
        lower = (image * height + tl.ceil(at_y).to(tl.int32)) * width
        for j in tl.static_range(SAMPLES):
            at_x = start_x + step_x * j
            kept_x = _is_kept(at_x, width)
            mask = channel < tl.where(exists & kept_y & kept_x, channels, 0)
            at_x = tl.minimum(tl.maximum(at_x, 0.0), width - 1.0)
            before = tl.floor(at_x)
            along = at_x - before
            left = before.to(tl.int32)
            right = tl.ceil(at_x).to(tl.int32)
            read = features_ptr + channel
            v00 = tl.load(read + (upper + left) * channels, mask=mask, other=0.0).to(tl.float32)
            v01 = tl.load(read + (upper + right) * channels, mask=mask, other=0.0).to(tl.float32)
            v10 = tl.load(read + (lower + left) * channels, mask=mask, other=0.0).to(tl.float32)
            v11 = tl.load(read + (lower + right) * channels, mask=mask, other=0.0).to(tl.float32)
            total += (1.0 - down) * ((1.0 - along) * v00 + along * v01)
            total += down * ((1.0 - along) * v10 + along * v11)
    kept = _count(start_x, step_x, width, SAMPLES) * _count(start_y, step_y, height, SAMPLES)
    mean = tl.where(exists, tl.div_rn(total, tl.maximum(kept, 1.0)), float("nan"))
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
    kept = _count(start_x, step_x, width, SAMPLES) * _count(start_y, step_y, height, SAMPLES)
    grad = tl.div_rn(grad, tl.maximum(kept, 1.0))
    to_x = tl.zeros([BLOCK], tl.float32)
    to_y = tl.zeros([BLOCK], tl.float32)
    for i in range(SAMPLES):
        at_y = start_y + step_y * i
        kept_y = _is_kept(at_y, height)
        # Samples that are pulled back to the border do not move along with their bin.
        free_y = tl.where((at_y >= 0.0) & (at_y <= height - 1.0), 1.0, 0.0)
        at_y = tl.minimum(tl.maximum(at_y, 0.0), height - 1.0)
        above = tl.floor(at_y)
        down = at_y - above
        upper = (image * height + above.to(tl.int32)) * width
        lower = (image * height + tl.ceil(at_y).to(tl.int32)) * width
        for j in tl.static_range(SAMPLES):
            at_x = start_x + step_x * j
            kept_x = _is_kept(at_x, width)
            mask = channel < tl.where(exists & kept_y & kept_x, channels, 0)
            free_x = tl.where((at_x >= 0.0) & (at_x <= width - 1.0), 1.0, 0.0)
            at_x = tl.minimum(tl.maximum(at_x, 0.0), width - 1.0)
            before = tl.floor(at_x)
            along = at_x - before
            left = before.to(tl.int32)
            right = tl.ceil(at_x).to(tl.int32)
            p00 = (upper + left) * channels + channel
            p01 = (upper + right) * channels + channel
            p10 = (lower + left) * channels + channel
            p11 = (lower + right) * channels + channel
            if TO_OFFSET:
                v00 = tl.load(features_ptr + p00, mask=mask, other=0.0).to(tl.float32)
                v01 = tl.load(features_ptr + p01, mask=mask, other=0.0).to(tl.float32)
                v10 = tl.load(features_ptr + p10, mask=mask, other=0.0).to(tl.float32)
                v11 = tl.load(features_ptr + p11, mask=mask, other=0.0).to(tl.float32)
                to_x += free_x * ((1.0 - down) * (v01 - v00) + down * (v11 - v10))
                to_y += free_y * ((1.0 - along) * (v10 - v00) + along * (v11 - v01))
            if TO_FEATURES:
                g0 = grad * (1.0 - down)
                g1 = grad * down
                out = to_features_ptr
                tl.atomic_add(out + p00, g0 * (1.0 - along), mask=mask, sem="relaxed")
                tl.atomic_add(out + p01, g0 * along, mask=mask, sem="relaxed")
                tl.atomic_add(out + p10, g1 * (1.0 - along), mask=mask, sem="relaxed")
                tl.atomic_add(out + p11, g1 * along, mask=mask, sem="relaxed")
    if TO_OFFSET:
        part = (tl.cast(place, tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 2
        tl.store(partial_ptr + part, tl.sum(to_x * grad, axis=0) * (offset_scale * size_x))
        tl.store(partial_ptr + part + 1, tl.sum(to_y * grad, axis=0) * (offset_scale * size_y))


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
                spatial_scale,
                offset_scale,
                MOVED=offset is not None,
                BINS=output_size,
                SAMPLES=samples,
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
                spatial_scale,
                offset_scale,
                MOVED=offset is not None,
                TO_FEATURES=to_features is not None,
                TO_OFFSET=partial is not None,
                BINS=output_size,
                SAMPLES=samples,
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
