"""A run that was killed goes on from its checkpoint as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from tiny import make_slt

from slt_gym.agents import SLT
from slt_gym.errors import InvalidArgumentError

STEPS = 2 * 2 * 3  # environment steps of an iteration: 2 clips, 2 tracks, 3 tracked frames


class Kill(BaseCallback):
    """Stops in the midst of an iteration."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def _on_step(self) -> bool:
        return self.n_calls < self.calls


def weights(model: SLT) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.policy.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def finish(path: Path, total: int) -> SLT:
    model = SLT.load(path, device="cpu")
    model.learn(total - model.num_timesteps, reset_num_timesteps=False, checkpoint=path)
    return model


CASES: dict[str, dict[str, Any]] = {
    "transt": {"frame_fraction": 0.6, "learning_rate": lambda left: 1e-3 * left},
    "trdimp": {"policy": "TrDiMPPolicy", "policy_kwargs": {"tracker": "trdimp-tiny"}},
    "lost": {"env_kwargs": {"lost_after": 1, "num_frames": 6}},
}


@pytest.mark.parametrize("case", ["transt", pytest.param("trdimp", marks=pytest.mark.slow), "lost"])
def test_a_killed_run_gives_what_it_would_have_given(case: str, tmp_path: Path) -> None:
    kwargs, checkpoint = CASES[case], tmp_path / "run" / "checkpoint.zip"
    tracked = kwargs.get("env_kwargs", {}).get("num_frames", 4) - 1
    total = 3 * 4 * tracked
    whole = make_slt(**kwargs)
    whole.learn(total, checkpoint=tmp_path / "other.zip", checkpoint_interval=2)

    killed = make_slt(**kwargs)
    killed.learn(total, Kill(2 * tracked + 1), checkpoint=checkpoint, checkpoint_interval=2)
    assert killed.num_timesteps < total
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.zip"]
    resumed = finish(checkpoint, total)
    assert resumed.num_timesteps == whole.num_timesteps
    assert resumed._n_updates == whole._n_updates == resumed.iterations
    assert equal(weights(resumed), weights(whole))
    assert resumed.curve == whole.curve
    assert len(resumed.curve) == whole.iterations
    ours, theirs = (m.policy.optimizer.state_dict() for m in (resumed, whole))
    assert ours["param_groups"] == theirs["param_groups"]
    assert resumed.seconds > 0
    # The last checkpoint is that of the end: there is nothing left to do.
    again = finish(checkpoint, total)
    assert again._n_updates == whole._n_updates
    assert equal(weights(again), weights(whole))


def test_a_loaded_model_sees_other_clips_than_before(tmp_path: Path) -> None:
    seen: list[Any] = []
    model = make_slt()
    for _ in range(2):
        train = model.train
        model.train = lambda rollout, go=train: (seen.append(rollout), go(rollout))[1]  # type: ignore[method-assign]
        model.learn(STEPS, reset_num_timesteps=False)
        del model.train
        model.save(tmp_path / "model")
        model = SLT.load(tmp_path / "model", device="cpu")
    first, second = seen
    assert not np.array_equal(first.template, second.template)


def test_what_cannot_be_written_whole_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_slt()
    model.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()

    def fail(self: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(BaseAlgorithm, "save", fail)
    with pytest.raises(OSError, match="disk is full"):
        model.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    assert (tmp_path / "model.zip").read_bytes() == before


def test_a_walk_goes_on_walking(tmp_path: Path) -> None:
    model = make_slt(env_kwargs={"split": "val"})
    names: list[str] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            names.extend(info["sequence"] for info in self.locals["infos"])
            return True

    model.learn(3 * STEPS, Watch(), checkpoint=tmp_path / "model.zip", checkpoint_interval=1)
    assert sorted(set(names)) == sorted(model.env.get_attr("sequence_names")[0][:6])


def test_an_interval_is_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="checkpoint_interval is 0"):
        make_slt().learn(1, checkpoint=tmp_path / "x.zip", checkpoint_interval=0)
