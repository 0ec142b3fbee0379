"""New starts after a failure, as in VOT's supervised experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trees import SIZE, MemorySequence, draw_boxes, draw_frame

from slt_gym.envs import TrackingEnv, draw_overlay
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.metrics import success_auc
from slt_gym.geometry import get_geometry

Memory = Callable[..., list[MemorySequence]]
LEAVE = np.array([1, 1, -1, -1], np.float32)
KEEP = np.zeros(4, np.float32)


def make_env(**kwargs: Any) -> TrackingEnv:
    settings = {"geometry": "transt-tiny", "num_frames": None, "split": "test", "restart": True}
    env = TrackingEnv("memory", **{**settings, **kwargs})
    env.reset()
    return env


def test_a_lost_track_begins_again_from_the_ground_truth(memory: Memory) -> None:
    sequence = memory(MemorySequence("long", draw_boxes(0, frames=20)))[0]
    env = make_env(action="delta", reward="overlap", render_mode="rgb_array")
    rewards, infos = [], []
    for action in (KEEP, KEEP, -LEAVE, *[KEEP] * 11):
        observation, reward, terminated, truncated, info = env.step(action)
        assert (terminated, truncated) == (len(infos) == 13, False)
        assert observation in env.observation_space
        rewards.append(reward)
        infos.append(info)
        if len(infos) == 3:  # lost in frame 3: what is shown is frame 9, around the box of frame 8
            assert info["frame"] == 3
            geometry, gt = get_geometry("transt-tiny"), sequence.boxes
            window = geometry.search_window(gt[8], SIZE)
            fill = geometry.fill_colour(draw_frame(gt[0], 0))
            search = geometry.crop(draw_frame(gt[9], 9), window, geometry.search_size, fill)
            np.testing.assert_array_equal(observation["search"], search)
            np.testing.assert_allclose(observation["box"], window.to_crop(gt[8]), atol=1e-6)
            # The picture still is of the frame that was lost, with the estimate there.
            picture = draw_overlay(draw_frame(gt[3], 3), gt[3], info["box"])
            drawn = (picture == (255, 40, 40)).all(axis=-1)
            drawn[:40] = False  # under the text
            assert drawn.any()
            assert (env.render()[drawn] == (255, 40, 40)).all()
    assert [info["frame"] for info in infos] == [1, 2, 3, *range(9, 20)]
    assert [info["failures"] for info in infos] == [0, 0] + [1] * 12
    overlaps = [info["iou"] for info in infos]
    assert overlaps[2] == 0.0
    assert overlaps[3] > 0.5
    np.testing.assert_allclose(rewards, np.array(overlaps) / 19)  # T is the whole clip's
    assert infos[-1]["auc"] == pytest.approx(success_auc(overlaps + [0.0] * 5))
    assert infos[-1]["overlap"] == pytest.approx(sum(overlaps) / 19)


def test_waits_until_the_target_is_visible(memory: Memory) -> None:
    boxes = np.tile([60.0, 40.0, 12.0, 12.0], (20, 1))
    boxes[[3, 4, 5]] = np.nan
    memory(MemorySequence("hidden", boxes))
    env = make_env(restart=2)
    _, _, terminated, _, info = env.step(LEAVE)
    assert (info["frame"], terminated) == (1, False)
    *_, info = env.step(np.array([0, 0, -0.75, -0.75], np.float32))
    assert info["frame"] == 7  # 3 to 5 are hidden, 6 is the new start
    assert info["iou"] > 0.9
    *_, info = env.step(LEAVE)
    assert info["failures"] == 2


@pytest.mark.parametrize("frames", [7, 8])
def test_ends_where_no_frame_is_left_to_track(memory: Memory, frames: int) -> None:
    memory(MemorySequence("short", np.tile([60.0, 40.0, 12.0, 12.0], (frames, 1))))
    env = make_env(reward="lost_penalty")
    _, reward, terminated, _, info = env.step(LEAVE)  # frame 1; frame 6 would be the new start
    assert terminated is (frames == 7)
    assert info["failures"] == 1
    assert reward == pytest.approx(-1.0 if frames == 7 else -6 / 7)
    if not terminated:
        _, reward, terminated, _, info = env.step(LEAVE)
        assert (info["frame"], info["failures"], terminated) == (7, 2, True)
        assert reward == pytest.approx(-1 / 7)
    assert info["auc"] == 0.0


def test_a_failure_is_what_lost_after_says(memory: Memory) -> None:
    memory(MemorySequence("still", np.tile([60.0, 40.0, 12.0, 12.0], (30, 1))))
    env = make_env(lost_after=3, restart=4)
    frames = [env.step(LEAVE)[4]["frame"] for _ in range(6)]
    assert frames == [1, 2, 3, 8, 9, 10]


@pytest.mark.parametrize("reward", ["auc", "final_auc", "overlap"])
def test_return_stays_the_metric(memory: Memory, reward: str) -> None:
    memory(MemorySequence("long", draw_boxes(0, frames=40)))
    env = make_env(reward=reward, action="delta", restart=3)
    total, overlaps, terminated = 0.0, [], False
    rng = np.random.default_rng(0)
    while not terminated:
        action = rng.uniform(-0.6, 0.6, 4) * [1, 1, 0.1, 0.1]
        _, value, terminated, _, info = env.step(action)
        total += value
        overlaps.append(info["iou"])
    assert info["failures"] > 1
    overlaps += [0.0] * (39 - len(overlaps))
    expected = np.mean(overlaps) if reward == "overlap" else success_auc(overlaps)
    assert total == pytest.approx(expected)
    assert total > 0.05


def test_infos_count_failures_only_with_restart(memory: Memory) -> None:
    memory()
    env = make_env(restart=False)
    assert "failures" not in env.step(KEEP)[4]
    env = make_env()
    assert env.reset()[1]["failures"] == 0


@pytest.mark.parametrize("restart", [0, -1, 2.5, "5", None])
def test_refuses_wrong_restarts(memory: Memory, restart: Any) -> None:
    memory()
    with pytest.raises(InvalidArgumentError, match=r"'restart' \(False ends the episode\) is"):
        make_env(restart=restart)
