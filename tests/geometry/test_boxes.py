from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.geometry import from_corners, from_cxcywh, iou, is_valid, to_corners, to_cxcywh
from slt_gym.geometry.boxes import keep_inside

coordinate = st.floats(-1e4, 1e4)
length = st.floats(0, 1e4)
box = st.tuples(coordinate, coordinate, length, length)
pixel_box = st.tuples(*[st.integers(-3, 12)] * 2, *[st.integers(0, 12)] * 2)


@given(a=box, b=box)
@settings(deadline=None)
def test_iou_is_symmetric_and_bounded(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    assert 0 <= iou(a, b) <= 1
    assert iou(a, b) == iou(b, a)


@given(a=st.tuples(coordinate, coordinate, st.floats(0.1, 1e4), st.floats(0.1, 1e4)))
@settings(deadline=None)
def test_iou_of_a_box_with_itself_is_one(a: tuple[float, ...]) -> None:
    # (x + w) - x rounds in its last digits.
    assert iou(a, a) == pytest.approx(1, abs=1e-9)


@given(a=pixel_box, b=pixel_box)
@settings(deadline=None)
def test_iou_counts_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    canvas = np.zeros((2, 30, 30), bool)
    for layer, (x, y, w, h) in zip(canvas, (a, b), strict=True):
        layer[y + 3 : y + 3 + h, x + 3 : x + 3 + w] = True
    union = np.logical_or(*canvas).sum()
    expected = np.logical_and(*canvas).sum() / union if union else 0.0
    assert iou(a, b) == pytest.approx(expected, abs=1e-12)


@given(
    a=box,
    position=st.integers(0, 3),
    wrong=st.sampled_from([np.nan, np.inf, -np.inf]),
)
@settings(deadline=None)
def test_iou_of_a_broken_box_is_zero(a: tuple[float, ...], position: int, wrong: float) -> None:
    broken = list(a)
    broken[position] = wrong
    assert iou(a, broken) == 0
    assert iou(broken, a) == 0
    assert iou(broken, broken) == 0


def test_iou_of_negative_sizes_is_zero() -> None:
    assert iou([5, 5, -5, -5], [0, 0, 5, 5]) == 0
    assert iou([5, 0, -5, 5], [0, 0, 5, 5]) == 0


def test_iou_broadcasts() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [5, 5, 1, 1]])
    np.testing.assert_allclose(iou(a, [0, 0, 2, 2]), [1, 0.25, 0])
    assert iou(a[:, None], a[None]).shape == (3, 3)
    assert iou(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
    assert iou(np.float32([0, 0, 2, 2]), np.int64([1, 0, 2, 2])) == pytest.approx(1 / 3)


@given(a=box)
@settings(deadline=None)
def test_conversions_invert(a: tuple[float, ...]) -> None:
    for there, back in ((to_cxcywh, from_cxcywh), (to_corners, from_corners)):
        np.testing.assert_allclose(back(there(a)), a, rtol=0, atol=1e-10)


def test_conversions_are_the_formulas() -> None:
    boxes = np.array([[10.0, 20.0, 4.0, 6.0], [-1.0, -2.0, 3.0, 0.0]])
    np.testing.assert_array_equal(to_cxcywh(boxes), [[12, 23, 4, 6], [0.5, -2, 3, 0]])
    np.testing.assert_array_equal(to_corners(boxes), [[10, 20, 14, 26], [-1, -2, 2, -2]])
    assert to_cxcywh(boxes.reshape(1, 2, 4)).shape == (1, 2, 4)


def test_validity_is_finite_and_positive() -> None:
    boxes = [
        [0, 0, 1, 1],
        [-5, -5, 0.1, 0.1],
        [0, 0, 0, 1],
        [0, 0, 1, -1],
        [np.nan, 0, 1, 1],
        [0, 0, np.inf, 1],
    ]
    assert is_valid(boxes).tolist() == [True, True, False, False, False, False]
    assert is_valid(boxes[0])


@given(box=st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4))
def test_validity_of_any_numbers(box: tuple[float, ...]) -> None:
    expected = all(map(math.isfinite, box)) and box[2] > 0 and box[3] > 0
    assert bool(is_valid(box)) == expected
    assert is_valid([box, box]).tolist() == [expected] * 2


@given(
    box=box,
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    min_size=st.floats(0.5, 50),
)
@settings(deadline=None)
def test_boxes_kept_inside(box: tuple[float, ...], size: tuple[int, int], min_size: float) -> None:
    kept = to_cxcywh(keep_inside(box, size, min_size))
    limit = np.array(size)
    assert (kept[:2] >= -1e-9).all()
    assert (kept[:2] <= limit + 1e-9).all()
    assert (kept[2:] <= limit + 1e-9).all()
    assert (kept[2:] >= np.minimum(min_size, limit) - 1e-9).all()
    np.testing.assert_allclose(
        to_cxcywh(keep_inside(from_cxcywh(kept), size, min_size)), kept, atol=1e-9
    )


wild = st.floats(-1e4, 1e4) | st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e300, -3.0])


@given(a=st.tuples(*[wild] * 4) | box, b=st.tuples(*[wild] * 4) | box)
@settings(deadline=None)
def test_iou_of_one_pair_is_that_of_many(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    with np.errstate(over="ignore"):
        assert iou(a, b) == iou([a], [b])[0]
    assert isinstance(iou(a, b), np.float64)
