"""Train SLT-TransT and test it on held-out sequences.

Without arguments: the synthetic job. A laptop-sized TransT that ships with the package, trained
frame by frame until it had converged, is trained on procedural video by sequence-level training,
and compared with itself, with as much more time of frame-level training, and with sequence-level
training whose policy term is off. Needs no data, two cores and about ten minutes.

    python examples/train_slt_transt.py --dataset lasot --root DIR --weights transt.pth

is the paper's recipe (Kim et al., ECCV 2022) with the paper's constants, from the published
weights of TransT. ``--dataset folder`` takes any folder of sequences in OTB's layout, in small
clips that a laptop can do.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import torch
import tyro

from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.schedules import CosineSchedule, StepSchedule
from slt_gym.cli.run import run
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.experiment import ROWS, Experiment, run_experiment
from slt_gym.evaluation.files import check_output_folder, next_run_folder

# The synthetic job's constants were chosen on the split "val".
SYNTHETIC = Experiment(
    tracker="transt-tiny",
    weights="pretrained",
    env_id="SLTTrack-Synthetic-v0",
    train_kwargs={
        "num_frames": 17,
        "dataset_options": {"width": 256, "height": 192, "num_frames": 48},
    },
    test_kwargs={
        "split": "test",
        "dataset_options": {
            "width": 256,
            "height": 192,
            "num_frames": 41,
            "num_sequences": 200,
        },
    },
    updates=100,
    slt={
        "n_clips": 8,
        "micro_batch": 8,
        "learning_rate": CosineSchedule(4e-4, 1e-5, warmup=0.1),
        "reward_to_go": True,
        "policy_weight": 10.0,
        "max_grad_norm": 5.0,
    },
    # The base's last phase once more; its BatchNorm statistics stay, as in SLT.
    control=PretrainingConfig(learning_rate=4e-4, max_grad_norm=1.0, freeze_batch_norm=True),
    parallel=25,
)
# SLT-TransT as published: 120 epochs of 125 updates, a tenth of the rate after 100 of them.
PUBLISHED_SLT: dict[str, Any] = {"learning_rate": StepSchedule(1e-5, 0.1, 100 / 120)}
PUBLISHED_UPDATES = 120 * 125


@dataclass
class Config:
    """Train SLT-TransT and test it on held-out sequences."""

    dataset: Literal["synthetic", "folder", "lasot", "got10k"] = "synthetic"
    """synthetic: the whole comparison on procedural video; lasot, got10k: the paper's recipe;
    folder: the published network on a folder of sequences, in small clips."""
    root: str | None = None
    """The dataset's folder; by default $SLT_GYM_<DATASET>, then $SLT_GYM_DATA/<dataset>."""
    weights: str | None = None
    """What training starts from: a published checkpoint or a folder of weights. Needed with lasot
    and got10k; synthetic has its own, and folder starts from random weights without it."""
    steps: int | None = None
    """SLT's updates (synthetic: 100, folder: 10, lasot and got10k: 15000)."""
    rows: tuple[Literal["base", "control", "on_policy_regression", "slt"], ...] | None = None
    """What to train and test (synthetic: all four; else base and slt)."""
    clips: int | None = None
    """Clips in an update (folder: 2, else 8)."""
    frames: int | None = None
    """Frames in a clip (synthetic: 17, folder: 8, lasot and got10k: 24)."""
    test_frames: int | None = None
    """Frames of each test sequence (synthetic: 41, folder: 16; else all)."""
    test_sequences: int | None = None
    """Test sequences (synthetic only: 200)."""
    threads: int = 1
    """PyTorch's threads; decoding and cropping have threads of their own."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of clips, samples and initial weights."""
    output: Path | None = None
    """The run's folder, new or empty (default: runs/slt_transt-<dataset>, numbered)."""


def make_experiment(config: Config) -> Experiment:
    """Return the recipe that the command line asks for."""
    experiment = _synthetic(config) if config.dataset == "synthetic" else _real(config)
    train, slt = dict(experiment.train_kwargs), dict(experiment.slt)
    if config.frames is not None:
        train["num_frames"] = config.frames
    if config.clips is not None:
        slt["n_clips"] = config.clips
    changes: dict[str, Any] = {"seed": config.seed, "device": config.device}
    changes["command"] = shlex.join(["python", *sys.argv])
    if config.steps is not None:
        changes["updates"] = config.steps
    if config.rows is not None:
        changes["rows"] = config.rows
    return dataclasses.replace(experiment, train_kwargs=train, slt=slt, **changes)


def _synthetic(config: Config) -> Experiment:
    if config.root is not None:
        raise InvalidArgumentError(
            "--root goes with folder, lasot and got10k: synthetic has no folder"
        )
    options = dict(SYNTHETIC.test_kwargs["dataset_options"])
    if config.test_frames is not None:
        options["num_frames"] = config.test_frames
    if config.test_sequences is not None:
        options["num_sequences"] = config.test_sequences
    return dataclasses.replace(
        SYNTHETIC,
        weights=config.weights or SYNTHETIC.weights,
        test_kwargs={**SYNTHETIC.test_kwargs, "dataset_options": options},
    )


def _real(config: Config) -> Experiment:
    small = config.dataset == "folder"
    if config.weights is None and not small:
        raise InvalidArgumentError(
            f"--dataset {config.dataset} starts from published weights: give --weights transt.pth"
        )
    if config.test_sequences is not None:
        raise InvalidArgumentError("--test-sequences goes with synthetic: other datasets are whole")
    ids = {"folder": "Folder", "lasot": "LaSOT", "got10k": "GOT10k"}
    # GOT-10k keeps the annotations of its test part to itself.
    split = "val" if config.dataset == "got10k" else "test"
    test_frames = 16 if small and config.test_frames is None else config.test_frames
    return Experiment(
        tracker="transt",
        weights=config.weights,
        env_id=f"SLTTrack-{ids[config.dataset]}-v0",
        env_kwargs={"root": config.root},
        train_kwargs={"num_frames": 8 if small else 24},
        test_kwargs={"split": split, "num_frames": test_frames},
        updates=10 if small else PUBLISHED_UPDATES,
        slt={**PUBLISHED_SLT, "n_clips": 2 if small else 8},
        rows=("base", "slt"),
        parallel=4 if small else 16,
    )


def table(report: dict[str, Any]) -> str:
    """Return the rows and their differences as text."""
    lines = [f"{'':22}{'AUC %':>7}{'OP50 %':>8}{'OP75 %':>8}{'updates':>9}{'seconds':>9}"]
    for row in ROWS:
        if report[row] is not None:
            r = report[row]
            scores = (
                f"{100 * r['auc']:7.1f}{100 * r['success_50']:8.1f}{100 * r['success_75']:8.1f}"
            )
            lines.append(f"{row:22}{scores}{r['updates']:9d}{r['seconds']:9.0f}")
    lines.append(f"\nDifferences in AUC points, paired over {report['sequences']} sequences, 95 %:")
    for name, value in report.items():
        if "_minus_" in name:
            mean, low, high = (100 * value[key] for key in ("mean", "low", "high"))
            lines.append(
                f"{name.replace('_minus_', ' - '):44}{mean:+6.2f}  [{low:+.2f}, {high:+.2f}]"
            )
    return "\n".join(lines)


def main() -> None:
    """Run the job that the command line asks for."""
    config = tyro.cli(Config, description=__doc__)
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)  # the environment's own threads do this work
    experiment = make_experiment(config)
    folder = config.output or next_run_folder(Path("runs") / f"slt_transt-{config.dataset}")
    check_output_folder(folder)
    if experiment.weights is None:
        print("no --weights: TransT starts from random weights, which track nothing")
    report = run_experiment(experiment, folder, progress_bar=sys.stderr.isatty(), say=print)
    print(f"\n{table(report)}\n\nEverything is in {folder}")


if __name__ == "__main__":
    run(main)
