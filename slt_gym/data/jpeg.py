"""JPEG images decoded at a fraction of their size, which takes a fraction of the time."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FACTORS = (8, 4, 2)
_FLAGS = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Start of frame of any kind; C4, C8 and CC are other segments.
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START = b"\xff\xd8"


class ReducedFrame(NamedTuple):
    """A frame, whole or smaller.

    Attributes:
        pixels: RGB uint8, shape ``(H, W, 3)``: each the mean of about ``factor ** 2`` of the whole
            frame's, which has ``factor`` times the width and height, less what does not fill a
            pixel.
        size: Width and height of the whole frame, pixels.
        factor: 1, 2, 4 or 8; 1 is the whole frame.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    factor: int = 1


def is_jpeg(data: bytes | memoryview) -> bool:
    """Tell whether a file's content starts as a JPEG's does."""
    return data[:2] == _START


def decode_reduced(data: bytes | memoryview, factor: int) -> ReducedFrame | None:
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its width and height.

    Args:
        data: The file's content.
        factor: 2, 4 or 8.

    Returns:
        None where that is not to be had: of other formats and of what is no image.
    """
    size = _read_size(data) if is_jpeg(data) else None
    if size is None:
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[factor])
    if image is None:
        return None
    if not _fits(image.shape, size, factor):
        size = size[::-1]  # a photo that was taken upright is turned
        if not _fits(image.shape, size, factor):
            return None
    pixels = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)
    return ReducedFrame(pixels, size, factor)


def _fits(shape: tuple[int, ...], size: tuple[int, int], factor: int) -> bool:
    width, height = size
    return shape[:2] == (-(-height // factor), -(-width // factor))


def _read_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Return width and height as a JPEG's header has them, pixels."""
    position = len(_START)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _SIZES:
            height, width = (
                int.from_bytes(data[position + k : position + k + 2], "big") for k in (5, 7)
            )
            return width, height
        # Padding bytes before a marker stand alone; other segments tell their length.
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        position += 1 if marker == 0xFF else 2 + length
    return None
