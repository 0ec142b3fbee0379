"""The single environment: contract, rewards, clips, messages."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from trees import SIZE, MemorySequence, draw_boxes, draw_frame

import slt_gym.envs.arguments
from slt_gym.envs import TrackingEnv, box_to_action
from slt_gym.envs.registration import list_env_ids
from slt_gym.geometry import get_geometry, iou

Memory = Callable[..., list[MemorySequence]]


def make_env(**kwargs: Any) -> TrackingEnv:
    return TrackingEnv("memory", **{"geometry": "transt-tiny", "num_frames": 8, **kwargs})


def run_episode(env: gym.Env, policy: Callable[[dict], np.ndarray]) -> list[tuple[float, dict]]:
    """Run from the latest observation on; return the rewards and infos."""
    steps, terminated = [], False
    observation = env.unwrapped._episode.observe()
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(policy(observation))
        assert truncated is False
        assert observation in env.observation_space
        steps.append((reward, info))
    return steps


def stay(observation: dict) -> np.ndarray:
    return box_to_action(observation["box"])


def wander(seed: int) -> Callable[[dict], np.ndarray]:
    rng = np.random.default_rng(seed)
    return lambda obs: box_to_action(obs["box"]) + rng.uniform(-0.08, 0.08, 4).astype(np.float32)


def leave(observation: dict) -> np.ndarray:
    return np.array([1, 1, -1, -1], np.float32)


# Every registered id


@pytest.mark.parametrize("env_id", list_env_ids())
def test_passes_gymnasiums_checker(env_id: str, env_kwargs: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(env_id, render_mode="rgb_array", **env_kwargs[env_id])
        check_env(env.unwrapped)


@pytest.mark.parametrize("env_id", list_env_ids())
def test_passes_stable_baselines3s_checker(env_id: str, env_kwargs: dict) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(env_id, render_mode="rgb_array", **env_kwargs[env_id])
        check_for_sb3(env.unwrapped)


@pytest.mark.parametrize("env_id", list_env_ids())
def test_spec_survives_json_and_pickle(env_id: str, env_kwargs: dict) -> None:
    env = gym.make(env_id, **env_kwargs[env_id])
    spec = env.spec
    assert spec is not None
    json.loads(spec.to_json())
    for copy in (EnvSpec.from_json(spec.to_json()), pickle.loads(pickle.dumps(spec))):
        again = gym.make(copy)
        first, _ = env.reset(seed=3)
        second, _ = again.reset(seed=3)
        np.testing.assert_equal(second, first)


@pytest.mark.parametrize("env_id", list_env_ids())
def test_same_seed_same_episodes(env_id: str, env_kwargs: dict) -> None:
    episodes = []
    for _ in range(2):
        env = gym.make(env_id, **env_kwargs[env_id])
        env.reset(seed=11)
        first = run_episode(env, wander(0))
        env.reset()
        episodes.append((first, run_episode(env, wander(1))))
    np.testing.assert_equal(episodes[0], episodes[1])


# The episode


def test_first_observation_shows_the_target_centred(memory: Memory) -> None:
    (sequence, *_) = memory()
    env = make_env()
    observation, info = env.reset(options={"sequence": "m0", "start": 2})
    geometry = get_geometry("transt-tiny")
    box = sequence.boxes[2]
    frame = draw_frame(box, 2)
    fill = geometry.fill_colour(frame)
    template = geometry.crop(frame, geometry.template_window(box), geometry.template_size, fill)
    window = geometry.search_window(box, SIZE)
    search = geometry.crop(draw_frame(sequence.boxes[3], 3), window, geometry.search_size, fill)
    np.testing.assert_array_equal(observation["template"], template)
    np.testing.assert_array_equal(observation["search"], search)
    np.testing.assert_allclose(observation["box"], window.to_crop(box), atol=1e-6)
    assert info["frame"] == 2
    assert info["iou"] == 1.0
    assert info["visible"] is True
    np.testing.assert_array_equal(info["box"], box)
    np.testing.assert_array_equal(info["gt_box"], box)
    np.testing.assert_allclose(info["gt_box_crop"], window.to_crop(box))


def test_step_applies_the_action_in_the_window_that_was_seen(memory: Memory) -> None:
    (sequence, *_) = memory()
    env = make_env()
    env.reset(options={"sequence": "m0"})
    geometry = get_geometry("transt-tiny")
    previous = sequence.boxes[0]
    for t in range(1, 8):
        window = geometry.search_window(previous, SIZE)
        action = box_to_action(window.to_crop(sequence.boxes[t] + [1.0, -2.0, 3.0, 1.0]))
        observation, _, terminated, _, info = env.step(action)
        np.testing.assert_allclose(info["box"], sequence.boxes[t] + [1, -2, 3, 1], atol=1e-4)
        np.testing.assert_array_equal(info["gt_box"], sequence.boxes[t])
        expected = iou(window.to_crop(info["box"]), info["gt_box_crop"])
        assert info["iou"] == pytest.approx(float(expected))
        assert info["frame"] == t
        assert terminated == (t == 7)
        previous = info["box"]
        shown = min(t + 1, 7)  # the last observation shows the last frame again
        fill = geometry.fill_colour(draw_frame(sequence.boxes[0], 0))
        frame = draw_frame(sequence.boxes[shown], shown)
        search = geometry.crop(
            frame, geometry.search_window(previous, SIZE), geometry.search_size, fill
        )
        np.testing.assert_array_equal(observation["search"], search)


def test_a_perfect_track_gets_the_largest_return(memory: Memory) -> None:
    (sequence, *_) = memory()
    env = make_env(reward="overlap")
    env.reset(options={"sequence": "m0"})
    geometry, total = get_geometry("transt-tiny"), 0.0
    previous = sequence.boxes[0]
    for t in range(1, 8):
        action = box_to_action(geometry.search_window(previous, SIZE).to_crop(sequence.boxes[t]))
        _, reward, _, _, info = env.step(action)
        previous, total = info["box"], total + reward
    assert total == pytest.approx(1.0, abs=1e-5)
    assert info["auc"] == pytest.approx(20 / 21)
    assert info["success_50"] == info["success_75"] == 1.0


def test_estimates_stay_in_the_frame(memory: Memory) -> None:
    memory()
    env = make_env()
    env.reset(seed=0)
    for _, info in run_episode(env, lambda _: np.ones(4, np.float32)):
        x, y, w, h = info["box"]
        assert 0 <= x + w / 2 <= 96
        assert 0 <= y + h / 2 <= 72
        assert w <= 96
        assert h <= 72


def test_numbers_outside_the_space_are_cut_to_it(memory: Memory) -> None:
    memory()
    boxes = []
    for action in ([7.0, -0.2, -0.6, -9.0], [1.0, -0.2, -0.6, -1.0]):
        env = make_env()
        env.reset(seed=0)
        boxes.append(env.step(np.array(action, np.float32))[4]["box"])
    np.testing.assert_array_equal(*boxes)


def test_arrays_are_the_callers(memory: Memory) -> None:
    memory()
    env, twin = make_env(), make_env()
    observation, info = env.reset(seed=5)
    expected, _ = twin.reset(seed=5)
    for _ in range(4):
        action = stay(expected)
        for array in (*observation.values(), info["box"], info["gt_box"], info["gt_box_crop"]):
            array[...] = 9
        observation, *_, info = env.step(action)
        expected, *_, twin_info = twin.step(action)
        np.testing.assert_equal(observation, expected)
        np.testing.assert_equal(info, twin_info)


def test_types_are_pythons(memory: Memory) -> None:
    memory()
    env = make_env()
    env.reset(seed=0)
    for reward, info in run_episode(env, stay):
        assert type(reward) is float
        for key in ("iou", "frame", "visible", "sequence"):
            assert type(info[key]) in (float, int, bool, str)
        for key in ("box", "gt_box", "gt_box_crop"):
            assert info[key].dtype == np.float64
    assert {type(info[key]) for key in ("auc", "overlap", "success_50", "success_75")} == {float}


# Rewards


def compute_auc(overlaps: np.ndarray) -> float:
    """Success AUC the long way: the mean of the success plot."""
    return float(np.mean([np.mean(overlaps > 0.05 * k) for k in range(21)]))


@pytest.mark.parametrize("reward", ["auc", "overlap", "final_auc"])
@pytest.mark.parametrize("seed", range(3))
def test_return_is_the_metric(memory: Memory, reward: str, seed: int) -> None:
    memory()
    env = make_env(reward=reward)
    env.reset(seed=seed)
    steps = run_episode(env, wander(seed))
    overlaps = np.array([float(iou(info["box"], info["gt_box"])) for _, info in steps])
    assert len(steps) == 7
    assert 0 < overlaps.mean() < 0.95
    total = sum(reward for reward, _ in steps)
    final = steps[-1][1]
    assert total == pytest.approx(overlaps.mean() if reward == "overlap" else compute_auc(overlaps))
    assert final["auc"] == pytest.approx(compute_auc(overlaps))
    assert final["overlap"] == pytest.approx(overlaps.mean())
    assert final["success_50"] == pytest.approx((overlaps > 0.5).mean())
    assert final["success_75"] == pytest.approx((overlaps > 0.75).mean())
    assert all("auc" not in info for _, info in steps[:-1])
    if reward == "final_auc":
        assert [value for value, _ in steps[:-1]] == [0.0] * 6


def test_absent_frames_are_left_out(memory: Memory) -> None:
    boxes = draw_boxes(0)
    boxes[2] = np.nan
    boxes[4] = 0
    visible = np.ones(len(boxes), bool)
    visible[5] = False  # a stale box
    memory(MemorySequence("gaps", boxes, visible))
    env = make_env(reward="overlap")
    env.reset(options={"sequence": "gaps"})
    steps = run_episode(env, stay)
    seen = [1, 3, 6, 7]
    overlaps = [float(iou(steps[t - 1][1]["box"], boxes[t])) for t in seen]
    assert sum(reward for reward, _ in steps) == pytest.approx(np.mean(overlaps))
    assert steps[-1][1]["auc"] == pytest.approx(compute_auc(np.array(overlaps)))
    for t in (2, 4, 5):
        reward, info = steps[t - 1]
        assert (reward, info["iou"], info["visible"]) == (0.0, 0.0, False)
    for t in (2, 4):
        assert not steps[t - 1][1]["gt_box"].any()
        assert not steps[t - 1][1]["gt_box_crop"].any()
    np.testing.assert_array_equal(steps[4][1]["gt_box"], boxes[5])


@pytest.mark.parametrize("reward", ["auc", "overlap", "final_auc"])
def test_a_clip_without_visible_frames_is_worth_nothing(memory: Memory, reward: str) -> None:
    boxes = draw_boxes(0)
    boxes[1:] = np.nan
    memory(MemorySequence("only first", boxes))
    env = make_env(reward=reward, split="test")
    env.reset()
    steps = run_episode(env, stay)
    assert [value for value, _ in steps] == [0.0] * 7
    assert steps[-1][1]["auc"] == steps[-1][1]["overlap"] == 0.0


@pytest.mark.parametrize("reward", ["auc", "overlap", "final_auc"])
def test_lost_after_ends_the_episode(memory: Memory, reward: str) -> None:
    boxes = np.tile([60.0, 40.0, 12.0, 12.0], (20, 1))
    boxes[5] = np.nan  # neither counts as lost nor breaks the run
    memory(MemorySequence("still", boxes))
    env = make_env(lost_after=3, reward=reward, num_frames=None)
    env.reset(options={"sequence": "still"})
    first = [env.step(np.array([0, 0, -0.6, -0.6], np.float32)) for _ in range(2)]
    rest = run_episode(env, leave)
    assert [info["frame"] for _, info in rest] == [3, 4, 5, 6]
    overlaps = np.zeros(18)  # 19 tracked frames, one absent
    overlaps[:2] = [step[4]["iou"] for step in first]
    assert overlaps[:2].min() > 0
    total = sum(step[1] for step in first) + sum(value for value, _ in rest)
    expected = overlaps.mean() if reward == "overlap" else compute_auc(overlaps)
    assert total == pytest.approx(expected)
    assert rest[-1][1]["auc"] == pytest.approx(compute_auc(overlaps))


def test_a_frame_that_is_hit_starts_the_count_anew(memory: Memory) -> None:
    memory(MemorySequence("still", np.tile([40.0, 30.0, 12.0, 12.0], (20, 1))))
    env = make_env(lost_after=2, num_frames=None)
    env.reset(options={"sequence": "still"})
    geometry = get_geometry("transt-tiny")
    box = np.array([40.0, 30.0, 12.0, 12.0])
    for target in ([40, 30], [62, 30], [40, 30], [62, 30]):
        goal = np.array([*target, 12.0, 12.0])
        action = box_to_action(geometry.search_window(box, SIZE).to_crop(goal))
        _, _, terminated, _, info = env.step(action)
        box = info["box"]
        assert info["iou"] == pytest.approx(1.0 if target[0] == 40 else 0.0, abs=1e-5)
        assert not terminated
    assert env.step(np.array([-1, -1, -0.8, -0.8], np.float32))[2] is True


# Clips


def test_options_choose_the_clip(memory: Memory) -> None:
    memory()
    env = make_env()
    _, info = env.reset(options={"sequence": "m2", "start": 1, "stride": 3})
    frames = [info["frame"], *(step["frame"] for _, step in run_episode(env, stay))]
    assert frames == [1, 4, 7, 10, 13]
    assert info["sequence"] == "m2"


def test_start_defaults_to_the_first_visible_frame(memory: Memory) -> None:
    boxes = draw_boxes(0)
    boxes[:3] = 0
    memory(MemorySequence("late", boxes))
    _, info = make_env().reset(options={"sequence": "late"})
    assert info["frame"] == 3


def test_chosen_clips_do_not_disturb_the_draw(memory: Memory) -> None:
    memory()
    plain, mixed = make_env(), make_env()
    plain.reset(seed=1)
    mixed.reset(seed=1, options={"sequence": "m1"})
    mixed.reset()
    mixed.reset(options={"sequence": "m2"})
    expected, _ = plain.reset()
    np.testing.assert_equal(mixed.reset()[0], expected)


@pytest.mark.parametrize("split", ["val", "test"])
def test_walks_the_sequences_in_order(memory: Memory, split: str) -> None:
    memory()
    env = make_env(split=split, num_frames=None)
    names = [env.reset()[1]["sequence"] for _ in range(5)]
    assert names == ["m0", "m1", "m2", "m0", "m1"]
    assert env.reset(seed=1)[1]["sequence"] == "m0"
    assert len(run_episode(env, stay)) == 13


def test_training_clips_vary(memory: Memory) -> None:
    memory()
    env = make_env()
    env.reset(seed=0)
    clips = {(i["sequence"], i["frame"]) for i in (env.reset()[1] for _ in range(20))}
    assert len({name for name, _ in clips}) == 3


def test_whole_training_sequences(memory: Memory) -> None:
    memory()
    env = make_env(num_frames=None)
    _, info = env.reset(seed=0)
    assert info["frame"] == 0
    assert len(run_episode(env, stay)) == 13
    assert len({env.reset()[1]["sequence"] for _ in range(20)}) == 3


def test_dataset_options_reach_the_dataset(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory()
    opened = slt_gym.envs.arguments.open_dataset
    seen: dict[str, Any] = {}

    def record(name: str, **options: Any) -> Any:
        seen.update(options, name=name)
        return opened(name, **options)

    monkeypatch.setattr(slt_gym.envs.arguments, "open_dataset", record)
    make_env(root="here", split="val", dataset_options={"speed": 0.5})
    assert seen == {"name": "memory", "root": "here", "split": "val", "speed": 0.5}
