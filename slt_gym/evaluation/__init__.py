"""Metrics, tracking of whole datasets, reports, submissions, and the comparison of trackers.

Importing this package is light: PyTorch is imported by the first use of ``evaluate`` or ``Report``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slt_gym.evaluation.results import load_results
from slt_gym.evaluation.scoring import score

if TYPE_CHECKING:
    from slt_gym.evaluation.ope import evaluate
    from slt_gym.evaluation.report import Report

__all__ = ["Report", "evaluate", "load_results", "score"]


def __getattr__(name: str) -> Any:
    """Import the names that need PyTorch or Matplotlib on their first use."""
    if name == "evaluate":
        from slt_gym.evaluation.ope import evaluate  # noqa: PLC0415 (imports torch)

        return evaluate
    if name == "Report":
        from slt_gym.evaluation.report import Report  # noqa: PLC0415 (imports matplotlib)

        return Report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names beside the loaded ones."""
    return sorted({*globals(), *__all__})
