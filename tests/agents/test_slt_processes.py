"""SLT in several processes gives what it gives in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ENV_ID, VIDEO, make_slt

from slt_gym.agents.processes import Processes
from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError

WORKER = Path(__file__).with_name("slt_worker.py")


class OneOf(Processes):
    """One of several processes whose others do as it does."""

    def gather(self, value: Any) -> list[Any]:
        return [value] * self.count

    def any(self, flag: bool) -> bool:
        return flag

    def add_gradients(self, parameters: Any) -> None:
        pass


def make_one_of(patch: pytest.MonkeyPatch, rank: int, count: int, **kwargs: Any) -> Any:
    patch.setattr(Processes, "join", staticmethod(lambda: OneOf(rank, count)))
    return make_slt(**kwargs)


def explore(model: Any) -> Any:
    seen: list[Any] = []
    model.train = seen.append
    model.learn(1)
    model.env.close()
    return seen[0]


@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_the_clips_of_one_process_are_divided(monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    options: dict[str, Any] = {
        "n_clips": 4,
        "n_samples": 2,
        "micro_batch": 2,
        "policy_kwargs": {"temperature": 1.0},  # the actions differ
    }
    whole = explore(make_slt(**options))
    parts = []
    for rank in range(2):
        model = make_one_of(monkeypatch, rank, 2, **options)
        if given:
            env = make_sb3_env(
                ENV_ID,
                n_envs=6,
                tracks_per_clip=3,
                geometry="transt-tiny",
                reward="overlap",
                num_frames=4,
                dataset_options=VIDEO,
            )
            model.set_env(env)
            model.set_random_seed(3)
        parts.append(explore(model))
        assert model.num_timesteps == 4 * 3 * 3  # those of all processes
    assert len(np.unique(whole.index)) > 4
    for name in ("template", "search", "box", "index", "gt_box", "rewards", "greedy_rewards"):
        ours = [getattr(part, name) for part in parts]
        axis = 0 if name == "template" else 1
        joined, expected = np.concatenate(ours, axis=axis), getattr(whole, name)
        if joined.dtype.kind == "f":  # sums of other lengths round otherwise
            np.testing.assert_allclose(joined, expected, atol=1e-5)
        elif name == "search":
            assert np.abs(joined.astype(int) - expected).mean() < 0.01
        else:
            np.testing.assert_array_equal(joined, expected)


def test_a_division_that_one_process_would_not_make_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for clips, passes in ((4, 2), (6, 1)):
        words = rf"n_clips={clips} cannot be divided among 4 .*4 \* micro_batch={passes}"
        with pytest.raises(InvalidArgumentError, match=words):
            make_one_of(monkeypatch, 0, 4, n_clips=clips, micro_batch=passes)
    with pytest.raises(InvalidArgumentError, match="split is 'val', which every process would"):
        make_one_of(monkeypatch, 0, 2, n_clips=4, env_kwargs={"split": "val"})


def test_without_a_seed_the_processes_agree_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OneOf, "gather", lambda self, value: [77, value])
    model = make_one_of(monkeypatch, 1, 2, seed=None, n_clips=4)
    assert model.seed == 77
    model.env.close()


def test_others_than_the_first_write_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Never:
        def __call__(self, *_: Any) -> bool:
            raise AssertionError

    options = {"n_clips": 4, "tensorboard_log": str(tmp_path / "log"), "verbose": 1}
    model = make_one_of(monkeypatch, 1, 2, **options)
    model.learn(1, callback=Never(), progress_bar=True, checkpoint=tmp_path / "model.zip")
    model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    model.env.close()


def test_alone_there_is_nothing_to_exchange() -> None:
    alone = Processes.join()
    assert (alone.rank, alone.count, alone.first) == (0, 1, True)
    assert alone.gather("x") == ["x"]
    assert alone.any(True) and not alone.any(False)
    assert alone.mean(0.1) == 0.1
    assert alone.add({"a": 0.3}) == {"a": 0.3}
    assert alone.device("auto") == "auto"


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Processes(11, 16).device("auto") == "cuda:3"
    assert Processes(11, 16).device("cuda") == "cuda:3"
    assert Processes(11, 16).device("cuda:1") == "cuda:1"
    assert Processes(11, 16).device("cpu") == "cpu"
    assert Processes(0, 1).device("auto") == "auto"


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    results = []
    for name, launch in (("one", []), ("two", launcher)):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, *launch, str(WORKER), str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        assert not list(folder.glob(".*"))
        files = sorted(folder.glob("*.pt"))
        results.append({path.stem: torch.load(path, weights_only=False) for path in files})
    one, two = results
    assert one.keys() == two.keys() >= {"greedy", "one-per-pass", "critic", "transt", "resumed"}
    for case, expected in one.items():
        ours = two[case]
        assert ours["steps"] == expected["steps"]
        for key, value in expected["weights"].items():
            torch.testing.assert_close(ours["weights"][key], value, rtol=0, atol=1e-6)
        if "actions" not in expected:
            continue
        np.testing.assert_allclose(ours["actions"], expected["actions"], atol=1e-5)
        assert ours["curve"] == pytest.approx(np.array(expected["curve"]))
        assert len(ours["rows"]) == len(expected["rows"]) >= 2
        for row, wanted in zip(ours["rows"], expected["rows"], strict=True):
            assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    # They learned something, and some tracks ended early.
    assert one["critic"]["rows"][-1]["train/kl_to_base"] > 1e-6
    assert one["greedy"]["rows"][-1]["rollout/ep_len_mean"] < 5
