"""Outlines filled and run lengths decoded, against cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slt_gym.data.augmentation import AugmentationConfig, draw_order
from slt_gym.data.clip import Clip
from slt_gym.data.masks import decode_compressed_runs, decode_runs, fill_mask, fill_outlines
from slt_gym.data.mixture import MixtureDataset
from slt_gym.data.synthetic import SyntheticDataset
from slt_gym.data.transform import FrameTransform


def rectangle(x: float, y: float, w: float, h: float) -> np.ndarray:
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])


def test_whole_pixels_inside_an_outline_are_the_mask() -> None:
    expected = np.zeros((12, 16), bool)
    expected[2:8, 3:10] = True
    np.testing.assert_array_equal(fill_mask([rectangle(3, 2, 7, 6)], (16, 12)), expected)
    # A pixel counts from one half on, to a quarter.
    np.testing.assert_array_equal(fill_mask([rectangle(2.85, 2.15, 7.3, 5.7)], (16, 12)), expected)
    np.testing.assert_array_equal(fill_mask([rectangle(3.15, 1.85, 6.7, 6.3)], (16, 12)), expected)


def test_outlines_unite_and_end_at_the_frame() -> None:
    expected = np.zeros((12, 16), bool)
    expected[:4, :5] = expected[2:6, 3:8] = expected[9:, 14:] = True
    outlines = [rectangle(-3, -2, 8, 6), rectangle(3, 2, 5, 4), rectangle(14, 9, 90, 90)]
    np.testing.assert_array_equal(fill_mask(outlines, (16, 12)), expected)
    assert not fill_mask([rectangle(20, 2, 5, 5)], (16, 12)).any()


def test_a_triangle_covers_half_of_its_square() -> None:
    triangle = np.array([[0.0, 0], [64, 0], [0, 64]])
    mask = fill_mask([triangle], (64, 64))
    rows, columns = np.indices((64, 64))
    inside = rows + columns
    assert mask[inside < 62].all()
    assert not mask[inside > 64].any()
    coverage = fill_outlines([triangle], (0, 0, 64, 64))
    assert coverage.mean() / 255 == pytest.approx(0.5, abs=0.01)
    part = fill_outlines([triangle], (20, 10, 40, 30))
    np.testing.assert_array_equal(coverage[10:30, 20:40], part)


def test_runs_are_outside_and_inside_by_turns() -> None:
    assert decode_runs([2, 3, 1], 8).tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert decode_runs([0, 2, 1, 1], 4).tolist() == [1, 1, 0, 1]
    assert decode_runs([], 2).tolist() == [0, 0]
    for runs in ([3, 2], [5, -1]):
        with pytest.raises(ValueError, match="do not fit into 4"):
            decode_runs(runs, 4)


def test_compressed_runs_by_hand() -> None:
    # 6, 1; 40 in two characters; 4 as 3 more than 1; 5 as -35, of two characters, from 40.
    assert decode_compressed_runs("61X13mN").tolist() == [6, 1, 40, 4, 5]
    assert decode_compressed_runs("").tolist() == []
    for text in ("6 1", "6~", "X"):
        with pytest.raises(ValueError, match="compressed runs"):
            decode_compressed_runs(text)


def compress(runs: list[int]) -> str:
    """Write runs as COCO does."""
    text = ""
    for i, run in enumerate(runs):
        number, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            code, number = number & 31, number >> 5
            more = number != (-1 if code & 16 else 0)
            text += chr(48 + code + 32 * more)
    return text


@given(st.lists(st.integers(0, 2**20), max_size=12))
def test_compressed_runs_come_back(runs: list[int]) -> None:
    assert decode_compressed_runs(compress(runs)).tolist() == runs


def test_what_wraps_sequences_hands_masks_on() -> None:
    video = SyntheticDataset(num_sequences=1, num_frames=8, width=96, height=80)
    sequence = video[0]
    mixture = MixtureDataset([video])
    np.testing.assert_array_equal(mixture[0].read_mask(3), sequence.read_mask(3))
    config = AugmentationConfig(reverse_probability=1.0)
    turned, numbers = draw_order(sequence, np.random.default_rng(0), 4, config)
    assert numbers[1] == 6
    np.testing.assert_array_equal(turned.read_mask(1), sequence.read_mask(6))
    mirror = FrameTransform((96, 80), flip=True)
    clip = Clip(sequence, np.array([0, 5]), 0, transforms=(None, mirror))
    masks = [clip.read_mask(i) for i in range(2)]
    assert [mask.dtype for mask in masks if mask is not None] == [np.float32] * 2
    np.testing.assert_array_equal(masks[0], sequence.read_mask(0))
    np.testing.assert_array_equal(masks[1], sequence.read_mask(5)[:, ::-1])
