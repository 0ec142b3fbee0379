"""A rule's scores in percent, and what they are called."""

from __future__ import annotations

import numpy as np

from slt_gym.evaluation.rules import Rule
from slt_gym.evaluation.scoring import Measured

TITLES = {
    "success_auc": "AUC",
    "op50": "OP50",
    "op75": "OP75",
    "sr50": "SR 0.5",
    "sr75": "SR 0.75",
    "precision_20": "precision (20 px)",
    "norm_precision_020": "norm. precision (0.2)",
    "norm_precision_auc": "norm. precision (AUC)",
    "avg_overlap": "mean overlap",
    "ao": "AO",
    "coverage": "coverage",
    "success_trapz": "success",
    "precision_trapz": "precision",
    "norm_precision_trapz": "norm. precision",
}
_RANKED_BY = ("success_trapz", "success_auc", "ao")
_IN_PERCENT = ("coverage", "success_trapz", "precision_trapz", "norm_precision_trapz")


def percent_scores(measured: Measured) -> dict[str, float]:
    """Return what the rule reports in percent, by its keys, without the curves."""
    return {
        key: float(value) * (1 if key in _IN_PERCENT else 100)
        for key, value in measured.scores.items()
        if np.ndim(value) == 0
    }


def main_key(rule: Rule) -> str:
    """Return the key of the number that the rule's benchmark ranks by."""
    return next(key for key in _RANKED_BY if key in rule.reports)


def main_score(measured: Measured) -> float:
    """Return the number that the rule's benchmark ranks by, in percent."""
    return percent_scores(measured)[main_key(measured.rule)]
