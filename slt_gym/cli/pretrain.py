"""``slt-gym pretrain``: frame-level training of a tracker, the base of sequence-level training."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
from safetensors import SafetensorError
from torch.utils.tensorboard import SummaryWriter
from tyro.conf import AvoidSubcommands, Positional, arg

from slt_gym.agents.network import TrackerNetwork
from slt_gym.agents.pretraining import PretrainingConfig, pretrain
from slt_gym.agents.registry import TrackerEntry, get_tracker_entry, list_networks
from slt_gym.agents.weights import load_weights, read_config, resolve_weights, save_weights
from slt_gym.cli.arguments import choose_device, parse_options
from slt_gym.data import SequenceDataset, list_datasets, open_dataset
from slt_gym.data.pairs import PairConfig, PairSampler
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError, SltGymError
from slt_gym.evaluation.files import check_output_folder, write_json
from slt_gym.evaluation.machine import describe_machine

_TRACKER_HELP = f"The tracker's name: {', '.join(list_networks())}."
_DATASET_HELP = f"The dataset's name: {', '.join(list_datasets())}; synthetic needs no files; "
_DATASET_HELP += 'several with "+" between are a mixture.'
# PairConfig's fields, each None where the tracker's own is meant.
_Pairs: Any = dataclasses.make_dataclass(
    "_Pairs",
    [
        (
            name,
            Annotated[
                kind | None,
                arg(metavar=kind.__name__.upper(), help_behavior_hint="(default: the tracker's)"),
            ],
            field(default=None),
        )
        for name, kind in get_type_hints(PairConfig).items()
    ],
    frozen=True,
    namespace={"__doc__": PairConfig.__doc__},
)


@dataclass(frozen=True)
class Arguments:
    """Train a tracker on single pairs of frames, with its published losses.

    OUT becomes a run's folder: config.json (arguments, versions, seed), results.json (last mean
    losses, seconds), weights/ (for --weights of other commands) and tensorboard/. An interrupted
    run leaves no weights/ and no results.json.

    Attributes:
        tracker: The tracker's name.
        dataset: The dataset's name.
        out: The run's folder, new or empty.
        root: The dataset's folder; by default $SLT_GYM_<DATASET>, then $SLT_GYM_DATA/<dataset>.
        split: The dataset's split to train on, such as train or val; test is refused.
        dataset_options: More options of the dataset, a JSON object such as '{"width": 256}'.
        device: Where to train: auto (a GPU if there is one), cpu, cuda, or cuda:1 and so on.
        initial_weights: Start from these weights: a folder of weights, a published checkpoint's
            file, or "pretrained"; by default from random ones, drawn with --seed.
        log_interval: Steps between two entries in the TensorBoard log, each the means since.
        progress_bar: Show a progress bar with the rate and the remaining time.
        training: Constants of the training. --seed also draws the initial weights.
        pairs: How pairs are drawn and disturbed, each by default as published for the tracker.
    """

    tracker: Annotated[Positional[str], arg(metavar="TRACKER", help=_TRACKER_HELP)]
    dataset: Annotated[Positional[str], arg(metavar="DATASET", help=_DATASET_HELP)]
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    root: Annotated[str | None, arg(metavar="FOLDER")] = None
    split: str = "train"
    dataset_options: Annotated[str, arg(metavar="JSON")] = "{}"
    device: str = "auto"
    initial_weights: Annotated[str | None, arg(metavar="PATH")] = None
    log_interval: int = 50
    progress_bar: bool = True
    training: AvoidSubcommands[PretrainingConfig] = field(default_factory=PretrainingConfig)
    pairs: _Pairs = field(default_factory=_Pairs)


def execute(arguments: Arguments, command: str) -> None:
    """Train and write the run's folder.

    Args:
        arguments: The command's.
        command: The command line, which the weights carry.

    Raises:
        InvalidArgumentError: An argument is none; nothing is written.
        DatasetNotFoundError: The dataset is not there; nothing is written.
        CheckpointError: The initial weights do not fit; nothing is written.
        SltGymError: The losses were not finite, or the device's memory did not suffice.
    """
    out = arguments.out.expanduser()
    check_output_folder(out)
    _check_training(arguments)
    device = choose_device(arguments.device)
    entry = get_tracker_entry(arguments.tracker)
    dataset = _open(arguments)
    network, overrides = _build(entry, arguments)
    pairs = dataclasses.replace(network.pretraining_pairs, **_given(arguments.pairs))
    config = dataclasses.replace(arguments.training, pairs=pairs)
    arguments = dataclasses.replace(arguments, training=config)
    _probe(dataset, entry, config, pairs)

    write_json(out / "config.json", _describe(arguments, command, device))
    started = time.perf_counter()
    log = _Log(out / "tensorboard")
    try:
        pretrain(
            network,
            dataset,
            entry.geometry,
            config,
            device=device,
            progress_bar=arguments.progress_bar,
            log=log,
            log_interval=_interval(arguments),
        )
    except torch.cuda.OutOfMemoryError:
        raise SltGymError(
            f"{device} has too little memory for --batch-size {config.batch_size}: lower it"
        ) from None
    finally:
        log.close()
    seconds = time.perf_counter() - started
    if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
        raise _diverged("the weights are not finite after the last step")
    try:
        weights = save_weights(network, out / "weights", entry.name, overrides, command)
    except SafetensorError as error:  # What it makes of a full disk.
        raise OSError(f"cannot write the weights into {out}: {error}") from None
    results = {"seconds": round(seconds, 1), "steps_logged": log.step, "last_means": log.means}
    write_json(out / "results.json", results)
    loss = f", loss {log.means['loss']:.4f}" if log.means else ""
    print(f"trained {entry.name} for {seconds:.0f} s{loss}; its weights are in {weights}")


class _Log:
    """TensorBoard's log of the mean losses, which keeps the last ones."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))
        self.step = 0
        self.means: dict[str, float] = {}

    def __call__(self, step: int, means: dict[str, float]) -> None:
        self.step, self.means = step, dict(means)
        for name, value in means.items():
            self._writer.add_scalar(f"pretrain/{name}", value, step)
        if not math.isfinite(means["loss"]):
            raise _diverged(f"the loss is {means['loss']} before step {step}")

    def close(self) -> None:
        self._writer.close()


def _diverged(what: str) -> SltGymError:
    return SltGymError(
        f"{what}, no weights are written: try a lower --learning-rate or --max-grad-norm, or a "
        "longer --warmup-steps"
    )


def _interval(arguments: Arguments) -> int:
    # A short run gets one entry, so that its results have losses.
    return min(arguments.log_interval, arguments.training.steps)


def _check_training(arguments: Arguments) -> None:
    config, pairs = arguments.training, _given(arguments.pairs)
    at_least = [
        ("--log-interval", arguments.log_interval, 1),
        ("--steps", config.steps, 1),
        ("--batch-size", config.batch_size, 1),
        ("--threads", config.threads, 1),
        ("--warmup-steps", config.warmup_steps, 0),
        ("--seed", config.seed, 0),
        ("--weight-decay", config.weight_decay, 0),
        ("--final-learning-rate", config.final_learning_rate, 0),
    ]
    for name, low in (
        ("max_gap", 1),
        ("samples_per_pair", 1),
        ("pairs_per_sequence", 1),
        ("centre_jitter", 0),
        ("scale_jitter", 0),
        ("brightness_jitter", 0),
        ("template_shift", 0),
        ("search_shift", 0),
    ):
        if name in pairs:
            at_least.append((f"--{name.replace('_', '-')}", pairs[name], low))
    for flag, value, low in at_least:
        if not low <= value < math.inf:
            raise InvalidArgumentError(f"{flag} is {value}: it must be at least {low}")
    above_zero = [
        ("--learning-rate", config.learning_rate),
        ("--max-grad-norm", config.max_grad_norm),
        *([("--seconds", config.seconds)] if config.seconds is not None else []),
    ]
    for flag, number in above_zero:
        if not 0 < number < math.inf:
            raise InvalidArgumentError(f"{flag} is {number}: it must be above 0")
    for name, share in pairs.items():
        if name.endswith(("_probability", "_scale")) and not 0 <= share <= 1:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidArgumentError(f"{flag} is {share}: it must be from 0 to 1")


def _given(pairs: Any) -> dict[str, Any]:
    """Return what was typed of the pairs' options."""
    return {name: value for name, value in vars(pairs).items() if value is not None}


def _open(arguments: Arguments) -> SequenceDataset:
    if arguments.split == "test":
        raise InvalidArgumentError(
            "--split test: a tracker that was trained on the test split cannot be evaluated on it; "
            "accepted are train, val and the dataset's other splits, and, to do it all the same, "
            "--dataset-options '{\"train_on_test\": true}' with --split train"
        )
    options = parse_options("--dataset-options", arguments.dataset_options)
    for name in ("name", "root", "split"):
        if name in options:
            raise InvalidArgumentError(
                f"--dataset-options has {name!r}, which has its own argument"
            )
    return open_dataset(arguments.dataset, arguments.root, arguments.split, **options)


def _probe(
    dataset: SequenceDataset, entry: TrackerEntry, config: PretrainingConfig, pairs: PairConfig
) -> None:
    """Cut one batch, so that a dataset without frames speaks before anything is written."""
    if not len(dataset):
        raise DatasetNotFoundError(f"{dataset!r} of {dataset.name} holds no sequences")
    rows = min(config.batch_size, 4 * pairs.samples_per_pair)
    PairSampler(dataset, entry.geometry, rows, config.seed, pairs).batch(0)


def _build(entry: TrackerEntry, arguments: Arguments) -> tuple[TrackerNetwork, dict[str, Any]]:
    """Return the network and the fields of its configuration that differ from the defaults."""
    overrides: dict[str, Any] = {}
    weights = arguments.initial_weights
    if weights is not None and (folder := resolve_weights(weights, entry.name)).is_dir():
        overrides = read_config(folder).get("overrides") or {}
    # Networks draw their initial weights, and dropout its masks, from the global generator.
    torch.manual_seed(arguments.training.seed)
    network = entry.build(**overrides)
    if weights is not None:
        load_weights(network, weights, entry.name)
    if not network.pretraining_weights:
        raise InvalidArgumentError(
            f"{entry.name} has no losses for frame-level training: its network's "
            "pretraining_weights are empty"
        )
    return network, overrides


def _describe(arguments: Arguments, command: str, device: str) -> dict[str, Any]:
    return {
        "command": command,
        "arguments": dataclasses.asdict(arguments),
        "seed": arguments.training.seed,
        **describe_machine(device),
    }
