"""``slt-gym track``: the boxes and the video it writes, and its refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from slt_gym.agents import create_tracker, save_weights
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.cli import main
from slt_gym.cli.frame_source import open_source
from slt_gym.cli.track import parse_box
from slt_gym.data import Sequence, open_dataset
from slt_gym.errors import FrameError, InvalidArgumentError
from slt_gym.evaluation.video import write_video

LENGTH = 12


@pytest.fixture(scope="module")
def sequence() -> Sequence:
    return open_dataset("synthetic", split="test", width=128, height=96, num_frames=LENGTH)[3]


@pytest.fixture(scope="module")
def frames(sequence: Sequence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the sequence's frames, whose names only sort well by number."""
    folder = tmp_path_factory.mktemp("frames")
    for t in range(LENGTH):
        cv2.imwrite(str(folder / f"frame{t + 1}.png"), sequence.read(t)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = get_tracker_entry("transt-tiny").build()
    return save_weights(network, tmp_path_factory.mktemp("weights") / "random", "transt-tiny")


def box_text(sequence: Sequence, t: int = 0) -> str:
    return ",".join(f"{value:.2f}" for value in sequence.boxes[t])


def expected_boxes(sequence: Sequence, weights: Path, start: int = 0) -> NDArray[np.float64]:
    tracker = create_tracker("transt-tiny", weights)
    box = parse_box(box_text(sequence, start))
    tracker.init(sequence.read(start), box)
    updates = [tracker.update(sequence.read(t)) for t in range(start + 1, LENGTH)]
    return np.array([box, *updates])


@pytest.mark.parametrize("start", [0, 4])
def test_tracks_a_folder(
    start: int,
    sequence: Sequence,
    frames: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, video = tmp_path / "new" / "boxes.txt", tmp_path / "out.mp4"
    words = ["track", str(frames), "--box", box_text(sequence, start), "--start", str(start)]
    words += ["--weights", str(weights), "--output", str(output), "--video", str(video)]
    main([*words, "--device", "cpu"])
    rows = output.read_text().splitlines()
    assert rows[0] == ",".join(f"{float(v):.4f}" for v in box_text(sequence, start).split(","))
    boxes = np.loadtxt(output, delimiter=",")
    np.testing.assert_allclose(boxes, expected_boxes(sequence, weights, start), atol=1e-4)
    assert open_source(video).count == LENGTH - start
    printed = capsys.readouterr()
    assert f"tracked {LENGTH - start - 1} frames" in printed.out
    assert "frames per second" in printed.out
    assert "frame/s" in printed.err
    assert {path.name for path in tmp_path.rglob("*")} == {"new", "boxes.txt", "out.mp4"}


def test_tracks_a_video(
    sequence: Sequence, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "in.mp4", (sequence.read(t) for t in range(LENGTH)), fps=12.5)
    decoded = list(open_source(video).frames())
    output = tmp_path / "boxes.txt"
    words = ["track", str(video), "--box", box_text(sequence), "--weights", str(weights)]
    main([*words, "--output", str(output), "--video", str(tmp_path / "out.mp4"), "--device", "cpu"])
    tracker = create_tracker("transt-tiny", weights)
    tracker.init(decoded[0], parse_box(box_text(sequence)))
    expected = [parse_box(box_text(sequence)), *(tracker.update(frame) for frame in decoded[1:])]
    np.testing.assert_allclose(np.loadtxt(output, delimiter=","), expected, atol=1e-4)
    assert open_source(tmp_path / "out.mp4").fps == pytest.approx(12.5)
    assert "damaged" not in capsys.readouterr().out


def test_tracks_with_a_baseline(sequence: Sequence, frames: Path, tmp_path: Path) -> None:
    output = tmp_path / "boxes.txt"
    words = ["track", str(frames), "--box", box_text(sequence), "--tracker", "static"]
    main([*words, "--output", str(output), "--no-progress-bar"])
    first = parse_box(box_text(sequence))
    np.testing.assert_allclose(np.loadtxt(output, delimiter=","), [first] * LENGTH, atol=1e-4)


def test_folder_and_video_give_the_same_frames(sequence: Sequence, frames: Path) -> None:
    source = open_source(frames)
    assert (source.count, source.fps, source.is_video) == (LENGTH, 30.0, False)
    for t, frame in enumerate(source.frames(2), start=2):
        np.testing.assert_array_equal(frame, sequence.read(t))


def test_video_starts_exactly_where_asked(sequence: Sequence, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", (sequence.read(t) for t in range(LENGTH)))
    whole = list(open_source(video).frames())
    assert len(whole) == LENGTH
    # RGB, not BGR: a lossy codec stays near the frame it was given.
    assert np.abs(whole[0].astype(int) - sequence.read(0)).mean() < 12
    np.testing.assert_array_equal(next(open_source(video).frames(7)), whole[7])
    with pytest.raises(InvalidArgumentError, match="has 12 frames: accepted are 0 to 11"):
        next(open_source(video).frames(12))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--box", "1,2,3"], "is not a box"),
        (["--box", "1;2;3;4"], "is not a box"),
        (["--box", "1,2,0,4"], "is not a box"),
        (["--box", "1,2,nan,4"], "is not a box"),
        (["--box", "128,2,3,4"], "lies outside frame 0, which is 128x96"),
        (["--box", "-9,2,3,4"], "lies outside frame 0"),
        (["--box", "1,2,3,4", "--start", "12"], "has 12 frames: accepted are 0 to 11"),
        (["--box", "1,2,3,4", "--start", "-1"], "counted from 0"),
        (["--box", "1,2,3,4", "--video", "out.avi"], "must end in .mp4"),
        (["--box", "1,2,3,4", "--tracker", "transt"], "no weights of 'transt' ship"),
        (["--box", "1,2,3,4", "--tracker", "transd"], "did you mean 'transt'"),
        (["--box", "1,2,3,4", "--weights", "nowhere"], "there are no weights at nowhere"),
        (["--box", "1,2,3,4", "--output", "."], "is a folder"),
    ],
)
def test_wrong_input_leaves_nothing(
    more: list[str],
    message: str,
    frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["track", str(frames), *more])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="there is no"):
        open_source(tmp_path / "none")
    with pytest.raises(FrameError, match="holds no frames"):
        open_source(tmp_path)
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"this is no video" * 99)
    with pytest.raises(FrameError, match="not a whole video"):
        open_source(garbage)


def test_source_is_not_replaced(
    sequence: Sequence, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "in.mp4", [sequence.read(0)] * 2)
    before = video.read_bytes()
    words = ["track", str(video), "--box", box_text(sequence), "--weights", str(weights)]
    with pytest.raises(SystemExit):
        main([*words, "--video", str(video), "--output", str(tmp_path / "b.txt")])
    assert "would be replaced" in capsys.readouterr().err
    assert video.read_bytes() == before


def test_a_broken_frame_leaves_nothing(
    sequence: Sequence,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for t in range(4):
        cv2.imwrite(str(folder / f"{t}.png"), sequence.read(t)[..., ::-1])
    (folder / "3.png").write_bytes(b"broken")
    words = ["track", str(folder), "--box", box_text(sequence), "--weights", str(weights)]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--output", str(out / "b.txt"), "--video", str(out / "v.mp4")])
    assert stop.value.code == 2
    assert "cannot decode frame 3" in capsys.readouterr().err
    assert not list(out.iterdir())
