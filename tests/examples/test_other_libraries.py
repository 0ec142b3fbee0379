"""The examples for TorchRL and RLlib: they train, and track held-out sequences."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tyro

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHORT: dict[str, Any] = {
    "steps": 120,
    "tracks": 2,
    "frames": 6,
    "minibatch": 16,
    "epochs": 2,
    "test_sequences": 2,
    "test_frames": 6,
}


def load(name: str, library: str) -> ModuleType:
    """Import an example; skip where its library is missing."""
    extra = {"torchrl": "torchrl", "ray": "rllib"}[library]
    pytest.importorskip(library, reason=f'needs {library}: pip install -e ".[{extra}]"')
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torchrl() -> ModuleType:
    return load("torchrl_ppo", "torchrl")


def check(result: dict[str, float], output: str) -> None:
    """Assert that all steps were taken, and that the test scores are shares."""
    assert result["steps"] == SHORT["steps"]
    for name in ("untrained", "trained"):
        assert 0 < result[name] < 1
        assert f"{name}: test AUC {100 * result[name]:.1f} %" in output
    assert result["untrained"] != result["trained"]
    gains = [float(gain) for gain in re.findall(r"steps: return of .*clips ([-+.\d]+)", output)]
    assert len(gains) == 3
    assert all(np.isfinite(gain) and -1 <= gain <= 1 for gain in gains)


def test_torchrl_trains(
    torchrl: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = torchrl.Config(**SHORT, horizon=20, save=tmp_path / "run" / "policy.pt")
    result = torchrl.main(config)
    check(result, capsys.readouterr().out)
    weights = torch.load(tmp_path / "run" / "policy.pt")
    assert all(torch.isfinite(value).all() for value in weights.values())
    heads = [value for key, value in weights.items() if key.endswith("head.2.weight")]
    assert len(heads) == 1
    assert heads[0].any()  # zeros at the start
    encoders = [key for key in weights if "encoder" in key]
    assert encoders


def test_torchrl_resets_each_track_when_it_ends(torchrl: ModuleType) -> None:
    env = torchrl.make_env(3, 6, reward="overlap", lost_after=2)
    env.set_seed(0)
    track = env.rollout(12, break_when_any_done=False)  # random actions
    ended = track["next", "done"][..., 0]
    assert ended.any(dim=1).all()
    # The step after an end shows another clip's template, all others the same one.
    same = (track["template"][:, 1:] == track["template"][:, :-1]).flatten(2).all(dim=2)
    assert torch.equal(same, ~ended[:, :-1])
    assert ((track["box"] >= -4) & (track["box"] <= 4)).all()
    env.close()


def test_torchrl_makes_a_track_by_its_id(torchrl: ModuleType) -> None:
    from torchrl.envs import GymEnv

    options = {"geometry": "transt-tiny", "reward": "overlap", "num_frames": 5}
    env = GymEnv("slt_gym:SLTTrack-Synthetic-v0", **options)
    track = env.rollout(10)
    assert track.batch_size == (4,)
    assert track["search"].shape == (4, 3, 96, 96)
    assert 0 <= track["next", "reward"].sum() <= 1
    assert track["next", "terminated"][-1]
    env.close()


@pytest.mark.slow
def test_rllib_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("rllib_ppo", "ray")
    result = example.main(example.Config(**SHORT, batch=40, save=tmp_path / "run"))
    check(result, capsys.readouterr().out)

    from ray.rllib.core.rl_module.rl_module import RLModule

    saved = tmp_path / "run" / "learner_group" / "learner" / "rl_module" / "default_policy"
    module = RLModule.from_checkpoint(saved)
    assert isinstance(module, example.TrackerModule)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    assert module.mean[-1].weight.any()  # zeros at the start
    assert not torch.equal(module.log_std, torch.full((4,), -2.0))
    assert example.test(module, example.Config(**SHORT)) == pytest.approx(result["trained"])


def test_rllib_rewards_the_gain_of_a_frame() -> None:
    example = load("rllib_ppo", "ray")
    env = example.make_env({"num_frames": 6})
    plain = gym.make(example.ID, **example.TRACK, reward="iou_gain", num_frames=6)
    for each in (env, plain):
        each.reset(seed=0)
    for _ in range(5):
        action = np.full(4, 0.1, np.float32)
        assert env.step(action)[1] == pytest.approx(5 * plain.step(action)[1])


@pytest.mark.parametrize(("script", "library"), [("torchrl_ppo", "torchrl"), ("rllib_ppo", "ray")])
def test_help_names_every_argument(
    script: str, library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(script, library)
    with pytest.raises(SystemExit):
        tyro.cli(example.Config, description=example.__doc__, args=["--help"])
    text = capsys.readouterr().out
    assert "pip install" in text
    for name in example.Config.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
