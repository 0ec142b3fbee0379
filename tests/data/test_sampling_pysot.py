"""The published rules of the PySOT family, counted over 10,000 clips."""

from __future__ import annotations

import numpy as np
import pytest
from distributions import Boxes, BoxesDataset, assert_counts, assert_share, assert_uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.data import Clip, SequenceDataset, draw_clip, sample_clip_pysot
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

CLIPS = 10_000


def draw(visible, probability: float | None = None, count: int = CLIPS) -> list[Clip]:
    rng, sequence = np.random.default_rng(2), Boxes(visible)
    options = {} if probability is None else {"interval_probability": probability}
    return [sample_clip_pysot(sequence, rng, **options) for _ in range(count)]


def stack(clips: list[Clip]) -> np.ndarray:
    return np.stack([clip.frames for clip in clips])


def test_the_mode() -> None:
    clips = draw(np.ones(500, bool))
    assert_share([(np.diff(clip.frames) != 1).any() for clip in clips], 0.5)
    assert {clip.template for clip in clips} == {0}
    assert {clip.padding for clip in clips} == {0}


def test_the_contiguous_mode() -> None:
    frames = stack(draw(np.ones(200, bool), 0.0))
    assert (np.diff(frames, axis=1) == 1).all()
    assert_uniform(frames[:, 0], 0, 200 - 24 + 1)


def test_the_random_interval_mode() -> None:
    frames = stack(draw(np.ones(500, bool), 1.0))
    assert_uniform(frames[:, 0], 0, 500 - (7 * 23 + 1) + 1)
    assert_counts(np.bincount(np.diff(frames, axis=1).ravel(), minlength=8), [0, *[1] * 7])


def test_the_interval_is_narrowed_for_the_start_alone() -> None:
    # 4 * 23 + 1 frames fit into 100, 5 * 23 + 1 do not.
    frames = stack(draw(np.ones(100, bool), 1.0))
    assert_uniform(frames[:, 0], 0, 100 - 93 + 1, bins=8)
    # Steps are still drawn up to 7: the second frame is the start plus one of 1 to 7, unless the
    # clip ran out of video and later frames were put between.
    complete = frames[(np.diff(frames, axis=1) > 0).all(axis=1) & (frames[:, -1] < 93)]
    assert np.diff(complete, axis=1).max() == 7


def test_a_clip_that_meets_the_end_is_filled_in_order() -> None:
    clips = draw(np.ones(40, bool), 1.0, 3000)
    frames = stack(clips)
    assert {clip.padding for clip in clips} == {0}
    assert (np.diff(frames, axis=1) >= 0).all()
    assert (frames[:, 0] <= 40 - 24).all()
    assert_uniform(frames[:, 0], 0, 17, bins=17)
    # Draws are with replacement: frames may be twice in a clip, but not those that steps met.
    assert (np.diff(frames, axis=1) == 0).any()


def test_short_videos_are_padded_with_their_last_frame() -> None:
    for clip in draw(np.ones(20, bool), 0.0, 50):
        assert clip.frames.tolist() == [*range(20), *[19] * 4]
        assert (clip.padding, clip.real_frames, len(clip)) == (4, 20, 24)
        assert clip.visible.tolist() == [True] * 20 + [False] * 4
    # The random-interval mode, which crashes there as published, fills what it can.
    for clip in draw(np.ones(20, bool), 1.0, 50):
        assert (clip.frames[0], clip.padding) == (0, 0)


def test_starts_are_drawn_again_where_the_target_is_hidden() -> None:
    visible = np.arange(100) % 4 == 0  # a quarter, frame 0 among them
    starts = stack(draw(visible, 0.0))[:, 0]
    candidates = np.arange(0, 77, 4)
    share = len(candidates) / 77
    found = 1 - (1 - share) ** 7
    shares = np.full(len(candidates), found / len(candidates))
    shares[0] += 1 - found
    assert visible[starts].all()
    assert_counts(np.bincount(starts // 4, minlength=len(candidates)), shares)


def test_narrower_intervals_are_tried_where_the_target_is_hidden() -> None:
    visible = np.arange(300) == 0
    visible[240] = True  # out of reach of the widest three intervals
    starts = stack(draw(visible, 1.0, 4000))[:, 0]
    missed, reached = 1.0, 0.0
    for interval in range(7, 0, -1):
        places = 300 - (23 * interval + 1) + 1
        low = places > 240
        reached += missed * (1 / places if low else 0)
        missed *= 1 - (1 + low) / places
    assert set(starts.tolist()) == {0, 240}
    assert_share(starts == 240, reached)


@settings(max_examples=100, deadline=None)
@given(
    visible=st.lists(st.booleans(), min_size=1, max_size=60).filter(any),
    seed=st.integers(0, 2**32),
    n=st.integers(1, 30),
    max_interval=st.integers(1, 12),
    probability=st.sampled_from([0.0, 1.0]),
)
def test_clips_are_always_whole(visible, seed, n, max_interval, probability) -> None:
    sequence = Boxes(visible)
    clip = sample_clip_pysot(
        sequence,
        np.random.default_rng(seed),
        n,
        max_interval=max_interval,
        interval_probability=probability,
    )
    first = visible.index(True)
    assert clip.template == first
    assert len(clip) == n
    assert visible[clip.frames[0]]
    assert (np.diff(clip.frames) >= 0).all()
    assert clip.frames[-1] < len(visible)
    real = clip.frames[: clip.real_frames]
    assert (clip.frames[clip.real_frames :] == real[-1]).all()
    if probability == 0.0:
        assert (np.diff(real) == 1).all()
        assert clip.padding == max(0, n - (len(visible) - clip.frames[0]))
    elif clip.padding:
        # Only where every frame after the start is taken is nothing left to fill with.
        assert real.tolist() == list(range(clip.frames[0], len(visible)))


class Hidden(SequenceDataset):
    """Sequences of 60 frames, visible where told."""

    def __init__(self, *seen: range) -> None:
        super().__init__("hidden", "train", [f"s-{i}" for i in range(len(seen))])
        self.seen = seen

    def _load(self, index: int) -> Boxes:
        return Boxes(np.isin(np.arange(60), self.seen[index]), self.names[index])


def names(dataset: SequenceDataset) -> set[str]:
    rng = np.random.default_rng(0)
    return {draw_clip(dataset, rng, sampler="pysot").sequence.name for _ in range(100)}


def test_sequences_need_a_first_box() -> None:
    assert names(Hidden(range(60), range(1, 60), range(2), range(1))) == {"s-0", "s-2"}
    # Where none has one, the first visible frame takes its part.
    late = Hidden(range(5, 40), range(5, 6))
    assert names(late) == {"s-0"}
    assert draw_clip(late, np.random.default_rng(0), sampler="pysot").template == 5
    with pytest.raises(DatasetNotFoundError, match="has two frames"):
        names(Hidden(range(1), range(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames=0 is out of range"),
        ({"max_interval": 0}, "max_interval=0 .* 1 or more"),
        ({"interval_probability": -0.5}, "interval_probability=-0.5 is not a number from 0 to 1"),
    ],
)
def test_numbers_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        sample_clip_pysot(Boxes([True] * 60), np.random.default_rng(0), **options)
    with pytest.raises(InvalidArgumentError, match=message):
        draw_clip(BoxesDataset("a", 60), np.random.default_rng(0), sampler="pysot", **options)
