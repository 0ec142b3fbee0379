"""Clips that are chosen, not drawn."""

from __future__ import annotations

import numpy as np

from slt_gym.data.clip import Clip
from slt_gym.data.sampling.picking import check_integer, first_visible
from slt_gym.data.sequence import Sequence
from slt_gym.errors import InvalidArgumentError


def whole_clip(
    sequence: Sequence,
    num_frames: int | None = None,
    start: int | None = 0,
    stride: int = 1,
) -> Clip:
    """Cut a clip of evenly spaced frames, visible or not; its first one is the template.

    Args:
        sequence: Where to cut.
        num_frames: Frames in the clip at most; None goes to the sequence's end.
        start: The first frame, from 0, in which the target must be visible; None takes the first
            visible one.
        stride: Distance between frames.

    Raises:
        InvalidArgumentError: A number is out of range, or the target is invisible at ``start``.
    """
    if num_frames is not None:
        check_integer("num_frames", num_frames, 1)
    check_integer("stride", stride, 1)
    first = first_visible(sequence)
    if start is None:
        start = first
    else:
        check_integer("start", start, 0, len(sequence) - 1)
        if not sequence.visible[start]:
            later = np.flatnonzero(sequence.visible[start:])
            nearest = start + int(later[0]) if later.size else first
            raise InvalidArgumentError(
                f"start={start} is a frame of {sequence.name!r} in which the target is not "
                f"visible: accepted are visible frames, such as {nearest}"
            )
    frames = np.arange(start, len(sequence), stride, dtype=np.int64)
    return Clip(sequence, frames[:num_frames], int(start))
