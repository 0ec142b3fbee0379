"""The example's command line: wrong input is one line, and a small job leaves a run folder."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from slt_gym.agents import create_tracker
from slt_gym.cli.job import Config, make_experiment, run_script
from slt_gym.errors import InvalidArgumentError

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_slt_transt.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_slt_transt", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def start(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_paper_recipe_has_the_papers_constants(example):
    config = Config(dataset="lasot", root="somewhere", weights="transt.pth")
    experiment = make_experiment(example.RECIPE, config)
    assert experiment.tracker == "transt" and experiment.env_id == "SLTTrack-LaSOT-v0"
    assert experiment.updates == 15_000 and experiment.slt["n_clips"] == 8
    assert experiment.train_kwargs["num_frames"] == 24
    rate = experiment.slt["learning_rate"]
    assert rate(1.0) == 1e-5 and rate(0.18) == 1e-5 and rate(0.16) == pytest.approx(1e-6)
    assert experiment.test_kwargs == {"root": "somewhere", "split": "test", "num_frames": None}


def test_a_mixture_is_tested_on_its_first_part(example):
    config = Config(dataset="GOT-10k+lasot", root="all", weights="transt.pth")
    experiment = make_experiment(example.RECIPE, config)
    assert experiment.env_id == "SLTTrack-GOT10k-v0"
    assert experiment.train_kwargs["dataset"] == "got10k+lasot"
    assert experiment.train_kwargs["root"] == "all"
    assert experiment.test_kwargs["split"] == "val"
    assert Path(experiment.test_kwargs["root"]) == Path("all/got10k")


def test_command_line_changes_the_recipe(example):
    config = Config(dataset="folder", root="x", steps=2, clips=3, frames=5, seed=7)
    experiment = make_experiment(example.RECIPE, config)
    assert experiment.updates == 2 and experiment.seed == 7
    assert experiment.slt["n_clips"] == 3 and experiment.train_kwargs["num_frames"] == 5


def test_published_recipe_needs_weights(example):
    with pytest.raises(InvalidArgumentError, match="--weights"):
        make_experiment(example.RECIPE, Config(dataset="lasot", root="x"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "folder", "--root", "nowhere"], ["nowhere"]),
        (["--weights", "missing.pth"], ["missing.pth"]),
        (["--dataset", "lasot", "--weights", "x.pth", "--root", "."], ["cannot read lasot"]),
        (["--root", "here"], ["--root", "synthetic"]),
    ],
)
def test_wrong_input_is_one_line(arguments, words, tmp_path):
    done = start(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.slow
def test_folder_job_with_the_published_network(real_sequences, tmp_path):
    done = start(
        *("--dataset", "folder", "--root", str(real_sequences), "--steps", "2"),
        *("--clips", "1", "--frames", "3", "--test-frames", "3", "--output", "run"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    assert report["sequences"] == 4 and report["slt"]["updates"] == 2
    tracker = create_tracker("transt", weights=tmp_path / "run" / "weights" / "slt")
    assert sum(p.numel() for p in tracker.network.parameters()) == 23_016_006


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume"], "--resume goes with --output"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_what_no_run_can_do_is_refused(example, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(example.RECIPE, None)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_make_one_run_which_goes_on(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    small = ["--steps", "2", "--clips", "4", "--frames", "3", "--output", "run"]
    small += ["--test-sequences", "2", "--test-frames", "4", "--rows", "base", "slt"]
    small += ["--micro-batch", "2", "--checkpoint-interval", "1", "--resume"]
    reports = []
    for launch in ([], torchrun):
        folder = tmp_path / str(len(reports))
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, *launch, str(SCRIPT), *small],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Everything is in run") == 1
        reports.append(json.loads((folder / "run" / "results.json").read_text()))
        assert reports[-1]["slt"]["updates"] == 2
    one, two = (report["per_sequence"] for report in reports)
    for name in one:
        assert two[name] == pytest.approx(one[name], abs=0.02)
    again = start(*small, cwd=tmp_path / "0")
    assert again.returncode == 0
    assert "is finished" in again.stdout
