"""A clip: the frames that one episode runs over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.jpeg import ReducedFrame
from slt_gym.data.sequence import Sequence, whole_frame
from slt_gym.data.transform import FrameTransform


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a sequence, in the order in which they are tracked, augmented or as they are.

    Attributes:
        sequence: Where the frames come from.
        frames: Frame numbers in ``sequence``, shape ``(N,)``; the first one only supplies the
            initial box, the others are tracked.
        template: Frame number of the template, with its own ground-truth box.
        padding: The number of frames at the end that only fill the clip: copies of the one before
            them, which count as not visible.
        transforms: What is done to each frame, None for nothing; empty where that is all of them.
        template_transform: What is done to the template's frame.
    """

    sequence: Sequence
    frames: NDArray[np.int64]
    template: int
    padding: int = 0
    transforms: tuple[FrameTransform | None, ...] = ()
    template_transform: FrameTransform | None = None

    def __len__(self) -> int:
        """Return the number of frames, the first and the padding included."""
        return len(self.frames)

    @property
    def real_frames(self) -> int:
        """The number of frames that are no padding."""
        return len(self) - self.padding

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """Ground truth, shape ``(N, 4)``, ``(x, y, w, h)``, pixels of what :meth:`read` returns.

        The rows of frames without a target hold what the sequence holds.
        """
        boxes = self.sequence.boxes[self.frames]
        for i, transform in enumerate(self.transforms):
            if transform is not None:
                boxes[i] = transform.move(boxes[i])
        return boxes

    @cached_property
    def visible(self) -> NDArray[np.bool_]:
        """In which frames the target is there with a valid box, shape ``(N,)``; not in padding."""
        return self.sequence.visible[self.frames] & (np.arange(len(self)) < self.real_frames)

    @property
    def template_box(self) -> NDArray[np.float64]:
        """The target in the template's frame, ``(x, y, w, h)``, shape ``(4,)``."""
        box = self.sequence.boxes[self.template]
        return box.copy() if self.template_transform is None else self.template_transform.move(box)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Return frame ``i`` of the clip (from 0), RGB uint8 ``(H, W, 3)``, the caller's to keep.

        Raises:
            FrameError: The frame cannot be read.
        """
        transform = self.transforms[i] if self.transforms else None
        return self._read(int(self.frames[i]), transform)

    def read_mask(self, i: int) -> NDArray[np.float32] | None:
        """Return how far the pixels of frame ``i`` are the target's, or None where nobody knows.

        Returns:
            Shape ``(H, W)``, from 0 to 1; in between at the edges of masks that a transform moved.

        Raises:
            AnnotationError: The mask cannot be read.
        """
        mask = self.sequence.read_mask(int(self.frames[i]))
        if mask is None:
            return None
        transform = self.transforms[i] if self.transforms else None
        share = mask.astype(np.float32)
        return share if transform is None else transform.apply_mask(share)

    def read_reduced(self, i: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``i`` at 1/``factor`` of its size, or its upper part, where that is faster.

        Frames that are augmented are whole.

        Args:
            i: From 0.
            factor: 1, 2, 4 or 8.
            rows: How many rows are needed, from the first one on; None is all.

        Raises:
            FrameError: The frame cannot be read.
        """
        nothing = factor == 1 and rows is None
        if nothing or (self.transforms and self.transforms[i] is not None):
            return whole_frame(self.read(i))
        return self.sequence.read_reduced(int(self.frames[i]), factor, rows)

    def read_template(self) -> NDArray[np.uint8]:
        """Return the template's frame, RGB uint8 ``(H, W, 3)``, the caller's to keep.

        Raises:
            FrameError: The frame cannot be read.
        """
        return self._read(self.template, self.template_transform)

    def _read(self, t: int, transform: FrameTransform | None) -> NDArray[np.uint8]:
        frame = self.sequence.read(t)
        return frame if transform is None else transform.apply(frame)
