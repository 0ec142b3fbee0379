"""Trackers that give results their context: static box, random walk, oracle, OpenCV's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slt_gym
from slt_gym.agents import Tracker
from slt_gym.agents.baselines import BASELINES, OracleTracker
from slt_gym.errors import CheckpointError, InvalidArgumentError, SltGymError
from slt_gym.geometry import get_geometry, iou

FRAME = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
BOX = [60.0, 40.0, 30.0, 24.0]


def draw(x: float, y: float) -> np.ndarray:
    frame = np.full((120, 160, 3), 90, np.uint8)
    frame[int(y) : int(y) + 24, int(x) : int(x) + 30] = (220, 40, 60)
    frame[int(y) + 8 : int(y) + 16, int(x) : int(x) + 30] = (20, 240, 60)
    return frame


def run(tracker: Tracker, frames: list[np.ndarray]) -> np.ndarray:
    if isinstance(tracker, OracleTracker):
        tracker.reveal(np.tile(BOX, (len(frames), 1)))
    tracker.init(frames[0], BOX)
    return np.array([tracker.update(frame) for frame in frames[1:]])


@pytest.mark.parametrize("name", ["oracle", "random-walk", "static"])
def test_a_second_run_gives_the_same_boxes(name: str) -> None:
    tracker = slt_gym.create_tracker(name)
    assert tracker.name == name
    frames = [draw(60 + 2 * t, 40 + t) for t in range(6)]
    first = run(tracker, frames)
    assert first.shape == (5, 4)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(run(tracker, frames), first)
    np.testing.assert_array_equal(run(slt_gym.create_tracker(name), frames), first)


def test_static_stays_and_random_walk_does_not() -> None:
    frames = [FRAME] * 30
    np.testing.assert_array_equal(
        run(slt_gym.create_tracker("static"), frames), np.tile(BOX, (29, 1))
    )
    walk = run(slt_gym.create_tracker("random-walk"), frames)
    steps = np.diff(walk[:, :2] + walk[:, 2:] / 2, axis=0)
    assert 1 < steps.std() < 6  # a tenth of 30x24 pixels
    still = run(slt_gym.create_tracker("random-walk", step=0.0, scale_step=0.0), frames)
    np.testing.assert_allclose(still, np.tile(BOX, (29, 1)))
    assert not np.array_equal(walk, run(slt_gym.create_tracker("random-walk", seed=1), frames))


@given(x=st.floats(-40, 150), y=st.floats(-40, 110), w=st.floats(4, 120), h=st.floats(4, 100))
@settings(deadline=None, max_examples=60)
def test_the_oracle_reaches_what_the_window_shows(x: float, y: float, w: float, h: float) -> None:
    geometry = get_geometry("transt")
    oracle = slt_gym.create_tracker("oracle")
    assert isinstance(oracle, OracleTracker)
    truth = np.array([x, y, w, h])
    oracle.reveal([BOX, truth])
    oracle.init(FRAME, BOX)
    answer = oracle.update(FRAME)
    window = geometry.search_window(BOX, (160, 120))
    centre = (truth[:2] + truth[2:] / 2 - [window.cx, window.cy]) / window.side
    inside = np.abs(centre).max() <= 0.5 and max(w, h) <= 2 * window.side
    allowed = geometry.limit(truth, (160, 120))
    if inside:
        np.testing.assert_allclose(answer, allowed, atol=1e-6)
    else:
        assert iou(answer, truth) <= iou(allowed, truth) + 1e-9


def test_the_oracle_stays_where_there_is_no_truth_and_says_what_it_needs() -> None:
    oracle = OracleTracker("transt-tiny")
    with pytest.raises(SltGymError, match=r"call reveal\(boxes\) before init"):
        oracle.init(FRAME, BOX)
    oracle.reveal([BOX, [np.nan] * 4, [0, 0, 0, 0]])
    oracle.init(FRAME, BOX)
    np.testing.assert_array_equal(oracle.update(FRAME), BOX)
    np.testing.assert_array_equal(oracle.update(FRAME), BOX)
    with pytest.raises(InvalidArgumentError, match="shown 3 boxes"):
        oracle.update(FRAME)


def test_mil_follows_a_moving_square() -> None:
    frames = [draw(60 + 2 * t, 40) for t in range(8)]
    boxes = run(slt_gym.create_tracker("opencv-mil"), frames)
    assert iou(boxes[-1], np.array([74.0, 40, 30, 24])) > 0.5


def test_a_lost_opencv_tracker_keeps_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = slt_gym.create_tracker("opencv-mil")
    tracker.init(FRAME, BOX)

    class Lost:
        def update(self, frame: np.ndarray) -> tuple[bool, tuple[int, ...]]:
            return False, (0, 0, 0, 0)

    monkeypatch.setattr(tracker, "_tracker", Lost())
    np.testing.assert_array_equal(tracker.update(FRAME), BOX)
    assert tracker.score == 0


@pytest.mark.parametrize(
    "box",
    [
        *([-10, -10, 30, 24], [150, 110, 30, 30], [-40, -40, 30, 24], [170, 40, 9, 9]),
        *(
            [5, 5, 1, 1],
            [50.5, 40.2, 3, 2.5],
            [159, 119, 1, 1],
            [0, 0, 160, 120],
            [-9, -9, 400, 300],
        ),
    ],
)
def test_mil_starts_anywhere(box: list[float]) -> None:
    """OpenCV fails with its own error outside the frame, and hangs on targets of a few pixels."""
    tracker = slt_gym.create_tracker("opencv-mil")
    tracker.init(FRAME, box)
    answer = tracker.update(FRAME)
    assert np.isfinite(answer).all()
    assert (answer[2:] > 0).all()
    if box[2] >= 160:
        np.testing.assert_array_equal(answer, box)
        assert tracker.score == 0


def test_nano_needs_its_files(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"backbone=… is not given"):
        slt_gym.create_tracker("opencv-nano")
    (tmp_path / "b.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"neckhead=… is no file: nowhere\.onnx"):
        slt_gym.create_tracker("opencv-nano", backbone=tmp_path / "b.onnx", neckhead="nowhere.onnx")


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidArgumentError, match="static has no weights"):
        slt_gym.create_tracker("static", weights="pretrained")
    with pytest.raises(InvalidArgumentError, match="static has no options, but 'step'"):
        slt_gym.create_tracker("static", step=1)
    with pytest.raises(InvalidArgumentError, match="option of random-walk 'stepp'"):
        slt_gym.create_tracker("random-walk", stepp=1)
    with pytest.raises(InvalidArgumentError, match=r"unknown tracker 'kcf'.*opencv-mil.*transt"):
        slt_gym.create_tracker("kcf")
    for name in set(BASELINES) - {"opencv-nano"}:
        with pytest.raises(SltGymError, match="update was called before init"):
            slt_gym.create_tracker(name).update(FRAME)
    for name in set(BASELINES) - {"opencv-nano", "oracle"}:
        with pytest.raises(InvalidArgumentError, match="box"):
            slt_gym.create_tracker(name).init(FRAME, [0, 0, -1, 5])
