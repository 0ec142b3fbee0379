"""Masks of targets: outlines filled, run lengths decoded."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

# Outlines are filled at this many times the raster's resolution, then averaged.
_SUPERSAMPLING = 4
_FRACTION_BITS = 4
# COCO's compressed runs: characters from "0" on with five bits of a number each, the lowest first.
_FIRST_CHARACTER, _BITS, _MORE, _NEGATIVE = ord("0"), 5, 0x20, 0x10


def fill_outlines(
    outlines: Iterable[NDArray[np.floating]], region: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Rasterise closed outlines, or rather their union, with soft edges.

    Args:
        outlines: In frame pixels (pixel ``i`` spans ``[i, i + 1)``), shape ``(N, 2)`` each.
        region: First column and row of the raster, column and row after its last.

    Returns:
        Covered fraction of each pixel times 255, uint8, shape ``(y1 - y0, x1 - x0)``.
    """
    x0, y0, x1, y1 = region
    fine = np.zeros(((y1 - y0) * _SUPERSAMPLING, (x1 - x0) * _SUPERSAMPLING), np.uint8)
    for outline in outlines:
        # OpenCV's coordinates are pixel centres, ours pixel edges.
        points = (np.asarray(outline, np.float64) - (x0, y0)) * _SUPERSAMPLING - 0.5
        fixed = np.rint(points * (1 << _FRACTION_BITS)).astype(np.int32)
        cv2.fillPoly(fine, [fixed], 255, shift=_FRACTION_BITS)
    shrunk = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8)


def find_extent(
    outlines: Iterable[NDArray[np.floating]], size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Return the pixels of a frame that outlines may touch, None where there are none.

    Args:
        outlines: As in :func:`fill_outlines`, at least one.
        size: ``(W, H)`` of the frame, pixels.

    Returns:
        First column and row, column and row after the last.
    """
    points = np.concatenate(list(outlines))
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
    x1, y1 = min(int(high[0]), size[0]), min(int(high[1]), size[1])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def fill_mask(outlines: list[NDArray[np.floating]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of a frame that lie at least half inside one of the outlines.

    Args:
        outlines: As in :func:`fill_outlines`, at least one.
        size: ``(W, H)`` of the frame, pixels.

    Returns:
        Booleans, shape ``(H, W)``.
    """
    mask = np.zeros((size[1], size[0]), bool)
    region = find_extent(outlines, size)
    if region is not None:
        x0, y0, x1, y1 = region
        mask[y0:y1, x0:x1] = fill_outlines(outlines, region) > 127
    return mask


def decode_runs(runs: ArrayLike, count: int) -> NDArray[np.bool_]:
    """Decode the lengths of runs, by turns outside and inside, beginning outside.

    Args:
        runs: Lengths, whole numbers from 0 up.
        count: Number of pixels; what the runs leave of them is outside.

    Returns:
        Booleans, shape ``(count,)``.

    Raises:
        ValueError: A run is negative, or the runs are longer than ``count``.
    """
    runs = np.asarray(runs, np.int64).reshape(-1)
    if (runs < 0).any() or runs.sum() > count:
        raise ValueError(f"runs that do not fit into {count} pixels")
    inside = np.zeros(count, bool)
    found = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    inside[: len(found)] = found
    return inside


def decode_compressed_runs(text: str) -> NDArray[np.int64]:
    """Decode COCO's compressed runs, as in :func:`decode_runs`.

    A number is five bits a character, the lowest first, of which a sixth bit says that more
    follow; the last character's fifth bit is the sign. From the fourth number on they are
    differences to the number before the last one.

    Raises:
        ValueError: The text is no such code.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < 2 * _MORE:
            raise ValueError(f"{character!r} is no character of compressed runs")
        number |= (code & (_MORE - 1)) << shift
        shift += _BITS
        if code & _MORE:
            continue
        if code & _NEGATIVE:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("compressed runs that break off")
    return np.array(runs, np.int64)
