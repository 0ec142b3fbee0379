"""Video files, with the target's boxes beside them or only its first one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.data.annotations import read_boxes
from slt_gym.data.decoding import VIDEO_SUFFIXES, VideoDecoder, count_frames
from slt_gym.data.frames import sort_naturally
from slt_gym.data.roots import find_root, list_files, wrong_root
from slt_gym.data.sequence import Sequence, SequenceDataset, match_lengths
from slt_gym.errors import FrameError, InvalidArgumentError, unknown
from slt_gym.geometry import is_valid

_LAYOUT = """\
root/
  <sequence>.mp4      (or avi, mov, mkv, webm, …; the root may also be one such file)
  <sequence>.txt      (one row "x,y,w,h" per frame)
"""
_SPLITS = ("train", "val", "test")
# Places in one video that are kept open, for environments that follow different clips of it.
_OPEN_DECODERS = 4
_INHERITED: list[_Place] = []


class VideoSequence(Sequence):
    """A sequence in a video file.

    Frames are decoded forwards from the nearest place at which the file is open, and from the
    start where there is none before them; so they are those that playing the file gives, and going
    forwards is fast. Threads may read at once; copies in other processes open the file themselves.

    Attributes:
        path: The file.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        boxes: ArrayLike,
        attributes: dict[str, Any] | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        super().__init__(name, boxes, None, attributes, notes)
        self.path = path
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Place] = []
        self._process = os.getpid()

    def read(self, t: int) -> NDArray[np.uint8]:
        """Decode frame ``t``: RGB uint8, shape ``(H, W, 3)``."""
        t = range(len(self))[t]
        place = self._take(t)
        frame = place.read(t)
        with self._lock:
            self._idle.append(place)
            surplus = self._idle[:-_OPEN_DECODERS]
            del self._idle[:-_OPEN_DECODERS]
        for old in surplus:
            old.decoder.close()
        if frame is None:
            raise FrameError(
                f"cannot decode frame {t} of {self.name!r}, {self.path}: the file ends or is "
                f"damaged after frame {place.decoder.position - 1}"
            )
        return frame

    def _take(self, t: int) -> _Place:
        """Return the place nearest before frame ``t``, which nobody else then has."""
        if self._process != os.getpid():
            # A fork shares its parent's position in the files; closing them would wait for the
            # parent's decoding threads, for ever.
            _INHERITED.extend(self._idle)
            self._start()
        with self._lock:
            before = [place for place in self._idle if place.last <= t]
            if before:
                nearest = max(before, key=lambda place: place.last)
                self._idle.remove(nearest)
                return nearest
        return _Place(VideoDecoder(self.path))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_idle", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the rest."""
        self.__dict__.update(state)
        self._start()


class VideoDataset(SequenceDataset):
    """Video files as sequences: one of them, or a folder of them with their boxes.

    Each video of a folder that has a text file of the same stem is a sequence (``ball.mp4`` and
    ``ball.txt``: ``ball``); its rows go with the frames in order, and what one has more than the
    other is left out. Rows of eight numbers are corners of polygons and become their axis-aligned
    hulls. Of a single video without boxes, ``box`` gives the target in the first frame; the other
    rows are NaN then, and only the first frame is visible.

    The frames are counted by going through the file when the sequence is opened, since headers are
    not reliable. Going back in a video starts it anew: to train on long ones, extract their frames
    into a folder (:class:`slt_gym.data.folder.FolderDataset`). Nothing divides the videos, so that
    every split gives all of them.

    Attributes: ``fps``, frames per second, float64 of shape ``()``.

    Args:
        root: The folder or the file; else ``$SLT_GYM_VIDEO``, else ``$SLT_GYM_DATA/video``.
        split: ``"train"``, ``"val"`` or ``"test"``, all alike.
        box: The target ``[x, y, w, h]`` in the first frame of a single video, in pixels; taken
            instead of a text file.

    Raises:
        DatasetNotFoundError: There is no such folder or file, or no video with boxes in it.
        InvalidArgumentError: The split is unknown; or ``box`` is not a box, is given for a folder,
            or is missing for a single video without a text file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        *,
        box: ArrayLike | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise unknown("split of video", split, _SPLITS)
        self.root = find_root("video", root, _LAYOUT, or_file=True)
        self._box = None if box is None else _check_box(box)
        if self.root.is_file():
            self._paths = {self.root.stem: self.root}
            if box is None and not self.root.with_suffix(".txt").is_file():
                raise InvalidArgumentError(
                    f"video {self.root} has no text file of boxes beside it: give the target in "
                    "its first frame as box=[x, y, w, h], or the boxes of all frames in "
                    f"{self.root.with_suffix('.txt')}"
                )
        elif box is not None:
            raise InvalidArgumentError(
                f"box={box!r} was given for the folder {self.root}: it goes with a single video"
            )
        else:
            self._paths = _find_videos(self.root)
            if not self._paths:
                found = "holds no video with a text file of boxes"
                raise wrong_root("video", self.root, found, _LAYOUT)
        super().__init__("video", split, list(self._paths))

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        path = self._paths[name]
        count, fps = count_frames(path)
        notes: list[str] = []
        if self._box is not None:
            boxes = np.full((count, 4), np.nan)
            boxes[0] = self._box
        else:
            boxes = read_boxes(path.with_suffix(".txt"), polygons=True)
            count, notes = match_lengths(images=count, boxes=len(boxes))
        return VideoSequence(name, path, boxes[:count], {"fps": np.array(fps)}, notes)


class _Place:
    """A decoder and the frame that it gave last, which may be asked for again."""

    def __init__(self, decoder: VideoDecoder) -> None:
        self.decoder = decoder
        self._frame: NDArray[np.uint8] | None = None

    @property
    def last(self) -> int:
        """The earliest frame that can be had without going back."""
        return self.decoder.position - (self._frame is not None)

    def read(self, t: int) -> NDArray[np.uint8] | None:
        """Return frame ``t``, which is ``last`` or a later one; None where the file ends."""
        if self._frame is None or t >= self.decoder.position:
            self._frame = None
            if self.decoder.skip_to(t):
                self._frame = self.decoder.read()
        return None if self._frame is None else self._frame.copy()


def _find_videos(folder: Path) -> dict[str, Path]:
    """Return the videos with boxes by stem; of several with one stem, the first by suffix."""
    annotated = {Path(name).stem for name in list_files(folder, ".txt")}
    found: dict[str, Path] = {}
    for name in sort_naturally(list_files(folder, "")):
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix.lower() in VIDEO_SUFFIXES and stem in annotated:
            found.setdefault(stem, folder / name)
    return found


def _check_box(box: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (4,) or not is_valid(array):
        raise InvalidArgumentError(
            f"box={box!r} is not a box: expected are four numbers x, y, w, h, the top-left corner "
            "and a width and height above 0 in pixels"
        )
    return array
