"""Benchmarks of algorithms: jobs, what they leave, the table, resuming, failures, interrupts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stable_baselines3 import A2C

from slt_gym.errors import InvalidArgumentError, SltGymError
from slt_gym.evaluation.benchmark import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    Algorithm,
    Benchmark,
    choose_algorithms,
    run_benchmark,
)
from slt_gym.evaluation.benchmark import run as run_module
from slt_gym.evaluation.benchmark.job import Job, run_job
from slt_gym.evaluation.benchmark.play import make_tracker, score_policy, score_tracker
from slt_gym.evaluation.benchmark.processes import run_jobs
from slt_gym.evaluation.benchmark.summary import seed_interval, summarise, tabulate_rows
from slt_gym.evaluation.metrics import paired_interval
from slt_gym.evaluation.report.tables import to_markdown

VIDEO = {"width": 96, "height": 80, "num_frames": 7}
TINY = Benchmark(
    env_kwargs={"geometry": "transt-tiny", "dataset_options": VIDEO},
    train_kwargs={"num_frames": 4},
    steps=32,
    evaluations=2,
    val_sequences=2,
    test_sequences=5,
    parallel=3,
)
A2C_ROW = Algorithm("a2c", "A2C", n_envs=2, kwargs={"n_steps": 4, "learning_rate": "lin_1e-3"})
RANDOM, STATIC = ALGORITHMS["random"], ALGORITHMS["static"]
ROWS = [A2C_ROW, RANDOM, STATIC]


class Failing(A2C):
    """Fails after a few steps."""

    def train(self) -> None:
        raise ValueError("nothing is\nlearnt here")


class Dying(A2C):
    """Ends its process."""

    def train(self) -> None:
        os._exit(3)


class Endless(A2C):
    """Learns for ever, and shows that it began."""

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            super().learn(*args, **kwargs)


def read(folder: Path, row: str, seed: int) -> dict[str, Any]:
    return json.loads((folder / "jobs" / row / f"seed-{seed}" / "results.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run three rows with two seeds, in two processes at a time, once for all tests."""
    folder = tmp_path_factory.mktemp("benchmark") / "run"
    run_benchmark(TINY, ROWS, [0, 1], folder, workers=2, command="the command")
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_every_job_leaves_its_folder(done: Path) -> None:
    jobs = sorted(str(p.relative_to(done / "jobs")) for p in (done / "jobs").glob("*/*"))
    assert jobs == ["a2c/seed-0", "a2c/seed-1", "random/seed-0", "random/seed-1", "static/seed-0"]
    assert not (done / "failures").exists()
    result = read(done, "a2c", 1)
    assert result["steps"] == 32
    assert [point[0] for point in result["curve"]] == [0, 16, 32]
    assert list(result["sequences"]) == [f"test-{i:06d}" for i in range(5)]
    assert result["auc"] == pytest.approx(np.mean(list(result["sequences"].values())))
    assert result["seconds"] > 0
    assert result["parameters"] > 1000
    assert 100 < result["peak_memory_mib"] < 10_000
    assert result["seed"] == 1
    assert result["algorithm"]["kwargs"] == A2C_ROW.kwargs
    assert {"torch", "stable_baselines3"} <= result["machine"]["versions"].keys()
    assert (done / "jobs/a2c/seed-1/log/progress.csv").is_file()


def test_saved_model_scores_what_the_job_noted(done: Path) -> None:
    model = A2C.load(done / "jobs/a2c/seed-0/model.zip", device="cpu")
    result = read(done, "a2c", 0)
    assert score_policy(model, TINY, A2C_ROW, "test", 5) == result["sequences"]
    on_val = score_policy(model, TINY, A2C_ROW, "val", 2)
    assert np.mean(list(on_val.values())) == pytest.approx(result["curve"][-1][1])


def test_table_is_recomputed_from_the_jobs(done: Path) -> None:
    rows = json.loads((done / "results.json").read_text())["rows"]
    assert next(iter(rows)) == "a2c"  # random weights come before what learns nothing
    aucs = np.array([read(done, "a2c", seed)["auc"] for seed in (0, 1)])
    row = rows["a2c"]
    assert row["auc"] == pytest.approx(aucs.mean())
    half = 12.706 * abs(aucs[0] - aucs[1]) / 2  # t with one degree of freedom
    assert [row["low"], row["high"]] == pytest.approx([aucs.mean() - half, aucs.mean() + half])
    runs = [list(read(done, "a2c", seed)["sequences"].values()) for seed in (0, 1)]
    static = list(read(done, "static", 0)["sequences"].values())
    gain = paired_interval(np.mean(runs, axis=0), static)
    assert [row["gain"], row["gain_low"], row["gain_high"]] == pytest.approx(gain)
    assert row["curves"] == [[y for _, y in read(done, "a2c", s)["curve"]] for s in (0, 1)]
    assert rows["static"]["low"] is None
    assert rows["static"]["gain"] is None

    text = (done / "table.md").read_text("utf-8")
    cells = next(line for line in text.splitlines() if line.startswith("| a2c"))
    assert f"| {100 * aucs.mean():.1f} |" in cells
    assert f"| {100 * row['gain']:+.1f} (" in cells
    assert "| 32 |" in cells
    results = {name: [read(done, name, s) for s in seeds] for name, seeds in FOUND.items()}
    table = tabulate_rows(summarise(results), TINY)
    assert text == f"{to_markdown(table)}\n\n{table.note}\n"


FOUND = {"a2c": (0, 1), "random": (0, 1), "static": (0,)}


def test_report_holds_tables_and_plots(done: Path) -> None:
    markdown = (done / "report.md").read_text("utf-8")
    assert "Made by `the command`." in markdown
    assert "learning\\_rate=lin" in markdown or "learning_rate=lin_1e-3" in markdown
    page = (done / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "<td>a2c</td>" in page
    for name in ("learning_curves", "auc"):
        image = cv2.imread(str(done / "plots" / f"{name}.png"))
        assert image is not None
        assert image.std() > 5


def test_missing_jobs_alone_run_again_with_the_same_result(
    done: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "jobs/a2c/seed-1")
    (copy / "jobs/a2c/.seed-1.partial").mkdir()  # what a kill leaves
    ran: list[str] = []

    def run_here(jobs: list[Job], workers: int, note: Any, tell: Any) -> None:
        for job in jobs:
            ran.append(job.name)
            note(job, run_job(job, tell))

    monkeypatch.setattr(run_module, "run_jobs", run_here)
    said: list[str] = []
    run_benchmark(TINY, ROWS, [0, 1], copy, say=said.append)
    assert ran == ["a2c seed 1"]
    assert said[0] == "4 of 5 jobs are done already"
    assert not (copy / "jobs/a2c/.seed-1.partial").exists()
    again, before = read(copy, "a2c", 1), read(done, "a2c", 1)
    assert again["sequences"] == before["sequences"]
    assert again["curve"] == before["curve"]
    assert again["sequences"] != read(done, "a2c", 0)["sequences"]


def test_more_seeds_and_rows_are_added(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def note_only(jobs: list[Job], workers: int, note: Any, tell: Any) -> None:
        ran.extend(job.name for job in jobs)

    monkeypatch.setattr(run_module, "run_jobs", note_only)
    run_benchmark(TINY, [*ROWS, ALGORITHMS["oracle"]], [0, 1, 2], copy)
    assert ran == ["oracle seed 0", "a2c seed 2", "random seed 2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 64}, "steps 32.*has 64.*another --output"),
        ({"env_kwargs": {"geometry": "transt-tiny"}}, "env_kwargs"),
    ],
)
def test_results_of_other_settings_are_refused(
    done: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run_benchmark(dataclasses.replace(TINY, **change), ROWS, [0, 1], done)


def test_results_of_other_hyper_parameters_and_damage_are_refused(copy: Path) -> None:
    other = dataclasses.replace(A2C_ROW, kwargs={"n_steps": 2})
    with pytest.raises(InvalidArgumentError, match=r"a2c.*kwargs.*n_steps"):
        run_benchmark(TINY, [other, STATIC], [0], copy)
    (copy / "jobs/static/seed-0/results.json").write_text("{")
    with pytest.raises(InvalidArgumentError, match="damaged"):
        run_benchmark(TINY, [STATIC], [0], copy)


def test_failed_jobs_stop_no_others(tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(A2C_ROW, name=cls.__name__.lower(), algorithm=cls)
        for cls in (Failing, Dying)
    ]
    said: list[str] = []
    with pytest.raises(SltGymError, match=r"2 of 3 jobs failed \(failing seed 0, dying") as caught:
        run_benchmark(TINY, [*rows, STATIC], [0], tmp_path, workers=3, say=said.append)
    assert type(caught.value) is SltGymError  # the command ends with 1, not 2
    assert any("failing seed 0: failed: learnt here" in line for line in said)
    assert any("dying seed 0: failed: its process ended with code 3" in line for line in said)
    assert all("\n" not in line for line in said)
    traceback = (tmp_path / "failures/failing-seed-0.txt").read_text()
    assert "Traceback" in traceback
    assert "nothing is\nlearnt here" in traceback
    assert list(json.loads((tmp_path / "results.json").read_text())["rows"]) == ["static"]
    left = [p.name for p in (tmp_path / "jobs").glob("*/*")]
    assert left == ["seed-0"]


def test_interrupt_ends_the_processes_and_leaves_nothing_half(tmp_path: Path) -> None:
    benchmark = dataclasses.replace(TINY, steps=4000)
    endless = dataclasses.replace(A2C_ROW, name="endless", algorithm=Endless)
    jobs = [Job(benchmark, row, 0, tmp_path) for row in (endless, STATIC)]

    def interrupt(job: Job, outcome: Any) -> None:
        assert job.algorithm is STATIC
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, 2, interrupt)
    assert [p.name for p in (tmp_path / "jobs").glob("*/*")] == ["seed-0"]
    assert jobs[1].find_result() is not None
    assert jobs[0].find_result() is None


def test_interval_over_seeds() -> None:
    assert seed_interval([0.5]) is None
    # By hand: deviation 1, t 4.303 with two degrees of freedom, root of 3.
    assert seed_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4843, 2 + 2.4843), abs=1e-4)
    low, high = seed_interval(np.arange(100) % 2) or (0, 0)
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(np.arange(100) % 2, ddof=1) / 10)


def test_trackers_and_policies_are_tested_alike() -> None:
    class Still:
        def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
            return np.zeros((len(observation["box"]), 4), np.float32), None

    # Large targets, inside the frame: no limit of the geometry moves the box.
    options = {**VIDEO, "min_size": 0.3, "speed": 0.02}
    kwargs = {"geometry": "transt-tiny", "dataset_options": options}
    benchmark = dataclasses.replace(TINY, env_kwargs=kwargs)
    static = score_tracker(make_tracker(benchmark, STATIC), benchmark, STATIC, "test", 5)
    still = score_policy(Still(), benchmark, A2C_ROW, "test", 5)
    assert list(static) == list(still)
    assert list(still.values()) == pytest.approx(list(static.values()), abs=1e-6)
    oracle = ALGORITHMS["oracle"]
    best = score_tracker(make_tracker(benchmark, oracle), benchmark, oracle, "test", 5)
    assert min(best.values()) > 0.9


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["pppo"], [], "unknown algorithm 'pppo'.*did you mean 'ppo'"),
        ([], [], "no algorithm"),
        (["ppo", "ppo"], [], "two algorithms are called 'ppo'"),
        (["x=ppo"], [], "name=module:Class"),
        (["nowhere:Nothing"], [], "unknown algorithm 'nowhere:Nothing'"),
        (["ppo"], ["ppo.learning_rate"], "algorithm.key=value"),
        (["ppo"], ["n_steps=3"], "algorithm.key=value"),
        (["ppo"], ["a2c.n_steps=3"], "unknown algorithm in the setting.*accepted are ppo"),
        (["ppo"], ["ppo.learning_rat=1"], "did you mean 'learning_rate'"),
        (["ppo"], ["ppo.n_envs=many"], "n_envs of ppo is 'many'"),
        (["ppo"], ["ppo.kwargs.n_steps=1"], "unknown setting of ppo"),
    ],
)
def test_wrong_words_are_refused(names: list[str], settings: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        choose_algorithms(names, settings)


def test_settings_change_their_row_alone() -> None:
    settings = ["ppo.learning_rate=3e-4", "ppo.reward=auc", "ppo.policy_kwargs.log_std_init=-1"]
    settings += ["mine.n_envs=3", 'ppo.reward={"auc": 1.0}']
    ppo, mine = choose_algorithms(["ppo", "mine=stable_baselines3:A2C"], settings)
    assert ppo.kwargs == {**ALGORITHMS["ppo"].kwargs, "learning_rate": 3e-4}
    assert ppo.policy_kwargs == {**ALGORITHMS["ppo"].policy_kwargs, "log_std_init": -1}
    assert ppo.reward == {"auc": 1.0}
    assert (mine.name, mine.n_envs, mine.load()) == ("mine", 3, A2C)
    assert ALGORITHMS["ppo"].n_envs == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"env_kwargs": {"reward": "auc"}}, "reward='auc'.*an algorithm's"),
        ({"train_kwargs": {"split": "val"}}, "split='val'"),
    ],
)
def test_wrong_benchmarks_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_wrong_seeds_are_refused(seeds: list[int], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="seed"):
        run_benchmark(TINY, [STATIC], seeds, tmp_path)


def test_default_rows_are_those_of_the_issue() -> None:
    assert set(DEFAULT_ALGORITHMS) <= set(ALGORITHMS)
    wanted = {"slt", "ppo", "a2c", "sac", "dqn", "bc", "random", "static", "oracle"}
    assert wanted <= set(DEFAULT_ALGORITHMS)
    assert {"trpo", "recurrent-ppo", "td3", "tqc", "qr-dqn"} <= set(ALGORITHMS)


LEARNERS = [name for name, row in ALGORITHMS.items() if row.learns]
CONTRIB = {"trpo", "recurrent-ppo", "tqc", "qr-dqn"}
SMALL = {
    "slt": {"n_clips": 2, "micro_batch": 2},
    "trpo": {"n_steps": 4, "batch_size": 16, "cg_max_steps": 2},
    **{name: {"n_steps": 4, "batch_size": 16} for name in ("ppo", "recurrent-ppo", "ppo-tracker")},
    "a2c": {"n_steps": 4},
    "bc": {"n_steps": 4, "batch_size": 8},
    **{name: {"learning_starts": 16} for name in ("sac", "td3", "tqc", "dqn", "qr-dqn")},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_runs(name: str, tmp_path: Path) -> None:
    if name in CONTRIB:
        pytest.importorskip("sb3_contrib", reason=f"{name} is sb3-contrib's")
    row = ALGORITHMS[name]
    row = dataclasses.replace(row, n_envs=4, kwargs={**row.kwargs, **SMALL[name]})
    benchmark = dataclasses.replace(TINY, steps=48, evaluations=1, test_sequences=2)
    result = run_job(Job(benchmark, row, 3, tmp_path))
    assert 48 <= result["steps"] < 48 + 32
    assert len(result["curve"]) == 2
    assert all(0 <= auc <= 1 for auc in result["sequences"].values())
    assert (tmp_path / "jobs" / name / "seed-3" / "model.zip").is_file()
