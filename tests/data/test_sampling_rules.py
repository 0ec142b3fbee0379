"""The published rules of the PyTracking family, counted over 10,000 clips."""

from __future__ import annotations

import numpy as np
import pytest
from distributions import Boxes, BoxesDataset, assert_counts, assert_share, assert_uniform

from slt_gym.data import AugmentationConfig, Clip, draw_clip, sample_clip
from slt_gym.data.mixture import MixtureDataset
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

CLIPS, LENGTH = 10_000, 2000


def draw(
    probability: float, length: int = LENGTH, count: int = CLIPS
) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames ``(count, 24)`` and the templates ``(count,)``."""
    rng, sequence = np.random.default_rng(1), Boxes(np.ones(length, bool))
    clips = [sample_clip(sequence, rng, interval_probability=probability) for _ in range(count)]
    return np.stack([clip.frames for clip in clips]), np.array([clip.template for clip in clips])


def test_the_mode() -> None:
    rng, sequence = np.random.default_rng(1), Boxes(np.ones(LENGTH, bool))
    clips = [sample_clip(sequence, rng).frames for _ in range(CLIPS)]
    assert_share([(np.diff(frames) != 1).any() for frames in clips], 0.3)


def test_the_sequential_mode() -> None:
    frames, template = draw(0.0)
    assert (np.diff(frames, axis=1) == 1).all()
    assert_uniform(template, 0, LENGTH - 24)
    assert_uniform(frames[:, 0], template, np.minimum(LENGTH - 24, template + 300))


def test_the_random_interval_mode() -> None:
    frames, template = draw(1.0)
    room = LENGTH - 10 * 23
    assert_uniform(template, 0, room)
    assert_uniform(
        frames[:, 0], template, np.minimum(np.maximum(room, template + 1), template + 300)
    )
    inside = frames[:, :-1] + 10 < LENGTH
    steps = np.diff(frames, axis=1)[inside]
    assert_counts(np.bincount(steps, minlength=11), np.full(11, 1 / 11))


def test_the_random_interval_mode_in_a_short_video() -> None:
    frames, template = draw(1.0, length=60, count=3000)  # 2 * 23 fit, 3 * 23 do not
    assert_uniform(template, 0, 60 - 46, bins=14)
    # The largest step stays 10, and the video's end shortens it.
    last = frames[:, :-1] == 58
    assert_share(np.diff(frames, axis=1)[last], 0.5)


def test_hidden_frames_are_passed_over() -> None:
    visible = np.arange(400) % 4 != 1
    rng, sequence = np.random.default_rng(0), Boxes(visible)
    clips = [sample_clip(sequence, rng, interval_probability=0.0) for _ in range(CLIPS)]
    template = np.array([clip.template for clip in clips])
    assert visible[template].all()
    candidates = np.flatnonzero(visible[: 400 - 24])
    rank = np.searchsorted(candidates, template)
    assert_uniform(rank, 0, len(candidates))
    for clip in clips[:500]:
        assert (visible[clip.frames] | (clip.frames == 399)).all()


# Datasets, mixtures, stills


def part_of(clip: Clip) -> str:
    return clip.sequence.name


@pytest.mark.parametrize("sampler", ["pytracking", "pysot"])
def test_a_mixture_is_drawn_by_its_weights(sampler: str) -> None:
    mixture = MixtureDataset(
        [BoxesDataset("a", 100, 100), BoxesDataset("b", *[100] * 5), BoxesDataset("c", 100)],
        [1, 3, 2],
    )
    rng = np.random.default_rng(0)
    names = [draw_clip(mixture, rng, 8, sampler=sampler).sequence.name for _ in range(CLIPS)]
    expected = {"a/s-0": 1 / 12, "a/s-1": 1 / 12, "c/s-0": 1 / 3}
    expected |= {f"b/s-{i}": 0.1 for i in range(5)}
    assert_counts([names.count(name) for name in expected], list(expected.values()))
    assert set(names) == set(expected)


def test_each_part_of_a_mixture_has_its_own_requirement() -> None:
    # Nothing in "short" suits as published; "long" is still drawn by the strict rule.
    mixture = MixtureDataset([BoxesDataset("short", 30, 40), BoxesDataset("long", 30, 90)])
    rng = np.random.default_rng(0)
    names = [draw_clip(mixture, rng).sequence.name for _ in range(2000)]
    shares = {"short/s-0": 0.25, "short/s-1": 0.25, "long/s-1": 0.5}
    assert set(names) == set(shares)
    assert_counts([names.count(name) for name in shares], list(shares.values()))


def test_a_part_without_a_target_is_named() -> None:
    class Hidden(BoxesDataset):
        def _load(self, index: int) -> Boxes:
            return Boxes(np.zeros(9, bool), self.names[index])

    mixture = MixtureDataset([BoxesDataset("a", 90), Hidden("b", 9, 9)], [0, 1])
    with pytest.raises(DatasetNotFoundError, match=r"'b/s-0' to 'b/s-1', has two frames"):
        draw_clip(mixture, np.random.default_rng(0))


@pytest.mark.parametrize(("sampler", "padding"), [("pytracking", 0), ("pysot", 23)])
def test_stills_are_drawn_beside_videos(sampler: str, padding: int) -> None:
    mixture = MixtureDataset([BoxesDataset("stills", 1, 1), BoxesDataset("videos", 90, 90)])
    rng = np.random.default_rng(0)
    clips = [draw_clip(mixture, rng, sampler=sampler) for _ in range(1000)]
    stills = [clip for clip in clips if clip.sequence.name.startswith("stills")]
    assert_share([clip in stills for clip in clips], 0.5)
    for clip in stills:
        assert clip.frames.tolist() == [0] * 24
        assert (clip.template, clip.padding) == (0, padding)
        assert clip.visible.sum() == 24 - padding


@pytest.mark.parametrize("sampler", ["pytracking", "pysot"])
@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(shift=0, scale=0, max_stride=3)])
def test_the_same_state_gives_the_same_clips(sampler: str, augmentation) -> None:
    mixture = MixtureDataset([BoxesDataset("a", 90, 1, 200), BoxesDataset("b", 70, 300)])
    rng = np.random.default_rng(7)
    for _ in range(50):
        state = rng.bit_generator.state
        clip = draw_clip(mixture, rng, sampler=sampler, augmentation=augmentation)
        again = np.random.default_rng()
        again.bit_generator.state = state
        other = draw_clip(mixture, again, sampler=sampler, augmentation=augmentation)
        assert other.sequence.name == clip.sequence.name
        assert (other.template, other.padding) == (clip.template, clip.padding)
        assert other.transforms == clip.transforms
        np.testing.assert_array_equal(other.frames, clip.frames)
        assert again.bit_generator.state == rng.bit_generator.state


def test_an_unknown_sampler() -> None:
    with pytest.raises(InvalidArgumentError, match=r"unknown sampler 'pysto': .*mean 'pysot'"):
        draw_clip(BoxesDataset("a", 90), np.random.default_rng(0), sampler="pysto")


# Time


def test_skipping_and_reversal_are_drawn_as_configured() -> None:
    config = AugmentationConfig(
        shift=0, scale=0, colour_probability=0, blur_probability=0, max_stride=3,
        reverse_probability=0.25,
    )  # fmt: skip
    dataset, rng = BoxesDataset("a", 1000), np.random.default_rng(0)
    strides, offsets = [], []
    for _ in range(3000):
        clip = draw_clip(dataset, rng, 8, augmentation=config, interval_probability=0.0, max_gap=20)
        (step,) = set(np.diff(clip.frames).tolist())
        # The template comes first in the clip's own time, on the same grid of frames.
        assert 0 <= (clip.frames[0] - clip.template) * np.sign(step) < 20 * abs(step)
        assert (clip.frames[0] - clip.template) % step == 0
        strides.append(step)
        if abs(step) == 3:
            offsets.append(clip.frames[0] % 3)
    assert_share(np.array(strides) < 0, 0.25)
    assert_counts(np.bincount(np.abs(strides), minlength=4), [0, 1, 1, 1])
    assert_counts(np.bincount(offsets, minlength=3), [1, 1, 1])


def test_skipping_leaves_enough_frames() -> None:
    config = AugmentationConfig(shift=0, scale=0, max_stride=50)
    rng = np.random.default_rng(0)
    for _ in range(200):
        clip = draw_clip(
            BoxesDataset("a", 60), rng, 24, augmentation=config, interval_probability=0.0
        )
        assert np.diff(clip.frames).max() <= 2
        assert clip.sequence.name == "s-0"
