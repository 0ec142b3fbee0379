"""Environments on mixtures, with another sampler, and with augmented clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from trees import MemorySequence, draw_boxes, draw_frame, write_folder

from slt_gym.data import AugmentationConfig, draw_clip
from slt_gym.envs import TrackingEnv, TrackingVectorEnv, box_to_action
from slt_gym.envs.frames import ClipFrames
from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import get_geometry

Memory = Callable[..., list[MemorySequence]]
SMALL: dict[str, Any] = {"geometry": "transt-tiny", "num_frames": 6}
WILD = {"shift": 0.2, "scale": 0.4, "colour_probability": 1.0, "blur_probability": 1.0}


def stay(env: gym.Env, observation: dict) -> tuple[dict, dict]:
    observation, _, _, _, info = env.step(box_to_action(observation["box"]))
    return observation, info


# Mixtures


def write_lasot(root: Path) -> None:
    """Write two training sequences and a test sequence in LaSOT's layout."""
    for i, name in enumerate(["cat-1", "cat-2", "dog-1"]):
        folder, boxes = root / name.split("-")[0] / name, draw_boxes(i)
        (folder / "img").mkdir(parents=True)
        for t, box in enumerate(boxes):
            cv2.imwrite(str(folder / "img" / f"{t + 1:08d}.jpg"), draw_frame(box, t)[..., ::-1])
        np.savetxt(folder / "groundtruth.txt", boxes, fmt="%.2f", delimiter=",")
        for flags in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flags).write_text(",".join(["0"] * len(boxes)))
    (root / "training_set.txt").write_text("cat-1\ncat-2\n")
    (root / "testing_set.txt").write_text("dog-1\n")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    base = tmp_path_factory.mktemp("base")
    write_lasot(base / "lasot")
    write_folder(base / "folder")
    return str(base)


def test_an_ids_dataset_may_be_a_mixture(base: str) -> None:
    env = gym.make(
        "SLTTrack-LaSOT-v0",
        dataset="lasot+folder",
        root=base,
        dataset_options={"weights": [1, 3]},
        **SMALL,
    )
    names = [env.reset(seed=i)[1]["sequence"] for i in range(60)]
    assert set(names) == {"lasot/cat-1", "lasot/cat-2", *(f"folder/video{i}" for i in range(3))}
    assert sum(name.startswith("folder/") for name in names) > 35
    env.reset(options={"sequence": "folder/video1"})
    # The spec, with its dict of roots, goes through JSON.
    roots = {"lasot": f"{base}/lasot", "folder": f"{base}/folder"}
    env = gym.make("SLTTrack-LaSOT-v0", dataset="lasot+folder", root=roots, **SMALL)
    json.loads(env.spec.to_json())
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    np.testing.assert_equal(again.reset(seed=4)[0], env.reset(seed=4)[0])


def test_a_mixture_runs_vectorized_and_is_walked(base: str) -> None:
    kwargs = {"dataset": "lasot+folder", "root": base, **SMALL}
    env = gym.make_vec("SLTTrack-LaSOT-v0", num_envs=2, **kwargs)
    _, infos = env.reset(seed=[0, 1])
    singles = [gym.make("SLTTrack-LaSOT-v0", **kwargs).reset(seed=i)[1] for i in range(2)]
    assert infos["sequence"].tolist() == [info["sequence"] for info in singles]
    env.close()
    walk = TrackingEnv(**kwargs, split="test")
    names = [walk.reset()[1]["sequence"] for _ in range(4)]
    assert names == ["lasot/dog-1", "folder/video0", "folder/video1", "folder/video2"]


def test_the_split_is_told(base: str) -> None:
    kwargs = {"dataset": "lasot", "root": f"{base}/lasot", **SMALL}
    env = TrackingEnv(**kwargs, dataset_options={"train_on_test": True})
    assert (env.split, env.reset(seed=0)[1]["sequence"]) == ("train", "dog-1")
    vector = TrackingVectorEnv(2, **kwargs, split="test")
    assert vector.split == "test"
    vector.close()


def test_whole_sequences_are_drawn_by_the_weights_too(base: str) -> None:
    options = {"weights": [1, 0]}
    env = TrackingEnv("lasot+folder", root=base, dataset_options=options, num_frames=None)
    names = {env.reset(seed=i)[1]["sequence"] for i in range(12)}
    assert names == {"lasot/cat-1", "lasot/cat-2"}


# Samplers


def test_the_pysot_sampler_takes_the_first_frame_as_template(memory: Memory) -> None:
    sequences = memory()
    env = TrackingEnv("memory", sampler="pysot", **SMALL)
    geometry = get_geometry("transt-tiny")
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        box = sequences[int(info["sequence"][1])].boxes[0]
        frame = draw_frame(box, 0)
        template = geometry.crop(
            frame,
            geometry.template_window(box),
            geometry.template_size,
            geometry.fill_colour(frame),
        )
        np.testing.assert_array_equal(observation["template"], template)


def test_padding_gives_no_reward(memory: Memory) -> None:
    memory(MemorySequence("short", draw_boxes(0, 4)))
    env = TrackingEnv("memory", sampler="pysot", reward="overlap", **SMALL)
    # The contiguous mode, from frame 0: four real frames and two of padding.
    observation, _ = env.reset(seed=0)
    rewards, visible = [], []
    for _ in range(5):
        observation, reward, terminated, _, info = env.step(box_to_action(observation["box"]))
        rewards.append(reward)
        visible.append(info["visible"])
    assert terminated
    assert visible == [True] * 3 + [False] * 2
    assert rewards[3:] == [0, 0]
    assert sum(rewards) == pytest.approx(info["overlap"])
    assert info["overlap"] > 0.3


@pytest.mark.parametrize("sampler", ["pytracking", "pysot"])
def test_stills_make_episodes(memory: Memory, sampler: str) -> None:
    memory(MemorySequence("still", draw_boxes(0, 1)))
    augment = {"mode": "padding", **WILD} if sampler == "pysot" else False
    env = TrackingEnv("memory", sampler=sampler, augment=augment, **SMALL)
    observation, first = env.reset(seed=0)
    boxes = [first["gt_box"]]
    for _ in range(5):
        observation, info = stay(env, observation)
        assert info["visible"] is True
        boxes.append(info["gt_box"])
    assert len(np.unique(boxes, axis=0)) == (6 if sampler == "pysot" else 1)


# Augmentation


def test_the_environment_shows_the_augmented_clip(memory: Memory) -> None:
    memory()
    env = TrackingEnv("memory", augment=WILD, render_mode="rgb_array", **SMALL)
    observation, info = env.reset(seed=5)
    twin = TrackingEnv("memory", **SMALL)
    clip = draw_clip(
        twin._source.dataset,
        seeding.np_random(5)[0],
        6,
        augmentation=AugmentationConfig(**WILD),
    )
    geometry = get_geometry("transt-tiny")
    frames = ClipFrames(clip, geometry)
    np.testing.assert_array_equal(observation["template"], frames.template)
    np.testing.assert_array_equal(info["gt_box"], clip.boxes[0])
    assert not np.array_equal(info["gt_box"], clip.sequence.boxes[clip.frames[0]])
    window = geometry.search_window(clip.boxes[0], frames.size)
    search = geometry.crop(clip.read(1), window, geometry.search_size, frames.fill)
    np.testing.assert_array_equal(observation["search"], search)
    # Rendering shows the frame as the policy gets it: its corner, which no box or text covers.
    _, info = stay(env, observation)
    picture, frame = env.render(), clip.read(1)
    scale = picture.shape[0] // frame.shape[0]
    corner = picture[-scale // 2 - 1, scale // 2]
    np.testing.assert_allclose(corner.astype(int), frame[-1, 0].astype(int), atol=8)
    np.testing.assert_array_equal(info["gt_box"], clip.boxes[1])


def test_threads_do_not_change_augmented_clips(memory: Memory) -> None:
    memory()
    config = {**WILD, "mode": "clip", "flip_probability": 0.5, "max_stride": 2}
    env = TrackingVectorEnv(4, "memory", augment=config, tracks_per_clip=2, threads=2, **SMALL)
    single = TrackingEnv("memory", augment=config, **SMALL)
    batch, _ = env.reset(seed=[3, 4, 8, 9])
    alone, _ = single.reset(seed=8)
    for _ in range(5):
        for key in alone:
            np.testing.assert_array_equal(batch[key][2], alone[key])
            np.testing.assert_array_equal(batch[key][3], alone[key])
        batch, *_ = env.step(box_to_action(batch["box"]))
        alone, _ = stay(single, alone)
    env.close()


def test_walked_and_chosen_clips_are_left_alone(memory: Memory) -> None:
    memory()
    plain = TrackingEnv("memory", split="test", **SMALL)
    augmented = TrackingEnv("memory", split="test", augment=True, **SMALL)
    np.testing.assert_equal(augmented.reset(seed=0), plain.reset(seed=0))
    options = {"sequence": "m1", "start": 2}
    plain, augmented = (TrackingEnv("memory", augment=a, **SMALL) for a in (False, True))
    np.testing.assert_equal(augmented.reset(options=options), plain.reset(options=options))


def test_whole_training_sequences_are_augmented(memory: Memory) -> None:
    (sequence,) = memory(MemorySequence("m0", draw_boxes(0)))
    env = TrackingEnv("memory", augment=WILD, geometry="transt-tiny", num_frames=None)
    _, info = env.reset(seed=0)
    assert not np.allclose(info["gt_box"], sequence.boxes[0], atol=0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sampler": "pysto"}, "unknown sampler 'pysto': .*did you mean 'pysot'"),
        ({"augment": 1}, "'augment' is 1: accepted are True, False and a dict"),
        ({"augment": {"shifts": 0}}, "unknown option of augmentation 'shifts'.*mean 'shift'"),
        ({"augment": {"mode": "padding"}}, "'pytracking' makes none: needed is sampler 'pysot'"),
    ],
)
def test_refuses_wrong_arguments(memory: Memory, kwargs: dict, message: str) -> None:
    memory()
    with pytest.raises(InvalidArgumentError, match=message):
        TrackingEnv("memory", **SMALL, **kwargs)
    with pytest.raises(InvalidArgumentError, match=message):
        TrackingVectorEnv(2, "memory", **SMALL, **kwargs)
