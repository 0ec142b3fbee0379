from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from slt_gym.data import Sequence, SequenceDataset
from slt_gym.data.pairs import (
    SIAMATTN_PAIRS,
    SIAMRPNPP_PAIRS,
    PairBatch,
    PairConfig,
    PairSampler,
)
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


class Masked(Painted):
    """Knows the target's pixels in its odd frames."""

    def read_mask(self, t: int) -> np.ndarray | None:
        mask = np.zeros((120, 160), bool)
        x, y, w, h = self.boxes[t].astype(int)
        mask[y : y + h, x : x + w] = True
        return mask if t % 2 else None


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


# PySOT's pairs


def test_negative_pairs_show_another_target() -> None:
    config = {**STILL, "negative_probability": 0.2}
    batch = draw(400, **config)
    share = batch.negative.mean()
    assert abs(share - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 400)
    assert not batch.gt_box[batch.negative].any()
    assert not batch.other_box[~batch.negative].any()
    assert (batch.gt_box[~batch.negative][:, 2:] > 0).all()
    # Sequences are told apart by their targets' shapes.
    same = []
    for template, search, box in zip(
        batch.template, batch.search, batch.gt_box + batch.other_box, strict=True
    ):
        seen = locate_target(template)[2:] / locate_target(search)[2:]
        same.append(abs(np.log(seen[0] / seen[1])) < 0.2)
        np.testing.assert_allclose(locate_target(search), box, atol=0.035)
    same = np.array(same)
    assert same[~batch.negative].mean() > 0.95
    assert same[batch.negative].mean() < 0.8


def test_negative_pairs_need_a_second_sequence() -> None:
    config = PairConfig(negative_probability=0.5)
    with pytest.raises(InvalidArgumentError, match=r"negative_probability is 0.5.* no second"):
        PairSampler(make_dataset(1), GEOMETRY, 4, 0, config)
    boxes = np.tile([50, 40, 20, 20], (6, 1))
    empty = Painted("empty", boxes, np.zeros(6, bool))
    gallery = Gallery([empty, Painted("good", boxes)])
    with pytest.raises(DatasetNotFoundError, match=r"no sequence beside 'good'"):
        PairSampler(gallery, GEOMETRY, 16, 0, config).batch(0)


def test_windows_shift_and_scale_as_in_pysot() -> None:
    config = PairConfig(**{**STILL, "search_shift": 64 / 255, "search_scale": 0.18})
    sampler = PairSampler(make_dataset(1), GEOMETRY, 400, 0, config)
    gt_box = sampler.batch(0).gt_box
    plain = draw_all(make_dataset(1), STILL, 1)
    scale = plain[0, 2] / gt_box[:, 2]
    assert scale.min() > 0.81
    assert scale.max() < 1.19
    assert scale.std() == pytest.approx(0.36 / np.sqrt(12), abs=0.015)
    # The shift is of the window before its side changes.
    offset = (to_cxcywh(gt_box)[:, :2] - 0.5) * scale[:, None]
    assert np.abs(offset).max() <= 64 / 255 + 0.01
    np.testing.assert_allclose(offset.std(axis=0), 2 * 64 / 255 / np.sqrt(12), atol=0.015)
    assert_boxes_fit(sampler.batch(1), tolerance=0.035)
    # The template stays in the middle unless it is told to move.
    still = draw(16, **{**STILL, "search_shift": 0.25})
    moved = draw(16, **{**STILL, "template_shift": 0.1})
    for template in still.template:
        seen = locate_target(template)
        np.testing.assert_allclose(seen[:2] + seen[2:] / 2, 0.5, atol=0.05)
    centres = [seen[:2] + seen[2:] / 2 for seen in map(locate_target, moved.template)]
    assert np.abs(np.array(centres) - 0.5).max() > 0.05


def draw_all(dataset: Gallery, config: dict[str, Any], count: int) -> np.ndarray:
    return PairSampler(dataset, GEOMETRY, count, 0, PairConfig(**config)).batch(0).gt_box


def test_a_mirrored_search_crop_leaves_the_template_alone() -> None:
    jitter = {**STILL, "centre_jitter": 2.0, "samples_per_pair": 1}
    batch = draw(200, **{**jitter, "search_flip_probability": 0.5})
    assert_boxes_fit(batch, tolerance=0.035)
    turned = [locate(crop, 1)[0] < locate(crop, 0)[0] for crop in batch.search]
    assert 70 < sum(turned) < 130
    assert not any(locate(crop, 1)[0] < locate(crop, 0)[0] for crop in batch.template)


def test_colours_and_blur_have_their_shares() -> None:
    one = {**STILL, "samples_per_pair": 1}
    coloured = draw(160, **{**one, "colour_probability": 0.5})
    for crops in (coloured.template, coloured.search):
        changed = [not (crop.reshape(3, -1).T == BLUE).all(axis=1).any() for crop in crops]
        assert 55 < sum(changed) < 105
    blurred = draw(200, **{**one, "blur_probability": 0.2})
    sharp = draw(200, **one)

    def steepest(crops: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(crops[:, 0].astype(int), axis=2)).max(axis=(1, 2))

    limit = steepest(sharp.search).min()
    assert 18 < (steepest(blurred.search) < limit).sum() < 63
    assert not (steepest(blurred.template) < steepest(sharp.template).min()).any()


def test_pysots_constants() -> None:
    for config, colour, flip in ((SIAMRPNPP_PAIRS, 1.0, 0.0), (SIAMATTN_PAIRS, 0.5, 0.2)):
        assert config.negative_probability == config.blur_probability == 0.2
        assert (config.colour_probability, config.search_flip_probability) == (colour, flip)
        assert (config.template_shift * 127, config.template_scale) == (4, 0.05)
        assert (config.search_shift * 255, config.search_scale) == (64, 0.18)
        first = PairSampler(make_dataset(), GEOMETRY, 8, 5, config)
        again = PairSampler(make_dataset(), GEOMETRY, 8, 5, config, threads=3)
        for a, b in zip(itertools.islice(first, 3), itertools.islice(again, 3), strict=True):
            for name in ("template", "search", "gt_box", "negative", "other_box"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_stills_are_pairs_of_themselves() -> None:
    batch = PairSampler(
        Gallery([Painted("still", np.array([[50, 40, 20, 20]]))]), GEOMETRY, 4, 0
    ).batch(0)
    assert (batch.gt_box[:, 2:] > 0).all()


def test_a_test_split_is_not_trained_on() -> None:
    dataset = make_dataset()
    dataset.split = "test"
    with pytest.raises(InvalidArgumentError, match=r"is a test split: .*train_on_test=True"):
        PairSampler(dataset, GEOMETRY, 4, 0)


def test_wrong_batch_sizes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"batch_size is 0: it must be at least 1"):
        PairSampler(make_dataset(), TransTGeometry(), 0, 0)


@pytest.mark.parametrize("flip", ["flip_probability", "search_flip_probability"])
def test_masks_are_cut_like_the_search_crops(flip: str) -> None:
    sequences: list[Sequence] = [Masked(s.name, s.boxes) for s in make_dataset().sequences]
    plain = replace(SIAMATTN_PAIRS, colour_probability=0.0, blur_probability=0.0)
    config = replace(plain, **{flip: 0.5})
    geometry = get_geometry("siamattn-tiny")
    without, batch = (
        PairSampler(Gallery(sequences), geometry, 128, 0, config, masks=masks).batch(0)
        for masks in (False, True)
    )
    assert without.mask is None
    assert without.has_mask is None
    np.testing.assert_array_equal(batch.search, without.search)
    np.testing.assert_array_equal(batch.gt_box, without.gt_box)
    assert batch.mask is not None
    assert batch.has_mask is not None
    assert batch.mask.shape == (128, 127, 127)
    # In odd frames, of positive pairs.
    assert 32 < batch.has_mask.sum() < 96
    assert not (batch.has_mask & batch.negative).any()
    assert not batch.mask[~batch.has_mask].any()
    for mask, crop in zip(batch.mask[batch.has_mask], batch.search[batch.has_mask], strict=True):
        # A target is brighter than what is around it.
        painted = (crop[:2].max(axis=0) > 200).astype(np.uint8)
        near = cv2.dilate(painted, np.ones((9, 9), np.uint8)) > 0
        assert painted.sum() > 100
        assert mask[painted > 0].all()
        assert not (mask & ~near).any()
