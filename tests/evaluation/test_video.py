"""MP4 files and frames side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.files import replacing
from slt_gym.evaluation.video import side_by_side, write_video


def read(path: Path) -> list[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(np.asarray(frame[..., ::-1], np.uint8))


def plain(colour: tuple[int, int, int], height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def test_frames_come_back_in_order_and_colour(tmp_path: Path) -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120)]
    path = write_video(tmp_path / "new" / "a.mp4", (plain(c) for c in colours), fps=24)
    frames = read(path)
    assert len(frames) == len(colours)
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame.astype(int) - colour).max() < 12
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(24)
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63)])
def test_odd_sizes_grow_by_their_edge(height: int, width: int, tmp_path: Path) -> None:
    (frame,) = read(write_video(tmp_path / "a.mp4", [plain((90, 160, 60), height, width)]))
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame.astype(int) - (90, 160, 60)).max() < 12


def test_failures_keep_the_earlier_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [plain((9, 9, 9))])
    before = path.read_bytes()

    def broken() -> Iterator[NDArray[np.uint8]]:
        yield plain((1, 2, 3))
        raise RuntimeError("decoder")

    with pytest.raises(RuntimeError, match="decoder"):
        write_video(path, broken())
    with pytest.raises(InvalidArgumentError, match="frame 1 has shape"):
        write_video(path, [plain((1, 2, 3)), plain((1, 2, 3), 50)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.mp4", [], 30, "no frames"),
        ("a.avi", [plain((0, 0, 0))], 30, r"must end in \.mp4"),
        ("a.mp4", [plain((0, 0, 0))], 0, "fps is 0"),
        ("a.mp4", [plain((0, 0, 0))], float("nan"), "fps is nan"),
        ("a.mp4", [np.zeros((4, 4), np.uint8)], 30, "needed is RGB uint8"),
        ("a.mp4", [np.zeros((4, 4, 3))], 30, "type float64"),
    ],
)
def test_wrong_input(
    name: str, frames: list[NDArray], fps: float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        write_video(tmp_path / name, frames, fps)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_noticed(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (20, 96, 128, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="disk full"):
            write_video(tmp_path / "a.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_replacing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("two")
        raise KeyError
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("size", [240, 480, 720])
def test_side_by_side_keeps_the_pictures_whole(size: int) -> None:
    left, right = plain((250, 40, 40), size, size + 50), plain((40, 40, 250), size - 20, size + 10)
    right = plain((40, 40, 250), max(240, size - 20), size + 10)
    both = side_by_side(left, right, ("base gjpq", "SLT"))
    assert both.dtype == np.uint8
    strip = both.shape[0] - size
    assert 0 < strip < 0.2 * size
    np.testing.assert_array_equal(both[strip:, : size + 50], left)
    top = both.shape[0] - size  # Strips have the height that their frame's size asks for.
    assert (both[top + 20 : top + 220, -(size + 10) :] == right[20:220]).all()
    titles = both[:strip].max(axis=(0, 2)) > 128
    assert titles[: size + 50].any()  # Something is written above each.
    assert titles[-(size + 10) :].any()


def test_side_by_side_enlarges_small_frames() -> None:
    both = side_by_side(plain((9, 9, 9), 96, 128), plain((9, 9, 9), 96, 128), ("a", "b"))
    assert both.shape[1] >= 2 * 3 * 128
    with pytest.raises(InvalidArgumentError, match="frame 1 has shape"):
        side_by_side(plain((9, 9, 9)), np.zeros((4, 4), np.uint8), ("a", "b"))
