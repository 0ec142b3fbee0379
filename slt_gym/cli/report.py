"""``slt-gym report``: compare trackers' result files on a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from slt_gym.cli.arguments import parse_options
from slt_gym.cli.reporting import PROTOCOL_HELP, publish
from slt_gym.data import SequenceDataset, list_datasets, open_dataset
from slt_gym.data.registry import find_name
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.protocols import DEFAULT_PROTOCOL
from slt_gym.evaluation.report import build_report
from slt_gym.evaluation.runner import read_config

_DATASET_HELP = (
    f"The dataset's name: {', '.join(list_datasets())}; by default what the first results are of, "
    "where slt-gym evaluate wrote them."
)


@dataclass(frozen=True)
class Arguments:
    """Compare trackers' result files on a dataset.

    RESULTS are folders or zip files of result files, one for each tracker, written by this library,
    pysot, PyTracking, OSTrack, the GOT-10k toolkit or LaSOT's: <sequence>.txt or
    <sequence>/<sequence>_001.txt, with commas, tabs or blanks. name=PATH gives one a name.

    OUT gets report.html (one file with everything), report.md, report.json, report.csv and plots.

    Attributes:
        results: The trackers' results.
        dataset: The dataset's name.
        root: The dataset's folder; by default where the first results' was, then
            $SLT_GYM_<DATASET>, then $SLT_GYM_DATA/<dataset>.
        split: The dataset's split; by default that of the first results, else test.
        dataset_options: More options of the dataset, a JSON object; by default those of the first
            results.
        out: The folder for the report.
        protocol: Whose rule to score by.
        rule: The name of a single rule instead, such as slt_fork_lasot (see the documentation).
        allow_missing: Score the sequences that a tracker has results for; otherwise it must have
            all.
        clips: Overlay clips in the report at most.
    """

    results: Annotated[Positional[tuple[str, ...]], arg(metavar="RESULTS")]
    dataset: Annotated[str | None, arg(metavar="NAME", help=_DATASET_HELP)] = None
    root: Annotated[str | None, arg(metavar="FOLDER")] = None
    split: Annotated[str | None, arg(metavar="NAME")] = None
    dataset_options: Annotated[str | None, arg(metavar="JSON")] = None
    out: Path = Path("report")
    protocol: Annotated[str, arg(metavar="NAME", help=PROTOCOL_HELP)] = DEFAULT_PROTOCOL
    rule: Annotated[str | None, arg(metavar="NAME")] = None
    allow_missing: bool = False
    clips: int = 3


def execute(arguments: Arguments, command: str) -> None:
    """Score the results and write the report.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is none.
        ResultsError: Results are missing or garbled, or the rule refuses them.
        DatasetNotFoundError: The dataset is not there.
    """
    del command
    results = name_results(arguments.results)
    dataset = _open_dataset(arguments, read_config(next(iter(results.values()))))
    report = build_report(
        results,
        dataset,
        arguments.protocol,
        rule=arguments.rule,
        allow_missing=arguments.allow_missing,
    )
    publish(report, dataset, arguments.out, arguments.clips)


def _open_dataset(arguments: Arguments, noted: dict[str, Any]) -> SequenceDataset:
    """Open the dataset that was asked for; what was not said is as noted with the results."""
    name = arguments.dataset or noted.get("dataset")
    if name is None:
        raise InvalidArgumentError(
            "give --dataset: the first results do not say what they are of (only those that "
            "slt-gym evaluate wrote do)"
        )
    if arguments.dataset is not None and noted.get("dataset") != find_name(arguments.dataset):
        noted = {}
    options = noted.get("dataset_options", {})
    if arguments.dataset_options is not None:
        options = parse_options("--dataset-options", arguments.dataset_options)
    root, split = arguments.root, arguments.split or noted.get("split", "test")
    if root is None and noted.get("root") and Path(noted["root"]).exists():
        root = noted["root"]
    return open_dataset(name, root, split, **options)


def name_results(words: tuple[str, ...]) -> dict[str, Path]:
    """Read words such as ``transt=results/lasot`` or ``results/transt``: paths by tracker.

    Raises:
        InvalidArgumentError: There are none, or two trackers have one name.
    """
    if not words:
        raise InvalidArgumentError("give the results of a tracker: a folder or a zip file")
    results: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).expanduser().exists():
            name, path = "", word
        place = Path(path).expanduser()
        name = name or place.resolve().name.removesuffix(".zip")
        if name in results:
            raise InvalidArgumentError(
                f"two results are called {name!r}: name them, such as {name}-2={path}"
            )
        results[name] = place
    return results
