"""Anchors of SiamRPN++: five shapes in each cell of a grid around the crop's centre."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STRIDE = 8  # pixels of the crop between cells
RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)  # height over width
# Beyond any box of use on both sides, and far from an overflow: random networks ask for more, and a
# side of 0 makes the penalty on changes of shape NaN.
_MAX_LOG_SIZE = 20.0


def make_anchors(grid: int, scale: int) -> NDArray[np.float32]:
    """Make the anchors ``(A * grid * grid, 4)``, ordered by shape, row, column.

    Args:
        grid: Cells along one side.
        scale: Side of the square anchor over the stride.

    Returns:
        ``(cx, cy, w, h)`` in pixels of the crop, the centre relative to the crop's.
    """
    cell = STRIDE * (np.arange(grid) - grid // 2)
    rows, columns = np.meshgrid(cell, cell, indexing="ij")
    anchors = []
    for ratio in RATIOS:
        w = int(math.sqrt(STRIDE * STRIDE / ratio))  # cut to whole numbers, as published
        h = int(w * ratio)
        size = np.broadcast_to([scale * w, scale * h], (grid * grid, 2))
        anchors.append(np.column_stack([columns.ravel(), rows.ravel(), size]))
    return np.concatenate(anchors).astype(np.float32)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Apply deltas ``(dx, dy, dw, dh)`` to anchors ``(cx, cy, w, h)``, both ``(..., 4)``."""
    centre = deltas[..., :2] * anchors[..., 2:] + anchors[..., :2]
    size = deltas[..., 2:].clamp(-_MAX_LOG_SIZE, _MAX_LOG_SIZE).exp() * anchors[..., 2:]
    return torch.cat([centre, size], dim=-1)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the deltas that :func:`decode` turns into ``boxes`` ``(cx, cy, w, h)``."""
    centre = (boxes[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    return torch.cat([centre, (boxes[..., 2:] / anchors[..., 2:]).log()], dim=-1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the overlap of boxes ``(..., 4)``, ``(cx, cy, w, h)``; shapes broadcast."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    inter = (high - low).clamp(min=0).prod(-1)
    return inter / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inter)
