"""``slt-gym data``: the check of a downloaded dataset, and its report."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tqdm import tqdm
from tyro.conf import Positional, arg

from slt_gym.cli.data_report import PartReport, Report
from slt_gym.data import SequenceDataset, open_dataset
from slt_gym.data.checking import Problem, check_dataset
from slt_gym.data.published import SEQUENCES, official_parts
from slt_gym.data.registry import find_name
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError, SltGymError, unknown
from slt_gym.evaluation.files import check_output_file, replacing, write_json

_DATASET_HELP = f"The dataset's name: {', '.join(SEQUENCES)}."


@dataclass(frozen=True)
class Arguments:
    """Look through a downloaded dataset for what is missing, damaged or wrong, and report it.

    Found are sequences that cannot be read, missing and superfluous frames, images that are
    unreadable, break off or change their size, and boxes that cannot be right. What the published
    files are known to have is listed apart. A partial download is no problem: the report says how
    much is there. The exit code is 1 if something is broken.

    Attributes:
        dataset: The dataset's name.
        root: The dataset's folder, or a pack's; by default $SLT_GYM_<DATASET>, then
            $SLT_GYM_DATA/<dataset>.
        split: The splits to check; by default all official ones that are there.
        report: Also write the report, as Markdown and as JSON: the path of one of the two files,
            .md or .json, the other one goes beside it.
        decode: The frames of each sequence to decode: all, the first, or none, which takes least
            time and only looks at names and annotations.
        workers: Threads; by default one for each core.
        show: Problems of each kind to list; the JSON file has all.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATASET", help=_DATASET_HELP)]
    root: Annotated[Positional[Path | None], arg(metavar="ROOT")] = None
    split: Annotated[tuple[str, ...], arg(metavar="SPLIT ...")] = ()
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    decode: Literal["all", "first", "none"] = "all"
    workers: int | None = None
    show: int = 20
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Check, print the report, and write it if a file is asked for.

    Args:
        arguments: The command's.
        command: The command line, which the report carries.

    Raises:
        InvalidArgumentError: An argument is none.
        DatasetNotFoundError: Nothing of the dataset is there.
        SltGymError: Something is broken; the report is printed and written before.
    """
    dataset = find_name(arguments.dataset)
    if dataset not in SEQUENCES:
        raise unknown("dataset to check", dataset, SEQUENCES)
    if arguments.show < 0:
        raise InvalidArgumentError(f"--show is {arguments.show}: it must be at least 0")
    report_file = arguments.report and arguments.report.expanduser()
    if report_file:
        for suffix in (".md", ".json"):
            check_output_file(report_file, (".md", ".json"))
            check_output_file(report_file.with_suffix(suffix))
    started = time.perf_counter()
    parts = [
        _check(opened, split, arguments)
        if isinstance(opened, SequenceDataset)
        else _explain(opened, split)
        for split, opened in _open(dataset, arguments).items()
    ]
    seconds = round(time.perf_counter() - started, 1)
    root = "" if arguments.root is None else str(arguments.root)
    report = Report(dataset, root, command, arguments.decode, seconds, parts)
    page = report.to_markdown(arguments.show)
    print(page, end="")
    if report_file:
        with replacing(report_file.with_suffix(".md")) as temporary:
            temporary.write_text(page, encoding="utf-8")
        write_json(report_file.with_suffix(".json"), dataclasses.asdict(report))
    if broken := report.summarise():
        raise SltGymError(f"{dataset} is not sound: {broken}")


def _open(dataset: str, arguments: Arguments) -> dict[str, SequenceDataset | SltGymError]:
    """Open the parts of a dataset, or tell why one of those that were not asked for cannot be."""
    if arguments.split:
        return {s: open_dataset(dataset, arguments.root, s) for s in arguments.split}
    opened: dict[str, SequenceDataset | SltGymError] = {}
    for split in official_parts(dataset):
        try:
            opened[split] = open_dataset(dataset, arguments.root, split)
        except SltGymError as error:
            opened[split] = error
    reasons = [reason for reason in opened.values() if isinstance(reason, SltGymError)]
    if len(reasons) == len(opened):
        raise reasons[0]
    return opened


def _explain(error: SltGymError, split: str) -> PartReport:
    """Report a part that cannot be opened: it may not be there, or be broken."""
    reason = str(error).splitlines()[0].removesuffix("; expected is a folder like")
    if isinstance(error, DatasetNotFoundError | InvalidArgumentError):
        return PartReport(split, absent=reason)
    return PartReport(split, problems=[Problem("part", split, reason)])


def _check(dataset: SequenceDataset, split: str, arguments: Arguments) -> PartReport:
    part = PartReport(split, len(dataset), SEQUENCES[dataset.name].get(split))
    for check in tqdm(
        check_dataset(dataset, arguments.decode, arguments.workers),
        desc=f"checking {dataset.name} {split}",
        total=len(dataset),
        unit="seq",
        disable=not arguments.progress_bar,
    ):
        part.frames += check.frames
        part.visible += check.visible
        part.decoded += check.decoded
        part.problems.extend(check.problems)
    return part
