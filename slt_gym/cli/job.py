"""The training scripts' common part: a command line, a comparison, a table."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import torch
import tyro

from slt_gym.agents.processes import Processes
from slt_gym.cli.arguments import choose_device, parse_options
from slt_gym.cli.run import run
from slt_gym.data.registry import find_name
from slt_gym.envs.registration import find_env_id
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.experiment import ROWS, Experiment, run_experiment
from slt_gym.evaluation.files import check_output_folder, next_run_folder

# GOT-10k and TrackingNet keep the annotations of their test parts to themselves.
_TEST_SPLITS = {"got10k": "val"}


@dataclass(frozen=True)
class Recipe:
    """How a tracker is trained.

    Attributes:
        tracker: The published network's name.
        synthetic: The comparison on procedural video, with a laptop-sized network.
        updates: SLT's updates as published.
        slt: SLT's arguments as published, where they are not its defaults.
        train: The environment's arguments in training as published.
    """

    tracker: str
    synthetic: Experiment
    updates: int
    slt: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Config:
    """What the training scripts take."""

    dataset: str = "synthetic"
    """synthetic: the whole comparison on procedural video; a dataset's name, or several with "+"
    between them, such as lasot+got10k+trackingnet: the paper's recipe; folder: the published
    network on a folder of sequences, in small clips."""
    root: str | None = None
    """The dataset's folder; by default $SLT_GYM_<DATASET>, then $SLT_GYM_DATA/<dataset>. Of
    several: the folder that holds them by lower-case name."""
    dataset_options: str = "{}"
    """More options of the training dataset, a JSON object; of several datasets such as
    '{"weights": [1, 1, 1], "options": {"trackingnet": {"chunks": [0, 1, 2, 3]}}}'."""
    weights: str | None = None
    """What training starts from: a published checkpoint or a folder of weights. The paper's recipe
    needs it; folder starts from random weights without it."""
    steps: int | None = None
    """SLT's updates; by default the recipe's (folder: 10)."""
    rows: tuple[Literal["base", "control", "on_policy_regression", "slt"], ...] | None = None
    """What to train and test (synthetic: all four; else base and slt)."""
    clips: int | None = None
    """Clips in an update; by default the recipe's (folder: 2)."""
    micro_batch: int | None = None
    """Clips in one backward pass, by default the recipe's; several processes need --clips to be a
    multiple of their number times it."""
    frames: int | None = None
    """Frames in a clip; by default the recipe's (folder: 8)."""
    test_frames: int | None = None
    """Frames of each test sequence; by default the recipe's (folder: 16), else all."""
    test_sequences: int | None = None
    """Test sequences (synthetic only)."""
    threads: int = 1
    """PyTorch's threads; decoding and cropping have threads of their own."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of clips, samples and initial weights."""
    output: Path | None = None
    """The run's folder, new or empty (default: runs/slt_<tracker>-<dataset>, numbered)."""
    resume: bool = False
    """Go on with the run in --output if it was cut short; begin it if there is none. The other
    arguments must be the same."""
    checkpoint_interval: int = 100
    """SLT's updates between checkpoints, from which a run goes on."""


def run_script(recipe: Recipe, description: str | None) -> None:
    """Run a training script: read its command line, train, test, and print the table.

    Args:
        recipe: The tracker's.
        description: The script's docstring, for ``--help``.
    """
    run(lambda: _train(recipe, tyro.cli(Config, description=description)))


def make_experiment(recipe: Recipe, config: Config) -> Experiment:
    """Return the experiment that a command line asks for.

    Raises:
        InvalidArgumentError: An argument does not go with the dataset.
    """
    made = _synthetic(recipe, config) if config.dataset == "synthetic" else _real(recipe, config)
    train, slt = dict(made.train_kwargs), dict(made.slt)
    if config.frames is not None:
        train["num_frames"] = config.frames
    if config.clips is not None:
        slt["n_clips"] = config.clips
    if config.micro_batch is not None:
        slt["micro_batch"] = config.micro_batch
    changes: dict[str, Any] = {"seed": config.seed, "device": config.device}
    changes["checkpoint_interval"] = config.checkpoint_interval
    changes["command"] = shlex.join(["python", *sys.argv])
    if config.steps is not None:
        changes["updates"] = config.steps
    if config.rows is not None:
        changes["rows"] = config.rows
    return dataclasses.replace(made, train_kwargs=train, slt=slt, **changes)


def _train(recipe: Recipe, config: Config) -> None:
    if config.threads < 1:
        raise InvalidArgumentError(f"--threads is {config.threads}: it must be at least 1")
    choose_device(config.device)
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)  # the environment's own threads do this work
    experiment = make_experiment(recipe, config)
    name = f"slt_{recipe.tracker}-{config.dataset}"
    if config.resume and config.output is None:
        raise InvalidArgumentError("--resume goes with --output, the folder of the run")
    processes = Processes.join()
    say = print if processes.first else lambda *_: None
    folder = processes.gather(config.output or next_run_folder(Path("runs") / name))[0]
    begun = config.resume and (folder / "config.json").exists()
    if processes.first and not begun:
        check_output_folder(folder)
    if experiment.weights is None and experiment.base is None:
        say(f"no --weights: {recipe.tracker} starts from random weights, which track nothing")
    report = run_experiment(
        experiment, folder, resume=config.resume, progress_bar=sys.stderr.isatty(), say=print
    )
    if processes.first:
        print(f"\n{table(report)}\n\nEverything is in {folder}")


def _synthetic(recipe: Recipe, config: Config) -> Experiment:
    for flag, value in (("--root", config.root), ("--dataset-options", config.dataset_options)):
        if value not in (None, "{}"):
            raise InvalidArgumentError(f"{flag} goes with data on disk: synthetic has no folder")
    made = recipe.synthetic
    options = dict(made.test_kwargs["dataset_options"])
    if config.test_frames is not None:
        options["num_frames"] = config.test_frames
    if config.test_sequences is not None:
        options["num_sequences"] = config.test_sequences
    return dataclasses.replace(
        made,
        weights=config.weights or made.weights,
        test_kwargs={**made.test_kwargs, "dataset_options": options},
    )


def _real(recipe: Recipe, config: Config) -> Experiment:
    names = [find_name(part.strip()) for part in config.dataset.split("+")]
    small = names == ["folder"]
    if config.weights is None and not small:
        raise InvalidArgumentError(
            f"--dataset {config.dataset} starts from published weights: give --weights "
            f"{recipe.tracker}.pth"
        )
    if config.test_sequences is not None:
        raise InvalidArgumentError("--test-sequences goes with synthetic: other datasets are whole")
    tested, root = names[0], config.root
    if len(names) > 1 and root is not None:
        root = str(Path(root) / tested)
    frames = {"num_frames": 8} if small else {}
    return Experiment(
        tracker=recipe.tracker,
        weights=config.weights,
        env_id=find_env_id(tested),
        train_kwargs={
            "dataset": "+".join(names),
            "root": config.root,
            "split": "train",
            "dataset_options": parse_options("--dataset-options", config.dataset_options),
            **recipe.train,
            **frames,
        },
        test_kwargs={
            "root": root,
            "split": _TEST_SPLITS.get(tested, "test"),
            "num_frames": 16 if small and config.test_frames is None else config.test_frames,
        },
        updates=10 if small else recipe.updates,
        slt={**recipe.slt, **({"n_clips": 2} if small else {})},
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
