"""The contract of a sequence, and of a dataset of sequences."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.data.jpeg import ReducedFrame, decode, decode_reduced
from slt_gym.errors import AnnotationError, FrameError, unknown
from slt_gym.geometry import is_valid

# Annotations kept in memory by one dataset: LaSOT's 1120 training sequences (90 MB) fit.
_KEPT_SEQUENCES = 2048


class Sequence(ABC):
    """A video with one target's box in each frame.

    Attributes:
        name: Unique in its dataset.
        boxes: Float64, shape ``(T, 4)``, ``(x, y, w, h)`` in pixels as in the dataset's files; the
            rows of absent frames hold whatever the file holds (zeros, NaN, a stale box).
        visible: Booleans, shape ``(T,)``: the target is there and its box is valid.
        attributes: Arrays by name, such as occlusion flags or tags; their meaning is the dataset's.
        notes: Sentences on what the reader left out or repaired, such as frames without a box.
    """

    def __init__(
        self,
        name: str,
        boxes: ArrayLike,
        visible: ArrayLike | None = None,
        attributes: dict[str, Any] | None = None,
        notes: abc.Iterable[str] = (),
    ) -> None:
        self.name = name
        self.boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        valid = is_valid(self.boxes)
        self.visible = valid if visible is None else valid & np.asarray(visible, bool)
        if len(self.visible) != len(self.boxes):
            raise AnnotationError(
                f"sequence {name!r} has {len(self.boxes)} boxes and {len(self.visible)} flags"
            )
        self.attributes = dict(attributes or {})
        self.notes = tuple(notes)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.boxes)

    def __repr__(self) -> str:
        """Show the class, the name and the length."""
        return f"{type(self).__name__}({self.name!r}, {len(self)} frames)"

    @abstractmethod
    def read(self, t: int) -> NDArray[np.uint8]:
        """Return frame ``t`` (from 0) as RGB uint8, shape ``(H, W, 3)``, the caller's to keep.

        Raises:
            FrameError: The frame cannot be read.
        """

    def read_mask(self, t: int) -> NDArray[np.bool_] | None:
        """Return which pixels of frame ``t`` are the target's, or None where nobody knows.

        Returns:
            Booleans, shape ``(H, W)`` of the frame, all False where the target is not to be seen;
            the caller's to keep. Most datasets have boxes alone: None in every frame.

        Raises:
            AnnotationError: The mask cannot be read.
            FrameError: There is no such frame.
        """
        del t
        return None

    def read_reduced(self, t: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``t`` at 1/``factor`` of its size, or its upper part, where that is faster.

        Args:
            t: The frame's number.
            factor: 1, 2, 4 or 8.
            rows: How many rows are needed, from the first one on; None is all.

        Raises:
            FrameError: The frame cannot be read.
        """
        del factor, rows
        return whole_frame(self.read(t))


class ImageSequence(Sequence):
    """A sequence of image files.

    Attributes:
        paths: The frames' files, in order; as many as there are boxes.
    """

    def __init__(
        self,
        name: str,
        paths: abc.Sequence[Path],
        boxes: ArrayLike,
        visible: ArrayLike | None = None,
        attributes: dict[str, Any] | None = None,
        notes: abc.Iterable[str] = (),
    ) -> None:
        super().__init__(name, boxes, visible, attributes, notes)
        if len(paths) != len(self.boxes):
            raise AnnotationError(
                f"sequence {name!r} has {len(paths)} frames and {len(self.boxes)} boxes"
            )
        self.paths = paths

    def read(self, t: int) -> NDArray[np.uint8]:
        """Read and decode frame ``t``: RGB uint8, shape ``(H, W, 3)``."""
        path = self.paths[t]
        return decode_frame(self._read_file(t, path), f"frame {t} of {self.name!r}, {path}")

    def read_reduced(self, t: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``t`` smaller, or its upper part, if it is a JPEG, else whole.

        So is what a subclass reads in a way of its own.
        """
        if type(self).read is not ImageSequence.read:
            return whole_frame(self.read(t))
        path = self.paths[t]
        what = f"frame {t} of {self.name!r}, {path}"
        return decode_part(self._read_file(t, path), what, factor, rows)

    def read_encoded(self, t: int) -> bytes:
        """Return the content of frame ``t``'s file.

        Raises:
            FrameError: The file cannot be read.
        """
        return self._read_file(t, self.paths[t])

    def _read_file(self, t: int, path: Path) -> bytes:
        try:
            # A third of a file object's system calls.
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                size = os.fstat(file).st_size
                data = os.read(file, size)
                while len(data) < size and (more := os.read(file, size - len(data))):
                    data += more
                return data
            finally:
                os.close(file)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FrameError(f"cannot read frame {t} of {self.name!r}, {path}: {reason}") from None


def decode_frame(data: bytes | memoryview, what: str) -> NDArray[np.uint8]:
    """Decode an image file's content: RGB uint8, shape ``(H, W, 3)``.

    Args:
        data: The content.
        what: Which frame of what it is, for the message.

    Raises:
        FrameError: It is no image.
    """
    frame = decode(data)
    if frame is None:
        raise FrameError(
            f"cannot decode {what}: the file is not a whole JPEG, PNG or other image that OpenCV "
            "reads"
        )
    return frame


def decode_part(data: bytes | memoryview, what: str, factor: int, rows: int | None) -> ReducedFrame:
    """Decode as much of an image file's content as is needed, or all where less is not to be had.

    Args:
        data: The content.
        what: Which frame of what it is, for the message.
        factor: 1, 2, 4 or 8, see :class:`ReducedFrame`.
        rows: How many rows are needed, from the first one on; None is all.

    Raises:
        FrameError: It is no image.
    """
    reduced = decode_reduced(data, factor, rows)
    return whole_frame(decode_frame(data, what)) if reduced is None else reduced


def whole_frame(frame: NDArray[np.uint8]) -> ReducedFrame:
    """Return a frame as one that is not reduced."""
    return ReducedFrame(frame, (frame.shape[1], frame.shape[0]))


def match_lengths(**counts: int) -> tuple[int, list[str]]:
    """Find how many frames a sequence has whose files disagree: those that all of them hold.

    Args:
        **counts: Numbers of ``images``, ``boxes``, ``flags``, … by what they count.

    Returns:
        The smallest number, and a note for each one that is larger.
    """
    least = min(counts.values())
    return least, [
        f"{count} {what} for {least} frames: the last {count - least} are left out"
        for what, count in counts.items()
        if count > least
    ]


class SequenceDataset(ABC):
    """An ordered collection of sequences, read lazily.

    Attributes:
        name: The dataset's name, as :func:`slt_gym.data.open_dataset` takes it.
        split: ``"train"``, ``"val"`` or ``"test"``.
        names: The sequences' names, in order.
    """

    def __init__(self, name: str, split: str, names: list[str]) -> None:
        self.name = name
        self.split = split
        self.names = list(names)
        self._index = {sequence: i for i, sequence in enumerate(self.names)}
        # A sampler comes back to a sequence many times; its annotations are parsed once.
        self._loaded: dict[int, Sequence] = {}

    @property
    def parts(self) -> tuple[tuple[float, range], ...]:
        """Shares of training draws, and the sequences among which each is drawn uniformly."""
        return ((1.0, range(len(self))),)

    @abstractmethod
    def _load(self, index: int) -> Sequence:
        """Read the annotations of sequence ``index`` (0 to ``len(self) - 1``)."""

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sequence:
        """Return sequence ``index``; negative ones count from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)} in {self.name} {self.split}")
        index %= len(self)
        sequence = self._loaded.get(index)
        if sequence is None:
            sequence = self._load(index)
            # Threads may come here together: each step below is atomic, and a sequence that two of
            # them load is the same sequence.
            for old in list(self._loaded)[: len(self._loaded) + 1 - _KEPT_SEQUENCES]:
                self._loaded.pop(old, None)
            self._loaded[index] = sequence
        return sequence

    def __iter__(self) -> Iterator[Sequence]:
        """Go through the sequences in order."""
        return (self[i] for i in range(len(self)))

    def get(self, name: str) -> Sequence:
        """Return the sequence called ``name``.

        Raises:
            InvalidArgumentError: The dataset has no such sequence.
        """
        if name not in self._index:
            close = self.names if len(self) <= 20 else [*self.names[:20], "…"]
            raise unknown(f"sequence of {self.name} {self.split}", name, close)
        return self[self._index[name]]

    def __repr__(self) -> str:
        """Show the class, the split and the size."""
        return f"{type(self).__name__}({self.split!r}, {len(self)} sequences)"
