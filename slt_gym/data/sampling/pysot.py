"""SLT's rule for the trackers of the PySOT family: SiamRPN++ and SiamAttn."""

from __future__ import annotations

import numpy as np

from slt_gym.data.clip import Clip
from slt_gym.data.sampling.picking import Picker, check_integer, check_share
from slt_gym.data.sequence import Sequence

# Other starts that are tried where the target is not visible in the one drawn.
_TRIES = 6  # SLT-SiamRPN++


def sample_clip_pysot(
    sequence: Sequence,
    rng: np.random.Generator,
    num_frames: int = 24,
    *,
    max_interval: int = 7,
    interval_probability: float = 0.5,
) -> Clip:
    """Draw a clip from a sequence as SLT's loader for PySOT's trackers does.

    In the contiguous mode the clip is the frames, visible or not, from a random visible one on. In
    the random-interval mode each lies 1 to ``max_interval`` frames after the one before; where the
    video ends first, unused frames after the start, drawn with replacement, fill the clip, in their
    order. A clip that is still short repeats its last frame (``Clip.padding``). The template is the
    video's first frame.

    Args:
        sequence: Where to draw from; at least one frame must be visible. Where the first one is
            not, the first visible one takes its part.
        rng: The source of randomness.
        num_frames: Frames in the clip, the first (which only gives the initial box) included.
        max_interval: Largest distance between frames in the random-interval mode.  # SLT: 7
        interval_probability: Share of clips in the random-interval mode.  # SLT: 0.5

    Raises:
        InvalidArgumentError: No frame is visible, or a number is out of range.
    """
    check_integer("num_frames", num_frames, 1)
    check_integer("max_interval", max_interval, 1)
    check_share("interval_probability", interval_probability)
    picker = Picker(sequence, rng)
    if rng.random() < interval_probability:
        frames = _draw_interval(sequence, picker.first, rng, num_frames, max_interval)
    else:
        start = _draw_start(sequence, picker.first, rng, num_frames)
        frames = list(range(start, min(start + num_frames, len(sequence))))
    padding = num_frames - len(frames)
    frames += frames[-1:] * padding
    return Clip(sequence, np.array(frames, np.int64), picker.first, padding)


def _draw_start(sequence: Sequence, first: int, rng: np.random.Generator, num_frames: int) -> int:
    last = max(len(sequence) - num_frames, 0)
    for _ in range(1 + _TRIES):
        start = int(rng.integers(last + 1))
        if sequence.visible[start]:
            return start
    return first


def _draw_interval(
    sequence: Sequence,
    first: int,
    rng: np.random.Generator,
    num_frames: int,
    max_interval: int,
) -> list[int]:
    length, steps = len(sequence), num_frames - 1
    average = max_interval
    while average > 1 and average * steps + 1 > length:
        average -= 1
    start = first
    for narrower in range(average, 0, -1):
        # Differs from SLT-SiamRPN++, which crashes where a video is shorter than the clip.
        drawn = int(rng.integers(max(length - (narrower * steps + 1), 0) + 1))
        if sequence.visible[drawn]:
            start = drawn
            break
    # As published, steps are drawn up to the largest interval also where the start left less room.
    reached = start + np.cumsum(rng.integers(1, max_interval + 1, steps))
    frames = [start, *reached[reached < length].tolist()]
    if len(frames) < num_frames:
        unused = np.setdiff1d(np.arange(start + 1, length), frames)
        if unused.size:
            frames += rng.choice(unused, num_frames - len(frames)).tolist()
    return sorted(frames)
