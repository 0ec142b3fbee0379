"""Decoding of video files, frame after frame."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.errors import FrameError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")
_FPS = 30.0
# OpenCV's level of logging is the process's own.
_OPENING = threading.Lock()


class VideoDecoder:
    """Go through a video file from its first frame on.

    There is no way back and no seeking, which lands on a near key frame in some files: the frames
    are exactly those that go by when the file is played. An instance is used by one thread at a
    time.

    Attributes:
        path: The file.
        position: The number (from 0) of the frame that comes next.
        announced: Frames according to the file's header, which may be wrong; 0 if it is silent.
        fps: Frames per second; 30 if the header is silent.

    Args:
        path: The file.

    Raises:
        FrameError: It is not a video that OpenCV decodes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        # What OpenCV and FFmpeg print about a broken file says less than our one line.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        with _OPENING:
            level = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            try:
                self._capture = cv2.VideoCapture(str(path))
                self._grabbed = self._capture.isOpened() and self._capture.grab()
            finally:
                cv2.utils.logging.setLogLevel(level)
        if not self._grabbed:
            self.close()
            raise FrameError(
                f"cannot read {path}: it is not a whole video file that OpenCV decodes, such as "
                "MP4, AVI or MKV"
            )
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else _FPS

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame, RGB uint8 ``(H, W, 3)``, or None at the end or at damage."""
        there, frame = self._capture.retrieve() if self._grab() else (False, None)
        if not there or frame is None:
            return None
        self._grabbed = False
        self.position += 1
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame), np.uint8)

    def skip_to(self, position: int) -> bool:
        """Pass over the frames before number ``position``; False where the file ends earlier."""
        while self.position < position:
            if not self._grab():
                return False
            self._grabbed = False
            self.position += 1
        return True

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _grab(self) -> bool:
        # The first frame was grabbed on opening, to see whether there is one.
        self._grabbed = self._grabbed or self._capture.grab()
        return self._grabbed


def count_frames(path: Path) -> tuple[int, float]:
    """Return how many frames a video file really has, by going through it, and its fps.

    Raises:
        FrameError: It is not a video that OpenCV decodes.
    """
    decoder = VideoDecoder(path)
    try:
        while decoder.skip_to(decoder.position + 1):
            pass
        return decoder.position, decoder.fps
    finally:
        decoder.close()
