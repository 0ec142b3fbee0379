"""``slt-gym evaluate``: run a tracker over a dataset, and report under the benchmark's own rule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from slt_gym.agents import list_trackers
from slt_gym.cli.arguments import choose_device, parse_options
from slt_gym.cli.reporting import PROTOCOL_HELP, publish
from slt_gym.data import list_datasets, open_dataset
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.ope import track_dataset
from slt_gym.evaluation.protocols import DEFAULT_PROTOCOL, find_rule
from slt_gym.evaluation.report import build_report
from slt_gym.evaluation.runner import TrackerRecipe, shard
from slt_gym.evaluation.submission import SERVERS

_TRACKER_HELP = (
    f"The tracker's name: {', '.join(list_trackers())}; or, with --algorithm, the path of a model "
    "that Stable-Baselines3 saved."
)
_DATASET_HELP = f"The dataset's name: {', '.join(list_datasets())}."


@dataclass(frozen=True)
class Arguments:
    """Run a tracker over a dataset, and report under the benchmark's own rule.

    Every sequence is tracked once, from the ground truth of its first frame. The folder
    RESULTS/<dataset>-<split>/<name>/ gets a file of boxes for each sequence as it is done, times/
    with the seconds of each frame, and report/ with the scores. After an interruption the same
    command continues. Neither the number of processes nor a restart changes a box (opencv-mil is
    seeded by the clock, and differs from run to run anyway).

    Several GPUs or machines: torchrun --nproc-per-node=N -m slt_gym.cli evaluate …

    Attributes:
        tracker: The tracker's name.
        dataset: The dataset's name.
        root: The dataset's folder; by default $SLT_GYM_<DATASET>, then $SLT_GYM_DATA/<dataset>.
        split: The dataset's split.
        dataset_options: More options of the dataset, a JSON object such as '{"width": 256}'.
        weights: A folder of weights, a published checkpoint's file, or "pretrained" for weights
            that ship with the package, which is the default.
        options: Fields of the tracker's configuration, a JSON object such as
            '{"window_influence": 0.5}'.
        algorithm: TRACKER is a saved model of this class: SLT, PPO, SAC, … of this library,
            Stable-Baselines3 or sb3-contrib, or module:Class.
        geometry: The geometry that a saved model was trained with, such as transt-tiny; SLT's
            know their own.
        action: The form of actions that a saved model was trained with.
        action_options: Their options, a JSON object.
        results: The folder for results.
        name: What to call the results; by default the tracker's name.
        sequences: Track these sequences only.
        protocol: Whose rule to score by.
        device: Where networks run: auto (a GPU if there is one), cpu, cuda, or cuda:1 and so on.
        workers: Processes; by default one per core of the CPU, and one on a GPU.
        clips: Overlay clips in the report at most.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    tracker: Annotated[Positional[str], arg(metavar="TRACKER", help=_TRACKER_HELP)]
    dataset: Annotated[Positional[str], arg(metavar="DATASET", help=_DATASET_HELP)]
    root: Annotated[str | None, arg(metavar="FOLDER")] = None
    split: str = "test"
    dataset_options: Annotated[str, arg(metavar="JSON")] = "{}"
    weights: Annotated[str | None, arg(metavar="PATH")] = None
    options: Annotated[str, arg(metavar="JSON")] = "{}"
    algorithm: Annotated[str | None, arg(metavar="CLASS")] = None
    geometry: Annotated[str | None, arg(metavar="NAME")] = None
    action: Annotated[str, arg(metavar="NAME")] = "box"
    action_options: Annotated[str, arg(metavar="JSON")] = "{}"
    results: Path = Path("results")
    name: Annotated[str | None, arg(metavar="NAME")] = None
    sequences: tuple[str, ...] = ()
    protocol: Annotated[str, arg(metavar="NAME", help=PROTOCOL_HELP)] = DEFAULT_PROTOCOL
    device: str = "auto"
    workers: int | None = None
    clips: int = 3
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Track, score, and print the scores.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is none; nothing is tracked.
        DatasetNotFoundError: The dataset is not there.
        CheckpointError: The weights cannot be read, or a network has none.
        AnnotationError: A sequence has no first box.
        FrameError: A frame cannot be read.
    """
    del command
    options = parse_options("--dataset-options", arguments.dataset_options)
    recipe = TrackerRecipe(
        arguments.tracker,
        arguments.weights,
        choose_device(arguments.device),
        parse_options("--options", arguments.options),
        arguments.algorithm,
        arguments.geometry,
        arguments.action,
        parse_options("--action-options", arguments.action_options),
    )
    # These speak before anything is tracked.
    find_rule(arguments.dataset, arguments.protocol)
    if arguments.clips < 0:
        raise InvalidArgumentError(f"--clips is {arguments.clips}: it must be at least 0")
    dataset = open_dataset(arguments.dataset, arguments.root, arguments.split, **options)
    label = arguments.name or recipe.label
    folder = arguments.results.expanduser() / f"{dataset.name}-{dataset.split}" / label
    sequences = arguments.sequences or None
    track_dataset(
        recipe,
        dataset,
        folder,
        root=arguments.root,
        dataset_options=options,
        sequences=sequences,
        workers=arguments.workers,
        progress_bar=arguments.progress_bar,
    )
    if shard()[0] != 0:
        return
    print(f"results: {folder}")
    if dataset.split == "test" and dataset.name in SERVERS:
        print(
            f"not scored: the ground truth of {dataset.name} {dataset.split} is its server's; for "
            f"a submission: slt-gym export {dataset.name} OUT.zip --results {folder}"
        )
        return
    report = build_report({label: folder}, dataset, arguments.protocol, sequences=sequences)
    publish(report, dataset, folder / "report", arguments.clips)
