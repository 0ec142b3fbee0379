"""Videos of tracks, for people."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.envs import draw_overlay
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.files import replacing

Frame = NDArray[np.uint8]
_GAP = 4  # Columns between two frames side by side.


def write_video(path: str | Path, frames: Iterable[Frame], fps: float = 30.0) -> Path:
    """Write frames as an MP4 (MPEG-4 Part 2, ``mp4v``), whole or not at all.

    Args:
        path: Ends in ``.mp4``; a file there is replaced.
        frames: RGB uint8, all of one shape ``(H, W, 3)``; taken one by one, so that a generator
            needs no memory. An odd height or width grows by a copy of the last row or column: the
            codec only knows even ones.
        fps: Frames per second.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: The path's suffix, ``fps`` or a frame is none, or there is no frame.
        OSError: The file cannot be written, or this OpenCV has no such encoder.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != ".mp4":
        raise InvalidArgumentError(f"cannot write the video {path}: its name must end in .mp4")
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise InvalidArgumentError(f"fps is {fps}: it must be above 0 and at most 1000")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InvalidArgumentError(f"cannot write the video {path}: there are no frames")
    _check_frame(first, 0, first)
    height, width = (side + side % 2 for side in first.shape[:2])
    count = 0
    with replacing(path) as temporary:
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(temporary), codec, fps, (width, height))
        try:
            if not writer.isOpened():
                raise OSError(
                    f"cannot write the video {path}: OpenCV {cv2.__version__} could not open an "
                    f"MP4 writer (mp4v) for {width}x{height} pixels"
                )
            for count, frame in enumerate(itertools.chain([first], iterator), start=1):
                _check_frame(frame, count - 1, first)
                writer.write(cv2.cvtColor(_pad(frame, height, width), cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
        # The writer says nothing when the disk is full.
        if _count_frames(temporary) != count:
            raise OSError(f"cannot write the video {path} whole: is the disk full?")
    return path


def side_by_side(left: Frame, right: Frame, titles: tuple[str, str]) -> Frame:
    """Put two frames beside each other, each under a strip with its title.

    Args:
        left: RGB uint8, shape ``(H, W, 3)``, such as what :func:`slt_gym.envs.draw_overlay` gives.
        right: The same; where one is lower, black fills below it.
        titles: Written above the left and the right one; too long ones get smaller letters.

    Returns:
        RGB uint8, one frame. Small ones are enlarged as by :func:`slt_gym.envs.draw_overlay`.

    Raises:
        InvalidArgumentError: One of the frames is none.
    """
    for index, frame in enumerate((left, right)):
        _check_frame(frame, index, frame)
    panels = [_entitle(*pair) for pair in zip((left, right), titles, strict=True)]
    height = max(panel.shape[0] for panel in panels)
    panels = [_pad(panel, height, panel.shape[1], cv2.BORDER_CONSTANT) for panel in panels]
    gap = np.zeros((height, _GAP, 3), np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def _entitle(frame: Frame, title: str) -> Frame:
    frame = draw_overlay(frame, None, None)  # Enlarged where text would hide it.
    # As high as draw_overlay's line of text, or a little more.
    strip = max(36, math.ceil(0.07 * min(frame.shape[:2])))
    below = cv2.copyMakeBorder(frame, strip, 0, 0, 0, cv2.BORDER_CONSTANT)
    return draw_overlay(np.asarray(below, np.uint8), None, None, text=title)


def _pad(frame: Frame, height: int, width: int, border: int = cv2.BORDER_REPLICATE) -> Frame:
    rows, columns = height - frame.shape[0], width - frame.shape[1]
    return np.asarray(cv2.copyMakeBorder(frame, 0, rows, 0, columns, border), np.uint8)


def _check_frame(frame: Frame, index: int, first: Frame) -> None:
    shape, dtype = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame).__name__)
    if dtype != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InvalidArgumentError(
            f"frame {index} has shape {shape} and type {dtype}: needed is RGB uint8 of shape "
            "(H, W, 3)"
        )
    if shape != first.shape:
        raise InvalidArgumentError(
            f"frame {index} has shape {shape}, the first one {first.shape}: a video's frames are "
            "all of one size"
        )


def _count_frames(path: Path) -> int:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # The caller says what is wrong.
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
