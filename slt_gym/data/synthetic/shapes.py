"""Outlines of objects: drawing them at random, posing them, measuring what hides them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data.synthetic.motion import FloatArray, Track

POINTS = 48
_MODES = np.array([2.0, 3.0, 5.0])
NUM_MODES = len(_MODES)
_ANGLES = np.arange(POINTS) * (2 * math.pi / POINTS)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)
_FRACTION_BITS = 4
# Hidden fractions are measured on a grid of this many cells a side over the target's box.
_GRID = 40


@dataclass(frozen=True)
class Shape:
    """An outline in the object's own axes.

    Attributes:
        points: Closed outline around the origin, about one unit wide, shape ``(POINTS, 2)``.
        modes: Pattern of each mode of the wobble along the outline, shape ``(modes, POINTS)``.
    """

    points: FloatArray
    modes: FloatArray

    def pose(self, track: Track, frames: slice | NDArray[np.int64] = slice(None)) -> FloatArray:
        """Return the outline in frame pixels, shape ``(n, POINTS, 2)``."""
        radius = 1.0 + track.wobble[frames] @ self.modes  # (n, POINTS)
        local = self.points * radius[..., None] * track.size[frames][:, None]  # (n, POINTS, 2)
        cos, sin = np.cos(track.angle[frames])[:, None], np.sin(track.angle[frames])[:, None]
        # Each coordinate contiguous: extents along the outline are then several times faster.
        outline = np.empty((len(local), 2, POINTS)).transpose(0, 2, 1)
        outline[..., 0] = cos * local[..., 0] - sin * local[..., 1]
        outline[..., 1] = sin * local[..., 0] + cos * local[..., 1]
        outline += track.centre[frames][:, None]
        return outline


def draw_shape(rng: np.random.Generator) -> Shape:
    """Draw an outline: a polygon, a blob, or a rounded box."""
    kind = rng.random()
    if kind < 0.4:
        points = _polygon(rng)
    elif kind < 0.8:
        waves = np.arange(2, 7)[:, None]
        ripples = np.cos(waves * _ANGLES + rng.uniform(0.0, 2 * math.pi, (5, 1)))
        radius = 1.0 + rng.normal(0.0, 0.22 / (waves - 0.5), (5, 1)).T @ ripples  # (1, POINTS)
        points = np.minimum(np.maximum(radius.T, 0.45), 1.6) * _CIRCLE
    else:
        power = rng.uniform(0.25, 0.7)
        points = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** power
        points[:, 0] *= 1.0 + rng.uniform(-0.25, 0.25) * points[:, 1]  # a trapezium, like a car
    return _finish(points, rng.uniform(0.0, 2 * math.pi, NUM_MODES))


def blend_shapes(a: Shape, b: Shape, weight: float) -> Shape:
    """Return an outline between ``a`` (weight 0) and ``b`` (weight 1)."""
    return Shape(
        _normalise((1 - weight) * a.points + weight * b.points),
        (1 - weight) * a.modes + weight * b.modes,
    )


def _polygon(rng: np.random.Generator) -> FloatArray:
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * math.pi / corners
    radius = rng.uniform(0.6, 1.3, corners)
    vertices = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    at = np.arange(POINTS) * corners / POINTS
    # The corners themselves must be among the points, or they would be cut off.
    at[np.rint(np.arange(corners) * POINTS / corners).astype(int)] = np.arange(corners)
    low = np.floor(at).astype(int) % corners
    rest = (at - np.floor(at))[:, None]
    return (1 - rest) * vertices[low] + rest * vertices[(low + 1) % corners]


def _normalise(points: FloatArray) -> FloatArray:
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low
    # Elongation belongs to the pose (its aspect); part of it stays in the shape.
    return (points - (low + high) / 2) / math.sqrt(extent[0] * extent[1])


def _finish(points: FloatArray, phases: FloatArray) -> Shape:
    points = _normalise(points)
    angles = np.arctan2(points[:, 1], points[:, 0])
    return Shape(points, np.cos(_MODES[:, None] * angles + phases[:, None]))


def bounding_boxes(outlines: FloatArray) -> FloatArray:
    """Return the ``(x, y, w, h)`` of outlines ``(..., POINTS, 2)``, shape ``(..., 4)``."""
    low, high = outlines.min(axis=-2), outlines.max(axis=-2)
    return np.concatenate([low, high - low], axis=-1)


def hidden_fractions(
    targets: FloatArray,
    fronts: list[FloatArray],
    frame_size: tuple[int, int],
) -> tuple[FloatArray, FloatArray]:
    """Measure how much of an outline is covered, and how much of it cannot be seen.

    Args:
        targets: The outline in n frames, frame pixels, shape ``(n, POINTS, 2)``.
        fronts: Outlines in front of it, each of that form.
        frame_size: ``(W, H)``, pixels.

    Returns:
        The fraction of the outline's area that is covered, and the fraction that is covered or
        outside the frame; each of shape ``(n,)``.
    """
    low, high = targets.min(axis=1), targets.max(axis=1)
    scale = _GRID / np.maximum(high - low, 1e-6)

    def to_grid(outlines: FloatArray) -> NDArray[np.int32]:
        points = ((outlines - low[:, None]) * scale[:, None] - 0.5) * (1 << _FRACTION_BITS)
        # OpenCV's fixed-point coordinates overflow far away.
        return np.rint(np.minimum(np.maximum(points, -1e5), 1e5)).astype(np.int32)

    covers = [to_grid(front) for front in fronts]
    meets = [
        ((c.max(axis=1) > 0) & (c.min(axis=1) < _GRID << _FRACTION_BITS)).all(axis=1)
        for c in covers
    ]
    first = np.ceil(-low * scale - 0.5)
    last = np.floor((np.asarray(frame_size) - low) * scale - 0.5) + 1
    first, last = (np.minimum(np.maximum(x, 0), _GRID).astype(int) for x in (first, last))
    covered, hidden = np.zeros(len(targets)), np.zeros(len(targets))
    for t, target in enumerate(to_grid(targets)):
        silhouette = np.zeros((_GRID, _GRID), np.uint8)
        cv2.fillPoly(silhouette, [target], 1, shift=_FRACTION_BITS)
        area = max(cv2.countNonZero(silhouette), 1)
        for cover, meet in zip(covers, meets, strict=True):
            if meet[t]:
                cv2.fillPoly(silhouette, [cover[t]], 0, shift=_FRACTION_BITS)
        covered[t] = 1.0 - cv2.countNonZero(silhouette) / area
        seen = silhouette[first[t, 1] : last[t, 1], first[t, 0] : last[t, 0]]
        hidden[t] = 1.0 - np.count_nonzero(seen) / area
    return covered, hidden
