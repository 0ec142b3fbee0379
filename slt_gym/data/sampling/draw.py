"""Drawing a sequence from a dataset or a mixture, and a clip or a pair of frames from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from slt_gym.data.augmentation import AugmentationConfig, augment_clip, draw_order
from slt_gym.data.clip import Clip
from slt_gym.data.sampling.picking import Picker, check_integer
from slt_gym.data.sampling.pysot import sample_clip_pysot
from slt_gym.data.sampling.pytracking import sample_clip
from slt_gym.data.sequence import Sequence, SequenceDataset
from slt_gym.errors import DatasetNotFoundError, unknown

# Sequences looked at for a suitable one before the requirement is relaxed; there are procedural
# datasets of any size.
_LOOKED_AT = 256

# The rules by the family of trackers that they were published with.
SAMPLERS: dict[str, Callable[..., Clip]] = {
    "pytracking": sample_clip,
    "pysot": sample_clip_pysot,
}


def draw_clip(
    dataset: SequenceDataset,
    rng: np.random.Generator,
    num_frames: int = 24,
    *,
    sampler: str = "pytracking",
    augmentation: AugmentationConfig | None = None,
    **options: Any,
) -> Clip:
    """Draw a sequence uniformly among the suitable ones of a dataset, and a clip from it.

    Of a mixture, a part is drawn by the weights first. Suitable are, as published,

    - for ``"pytracking"``, sequences of more than ``num_frames`` frames with more than
      ``2 * (num_frames + 1)`` visible ones. Where a dataset has none (none among 256 for larger
      ones), those with at least ``num_frames`` visible frames are suitable too; where it has none
      of these either, those with two;
    - for ``"pysot"``, sequences whose first frame is visible, and another one; where there are
      none, as above.

    Stills, sequences of one frame, are suitable for both. A clip of one is the frame again and
    again; ``"pysot"`` counts the copies as padding.

    Args:
        dataset: Where to draw from.
        rng: The source of randomness.
        num_frames: Frames in the clip.
        sampler: Name of the rule, see :func:`sample_clip` and :func:`sample_clip_pysot`.
        augmentation: How to change the clip; None leaves it as it is.
        **options: Numbers of the rule, such as ``max_interval``.

    Raises:
        DatasetNotFoundError: No sequence is suitable.
        InvalidArgumentError: A number is out of range, or the sampler is unknown.
    """
    check_integer("num_frames", num_frames, 1)
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    sequence = _draw_sequence(dataset, rng, num_frames, sampler)
    if augmentation is None:
        return SAMPLERS[sampler](sequence, rng, num_frames, **options)
    ordered, numbers = draw_order(sequence, rng, num_frames, augmentation)
    clip = SAMPLERS[sampler](ordered, rng, num_frames, **options)
    template = int(numbers[clip.template])
    return augment_clip(
        Clip(sequence, numbers[clip.frames], template, clip.padding), rng, augmentation
    )


def draw_index(dataset: SequenceDataset, rng: np.random.Generator) -> int:
    """Draw the number of a sequence: a part by the weights, then uniformly."""
    part = _draw_part(dataset, rng)
    return int(rng.integers(part.start, part.stop))


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
    check_integer("max_gap", max_gap, 0)
    picker = Picker(sequence, rng)
    template = picker.pick(0, picker.length)
    assert template is not None  # The picker has a visible frame.
    search = picker.pick(template - max_gap, template + max_gap + 1)
    assert search is not None  # The template is one.
    return template, search


def _draw_part(dataset: SequenceDataset, rng: np.random.Generator) -> range:
    """Draw one of a mixture's ranges of sequences; others have one."""
    parts = dataset.parts
    if len(parts) == 1:
        return parts[0][1]
    return parts[int(rng.choice(len(parts), p=[share for share, _ in parts]))][1]


class _Census:
    """What is known of the lengths and the visible frames of a dataset's sequences."""

    def __init__(self, size: int) -> None:
        self._counts: list[tuple[int, int, bool] | None] = [None] * size
        self.tiers: dict[tuple[range, int, str], int] = {}

    def find_tier(self, dataset: SequenceDataset, index: int, num_frames: int, sampler: str) -> int:
        """Tell how well a sequence suits: 0 as published, 1 or 2 less so, 3 not at all."""
        counts = self._counts[index]
        if counts is None:
            seen = dataset[index].visible
            counts = self._counts[index] = len(seen), int(seen.sum()), bool(seen[:1].any())
        length, visible, at_start = counts
        if length == 1 and at_start:
            return 0
        if visible < 2:
            return 3
        if sampler == "pysot":
            suits = at_start
        else:
            suits = visible > 2 * (num_frames + 1) and length > num_frames
        if suits:
            return 0
        return 1 if visible >= num_frames else 2


_censuses: WeakKeyDictionary[SequenceDataset, _Census] = WeakKeyDictionary()


def _draw_sequence(
    dataset: SequenceDataset, rng: np.random.Generator, num_frames: int, sampler: str
) -> Sequence:
    census = _censuses.setdefault(dataset, _Census(len(dataset)))
    part = _draw_part(dataset, rng)
    key = (part, num_frames, sampler)
    best = census.tiers.get(key)
    if best is None:
        best = census.tiers[key] = _find_best_tier(dataset, census, part, num_frames, sampler)
    # At least one sequence is of that tier, so that this comes to an end.
    while True:
        index = int(rng.integers(part.start, part.stop))
        if census.find_tier(dataset, index, num_frames, sampler) <= best:
            return dataset[index]


def _find_best_tier(
    dataset: SequenceDataset, census: _Census, part: range, num_frames: int, sampler: str
) -> int:
    best = 3
    # An order of its own, so that a clip depends on the caller's generator alone and not on what
    # is already known of the dataset.
    order = np.random.default_rng(0).permutation(len(part))
    for looked_at, offset in enumerate(order, 1):
        index = part.start + int(offset)
        best = min(best, census.find_tier(dataset, index, num_frames, sampler))
        if best == 0 or (best < 3 and looked_at >= _LOOKED_AT):
            break
    if best == 3:
        where = repr(dataset)
        if len(part) < len(dataset):
            where += f", {dataset.names[part.start]!r} to {dataset.names[part.stop - 1]!r},"
        raise DatasetNotFoundError(
            f"no sequence of {where} has two frames in which the target is visible, which a "
            "clip needs"
        )
    return best
