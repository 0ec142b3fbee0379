"""What a tracking environment refuses, and what it says then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from trees import MemorySequence, draw_boxes

from slt_gym.envs import TrackingEnv
from slt_gym.errors import AnnotationError, InvalidArgumentError, SltGymError

Memory = Callable[..., list[MemorySequence]]


def make_env(**kwargs: Any) -> TrackingEnv:
    return TrackingEnv("memory", **{"geometry": "transt-tiny", "num_frames": 8, **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reward": "auk"}, r"unknown reward 'auk'.*auc, final_auc, giou.*did you mean 'auc'"),
        ({"action": "deltas"}, r"unknown action 'deltas': accepted are box, delta, moves, prop"),
        ({"geometry": "transtt"}, r"unknown geometry 'transtt'.*did you mean 'transt'"),
        ({"num_frames": 1}, r"'num_frames'.* is 1: accepted are whole numbers from 2 up"),
        ({"num_frames": 2.5}, r"'num_frames'.* is 2.5"),
        ({"num_frames": True}, r"'num_frames'.* is True"),
        ({"lost_after": 0}, r"'lost_after' is 0: accepted are whole numbers from 1 up"),
        ({"render_mode": "ansi"}, r"unknown render_mode 'ansi'"),
        ({"dataset_options": 3}, r"'dataset_options' is 3"),
        ({"rewards": "auc"}, r"keyword argument 'rewards'.*lost_after.*did you mean 'reward'"),
    ],
)
def test_refuses_wrong_arguments(memory: Memory, kwargs: dict, message: str) -> None:
    memory()
    with pytest.raises(InvalidArgumentError, match=message):
        make_env(**kwargs)


def test_refuses_a_split_that_the_dataset_does_not_have() -> None:
    with pytest.raises(InvalidArgumentError, match=r"synthetic.*'dev': accepted are test, train"):
        gym.make("SLTTrack-Synthetic-v0", split="dev")


def test_make_names_the_accepted_keywords() -> None:
    # A TypeError, in Python's words: TorchRL's GymEnv tries "frameskip", and reads the answer.
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'frames'.*num_frames") as e:
        gym.make("SLTTrack-Synthetic-v0", frames=3)
    assert isinstance(e.value, InvalidArgumentError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequences": "m0"}, r"unknown option of reset 'sequences'.*did you mean 'sequence'"),
        ({"reset_mask": np.ones(1, bool)}, r"unknown option of reset 'reset_mask'"),
        ({"start": 3}, r"option 'start' of reset.*'sequence'"),
        ({"sequence": "m9"}, r"unknown sequence of memory train 'm9'.*m0, m1, m2"),
        ({"sequence": "m0", "start": 13}, r"'start'=13.*'m0', which has 14 frames"),
        ({"sequence": "m0", "start": -1}, r"'start' of reset is -1"),
        ({"sequence": "m0", "stride": 0}, r"'stride' of reset is 0"),
        ({"sequence": "m0", "start": 5, "stride": 9}, r"another frame follows at stride 9"),
    ],
)
def test_refuses_wrong_options(memory: Memory, options: dict, message: str) -> None:
    memory()
    with pytest.raises(InvalidArgumentError, match=message):
        make_env().reset(options=options)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([np.nan, 0, 0, 0], r"is not finite"),
        ([0, np.inf, 0, 0], r"is not finite"),
        ([0, 0, 0], r"action has shape \(3,\): needed is \(4,\)"),
        ([[0, 0, 0, 0]], r"action has shape \(1, 4\)"),
        ("left", r"is not an array of numbers"),
    ],
)
def test_refuses_wrong_actions(memory: Memory, action: Any, message: str) -> None:
    memory()
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(InvalidArgumentError, match=message):
        env.step(action)
    env.step(np.zeros(4, np.float32))  # nothing has happened to the episode


@pytest.mark.parametrize("split", ["train", "test"])
def test_names_sequences_that_cannot_be_tracked(memory: Memory, split: str) -> None:
    boxes = np.zeros((5, 4))
    boxes[4] = [10, 10, 10, 10]
    memory(MemorySequence("last only", boxes))
    env = make_env(split=split, num_frames=None)
    with pytest.raises(AnnotationError, match=r"'last only' of memory .* fewer than 2 usable"):
        env.reset()


def test_start_must_be_visible(memory: Memory) -> None:
    boxes = draw_boxes(0)
    boxes[0] = np.nan
    memory(MemorySequence("late", boxes))
    with pytest.raises(InvalidArgumentError, match=r"'start'=0 .*'late'.*the first at 1"):
        make_env().reset(options={"sequence": "late", "start": 0})


def test_says_when_to_reset(memory: Memory) -> None:
    memory()
    env = make_env(render_mode="rgb_array")
    for call in (lambda: env.step(np.zeros(4)), env.render):
        with pytest.raises(ResetNeeded, match=r"call reset\(\) before"):
            call()
    env.reset(seed=0)
    for _ in range(7):
        env.step(np.zeros(4))
    with pytest.raises(ResetNeeded, match=r"has ended: call reset\(\)"):
        env.step(np.zeros(4))


def test_missing_data_is_said_at_once(tmp_path: Any) -> None:
    with pytest.raises(SltGymError, match="nowhere"):
        gym.make("SLTTrack-LaSOT-v0", root=str(tmp_path / "nowhere"))


def test_close_twice(memory: Memory) -> None:
    memory()
    env = make_env()
    env.reset(seed=0)
    env.close()
    env.close()
