"""``slt-gym benchmark``: algorithms x seeds on one environment, and the table."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm
from tyro.conf import arg

from slt_gym.cli.arguments import choose_device, parse_options
from slt_gym.evaluation.benchmark import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    Benchmark,
    choose_algorithms,
    run_benchmark,
)
from slt_gym.evaluation.benchmark.settings import SYNTHETIC
from slt_gym.evaluation.benchmark.summary import tabulate_rows
from slt_gym.evaluation.report.tables import to_markdown

_DEFAULT = Benchmark()
_ALGORITHMS_HELP = (
    f"The table's rows: {', '.join(ALGORITHMS)}; module:Class, or name=module:Class, for another "
    "algorithm with Stable-Baselines3's interface."
)


@dataclass(frozen=True)
class Arguments:
    """Train algorithms with several seeds on one environment, and compare them.

    Every learner gets the same number of environment steps, and is tested on the same held-out
    sequences, whole. Each algorithm and seed is a process of its own, and leaves a folder
    OUTPUT/jobs/<algorithm>/seed-<seed>/ whole or not at all: after an interruption the same command
    continues, and with more seeds or algorithms it adds them. A job that fails is reported and does
    not stop the others.

    OUTPUT gets table.md, report.html and report.md, results.json and plots/ with learning curves.

    Attributes:
        algorithms: The table's rows.
        seeds: How many seeds, from --first-seed on.
        first_seed: The first seed.
        steps: Environment steps that each learner may take in training, those of all tracks.
        jobs: Processes at a time; by default one for each core.
        set: Changes of settings, such as ppo.learning_rate=3e-4 or
            slt.policy_kwargs.weights=PATH; also sac.action, .reward, .n_envs, .policy, .features.
        env: The environment.
        env_kwargs: Its arguments in training and test, a JSON object; by default small frames of
            synthetic video, of other environments '{"geometry": "transt-tiny"}'.
        train_kwargs: Its further arguments in training, a JSON object.
        evaluations: Points of the learning curve after the untrained policy's.
        val_split: The split of the learning curve's sequences.
        val_sequences: Their number, from the first one on.
        test_split: The split of the final test's sequences.
        test_sequences: Their number, from the first one on.
        device: Where networks run: cpu, cuda, or cuda:1 and so on; auto is a GPU if there is one.
        output: The folder for everything.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    algorithms: Annotated[
        tuple[str, ...], arg(metavar="NAME [NAME ...]", help=_ALGORITHMS_HELP)
    ] = DEFAULT_ALGORITHMS
    seeds: int = 3
    first_seed: int = 0
    steps: int = _DEFAULT.steps
    jobs: int | None = None
    set: Annotated[tuple[str, ...], arg(metavar="NAME.KEY=VALUE")] = ()
    env: Annotated[str, arg(metavar="ID")] = SYNTHETIC
    env_kwargs: Annotated[str | None, arg(metavar="JSON")] = None
    train_kwargs: Annotated[str | None, arg(metavar="JSON")] = None
    evaluations: int = _DEFAULT.evaluations
    val_split: str = _DEFAULT.val_split
    val_sequences: int = _DEFAULT.val_sequences
    test_split: str = _DEFAULT.test_split
    test_sequences: int = _DEFAULT.test_sequences
    device: str = "cpu"
    output: Path = Path("runs/benchmark")
    progress_bar: bool = True


def make_benchmark(arguments: Arguments) -> Benchmark:
    """Return what the rows share.

    Raises:
        InvalidArgumentError: An argument is not accepted.
    """
    shared: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in (
            *("steps", "evaluations", "val_split", "val_sequences"),
            *("test_split", "test_sequences"),
        )
    }
    if arguments.env_kwargs is not None:
        shared["env_kwargs"] = parse_options("--env-kwargs", arguments.env_kwargs)
    elif arguments.env.rpartition(":")[2] != SYNTHETIC:
        shared["env_kwargs"] = {"geometry": _DEFAULT.geometry}
    if arguments.train_kwargs is not None:
        shared["train_kwargs"] = parse_options("--train-kwargs", arguments.train_kwargs)
    device = choose_device(arguments.device)
    return dataclasses.replace(_DEFAULT, env_id=arguments.env, device=device, **shared)


def execute(arguments: Arguments, command: str) -> None:
    """Run the benchmark, and print its table.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is none; nothing is trained.
        DatasetNotFoundError: The environment's dataset is not there.
        SltGymError: A job failed; the others ran.
    """
    benchmark = make_benchmark(arguments)
    rows = run_benchmark(
        benchmark,
        choose_algorithms(arguments.algorithms, arguments.set),
        range(arguments.first_seed, arguments.first_seed + arguments.seeds),
        arguments.output,
        workers=arguments.jobs,
        progress_bar=arguments.progress_bar,
        say=lambda text: tqdm.write(text, file=sys.stdout),
        command=command,
    )
    table = tabulate_rows(rows, benchmark)
    print(f"\n{to_markdown(table)}\n\n{table.note}\n\nreport: {arguments.output / 'report.html'}")
