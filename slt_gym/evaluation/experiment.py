"""Does sequence-level training help? A base tracker, two controls and SLT on held-out sequences."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger, configure, make_output_format
from stable_baselines3.common.utils import get_device, set_random_seed

from slt_gym.agents import SLT, TrackerPolicy, pretrain, save_weights
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.processes import Processes
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.data import Sequence, SequenceDataset, open_dataset
from slt_gym.envs import draw_overlay
from slt_gym.errors import InvalidArgumentError, unknown
from slt_gym.evaluation.files import write_json
from slt_gym.evaluation.machine import describe_machine
from slt_gym.evaluation.metrics import paired_interval, success_curve
from slt_gym.evaluation.plots import plot_learning_curves, plot_success
from slt_gym.evaluation.tracking import SequenceResult, aucs, track_split
from slt_gym.evaluation.video import side_by_side, write_video
from slt_gym.geometry import iou, is_valid

DEFAULT_NUM_FRAMES = 24  # the environments' own
ROWS = ("base", "control", "on_policy_regression", "slt")


@dataclass(frozen=True)
class Experiment:
    """What is trained and how it is tested.

    Attributes:
        tracker: The tracker's name.
        weights: Of the base, as :func:`slt_gym.create_tracker` takes them; None is random, and
            trained by ``base`` where that is given.
        env_id: The environment.
        env_kwargs: Its arguments in training and test.
        train_kwargs: Its further arguments in training.
        test_kwargs: Its further arguments in the test; ``split`` among them.
        updates: SLT's iterations.
        slt: SLT's arguments; ``policy_kwargs`` among them adds to the policy's.
        base: Frame-level training of a base that has no weights; None leaves it random.
        control: Frame-level training of the control, for as long as SLT took.
        rows: Which rows to make, of ``base``, ``control``, ``on_policy_regression``, ``slt``.
        parallel: Sequences tested side by side.
        seed: Of everything.
        device: Where to train and test.
        checkpoint_interval: SLT's iterations between checkpoints.
        command: The command line that asked for it, for the record.
    """

    tracker: str
    weights: str | None
    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    train_kwargs: dict[str, Any] = field(default_factory=dict)
    test_kwargs: dict[str, Any] = field(default_factory=dict)
    updates: int = 100
    slt: dict[str, Any] = field(default_factory=dict)
    base: PretrainingConfig | None = None
    control: PretrainingConfig = field(default_factory=PretrainingConfig)
    rows: tuple[str, ...] = ROWS
    parallel: int = 16
    seed: int = 0
    device: str = "auto"
    checkpoint_interval: int = 100
    command: str | None = None


@dataclass
class TrainedRow:
    """One row's outcome.

    Attributes:
        policy: What was trained.
        seconds: Wall time of the training.
        updates: Optimizer steps.
        curve: Environment steps and greedy AUC on the training clips, one pair an update.
    """

    policy: TrackerPolicy
    seconds: float = 0.0
    updates: int = 0
    curve: list[list[float]] = field(default_factory=list)


def run_experiment(
    experiment: Experiment,
    folder: str | Path,
    *,
    resume: bool = False,
    progress_bar: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train the rows, test them on the same sequences, and fill a run's folder.

    Rows: ``base`` as it is; ``control``: the base after as much more time of frame-level training;
    ``on_policy_regression``: SLT with the policy term off; ``slt``.

    Under ``torchrun`` all processes train the two rows of SLT, and divide the test's sequences; the
    first one does the rest.

    Args:
        experiment: What to do.
        folder: Receives ``config.json``, ``weights/``, ``plots/``, ``videos/``, ``tensorboard/``
            and, last, ``results.json``; until then ``checkpoints/`` of SLT's rows.
        resume: Go on with what is in the folder: rows that were done, and SLT's checkpoints. The
            control, which has its time, begins again.
        progress_bar: Show them.
        say: Receives a line of text at each stage.

    Returns:
        What ``results.json`` holds; in other processes than the first, nothing.

    Raises:
        InvalidArgumentError: The experiment is not possible, or not the one in the folder.
    """
    folder, processes = Path(folder), Processes.join()
    if not processes.first:
        progress_bar, say = False, lambda text: None
    experiment = replace(experiment, device=str(processes.device(experiment.device)))
    _check(experiment, processes)
    if resume and (folder / "config.json").exists():
        _check_same(experiment, folder)
        if (folder / "results.json").exists():
            say(f"the run in {folder} is finished")
            return json.loads((folder / "results.json").read_text())
    # Everything that can be wrong shows here, before any output and before the base is trained.
    if {"slt", "on_policy_regression"} & {*experiment.rows}:
        _close(_make_slt(experiment))
    base = _make_policy(experiment)
    if processes.first:
        machine = {**describe_machine(str(base.device)), "processes": processes.count}
        write_json(folder / "config.json", {**asdict(experiment), **machine})
    trained = _train_rows(experiment, base, folder, processes, progress_bar, say)
    trained = {row: trained[row] for row in ROWS if row in trained}
    for row, outcome in trained.items() if processes.first else ():
        save_weights(
            outcome.policy.network,
            folder / "weights" / row,
            experiment.tracker,
            outcome.policy.overrides,
            experiment.command,
        )

    say("test")
    results = track_split(
        {row: outcome.policy for row, outcome in trained.items()},
        experiment.env_id,
        parallel=experiment.parallel,
        progress_bar=progress_bar,
        **{**experiment.env_kwargs, "geometry": experiment.tracker, **experiment.test_kwargs},
    )
    if not processes.first:
        return {}
    report = summarise(results, trained)
    report["seeds"] = [experiment.seed]
    _draw(experiment, folder, results, trained, report)
    report["machine"] = describe_machine(str(base.device))
    write_json(folder / "results.json", report)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return report


def _check(experiment: Experiment, processes: Processes) -> None:
    for row in experiment.rows:
        if row not in ROWS:
            raise unknown("row", row, ROWS)
    if "control" in experiment.rows and "slt" not in experiment.rows:
        raise InvalidArgumentError("row 'control' trains for as long as row 'slt' did: make both")
    if "control" in experiment.rows and processes.count > 1:
        raise InvalidArgumentError(
            "row 'control' trains in one process, which is not as long as SLT in "
            f"{processes.count}: leave it out"
        )
    for name in ("updates", "checkpoint_interval", "parallel"):
        if getattr(experiment, name) < 1:
            raise InvalidArgumentError(
                f"{name} is {getattr(experiment, name)}: it must be at least 1"
            )


def _check_same(experiment: Experiment, folder: Path) -> None:
    """Raise unless the run in ``folder`` was started with this experiment."""
    stored = json.loads((folder / "config.json").read_text())
    asked = json.loads(json.dumps(asdict(experiment), default=str))
    for key in asked.keys() - {"command", "device"}:
        if stored.get(key) != asked[key]:
            raise InvalidArgumentError(
                f"the run in {folder} was started with {key}={stored.get(key)!r}, which is now "
                f"{asked[key]!r}: give the arguments that it was started with"
            )


def summarise(
    results: Mapping[str, Mapping[str, SequenceResult]], trained: Mapping[str, TrainedRow]
) -> dict[str, Any]:
    """Compute each row's scores and the paired differences between rows.

    Args:
        results: By row, then by sequence.
        trained: By row.

    Returns:
        AUCs in 0…1; rows that were not made hold None; differences ``a_minus_b`` with the ends of
        their 95 % intervals.
    """
    report: dict[str, Any] = dict.fromkeys(ROWS)
    scores = {row: aucs(result) for row, result in results.items()}
    for row, result in results.items():
        curve = mean_curve(result)
        report[row] = {
            "auc": float(scores[row].mean()),
            "success_50": float(curve[10]),
            "success_75": float(curve[15]),
            "seconds": round(trained[row].seconds, 1),
            "updates": trained[row].updates,
        }
    pairs = [("slt", "base"), ("slt", "control"), ("slt", "on_policy_regression")]
    pairs += [("on_policy_regression", "base"), ("control", "base")]
    for a, b in pairs:
        if a in scores and b in scores:
            mean, low, high = paired_interval(scores[a], scores[b])
            report[f"{a}_minus_{b}"] = {"mean": mean, "low": low, "high": high}
    report["sequences"] = len(next(iter(scores.values())))
    report["per_sequence"] = {
        name: {row: round(result[name].auc, 6) for row, result in results.items()}
        for name in next(iter(results.values()))
    }
    return report


def mean_curve(results: Mapping[str, SequenceResult]) -> np.ndarray:
    """Return the mean of the sequences' success curves, shape ``(21,)``."""
    return np.mean([success_curve(result.ious) for result in results.values()], axis=0)


def _train_rows(
    experiment: Experiment,
    base: TrackerPolicy,
    folder: Path,
    processes: Processes,
    progress_bar: bool,
    say: Callable[[str], None],
) -> dict[str, TrainedRow]:
    if experiment.weights is None and experiment.base is not None:
        weights = folder / "weights" / "base"
        if processes.first and not weights.exists():
            say(f"base: {experiment.base.steps} steps of frame-level training")
            _train_base(experiment, base, folder, progress_bar)
        processes.gather(None)  # the others wait for it
        experiment = replace(experiment, weights=str(weights))
        base = _make_policy(experiment)
    trained = {"base": TrainedRow(base)}
    if "slt" in experiment.rows:
        say(f"SLT: {experiment.updates} updates")
        trained["slt"] = _train_slt(experiment, folder, "slt", progress_bar)
    if "on_policy_regression" in experiment.rows:
        say(f"on-policy regression only: {experiment.updates} updates")
        row = "on_policy_regression"
        trained[row] = _train_slt(experiment, folder, row, progress_bar, policy_weight=0)
    if "control" in experiment.rows:
        seconds = trained["slt"].seconds
        say(f"control: {seconds:.0f} s more of frame-level training")
        log = folder / "tensorboard" / "control"
        trained["control"] = _train_control(experiment, log, seconds, progress_bar)
    return trained


def _make_policy(experiment: Experiment) -> TrackerPolicy:
    env = gym.make(
        experiment.env_id,
        **{
            **experiment.env_kwargs,
            **experiment.test_kwargs,
            "geometry": experiment.tracker,
        },
    )
    set_random_seed(experiment.seed)  # SLT draws the same where there are no weights to load
    policy = TrackerPolicy(
        env.observation_space,
        env.action_space,
        tracker=experiment.tracker,
        weights=experiment.weights,
        seed=experiment.seed,
    )
    env.close()
    return policy.to(get_device(experiment.device))


def _train_slt(
    experiment: Experiment, folder: Path, row: str, progress_bar: bool, **changes: Any
) -> TrainedRow:
    """Train by SLT, from the row's checkpoint on if there is one."""
    checkpoint = folder / "checkpoints" / f"{row}.zip"
    if checkpoint.exists():
        model = SLT.load(checkpoint, device=experiment.device)
    else:
        model = _make_slt(experiment, **changes)
    if model.processes.first:
        model.set_logger(_open_logger(folder / "tensorboard" / row, model.iterations))
    kwargs = {**experiment.env_kwargs, **experiment.train_kwargs}
    tracked = kwargs.get("num_frames", DEFAULT_NUM_FRAMES) - 1
    steps = experiment.updates * model.n_clips * model.tracks_per_clip * tracked
    model.learn(
        steps - model.num_timesteps,
        reset_num_timesteps=False,
        progress_bar=progress_bar,
        checkpoint=checkpoint,
        checkpoint_interval=experiment.checkpoint_interval,
    )
    model.logger.close()
    _close(model)
    return TrainedRow(model.policy, model.seconds, model._n_updates, model.curve)


def _make_slt(experiment: Experiment, **changes: Any) -> SLT:
    settings = {**experiment.slt, **changes}
    policy_kwargs = {
        "tracker": experiment.tracker,
        "weights": experiment.weights,
        **settings.pop("policy_kwargs", {}),
    }
    return SLT(
        "TrackerPolicy",
        experiment.env_id,
        env_kwargs={
            **experiment.env_kwargs,
            **experiment.train_kwargs,
            "geometry": experiment.tracker,
        },
        policy_kwargs=policy_kwargs,
        seed=experiment.seed,
        device=experiment.device,
        **settings,
    )


def _close(model: SLT) -> None:
    assert model.env is not None
    model.env.close()


def _open_logger(folder: Path, iterations: int) -> Logger:
    """Return a logger that leaves the files of the run's earlier parts alone."""
    suffix = f"-{iterations}" if iterations else ""
    formats = [make_output_format(kind, str(folder), suffix) for kind in ("tensorboard", "csv")]
    return Logger(str(folder), formats)


def _train_base(
    experiment: Experiment, policy: TrackerPolicy, folder: Path, progress_bar: bool
) -> None:
    """Train a random network frame by frame, and save its weights."""
    assert experiment.base is not None
    config = replace(experiment.base, seed=experiment.seed)
    _pretrain(experiment, policy, config, folder / "tensorboard" / "base", progress_bar)
    save_weights(
        policy.network,
        folder / "weights" / "base",
        experiment.tracker,
        policy.overrides,
        experiment.command,
    )


def _train_control(
    experiment: Experiment, log: Path, seconds: float, progress_bar: bool
) -> TrainedRow:
    policy = _make_policy(experiment)
    config = replace(experiment.control, seconds=seconds, seed=experiment.seed)
    started = time.perf_counter()
    steps = _pretrain(experiment, policy, config, log, progress_bar)
    return TrainedRow(policy, time.perf_counter() - started, steps)


def _pretrain(
    experiment: Experiment,
    policy: TrackerPolicy,
    config: PretrainingConfig,
    log: Path,
    progress_bar: bool,
) -> int:
    """Train a policy's network frame by frame on the training data; return the steps it took."""
    dataset = _open({**experiment.env_kwargs, **experiment.train_kwargs}, experiment, "train")
    logger = configure(str(log), ["tensorboard", "csv"])
    steps = 0

    def record(step: int, losses: dict[str, float]) -> None:
        nonlocal steps
        steps = step
        if step % 50 == 0:
            for name, value in losses.items():
                logger.record(f"train/{name}", value)
            logger.dump(step)

    pretrain(
        policy.network,
        dataset,
        get_tracker_entry(experiment.tracker).geometry,
        config,
        device=str(policy.device),
        progress_bar=progress_bar,
        log=record,
        log_interval=1,
    )
    logger.close()
    return steps


def _open(kwargs: Mapping[str, Any], experiment: Experiment, split: str) -> SequenceDataset:
    """Open the dataset of an environment with these arguments."""
    spec = gym.spec(experiment.env_id.removeprefix("slt_gym:"))
    kwargs = {**spec.kwargs, "split": split, **kwargs}
    options = kwargs.get("dataset_options") or {}
    return open_dataset(kwargs["dataset"], kwargs.get("root"), kwargs["split"], **options)


def _draw(
    experiment: Experiment,
    folder: Path,
    results: Mapping[str, Mapping[str, SequenceResult]],
    trained: Mapping[str, TrainedRow],
    report: dict[str, Any],
) -> None:
    plot_success(
        {row: mean_curve(result) for row, result in results.items()},
        folder / "plots" / "success.png",
        f"{experiment.tracker}, {report['sequences']} held-out sequences",
    )
    curves = {row: outcome.curve for row, outcome in trained.items() if outcome.curve}
    plot_learning_curves(
        {row: ([x for x, _ in curve], [y for _, y in curve]) for row, curve in curves.items()},
        folder / "plots" / "learning_curve.png",
    )
    if "slt" not in results:
        return
    gain = {name: scores["slt"] - scores["base"] for name, scores in report["per_sequence"].items()}
    name = max(gain, key=gain.__getitem__)
    kwargs = {**experiment.env_kwargs, **experiment.test_kwargs}
    sequence = _open(kwargs, experiment, "test").get(name)
    tracks = {row: results[row][name] for row in ("base", "slt")}
    write_video(folder / "videos" / "base_vs_slt.mp4", _compare(sequence, tracks))
    report["video"] = {
        "sequence": name,
        "chosen": "the sequence where SLT gains most over the base",
        "gain": gain[name],
    }


def _compare(
    sequence: Sequence, tracks: Mapping[str, SequenceResult]
) -> Iterator[NDArray[np.uint8]]:
    """Draw two tracks of a sequence side by side, frame by frame."""
    first = int(np.flatnonzero(sequence.visible)[0])
    for i in range(len(next(iter(tracks.values())).boxes)):
        frame = sequence.read(first + i)
        gt_box = sequence.boxes[first + i]
        pictures = []
        for result in tracks.values():
            box = result.boxes[i]
            text = f"IoU {float(iou(box, gt_box)):.2f}" if sequence.visible[first + i] else "absent"
            pictures.append(
                draw_overlay(frame, gt_box if is_valid(gt_box) else None, box, None, text)
            )
        titles = [f"{row}  AUC {100 * result.auc:.1f}" for row, result in tracks.items()]
        yield side_by_side(pictures[0], pictures[1], (titles[0], titles[1]))
