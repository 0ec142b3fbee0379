"""SLT's rule for the trackers of the PyTracking family: TransT and TrDiMP."""

from __future__ import annotations

import numpy as np

from slt_gym.data.clip import Clip
from slt_gym.data.sampling.picking import Picker, check_integer, check_share
from slt_gym.data.sequence import Sequence


def sample_clip(
    sequence: Sequence,
    rng: np.random.Generator,
    num_frames: int = 24,
    *,
    max_gap: int = 300,
    max_interval: int = 10,
    interval_probability: float = 0.3,
) -> Clip:
    """Draw a clip from a sequence as SLT does.

    In the sequential mode the clip is the visible frames that follow a random one; in the
    random-interval mode each frame lies 0 to ``max_interval`` frames after the one before, so that
    frames may repeat. In both, the template is a visible frame less than ``max_gap`` frames before
    the first frame, or the first frame itself. Frames never go back in time.

    The published rule pads a sequential clip that runs out of visible frames with the sequence's
    last frame, even where the target is invisible there; so does this one.

    Args:
        sequence: Where to draw from; at least one frame must be visible.
        rng: The source of randomness.
        num_frames: Frames in the clip, the first (which only gives the initial box) included.
        max_gap: The first frame is one of the ``max_gap`` from the template on.  # SLT: 300
        max_interval: Largest distance between frames in the random-interval mode.  # SLT: 10
        interval_probability: Share of clips in the random-interval mode.  # SLT: 0.3

    Raises:
        InvalidArgumentError: No frame is visible, or a number is out of range.
    """
    check_integer("num_frames", num_frames, 1)
    check_integer("max_gap", max_gap, 0)
    check_integer("max_interval", max_interval, 1)
    check_share("interval_probability", interval_probability)
    picker = Picker(sequence, rng)
    if rng.random() < interval_probability:
        template, frames = _draw_interval(picker, num_frames, max_gap, max_interval)
    else:
        template, frames = _draw_sequential(picker, num_frames, max_gap)
    return Clip(sequence, np.array(frames, np.int64), template)


def _draw_sequential(picker: Picker, num_frames: int, max_gap: int) -> tuple[int, list[int]]:
    last_start = picker.length - num_frames
    template = picker.pick(0, last_start)
    if template is None:
        # Differs from SLT, which crashes here.
        template = picker.first
    start = picker.pick(template, min(last_start, template + max_gap))
    if start is None:
        start = template
    index = np.searchsorted(picker.visible, start)
    frames = [int(frame) for frame in picker.visible[index : index + num_frames]]
    return template, frames + [picker.length - 1] * (num_frames - len(frames))


def _draw_interval(
    picker: Picker, num_frames: int, max_gap: int, max_interval: int
) -> tuple[int, list[int]]:
    length, steps = picker.length, num_frames - 1
    widest = max_interval
    while widest > 1 and widest * steps > length:
        widest -= 1
    template = None
    for interval in range(widest, 0, -1):
        template = picker.pick(0, length - interval * steps)
        if template is not None:
            break
    if template is None:
        template = picker.first
    high = min(max(length - widest * steps, template + 1), template + max_gap)
    first = picker.pick(template, high)
    frame = template if first is None else first
    frames = [frame]
    while len(frames) < num_frames:
        following = picker.pick(frame, frame + max_interval + 1)
        # The range starts at a visible frame, so that the published remedies for empty ranges and
        # short clips have nothing to do.
        assert following is not None
        frame = following
        frames.append(frame)
    return template, frames
