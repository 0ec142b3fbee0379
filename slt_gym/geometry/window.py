"""The square window of a frame that a tracker looks at, and its crop."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.errors import InvalidArgumentError

# Windows up to this many times as large as their crop are padded as a whole, which is faster there.
_DENSE = 16


@dataclass(frozen=True)
class Window:
    """A square of the frame, and the crop units that it defines.

    Crop units are fractions of ``unit``, measured from the corner ``(cx - reach, cy - reach)``;
    without these two, fractions of the side from the window's top-left corner.

    Attributes:
        cx: Horizontal centre, frame pixels.
        cy: Vertical centre, frame pixels.
        side: Side, whole frame pixels.
        unit: Frame pixels in one crop unit, where it is not the (rounded) side.
        reach: From the centre to the corner that crop units are measured from, frame pixels, where
            it is not half a unit.
    """

    cx: float
    cy: float
    side: int
    unit: float | None = None
    reach: float | None = None

    def _scale(self) -> tuple[float, float, float]:
        """Return the unit, and the corner that crop units are measured from."""
        unit = self.side if self.unit is None else self.unit
        reach = unit / 2 if self.reach is None else self.reach
        return unit, self.cx - reach, self.cy - reach

    def to_crop(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Convert boxes ``(..., 4)`` from frame pixels to crop units."""
        unit, left, top = self._scale()
        boxes = np.asarray(boxes, np.float64)
        if boxes.shape == (4,):  # the same in less time
            x, y, w, h = boxes.tolist()
            return np.array([(x - left) / unit, (y - top) / unit, w / unit, h / unit])
        return (boxes - (left, top, 0.0, 0.0)) / unit

    def to_frame(self, boxes_crop: ArrayLike) -> NDArray[np.float64]:
        """Convert boxes ``(..., 4)`` from crop units to frame pixels."""
        unit, left, top = self._scale()
        boxes = np.asarray(boxes_crop, np.float64)
        if boxes.shape == (4,):
            x, y, w, h = boxes.tolist()
            return np.array([x * unit + left, y * unit + top, w * unit, h * unit])
        return boxes * unit + (left, top, 0.0, 0.0)

    @property
    def origin(self) -> tuple[int, int]:
        """First column and row of the window's pixels (TransT's rounding).

        The pixels start up to one pixel beside the corner that crop units are measured from: so do
        the published trackers, and their weights have learnt it.
        """
        half = (self.side + 1) / 2
        return math.floor(self.cx - half + 0.5), math.floor(self.cy - half + 0.5)

    @property
    def bottom(self) -> int:
        """The row behind the last one that a crop of the window shows, wherever the frame ends."""
        return self.origin[1] + self.side


def crop_mask(mask: NDArray, window: Window, size: int) -> NDArray[np.bool_]:
    """Cut the target's mask out of a frame, as :func:`crop_window` cuts the frame.

    Pixels outside the frame are not the target's. As published (SiamAttn), a crop's pixel is the
    target's where any part of what it is made of is; in windows that leave the frame, where at
    least half is: the buffer that they are padded in holds whole numbers.

    Args:
        mask: Shape ``(H, W)``, booleans, or floats from 0 to 1 (1 on the target).
        window: The square to cut, frame pixels.
        size: Side of the crop in pixels.

    Returns:
        Booleans, shape ``(size, size)``.
    """
    (x0, y0), side = window.origin, window.side
    height, width = mask.shape
    left, right = max(x0, 0), min(x0 + side, width)
    top, bottom = max(y0, 0), min(y0 + side, height)
    if (right - left, bottom - top) == (side, side):
        patch: NDArray = mask[top:bottom, left:right].astype(np.float32)
    else:
        patch = np.zeros((side, side), np.uint8)
        if left < right and top < bottom:
            patch[top - y0 : bottom - y0, left - x0 : right - x0] = mask[top:bottom, left:right]
    if side != size:
        patch = cv2.resize(patch, (size, size))  # bilinear
    return np.asarray(patch > 0)


def mean_colour(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean colour of a frame ``(H, W, 3)``, cut (not rounded) to uint8, ``(3,)``.

    What ``np.mean(frame, axis=(0, 1)).astype(np.uint8)`` gives, in a fiftieth of the time: the sums
    of whole numbers are exact in both.
    """
    total = np.array(cv2.sumElems(frame)[:3])
    return (total / (frame.shape[0] * frame.shape[1])).astype(np.uint8)


def crop_window(
    frame: NDArray[np.uint8],
    window: Window,
    size: int,
    fill: NDArray[np.uint8],
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Cut a window out of a frame and resize it.

    Pixels outside the frame take the colour ``fill``. Only the window is padded, never the frame.

    Args:
        frame: RGB uint8, shape ``(H, W, 3)``.
        window: The square to cut, frame pixels.
        size: Side of the crop in pixels.
        fill: RGB uint8, shape ``(3,)``.
        out: Where to write the crop, channels first, shape ``(3, size, size)``.

    Returns:
        The crop, RGB uint8, channels first, shape ``(3, size, size)``: ``out`` where it is given.
    """
    out = _prepare(out, size)
    height, width = frame.shape[:2]
    x0, y0 = window.origin
    x1, y1 = x0 + window.side, y0 + window.side
    left, right = max(x0, 0), min(x1, width)
    top, bottom = max(y0, 0), min(y1, height)
    if left >= right or top >= bottom:
        out[:] = fill[:, None, None]
        return out
    patch = frame[top:bottom, left:right]
    if patch.shape[:2] != (window.side, window.side):
        border = (top - y0, y1 - bottom, left - x0, x1 - right)
        pad = _pad_rows if window.side > _DENSE * size else _pad
        patch = pad(patch, border, fill, size)
    if window.side != size:
        patch = np.asarray(cv2.resize(patch, (size, size)), np.uint8)  # bilinear
    return _store(patch, out)


def crop_reduced(
    frame: NDArray[np.uint8],
    factor: int,
    corner: tuple[float, float],
    scale: float,
    size: int,
    fill: NDArray[np.uint8] | None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Cut a square out of a frame that was decoded at a fraction of its size.

    The crop lies where that of the whole frame would lie, to a fraction of a pixel, but its grey
    levels differ.

    Args:
        frame: RGB uint8, shape ``(H, W, 3)``.
        factor: Pixels of the whole frame in one pixel of ``frame``.
        corner: Column and row that the crop's first pixel shows, pixels of the whole frame, whose
            first pixel is at 0.
        scale: Pixels of the whole frame in one pixel of the crop.
        size: Side of the crop in pixels.
        fill: Colour outside of the frame, RGB uint8, shape ``(3,)``; None repeats the border.
        out: Where to write the crop, channels first, shape ``(3, size, size)``.

    Returns:
        The crop, RGB uint8, channels first: ``out`` where it is given.
    """
    out = _prepare(out, size)
    # A pixel of the frame shows the middle of its block.
    x, y = ((place - (factor - 1) / 2) / factor for place in corner)
    step = scale / factor
    patch = cv2.warpAffine(
        frame,
        np.array([[step, 0.0, x], [0.0, step, y]]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0) if fill is None else fill.tolist(),
    )
    return _store(np.asarray(patch, np.uint8), out)


def _prepare(out: NDArray[np.uint8] | None, size: int) -> NDArray[np.uint8]:
    """Return the array that a crop is written to."""
    if out is None:
        return np.empty((3, size, size), np.uint8)
    if out.shape != (3, size, size):
        raise InvalidArgumentError(f"out has shape {out.shape}: needed is {(3, size, size)}")
    return out


def _store(patch: NDArray[np.uint8], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write a crop ``(size, size, 3)`` to ``out``, channels first."""
    if out.flags.c_contiguous and out.dtype == np.uint8:
        cv2.split(patch, list(out))  # in place: twice as fast as a transposed copy
    else:
        out[:] = patch.transpose(2, 0, 1)
    return out


def _pad(
    part: NDArray[np.uint8], border: tuple[int, int, int, int], fill: NDArray[np.uint8], size: int
) -> NDArray[np.uint8]:
    """Return a part of a frame with a border around it: top, bottom, left, right, pixels."""
    del size
    kind = cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED
    return np.asarray(cv2.copyMakeBorder(part, *border, kind, value=fill.tolist()), np.uint8)


def _pad_rows(
    part: NDArray[np.uint8], border: tuple[int, int, int, int], fill: NDArray[np.uint8], size: int
) -> NDArray[np.uint8]:
    """Do what :func:`_pad` does to the rows that a resize to ``size`` rows looks at.

    The window of a lost target can have 16 times the frame's area: of a large frame, hundreds of
    megabytes. A bilinear resize looks at two rows for each of its own; pages of memory that hold
    none of them are never made.
    """
    height, width = part.shape[:2]
    top, bottom, left, right = border
    side = top + height + bottom
    memory = mmap.mmap(-1, 3 * side * side)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    patch = np.frombuffer(memory, np.uint8).reshape(side, left + width + right, 3)
    first = np.floor((np.arange(size) + 0.5) * (side / size) - 0.5).astype(np.intp)
    rows = np.concatenate([first, first + 1])
    patch[rows] = np.tile(fill, (side, 1))
    rows = rows[(rows >= top) & (rows < top + height)]
    patch[rows, left : left + width] = part[rows - top]
    return patch
