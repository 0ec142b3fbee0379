"""Augmented clips: boxes and pixels move together, and the same draw gives the same frames."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from distributions import assert_counts, assert_share
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.data import AugmentationConfig, Clip, Sequence, augment_clip
from slt_gym.data.augmentation import _draw_window
from slt_gym.data.transform import (
    COLOUR_VARIATION,
    FrameTransform,
    blur_cross,
    draw_blur,
    draw_colour,
    shift_colour,
)
from slt_gym.errors import InvalidArgumentError

W, H = 120, 90
STILL = AugmentationConfig(shift=0, scale=0, colour_probability=0, blur_probability=0)
PADDING = AugmentationConfig(mode="padding")


class Rectangles(Sequence):
    """A white rectangle on grey noise, exactly at its box."""

    def __init__(self, boxes, visible=None) -> None:
        super().__init__("rectangles", boxes, visible)

    def read(self, t: int) -> np.ndarray:
        frame = np.random.default_rng(t).integers(0, 60, (H, W, 3), np.uint8)
        x, y, w, h = self.boxes[t].astype(int)
        frame[y : y + h, x : x + w] = 255
        return frame


def locate(frame: np.ndarray) -> np.ndarray:
    """Return the box of the white pixels."""
    rows, columns = np.nonzero(frame[..., 0] > 155)
    x, y = columns.min(), rows.min()
    return np.array([x, y, columns.max() + 1 - x, rows.max() + 1 - y], float)


def make_clip(count: int = 6, padding: int = 0, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    size = rng.integers(8, 20, (count, 2))
    corner = rng.integers([20, 20], [W - 45, H - 45], (count, 2))
    sequence = Rectangles(np.column_stack([corner, size]))
    frames = np.r_[np.arange(count), np.full(padding, count - 1)]
    return Clip(sequence, frames, 0, padding)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shift=st.floats(0, 0.3),
    scale=st.floats(0, 0.5),
    flip=st.sampled_from([0.0, 1.0]),
    mode=st.sampled_from(["clip", "padding"]),
)
def test_pixels_follow_the_boxes(seed, shift, scale, flip, mode) -> None:
    config = replace(STILL, mode=mode, shift=shift, scale=scale, flip_probability=flip)
    clip = augment_clip(make_clip(3, 3, seed), np.random.default_rng(seed), config)
    for i in range(len(clip)):
        found, box = locate(clip.read(i)), clip.boxes[i]
        np.testing.assert_allclose(found[:2], box[:2], atol=1)
        np.testing.assert_allclose(found[:2] + found[2:], box[:2] + box[2:], atol=1)
        # A target inside the frame stays inside.
        assert (box[:2] >= -1e-6).all()
        assert (box[:2] + box[2:] <= np.array([W, H]) + 1e-6).all()
    np.testing.assert_allclose(locate(clip.read_template()), clip.template_box, atol=1)


def test_nothing_to_do_leaves_the_same_bits() -> None:
    clip = make_clip()
    still = augment_clip(clip, np.random.default_rng(0), STILL)
    np.testing.assert_array_equal(still.boxes, clip.boxes)
    np.testing.assert_array_equal(still.template_box, clip.template_box)
    np.testing.assert_array_equal(still.read_template(), clip.read_template())
    whole = FrameTransform((W, H), window=(0.0, 0.0, W, H), colour=(0.0, 0.0, 0.0))
    for i in range(len(clip)):
        np.testing.assert_array_equal(still.read(i), clip.read(i))
        np.testing.assert_array_equal(whole.apply(clip.read(i)), clip.read(i))


def test_a_flip_is_its_own_inverse() -> None:
    flip = FrameTransform((W, H), flip=True)
    clip = make_clip()
    np.testing.assert_array_equal(flip.apply(flip.apply(clip.read(1))), clip.read(1))
    np.testing.assert_allclose(flip.move(flip.move(clip.boxes)), clip.boxes)


def test_one_draw_serves_the_whole_clip() -> None:
    clip = make_clip(padding=3)
    config = AugmentationConfig(colour_probability=1, blur_probability=1)
    changed = augment_clip(clip, np.random.default_rng(3), config)
    (transform,) = {*changed.transforms, changed.template_transform}
    assert len(changed.transforms) == len(clip)
    assert None not in (transform.window, transform.colour, transform.blur)
    assert changed.padding == 3  # Not one frame more is real.
    np.testing.assert_array_equal(changed.read(2), transform.apply(clip.read(2)))
    assert not np.array_equal(changed.read(2), clip.read(2))


def test_padding_is_drawn_anew_from_the_last_real_frame() -> None:
    clip = make_clip(3, padding=5)
    changed = augment_clip(clip, np.random.default_rng(3), PADDING)
    assert changed.transforms[:3] == (None, None, None)
    assert changed.template_transform is None
    assert len(set(changed.transforms[3:])) == 5
    assert (changed.padding, changed.visible.all()) == (0, True)
    for i in range(3):
        np.testing.assert_array_equal(changed.read(i), clip.read(i))
    for i in range(3, 8):
        np.testing.assert_array_equal(changed.read(i), changed.transforms[i].apply(clip.read(2)))
        np.testing.assert_allclose(changed.boxes[i], changed.transforms[i].move(clip.boxes[2]))


def test_padding_stays_where_there_is_nothing_to_draw_from() -> None:
    whole = make_clip()
    assert augment_clip(whole, np.random.default_rng(0), PADDING) is whole
    boxes = np.tile([30.0, 30.0, 10.0, 10.0], (2, 1))
    gone = Clip(Rectangles(boxes, [True, False]), np.array([0, 1, 1, 1]), 0, 2)
    assert augment_clip(gone, np.random.default_rng(0), PADDING) is gone


def test_a_mirrored_clip_is_mirrored_in_all_frames() -> None:
    config = replace(PADDING, flip_probability=1.0)
    clip = augment_clip(make_clip(3, padding=3), np.random.default_rng(0), config)
    assert all(transform.flip for transform in (*clip.transforms, clip.template_transform))


def test_frames_may_be_read_in_any_order_by_any_thread() -> None:
    config = AugmentationConfig(colour_probability=1, blur_probability=1, mode="padding")
    clip = augment_clip(make_clip(2, padding=6), np.random.default_rng(5), config)
    again = augment_clip(make_clip(2, padding=6), np.random.default_rng(5), config)
    with ThreadPoolExecutor(3) as pool:
        frames = dict(zip([7, 3, 0, 5], pool.map(again.read, [7, 3, 0, 5]), strict=True))
    np.testing.assert_array_equal(again.boxes, clip.boxes)
    for i, frame in frames.items():
        np.testing.assert_array_equal(frame, clip.read(i))


# The published constants


def test_the_windows_distribution() -> None:
    rng = np.random.default_rng(0)
    box = np.array([[55.0, 40.0, 12.0, 9.0]])
    windows = np.array([_draw_window(box, (W, H), rng, PADDING) for _ in range(10_000)])
    scale = windows[:, 2:] / [W, H]
    for axis in (0, 1):
        assert_counts(np.histogram(scale[:, axis], 10, (0.8, 1.2))[0], [1] * 10)
    assert abs(np.corrcoef(scale.T)[0, 1]) < 0.04
    centre = windows[:, :2] + windows[:, 2:] / 2 - [W / 2, H / 2]
    reach = np.minimum(0.1 * windows[:, 2:].mean(axis=1), 12 + 9)
    for axis in (0, 1):
        assert_counts(np.histogram(centre[:, axis] / reach, 10, (-1, 1))[0], [1] * 10)


def test_small_targets_shift_little_and_large_ones_stay_inside() -> None:
    rng, wild = np.random.default_rng(0), AugmentationConfig(shift=1.0, scale=0.9)
    for _ in range(500):
        x, y, w, h = _draw_window(np.array([[60.0, 45.0, 2.0, 3.0]]), (W, H), rng, wild)
        assert abs(x + w / 2 - W / 2) <= 5 + 1e-9
        x, y, w, h = _draw_window(np.array([[5.0, 5.0, 100.0, 80.0]]), (W, H), rng, wild)
        assert w >= 100 - 1e-9
        assert h >= 80 - 1e-9
        assert x <= 5 + 1e-9
        assert y <= 5 + 1e-9
        assert x + w >= 105 - 1e-9
        assert y + h >= 85 - 1e-9


def test_the_shares_of_colour_blur_and_flip() -> None:
    config = AugmentationConfig(flip_probability=0.25)
    rng, clip = np.random.default_rng(0), make_clip(1, padding=2000)
    clip = augment_clip(clip, rng, replace(config, mode="padding"))
    drawn = clip.transforms[1:]
    assert_share([t.colour is not None for t in drawn], 0.5)
    assert_share([t.blur is not None for t in drawn], 0.2)
    flips = [augment_clip(make_clip(1), rng, config).transforms[0].flip for _ in range(400)]
    assert_share(flips, 0.25)


def test_the_blurs_distribution() -> None:
    rng = np.random.default_rng(0)
    blurs = np.array([draw_blur(rng) for _ in range(10_000)])
    sides = np.arange(5, 46, 2)
    assert set(blurs[:, 0]) == set(sides)
    assert_counts(np.bincount(blurs[:, 0].astype(int))[sides], [1] * 21)
    assert_counts(np.histogram(blurs[:, 1], 10, (0, 1))[0], [1] * 10)


def test_the_colours_distribution() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_colour(rng) for _ in range(20_000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.3)
    np.testing.assert_allclose(np.cov(drawn.T), COLOUR_VARIATION @ COLOUR_VARIATION.T, atol=1.5)


def test_colours_are_taken_off_rounded_and_cut() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    shifted = shift_colour(image, (10.4, -3.6, 0.0))
    expected = np.clip(np.rint(image - np.array([10.4, -3.6, 0.0])), 0, 255)
    np.testing.assert_array_equal(shifted, expected)


@pytest.mark.parametrize(("side", "vertical"), [(5, 0.3), (21, 1.0), (45, 0.0)])
def test_the_blur_is_a_cross(side: int, vertical: float) -> None:
    image = make_clip().read(0)
    kernel = np.zeros((side, side))
    kernel[:, side // 2] += vertical / side
    kernel[side // 2] += (1 - vertical) / side
    expected = cv2.filter2D(image.astype(np.float64), -1, kernel)
    np.testing.assert_allclose(blur_cross(image, side, vertical), expected, atol=1.01)


def test_masks_move_with_the_frame() -> None:
    box = np.array([40.0, 30.0, 20.0, 16.0])
    mask = np.zeros((H, W), np.float32)
    mask[30:46, 40:60] = 1
    transform = FrameTransform((W, H), window=(12.0, 7.0, 70.0, 60.0), flip=True)
    moved = transform.apply_mask(mask)
    assert moved.dtype == np.float32
    assert np.mean((moved > 0) & (moved < 1)) > 0  # soft at the edges
    found = locate(moved[..., None] * 255)
    np.testing.assert_allclose(found, transform.move(box), atol=1)
    far = FrameTransform((W, H), window=(-W, -H, 3 * W, 3 * H))
    assert far.apply_mask(np.ones((H, W), np.float32))[0, 0] == 0  # outside the frame
    corner = far.apply(np.full((H, W, 3), 77, np.uint8))[0, 0]
    assert corner.tolist() == [77] * 3  # the frame's mean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "all"}, "unknown mode of augmentation 'all': accepted are clip, padding"),
        ({"shifts": 1}, "unknown option of augmentation 'shifts': .*mean 'shift'"),
        ({"shift": -1}, "shift=-1 of augmentation is out of range"),
        ({"scale": "big"}, "scale='big' .* 0 to 1"),
        ({"flip_probability": True}, "flip_probability=True"),
        ({"blur_probability": float("nan")}, "blur_probability=nan"),
        ({"max_stride": 0}, "max_stride=0 .* from 1 up"),
        ({"largest_blur": 4.5}, "largest_blur=4.5 .* from 5 up"),
    ],
)
def test_wrong_configs(options: dict, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        AugmentationConfig.from_options(options)
