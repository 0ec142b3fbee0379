"""Encoded frames become the same RGB whichever way they are decoded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from slt_gym.data.sequence import decode_frame
from slt_gym.errors import FrameError

FRAME = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8), (61, 43))
# Orientation 6: to be turned by a quarter.
_EXIF = (
    b"\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01"
    b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
)


def encode(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("grey", [False, True])
def test_frames_are_rgb(suffix: str, grey: bool) -> None:
    data = encode(suffix, FRAME[..., 0] if grey else FRAME)
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    frame = decode_frame(memoryview(data), "it")
    np.testing.assert_array_equal(frame, bgr[..., ::-1])
    assert frame.flags.writeable
    if suffix != ".jpg" and not grey:
        np.testing.assert_array_equal(frame, FRAME[..., ::-1])


def test_a_photo_that_was_taken_upright_is_turned() -> None:
    data = encode(".jpg", FRAME)
    turned = decode_frame(data[:2] + _EXIF + data[2:], "it")
    np.testing.assert_array_equal(turned, np.rot90(decode_frame(data, "it"), -1))


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"no image"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match="cannot decode frame 3: the file is not a whole JPEG"):
        decode_frame(data, "frame 3")
