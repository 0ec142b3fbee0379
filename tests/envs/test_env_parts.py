"""Actions, rewards, packed infos and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from slt_gym.envs import action_to_box, box_to_action, draw_overlay
from slt_gym.envs.infos import pack_infos
from slt_gym.envs.rewards import final_reward, frame_reward, success_auc
from slt_gym.geometry import Window, to_cxcywh

INSIDE = st.floats(-1, 1, width=32)


@given(arrays(np.float32, array_shapes(max_dims=2).map(lambda s: (*s, 4)), elements=INSIDE))
def test_actions_and_boxes_convert_both_ways(action: np.ndarray) -> None:
    box = action_to_box(action)
    np.testing.assert_allclose(to_cxcywh(box)[..., :2], 0.5 + action[..., :2], atol=1e-12)
    np.testing.assert_allclose(box[..., 2:], 1.0 + action[..., 2:], atol=1e-12)
    again = box_to_action(box)
    assert again.dtype == np.float32
    assert again.shape == action.shape
    np.testing.assert_allclose(again, action, atol=1e-6)


def test_far_boxes_become_actions_inside_the_space() -> None:
    actions = box_to_action([[5.0, -7.0, 9.0, 0.1], [0.0, 0.0, 1.0, 1.0]])
    assert np.abs(actions).max() == 1.0
    np.testing.assert_array_equal(actions[1], 0)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [(0.0, 0), (1e-9, 1 / 21), (0.5, 10 / 21), (0.51, 11 / 21), (1, 20 / 21)],
)
def test_success_auc_counts_thresholds_exceeded(overlap: float, expected: float) -> None:
    assert success_auc(overlap) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_rewards_add_up_to_the_metric(overlaps: list[float]) -> None:
    plot = [np.mean(np.array(overlaps) > 0.05 * k) for k in range(21)]
    count = len(overlaps)
    sums = {
        kind: sum(frame_reward(kind, overlap, count) for overlap in overlaps)
        for kind in ("auc", "overlap", "final_auc")
    }
    assert sums["auc"] == pytest.approx(np.mean(plot))
    assert sums["overlap"] == pytest.approx(np.mean(overlaps))
    assert sums["final_auc"] == 0.0
    assert final_reward("final_auc", 0.7) == 0.7
    assert final_reward("auc", 0.7) == final_reward("overlap", 0.7) == 0.0


def pack_as_gymnasium(infos: list[dict[str, Any] | None]) -> dict[str, Any]:
    vector = VectorEnv()
    vector.num_envs = len(infos)
    packed: dict[str, Any] = {}
    for i, info in enumerate(infos):
        packed = vector._add_info(packed, info or {}, i)
    return packed


def test_infos_are_packed_as_gymnasium_does() -> None:
    infos: list[dict[str, Any] | None] = [
        {"iou": 0.5, "frame": 3, "box": np.arange(4.0), "visible": True, "sequence": "a"},
        None,
        {
            "iou": 0.25,
            "frame": 7,
            "box": np.ones(4),
            "visible": False,
            "sequence": "b",
            "final_obs": {"x": np.zeros(2)},
            "final_info": {"iou": 1.0, "auc": 0.5, "sequence": "c"},
        },
        {"iou": 0.0, "frame": 0, "box": np.zeros(4), "visible": True, "sequence": "d", "auc": 1.0},
    ]
    ours, theirs = pack_infos(infos), pack_as_gymnasium(infos)
    assert ours.keys() == theirs.keys()
    np.testing.assert_equal(ours, theirs)
    for key, array in ours.items():
        if isinstance(array, np.ndarray):
            assert array.dtype == theirs[key].dtype


def test_picture_shows_boxes_window_and_text() -> None:
    frame = np.full((300, 400, 3), 100, np.uint8)
    picture = draw_overlay(frame, [50, 60, 40, 30], [200, 100, 60, 50], Window(230, 125, 180), "x")
    assert picture.shape == frame.shape
    assert (frame == 100).all()
    assert tuple(picture[75, 50]) == (0, 220, 0)
    assert tuple(picture[125, 200]) == (255, 40, 40)
    np.testing.assert_allclose(picture[125, 140], (255, 220, 0), atol=20)  # a thin line is blended
    assert picture[:20, :20].max() > 200
    assert (picture[200:, :100] == 100).all()


def test_small_frames_are_drawn_larger() -> None:
    frame = np.zeros((60, 100, 3), np.uint8)
    picture = draw_overlay(frame, [10, 10, 20, 20], None, None, "frame 1  IoU 0.5  AUC 0.25")
    assert picture.shape == (240, 400, 3)
    assert tuple(picture[80, 40]) == (0, 220, 0)


def test_boxes_far_outside_do_no_harm() -> None:
    frame = np.zeros((240, 240, 3), np.uint8)
    picture = draw_overlay(frame, None, [-5000, 9000, 10, 10], Window(-900, 900, 4000))
    assert picture.shape == frame.shape
