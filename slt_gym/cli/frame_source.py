"""Frames to track through: a video file, or a folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data import ImageSequence
from slt_gym.data.frames import list_frames
from slt_gym.errors import FrameError, InvalidArgumentError

Frame = NDArray[np.uint8]
_FOLDER_FPS = 30.0


@dataclass(frozen=True)
class FrameSource:
    """Where frames come from.

    Attributes:
        path: A video file or a folder of images.
        count: Frames; of a video, what its header says, which may be wrong, and 0 if it is silent.
        fps: Frames per second; 30 for a folder.
        is_video: It is a file.
    """

    path: Path
    count: int
    fps: float
    is_video: bool

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Go through the frames from number ``start`` (from 0) on, RGB uint8 ``(H, W, 3)``.

        Raises:
            InvalidArgumentError: There is no frame ``start``.
            FrameError: A frame cannot be read.
        """
        if start < 0:
            raise InvalidArgumentError(f"start is {start}: frames are counted from 0")
        return self._decode(start) if self.is_video else self._read(start)

    def _read(self, start: int) -> Iterator[Frame]:
        if start >= self.count:
            raise _too_late(start, self.count, self.path)
        paths = cast("list[Path]", list_frames(self.path))
        sequence = ImageSequence(self.path.name, paths, np.full((len(paths), 4), np.nan))
        for t in range(start, len(paths)):
            yield sequence.read(t)

    def _decode(self, start: int) -> Iterator[Frame]:
        with _quiet_capture(self.path) as capture:
            # Seeking lands on a near key frame in some files; counting is exact.
            for t in range(start):
                if not capture.grab():
                    raise _too_late(start, t, self.path)
            t = start
            while True:
                there, frame = capture.read()
                if not there:
                    break
                yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
                t += 1
            if t == start:
                raise _too_late(start, t, self.path)


def open_source(path: str | Path) -> FrameSource:
    """Look at a video file or a folder of images.

    Raises:
        FrameError: Nothing is there, or nothing that can be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        count = len(list_frames(path))
        if not count:
            raise FrameError(
                f"the folder {path} holds no frames: expected are jpg, jpeg, png or bmp"
            )
        return FrameSource(path, count, _FOLDER_FPS, is_video=False)
    if not path.exists():
        raise FrameError(f"there is no {path}: expected is a video file or a folder of frames")
    with _quiet_capture(path) as capture:
        if not capture.isOpened() or not capture.grab():
            raise FrameError(
                f"cannot read {path}: it is not a whole video file that OpenCV decodes, such as "
                "MP4, AVI or MKV; a folder of jpg or png frames is accepted too"
            )
        count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        fps = capture.get(cv2.CAP_PROP_FPS)
    return FrameSource(path, count, fps if 0 < fps <= 1000 else _FOLDER_FPS, is_video=True)


def _too_late(start: int, count: int, path: Path) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"start is {start}, but {path} has {count} frames: accepted are 0 to {count - 1}"
    )


@contextmanager
def _quiet_capture(path: Path) -> Iterator[cv2.VideoCapture]:
    # What OpenCV and FFmpeg print about a broken file says less than our one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)
