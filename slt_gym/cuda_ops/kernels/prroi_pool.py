"""Precise RoI pooling: one program for each bin and block of channels.

Without atomic additions, so that the same input gives the same bits: in the backward pass to the
features each cell gathers from the bins that reach it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS = 8  # of a row that a program reads at once


@triton.jit
def _integrate_hat(low, high):
    """Integrate ``max(0, 1 - |t|)`` from ``low`` to ``high``, as the plain form does."""
    a = tl.minimum(tl.maximum(low, -1.0), 0.0)
    b = tl.minimum(tl.maximum(high, -1.0), 0.0)
    c = tl.minimum(tl.maximum(low, 0.0), 1.0)
    d = tl.minimum(tl.maximum(high, 0.0), 1.0)
    return (b - a) * (1.0 + (a + b) * 0.5) + (d - c) * (1.0 - (c + d) * 0.5)


@triton.jit
def _hat(t):
    return tl.maximum(1.0 - tl.abs(t), 0.0)


@triton.jit
def _clip(x, length):
    """Cut a float to ``[0, length]`` and make it a whole number; NaN too ends up in there."""
    return tl.minimum(tl.maximum(x, 0.0), length * 1.0).to(tl.int32)


@triton.jit
def _read_box(boxes_ptr, box, scale, BINS: tl.constexpr):
    """Return a box's first corner and its bins' size, in cells, and whether it has an area."""
    at = boxes_ptr + tl.cast(box, tl.int64) * 4
    x1 = tl.load(at) * scale
    y1 = tl.load(at + 1) * scale
    size_x = tl.div_rn(tl.load(at + 2) * scale - x1, BINS * 1.0)
    size_y = tl.div_rn(tl.load(at + 3) * scale - y1, BINS * 1.0)
    valid = (size_x > 0.0) & (size_y > 0.0)
    return x1, y1, tl.where(valid, size_x, 1.0), tl.where(valid, size_y, 1.0), valid


@triton.jit
def _forward(
    features_ptr,  # (B, H, W, C)
    boxes_ptr,  # (K, 4), float32
    image_ptr,  # (K,), int64
    out_ptr,  # (K, P, P, C)
    height,
    width,
    channels,
    scale,
    BINS: tl.constexpr,
    CELLS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0)
    box = place // (BINS * BINS)
    x1, y1, size_x, size_y, valid = _read_box(boxes_ptr, box, scale, BINS)
    left = x1 + (place % BINS) * size_x
    top = y1 + (place // BINS % BINS) * size_y
    first_row = _clip(tl.floor(top), height)
    last_row = tl.where(valid, _clip(tl.ceil(top + size_y) + 1.0, height), first_row)
    first_column = _clip(tl.floor(left), width)
    last_column = _clip(tl.ceil(left + size_x) + 1.0, width)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    image = tl.load(image_ptr + box) * height
    total = tl.zeros([CELLS, BLOCK], tl.float32)
    for row in range(first_row, last_row):
        across = top - row
        down = tl.div_rn(_integrate_hat(across, across + size_y), size_y)
        for start in range(first_column, last_column, CELLS):
            column = start + tl.arange(0, CELLS)
            along = left - column
            share = down * tl.div_rn(_integrate_hat(along, along + size_x), size_x)
            cell = ((image + row) * width + column) * channels
            inside = (column < last_column)[:, None] & (channel < channels)[None, :]
            read = tl.load(features_ptr + cell[:, None] + channel[None, :], mask=inside, other=0.0)
            total += share[:, None] * read.to(tl.float32)
    at = tl.cast(place, tl.int64) * channels + channel
    tl.store(out_ptr + at, tl.sum(total, axis=0), mask=channel < channels)


@triton.jit
def _backward_boxes(
    features_ptr,
    boxes_ptr,
    image_ptr,
    grad_ptr,  # (K, P, P, C)
    partial_ptr,  # (K * P * P, blocks, 4), float32
    height,
    width,
    channels,
    scale,
    BINS: tl.constexpr,
    CELLS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute each bin's and block's part in the gradient of its box's corners.

    A mean over ``[a, a + s]`` has the derivatives ``(f(a + s) - f(a)) / s`` with respect to the
    start and ``(f(a + s) - mean) / s`` with respect to the length.
    """
    place = tl.program_id(0)
    box = place // (BINS * BINS)
    x1, y1, size_x, size_y, valid = _read_box(boxes_ptr, box, scale, BINS)
    bin_x = place % BINS
    bin_y = place // BINS % BINS
    left = x1 + bin_x * size_x
    top = y1 + bin_y * size_y
    first_row = _clip(tl.floor(top), height)
    last_row = tl.where(valid, _clip(tl.ceil(top + size_y) + 1.0, height), first_row)
    first_column = _clip(tl.floor(left), width)
    last_column = _clip(tl.ceil(left + size_x) + 1.0, width)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    image = tl.load(image_ptr + box) * height
    to_left = tl.zeros([CELLS, BLOCK], tl.float32)
    to_width = tl.zeros([CELLS, BLOCK], tl.float32)
    to_top = tl.zeros([CELLS, BLOCK], tl.float32)
    to_height = tl.zeros([CELLS, BLOCK], tl.float32)
    for row in range(first_row, last_row):
        across = top - row
        down = tl.div_rn(_integrate_hat(across, across + size_y), size_y)
        bottom_edge = _hat(across + size_y)
        down_start = bottom_edge - _hat(across)
        down_length = bottom_edge - down
        for start in range(first_column, last_column, CELLS):
            column = start + tl.arange(0, CELLS)
            along = left - column
            share = tl.div_rn(_integrate_hat(along, along + size_x), size_x)
            right_edge = _hat(along + size_x)
            cell = ((image + row) * width + column) * channels
            inside = (column < last_column)[:, None] & (channel < channels)[None, :]
            read = tl.load(
                features_ptr + cell[:, None] + channel[None, :], mask=inside, other=0.0
            ).to(tl.float32)
            to_left += (down * (right_edge - _hat(along)))[:, None] * read
            to_width += (down * (right_edge - share))[:, None] * read
            to_top += (down_start * share)[:, None] * read
            to_height += (down_length * share)[:, None] * read
    at = tl.cast(place, tl.int64) * channels + channel
    grad = tl.load(grad_ptr + at, mask=channel < channels, other=0.0).to(tl.float32)
    x_start = tl.sum(tl.sum(to_left, axis=0) * grad, axis=0) * tl.div_rn(scale, size_x)
    x_length = tl.sum(tl.sum(to_width, axis=0) * grad, axis=0) * tl.div_rn(scale, size_x)
    y_start = tl.sum(tl.sum(to_top, axis=0) * grad, axis=0) * tl.div_rn(scale, size_y)
    y_length = tl.sum(tl.sum(to_height, axis=0) * grad, axis=0) * tl.div_rn(scale, size_y)
    share_x = bin_x * (1.0 / BINS)
    share_y = bin_y * (1.0 / BINS)
    out = (tl.cast(place, tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 4
    tl.store(partial_ptr + out, x_start * (1.0 - share_x) - x_length * (1.0 / BINS))
    tl.store(partial_ptr + out + 1, y_start * (1.0 - share_y) - y_length * (1.0 / BINS))
    tl.store(partial_ptr + out + 2, x_start * share_x + x_length * (1.0 / BINS))
    tl.store(partial_ptr + out + 3, y_start * share_y + y_length * (1.0 / BINS))


@triton.jit
def _backward_features(
    boxes_ptr,  # sorted by image
    first_ptr,  # (B + 1,), int32: each image's first box
    grad_ptr,  # (K, P, P, C), in the boxes' order
    out_ptr,  # (B, H, W, C)
    height,
    width,
    channels,
    scale,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gather one cell's gradient from the bins of its image's boxes."""
    cell = tl.program_id(0)
    image = cell // (height * width)
    row = (cell // width) % height
    column = cell % width
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for box in range(tl.load(first_ptr + image), tl.load(first_ptr + image + 1)):
        x1, y1, size_x, size_y, valid = _read_box(boxes_ptr, box, scale, BINS)
        # The bins that overlap the cell's hat, from one cell before it to one behind.
        first_y = _clip(tl.floor(tl.div_rn(row - 1.0 - y1, size_y)), BINS)
        last_y = _clip(tl.floor(tl.div_rn(row + 1.0 - y1, size_y)) + 1.0, BINS)
        last_y = tl.where(valid, last_y, first_y)
        first_x = _clip(tl.floor(tl.div_rn(column - 1.0 - x1, size_x)), BINS)
        last_x = _clip(tl.floor(tl.div_rn(column + 1.0 - x1, size_x)) + 1.0, BINS)
        for bin_y in range(first_y, last_y):
            across = y1 + bin_y * size_y - row
            down = tl.div_rn(_integrate_hat(across, across + size_y), size_y)
            for bin_x in range(first_x, last_x):
                along = x1 + bin_x * size_x - column
                share = down * tl.div_rn(_integrate_hat(along, along + size_x), size_x)
                place = (tl.cast(box, tl.int64) * BINS + bin_y) * BINS + bin_x
                grad = tl.load(
                    grad_ptr + place * channels + channel, mask=channel < channels, other=0.0
                )
                total += share * grad.to(tl.float32)
    at = tl.cast(cell, tl.int64) * channels + channel
    tl.store(out_ptr + at, total, mask=channel < channels)


def forward(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Pool as :func:`slt_gym.cuda_ops.prroi_pool` does; the images that rois name must exist."""
    boxes, image = _flatten(rois)
    channels, height, width = features.shape[1:]
    out = features.new_empty(len(boxes), output_size, output_size, channels)
    if out.numel():
        block = _block(channels)
        grid = (len(boxes) * output_size**2, triton.cdiv(channels, block))
        with torch.cuda.device_of(features):
            _forward[grid](
                features.permute(0, 2, 3, 1).contiguous(),
                boxes,
                image,
                out,
                height,
                width,
                channels,
                float(spatial_scale),
                BINS=output_size,
                CELLS=CELLS,
                BLOCK=block,
            )
    return out.permute(0, 3, 1, 2).reshape(*rois.shape[:-1], channels, output_size, output_size)


def backward(
    grad: Tensor,
    needed: tuple[bool, ...],
    features: Tensor,
    rois: Tensor,
    output_size: int,
    spatial_scale: float,
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of features and rois, each where it is needed."""
    boxes, image = _flatten(rois)
    batch, channels, height, width = features.shape
    block = _block(channels)
    blocks = triton.cdiv(channels, block)
    grad = grad.reshape(-1, channels, output_size, output_size).permute(0, 2, 3, 1).contiguous()
    to_features = to_rois = None
    numbers = height, width, channels, float(spatial_scale)
    with torch.cuda.device_of(features):
        if needed[0]:
            image, order = image.sort(stable=True)
            numbered = torch.arange(batch + 1, device=image.device)
            first = torch.searchsorted(image, numbered).to(torch.int32)
            out = features.new_empty(batch, height, width, channels)
            if out.numel():
                _backward_features[(batch * height * width, blocks)](
                    boxes[order],
                    first,
                    grad[order],
                    out,
                    *numbers,
                    BINS=output_size,
                    BLOCK=block,
                    num_warps=2,
                )
            to_features = out.permute(0, 3, 1, 2)
        if needed[1]:
            boxes, image = _flatten(rois)
            places = len(boxes) * output_size**2
            partial = boxes.new_zeros(places, blocks, 4)
            if partial.numel() and grad.numel():
                _backward_boxes[(places, blocks)](
                    features.permute(0, 2, 3, 1).contiguous(),
                    boxes,
                    image,
                    grad,
                    partial,
                    *numbers,
                    BINS=output_size,
                    CELLS=CELLS,
                    BLOCK=block,
                )
            found = partial.view(len(boxes), output_size**2 * blocks, 4).sum(1).to(rois.dtype)
            to_rois = torch.zeros_like(rois)
            to_rois[..., -4:] = found.view(*rois.shape[:-1], 4)
    return to_features, to_rois


def _flatten(rois: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes ``(K, 4)``, float32, and the number of each one's image, int64."""
    if rois.dim() == 2:
        return rois[:, 1:].float().contiguous(), rois[:, 0].long().contiguous()
    image = torch.arange(len(rois), device=rois.device)
    return rois.reshape(-1, 4).float().contiguous(), image.repeat_interleave(rois.shape[1])


def _block(channels: int) -> int:
    return min(triton.next_power_of_2(channels), 64)
