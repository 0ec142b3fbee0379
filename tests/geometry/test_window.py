from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import Window, crop_mask, crop_window, get_geometry
from slt_gym.geometry.window import mean_colour

FRAME = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
FILL = np.array([11, 99, 200], np.uint8)

window = st.builds(Window, cx=st.floats(-80, 140), cy=st.floats(-80, 120), side=st.integers(1, 90))


@given(window=window, box=st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(0, 500)] * 2))
@settings(deadline=None)
def test_crop_units_invert(window: Window, box: tuple[float, ...]) -> None:
    np.testing.assert_allclose(window.to_frame(window.to_crop(box)), box, rtol=0, atol=1e-8)


@given(window=window)
@settings(deadline=None)
def test_the_window_itself_is_the_unit_square(window: Window) -> None:
    half = window.side / 2
    square = [window.cx - half, window.cy - half, window.side, window.side]
    np.testing.assert_allclose(window.to_crop(square), [0, 0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(window.to_frame([0, 0, 1, 1]), square, atol=1e-9)
    # The pixels start within one pixel of the corner that crop units are measured from.
    x0, y0 = window.origin
    assert abs(x0 - square[0]) <= 1
    assert abs(y0 - square[1]) <= 1


def test_many_boxes_convert_at_once() -> None:
    boxes = np.random.default_rng(0).uniform(0, 50, (3, 5, 4))
    view = Window(20.5, 30.0, 16)
    together = view.to_crop(boxes)
    assert together.dtype == np.float64
    for i, j in np.ndindex(3, 5):
        np.testing.assert_array_equal(together[i, j], view.to_crop(boxes[i, j]))


def pad_slice_resize(view: Window, size: int, margin: int = 300) -> np.ndarray:
    """Crop the published way: pad the whole frame far enough, slice, resize."""
    padded = np.empty((40 + 2 * margin, 56 + 2 * margin, 3), np.uint8)
    padded[:] = FILL
    padded[margin:-margin, margin:-margin] = FRAME
    x0 = math.floor(view.cx - (view.side + 1) / 2 + 0.5) + margin
    y0 = math.floor(view.cy - (view.side + 1) / 2 + 0.5) + margin
    patch = padded[y0 : y0 + view.side, x0 : x0 + view.side]
    if view.side != size:
        patch = cv2.resize(patch, (size, size))
    return patch.transpose(2, 0, 1)


@given(window=window, size=st.sampled_from([1, 16, 33, 64]))
@settings(max_examples=300, deadline=None)
def test_a_crop_is_a_slice_of_the_padded_frame(window: Window, size: int) -> None:
    crop = crop_window(FRAME, window, size, FILL)
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, pad_slice_resize(window, size))


@given(
    window=st.builds(Window, cx=st.floats(0, 56), cy=st.floats(0, 40), side=st.integers(90, 1100)),
    size=st.sampled_from([1, 7, 32, 48]),
)
@settings(max_examples=60, deadline=None)
def test_a_huge_window_is_a_slice_of_the_padded_frame(window: Window, size: int) -> None:
    expected = pad_slice_resize(window, size, margin=1100)
    np.testing.assert_array_equal(crop_window(FRAME, window, size, FILL), expected)


def test_pages_of_a_huge_window_that_nothing_reads_are_never_made() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    window = Window(28, 20, 8_000)  # 192 MB
    assert (crop_window(FRAME, window, 64, FILL).reshape(3, -1).T == FILL).all(axis=1).mean() > 0.99
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB


@given(seed=st.integers(0, 1000), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(deadline=None)
def test_the_mean_colour_is_numpys(seed: int, height: int, width: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    frame = np.where(seed % 3, frame, frame[:1, :1])  # whole numbers are a mean's edge
    frame.flags.writeable = False
    for view in (frame, frame[:, ::-1], frame[::2]):
        expected = np.mean(view, axis=(0, 1)).astype(np.uint8)
        np.testing.assert_array_equal(mean_colour(view), expected)


@pytest.mark.parametrize("size", [64, 20])
@pytest.mark.parametrize(
    "window",
    [Window(28, 20, 20), Window(0, 0, 20), Window(500, 500, 20), Window(28, 20, 300)],
    ids=["inside", "corner", "outside", "around"],
)
def test_a_crop_can_be_written_in_place(window: Window, size: int) -> None:
    batch = np.zeros((2, 3, size, size), np.uint8)
    out = batch[1]
    assert crop_window(FRAME, window, size, FILL, out) is out
    np.testing.assert_array_equal(batch[1], crop_window(FRAME, window, size, FILL))
    assert not batch[0].any()


def test_a_crop_is_written_to_any_array() -> None:
    view = Window(28, 20, 20)
    expected = crop_window(FRAME, view, 16, FILL)
    for out in (np.zeros((16, 16, 3), np.uint8).transpose(2, 0, 1), np.zeros((3, 16, 16))):
        assert crop_window(FRAME, view, 16, FILL, out) is out
        np.testing.assert_array_equal(out, expected)


def test_a_crop_does_not_share_the_frames_memory() -> None:
    frame = FRAME.copy()
    crop = crop_window(frame, Window(28, 20, 20), 20, FILL)
    frame[:] = 0
    assert crop.any()


def test_a_window_outside_the_frame_shows_the_fill_colour() -> None:
    crop = crop_window(FRAME, Window(-400, 20, 30), 12, FILL)
    assert (crop == FILL[:, None, None]).all()


def test_a_wrong_output_array_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"\(3, 8, 8\): needed is \(3, 16, 16\)"):
        crop_window(FRAME, Window(20, 20, 16), 16, FILL, np.zeros((3, 8, 8), np.uint8))


MASK = FRAME[..., 0] > 200


@given(view=window, size=st.integers(1, 64))
@settings(deadline=None)
def test_masks_are_cropped_the_published_way(view: Window, size: int) -> None:
    x0, y0 = view.origin
    inside = x0 >= 0 and y0 >= 0 and x0 + view.side <= 56 and y0 + view.side <= 40
    margin = 300
    padded = np.pad(MASK, margin).astype(np.float32 if inside else np.uint8)
    patch = padded[y0 + margin :, x0 + margin :][: view.side, : view.side]
    crop = crop_mask(MASK, view, size)
    assert crop.dtype == bool
    np.testing.assert_array_equal(crop, cv2.resize(patch, (size, size)) > 0)
    np.testing.assert_array_equal(crop_mask(MASK.astype(np.float32), view, size), crop)
    np.testing.assert_array_equal(get_geometry("siamattn").crop_mask(MASK, view, size), crop)


def test_a_mask_has_the_pixels_of_its_crop() -> None:
    frame = np.repeat(MASK[..., None], 3, axis=2).astype(np.uint8)
    for view in (Window(28, 20, 20), Window(3, 38, 17), Window(-400, 20, 30)):
        seen = crop_window(frame, view, view.side, np.zeros(3, np.uint8))[0]
        np.testing.assert_array_equal(crop_mask(MASK, view, view.side), seen > 0)


def test_geometries_of_trackers_without_masks_cut_none() -> None:
    with pytest.raises(InvalidArgumentError, match="TransTGeometry cuts no masks"):
        get_geometry("transt").crop_mask(MASK, Window(28, 20, 20), 8)
