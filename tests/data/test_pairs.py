from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

from slt_gym.data import Sequence, SequenceDataset
from slt_gym.data.pairs import PairBatch, PairConfig, PairSampler
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError
from slt_gym.geometry import TransTGeometry, get_geometry, to_cxcywh

GEOMETRY = get_geometry("transt-tiny")
STILL: dict[str, Any] = {
    "centre_jitter": 0.0,
    "scale_jitter": 0.0,
    "flip_probability": 0.0,
    "grey_probability": 0.0,
    "brightness_jitter": 0.0,
}
# The target's left half is red and its right half green, in front of blue.
RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (0, 0, 60)


class Painted(Sequence):
    """Draws a two-coloured target exactly at its (whole-numbered) box."""

    def __init__(self, name: str, boxes: np.ndarray, visible: np.ndarray | None = None) -> None:
        super().__init__(name, boxes, visible)
        self.threads: set[str] = set()

    def read(self, t: int) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        frame = np.empty((120, 160, 3), np.uint8)
        frame[:] = BLUE
        x, y, w, h = self.boxes[t].astype(int)
        frame[y : y + h, x : x + w // 2] = RED
        frame[y : y + h, x + w // 2 : x + w] = GREEN
        # Tells the frames apart.
        frame[:4, :4] = t
        return frame


class Gallery(SequenceDataset):
    def __init__(self, sequences: list[Sequence]) -> None:
        self.sequences = sequences
        super().__init__("gallery", "train", [sequence.name for sequence in sequences])

    def _load(self, index: int) -> Sequence:
        return self.sequences[index]


def make_dataset(count: int = 3, frames: int = 12) -> Gallery:
    rng = np.random.default_rng(0)
    sequences: list[Sequence] = []
    for i in range(count):
        size = 2 * rng.integers(8, 16, 2)
        corners = rng.integers((30, 30), (160 - 30, 120 - 30) - size, (frames, 2))
        sequences.append(Painted(f"p{i}", np.column_stack([corners, np.tile(size, (frames, 1))])))
    return Gallery(sequences)


def draw(batch_size: int = 32, seed: int = 0, index: int = 0, **config: Any) -> PairBatch:
    sampler = PairSampler(make_dataset(), GEOMETRY, batch_size, seed, PairConfig(**config))
    return sampler.batch(index)


def locate(crop: np.ndarray, channel: int) -> np.ndarray:
    """Return the box ``(x, y, w, h)`` of a channel's bright pixels, in crop units."""
    rows, columns = np.nonzero(crop[channel] > 128)
    x, y = columns.min(), rows.min()
    size = np.array([columns.max() + 1 - x, rows.max() + 1 - y])
    return np.array([x, y, *size]) / crop.shape[1]


def locate_target(crop: np.ndarray) -> np.ndarray:
    return locate(
        crop.max(axis=0, keepdims=True, initial=0, where=np.array([1, 1, 0], bool)[:, None, None]),
        0,
    )


def assert_boxes_fit(batch: PairBatch, tolerance: float) -> None:
    for search, gt_box in zip(batch.search, batch.gt_box, strict=True):
        inside = (gt_box[:2] > 0.03).all() and (gt_box[:2] + gt_box[2:] < 0.97).all()
        if inside:
            np.testing.assert_allclose(locate_target(search), gt_box, atol=tolerance)


def test_the_box_lies_where_the_target_is_seen() -> None:
    # The window's pixels start up to a pixel beside its corner, and edges blur by another one:
    # two frame pixels of a window of 64 or more.
    assert_boxes_fit(draw(64, **STILL), tolerance=0.035)
    batch = draw(64, **{**STILL, "centre_jitter": 2.0, "scale_jitter": 0.2})
    assert_boxes_fit(batch, tolerance=0.035)
    assert np.ptp(batch.gt_box, axis=0).min() > 0.05


def test_without_jitter_the_target_is_in_the_middle() -> None:
    batch = draw(16, **STILL)
    np.testing.assert_allclose(to_cxcywh(batch.gt_box)[:, :2], 0.5, atol=1e-6)
    for template in batch.template:
        seen = locate_target(template)
        np.testing.assert_allclose(seen[:2] + seen[2:] / 2, 0.5, atol=0.05)


def test_a_flip_mirrors_pixels_and_box_together() -> None:
    jitter = {**STILL, "centre_jitter": 2.0}
    plain, flipped = draw(48, **jitter), draw(48, **{**jitter, "flip_probability": 1.0})
    np.testing.assert_array_equal(flipped.template, plain.template[..., ::-1])
    np.testing.assert_array_equal(flipped.search, plain.search[..., ::-1])
    expected = plain.gt_box.copy()
    expected[:, 0] = 1 - plain.gt_box[:, 0] - plain.gt_box[:, 2]
    np.testing.assert_allclose(flipped.gt_box, expected, atol=1e-6)
    assert_boxes_fit(flipped, tolerance=0.035)
    for template in flipped.template:  # green has come to the left
        assert locate(template, 1)[0] < locate(template, 0)[0]
    # Both crops of a pair, or neither.
    mixed = draw(64, **{**jitter, "flip_probability": 0.5})
    mirrored = [locate(t, 1)[0] < locate(t, 0)[0] for t in mixed.template]
    assert 16 < sum(mirrored) < 48
    assert_boxes_fit(mixed, tolerance=0.035)


def test_jitter_is_distributed_as_in_transt() -> None:
    sampler = PairSampler(make_dataset(), GEOMETRY, 1, 0)
    rng = np.random.default_rng(0)
    box = np.array([100.0, 50.0, 40.0, 10.0])
    jittered = np.stack([sampler._jitter(rng, box) for _ in range(20_000)])
    scale = np.log(jittered[:, 2:] / box[2:])
    np.testing.assert_allclose(scale.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(scale.std(axis=0), 0.25, atol=0.01)
    assert abs(np.corrcoef(scale.T)[0, 1]) < 0.03
    offset = to_cxcywh(jittered)[:, :2] - to_cxcywh(box)[:2]
    reach = np.sqrt(jittered[:, 2:].prod(axis=1))[:, None]
    relative = offset / reach
    assert np.abs(relative).max() <= 1.5
    np.testing.assert_allclose(relative.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(relative.std(axis=0), 3 / np.sqrt(12), atol=0.02)


def test_grey_crops_have_one_channel() -> None:
    plain, grey = draw(16, **STILL), draw(16, **{**STILL, "grey_probability": 1.0})
    for crops, coloured in ((grey.template, plain.template), (grey.search, plain.search)):
        assert (crops == crops[:, :1]).all()
        red, green, blue = coloured.transpose(1, 0, 2, 3).astype(float)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        np.testing.assert_allclose(crops[:, 0], luma, atol=0.501)


def test_brightness_stays_within_its_bounds() -> None:
    # The factors are the last numbers that a sample draws: batches of one agree up to them.
    pairs = [
        [draw(1, index=i, **{**STILL, "brightness_jitter": jitter}) for jitter in (0.0, 0.2)]
        for i in range(64)
    ]
    factors = []
    for plain, bright in pairs:
        for crop, before in (
            (bright.template[0], plain.template[0]),
            (bright.search[0], plain.search[0]),
        ):
            # The blue background: 60 times the factor.
            factor = np.median(crop[2][before[2] == 60]) / 60
            factors.append(factor)
            expected = np.minimum(before.astype(float) * factor, 255)
            np.testing.assert_allclose(crop, expected, atol=3)
    factors = np.array(factors)
    assert factors.min() >= 0.79
    assert factors.max() <= 1.21
    assert factors.std() == pytest.approx(0.4 / np.sqrt(12), abs=0.03)
    # Each crop has a factor of its own.
    assert np.abs(factors[0::2] - factors[1::2]).max() > 0.05


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    first, again = draw(8, seed=1, index=3), draw(8, seed=1, index=3)
    for name in ("template", "search", "gt_box"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for other in (draw(8, seed=2, index=3), draw(8, seed=1, index=4)):
        assert not np.array_equal(other.gt_box, first.gt_box)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_the_batches(threads: int) -> None:
    dataset = make_dataset()
    sampler = PairSampler(dataset, GEOMETRY, 8, 5, threads=threads)
    before = threading.active_count()
    batches = iter(sampler)
    drawn = list(itertools.islice(batches, 5))
    batches.close()
    assert threading.active_count() == before
    names = {name for sequence in dataset.sequences for name in sequence.threads}
    assert names
    assert all(name.startswith("pairs") for name in names)
    for i, batch in enumerate(drawn):
        expected = sampler.batch(i)
        np.testing.assert_array_equal(batch.template, expected.template)
        np.testing.assert_array_equal(batch.search, expected.search)
        np.testing.assert_array_equal(batch.gt_box, expected.gt_box)


def test_batches_have_the_documented_types() -> None:
    batch = draw(5)
    assert batch.template.shape == (5, 3, 48, 48)
    assert batch.search.shape == (5, 3, 96, 96)
    assert batch.gt_box.shape == (5, 4)
    assert batch.template.dtype == batch.search.dtype == np.uint8
    assert batch.gt_box.dtype == np.float32


def test_pairs_stay_within_the_gap_and_use_visible_frames() -> None:
    frames = 60
    visible = np.arange(frames) % 3 != 0
    boxes = np.tile([50, 40, 20, 20], (frames, 1))
    read: list[int] = []

    class Watched(Painted):
        def read(self, t: int) -> np.ndarray:
            read.append(t)
            return super().read(t)

    dataset = Gallery([Watched("w", boxes, visible)])
    config = PairConfig(max_gap=5, samples_per_pair=1)
    PairSampler(dataset, GEOMETRY, 60, 0, config).batch(0)
    # Two samples of each pair of frames, in both directions; where both are one frame, one read.
    assert visible[read].all()
    assert len(set(read)) > 20


def test_sequences_without_a_target_are_passed_over() -> None:
    boxes = np.tile([50, 40, 20, 20], (6, 1))
    empty = Painted("empty", boxes, np.zeros(6, bool))
    once = Painted("once", boxes, np.arange(6) == 2)
    good = Painted("good", boxes)
    PairSampler(Gallery([empty, once, good]), GEOMETRY, 16, 0).batch(0)
    assert not empty.threads
    assert not once.threads
    assert good.threads
    with pytest.raises(DatasetNotFoundError, match=r"fewer than two frames with a target"):
        PairSampler(Gallery([empty, once]), GEOMETRY, 16, 0).batch(0)


def test_wrong_batch_sizes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"batch_size is 0: it must be at least 1"):
        PairSampler(make_dataset(), TransTGeometry(), 0, 0)
