"""Frames are decoded down to the search windows: everything is as with whole ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest
from same import assert_same

from slt_gym.data import ImageSequence
from slt_gym.data.jpeg import ReducedFrame
from slt_gym.envs.episode import EpisodeRules
from slt_gym.errors import FrameError
from slt_gym.geometry import TransTGeometry, base

ID = "slt_gym:SLTTrack-Folder-v0"
SIZE = 200, 640  # pixels
FRAMES = 14


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """High frames of noise, whose targets wander up and down."""
    root = tmp_path_factory.mktemp("partial") / "folder"
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        images = root / name / "img"
        images.mkdir(parents=True)
        y, boxes = 60.0, []
        for t in range(FRAMES):
            noise = rng.integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), np.uint8)
            cv2.imwrite(str(images / f"{t:04d}.jpg"), cv2.resize(noise, SIZE))
            boxes.append(f"{60 + 3 * t},{y:.1f},{30 + t},{24 + t}")
            y = float(np.clip(y + rng.uniform(-40, 60), 0, SIZE[1] - 40))
        (root / name / "groundtruth.txt").write_text("\n".join(boxes))
    return str(root)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """What is read: the frame's number, and whether only a part of it was decoded."""
    seen: list[tuple[int, bool]] = []
    read, read_reduced = ImageSequence.read, ImageSequence.read_reduced

    def watch(self: Any, t: int) -> Any:
        seen.append((t, False))
        return read(self, t)

    def watch_reduced(self: Any, t: int, *args: Any) -> ReducedFrame:
        part = read_reduced(self, t, *args)
        seen.append((t, part.rows < part.size[1]))
        return part

    monkeypatch.setattr(ImageSequence, "read", watch)
    monkeypatch.setattr(ImageSequence, "read_reduced", watch_reduced)
    return seen


def run(env: Any, steps: int, shape: tuple[int, ...] = (), form: str = "box") -> list[Any]:
    """Step with actions that jump about, far beyond what was read ahead."""
    rng = np.random.default_rng(1)
    results: list[Any] = [env.reset(seed=4)]
    for _ in range(steps):
        if form == "moves":
            action: Any = rng.integers(0, 11, shape) if shape else int(rng.integers(0, 11))
        else:
            action = rng.uniform(-0.5, 0.5, (*shape, 4)).astype(np.float32)
            action[..., 2:] -= 0.25
        result = env.step(action)
        results.append(result)
        if not shape and result[2]:
            results.append(env.reset())
    env.close()
    return results


def forbid_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpisodeRules, "follows_rows", lambda *_: False)


GEOMETRIES = ["transt-tiny", "siamrpnpp-tiny", "siamattn-tiny", "trdimp-tiny"]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(
    "more", [{}, {"restart": 2}, {"reduced_decode": True}, {"action": "delta"}], ids=str
)
def test_an_environment_shows_the_same(
    root: str, geometry: str, more: dict, reads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"root": root, "geometry": geometry, "num_frames": 7, **more}
    results = run(gym.make(ID, **settings).unwrapped, 30)
    assert sum(part for _, part in reads) > 5
    forbid_parts(monkeypatch)
    reads.clear()
    expected = run(gym.make(ID, **settings).unwrapped, 30)
    assert not any(part for _, part in reads)
    for ours, theirs in zip(results, expected, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"prefetch": False},
        {"tracks_per_clip": 2},
        {"tracks_per_clip": 4, "prefetch": False},
        {"tracks_per_clip": 2, "reduced_decode": True, "geometry": "trdimp-tiny"},
        {"tracks_per_clip": 2, "lost_after": 1, "autoreset_mode": "same_step"},
        {"tracks_per_clip": 2, "restart": 2},
        {"tracks_per_clip": 2, "action": "moves"},
        {"render_mode": "rgb_array"},
    ],
    ids=str,
)
def test_a_vector_environment_shows_the_same(
    root: str, more: dict, reads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"root": root, "geometry": "transt-tiny", "num_frames": 7, "threads": 2, **more}
    form = more.get("action", "box")
    results = run(gym.make_vec(ID, num_envs=4, **settings), 25, (4,), form)
    # Where tracks of a clip are on different frames, or whole frames are shown, none is in part.
    whole = more.keys() & {"restart", "action", "render_mode"}
    assert any(part for _, part in reads) != bool(whole)
    forbid_parts(monkeypatch)
    expected = run(gym.make_vec(ID, num_envs=4, **settings), 25, (4,), form)
    for ours, theirs in zip(results, expected, strict=True):
        assert_same(ours, theirs)


def test_tracks_with_other_windows_share_one_reading(root: str, reads: list) -> None:
    env = gym.make_vec(
        ID,
        num_envs=3,
        root=root,
        geometry="transt-tiny",
        num_frames=7,
        tracks_per_clip=3,
        prefetch=False,
        autoreset_mode="disabled",
    )
    env.reset(options={"sequence": "one", "start": 0})
    lower = np.array([[0, 0.1, -0.6, -0.6], [0, 0.3, -0.6, -0.6], [0, 0.2, -0.6, -0.6]], np.float32)
    for _ in range(3):
        env.step(lower)
    bottoms = [episode.window.bottom for episode in env.unwrapped.episodes]  # type: ignore[attr-defined]
    assert len(set(bottoms)) == 3
    env.close()
    # The template, whole, and the frames, down to the lowest window.
    assert Counter(reads) == {(0, False): 1, (1, True): 1, (2, True): 1, (3, True): 1, (4, True): 1}


def test_a_lower_window_than_was_read_ahead_is_shown(root: str, reads: list) -> None:
    env = gym.make_vec(ID, num_envs=1, root=root, geometry="transt-tiny", num_frames=7)
    env.reset(options={"sequence": "one", "start": 0})
    down = np.array([[0.0, 1.0, -0.7, -0.7]], np.float32)
    for _ in range(3):
        env.step(down)
    env.close()
    again = [t for t, count in Counter(t for t, _ in reads).items() if count > 1]
    assert again  # read ahead in vain


def test_who_looks_at_whole_frames_finds_them(root: str, reads: list) -> None:
    env = gym.make(ID, root=root, geometry="transt-tiny", num_frames=9).unwrapped
    env.reset(options={"sequence": "one", "start": 0})  # type: ignore[attr-defined]
    small = np.array([0, 0, -0.7, -0.7], np.float32)
    for _ in range(5):
        episode = env._episode  # type: ignore[attr-defined]
        assert episode.frames.frame(episode.next_frame).shape == (SIZE[1], SIZE[0], 3)
        env.step(small)
    # The first one was decoded in part before anyone asked, later ones are whole at once.
    assert [t for t, part in reads if part] == [1]
    assert Counter(t for t, _ in reads) == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}


class Grey(ImageSequence):
    def read(self, t: int) -> np.ndarray:
        return np.full_like(super().read(t), 100)


def test_sequences_with_a_reading_of_their_own_are_read_by_it(root: str) -> None:
    paths = sorted((Path(root) / "one" / "img").iterdir())
    sequence = Grey("grey", paths, np.full((FRAMES, 4), 20.0))
    assert (sequence.read_reduced(0, rows=20).pixels == 100).all()
    assert sequence.read_reduced(0, 2).factor == 1


class Peeking(TransTGeometry):
    """Looks below the window, and so does not say that it does not."""

    stays_in_window = False


def test_a_geometry_that_does_not_say_so_sees_whole_frames(
    root: str, reads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(base._GEOMETRIES, "peeking", Peeking(template_size=48, search_size=96))
    for make in (gym.make, gym.make_vec):
        env = make(ID, root=root, geometry="peeking", num_frames=7)
        env.reset(seed=0)
        shape = () if make is gym.make else (1,)
        for _ in range(6):
            env.step(np.zeros((*shape, 4), np.float32) - 0.3)
        env.close()
    assert reads
    assert not any(part for _, part in reads)


def test_a_damaged_file_is_told_of(root: str, tmp_path: Path) -> None:
    images = tmp_path / "folder" / "one" / "img"
    images.mkdir(parents=True)
    source = Path(root) / "one"
    for t, file in enumerate(sorted((source / "img").iterdir())):
        data = file.read_bytes()
        (images / file.name).write_bytes(data[: len(data) // 2] if t == 3 else data)
    boxes = (source / "groundtruth.txt").read_text()
    (images.parent / "groundtruth.txt").write_text(boxes)
    env = gym.make(ID, root=str(tmp_path / "folder"), geometry="transt-tiny", num_frames=7)
    env.reset(options={"sequence": "one", "start": 0})
    with pytest.raises(FrameError, match=r"cannot decode frame 3 of 'one'"):
        for _ in range(4):
            env.step(np.array([0, 0, -0.7, -0.7], np.float32))
