"""Drawing clips from sequences, for sequence-level training, and pairs, for pre-training.

The rules are those of SLT's published sampler. Every random number comes from the generator that
the caller passes, and the same generator state gives the same clip, whatever was drawn before.
"""

from __future__ import annotations

import operator
from weakref import WeakKeyDictionary

import numpy as np

from slt_gym.data.sequence import Clip, Sequence, SequenceDataset
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

# Sequences looked at for a suitable one before the requirement is relaxed; there are procedural
# datasets of any size.
_LOOKED_AT = 256


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
    _check_integer("num_frames", num_frames, 1)
    _check_integer("max_gap", max_gap, 0)
    _check_integer("max_interval", max_interval, 1)
    if not 0 <= interval_probability <= 1:
        raise InvalidArgumentError(
            f"interval_probability={interval_probability!r} is not a number from 0 to 1"
        )
    picker = _Picker(sequence, rng)
    if rng.random() < interval_probability:
        template, frames = _draw_interval(picker, num_frames, max_gap, max_interval)
    else:
        template, frames = _draw_sequential(picker, num_frames, max_gap)
    return Clip(sequence, np.array(frames, np.int64), template)


def draw_clip(
    dataset: SequenceDataset,
    rng: np.random.Generator,
    num_frames: int = 24,
    *,
    max_gap: int = 300,
    max_interval: int = 10,
    interval_probability: float = 0.3,
) -> Clip:
    """Draw a sequence uniformly among the suitable ones of a dataset, and a clip from it.

    Suitable are sequences of more than ``num_frames`` frames with more than
    ``2 * (num_frames + 1)`` visible ones, as published. Where a dataset has none (none among 256
    for larger ones), those with at least ``num_frames`` visible frames are suitable too; where it
    has none of these either, those with two.

    Args:
        dataset: Where to draw from.
        rng: The source of randomness.
        num_frames: Frames in the clip.
        max_gap: As in :func:`sample_clip`.
        max_interval: As in :func:`sample_clip`.
        interval_probability: As in :func:`sample_clip`.

    Raises:
        DatasetNotFoundError: No sequence has two visible frames.
        InvalidArgumentError: A number is out of range.
    """
    _check_integer("num_frames", num_frames, 1)
    return sample_clip(
        _draw_sequence(dataset, rng, num_frames),
        rng,
        num_frames,
        max_gap=max_gap,
        max_interval=max_interval,
        interval_probability=interval_probability,
    )


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
        _check_integer("num_frames", num_frames, 1)
    _check_integer("stride", stride, 1)
    first = _first_visible(sequence)
    if start is None:
        start = first
    else:
        _check_integer("start", start, 0, len(sequence) - 1)
        if not sequence.visible[start]:
            later = np.flatnonzero(sequence.visible[start:])
            nearest = start + int(later[0]) if later.size else first
            raise InvalidArgumentError(
                f"start={start} is a frame of {sequence.name!r} in which the target is not "
                f"visible: accepted are visible frames, such as {nearest}"
            )
    frames = np.arange(start, len(sequence), stride, dtype=np.int64)
    return Clip(sequence, frames[:num_frames], int(start))


def sample_pair(
    sequence: Sequence, rng: np.random.Generator, max_gap: int = 100
) -> tuple[int, int]:
    """Draw a template frame and a search frame for frame-level training.

    The template is uniform among the visible frames, the search frame uniform among the visible
    frames at most ``max_gap`` before or after it, itself included (as in PySOT).

    Args:
        sequence: Where to draw from; at least one frame must be visible.
        rng: The source of randomness.
        max_gap: Largest distance between the two, in frames.

    Returns:
        The numbers of the template frame and of the search frame.

    Raises:
        InvalidArgumentError: No frame is visible, or ``max_gap`` is negative.
    """
    _check_integer("max_gap", max_gap, 0)
    picker = _Picker(sequence, rng)
    template = picker.pick(0, picker.length)
    assert template is not None  # The picker has a visible frame.
    search = picker.pick(template - max_gap, template + max_gap + 1)
    assert search is not None  # The template is one.
    return template, search


class _Picker:
    """Uniform choice among the visible frames of a range."""

    def __init__(self, sequence: Sequence, rng: np.random.Generator) -> None:
        self.first = _first_visible(sequence)
        self.visible = np.flatnonzero(sequence.visible)
        self.length = len(sequence)
        self._rng = rng

    def pick(self, low: int, high: int) -> int | None:
        """Return a visible frame in ``[low, high)``, or None where there is none."""
        start, stop = np.searchsorted(self.visible, (low, high))
        return int(self.visible[self._rng.integers(start, stop)]) if start < stop else None


def _draw_sequential(picker: _Picker, num_frames: int, max_gap: int) -> tuple[int, list[int]]:
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
    picker: _Picker, num_frames: int, max_gap: int, max_interval: int
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


class _Census:
    """What is known of the lengths and the visible frames of a dataset's sequences."""

    def __init__(self, size: int) -> None:
        self._counts: list[tuple[int, int] | None] = [None] * size
        self.tiers: dict[int, int] = {}

    def find_tier(self, dataset: SequenceDataset, index: int, num_frames: int) -> int:
        """Tell how well a sequence suits: 0 as published, 1 or 2 less so, 3 not at all."""
        counts = self._counts[index]
        if counts is None:
            sequence = dataset[index]
            counts = self._counts[index] = len(sequence), int(sequence.visible.sum())
        length, visible = counts
        if visible > 2 * (num_frames + 1) and length > num_frames:
            return 0
        if visible < 2:
            return 3
        return 1 if visible >= num_frames else 2


_censuses: WeakKeyDictionary[SequenceDataset, _Census] = WeakKeyDictionary()


def _draw_sequence(dataset: SequenceDataset, rng: np.random.Generator, num_frames: int) -> Sequence:
    census = _censuses.setdefault(dataset, _Census(len(dataset)))
    best = census.tiers.get(num_frames)
    if best is None:
        best = census.tiers[num_frames] = _find_best_tier(dataset, census, num_frames)
    # At least one sequence is of that tier, so that this comes to an end.
    while True:
        index = int(rng.integers(len(dataset)))
        if census.find_tier(dataset, index, num_frames) <= best:
            return dataset[index]


def _find_best_tier(dataset: SequenceDataset, census: _Census, num_frames: int) -> int:
    best = 3
    # An order of its own, so that a clip depends on the caller's generator alone and not on what
    # is already known of the dataset.
    order = np.random.default_rng(0).permutation(len(dataset))
    for looked_at, index in enumerate(order, 1):
        best = min(best, census.find_tier(dataset, int(index), num_frames))
        if best == 0 or (best < 3 and looked_at >= _LOOKED_AT):
            break
    if best == 3:
        raise DatasetNotFoundError(
            f"no sequence of {dataset!r} has two frames in which the target is visible, which a "
            "clip needs"
        )
    return best


def _first_visible(sequence: Sequence) -> int:
    if not sequence.visible.any():
        raise InvalidArgumentError(
            f"the target of sequence {sequence.name!r} is not visible in any of its "
            f"{len(sequence)} frames: a clip needs a first box"
        )
    return int(np.argmax(sequence.visible))


def _check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low or (high is not None and number > high):
        accepted = f"{low} or more" if high is None else f"{low} to {high}"
        raise InvalidArgumentError(
            f"{name}={value!r} is out of range: accepted are whole numbers, {accepted}"
        )
