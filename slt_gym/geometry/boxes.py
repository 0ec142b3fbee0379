"""Boxes: forms, validity and overlap.

A box is ``(x, y, w, h)``: top-left corner and size in continuous coordinates, without the "+1" of
inclusive pixels. Every function works on the last axis of arrays of any shape ``(..., 4)`` and
computes in float64.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_cxcywh(boxes: ArrayLike) -> NDArray[np.float64]:
    """Convert ``(x, y, w, h)`` to ``(cx, cy, w, h)``."""
    moved = np.array(boxes, np.float64)
    moved[..., :2] += moved[..., 2:] / 2
    return moved


def from_cxcywh(boxes_cxcywh: ArrayLike) -> NDArray[np.float64]:
    """Convert ``(cx, cy, w, h)`` to ``(x, y, w, h)``."""
    moved = np.array(boxes_cxcywh, np.float64)
    moved[..., :2] -= moved[..., 2:] / 2
    return moved


def to_corners(boxes: ArrayLike) -> NDArray[np.float64]:
    """Convert ``(x, y, w, h)`` to ``(x1, y1, x2, y2)``."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def from_corners(boxes_corners: ArrayLike) -> NDArray[np.float64]:
    """Convert ``(x1, y1, x2, y2)`` to ``(x, y, w, h)``."""
    boxes = np.asarray(boxes_corners, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def is_valid(boxes: ArrayLike) -> NDArray[np.bool_]:
    """Tell which boxes are finite and have positive width and height.

    Args:
        boxes: Shape ``(..., 4)``, ``(x, y, w, h)``.

    Returns:
        Booleans of shape ``(...)``.
    """
    boxes = np.asarray(boxes)
    return np.isfinite(boxes).all(axis=-1) & (boxes[..., 2] > 0) & (boxes[..., 3] > 0)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Compute the intersection over union of boxes, in float64.

    Args:
        a: Shape ``(..., 4)``, ``(x, y, w, h)``, any unit.
        b: Shape broadcastable with ``a``, same unit.

    Returns:
        Overlaps in [0, 1] of the broadcast shape ``(...)``; 0 where the union is empty or a
        coordinate is not finite.
    """
    a = np.asarray(a, np.float64)
    b = np.asarray(b, np.float64)
    if a.shape == b.shape == (4,):
        return np.float64(_iou_of_two(a.tolist(), b.tolist()))
    with np.errstate(invalid="ignore"):
        low = np.maximum(a[..., :2], b[..., :2])
        high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
        intersection = np.prod(np.maximum(high - low, 0.0), axis=-1)
        union = np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - intersection
        overlap = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return np.clip(np.nan_to_num(overlap, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)


def _iou_of_two(a: list[float], b: list[float]) -> float:
    """Compute what :func:`iou` does, operation for operation, a tenth as long for one pair."""
    if not all(map(math.isfinite, (*a, *b))):
        return 0.0
    (x, y, w, h), (u, v, s, t) = a, b
    width = max(min(x + w, u + s) - max(x, u), 0.0)
    height = max(min(y + h, v + t) - max(y, v), 0.0)
    intersection = width * height
    union = w * h + s * t - intersection
    overlap = intersection / union if union > 0 else 0.0
    return min(max(overlap, 0.0), 1.0) if math.isfinite(overlap) else 0.0


def keep_inside(
    box: ArrayLike, frame_size: tuple[int, int], min_size: float
) -> NDArray[np.float64]:
    """Keep a box's centre inside the frame, and each side between ``min_size`` and the frame's.

    Args:
        box: ``(x, y, w, h)``, frame pixels.
        frame_size: ``(W, H)``, pixels.
        min_size: Pixels.
    """
    x, y, w, h = np.asarray(box, np.float64).tolist()
    width, height = frame_size
    # The frame wins over min_size, as in the published min(max(...)) of a tiny frame.
    cx = min(max(x + w / 2, 0.0), width)
    cy = min(max(y + h / 2, 0.0), height)
    w, h = min(max(w, min_size), width), min(max(h, min_size), height)
    return np.array([cx - w / 2, cy - h / 2, w, h])
