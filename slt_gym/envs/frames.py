"""The frames of one clip, decoded once for all the tracks that follow it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import Clip
from slt_gym.data.jpeg import ReducedFrame
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.geometry import Geometry

# The frame just tracked (rendering shows it), the one to track next, and one more for tracks of
# the same clip that are a step apart. Where nothing is rendered and tracks go in step, one frame
# suffices; decoded frames are large, and memory that is used again is much faster than fresh one.
KEPT_FRAMES = 3

_LARGE_BLOCK = 31 << 20  # bytes
_LARGE_FRAME = 1 << 20, 1 << 20  # pixels

Frame = NDArray[np.uint8]
_Read = TypeVar("_Read")
# The template crop, the padding colour, and the frame's size (W, H).
_Start: TypeAlias = tuple[Frame, Frame, tuple[int, int]]


def reuse_freed_memory() -> None:
    """Let glibc keep up to 64 MB that are freed, for the next frames; elsewhere do nothing.

    Decoded frames are large. Given back to the system when freed, their memory comes as fresh pages
    for the next ones, which takes a good part of the time that decoding takes. How much glibc keeps
    follows from the largest block, up to 32 MB, that was ever freed.
    """
    np.empty(_LARGE_BLOCK, np.uint8)


class ClipFrames:
    """Decode a clip's frames on demand, or ahead of time in a pool of threads.

    An instance is used by one thread at a time; only the reading itself runs in the pool.

    Attributes:
        clip: The clip.
        geometry: Cuts the template.
        stopwatch: Sums the time to decode (and to augment) and to crop.
        keep: Number of decoded frames that are kept: the latest used.
        whole: Whether all rows of frames are decoded, whatever is needed of them.
    """

    def __init__(
        self,
        clip: Clip,
        geometry: Geometry,
        pool: Executor | None = None,
        stopwatch: Stopwatch | None = None,
        keep: int = KEPT_FRAMES,
        whole: bool = True,
    ) -> None:
        self.clip = clip
        self.geometry = geometry
        self.stopwatch = stopwatch or Stopwatch()
        self.keep = keep
        self.whole = whole
        self._pool = pool
        self._announced: tuple[int, int] = (0, 0)  # a frame, and how many of its rows
        # By the frame's number and how far it was to be reduced.
        self._kept: dict[tuple[int, int], ReducedFrame] = {}
        self._pending: dict[tuple[int, int], Future[ReducedFrame]] = {}
        self._template: _Start | None = None
        self._pending_template: Future[_Start] | None = None

    def frame(self, i: int) -> Frame:
        """Return frame ``i`` of the clip, RGB uint8 ``(H, W, 3)``; not to be written to.

        The clip's later frames are then decoded whole at once.
        """
        self.whole = True
        return self.look(i).pixels

    def announce(self, i: int, rows: int) -> None:
        """Say that frame ``i`` will be looked at down to row ``rows``.

        Where all tracks do so before one of them looks, the frame is read once for all of them.
        """
        frame, most = self._announced
        self._announced = i, max(rows, most) if frame == i else rows

    def look(self, i: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``i``, in part where that is faster.

        What is shown of the frame follows from the arguments, not from what was read before; more
        rows than asked for may come with them.

        Args:
            i: From 0.
            factor: 1, 2, 4 or 8: the frame is 1/``factor`` of its size.
            rows: How many of its rows are needed, from the first one on; None is all.
        """
        key = i, factor
        frame = self._kept.pop(key, None)
        if frame is None or not _shows(frame, rows):
            frame = None
            # Before the frame is read: one fewer lies in memory meanwhile.
            while len(self._kept) >= self.keep:
                del self._kept[next(iter(self._kept))]
            if rows is not None and self._announced[0] == i:
                rows = max(rows, self._announced[1])
            pending = self._pending.pop(key, None)
            frame = _take(pending, lambda: self._read(i, factor, rows))
            if not _shows(frame, rows):
                frame = None
                frame = self._read(i, factor, rows)
        self._kept[key] = frame  # the last one is the latest used
        return frame

    @property
    def template(self) -> Frame:
        """The template crop, RGB uint8 ``(3, Z, Z)``; not to be written to."""
        return self._start()[0]

    @property
    def fill(self) -> Frame:
        """The padding colour of the whole track, RGB uint8 ``(3,)``."""
        return self._start()[1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the template's frame, pixels."""
        return self._start()[2]

    def prefetch(self, i: int, factor: int = 1, rows: int | None = None) -> None:
        """Begin to read frame ``i`` in the pool; do nothing without a pool or past the end.

        Args:
            i: From 0.
            factor: As for :meth:`look`.
            rows: As for :meth:`look`. More than was thought may be needed then: the frame is read
                again.
        """
        if self._pool is None or not 0 <= i < len(self.clip):
            return
        key = i, factor
        if key not in self._kept and key not in self._pending:
            self._pending[key] = self._pool.submit(self._read, i, factor, rows)
            # A track asks for its next frame only; what one that ended or restarted did not come
            # to use must not pile up.
            while len(self._pending) > self.keep:
                self._pending.pop(next(iter(self._pending))).cancel()

    def prefetch_start(self, first: bool = True) -> None:
        """Begin to make the template in the pool, and to read the first tracked frame if first."""
        if self._pool is not None and self._template is None and self._pending_template is None:
            self._pending_template = self._pool.submit(self._make_template)
            if first:
                # The frame's size is not known yet: in a large one the window reaches lowest.
                window = self.geometry.search_window(self.clip.boxes[0], _LARGE_FRAME)
                self.prefetch(1, rows=window.bottom if self.geometry.stays_in_window else None)

    def _start(self) -> _Start:
        if self._template is None:
            pending, self._pending_template = self._pending_template, None
            self._template = _take(pending, self._make_template)
        return self._template

    def _make_template(self) -> _Start:
        clip, geometry = self.clip, self.geometry
        with self.stopwatch.measure("decode"):
            frame = clip.read_template()
        with self.stopwatch.measure("crop"):
            fill = geometry.fill_colour(frame)
            window = geometry.template_window(clip.template_box)
            crop = geometry.crop(frame, window, geometry.template_size, fill)
            return crop, fill, (frame.shape[1], frame.shape[0])

    def _read(self, i: int, factor: int, rows: int | None) -> ReducedFrame:
        with self.stopwatch.measure("decode"):
            return self.clip.read_reduced(i, factor, None if self.whole else rows)


def _shows(frame: ReducedFrame, rows: int | None) -> bool:
    height = frame.size[1]
    return frame.rows >= (height if rows is None else min(rows, height))


def _take(pending: Future[_Read] | None, read: Callable[[], _Read]) -> _Read:
    """Return what is read ahead, or read it here if that has not begun.

    Who asks may be one of the pool's threads, and what it asks for behind it in the pool's queue: a
    track that loses its target begins the clip whose start another one has just asked for.
    """
    return read() if pending is None or pending.cancel() else pending.result()
