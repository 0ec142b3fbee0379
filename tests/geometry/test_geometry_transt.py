from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import (
    Geometry,
    TransTGeometry,
    Window,
    get_geometry,
    iou,
    list_geometries,
    to_cxcywh,
)

box = st.tuples(*[st.floats(-2000, 2000)] * 2, *[st.floats(0.1, 2000)] * 2)


@given(box=box)
@settings(deadline=None)
def test_windows_grow_with_the_box_and_its_context(box: tuple[float, ...]) -> None:
    geometry = TransTGeometry()
    x, y, w, h = box
    for view, k in (
        (geometry.template_window(box), 2),
        (geometry.search_window(box, (640, 480)), 4),
    ):
        context = (k - 1) * (w + h) / 2
        assert view.side == math.ceil(math.sqrt((w + context) * (h + context)))
        assert (view.cx, view.cy) == pytest.approx((x + w / 2, y + h / 2), abs=1e-9)


def test_a_point_still_has_a_window() -> None:
    assert get_geometry("transt").search_window([5, 5, 0, 0], (640, 480)) == Window(5, 5, 1)


@given(box=box, size=st.tuples(st.integers(1, 900), st.integers(1, 900)))
@settings(deadline=None)
def test_limit_keeps_the_estimate_near_the_frame(
    box: tuple[float, ...], size: tuple[int, int]
) -> None:
    width, height = size
    cx, cy, w, h = to_cxcywh(box)
    limited = TransTGeometry().limit(box, size)
    expected = [
        min(max(cx, 0), width),
        min(max(cy, 0), height),
        min(max(w, 10), width),
        min(max(h, 10), height),
    ]
    np.testing.assert_allclose(to_cxcywh(limited), expected, atol=1e-9)
    np.testing.assert_allclose(TransTGeometry().limit(limited, size), limited, atol=1e-9)


def test_limit_leaves_a_good_estimate_alone() -> None:
    good = np.array([3.25, 4.5, 20.125, 30.0])
    np.testing.assert_array_equal(TransTGeometry().limit(good, (100, 80)), good)


def test_the_fill_colour_is_the_cut_mean() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 0], frame[0, 0, 1], frame[..., 2] = 255, 3, [[1, 2], [2, 2]]
    fill = TransTGeometry().fill_colour(frame)
    assert fill.dtype == np.uint8
    assert fill.tolist() == [255, 0, 1]  # 255, 0.75, 1.75


def test_geometries_are_found_by_name() -> None:
    assert {"transt", "transt-tiny"} <= set(list_geometries())
    tiny = get_geometry("transt-tiny")
    assert isinstance(tiny, Geometry)
    assert (tiny.template_size, tiny.search_size) == (48, 96)
    with pytest.raises(InvalidArgumentError, match=r"unknown geometry 'transtt'.*'transt'"):
        get_geometry("transtt")


def read_frame(root: Path, number: int) -> np.ndarray:
    return cv2.imread(str(root / "Crossing" / "img" / f"{number:04d}.jpg"))[..., ::-1]


def check_crop(crop: np.ndarray, golden: dict[str, Any]) -> None:
    size = golden["model"]
    assert crop.shape == (3, size, size)
    assert crop[0, 0, :8].tolist() == golden["crop_first8"]
    assert crop[1, size // 2, :8].tolist() == golden["crop_mid8"]
    assert crop.mean() == pytest.approx(golden["crop_mean"], abs=1e-9)


@pytest.mark.parametrize("name", ["transt", "slt_transt_tweaked"])
def test_crops_are_the_published_ones(shared: Path, real_sequences: Path, name: str) -> None:
    golden = json.loads((shared / "parity" / "transt_track.json").read_text())[name]
    geometry = get_geometry("transt")
    first = read_frame(real_sequences, 1)
    fill = geometry.fill_colour(first)
    assert fill.tolist() == [int(value) for value in golden[0]["channel_average"]]
    template = geometry.template_window(golden[0]["box"])
    assert [template.cx, template.cy] == golden[0]["template"]["pos"]
    assert template.side == golden[0]["template"]["size"]
    check_crop(geometry.crop(first, template, 128, fill), golden[0]["template"])
    for previous, row in itertools.pairwise(golden):
        view = geometry.search_window(previous["box"], (640, 480))
        assert [view.cx, view.cy] == pytest.approx(row["crop"]["pos"], abs=1e-4)
        # The published state is float32; where its side rounds up, so may ours not.
        assert abs(view.side - row["crop"]["size"]) <= 1
        exact = Window(*row["crop"]["pos"], int(row["crop"]["size"]))
        check_crop(
            geometry.crop(read_frame(real_sequences, row["frame"]), exact, 256, fill), row["crop"]
        )


@given(box=st.tuples(*[st.floats(20, 200)] * 2, *[st.floats(11, 60)] * 2))
@settings(deadline=None)
def test_the_box_sits_in_the_middle_of_its_windows(box: tuple[float, ...]) -> None:
    geometry = get_geometry("transt-tiny")
    for view in (geometry.template_window(box), geometry.search_window(box, (640, 480))):
        crop_box = view.to_crop(box)
        np.testing.assert_allclose(to_cxcywh(crop_box)[:2], 0.5, atol=1e-12)
        assert iou(view.to_frame(crop_box), box) == pytest.approx(1, abs=1e-9)
