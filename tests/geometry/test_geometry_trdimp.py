"""TrDiMP's windows, crops and initial samples."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import TrDiMPGeometry, Window, get_geometry
from slt_gym.geometry.trdimp import SteppedWindow, crop_float

GEOMETRY = TrDiMPGeometry()
BLACK = np.zeros(3, np.uint8)


def draw_frame(width: int, height: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_window_inside_the_frame_is_where_the_formula_says() -> None:
    # Mean side 30, area scale 6: 180 pixels; the middle pixel of an even window is left of it.
    window = GEOMETRY.search_window((300.0, 200.0, 25.0, 36.0), (1000, 800))
    assert (window.cx, window.cy, window.side) == (313.0, 218.0, 180)
    assert window.step == 1
    size = np.array([25.0, 36.0]) / 180
    crop = window.to_crop((300.0, 200.0, 25.0, 36.0))
    np.testing.assert_allclose(crop[2:], size)
    np.testing.assert_allclose(crop[:2] + size / 2, [0.5 - 0.5 / 180, 0.5], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-50, 300),
    y=st.floats(-50, 200),
    w=st.floats(2, 200),
    h=st.floats(2, 200),
    frame=st.tuples(st.integers(60, 400), st.integers(60, 300)),
)
def test_windows_stay_inside_as_far_as_they_fit(
    x: float, y: float, w: float, h: float, frame: tuple[int, int]
) -> None:
    window = GEOMETRY.search_window((x, y, w, h), frame)
    wanted = 6 * (w * h) ** 0.5
    assert window.side <= wanted + window.step
    assert window.side >= min(wanted, max(wanted / 1.5, min(frame))) - 1 - window.step
    low = np.array([window.cx, window.cy]) - window.side / 2
    high = low + window.side
    for axis in range(2):
        if window.side <= frame[axis] - window.step:
            assert low[axis] >= 0
            assert high[axis] <= frame[axis] + window.step
        else:  # about as much outside on either side
            assert abs(-low[axis] - (high[axis] - frame[axis])) <= 2 * window.step
    boxes = np.array([[x, y, w, h], [0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_allclose(window.to_frame(window.to_crop(boxes)), boxes, atol=1e-9)


def test_a_small_window_is_the_frames_own_pixels() -> None:
    frame = draw_frame(160, 120)
    window = GEOMETRY.window_at((70.0, 60.0), 96 / 352, (160, 120))
    assert (window.cx, window.cy, window.side) == (71.0, 61.0, 96)
    crop = crop_float(frame, window, 96)
    assert crop.dtype == np.float32
    np.testing.assert_array_equal(crop, frame[13:109, 23:119].transpose(2, 0, 1))


def test_the_border_is_repeated() -> None:
    frame = draw_frame(160, 120)
    window = GEOMETRY.template_window((2.0, 100.0, 20.0, 20.0))
    assert window.side == 240
    crop = crop_float(frame, window, 240)
    padded = cv2.copyMakeBorder(frame, 200, 200, 200, 200, cv2.BORDER_REPLICATE)
    left, top = round(window.cx - 120) + 200, round(window.cy - 120) + 200
    expected = padded[top : top + 240, left : left + 240].transpose(2, 0, 1)
    np.testing.assert_array_equal(crop, expected)


def test_resizing_has_half_pixel_centres() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:] = 6 * np.arange(40)[None, :, None]
    crop = crop_float(frame, SteppedWindow(20.0, 20.0, 20), 40)[0]
    inside = 6 * (10 + (np.arange(40) + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(crop[:, 1:-1], np.tile(inside, (40, 1))[:, 1:-1], atol=1e-3)
    assert crop[0, 0] == 60  # the window's border is repeated, not the frame read beyond it


def test_a_large_window_is_read_in_steps() -> None:
    frame = draw_frame(1600, 1200)
    window = GEOMETRY.search_window((701.0, 501.0, 160.0, 160.0), (1600, 1200))
    # 960 pixels for 352: every second one; the position 780, 580 is even.
    assert (window.step, window.side, window.offset) == (2, 960, (0, 0))
    crop = crop_float(frame, window, 480)
    top, left = round(window.cy - 480), round(window.cx - 480)
    expected = frame[top : top + 960 : 2, left : left + 960 : 2].transpose(2, 0, 1)
    np.testing.assert_array_equal(crop, expected)
    odd = GEOMETRY.search_window((700.0, 500.0, 160.0, 160.0), (1600, 1200))
    assert odd.offset == (1, 1)
    shifted = crop_float(frame, odd, 480)
    top, left = round(odd.cy - 480) + 1, round(odd.cx - 480) + 1
    expected = frame[top : top + 960 : 2, left : left + 960 : 2].transpose(2, 0, 1)
    np.testing.assert_array_equal(shifted, expected)


def test_the_environments_crop_is_the_float_crop_rounded() -> None:
    frame = draw_frame(160, 120)
    window = GEOMETRY.search_window((50.0, 40.0, 21.0, 33.0), (160, 120))
    exact = crop_float(frame, window, 352)
    crop = GEOMETRY.crop(frame, window, 352, BLACK)
    assert crop.dtype == np.uint8
    assert np.abs(crop - exact).max() <= 0.5
    out = np.empty((3, 352, 352), np.uint8)
    assert GEOMETRY.crop(frame, window, 352, BLACK, out) is out
    np.testing.assert_array_equal(out, crop)
    with pytest.raises(InvalidArgumentError, match=r"out has shape"):
        GEOMETRY.crop(frame, window, 352, BLACK, out[:, 1:])
    plain = Window(window.cx, window.cy, window.side)
    np.testing.assert_array_equal(GEOMETRY.crop(frame, plain, 352, BLACK), crop)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(0, 1e4)] * 2))
def test_limits_keep_boxes_trackable(box: tuple[float, float, float, float]) -> None:
    limited = GEOMETRY.limit(box, (360, 240))
    size = limited[2:]
    assert (size >= 1).all()
    assert (size <= [360, 240]).all()
    centre = limited[:2] + size / 2
    assert (centre >= 0.5 - 0.3 * size - 1e-6).all()
    assert (centre <= np.array([360, 240]) + 0.5 + 0.3 * size + 1e-6).all()
    np.testing.assert_allclose(GEOMETRY.limit(limited, (360, 240)), limited, atol=1e-9)
    window = GEOMETRY.search_window(limited, (360, 240))
    assert window.side >= 2


def test_a_box_within_the_limits_stays() -> None:
    np.testing.assert_allclose(GEOMETRY.limit((-5, 3, 20, 8), (360, 240)), (-5, 3, 20, 8))


@pytest.fixture(scope="module")
def patch() -> np.ndarray:
    return draw_frame(704, 704).astype(np.float32).transpose(2, 0, 1)


class TestInitialSamples:
    shifts = GEOMETRY.initial_shifts(np.random.default_rng(0).random((8, 2)))

    def test_shifts(self) -> None:
        fixed = [[0, 0], [105, 105], [-105, 105], [105, -105], [-105, -105]]
        assert self.shifts[:5].tolist() == fixed
        assert self.shifts.shape == (13, 2)
        assert GEOMETRY.initial_shifts(np.zeros((8, 2)))[5:].tolist() == [[-58, -58]] * 8
        draws = np.full((8, 2), [0.5 + 1.9 / 117, 0.5 - 1.9 / 117])  # cut towards zero
        assert GEOMETRY.initial_shifts(draws)[5:].tolist() == [[1, -1]] * 8

    def test_translations_move_the_content(self, patch: np.ndarray) -> None:
        samples = GEOMETRY.initial_samples(patch, self.shifts)
        assert samples.shape == (13, 3, 352, 352)
        np.testing.assert_array_equal(samples[0], patch[:, 176:528, 176:528])
        for sample, (down, right) in zip(samples[1:5], self.shifts[1:5], strict=True):
            top, left = 176 - down, 176 - right
            np.testing.assert_array_equal(sample, patch[:, top : top + 352, left : left + 352])

    def test_the_mirror_image(self, patch: np.ndarray) -> None:
        down, right = self.shifts[5]
        mirrored = patch[:, :, ::-1][:, 176 - down : 528 - down, 176 - right : 528 - right]
        samples = GEOMETRY.initial_samples(patch, self.shifts)
        np.testing.assert_array_equal(samples[5], mirrored)

    def test_blurs(self, patch: np.ndarray) -> None:
        samples = GEOMETRY.initial_samples(patch, np.zeros((13, 2), int))
        for sample, (vertical, horizontal) in zip(
            samples[6:9], ((3, 1), (1, 3), (2, 2)), strict=True
        ):
            place = np.arange(-6, 7)
            kernels = [
                np.where(np.abs(place) <= 2 * sigma, np.exp(-(place**2) / (2 * sigma**2)), 0)
                for sigma in (vertical, horizontal)
            ]
            kernel = np.outer(*(k / k.sum() for k in kernels))
            for row, column in ((0, 0), (100, 200), (351, 351)):
                y, x = 176 + row, 176 + column
                around = patch[:, y - 6 : y + 7, x - 6 : x + 7]
                expected = (around * kernel).sum(axis=(1, 2))
                np.testing.assert_allclose(sample[:, row, column], expected, rtol=1e-4)

    def test_rotations_turn_about_the_middle(self) -> None:
        rows, columns = np.mgrid[:704, :704] - 351.5
        ramp = np.stack([columns, rows, columns + rows]).astype(np.float32)
        samples = GEOMETRY.initial_samples(ramp, np.zeros((13, 2), int))
        rows, columns = rows[176:528, 176:528], columns[176:528, 176:528]
        for sample, degrees in zip(samples[9:], (10, -10, 45, -45), strict=True):
            angle = np.radians(degrees)
            # Counter-clockwise on the screen: what comes to a place lay clockwise of it.
            np.testing.assert_allclose(
                sample[0], np.cos(angle) * columns - np.sin(angle) * rows, atol=0.1
            )
            np.testing.assert_allclose(
                sample[1], np.sin(angle) * columns + np.cos(angle) * rows, atol=0.1
            )


def test_the_template_box_counts_from_the_rounded_centre() -> None:
    box = (205.0, 151.0, 17.0, 50.0)  # position 213, 175.5: rounded half to even, 176
    x, y, w, h = GEOMETRY.template_box(box) * 704
    scale = 6 * (17 * 50) ** 0.5 / 352
    np.testing.assert_allclose([w, h], [17 / scale, 50 / scale])
    np.testing.assert_allclose([x + w / 2, y + h / 2], [352, 352 - 0.5 / scale])


def test_the_tiny_geometry_is_alike() -> None:
    tiny = get_geometry("trdimp-tiny")
    assert isinstance(tiny, TrDiMPGeometry)
    assert tiny.shows_template_box
    shifts = tiny.initial_shifts(np.zeros((tiny.num_random_shifts, 2)))
    patch = np.zeros((3, tiny.template_size, tiny.template_size), np.float32)
    assert tiny.initial_samples(patch, shifts).shape == (7, 3, 96, 96)


def test_published_windows_of_a_real_sequence(shared: Path) -> None:
    golden = json.loads((shared / "parity" / "trdimp_track.json").read_text())
    rows: list[dict[str, Any]] = golden["slt_trdimp_tweaked"]
    for previous, row in itertools.pairwise(rows):
        scale = GEOMETRY.target_scale(previous["box"])
        assert scale == pytest.approx(previous["target_scale"], rel=1e-5)
        window = GEOMETRY.search_window(previous["box"], (360, 240))
        # Translations are whole cells of the window.
        cells = np.array(row["translation"]) / (16 * window.side / 352)
        np.testing.assert_allclose(cells, np.rint(cells), atol=1e-4)


box = st.tuples(st.floats(-50, 300), st.floats(-50, 200), st.floats(2, 150), st.floats(2, 150))


@settings(max_examples=60, deadline=None)
@given(box=box)
def test_the_template_box_is_that_of_the_template_window(box: tuple[float, ...]) -> None:
    window = GEOMETRY.template_window(box)
    assert abs(window.side - 2 * 6 * (box[2] * box[3]) ** 0.5) <= window.step
    difference = GEOMETRY.template_box(box) - window.to_crop(box)
    # Rounded centre and side: up to a step of pixels beside each other.
    assert np.abs(difference * window.side).max() <= 2 * window.step


@settings(max_examples=60, deadline=None)
@given(
    position=st.tuples(st.floats(-50, 250), st.floats(-50, 200)),
    scale=st.floats(0.02, 3),
    frame=st.tuples(st.integers(60, 300), st.integers(60, 200)),
)
def test_windows_read_every_step_of_the_frame(
    position: tuple[float, float], scale: float, frame: tuple[int, int]
) -> None:
    window = GEOMETRY.window_at(position, scale, frame)
    for index, length in zip(window.indices(frame), frame, strict=True):
        assert len(index) == window.side // window.step
        assert index.min() >= 0
        assert index.max() < length
        assert set(np.diff(index)) <= {0, window.step}  # 0: the border is repeated


@settings(max_examples=40, deadline=None)
@given(
    centre=st.tuples(st.integers(-40, 120), st.integers(-40, 100)),
    side=st.integers(1, 60),
    size=st.sampled_from([1, 16, 33]),
)
def test_a_crop_is_a_slice_of_the_frame_with_its_border_repeated(
    centre: tuple[int, int], side: int, size: int
) -> None:
    frame = draw_frame(88, 64)
    cx, cy = (c + side % 2 / 2 for c in centre)
    padded = cv2.copyMakeBorder(frame, 150, 150, 150, 150, cv2.BORDER_REPLICATE)
    top, left = int(cy - side / 2) + 150, int(cx - side / 2) + 150
    patch = padded[top : top + side, left : left + side].astype(np.float32)
    expected = patch if side == size else cv2.resize(patch, (size, size))
    crop = crop_float(frame, Window(cx, cy, side), size)
    np.testing.assert_array_equal(crop, expected.transpose(2, 0, 1))


@settings(max_examples=60, deadline=None)
@given(
    position=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    size=st.tuples(st.floats(0, 500), st.floats(0, 500)),
)
def test_limited_positions_are_near_the_frame(
    position: tuple[float, float], size: tuple[float, float]
) -> None:
    limited = GEOMETRY.limit_position(position, size, (360, 240))
    reach = 0.3 * np.array(size)
    assert (limited >= -reach).all()
    assert (limited <= np.array([360, 240]) + reach).all()
    free = (limited > -reach) & (limited < np.array([360, 240]) + reach)
    np.testing.assert_array_equal(limited[free], np.array(position)[free])


@settings(max_examples=60, deadline=None)
@given(w=st.floats(0.01, 500), h=st.floats(0.01, 500), factor=st.floats(0.1, 10))
def test_the_scale_goes_with_the_mean_side(w: float, h: float, factor: float) -> None:
    scale = GEOMETRY.target_scale((3, 4, w, h))
    assert scale == pytest.approx(6 * (w * h) ** 0.5 / 352)
    assert GEOMETRY.target_scale((0, 0, factor * w, factor * h)) == pytest.approx(factor * scale)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2), min_size=8, max_size=8))
def test_random_shifts_stay_within_their_range(draws: list[tuple[float, float]]) -> None:
    shifts = GEOMETRY.initial_shifts(draws)
    assert (np.abs(shifts[5:]) <= 352 / 3 / 2).all()
    # Such that every sample is cut from within the patch.
    assert (np.abs(shifts) <= (704 - 352) / 2).all()
