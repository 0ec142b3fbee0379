"""The vector environment against loops over single ones."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from same import assert_same
from trees import MemorySequence, draw_boxes

from slt_gym.envs import TrackingEnv, TrackingVectorEnv, box_to_action
from slt_gym.envs.registration import list_env_ids
from slt_gym.errors import FrameError, InvalidArgumentError

Memory = Callable[..., list[MemorySequence]]
SMALL = {"geometry": "transt-tiny", "num_frames": 6}
MODES = ["next_step", "same_step", "disabled"]


def make_vec(num_envs: int, **kwargs: Any) -> TrackingVectorEnv:
    return TrackingVectorEnv(num_envs, "memory", **{**SMALL, "threads": 2, **kwargs})


def make_sync(num_envs: int, mode: str, **kwargs: Any) -> SyncVectorEnv:
    """Gymnasium's own loop over single environments."""
    return SyncVectorEnv(
        [lambda: TrackingEnv("memory", **{**SMALL, **kwargs}) for _ in range(num_envs)],
        autoreset_mode=AutoresetMode[mode.upper()],
    )


def draw_actions(observations: dict, rng: np.random.Generator, spread: float = 0.1) -> np.ndarray:
    actions = box_to_action(observations["box"])
    return actions + rng.uniform(-spread, spread, actions.shape).astype(np.float32)


@pytest.mark.parametrize("kwargs", [{}, {"lost_after": 2}, {"prefetch": False}, {"threads": 1}])
@pytest.mark.parametrize("mode", MODES)
def test_is_gymnasiums_loop_over_single_environments(
    memory: Memory, mode: str, kwargs: dict
) -> None:
    memory()
    single = {"lost_after": 2} if "lost_after" in kwargs else {}
    ours, theirs = make_vec(4, autoreset_mode=mode, **kwargs), make_sync(4, mode, **single)
    expected = theirs.reset(seed=7)
    assert_same(ours.reset(seed=7), expected)
    rng = np.random.default_rng(1)
    observations, ends = expected[0], 0
    for _ in range(17):
        actions = draw_actions(observations, rng, spread=0.4)
        result = theirs.step(actions)
        assert_same(ours.step(actions), result)
        observations, done = result[0], result[2]
        ends += done.sum()
        if mode == "disabled" and done.any():
            mask = done.copy()
            expected = theirs.reset(options={"reset_mask": mask.copy()})
            assert_same(ours.reset(options={"reset_mask": mask}), expected)
            observations = expected[0]
    assert ends >= 8
    assert_same(ours.reset(), theirs.reset())
    ours.close()


@pytest.mark.parametrize("reward", ["auc", "overlap", "final_auc"])
def test_seeds_make_track_i_the_single_environment_seeded_s_plus_i(
    memory: Memory, reward: str
) -> None:
    memory()
    env = make_vec(3, reward=reward, autoreset_mode="same_step")
    observations, infos = env.reset(seed=20)
    singles = [TrackingEnv("memory", **SMALL, reward=reward) for _ in range(3)]
    for i, single in enumerate(singles):
        observation, info = single.reset(seed=20 + i)
        np.testing.assert_equal({k: v[i] for k, v in observations.items()}, observation)
        np.testing.assert_equal({k: infos[k][i] for k in info}, info)
    rng = np.random.default_rng(0)
    for _ in range(5):
        actions = draw_actions(observations, rng)
        observations, rewards, terminations, _, infos = env.step(actions)
        for i, single in enumerate(singles):
            observation, value, terminated, _, info = single.step(actions[i])
            assert rewards[i] == value
            assert terminations[i] == terminated
            if terminated:
                np.testing.assert_equal(infos["final_obs"][i], observation)
                np.testing.assert_equal({k: infos["final_info"][k][i] for k in info}, info)
            else:
                np.testing.assert_equal({k: v[i] for k, v in observations.items()}, observation)
                np.testing.assert_equal({k: infos[k][i] for k in info}, info)
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_tracks_of_a_group_given_the_same_actions_are_equal(memory: Memory, mode: str) -> None:
    memory()
    env = make_vec(6, tracks_per_clip=3, autoreset_mode=mode, lost_after=2)
    observations, infos = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(14):
        actions = draw_actions(observations, rng, spread=0.3)[[0, 0, 0, 3, 3, 3]]
        observations, rewards, terminations, _, infos = env.step(actions)
        packed = {k: v for k, v in infos.items() if isinstance(v, np.ndarray) and k != "final_obs"}
        for array in (*observations.values(), rewards, terminations, *packed.values()):
            np.testing.assert_array_equal(array, array[[0, 0, 0, 3, 3, 3]])
        if mode == "disabled" and terminations.any():
            observations, _ = env.reset(options={"reset_mask": terminations})
    env.close()


def test_tracks_of_a_group_are_independent_on_one_clip(memory: Memory) -> None:
    memory()
    options = {"sequence": "m1", "start": 1, "stride": 2}
    env = make_vec(4, tracks_per_clip=4, lost_after=1, autoreset_mode="disabled")
    observations, _ = env.reset(options=options)
    singles = [TrackingEnv("memory", **SMALL, lost_after=1) for _ in range(4)]
    for single in singles:
        single.reset(options=options)
    rng = np.random.default_rng(3)
    actions = draw_actions(observations, rng)
    actions[2] = [1, 1, -1, -1]  # this track loses the target at once
    observations, rewards, terminations, _, infos = env.step(actions)
    assert terminations.tolist() == [False, False, True, False]
    assert len(np.unique(rewards)) > 1
    for i, single in enumerate(singles):
        observation, reward, terminated, _, info = single.step(actions[i])
        np.testing.assert_equal({k: v[i] for k, v in observations.items()}, observation)
        assert (rewards[i], terminations[i]) == (reward, terminated)
        np.testing.assert_equal({k: infos[k][i] for k in info}, info)
    env.close()


def test_group_draws_from_the_generator_of_its_first_track(memory: Memory) -> None:
    memory()
    grouped = make_vec(6, tracks_per_clip=2, autoreset_mode="same_step")
    plain = make_vec(6, autoreset_mode="same_step")
    firsts = slice(None, None, 2)
    expected, _ = plain.reset(seed=5)
    observations, _ = grouped.reset(seed=5)
    for _ in range(12):
        for key, array in observations.items():
            np.testing.assert_array_equal(array[firsts], expected[key][firsts])
        actions = box_to_action(observations["box"])
        expected, *_ = plain.step(actions)
        observations, *_ = grouped.step(actions)
    grouped.close()
    plain.close()


@pytest.mark.parametrize("prefetch", [False, True])
def test_frames_of_a_shared_clip_are_read_once(memory: Memory, prefetch: bool) -> None:
    (sequence,) = memory(MemorySequence("only", draw_boxes(0)))
    env = make_vec(5, tracks_per_clip=5, prefetch=prefetch)
    env.reset(options={"sequence": "only", "start": 2})
    for _ in range(3):
        env.step(np.zeros((5, 4), np.float32))
    env.close()
    # The template and four search frames; the pool may have read one more, never one again.
    assert sorted(sequence.reads)[:5] == [2, 3, 4, 5, 6]
    assert sorted(sequence.reads)[5:] in ([], [7] if prefetch else [])


def test_tracks_that_end_early_meet_their_group_again_at_the_next_reset(memory: Memory) -> None:
    memory()
    env = make_vec(2, tracks_per_clip=2, lost_after=1, autoreset_mode="same_step")
    observations, _ = env.reset(seed=2)
    ahead = np.array([[1, 1, -1, -1]], np.float32)
    for _ in range(3):
        actions = box_to_action(observations["box"])
        actions[1] = ahead
        observations, *_ = env.step(actions)
    observations, infos = env.reset()
    assert infos["sequence"][0] == infos["sequence"][1]
    assert infos["frame"][0] == infos["frame"][1]
    np.testing.assert_array_equal(observations["search"][0], observations["search"][1])
    # Alone, each goes through the same list of clips, however far apart they are.
    env.reset(seed=2)
    seen: list[list[tuple]] = [[], []]
    for _ in range(12):
        actions = box_to_action(observations["box"])
        actions[1] = ahead
        observations, _, terminations, _, infos = env.step(actions)
        for j in np.flatnonzero(terminations):
            seen[j].append((infos["sequence"][j], infos["frame"][j]))
    assert len(seen[1]) > len(seen[0]) >= 2
    assert seen[1][: len(seen[0])] == seen[0]
    env.close()


def test_a_track_may_begin_the_clip_whose_start_another_one_reads_ahead(memory: Memory) -> None:
    memory()
    kwargs = {"num_frames": 3, "tracks_per_clip": 2, "threads": 1, "lost_after": 1}
    envs = make_vec(2, autoreset_mode="same_step", **kwargs)
    observations, _ = envs.reset(seed=0)
    # The first track comes to the clip's last frame and asks for the next clip; the second one, in
    # the same task of the only thread, loses its target and begins that clip.
    actions = box_to_action(observations["box"])
    actions[1] = [-1, -1, -1, -1]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(envs.step(actions)), daemon=True)
    thread.start()
    thread.join(60)
    envs._pool.shutdown(wait=False, cancel_futures=True)  # lets a thread that waits for ever go
    assert results, "the only thread waits for what comes after it in its queue"
    assert results[0][2].tolist() == [False, True]


def test_copies_are_the_callers(memory: Memory) -> None:
    memory()
    env, twin = make_vec(2, autoreset_mode="same_step"), make_vec(2, autoreset_mode="same_step")
    observations, infos = env.reset(seed=1)
    expected, _ = twin.reset(seed=1)
    for _ in range(8):
        actions = box_to_action(expected["box"])
        for array in (*observations.values(), infos["box"], infos["gt_box"]):
            array[...] = 3
        observations, *_, infos = env.step(actions)
        expected, *_ = twin.step(actions)
        np.testing.assert_equal(observations, expected)
    env.close()
    twin.close()


@pytest.mark.parametrize("mode", MODES)
def test_without_copies_the_previous_step_stays_valid(memory: Memory, mode: str) -> None:
    memory()
    env = make_vec(2, copy=False, autoreset_mode=mode)
    twin = make_vec(2, autoreset_mode=mode)
    observations, _ = env.reset(seed=1)
    expected, _ = twin.reset(seed=1)
    buffers = {id(observations["search"])}
    for _ in range(9):
        actions = box_to_action(expected["box"])
        later, _, terminations, *_ = env.step(actions)
        np.testing.assert_equal(observations, expected)
        observations, expected = later, twin.step(actions)[0]
        np.testing.assert_equal(observations, expected)
        buffers.add(id(observations["search"]))
        if mode == "disabled" and terminations.any():
            for track in (True, False), (False, True):
                options = {"reset_mask": np.array(track)}
                observations, expected = (
                    env.reset(options=options)[0],
                    twin.reset(options=options)[0],
                )
                np.testing.assert_equal(observations, expected)
    assert len(buffers) == 2
    env.close()
    twin.close()


@pytest.mark.parametrize("copies", [True, False])
def test_partial_reset_leaves_the_others_alone(memory: Memory, copies: bool) -> None:
    memory()
    env = make_vec(3, copy=copies)
    env.reset(seed=0)
    before = {k: v.copy() for k, v in env.step(np.zeros((3, 4), np.float32))[0].items()}
    mask = np.array([False, True, False])
    after, infos = env.reset(options={"reset_mask": mask, "sequence": "m2"})
    for key, array in after.items():
        np.testing.assert_array_equal(array[[0, 2]], before[key][[0, 2]])
    assert infos["_sequence"].tolist() == mask.tolist()
    assert infos["sequence"][1] == "m2"
    assert env.step(np.zeros((3, 4), np.float32))[4]["frame"][1] == 1
    env.close()


def test_rows_that_are_not_reset_are_drawn_anew(memory: Memory) -> None:
    memory()
    env = make_vec(4, tracks_per_clip=2)
    mask = np.array([False, True, False, False])
    first, _ = env.reset(seed=0, options={"reset_mask": np.arange(4) < 2})
    assert all(array[:2].any() and not array[2:].any() for array in first.values())
    shown = {key: array.copy() for key, array in first.items()}
    for array in first.values():
        array[:] = 99  # the caller's own
    second, _ = env.reset(options={"reset_mask": mask})
    for key, array in second.items():
        np.testing.assert_array_equal(array[0], shown[key][0])
        assert not array[2:].any()


def test_writes_to_the_callers_arrays(memory: Memory) -> None:
    memory()
    plain, env = make_vec(2), make_vec(2)
    space = env.observation_space
    batches = [
        {key: np.zeros(part.shape, part.dtype) for key, part in space.items()} for _ in range(2)
    ]
    env.use_batches(*batches)
    results = [(one.reset(seed=3)[0], *(one.step(np.zeros((2, 4)))[0],)) for one in (plain, env)]
    for ours, theirs in zip(*results, strict=True):
        assert_same(ours, theirs)
    for key in space:
        owners = [{id(batch[key]) for batch in batches}, {id(o[key]) for o in results[1]}]
        assert owners[0] == owners[1]

    wrong = {**batches[0], "box": np.zeros((2, 4))}
    with pytest.raises(InvalidArgumentError, match=r"'box' is .*float64.*: needed is .* float32"):
        env.use_batches(batches[0], wrong)
    with pytest.raises(InvalidArgumentError, match="'search' is"):
        env.use_batches({key: batches[0][key] for key in ("box", "template")}, batches[1])


@pytest.mark.parametrize("k", [1, 2])
def test_walk_is_dealt_out_to_the_groups(memory: Memory, k: int) -> None:
    memory(*(MemorySequence(f"m{i}", draw_boxes(i % 3)) for i in range(5)))
    env = make_vec(2 * k, tracks_per_clip=k, split="test", autoreset_mode="same_step")
    observations, infos = env.reset(seed=0)
    names = [infos["sequence"][::k].tolist()]
    for _ in range(15):
        observations, _, terminations, _, infos = env.step(box_to_action(observations["box"]))
        if terminations.any():
            names.append(infos["sequence"][::k].tolist())
            assert infos["sequence"].tolist() == [n for n in names[-1] for _ in range(k)]
    assert names == [["m0", "m1"], ["m2", "m3"], ["m4", "m1"], ["m0", "m3"]]
    _, infos = env.reset(seed=0)
    assert infos["sequence"][::k].tolist() == ["m0", "m1"]
    env.close()


@pytest.mark.parametrize("env_id", list_env_ids())
def test_make_vec_builds_every_id_without_warnings(env_id: str, env_kwargs: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make_vec(
            env_id,
            num_envs=2,
            autoreset_mode="same_step",
            render_mode="rgb_array",
            **env_kwargs[env_id],
        )
    assert isinstance(env, TrackingVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.spec is not None
    env.spec.to_json()
    observations, _ = env.reset(seed=0)
    assert observations in env.observation_space
    observations, rewards, *_ = env.step(env.action_space.sample())
    assert observations in env.observation_space
    assert rewards.shape == (2,)
    pictures = env.render()
    assert pictures is not None
    assert [picture.ndim for picture in pictures] == [3, 3]
    env.close()
    env.close()


def test_gymnasiums_wrappers_apply(memory: Memory) -> None:
    memory()
    env = gym.wrappers.vector.RecordEpisodeStatistics(make_vec(2, autoreset_mode="same_step"))
    observations, _ = env.reset(seed=0)
    for _ in range(5):
        observations, *_, infos = env.step(box_to_action(observations["box"]))
    np.testing.assert_allclose(infos["episode"]["r"], infos["final_info"]["auc"])
    assert infos["episode"]["l"].tolist() == [5, 5]
    env.close()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("NextStep", AutoresetMode.NEXT_STEP),
        ("disabled", AutoresetMode.DISABLED),
        (AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP),
    ],
)
def test_autoreset_mode_by_any_name(memory: Memory, mode: Any, expected: AutoresetMode) -> None:
    memory()
    env = make_vec(1, autoreset_mode=mode)
    assert env.metadata["autoreset_mode"] is expected
    assert "autoreset_mode" not in TrackingVectorEnv.metadata
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"tracks_per_clip": 3},
            r"'tracks_per_clip' is 3: accepted are the divisors of num_envs=4",
        ),
        ({"threads": -1}, r"'threads'.* is -1"),
        ({"autoreset_mode": "never"}, r"unknown autoreset_mode 'never'.*disabled, next_step"),
        ({"trackz_per_clip": 2}, r"unexpected keyword argument.*did you mean 'tracks_per_clip'"),
        ({"reward": "iou"}, r"unknown reward 'iou'"),
    ],
)
def test_refuses_wrong_arguments(memory: Memory, kwargs: dict, message: str) -> None:
    memory()
    with pytest.raises(InvalidArgumentError, match=message):
        make_vec(4, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"options": {"reset_mask": [True, False]}}, r"'reset_mask' of reset is \[True, False\]"),
        ({"options": {"reset_mask": np.zeros(4, bool)}}, r"4 booleans, one of them True"),
        ({"options": {"reset_mask": np.ones(4, int)}}, r"'reset_mask'"),
        ({"options": {"begin": 3}}, r"unknown option of reset 'begin'"),
        ({"seed": [1, 2]}, r"there are 2 seeds"),
        (
            {"seed": 0, "options": {"reset_mask": np.array([True, False, False, False])}},
            r"seed 0 would go to a part of group 0, whose 2 tracks",
        ),
    ],
)
def test_refuses_wrong_resets(memory: Memory, kwargs: dict, message: str) -> None:
    memory()
    env = make_vec(4, tracks_per_clip=2)
    with pytest.raises(InvalidArgumentError, match=message):
        env.reset(**kwargs)
    env.close()


def test_wrong_actions_change_nothing(memory: Memory) -> None:
    memory()
    env, twin = make_vec(2), make_vec(2)
    env.reset(seed=0)
    twin.reset(seed=0)
    bad = np.zeros((2, 4), np.float32)
    bad[1, 2] = np.nan
    for actions, message in [(bad, "not finite"), (bad[:1], r"shape \(1, 4\): needed is \(2, 4\)")]:
        with pytest.raises(InvalidArgumentError, match=message):
            env.step(actions)
    good = np.zeros((2, 4), np.float32)
    assert_same(env.step(good), twin.step(good))
    env.close()
    twin.close()


def test_actions_of_a_dead_step_are_ignored(memory: Memory) -> None:
    memory()
    env = make_vec(2)
    observations, _ = env.reset(seed=0)
    for _ in range(5):
        observations, _, terminations, *_ = env.step(box_to_action(observations["box"]))
    assert terminations.all()
    _, rewards, terminations, _, infos = env.step(np.full((2, 4), np.nan))
    assert rewards.tolist() == [0.0, 0.0]
    assert not terminations.any()
    assert infos["iou"].tolist() == [1.0, 1.0]
    env.close()


def test_says_which_tracks_to_reset(memory: Memory) -> None:
    memory()
    env = make_vec(3, autoreset_mode="disabled", lost_after=1)
    actions = np.zeros((3, 4), np.float32)
    with pytest.raises(ResetNeeded, match=r"\[0, 1, 2\] have not begun"):
        env.step(actions)
    observations, _ = env.reset(seed=0)
    actions = box_to_action(observations["box"])
    actions[1] = [1, 1, -1, -1]
    env.step(actions)
    with pytest.raises(ResetNeeded, match=r"track\(s\) \[1\] .* have ended.*reset_mask"):
        env.step(actions)
    env.close()


def test_an_unreadable_frame_is_raised_with_its_message(memory: Memory) -> None:
    class Broken(MemorySequence):
        def read(self, t: int) -> np.ndarray:
            if t == 3:
                raise FrameError("cannot read frame 3 of 'broken'")
            return super().read(t)

    memory(Broken("broken", draw_boxes(0)))
    for prefetch in (True, False):
        env = make_vec(2, prefetch=prefetch, split="test")
        env.reset()
        env.step(np.zeros((2, 4), np.float32))
        with pytest.raises(FrameError, match="frame 3 of 'broken'"):
            env.step(np.zeros((2, 4), np.float32))
        env.close()


def test_a_sequence_that_cannot_be_tracked_is_named_when_its_turn_comes(memory: Memory) -> None:
    empty = MemorySequence("empty", np.zeros((5, 4)))
    memory(MemorySequence("good", draw_boxes(0)), empty, MemorySequence("last", draw_boxes(1)))
    env = make_vec(1, split="test", autoreset_mode="disabled")
    env.reset()
    for _ in range(5):
        *_, infos = env.step(np.zeros((1, 4), np.float32))
    assert "auc" in infos
    with pytest.raises(ValueError, match="'empty'"):
        env.reset()
    assert env.reset()[1]["sequence"].tolist() == ["last"]
    env.close()
