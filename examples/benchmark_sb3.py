"""Compare an algorithm of one's own with Stable-Baselines3's, from Python.

The own one is REINFORCE without a critic, as a class with Stable-Baselines3's interface. It is
compared with PPO, and with a box that does not move, on procedural video:

    python examples/benchmark_sb3.py --steps 8000 --seeds 2

Each algorithm and seed is a process of its own. What was done is kept: the same command goes on
after an interruption, and more seeds are added. ``slt-gym benchmark`` does the same from the
command line, with ``--algorithms ppo mine=module:Class``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from stable_baselines3 import A2C
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from slt_gym.cli import run
from slt_gym.evaluation.benchmark import (
    ALGORITHMS,
    Algorithm,
    Benchmark,
    run_benchmark,
)
from slt_gym.evaluation.benchmark.summary import tabulate_rows
from slt_gym.evaluation.report.tables import to_markdown


class Reinforce(A2C):
    """REINFORCE: A2C's rollouts and policy; returns, less their mean, in place of advantages."""

    def train(self) -> None:
        """Take one gradient step on the rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        batches: Iterator[RolloutBufferSamples] = self.rollout_buffer.get(batch_size=None)
        for batch in batches:
            _, log_prob, _ = self.policy.evaluate_actions(batch.observations, batch.actions)
            advantage = batch.returns - batch.returns.mean()
            loss = -(advantage / (advantage.std() + 1e-8) * log_prob).mean()
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
        self._n_updates += 1
        self.logger.record("train/loss", float(loss.detach()))


def make_rows() -> list[Algorithm]:
    """Return the table's rows: the own algorithm, PPO as it stands in the defaults, the static box.

    The own one has PPO's actions, reward and features, which are a row's defaults. Nobody trains
    its critic: with ``gae_lambda=1`` that only enters where a rollout cuts an episode.
    """
    own = Algorithm(
        "reinforce",
        Reinforce,
        kwargs={"n_steps": 32, "gamma": 0.3, "gae_lambda": 1.0, "learning_rate": 1e-3},
        policy_kwargs=ALGORITHMS["ppo"].policy_kwargs,
    )
    return [own, ALGORITHMS["ppo"], ALGORITHMS["static"]]


def main() -> None:
    """Run the comparison, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8000, help="of the environment, a run")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each algorithm")
    parser.add_argument("--jobs", type=int, help="processes at a time (default: one for each core)")
    parser.add_argument("--test-sequences", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_sb3"))
    args = parser.parse_args()

    benchmark = Benchmark(
        steps=args.steps, evaluations=4, val_sequences=16, test_sequences=args.test_sequences
    )
    rows = run_benchmark(
        benchmark,
        make_rows(),
        range(args.seeds),
        args.output,
        workers=args.jobs,
        progress_bar=sys.stderr.isatty(),
        say=print,
        command=shlex.join(["python", *sys.argv]),
    )
    print(f"\n{to_markdown(tabulate_rows(rows, benchmark))}\n\nreport: {args.output}/report.html")


if __name__ == "__main__":  # the processes import this file
    run(main)
