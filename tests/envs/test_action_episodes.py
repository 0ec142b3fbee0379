"""Every form of actions in the environments: contracts, returns, several moves a frame."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from same import assert_same
from trees import SIZE, MemorySequence, draw_boxes, draw_frame

from slt_gym.data import whole_clip
from slt_gym.envs import TrackingEnv, TrackingVectorEnv, box_to_action, draw_overlay, make_sb3_env
from slt_gym.envs.action_forms import ACTIONS
from slt_gym.envs.frames import ClipFrames
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.metrics import success_auc
from slt_gym.geometry import get_geometry, iou

Memory = Callable[..., list[MemorySequence]]
SMALL = {"geometry": "transt-tiny", "num_frames": 6}
CASES: list[dict[str, Any]] = [
    *({"action": action} for action in ACTIONS),
    {"action": "moves", "lost_after": 1, "action_options": {"max_moves": 4, "step": 0.5}},
    {"action": "moves", "restart": 1, "action_options": {"max_moves": 3, "step": 0.5}},
    {"action": "proposals", "restart": 2, "action_options": {"reach": 2.0}},
]
LEFT, RIGHT, DOWN, STOP = 0, 1, 3, 10


def make_env(**kwargs: Any) -> TrackingEnv:
    return TrackingEnv("memory", **{**SMALL, **kwargs})


def make_vec(num_envs: int, **kwargs: Any) -> TrackingVectorEnv:
    return TrackingVectorEnv(num_envs, "memory", **{**SMALL, "threads": 2, **kwargs})


def draw_actions(action: str, space: gym.Space, observation: dict, rng: np.random.Generator) -> Any:
    """Draw one action or a batch; boxes stay near the previous estimate."""
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(space.nvec)
    noise = rng.uniform(-0.1, 0.1, space.shape).astype(np.float32)
    return noise + box_to_action(observation["box"]) if action == "box" else 2 * noise


def expect_auc(infos: list[dict], frames: int) -> float:
    """The metric code's AUC of the estimates in an episode's infos; frames left out are missed."""
    done = [info for info in infos if info["visible"] and info.get("frame_done", True)]
    overlaps = [float(iou(info["box"], info["gt_box"])) for info in done]
    return success_auc(overlaps + [0.0] * (frames - len(overlaps)))


# Checkers and specs


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("env_id", ["SLTTrack-Synthetic-v0", "SLTTrack-Folder-v0"])
def test_passes_both_checkers(env_id: str, action: str, folder_root: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    data = {"root": folder_root} if "Folder" in env_id else {"dataset_options": {"num_frames": 20}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(env_id, render_mode="rgb_array", action=action, **SMALL, **data)
        check_env(env.unwrapped)
        check_for_sb3(env.unwrapped)


def test_arguments_are_json() -> None:
    kwargs: dict[str, Any] = {
        "action": "proposals",
        "action_options": {"grid": 5, "scales": [1.0], "ratios": [1.0, 1.2]},
        "reward": {"auc": 1.0, "iou_gain": 0.5},
        "restart": True,
    }
    env = gym.make("SLTTrack-Synthetic-v0", **SMALL, **kwargs)
    assert env.action_space == gym.spaces.Discrete(50)
    spec = env.spec
    assert spec is not None
    assert json.loads(spec.to_json())["kwargs"].items() >= kwargs.items()
    again = gym.make(gym.envs.registration.EnvSpec.from_json(spec.to_json()))
    np.testing.assert_equal(again.reset(seed=2), env.reset(seed=2))


# Returns


@pytest.mark.parametrize("case", CASES, ids=str)
def test_return_is_the_metrics_auc(memory: Memory, case: dict) -> None:
    hidden = draw_boxes(1)
    hidden[[2, 5]] = np.nan
    memory(MemorySequence("all", draw_boxes(0)), MemorySequence("some", hidden))
    env = make_env(split="test", **case)
    rng = np.random.default_rng(0)
    found = []
    for episode in range(4):
        observation, info = env.reset()
        rewards, infos, terminated = [], [], False
        while not terminated:
            chosen = draw_actions(case["action"], env.action_space, observation, rng)
            observation, reward, terminated, truncated, info = env.step(chosen)
            assert truncated is False
            assert type(reward) is float
            assert observation in env.observation_space
            rewards.append(reward)
            infos.append(info)
        expected = expect_auc(infos, frames=5 if episode % 2 == 0 else 3)
        assert info["auc"] == pytest.approx(expected, abs=1e-12)
        assert sum(rewards) == pytest.approx(expected, abs=1e-12)
        assert all("auc" not in other for other in infos[:-1])
        found.append(expected)
    assert max(found) > 0.05


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vector_is_gymnasiums_loop_over_single_environments(
    memory: Memory, case: dict, mode: str
) -> None:
    memory()
    ours = make_vec(3, autoreset_mode=mode, **case)
    theirs = SyncVectorEnv(
        [lambda: make_env(**case) for _ in range(3)], autoreset_mode=AutoresetMode[mode.upper()]
    )
    result, expected = ours.reset(seed=7), theirs.reset(seed=7)
    assert_same(result, expected)
    rng = np.random.default_rng(1)
    returns, ends = np.zeros(3), 0
    while ends < 4:
        actions = draw_actions(case["action"], ours.action_space, result[0], rng)
        result, expected = ours.step(actions), theirs.step(actions)
        assert_same(result, expected)
        returns += result[1]
        final = result[4]["final_info"] if "final_info" in result[4] else result[4]
        for i in np.flatnonzero(result[2]):
            assert returns[i] == pytest.approx(final["auc"][i])
            returns[i], ends = 0, ends + 1
    ours.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sb3_episodes_are_worth_their_auc(folder_root: str, case: dict) -> None:
    venv = make_sb3_env(
        "SLTTrack-Folder-v0", n_envs=4, tracks_per_clip=2, root=folder_root, **SMALL, **case
    )
    observations, rng = venv.reset(), np.random.default_rng(2)
    tracks: list[list[dict]] = [[] for _ in range(4)]
    ends = 0
    while ends < 6:
        space = venv.action_space
        actions = [
            draw_actions(case["action"], space, {"box": box}, rng) for box in observations["box"]
        ]
        observations, _, dones, infos = venv.step(np.array(actions))
        for i, info in enumerate(infos):
            tracks[i].append(info)
            if dones[i]:
                auc = expect_auc(tracks[i], frames=5)
                assert info["episode"]["r"] == pytest.approx(auc, abs=1e-5)
                assert info["episode"]["l"] == len(tracks[i])
                tracks[i], ends = [], ends + 1
    venv.close()


@pytest.mark.parametrize("action", ["moves", "proposals"])
def test_sb3_learns_from_choices(folder_root: str, action: str) -> None:
    from stable_baselines3 import DQN

    venv = make_sb3_env("SLTTrack-Folder-v0", root=folder_root, action=action, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = DQN(
            "MultiInputPolicy",
            venv,
            buffer_size=50,
            learning_starts=4,
            batch_size=4,
            policy_kwargs={
                "net_arch": [8],
                "features_extractor_kwargs": {"cnn_output_dim": 4},
            },
            device="cpu",
        )
        model.learn(12)
    assert model._n_updates > 0
    venv.close()


# Several moves a frame


def test_moves_work_on_one_frame_until_it_ends(memory: Memory) -> None:
    sequence = memory()[0]
    env = make_env(action="moves", reward="overlap", render_mode="rgb_array")
    observation, info = env.reset(options={"sequence": "m0"})
    assert info["frame_done"] is True
    geometry, box = get_geometry("transt-tiny"), sequence.boxes[0]
    fill = geometry.fill_colour(draw_frame(box, 0))
    script = [(RIGHT, 1, False), (DOWN, 1, False), (STOP, 1, True), (STOP, 2, True)]
    script += [(LEFT, 3, False), (RIGHT, 3, False), (LEFT, 3, True), (LEFT, 4, False)]
    for move, frame, done in script:
        window = geometry.search_window(box, SIZE)
        observation, reward, terminated, _, info = env.step(move)
        shift = {LEFT: [-0.03, 0], RIGHT: [0.03, 0], DOWN: [0, 0.03], STOP: [0, 0]}[move]
        box = box + np.r_[shift * box[2:], 0, 0]
        np.testing.assert_allclose(info["box"], box, atol=1e-9)
        assert (info["frame"], info["frame_done"], terminated) == (frame, done, False)
        overlap = float(iou(box, sequence.boxes[frame]))
        assert info["iou"] == pytest.approx(overlap)
        assert reward == pytest.approx(overlap / 5 if done else 0.0)
        np.testing.assert_allclose(info["gt_box_crop"], window.to_crop(sequence.boxes[frame]))
        shown = frame + done  # the same frame again, around the moved box
        search = geometry.crop(
            draw_frame(sequence.boxes[shown], shown),
            geometry.search_window(box, SIZE),
            geometry.search_size,
            fill,
        )
        np.testing.assert_array_equal(observation["search"], search)
        picture = draw_overlay(
            draw_frame(sequence.boxes[frame], frame), sequence.boxes[frame], box, window
        )
        # Below the strip of text.
        np.testing.assert_array_equal(env.render()[40:], picture[40:])


def test_a_frame_takes_max_moves_at_most(memory: Memory) -> None:
    memory()
    env = make_env(action="moves", action_options={"max_moves": 4})
    env.reset(seed=0)
    steps = [env.step(RIGHT) for _ in range(5 * 4)]
    assert [step[4]["frame_done"] for step in steps] == [False, False, False, True] * 5
    assert [step[2] for step in steps] == [False] * 19 + [True]
    assert all(step[1] == 0 for step in steps if not step[4]["frame_done"])


def test_lost_after_counts_frames_not_moves(memory: Memory) -> None:
    memory(MemorySequence("still", np.tile([40.0, 30.0, 12.0, 12.0], (20, 1))))
    env = make_env(
        action="moves", lost_after=2, num_frames=None, action_options={"step": 0.9, "max_moves": 3}
    )
    env.reset(options={"sequence": "still"})
    steps = [env.step(RIGHT) for _ in range(6)]
    assert [step[4]["iou"] == 0 for step in steps] == [False] + [True] * 5
    assert [step[2] for step in steps] == [False] * 5 + [True]
    assert steps[-1][4]["frame"] == 2


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("case", [CASES[2], *CASES[4:]], ids=str)
def test_tracks_of_a_group_may_be_on_different_frames(
    memory: Memory, case: dict, prefetch: bool
) -> None:
    memory(MemorySequence("long", draw_boxes(0, frames=60)))
    options, whole = {"sequence": "long"}, {**case, "num_frames": None}
    env = make_vec(3, tracks_per_clip=3, autoreset_mode="disabled", prefetch=prefetch, **whole)
    singles = [make_env(**whole) for _ in range(3)]
    env.reset(options=options)
    for single in singles:
        single.reset(options=options)
    rng = np.random.default_rng(3)
    distance = 0
    for _ in range(25):
        actions = rng.integers(env.action_space.nvec)
        if case["action"] == "moves":
            actions[0] = STOP  # a frame with each step
            actions[1] = rng.integers(4)  # never
        observations, rewards, terminations, _, infos = env.step(actions)
        for i, single in enumerate(singles):
            observation, reward, terminated, _, info = single.step(actions[i])
            np.testing.assert_equal({k: v[i] for k, v in observations.items()}, observation)
            np.testing.assert_equal({k: infos[k][i] for k in info}, info)
            assert (rewards[i], terminations[i]) == (reward, terminated)
        distance = max(distance, np.ptp(infos["frame"]))
        if terminations.any():
            break
    assert distance > 3
    env.close()


class _AtOnce(Executor):
    """Does its work when it is asked for."""

    def submit(self, work: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(work(*args, **kwargs))
        return future


def test_the_frames_used_last_are_kept() -> None:
    sequence = MemorySequence("only", draw_boxes(0))
    frames = ClipFrames(whole_clip(sequence), get_geometry("transt-tiny"), keep=2)
    for i in (0, 1, 0, 2, 0, 1):
        np.testing.assert_array_equal(frames.frame(i), draw_frame(sequence.boxes[i], i))
    assert sequence.reads == [0, 1, 2, 1]


def test_prefetched_frames_that_nobody_uses_are_dropped() -> None:
    sequence = MemorySequence("only", draw_boxes(0))
    frames = ClipFrames(whole_clip(sequence), get_geometry("transt-tiny"), _AtOnce(), keep=3)
    for i in range(6):
        frames.prefetch(i)
    for i in range(6):
        frames.frame(i)
    assert sequence.reads == [0, 1, 2, 3, 4, 5, 0, 1, 2]


# Wrong input


@pytest.mark.parametrize(
    ("case", "action", "message"),
    [
        ({"action": "moves"}, 11, r"action 11 is out of range: accepted are .* 0 to 10"),
        ({"action": "moves"}, np.zeros(4), r"is no whole number"),
        ({"action": "proposals"}, 729, r"action 729 is out of range"),
        ({"action": "delta"}, [0, 0, np.nan, 0], r"is not finite"),
        ({"action": "delta"}, 3, r"action has shape \(\): needed is \(4,\)"),
    ],
)
def test_wrong_actions_change_nothing(
    memory: Memory, case: dict, action: Any, message: str
) -> None:
    memory()
    env, vec = make_env(**case), make_vec(2, **case)
    before, _ = env.reset(seed=0)
    vec.reset(seed=0)
    with pytest.raises(InvalidArgumentError, match=message):
        env.step(action)
    np.testing.assert_equal(env._episode.observe(), before)
    with pytest.raises(InvalidArgumentError):
        vec.step(np.array([action, action]))
    vec.close()


def test_choices_of_a_dead_step_are_ignored(memory: Memory) -> None:
    memory()
    env = make_vec(2, action="moves")
    env.reset(seed=0)
    for _ in range(5):
        _, _, terminations, *_ = env.step(np.array([STOP, STOP]))
    assert terminations.all()
    *_, infos = env.step(np.array([-1, 99]))
    assert infos["iou"].tolist() == [1.0, 1.0]
    env.close()
