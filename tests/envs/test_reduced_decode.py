"""``reduced_decode``: the same episodes, seen through crops of smaller frames."""

from __future__ import annotations

from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest
from same import assert_same

from slt_gym.data.samples import Source, write_sample
from slt_gym.envs import TrackingEnv
from slt_gym.geometry import get_geometry

ID = "slt_gym:SLTTrack-Folder-v0"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Frames whose targets are large next to the crops."""
    root = tmp_path_factory.mktemp("reduced") / "folder"
    write_sample("folder", root, Source(2, 12, 480, 360, seed=3))
    return {"root": str(root), "geometry": "transt-tiny", "num_frames": 8, "action": "delta"}


def make(arguments: dict[str, Any], **more: Any) -> TrackingEnv:
    env = gym.make(ID, **{**arguments, **more}).unwrapped
    assert isinstance(env, TrackingEnv)
    return env


def run(env: Any, steps: int, batch: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
    """Step with actions that let the estimate grow and shrink."""
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=5)
    results = [({key: array.copy() for key, array in observation.items()}, info)]
    for _ in range(steps):
        action = rng.uniform(-0.3, 0.3, (4,)).astype(np.float32)
        results.append(env.step(np.broadcast_to(action, (*batch, 4))))
    return results


@pytest.mark.parametrize("geometry", ["transt-tiny", "siamrpnpp-tiny", "trdimp-tiny"])
def test_only_the_search_crops_grey_levels_differ(arguments: dict, geometry: str) -> None:
    whole = make(arguments, geometry=geometry)
    reduced = make(arguments, geometry=geometry, reduced_decode=True)
    differences, factors = [], set()
    for (first, *rest), (second, *others) in zip(run(whole, 7), run(reduced, 7), strict=True):
        a, b = first.pop("search").astype(float), second.pop("search").astype(float)
        differences.append(np.abs(a - b).mean())
        assert_same(second, first)
        assert_same(tuple(others), tuple(rest))
    for env in (whole, reduced):
        env.reset(seed=5)
        for _ in range(7):
            assert env._episode is not None
            factors.add(env.rules.part(env._episode.window)[0])
            env.step(np.zeros(4, np.float32))
    assert factors > {1}
    assert 0 < np.mean(differences) < 6


def test_threads_and_prefetch_change_nothing(arguments: dict) -> None:
    env = make(arguments, reduced_decode=True)
    expected = run(env, 7)
    for more in ({"threads": 1, "prefetch": False}, {"threads": 3}, {"tracks_per_clip": 2}):
        tracks = gym.make_vec(ID, num_envs=2, reduced_decode=True, **arguments, **more)
        for (observation, *_), (wanted, *_) in zip(run(tracks, 7, (2,)), expected, strict=True):
            assert_same({key: array[0] for key, array in observation.items()}, wanted)
        tracks.close()


def test_frames_that_are_drawn_stay_the_same() -> None:
    make_synthetic = lambda **more: gym.make(  # noqa: E731
        "slt_gym:SLTTrack-Synthetic-v0", geometry="transt-tiny", action="delta", **more
    )
    whole, reduced = run(make_synthetic(), 5), run(make_synthetic(reduced_decode=True), 5)
    assert_same(tuple(reduced), tuple(whole))


@pytest.mark.parametrize("name", ["transt-tiny", "siamattn-tiny", "trdimp-tiny"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_crops_lie_where_whole_ones_do(name: str, factor: int) -> None:
    geometry, size = get_geometry(name), (1536, 1152)
    texture = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    frame = cv2.resize(texture, size, interpolation=cv2.INTER_CUBIC)
    small = frame.reshape(size[1] // factor, factor, size[0] // factor, factor, 3).mean(axis=(1, 3))
    small = np.rint(small).astype(np.uint8)
    fill = geometry.fill_colour(frame)
    for x, y, w, h in [(768, 576, 60, 80), (751.3, 580.7, 81, 59), (20, 900, 90, 90)]:
        scale = 1.02 * factor * geometry.search_size
        scale /= geometry.search_window((x - w / 2, y - h / 2, w, h), size).side
        box = (x - scale * w / 2, y - scale * h / 2, scale * w, scale * h)
        arguments = geometry.search_window(box, size), geometry.search_size, fill
        whole = geometry.crop(frame, *arguments).astype(float)
        reduced = geometry.crop_reduced(small, factor, *arguments).astype(float)
        assert np.abs(whole - reduced).mean() < 3
        if x > 100:  # inside the frame
            # How far one lies beside the other, crop pixels: reduced = whole + slope * shift.
            slopes = np.stack([g.ravel() for g in np.gradient(whole, axis=(1, 2))], axis=1)
            shift, *_ = np.linalg.lstsq(slopes, (reduced - whole).ravel(), rcond=None)
            assert np.abs(shift).max() < 0.03
