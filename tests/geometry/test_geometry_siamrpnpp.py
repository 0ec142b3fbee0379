from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.geometry import SiamRPNGeometry, get_geometry, to_cxcywh

box = st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(1, 400)] * 2)


@given(box=box)
@settings(deadline=None)
def test_windows_have_rounded_sides_and_exact_units(box: tuple[float, ...]) -> None:
    x, y, w, h = box
    geometry = SiamRPNGeometry()
    s_z = math.sqrt((w + 0.5 * (w + h)) * (h + 0.5 * (w + h)))
    for view, side in (
        (geometry.template_window(box), s_z),
        (geometry.search_window(box, (640, 480)), s_z * 255 / 127),
    ):
        assert view.unit == pytest.approx(side)
        assert view.side == round(view.unit)
        assert (view.cx, view.cy) == pytest.approx((x + w / 2, y + h / 2))
        # The window's centre is the centre of the crop units, whatever the rounding.
        np.testing.assert_allclose(to_cxcywh(view.to_crop(box))[:2], 0.5, atol=1e-9)
        np.testing.assert_allclose(view.to_crop(box)[2:] * side, [w, h])
        np.testing.assert_allclose(view.to_frame(view.to_crop(box)), box, atol=1e-8)


@given(box=box)
@settings(deadline=None)
def test_units_may_start_at_the_rounded_corner(box: tuple[float, ...]) -> None:
    view = replace(SiamRPNGeometry(), rounded_corner=True).search_window(box, (640, 480))
    corner = view.to_frame([0, 0, 1, 1])
    np.testing.assert_allclose(corner[:2], [view.cx - view.side / 2, view.cy - view.side / 2])
    np.testing.assert_allclose(corner[2:], view.unit)
    np.testing.assert_allclose(view.to_frame(view.to_crop(box)), box, atol=1e-8)


def test_a_point_still_has_a_window() -> None:
    for name in ("siamrpnpp", "siamattn", "siamrpnpp-tiny", "siamattn-tiny"):
        geometry = get_geometry(name)
        assert geometry.search_window([5, 5, 0, 0], (64, 48)).side == 1
        assert geometry.template_window([5, 5, 0, 0]).side == 1


def test_both_crops_show_the_target_at_one_scale() -> None:
    for name in ("siamrpnpp", "siamattn-tiny"):
        geometry = get_geometry(name)
        template = geometry.template_window([50, 40, 30, 60])
        search = geometry.search_window([50, 40, 30, 60], (200, 200))
        assert template.unit / geometry.template_size == pytest.approx(
            search.unit / geometry.search_size
        )


def test_limit_keeps_the_estimate_near_the_frame() -> None:
    limited = SiamRPNGeometry().limit([-300, 20, 4, 900], (320, 240))
    np.testing.assert_allclose(to_cxcywh(limited), [0, 240, 10, 240])


def test_the_padding_is_the_mean_colour_cut_to_whole_numbers() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0] = [255, 7, 3]
    assert SiamRPNGeometry().fill_colour(frame).tolist() == [63, 1, 0]


@given(
    box=st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(0, 1e4)] * 2),
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
@settings(deadline=None)
def test_limited_estimates_stay_limited(box: tuple[float, ...], size: tuple[int, int]) -> None:
    geometry = SiamRPNGeometry()
    limited = geometry.limit(box, size)
    cx, cy, w, h = to_cxcywh(limited)
    assert -1e-9 <= cx <= size[0] + 1e-9
    assert -1e-9 <= cy <= size[1] + 1e-9
    assert min(10, size[0]) - 1e-9 <= w <= size[0] + 1e-9
    assert min(10, size[1]) - 1e-9 <= h <= size[1] + 1e-9
    np.testing.assert_allclose(geometry.limit(limited, size), limited, atol=1e-9)
    assert geometry.search_window(limited, size).side >= 1
