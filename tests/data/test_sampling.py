"""Drawing clips and pairs: the published rules, their distributions and their limits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.data import (
    Clip,
    Sequence,
    SequenceDataset,
    draw_clip,
    sample_clip,
    sample_pair,
    whole_clip,
)
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

CLIPS = 2000


class Boxes(Sequence):
    """A sequence without frames."""

    def __init__(self, visible, name: str = "boxes") -> None:
        visible = np.asarray(visible, bool)
        super().__init__(name, np.tile([1.0, 2.0, 3.0, 4.0], (len(visible), 1)), visible)

    def read(self, t: int):
        raise NotImplementedError


class Dataset(SequenceDataset):
    """Sequences of given lengths and numbers of visible frames; counts what is loaded."""

    def __init__(self, *counts: tuple[int, int]) -> None:
        super().__init__("made", "train", [f"s-{i}" for i in range(len(counts))])
        self.counts = counts
        self.loads: Counter[int] = Counter()

    def _load(self, index: int) -> Sequence:
        self.loads[index] += 1
        length, visible = self.counts[index]
        return Boxes(np.arange(length) < visible, self.names[index])


def reference_clip(visible, rng, n, *, max_gap, max_interval, probability):
    """Follow the text of specs/pytracking.md, section 8, word by word."""
    length = len(visible)

    def pick(low, high):
        found = [t for t in range(max(low, 0), min(high, length)) if visible[t]]
        return found[rng.integers(len(found))] if found else None

    first_visible = next(t for t in range(length) if visible[t])
    if not rng.random() < probability:
        template = pick(0, length - n)
        if template is None:  # crashes in the published code
            template = first_visible
        start = pick(template, min(length - n, template + max_gap))
        if start is None:
            start = template
        frames = [t for t in range(start, length) if visible[t]][:n]
        while len(frames) < n:
            frames.append(length - 1)
        return template, frames
    reduced = max_interval
    while reduced > 1 and reduced * (n - 1) > length:
        reduced -= 1
    a, template = reduced, None
    while template is None:
        template = pick(0, length - a * (n - 1)) if a > 0 else first_visible
        a -= 1
    a, last = reduced, None
    while last is None:
        high = min(max(length - a * (n - 1), template + 1), template + max_gap)
        last = pick(template, high) if a >= 0 else template
        a -= 1
    frames = [last]
    while len(frames) < n and last <= length - 1:
        following = pick(last, last + max_interval + 1)
        if following is None:
            last += max_interval
        else:
            last = following
            frames.append(last)
    assert len(frames) == n, "the published remedies for short clips turn out to be needed"
    return template, frames


@settings(max_examples=300, deadline=None)
@given(
    visible=st.lists(st.booleans(), min_size=1, max_size=90).filter(any),
    seed=st.integers(0, 2**32),
    n=st.integers(1, 30),
    max_gap=st.integers(0, 40),
    max_interval=st.integers(1, 12),
    probability=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_clips_follow_the_published_text(visible, seed, n, *, max_gap, max_interval, probability):
    sequence = Boxes(visible)
    clip = sample_clip(
        sequence,
        np.random.default_rng(seed),
        n,
        max_gap=max_gap,
        max_interval=max_interval,
        interval_probability=probability,
    )
    expected = reference_clip(
        visible,
        np.random.default_rng(seed),
        n,
        max_gap=max_gap,
        max_interval=max_interval,
        probability=probability,
    )
    assert (clip.template, clip.frames.tolist()) == expected
    assert clip.sequence is sequence
    assert clip.frames.dtype == np.int64
    assert len(clip) == n
    assert (np.diff(clip.frames) >= 0).all()
    assert 0 <= clip.template <= clip.frames[0]
    assert clip.frames[-1] < len(visible)
    assert clip.frames[0] - clip.template < max(max_gap, 1)
    assert visible[clip.template]
    assert visible[clip.frames[0]]


def draw(visible, **options) -> list[Clip]:
    rng = np.random.default_rng(3)
    sequence = Boxes(visible)
    return [sample_clip(sequence, rng, **options) for _ in range(CLIPS)]


def test_sequential_clips_are_the_visible_frames_from_a_start():
    visible = np.random.default_rng(0).random(700) < 0.7
    clips = draw(visible, interval_probability=0.0)
    for clip in clips:
        assert visible[clip.template]
        following = clip.frames[0] + np.flatnonzero(visible[clip.frames[0] :])[:24]
        expected = following.tolist() + [699] * (24 - len(following))
        assert clip.frames.tolist() == expected
        assert 0 <= clip.frames[0] - clip.template < 300
        assert clip.frames[0] < 700 - 24
    assert max(clip.frames[0] - clip.template for clip in clips) > 280
    templates = np.array([clip.template for clip in clips])
    # Uniform over [0, 676): the quarters hold a quarter each.
    counts, _ = np.histogram(templates, bins=4, range=(0, 676))
    assert np.abs(counts / CLIPS - 0.25).max() < 0.05


def test_interval_clips_step_by_at_most_the_interval():
    clips = draw(np.ones(2000, bool), interval_probability=1.0)
    steps = np.concatenate([np.diff(clip.frames) for clip in clips])
    counts = np.bincount(steps, minlength=11)
    assert len(counts) == 11
    assert np.abs(counts / counts.sum() - 1 / 11).max() < 0.01
    gaps = np.array([clip.frames[0] - clip.template for clip in clips])
    assert (gaps.min(), gaps.max() < 300, gaps.max() > 290) == (0, True, True)
    assert max(clip.template for clip in clips) < 2000 - 230
    # The first frame leaves room for the longest clip.
    assert max(clip.frames[0] for clip in clips) < 2000 - 230


def test_the_share_of_interval_clips():
    clips = draw(np.ones(2000, bool))
    share = np.mean([(np.diff(clip.frames) != 1).any() for clip in clips])
    assert abs(share - 0.3) < 0.035


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_interval_clips_of_short_videos_stay_inside(probability: float):
    visible = np.arange(30) % 3 > 0
    for clip in draw(visible, interval_probability=probability)[:500]:
        assert clip.frames[-1] < 30
        assert visible[clip.frames[clip.frames < 29]].all()


def test_a_clip_that_runs_out_is_padded_with_the_last_frame():
    visible = np.ones(40, bool)
    visible[20:] = False
    clip = sample_clip(Boxes(visible), np.random.default_rng(0), interval_probability=0.0)
    start = clip.frames[0]
    assert clip.frames.tolist() == list(range(start, 20)) + [39] * (24 - (20 - start))


def test_without_an_early_template_the_first_visible_frame_serves():
    visible = np.arange(40) >= 30  # none in [0, 40 - 24), where the published code crashes
    for probability in (0.0, 1.0):
        clip = sample_clip(
            Boxes(visible), np.random.default_rng(0), interval_probability=probability
        )
        assert (clip.template, clip.frames[0], len(clip)) == (30, 30, 24)


def test_the_same_generator_gives_the_same_clip():
    sequence = Boxes(np.ones(500, bool))
    first, second = (sample_clip(sequence, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    assert first.template == second.template


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames=0 is out of range: accepted are whole numbers, 1 or more"),
        ({"num_frames": 2.5}, "num_frames=2.5 is out of range"),
        ({"max_gap": -1}, "max_gap=-1 .* 0 or more"),
        ({"max_interval": 0}, "max_interval=0 .* 1 or more"),
        ({"interval_probability": 1.5}, "interval_probability=1.5 is not a number from 0 to 1"),
    ],
)
def test_numbers_out_of_range(options: dict, message: str):
    with pytest.raises(InvalidArgumentError, match=message):
        sample_clip(Boxes([True] * 60), np.random.default_rng(0), **options)
    with pytest.raises(InvalidArgumentError, match=message):
        draw_clip(Dataset((60, 60)), np.random.default_rng(0), **options)


def test_an_invisible_target():
    sequence = Boxes([False] * 60, "ghost-1")
    for function in (sample_clip, sample_pair):
        with pytest.raises(InvalidArgumentError, match="'ghost-1' is not visible in any of its 60"):
            function(sequence, np.random.default_rng(0))
    with pytest.raises(InvalidArgumentError, match="not visible in any"):
        whole_clip(sequence, start=None)


def names_drawn(dataset: SequenceDataset, count: int = 600, **options) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(draw_clip(dataset, rng, **options).sequence.name for _ in range(count))


def test_only_suitable_sequences_are_drawn_and_evenly():
    # 2 * (24 + 1) = 50: visible frames must be more.
    drawn = names_drawn(Dataset((90, 50), (90, 51), (51, 51), (50, 50), (24, 24), (3000, 3000)))
    assert sorted(drawn) == ["s-1", "s-2", "s-5"]
    assert min(drawn.values()) > 150
    drawn = names_drawn(Dataset((90, 11), (90, 12), (90, 13), (90, 14)), num_frames=5)
    assert sorted(drawn) == ["s-2", "s-3"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([(40, 23), (40, 24), (24, 24), (50, 50)], ["s-1", "s-2", "s-3"]),
        ([(40, 23), (2, 2), (90, 1), (90, 0)], ["s-0", "s-1"]),
    ],
)
def test_the_requirement_is_relaxed_where_nothing_meets_it(counts, expected):
    drawn = names_drawn(Dataset(*counts), 300)
    assert sorted(drawn) == expected
    assert min(drawn.values()) > 60


def test_a_dataset_of_invisible_targets():
    dataset = Dataset((90, 1), (90, 0))
    with pytest.raises(DatasetNotFoundError, match="has two frames in which the target is visible"):
        draw_clip(dataset, np.random.default_rng(0))
    with pytest.raises(DatasetNotFoundError):
        draw_clip(Dataset(), np.random.default_rng(0))


def test_clips_do_not_depend_on_what_was_drawn_before():
    counts = [(30, 20 + i) for i in range(10)]
    used = Dataset(*counts)
    names_drawn(used, 50)
    for dataset in (used, Dataset(*counts)):
        clip = draw_clip(dataset, np.random.default_rng(5))
        assert clip.sequence.name == "s-6"
        assert clip.frames.tolist() == draw_clip(used, np.random.default_rng(5)).frames.tolist()


def test_the_part_that_is_looked_at_is_always_the_same():
    # Four suitable ones among a thousand are found or missed by chance, but the same for everyone.
    counts = [(200, 200) if i % 250 == 7 else (40, 40) for i in range(1000)]
    drawn = {draw_clip(Dataset(*counts), np.random.default_rng(5)).sequence.name for _ in range(15)}
    assert len(drawn) == 1


def test_a_dataset_is_not_scanned_where_draws_suffice(monkeypatch):
    dataset = Dataset(*[(200, 200)] * 2000)
    draw_clip(dataset, np.random.default_rng(0))
    assert len(dataset.loads) <= 2
    # Where they do not, part of a large dataset is looked at, once.
    large = Dataset(*[(40, 40)] * 2000)
    for seed in range(20):
        draw_clip(large, np.random.default_rng(seed))
    assert len(large.loads) <= 256 + 20
    # A rare suitable one is found beyond that.
    rare = Dataset(*[(40, 1)] * 1999, (40, 40))
    assert draw_clip(rare, np.random.default_rng(0)).sequence.name == "s-1999"
    assert max(rare.loads.values()) == 1


def test_whole_clips():
    sequence = Boxes([True] * 10)
    assert whole_clip(sequence).frames.tolist() == list(range(10))
    assert whole_clip(sequence, 4, start=3, stride=2).frames.tolist() == [3, 5, 7, 9]
    assert whole_clip(sequence, 3, start=3, stride=2).frames.tolist() == [3, 5, 7]
    assert whole_clip(sequence, 100, start=9).frames.tolist() == [9]
    clip = whole_clip(sequence, start=np.int64(3))
    assert (clip.template, type(clip.template), clip.frames.dtype) == (3, int, np.int64)


def test_whole_clips_start_where_the_target_is_visible():
    sequence = Boxes([False, False, True, False, True, False], "cat-1")
    clip = whole_clip(sequence, start=None)
    assert (clip.template, clip.frames.tolist()) == (2, [2, 3, 4, 5])
    for start, other in ((0, 2), (3, 4), (5, 2)):
        with pytest.raises(InvalidArgumentError) as error:
            whole_clip(sequence, start=start)
        assert f"start={start} is a frame of 'cat-1'" in str(error.value)
        assert str(error.value).endswith(f"such as {other}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, "start=-1 is out of range: accepted are whole numbers, 0 to 9"),
        ({"start": 10}, "start=10 .* 0 to 9"),
        ({"start": 1.5}, r"start=1\.5 .* 0 to 9"),
        ({"stride": 0}, "stride=0 .* 1 or more"),
        ({"num_frames": 0}, "num_frames=0 .* 1 or more"),
    ],
)
def test_whole_clips_out_of_range(options: dict, message: str):
    with pytest.raises(InvalidArgumentError, match=message):
        whole_clip(Boxes([True] * 10), **options)


def test_pairs_are_visible_and_near():
    visible = np.random.default_rng(1).random(400) < 0.6
    sequence, rng = Boxes(visible), np.random.default_rng(0)
    pairs = np.array([sample_pair(sequence, rng, max_gap=30) for _ in range(CLIPS)])
    assert visible[pairs].all()
    gaps = pairs[:, 1] - pairs[:, 0]
    assert (gaps.min(), gaps.max()) == (-30, 30)
    assert abs((gaps > 0).mean() - (gaps < 0).mean()) < 0.08
    counts, _ = np.histogram(pairs[:, 0], bins=4, range=(0, 400))
    expected = visible.reshape(4, 100).sum(axis=1) / visible.sum()
    assert np.abs(counts / CLIPS - expected).max() < 0.05
    assert max(abs(a - b) for a, b in (sample_pair(sequence, rng) for _ in range(CLIPS))) > 90


def test_pairs_of_one_visible_frame():
    visible = np.arange(9) == 4
    assert sample_pair(Boxes(visible), np.random.default_rng(0)) == (4, 4)
    template, search = sample_pair(Boxes([True] * 9), np.random.default_rng(0), max_gap=0)
    assert template == search
    with pytest.raises(InvalidArgumentError, match="max_gap=-1"):
        sample_pair(Boxes(visible), np.random.default_rng(0), max_gap=-1)
