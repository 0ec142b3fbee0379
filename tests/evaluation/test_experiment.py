"""The comparison of base, controls and SLT, on a job of seconds."""

from __future__ import annotations

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import gymnasium as gym
import numpy as np
import pytest
import torch

from slt_gym.agents import SLT, TrackerPolicy, create_tracker, save_weights
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.processes import Processes
from slt_gym.agents.transt import transt_tiny
from slt_gym.data import open_dataset
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.experiment import ROWS, Experiment, run_experiment, summarise
from slt_gym.evaluation.metrics import success_auc
from slt_gym.evaluation.tracking import aucs, track_split
from slt_gym.geometry import iou

OPTIONS = {"num_frames": 12, "width": 160, "height": 120}
TEST = {"split": "test", "dataset_options": {**OPTIONS, "num_sequences": 5}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Random weights whose boxes keep about the target's size, so that tracks differ."""
    torch.manual_seed(3)
    network = transt_tiny()
    with torch.no_grad():
        network.bbox_embed.layers[2].bias[2:] = -1.1
    return save_weights(network, tmp_path_factory.mktemp("base") / "weights", "transt-tiny")


def policy(weights, seed=0):
    env = gym.make("SLTTrack-Synthetic-v0", geometry="transt-tiny", **TEST)
    made = TrackerPolicy(
        env.observation_space,
        env.action_space,
        tracker="transt-tiny",
        weights=str(weights),
        seed=seed,
    )
    env.close()
    return made


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    torch.set_num_threads(1)
    experiment = Experiment(
        tracker="transt-tiny",
        weights=str(base),
        env_id="SLTTrack-Synthetic-v0",
        train_kwargs={"num_frames": 4, "dataset_options": {**OPTIONS, "num_sequences": 6}},
        test_kwargs=TEST,
        updates=2,
        slt={"n_clips": 2, "learning_rate": 1e-3},
        control=PretrainingConfig(batch_size=4, threads=1),
        parallel=2,
    )
    folder = tmp_path_factory.mktemp("run") / "run"
    said = []
    report = run_experiment(experiment, folder, say=said.append)
    return folder, report, said


def test_track_split_gives_what_the_tracker_gives(base):
    results = track_split({"a": policy(base)}, "SLTTrack-Synthetic-v0", parallel=2, **TEST)["a"]
    dataset = open_dataset("synthetic", split="test", **TEST["dataset_options"])
    assert list(results) == dataset.names
    tracker = create_tracker("transt-tiny", weights=base)
    for sequence in dataset:
        tracker.init(sequence.read(0), sequence.boxes[0])
        boxes = [tracker.update(sequence.read(t)) for t in range(1, len(sequence))]
        np.testing.assert_allclose(results[sequence.name].boxes[1:], boxes, atol=1e-2)
        visible = sequence.visible[1:]
        overlaps = iou(np.array(boxes), sequence.boxes[1:])[visible]
        np.testing.assert_allclose(results[sequence.name].ious, overlaps, atol=1e-3)
        assert results[sequence.name].auc == success_auc(results[sequence.name].ious)


@pytest.mark.parametrize("parallel", [1, 3, 7])
def test_track_split_does_not_depend_on_the_sharding(base, parallel):
    one, two = policy(base), policy(base)
    with torch.no_grad():
        two.network.bbox_embed.layers[2].bias += 0.05
    together = track_split(
        {"one": one, "two": two}, "SLTTrack-Synthetic-v0", parallel=parallel, **TEST
    )
    alone = track_split({"two": two}, "SLTTrack-Synthetic-v0", parallel=2, **TEST)["two"]
    assert list(together["two"]) == list(alone)
    for name, result in alone.items():
        np.testing.assert_allclose(together["two"][name].boxes, result.boxes, atol=1e-2)
    assert not np.allclose(aucs(together["one"]), aucs(together["two"]))


def test_track_split_divides_the_sequences_among_processes(base, monkeypatch):
    alone = track_split({"a": policy(base)}, "SLTTrack-Synthetic-v0", parallel=2, **TEST)["a"]
    for count in (2, 7):  # of five sequences
        shared, local, barrier = {}, threading.local(), threading.Barrier(count)

        class OneOf(Processes):
            def gather(self, value, shared=shared, barrier=barrier):
                shared[self.rank] = value
                barrier.wait(60)
                return [shared[rank] for rank in range(self.count)]

        def run(rank, count=count, local=local, cls=OneOf):
            local.processes = cls(rank, count)
            return track_split({"a": policy(base)}, "SLTTrack-Synthetic-v0", parallel=2, **TEST)

        monkeypatch.setattr(Processes, "join", staticmethod(lambda local=local: local.processes))
        with ThreadPoolExecutor(count) as pool:
            results = list(pool.map(run, range(count)))
        tracked = [set(shared[rank][0]) for rank in range(count)]
        assert sorted(name for names in tracked for name in names) == sorted(alone)
        for result in results:
            assert list(result["a"]) == list(alone)
            for name, expected in alone.items():
                np.testing.assert_allclose(result["a"][name].boxes, expected.boxes, atol=1e-2)


def test_track_split_refuses_the_training_split(base):
    with pytest.raises(InvalidArgumentError, match="'val' and 'test'"):
        track_split({"a": policy(base)}, "SLTTrack-Synthetic-v0", split="train")


def test_run_folder_is_complete(run):
    folder, report, said = run
    assert json.loads((folder / "results.json").read_text()) == report
    config = json.loads((folder / "config.json").read_text())
    assert config["updates"] == 2 and config["versions"]["torch"] == torch.__version__
    for plot in ("success", "learning_curve"):
        picture = cv2.imread(str(folder / "plots" / f"{plot}.png"))
        assert picture.std() > 1
    video = cv2.VideoCapture(str(folder / "videos" / "base_vs_slt.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == OPTIONS["num_frames"]
    assert any(folder.glob("tensorboard/slt/events*"))
    assert any("SLT" in line for line in said)
    assert not list(folder.rglob(".*"))  # nothing half-written is left


def test_report_holds_four_rows_and_paired_differences(run):
    _, report, _ = run
    assert report["sequences"] == 5 and report["seeds"] == [0]
    for row in ROWS:
        scores = [sequence[row] for sequence in report["per_sequence"].values()]
        assert report[row]["auc"] == pytest.approx(np.mean(scores), abs=1e-5)
    for a, b in (("slt", "base"), ("slt", "control"), ("control", "base")):
        difference = report[f"{a}_minus_{b}"]
        assert difference["mean"] == pytest.approx(report[a]["auc"] - report[b]["auc"])
        assert difference["low"] <= difference["mean"] <= difference["high"]
    assert report["base"]["updates"] == 0 and report["slt"]["updates"] == 2
    # The control had as long as SLT: it stops with the first step that ends after that.
    assert report["control"]["seconds"] >= report["slt"]["seconds"] - 0.1
    assert report["control"]["updates"] >= 1


def test_weights_of_every_row_load_and_differ(run, base):
    folder, _, _ = run
    networks = {
        row: create_tracker("transt-tiny", weights=folder / "weights" / row).network for row in ROWS
    }
    tensors = {row: torch.cat([p.flatten() for p in n.parameters()]) for row, n in networks.items()}
    original = create_tracker("transt-tiny", weights=base).network
    assert torch.equal(tensors["base"], torch.cat([p.flatten() for p in original.parameters()]))
    for row in ROWS[1:]:
        assert not torch.equal(tensors["base"], tensors[row])
    assert not torch.equal(tensors["slt"], tensors["on_policy_regression"])


def test_rows_that_were_not_made_are_none(base):
    results = track_split({"base": policy(base)}, "SLTTrack-Synthetic-v0", parallel=2, **TEST)
    from slt_gym.evaluation.experiment import TrainedRow

    report = summarise(results, {"base": TrainedRow(policy(base))})
    assert report["slt"] is None and report["control"] is None
    assert not any("_minus_" in key for key in report)


def test_control_needs_slt_for_its_time(base, tmp_path):
    experiment = Experiment(
        "transt-tiny",
        str(base),
        "SLTTrack-Synthetic-v0",
        test_kwargs=TEST,
        rows=("base", "control"),
    )
    with pytest.raises(InvalidArgumentError, match="make both"):
        run_experiment(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_random_bases_are_what_slt_starts_from(tmp_path):
    experiment = Experiment(
        tracker="transt-tiny",
        weights=None,
        env_id="SLTTrack-Synthetic-v0",
        train_kwargs={"num_frames": 3, "dataset_options": {**OPTIONS, "num_sequences": 2}},
        test_kwargs=TEST,
        updates=1,
        slt={"n_clips": 1, "learning_rate": 0.0},
        rows=("base", "slt"),
        parallel=2,
        seed=5,
    )
    torch.manual_seed(99)  # whatever was drawn before
    report = run_experiment(experiment, tmp_path / "run")
    assert all(row["base"] == row["slt"] for row in report["per_sequence"].values())


def small_job(base, **changes):
    settings = {
        "train_kwargs": {"num_frames": 3, "dataset_options": {**OPTIONS, "num_sequences": 4}},
        "test_kwargs": {**TEST, "dataset_options": {**OPTIONS, "num_sequences": 2}},
        "updates": 3,
        "slt": {"n_clips": 1, "learning_rate": 1e-3},
        "rows": ("base", "slt", "on_policy_regression"),
        "parallel": 2,
        "checkpoint_interval": 1,
    }
    return Experiment("transt-tiny", str(base), "SLTTrack-Synthetic-v0", **{**settings, **changes})


def test_a_killed_run_gives_the_results_that_it_would_have_given(base, tmp_path, monkeypatch):
    expected = run_experiment(small_job(base), tmp_path / "whole")
    train, calls = SLT.train, []

    def die(self, rollout):
        calls.append(rollout)
        if len(calls) == 5:  # in the second row
            raise KeyboardInterrupt
        train(self, rollout)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SLT, "train", die)
        run_experiment(small_job(base), folder)
    assert not (folder / "results.json").exists()
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == ["on_policy_regression.zip", "slt.zip"]

    with pytest.raises(InvalidArgumentError, match="started with updates=3, which is now 4"):
        run_experiment(small_job(base, updates=4), folder, resume=True)
    report = run_experiment(small_job(base), folder, resume=True)
    assert report["per_sequence"] == expected["per_sequence"]
    assert report["on_policy_regression"]["updates"] == 3
    for row in ("slt", "on_policy_regression"):
        ours, theirs = (
            create_tracker("transt-tiny", weights=run / "weights" / row).network.state_dict()
            for run in (folder, tmp_path / "whole")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    # The parts of the log lie side by side; what a finished run does not need is gone.
    log = folder / "tensorboard" / "on_policy_regression"
    assert sorted(path.name for path in log.glob("*.csv")) == ["progress-1.csv", "progress.csv"]
    assert not (folder / "checkpoints").exists()
    said = []
    again = run_experiment(small_job(base), folder, resume=True, say=said.append)
    assert again == json.loads((folder / "results.json").read_text())
    assert said == [f"the run in {folder} is finished"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint_interval": 0}, "checkpoint_interval is 0"),
        ({"updates": 0}, "updates is 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"slt": {"n_clips": 0}}, "n_clips is 0"),
        ({"slt": {"baseline": "none"}}, "unknown baseline 'none'"),
        ({"slt": {"policy_kwargs": {"temprature": 1}}}, "did you mean 'temperature'"),
    ],
)
def test_arguments_are_checked_before_a_base_is_trained(base, tmp_path, changes, words):
    training = PretrainingConfig(seconds=3600)
    job = dataclasses.replace(small_job(base, **changes), weights=None, base=training)
    with pytest.raises(InvalidArgumentError, match=words):
        run_experiment(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_controls_are_checked_first(base, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "join", staticmethod(lambda: Processes(0, 2)))
    with pytest.raises(InvalidArgumentError, match="'control' trains in one process"):
        run_experiment(small_job(base, rows=("base", "slt", "control")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
