"""One row with one seed: train, test, and leave a folder, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from slt_gym.agents import ReferenceReplayBuffer, TrackerFeaturesExtractor
from slt_gym.agents.schedules import CosineSchedule
from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.benchmark.algorithms import Algorithm, is_clip_algorithm, load_class
from slt_gym.evaluation.benchmark.play import (
    Policy,
    RandomPolicy,
    make_test_env,
    make_tracker,
    score_policy,
    score_tracker,
)
from slt_gym.evaluation.benchmark.settings import Benchmark
from slt_gym.evaluation.files import write_json
from slt_gym.evaluation.machine import describe_machine

RESULTS_FILE = "results.json"
# Track i of a run draws from the run's seed + i: no two runs may share a stream.
_SEED_STRIDE = 10_000
_NOT_COMPARED = ("parallel",)


@dataclass(frozen=True)
class Job:
    """A row, a seed and a place.

    Attributes:
        benchmark: What all rows share.
        algorithm: The row.
        seed: Of everything that is drawn.
        folder: The benchmark's; the job's own is ``jobs/<row>/seed-<seed>`` in it.
    """

    benchmark: Benchmark
    algorithm: Algorithm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """The row and the seed, for people."""
        return f"{self.algorithm.name} seed {self.seed}"

    @property
    def place(self) -> Path:
        """The job's folder."""
        return self.folder / "jobs" / self.algorithm.name / f"seed-{self.seed}"

    @property
    def partial(self) -> Path:
        """Where the folder is filled before it stands at its place."""
        return self.place.with_name(f".seed-{self.seed}.partial")

    @property
    def failure(self) -> Path:
        """Where the traceback goes if the job fails."""
        return self.folder / "failures" / f"{self.algorithm.name}-seed-{self.seed}.txt"

    def describe(self) -> dict[str, Any]:
        """Return what its result depends on, as JSON values."""
        described = {
            "benchmark": self.benchmark.describe(),
            "algorithm": self.algorithm.describe(),
            "seed": self.seed,
        }
        return dict(json.loads(json.dumps(described)))

    def find_result(self) -> dict[str, Any] | None:
        """Return what an earlier run left; None where nothing is.

        Raises:
            InvalidArgumentError: It was made with other settings, or is damaged.
        """
        file = self.place / RESULTS_FILE
        if not file.is_file():
            return None
        try:
            result = json.loads(file.read_text("utf-8"))
            stored = {key: result[key] for key in ("benchmark", "algorithm", "seed")}
        except (ValueError, KeyError, TypeError):
            raise InvalidArgumentError(
                f"{file} is damaged: remove the folder {self.place}"
            ) from None
        for group, values in self.describe().items():
            if group == "seed":
                continue
            for key, value in values.items():
                if key not in _NOT_COMPARED and stored[group].get(key) != value:
                    raise InvalidArgumentError(
                        f"{self.place} was made with {key} {stored[group].get(key)!r}, and this "
                        f"run has {value!r}: give another --output, or remove that folder"
                    )
        return dict(result)


class _Curve(BaseCallback):
    """Tests the policy at points of the budget, and tells how many steps were taken."""

    def __init__(self, job: Job, tell: Callable[[int], object]) -> None:
        super().__init__()
        self.points: list[list[float]] = []
        self.seconds = self.cpu_seconds = 0.0
        self._job = job
        self._tell = tell
        self._left = job.benchmark.evaluation_steps()
        self._told = 0

    def _init_callback(self) -> None:
        self.measure()

    def _on_step(self) -> bool:
        self._tell(self.num_timesteps - self._told)
        self._told = self.num_timesteps
        # The last point is the trained policy's, after its last update.
        if len(self._left) > 1 and self.num_timesteps >= self._left[0]:
            while len(self._left) > 1 and self.num_timesteps >= self._left[0]:
                self._left.pop(0)
            self.measure()
        return True

    def measure(self) -> None:
        """Add a point to the curve."""
        started, cpu = time.perf_counter(), time.process_time()
        benchmark = self._job.benchmark
        scores = score_policy(
            self.model,
            benchmark,
            self._job.algorithm,
            benchmark.val_split,
            benchmark.val_sequences,
        )
        self.points.append([self.model.num_timesteps, sum(scores.values()) / len(scores)])
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu


def run_job(job: Job, tell: Callable[[int], object] = lambda steps: None) -> dict[str, Any]:
    """Train and test, and put the job's folder in its place.

    Args:
        job: What to do.
        tell: Called with the number of environment steps since its last call.

    Returns:
        What ``results.json`` in the folder holds.

    Raises:
        Exception: Whatever the algorithm raises; the folder is not there then.
    """
    shutil.rmtree(job.partial, ignore_errors=True)
    job.partial.mkdir(parents=True)
    try:
        outcome = _train(job, tell) if job.algorithm.learns else _test(job)
        result = {
            **outcome,
            "peak_memory_mib": round(peak_memory() / 2**20, 1),
            **job.describe(),
            "machine": describe_machine(job.benchmark.device),
        }
        write_json(job.partial / RESULTS_FILE, result)
        job.partial.rename(job.place)
    finally:
        shutil.rmtree(job.partial, ignore_errors=True)
    job.failure.unlink(missing_ok=True)
    return result


def make_model(job: Job) -> BaseAlgorithm:
    """Return the algorithm with its training environment, before its first step."""
    benchmark, row = job.benchmark, job.algorithm
    cls, kwargs = row.load(), dict(row.kwargs)
    seed = job.seed * _SEED_STRIDE
    env_kwargs = {
        "threads": 1,
        **benchmark.env_kwargs,
        **benchmark.train_kwargs,
        "action": row.action,
        "action_options": row.action_options or None,
        "reward": row.reward,
    }
    env: Any
    if is_clip_algorithm(cls):
        env = benchmark.env_id
        kwargs["env_kwargs"] = {**env_kwargs, **kwargs.get("env_kwargs", {})}
    else:
        env = make_sb3_env(benchmark.env_id, n_envs=row.n_envs, seed=seed, **env_kwargs)
        if issubclass(cls, OffPolicyAlgorithm) and "replay_buffer_class" not in kwargs:
            kwargs["replay_buffer_class"] = ReferenceReplayBuffer
            kwargs["replay_buffer_kwargs"] = {"env": env, "threads": 1}
        if row.normalise_reward:
            env = VecNormalize(env, norm_obs=False, gamma=kwargs.get("gamma", 0.99))
    if isinstance(kwargs.get("action_noise"), float):
        size = env.action_space.shape[0]
        kwargs["action_noise"] = NormalActionNoise(
            np.zeros(size), np.full(size, kwargs["action_noise"])
        )
    if "learning_rate" in kwargs:
        kwargs["learning_rate"] = _read_rate(kwargs["learning_rate"])
    policy_kwargs = dict(row.policy_kwargs)
    if row.features:
        policy_kwargs.setdefault("features_extractor_class", TrackerFeaturesExtractor)
    policy = load_class(row.policy) if ":" in row.policy else row.policy
    model: BaseAlgorithm = cls(
        policy,
        env,
        seed=seed,
        device=benchmark.device,
        policy_kwargs=policy_kwargs,
        **kwargs,
    )
    return model


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, bytes."""
    try:
        # Unlike getrusage's, this does not begin with what the parent process held.
        status = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.M)[0])
    except (OSError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _train(job: Job, tell: Callable[[int], object]) -> dict[str, Any]:
    benchmark = job.benchmark
    model = make_model(job)
    model.set_logger(configure(str(job.partial / "log"), ["csv", "tensorboard"]))
    curve = _Curve(job, tell)
    started, cpu = time.perf_counter(), time.process_time()
    model.learn(benchmark.steps, callback=curve)
    seconds = time.perf_counter() - started - curve.seconds
    cpu_seconds = time.process_time() - cpu - curve.cpu_seconds
    curve.measure()
    outcome = _score(job, model)
    model.save(job.partial / "model.zip")
    model.logger.close()
    if model.env is not None:
        model.env.close()
    return {
        **outcome,
        "curve": curve.points,
        "steps": model.num_timesteps,
        "parameters": sum(p.numel() for p in model.policy.parameters() if p.requires_grad),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
    }


def _test(job: Job) -> dict[str, Any]:
    """Test what does not learn, on the learning curve's sequences too."""
    benchmark, row = job.benchmark, job.algorithm
    val = benchmark.val_split, benchmark.val_sequences
    if row.kind == "tracker":
        tracker = make_tracker(benchmark, row)
        on_val = score_tracker(tracker, benchmark, row, *val)
        test = benchmark.test_split, benchmark.test_sequences
        scores = score_tracker(tracker, benchmark, row, *test)
        outcome = {"auc": sum(scores.values()) / len(scores), "sequences": scores}
    else:
        env = make_test_env(benchmark, row, benchmark.val_split, 1)
        policy = RandomPolicy(env.action_space, job.seed)
        env.close()
        on_val = score_policy(policy, benchmark, row, *val)
        outcome = _score(job, policy)
    curve = [[0, sum(on_val.values()) / len(on_val)]]
    zeros = {"steps": 0, "parameters": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    return {**outcome, "curve": curve, **zeros}


def _score(job: Job, policy: Policy) -> dict[str, Any]:
    benchmark = job.benchmark
    scores = score_policy(
        policy, benchmark, job.algorithm, benchmark.test_split, benchmark.test_sequences
    )
    return {"auc": sum(scores.values()) / len(scores), "sequences": scores}


def _read_rate(rate: Any) -> Any:
    """Return a learning rate, or the schedule that ``"lin_…"`` or ``"cos_…"`` names."""
    if not isinstance(rate, str):
        return rate
    kind, _, start = rate.partition("_")
    with contextlib.suppress(ValueError):
        if kind == "lin":
            return LinearSchedule(float(start), 0.0, 1.0)
        if kind == "cos":
            return CosineSchedule(float(start), 0.0, warmup=0.1)
    raise InvalidArgumentError(
        f"learning_rate is {rate!r}: accepted are a number, lin_3e-4 for one that falls to 0, and "
        "cos_3e-4 for one that rises over a tenth of the run and then falls along a cosine"
    )


def limit_threads() -> None:
    """Let PyTorch and OpenCV use one thread: jobs run side by side."""
    import cv2  # noqa: PLC0415

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
