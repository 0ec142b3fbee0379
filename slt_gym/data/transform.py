"""What augmentation does to one frame and to the boxes in it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

# PySOT: how the colours of natural images vary, one row for each of R, G and B. (PySOT turns the
# result round for its BGR images.)
COLOUR_VARIATION = np.array(
    [
        [-0.55919361, 0.98062831, -0.41940627],
        [1.72091413, 0.19879334, -1.82968581],
        [4.64467907, 4.73710203, 4.88324118],
    ]
)


@dataclass(frozen=True)
class FrameTransform:
    """A change of one frame: a part of it, enlarged or shrunk to its size, mirrored, recoloured.

    The steps come in the order of the attributes. The default of each leaves the frame alone.

    Attributes:
        size: ``(W, H)`` of the frames, pixels.
        window: The part of the frame that becomes the whole, ``(x, y, w, h)``; it may reach
            outside, where the frame's mean colour is.
        flip: Mirror left and right.
        colour: What is taken off R, G and B.
        blur: Side of the blur's cross in pixels, odd, and the share of its vertical line.
    """

    size: tuple[int, int]
    window: tuple[float, float, float, float] | None = None
    flip: bool = False
    colour: tuple[float, float, float] | None = None
    blur: tuple[int, float] | None = None

    def move(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Return where boxes ``(..., 4)``, ``(x, y, w, h)``, frame pixels, come to lie."""
        moved = np.array(boxes, np.float64)
        if self.window is not None:
            x, y, *_ = self.window
            scale = self._scale
            moved = (moved - [x, y, 0, 0]) * np.concatenate([scale, scale])
        if self.flip:
            moved[..., 0] = self.size[0] - moved[..., 0] - moved[..., 2]
        return moved

    def apply(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the changed frame: RGB uint8, shape ``(H, W, 3)``.

        Differs from SLT-SiamAttn, whose colours are neither rounded nor cut to 0 … 255.
        """
        if self.window is not None:
            frame = self._warp(frame, cv2.mean(frame)[:3])
        if self.flip:
            frame = np.asarray(cv2.flip(frame, 1), np.uint8)
        if self.colour is not None:
            frame = shift_colour(frame, self.colour)
        if self.blur is not None:
            frame = blur_cross(frame, *self.blur)
        return frame

    def apply_mask(self, mask: NDArray) -> NDArray:
        """Return the changed mask of the target, shape ``(H, W)``, soft at its edges, 0 outside."""
        if self.window is not None:
            mask = self._warp(mask, (0.0,))
        return np.asarray(cv2.flip(mask, 1)) if self.flip else mask

    @property
    def _scale(self) -> NDArray[np.float64]:
        assert self.window is not None
        return np.array(self.size) / self.window[2:]

    def _warp(self, image: NDArray, border: tuple[float, ...]) -> NDArray:
        assert self.window is not None
        scale = self._scale
        # OpenCV's coordinates are those of the pixels' centres. Differs from SLT-SiamAttn, whose
        # pixels come to lie up to one beside the box.
        offset = (0.5 - np.array(self.window[:2])) * scale - 0.5
        matrix = np.column_stack([np.diag(scale), offset])
        warped = cv2.warpAffine(
            image, matrix, self.size, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )
        return np.asarray(warped, image.dtype)


def draw_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw what PySOT's colour augmentation takes off R, G and B."""
    r, g, b = COLOUR_VARIATION @ rng.standard_normal(3)
    return float(r), float(g), float(b)


def draw_blur(rng: np.random.Generator, largest: int = 45) -> tuple[int, float]:
    """Draw PySOT's blur: an odd side from 5 to ``largest``, and the vertical line's share."""
    return int(rng.choice(np.arange(5, largest + 1, 2))), float(rng.random())


def shift_colour(image: NDArray[np.uint8], colour: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Take ``colour`` off R, G and B of an image, uint8, shape ``(H, W, 3)``; round and clip."""
    table = np.arange(256)[None, :, None] - np.array(colour)  # (1, 256, 3)
    levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, levels), np.uint8)


def blur_cross(image: NDArray[np.uint8], side: int, vertical: float) -> NDArray[np.uint8]:
    """Blur with a cross-shaped kernel, the weighted sum of a column and a row.

    Args:
        image: Uint8, shape ``(H, W, 3)``.
        side: The cross's height and width, pixels, odd.
        vertical: Weight of the column, 0 to 1; the row has the rest.
    """
    column, row = cv2.blur(image, (1, side)), cv2.blur(image, (side, 1))
    return np.asarray(cv2.addWeighted(column, vertical, row, 1 - vertical, 0), np.uint8)
