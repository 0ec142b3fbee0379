"""Tracking a dataset once: result files, continuing after a stop, any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import slt_gym
from slt_gym.agents import Tracker
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.data import open_dataset
from slt_gym.errors import AnnotationError, CheckpointError, FrameError, InvalidArgumentError
from slt_gym.evaluation import Report, evaluate, load_results
from slt_gym.evaluation.dataset_scoring import read_truths, score_dataset
from slt_gym.evaluation.ope import track_dataset
from slt_gym.evaluation.runner import TrackerRecipe, longest_first

LENGTHS = {"short": 4, "long": 15, "middle": 9}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sequences of different lengths, as the Folder dataset reads them."""
    root = tmp_path_factory.mktemp("folder")
    for i, (name, length) in enumerate(LENGTHS.items()):
        folder = root / name / "img"
        folder.mkdir(parents=True)
        boxes = np.array([[20 + 2 * t, 15 + t, 20 + i, 16] for t in range(length)], float)
        for t, box in enumerate(boxes):
            frame = np.random.default_rng([i, t]).integers(0, 80, (80, 110, 3), np.uint8)
            x, y, w, h = box.astype(int)
            frame[y : y + h, x : x + w] = (40, 200, 90 + 40 * i)
            cv2.imwrite(str(folder / f"{t + 1:04d}.png"), frame)
        np.savetxt(root / name / "groundtruth.txt", boxes, fmt="%g", delimiter=",")
    return root


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*.txt"))}


def test_files_hold_what_the_tracker_answers(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    dataset = track_dataset("random-walk", "folder", out, root=root, workers=1)
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json", "long.txt", "middle.txt", "short.txt", "times",
    ]  # fmt: skip
    for sequence in dataset:
        tracker = slt_gym.create_tracker("random-walk")
        tracker.init(sequence.read(0), sequence.boxes[0])
        expected = [sequence.boxes[0]]
        expected += [tracker.update(sequence.read(t)) for t in range(1, len(sequence))]
        boxes = np.loadtxt(out / f"{sequence.name}.txt", delimiter=",")
        np.testing.assert_allclose(boxes, expected, atol=5.1e-5)
        times = np.loadtxt(out / "times" / f"{sequence.name}_time.txt")
        assert times.shape == (len(sequence),)
        assert (times > 0).all()
    config = json.loads((out / "config.json").read_text())
    assert config["tracker"]["name"] == "random-walk"
    assert config["dataset"] == "folder"
    assert config["root"] == str(root)


def test_evaluate_scores_what_was_tracked(root: Path, tmp_path: Path) -> None:
    report = evaluate("static", "folder", tmp_path / "a", root=root)
    assert isinstance(report, Report)
    assert (report.dataset, report.protocol) == ("folder", "official")
    assert list(report["static"].score.sequences) == ["long", "middle", "short"]
    boxes = load_results(tmp_path / "a")
    dataset = open_dataset("folder", root, "test")
    expected = score_dataset(read_truths(dataset, report.rule.name), boxes, report.rule.name)
    assert report["static"].score.scores["success_auc"] == expected.scores["success_auc"]
    # A made tracker, an opened dataset, another rule, a part.
    made = slt_gym.create_tracker("random-walk", step=0.0, scale_step=0.0)
    part = {"protocol": "got10k", "sequences": ["middle"]}
    report = evaluate(made, dataset, tmp_path / "b", **part)
    again = evaluate(TrackerRecipe("static"), dataset, tmp_path / "c", **part)
    assert report["random-walk"].score.scores["success_auc"] == pytest.approx(
        again["static"].score.scores["success_auc"]
    )
    with pytest.raises(InvalidArgumentError, match="unknown protocol 'otb'"):
        evaluate("static", dataset, tmp_path / "d", protocol="otb")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_processes_changes_nothing(root: Path, tmp_path: Path, workers: int) -> None:
    for name, count in (("one", 1), ("many", workers)):
        track_dataset("transt-tiny", "folder", tmp_path / name, root=root, workers=count)
    assert len(read_all(tmp_path / "one")) == 3
    assert read_all(tmp_path / "many") == read_all(tmp_path / "one")


def test_what_is_done_is_passed_over(root: Path, tmp_path: Path) -> None:
    track_dataset("static", "folder", tmp_path, root=root, workers=1, sequences=["middle"])
    marked = tmp_path / "middle.txt"
    text = marked.read_text().replace("20.0000", "21.0000", 1)
    marked.write_text(text)
    # Fewer rows than frames: not whole.
    (tmp_path / "long.txt").write_text("1,2,3,4\n")
    track_dataset("static", "folder", tmp_path, root=root, workers=1)
    assert marked.read_text() == text
    assert len(np.loadtxt(tmp_path / "long.txt", delimiter=",")) == LENGTHS["long"]


SCRIPT = """
import sys
from slt_gym.evaluation.ope import track_dataset
if __name__ == "__main__":
    print("go", flush=True)
    track_dataset("transt-tiny", "folder", sys.argv[2], root=sys.argv[1], workers=int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_and_run_again(root: Path, tmp_path: Path, workers: int) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    track_dataset("transt-tiny", "folder", whole, root=root)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), str(root), str(out), str(workers)]
    for delay in (1.0, 2.5, 4.0):
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        time.sleep(delay)
        # The parent alone the second time: its processes must end by themselves.
        if delay != 2.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    subprocess.run(words, check=True, capture_output=True)
    assert read_all(out) == read_all(whole)


def test_results_of_another_evaluation_are_left_alone(root: Path, tmp_path: Path) -> None:
    track_dataset("static", "folder", tmp_path, root=root, workers=1)
    with pytest.raises(
        InvalidArgumentError, match="holds results with tracker name 'static', and this run has 'or"
    ):
        track_dataset("oracle", "folder", tmp_path, root=root, workers=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InvalidArgumentError, match=r"holds something, but no config\.json"):
        track_dataset("static", "folder", other, root=root, workers=1)
    (other / "notes.txt").rename(other / ".config-1234.json")  # As a killed run leaves it.
    track_dataset("static", "folder", other, root=root, workers=1)
    assert len(read_all(other)) == 3


def test_weights_are_told_apart_by_their_content(tmp_path: Path) -> None:
    shipped = TrackerRecipe("transt-tiny")
    assert shipped.source == "pretrained"
    described = shipped.describe()
    assert len(described["sha256"]) == 64
    assert "device" not in described
    assert TrackerRecipe("static").describe()["sha256"] is None
    folder = get_tracker_entry("transt-tiny").pretrained
    assert folder is not None
    shutil.copytree(folder, tmp_path / "copy")
    copied = TrackerRecipe("transt-tiny", str(tmp_path / "copy"))
    assert copied.describe() == described
    (tmp_path / "copy" / "config.json").write_text("{}")
    assert copied.describe() != described


def test_recipes_that_contradict_themselves() -> None:
    with pytest.raises(InvalidArgumentError, match="'static' was given with geometry or action"):
        TrackerRecipe("static", geometry="transt")
    with pytest.raises(InvalidArgumentError, match=r"a\.zip is a saved model of PPO"):
        TrackerRecipe("a.zip", overrides={"window_influence": 0.4}, algorithm="PPO")
    assert TrackerRecipe("runs/a.b.zip", algorithm="PPO").label == "a.b"
    assert TrackerRecipe("mine.v2").label == "mine.v2"
    with pytest.raises(CheckpointError, match="no weights of 'transt' ship"):
        TrackerRecipe("transt").make()


def test_long_sequences_come_first(root: Path) -> None:
    dataset = open_dataset("folder", root, split="test")
    assert longest_first(dataset, dataset.names) == ["long", "middle", "short"]


def test_each_process_of_torchrun_takes_its_share(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slt_gym.evaluation.ope.wait_for_all", lambda world: None)
    shares = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        track_dataset("static", "folder", tmp_path, root=root)
        shares.append(set(read_all(tmp_path)))
    assert shares[0] == {"long.txt", "short.txt"}
    assert shares[1] == {"long.txt", "short.txt", "middle.txt"}


@pytest.mark.slow
def test_under_torchrun(root: Path, tmp_path: Path) -> None:
    track_dataset("transt-tiny", "folder", tmp_path / "one", root=root)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    subprocess.run(
        [sys.executable, *words, str(root), str(tmp_path / "two"), "1"],
        check=True,
        capture_output=True,
    )
    assert read_all(tmp_path / "two") == read_all(tmp_path / "one")


def test_wrong_input_leaves_nothing(root: Path, tmp_path: Path) -> None:
    def track(tracker: str | Tracker, **options: Any) -> None:
        track_dataset(tracker, "folder", tmp_path / "out", root=root, **options)

    with pytest.raises(InvalidArgumentError, match="sequence of folder test 'tall'"):
        track("static", sequences=["tall"])
    with pytest.raises(InvalidArgumentError, match="unknown tracker 'statik'"):
        track("statik")
    with pytest.raises(CheckpointError, match="no weights of 'transt' ship"):
        track("transt", workers=2)
    with pytest.raises(InvalidArgumentError, match="workers is 0"):
        track("static", workers=0)
    with pytest.raises(InvalidArgumentError, match="a made tracker stays in its process"):
        track(slt_gym.create_tracker("static"), workers=2)
    assert not (tmp_path / "out").exists()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InvalidArgumentError, match=r"config\.json is damaged"):
        track_dataset("static", "folder", tmp_path, root=root)


def test_a_broken_sequence_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "broken"
    folder.mkdir(parents=True)
    for t in range(3):
        cv2.imwrite(str(folder / f"{t}.png"), np.zeros((40, 50, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("0,0,0,0\n1,1,9,9\n1,1,9,9\n")
    with pytest.raises(AnnotationError, match="first frame of sequence 'broken' has no box"):
        track_dataset("static", "folder", tmp_path / "a", root=tmp_path / "data", workers=1)
    assert not (tmp_path / "a").exists()
    (folder / "groundtruth.txt").write_text("1,1,9,9\n1,1,9,9\n1,1,9,9\n")
    (folder / "1.png").write_bytes(b"no image")
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        with pytest.raises(FrameError, match="cannot decode frame 1 of 'broken'"):
            track_dataset("static", "folder", out, root=tmp_path / "data", workers=workers)
