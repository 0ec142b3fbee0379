"""Frames to track through: a video file, or a folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import ImageSequence
from slt_gym.data.decoding import VideoDecoder
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
        with closing(VideoDecoder(self.path)) as decoder:
            if not decoder.skip_to(start):
                raise _too_late(start, decoder.position, self.path)
            while (frame := decoder.read()) is not None:
                yield frame
            if decoder.position == start:
                raise _too_late(start, start, self.path)


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
    with closing(VideoDecoder(path)) as decoder:
        return FrameSource(path, decoder.announced, decoder.fps, is_video=True)


def _too_late(start: int, count: int, path: Path) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"start is {start}, but {path} has {count} frames: accepted are 0 to {count - 1}"
    )
