"""A whole benchmark: the jobs that are missing, then the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slt_gym.envs.sb3 import make_sb3_env
from slt_gym.errors import InvalidArgumentError, SltGymError
from slt_gym.evaluation.benchmark.algorithms import Algorithm
from slt_gym.evaluation.benchmark.job import Job
from slt_gym.evaluation.benchmark.processes import Outcome, run_jobs
from slt_gym.evaluation.benchmark.report import write_report
from slt_gym.evaluation.benchmark.settings import Benchmark
from slt_gym.evaluation.benchmark.summary import Row


def run_benchmark(
    benchmark: Benchmark,
    algorithms: Sequence[Algorithm],
    seeds: Sequence[int],
    folder: str | Path,
    *,
    workers: int | None = None,
    progress_bar: bool = False,
    say: Callable[[str], object] = lambda text: None,
    command: str | None = None,
) -> list[Row]:
    """Train and test each algorithm with each seed, in processes of their own, and report.

    Each job leaves ``jobs/<row>/seed-<seed>/`` with ``results.json``, ``log/`` and, of a learner,
    ``model.zip``, whole or not at all. Those that are there are kept: a benchmark that was
    interrupted goes on, and one with more seeds or rows adds them.

    Scripts call this under ``if __name__ == "__main__":``, since the processes import them.

    Args:
        benchmark: What the rows share.
        algorithms: The rows.
        seeds: From 0 up; rows whose result does not depend on it take the first one.
        folder: Where everything goes.
        workers: Processes at a time; by default one for each core.
        progress_bar: Show one, over all environment steps.
        say: Receives a line of text for each job that ends.
        command: The command line, for the record.

    Returns:
        The rows, those that start alike together, the best first.

    Raises:
        InvalidArgumentError: A setting is not accepted, or the folder holds results of another
            one; nothing is trained.
        SltGymError: A job failed; the others ran, and the report is about them.
    """
    folder = Path(folder).expanduser()
    jobs = plan_jobs(benchmark, algorithms, seeds, folder)
    workers = workers if workers is not None else os.cpu_count() or 1
    if workers < 1:
        raise InvalidArgumentError(f"the number of processes is {workers}: it must be at least 1")
    _check_env(benchmark, algorithms)
    missing = [job for job in jobs if job.find_result() is None]
    if len(missing) < len(jobs):
        say(f"{len(jobs) - len(missing)} of {len(jobs)} jobs are done already")
    failed = _run(missing, workers, progress_bar, say)
    results: dict[str, list[dict[str, Any]]] = {row.name: [] for row in algorithms}
    for job in jobs:
        result = job.find_result()
        if result is not None:
            results[job.algorithm.name].append(result)
    rows = []
    if any(results.values()):
        rows = write_report(benchmark, algorithms, results, folder, command)
    if failed:
        names = ", ".join(job.name for job in failed)
        raise SltGymError(
            f"{len(failed)} of {len(jobs)} jobs failed ({names}): see {folder / 'failures'}; the "
            "same command tries them again"
        )
    return rows


def plan_jobs(
    benchmark: Benchmark, algorithms: Sequence[Algorithm], seeds: Sequence[int], folder: Path
) -> list[Job]:
    """Return the jobs, all rows with the first seed first.

    Raises:
        InvalidArgumentError: There is no row or no seed, one twice, or a seed below 0.
    """
    names = [row.name for row in algorithms]
    for what, values in (("algorithm", names), ("seed", list(seeds))):
        if not values or len(set(values)) < len(values):
            raise InvalidArgumentError(
                f"the {what}s are {values}: needed is at least one, and each once"
            )
    for seed in seeds:
        if seed < 0:
            raise InvalidArgumentError(
                f"seed {seed} is below 0: accepted are whole numbers from 0 up"
            )
    return [
        Job(benchmark, row, seed, folder)
        for seed in seeds
        for row in algorithms
        if row.seeded or seed == seeds[0]
    ]


def _check_env(benchmark: Benchmark, algorithms: Sequence[Algorithm]) -> None:
    """Make each environment once: what is wrong with it shows before anything is trained."""
    made = set()
    for row in algorithms:
        row.check()
        key = (row.action, repr(row.action_options), repr(row.reward))
        if key in made:
            continue
        made.add(key)
        own = {"action": row.action, "action_options": row.action_options or None}
        train = {**benchmark.train_kwargs, "reward": row.reward}
        tests = [{"split": split} for split in (benchmark.val_split, benchmark.test_split)]
        for more in (train, *tests):
            kwargs: dict[str, Any] = {**benchmark.env_kwargs, **more, **own}
            make_sb3_env(benchmark.env_id, **kwargs).close()


def _run(
    jobs: Sequence[Job], workers: int, progress_bar: bool, say: Callable[[str], object]
) -> list[Job]:
    """Run jobs, and return those that failed."""
    failed: list[Job] = []
    total = sum(job.benchmark.steps for job in jobs if job.algorithm.learns)
    bar = tqdm(total=total, unit="step", disable=not progress_bar, desc=f"0/{len(jobs)} jobs")
    ended = 0

    def note(job: Job, outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        bar.set_description(f"{ended}/{len(jobs)} jobs")
        if isinstance(outcome, str):
            failed.append(job)
            say(f"{job.name}: failed: {outcome} (see {job.failure})")
        else:
            minutes = outcome["seconds"] / 60
            say(f"{job.name}: AUC {100 * outcome['auc']:.1f} %, {minutes:.1f} minutes of training")

    try:
        if jobs:
            run_jobs(jobs, min(workers, len(jobs)), note, bar.update)
    finally:
        bar.close()
    return [job for job in jobs if job in failed]
