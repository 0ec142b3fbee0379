"""Video files as sequences: random access, threads, processes, boxes beside them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import slt_gym  # noqa: F401  (registers the ids)
from slt_gym.data import open_dataset
from slt_gym.data.decoding import VideoDecoder, count_frames
from slt_gym.data.video import VideoDataset, VideoSequence
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

LENGTH = 30
BOX = [20.0, 10.0, 16.0, 12.0]


def write_video(path: Path, count: int = LENGTH, codec: str = "mp4v", fps: float = 25.0) -> Path:
    """Write a video of noise with a bright square that moves, so that every frame differs."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for t in range(count):
        frame = rng.integers(0, 90, (48, 64, 3), np.uint8)
        frame[10:22, 4 + t : 20 + t] = (250, 40, 40)  # blue, in OpenCV's order
        writer.write(frame)
    writer.release()
    return path


def play(path: Path) -> list[np.ndarray]:
    """Decode with OpenCV alone."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (result := capture.read())[0]:
        frames.append(result[1][..., ::-1])
    capture.release()
    return frames


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "ball.mp4")


@pytest.fixture(scope="module")
def frames(video: Path) -> list[np.ndarray]:
    return play(video)


@pytest.fixture
def sequence(video: Path) -> VideoSequence:
    (sequence,) = VideoDataset(video, box=BOX)
    assert isinstance(sequence, VideoSequence)
    return sequence


def test_frames_are_those_that_playing_gives(sequence: VideoSequence, frames: list[np.ndarray]):
    assert len(sequence) == len(frames) == LENGTH
    for t in range(LENGTH):
        np.testing.assert_array_equal(sequence.read(t), frames[t])
    # RGB, not BGR: the square is blue.
    assert frames[3][15, 12].argmax() == 2
    assert not np.array_equal(frames[3], frames[4])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.lists(st.integers(0, LENGTH - 1), max_size=12))
def test_any_order_gives_the_same(
    sequence: VideoSequence, frames: list[np.ndarray], order: list[int]
):
    for t in order:
        np.testing.assert_array_equal(sequence.read(t), frames[t])


def test_a_frame_is_the_callers_to_keep(sequence: VideoSequence, frames: list[np.ndarray]):
    sequence.read(5)[:] = 0
    np.testing.assert_array_equal(sequence.read(5), frames[5])
    np.testing.assert_array_equal(sequence.read(-1), frames[-1])
    with pytest.raises(IndexError):
        sequence.read(LENGTH)


def test_going_forwards_opens_the_file_once(sequence: VideoSequence, monkeypatch):
    opened = []

    class Counting(VideoDecoder):
        def __init__(self, path: Path) -> None:
            opened.append(self)
            super().__init__(path)

    monkeypatch.setattr("slt_gym.data.video.VideoDecoder", Counting)
    for t in (0, 0, 1, 4, 4, 20):
        sequence.read(t)
    assert len(opened) == 1
    sequence.read(3)  # back: from the start
    sequence.read(21)  # both places are kept
    sequence.read(5)
    assert len(opened) == 2
    for t in range(20, 10, -1):
        sequence.read(t)
    assert len(opened) == 11
    assert sum(place.decoder._capture.isOpened() for place in sequence._idle) == 4
    assert sum(decoder._capture.isOpened() for decoder in opened) == 4


def test_threads_may_share_a_sequence(sequence: VideoSequence, frames: list[np.ndarray]):
    def follow(start: int) -> bool:
        order = [*range(start, LENGTH), *range(0, LENGTH, 3)]
        return all(np.array_equal(sequence.read(t), frames[t]) for t in order)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(follow, range(0, 24, 2)))


def test_copies_open_the_file_themselves(sequence: VideoSequence, frames: list[np.ndarray]):
    sequence.read(7)
    copy = pickle.loads(pickle.dumps(sequence))
    assert (copy.name, len(copy), copy.path) == (sequence.name, LENGTH, sequence.path)
    np.testing.assert_array_equal(copy.boxes, sequence.boxes)
    np.testing.assert_array_equal(copy.read(8), frames[8])
    np.testing.assert_array_equal(sequence.read(8), frames[8])


def test_forks_do_not_share_a_place(sequence: VideoSequence, frames: list[np.ndarray]):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a system that forks")

    def read_on() -> None:
        ok = all(np.array_equal(sequence.read(t), frames[t]) for t in (3, 1, 20))
        os._exit(0 if ok else 1)

    sequence.read(2)
    child = multiprocessing.get_context("fork").Process(target=read_on)
    child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0
    np.testing.assert_array_equal(sequence.read(3), frames[3])


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mkv", "mp4v"), ("mov", "mp4v")])
def test_containers(tmp_path: Path, suffix: str, codec: str):
    path = write_video(tmp_path / f"a.{suffix}", 7, codec)
    (sequence,) = VideoDataset(path, box=BOX)
    assert len(sequence) == 7
    assert sequence.attributes["fps"] == pytest.approx(25)
    expected = play(path)
    for t in (6, 0, 3):
        np.testing.assert_array_equal(sequence.read(t), expected[t])


def test_only_the_first_box(sequence: VideoSequence):
    assert sequence.name == "ball"
    assert sequence.boxes[0].tolist() == BOX
    assert np.isnan(sequence.boxes[1:]).all()
    assert sequence.visible.tolist() == [True] + [False] * (LENGTH - 1)
    assert sequence.attributes["fps"] == pytest.approx(25)
    assert sequence.notes == ()


def test_a_folder_of_videos(tmp_path: Path):
    for name in ("a10", "a2", "alone"):
        write_video(tmp_path / f"{name}.mp4", 6)
    write_video(tmp_path / "A3.AVI", 6, "MJPG")
    (tmp_path / "a10.txt").write_text("1\t2\t3\t4\n" * 6)
    (tmp_path / "a2.txt").write_text("1,2,3,4\n0,0,0,0\nNaN,NaN,NaN,NaN\n1,2,3,4\n")
    (tmp_path / "A3.txt").write_text("4,26,8,30,14,24,10,20\n" * 8)
    (tmp_path / "notes.txt").write_text("no video\n")
    dataset = VideoDataset(tmp_path)
    assert dataset.names == ["A3", "a2", "a10"]
    polygons, short, whole = dataset
    assert polygons.boxes.tolist() == [[4, 20, 10, 10]] * 6
    assert polygons.notes == ("8 boxes for 6 frames: the last 2 are left out",)
    assert short.visible.tolist() == [True, False, False, True]
    assert short.notes == ("6 images for 4 frames: the last 2 are left out",)
    assert (len(whole), whole.notes) == (6, ())
    for split in ("train", "val", "test"):
        assert open_dataset("video", tmp_path, split).names == dataset.names
    with pytest.raises(InvalidArgumentError, match=r"box=.* for the folder"):
        VideoDataset(tmp_path, box=BOX)


def test_one_video_with_its_text(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "a.txt").write_text("1,2,3,4\n" * 4)
    assert VideoDataset(path)[0].visible.all()
    assert VideoDataset(path, box=BOX)[0].boxes[0].tolist() == BOX
    (tmp_path / "a.txt").write_text("1,2,3\n")
    with pytest.raises(AnnotationError, match=r"a\.txt, line 1"):
        VideoDataset(path)[0]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InvalidArgumentError, match=r"give the target .* box=\[x, y, w, h\]"):
        VideoDataset(path)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 0, 4], [1, 2, np.nan, 4], "1,2,3,4", [[1] * 4]])
def test_what_is_no_box(video: Path, box: object):
    with pytest.raises(InvalidArgumentError, match=r"is not a box: expected are four numbers"):
        VideoDataset(video, box=box)  # type: ignore[arg-type]


def test_what_is_no_video(tmp_path: Path, monkeypatch):
    with pytest.raises(
        DatasetNotFoundError, match=r"(?s)neither a folder nor a file.*<sequence>\.mp4"
    ):
        VideoDataset(tmp_path / "none.mp4")
    with pytest.raises(DatasetNotFoundError, match="holds no video with a text file"):
        VideoDataset(tmp_path)
    with pytest.raises(
        InvalidArgumentError, match="split of video 'dev': accepted are test, train"
    ):
        VideoDataset(tmp_path, "dev")
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"this is no video" * 99)
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(FrameError, match=r"garbage\.mp4: it is not a whole video"):
        VideoDataset(garbage, box=BOX)[0]
    assert cv2.utils.logging.getLogLevel() == level


def test_a_damaged_video_ends_where_it_is_damaged(tmp_path: Path):
    path = write_video(tmp_path / "a.avi", 12, "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    expected = play(path)
    assert 2 < len(expected) < 12
    count, fps = count_frames(path)
    assert count == len(expected)
    assert fps == pytest.approx(25)
    (sequence,) = VideoDataset(path, box=BOX)
    assert len(sequence) == count
    np.testing.assert_array_equal(sequence.read(count - 1), expected[-1])
    later = VideoSequence("a", path, np.ones((12, 4)))
    with pytest.raises(FrameError, match=rf"frame 11 of 'a', .*after frame {count - 1}"):
        later.read(11)
    np.testing.assert_array_equal(later.read(1), expected[1])


def test_an_environment_follows_a_video(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 12)
    boxes = [[4 + t, 10, 16, 12] for t in range(12)]
    np.savetxt(path.with_suffix(".txt"), boxes, delimiter=",")
    env = gym.make("SLTTrack-Video-v0", root=str(path), split="test", geometry="transt-tiny")
    _, info = env.reset(seed=0)
    assert info["sequence"] == "a"
    assert info["gt_box"].tolist() == boxes[0]
