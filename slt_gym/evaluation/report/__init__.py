"""Reports: what trackers scored on a dataset, as a page, as tables and as data."""

from slt_gym.evaluation.report.build import Report, TrackerResult, build_report
from slt_gym.evaluation.report.write import write_report

__all__ = ["Report", "TrackerResult", "build_report", "write_report"]
