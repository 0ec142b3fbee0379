"""JPEG images decoded in part, or at a fraction of their size: in a fraction of the time."""

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
# libjpeg writes RGB without another pass, from OpenCV 4.11 on.
_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)
_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
# Start of frame of any kind; C4, C8 and CC are other segments.
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE = frozenset((0xC0, 0xC1))
# Tables of Huffman codes and of quantisation, JFIF's and Adobe's segments, comments.
_PLAIN = frozenset((0xC4, 0xDB, 0xE0, 0xEE, 0xFE))
# Rows are coded in blocks of up to 16; colours of a block's last rows follow from the next block.
_BLOCK = 16
# Of a frame's rows: where almost all are needed, time is better spent on being sure of the rest.
_WORTH = 0.85


class ReducedFrame(NamedTuple):
    """A frame: whole, or its upper part, or smaller.

    Attributes:
        pixels: RGB uint8, shape ``(H, W, 3)``, the whole frame's from its first row on; with a
            ``factor`` above 1, each the mean of about ``factor ** 2`` of them.
        size: Width and height of the whole frame, pixels.
        factor: 1, 2, 4 or 8.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    factor: int = 1

    @property
    def rows(self) -> int:
        """How many of the whole frame's rows the pixels show."""
        return min(len(self.pixels) * self.factor, self.size[1])


class _Header(NamedTuple):
    """What a JPEG's segments before its pixels say.

    Attributes:
        size: Width and height, pixels.
        height_at: Where the height stands, two bytes.
        plain: One pass over the image from the top to the bottom, without marks in between, and
            nothing that turns it or that is not known here.
    """

    size: tuple[int, int]
    height_at: int
    plain: bool


def is_jpeg(data: bytes | memoryview) -> bool:
    """Tell whether a file's content starts as a JPEG's does."""
    return data[:2] == _START


def decode(data: bytes | memoryview, flag: int | None = None) -> NDArray[np.uint8] | None:
    """Decode an image file's content: RGB uint8, shape ``(H, W, 3)``, or None if it is no image.

    Args:
        data: The content.
        flag: One of OpenCV's for another size.
    """
    if not len(data):
        return None
    # Of other formats, a few are decoded to BGR under the flag for RGB, too.
    if flag is None:
        flag = _RGB if is_jpeg(data) else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        return None
    if flag != _RGB or flag == cv2.IMREAD_COLOR:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return np.asarray(image, np.uint8)


def decode_reduced(
    data: bytes | memoryview, factor: int = 1, rows: int | None = None
) -> ReducedFrame | None:
    """Decode a JPEG in part: at 1/2, 1/4 or 1/8 of its width and height, its upper rows, or both.

    What is returned is the same, bit for bit, as that part of the whole image.

    Args:
        data: The file's content.
        factor: 1, 2, 4 or 8.
        rows: How many of the whole frame's rows are needed, from the first one on; None is all. A
            few more come with them, or all where that takes hardly longer.

    Returns:
        None where that is not to be had, or takes no less time than the whole image: of other
        formats and of what is no image.
    """
    header = _read_header(data) if is_jpeg(data) else None
    if header is None:
        return None
    size, lines = header.size, header.size[1]
    if rows is not None and header.plain and data[-len(_END) :] == _END:
        needed = (-(-max(rows, 1) // _BLOCK) + 1) * _BLOCK
        if needed <= _WORTH * lines:
            # libjpeg decodes row by row, and as many rows as the header says. What is behind them
            # it skips to the end, where it would warn of a mark.
            data = memoryview(_set_height(memoryview(data), header.height_at, needed))
            lines = needed
    if factor == 1 and lines == size[1]:
        return None
    image = decode(data, _FLAGS.get(factor))
    if image is None:
        return None
    if not _fits(image.shape, (size[0], lines), factor):
        size = size[::-1]  # a photo that was taken upright is turned
        if lines != header.size[1] or not _fits(image.shape, size, factor):
            return None
    elif lines < size[1]:
        image = image[: (lines - _BLOCK) // factor]
    return ReducedFrame(image, size, factor)


def _set_height(data: memoryview, place: int, height: int) -> bytearray:
    """Return a JPEG without its end, and with another height in its header."""
    changed = bytearray(data[: -len(_END)])
    changed[place : place + 2] = height.to_bytes(2, "big")
    return changed


def _fits(shape: tuple[int, ...], size: tuple[int, int], factor: int) -> bool:
    width, height = size
    return shape[:2] == (-(-height // factor), -(-width // factor))


def _read_header(data: bytes | memoryview) -> _Header | None:
    """Read a JPEG's segments up to its pixels, or up to where the file ends."""
    position = len(_START)
    size, height_at, components, plain = None, 0, 0, True
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding bytes before a marker stand alone
            position += 1
            continue
        if marker in _SIZES:
            height_at, components = position + 5, data[position + 9]
            height, width = (
                int.from_bytes(data[place : place + 2], "big")
                for place in (position + 5, position + 7)
            )
            size = width, height
            plain = plain and marker in _BASELINE
        elif marker == _SCAN:
            # All colours in one pass.
            return size and _Header(size, height_at, plain and data[position + 4] == components)
        else:
            plain = plain and marker in _PLAIN
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return size and _Header(size, height_at, plain=False)
