"""Algorithms x seeds x one budget of environment steps on one environment."""

from slt_gym.evaluation.benchmark.algorithms import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    Algorithm,
    choose_algorithms,
)
from slt_gym.evaluation.benchmark.run import run_benchmark
from slt_gym.evaluation.benchmark.settings import Benchmark
from slt_gym.evaluation.benchmark.summary import Row

__all__ = [
    "ALGORITHMS",
    "DEFAULT_ALGORITHMS",
    "Algorithm",
    "Benchmark",
    "Row",
    "choose_algorithms",
    "run_benchmark",
]
