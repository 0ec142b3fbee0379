"""What ``slt-gym evaluate`` and ``slt-gym report`` share: the protocols' help, and the outcome."""

from __future__ import annotations

from pathlib import Path

from slt_gym.data import SequenceDataset
from slt_gym.evaluation.protocols import PROTOCOLS
from slt_gym.evaluation.report import Report, write_report
from slt_gym.evaluation.report.tables import tabulate_scores, to_markdown
from slt_gym.evaluation.report.write import describe

PROTOCOL_HELP = f"Whose rule to score by: {', '.join(PROTOCOLS)}; official is the benchmark's own."


def publish(report: Report, dataset: SequenceDataset, folder: Path, clips: int) -> None:
    """Write a report, and print its scores and where it is.

    Args:
        report: The report.
        dataset: Where the clips' frames come from.
        folder: Made if it is missing.
        clips: Overlay clips on the page at most.

    Raises:
        InvalidArgumentError: ``clips`` is below 0.
        FrameError: A frame of a clip cannot be read.
    """
    page = write_report(report, dataset, folder, clips)
    print(f"{describe(report)}\n\n{to_markdown(tabulate_scores(report))}\n\nreport: {page}")
