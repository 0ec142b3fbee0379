"""Pictures of a track, for people."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.geometry import Window

_GREEN, _RED, _YELLOW = (0, 220, 0), (255, 40, 40), (255, 220, 0)
_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MIN_SIDE = 240  # below it, text of a readable size would hide the picture


def draw_overlay(
    frame: NDArray[np.uint8],
    gt_box: ArrayLike | None,
    box: ArrayLike | None,
    window: Window | None = None,
    text: str = "",
) -> NDArray[np.uint8]:
    """Draw boxes, the search window and a line of text over a copy of a frame.

    Args:
        frame: RGB uint8, shape ``(H, W, 3)``.
        gt_box: Ground truth, ``(x, y, w, h)``, frame pixels: green; None draws none.
        box: Estimate, ``(x, y, w, h)``, frame pixels: red; None draws none.
        window: Search window: a thin yellow square.
        text: Written at the top left.

    Returns:
        RGB uint8. The frame's size, or, where the shorter side is below 240 pixels, the smallest
        whole multiple of it that is not.
    """
    height, width = frame.shape[:2]
    scale = max(1, math.ceil(_MIN_SIDE / min(height, width)))
    if scale > 1:
        size = (width * scale, height * scale)
        image = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    else:
        image = frame.copy()
    height, width = image.shape[:2]
    thick = max(2, round(min(height, width) / 240))
    if window is not None:
        square = np.array([window.cx, window.cy, 0, 0]) + window.side * np.array([-0.5, -0.5, 1, 1])
        _draw_box(image, square * scale, _YELLOW, 1)
    if gt_box is not None:
        _draw_box(image, np.asarray(gt_box, np.float64) * scale, _GREEN, thick)
    if box is not None:
        _draw_box(image, np.asarray(box, np.float64) * scale, _RED, thick)
    if text:
        _write(image, text)
    return np.asarray(image, np.uint8)


def _draw_box(image: NDArray, box: NDArray[np.float64], colour: tuple, thick: int) -> None:
    # OpenCV counts in whole pixels whose centres carry the coordinates.
    x1, y1, x2, y2 = np.rint(np.r_[box[:2], box[:2] + box[2:] - 1]).astype(int).tolist()
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, thick, cv2.LINE_AA)


def _write(image: NDArray, text: str) -> None:
    # On a darkened strip, which reads on any background; OpenCV 5 gives outlines other widths.
    height, width = image.shape[:2]
    size = max(0.5, min(height, width) / 700)
    (text_width, _), _ = cv2.getTextSize(text, _FONT, size, 1)
    size = min(size, size * (width - 12) / text_width)
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, size, 1)
    strip = image[: text_height + below + 8, : text_width + 12]
    strip //= 4
    cv2.putText(image, text, (6, 4 + text_height), _FONT, size, _WHITE, 1, cv2.LINE_AA)
