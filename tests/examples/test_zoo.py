"""Settings for rl-baselines3-zoo: its algorithms take them, and its script trains with them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

import slt_gym.agents
from slt_gym.agents import SLT, TrackerFeaturesExtractor
from slt_gym.envs import make_sb3_env
from slt_gym.envs.registration import list_env_ids

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo"
ENV_ID = "SLTTrack-Synthetic-v0"
CLASSES = {
    "a2c": "A2C",
    "dqn": "DQN",
    "ppo": "PPO",
    "ppo_lstm": "RecurrentPPO",
    "qrdqn": "QRDQN",
    "sac": "SAC",
    "slt": "SLT",
    "td3": "TD3",
    "tqc": "TQC",
    "trpo": "TRPO",
}
# What the zoo itself reads; the rest goes to the algorithm.
ZOO_KEYS = {"callback", "env_kwargs", "n_envs", "n_timesteps", "noise_std", "noise_type"}
ZOO_KEYS |= {"normalize"}
VIDEO = {"num_sequences": 4, "num_frames": 20, "width": 160, "height": 120}
SMALL: dict[str, Any] = {"num_frames": 5, "dataset_options": VIDEO}
# What makes a run short, of the keys that an algorithm has.
SHORT = {
    "n_envs": 2,
    "n_steps": 8,
    "n_epochs": 1,
    "batch_size": 8,
    "buffer_size": 100,
    "learning_starts": 16,
    "n_clips": 1,
    "micro_batch": 1,
}
# What is left at its default in the settings, and slow.
SHORTER = {"trpo": {"cg_max_steps": 2, "n_critic_updates": 1}}
STEPS = 48


def read_settings(algo: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="the settings are YAML: pip install pyyaml")
    text = (FOLDER / f"{algo}.yml").read_text("utf-8")
    return yaml.safe_load(text)


def find_class(algo: str) -> type[BaseAlgorithm]:
    name = CLASSES[algo]
    for module in (slt_gym.agents, stable_baselines3):
        if hasattr(module, name):
            return getattr(module, name)
    contrib = pytest.importorskip("sb3_contrib", reason=f"{name} needs pip install sb3-contrib")
    return getattr(contrib, name)


def find_by_name(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_there_is_a_file_for_each_algorithm() -> None:
    assert {path.stem for path in FOLDER.glob("*.yml")} == set(CLASSES)


@pytest.mark.parametrize("algo", CLASSES)
def test_settings_build_a_model(algo: str) -> None:
    algorithm = find_class(algo)
    content = read_settings(algo)
    assert set(content) == {ENV_ID} <= set(list_env_ids())
    settings = content[ENV_ID]
    assert settings["n_timesteps"] >= 50_000
    kwargs = {key: value for key, value in settings.items() if key not in ZOO_KEYS}
    for key in ("policy_kwargs", "replay_buffer_class"):
        if key in kwargs:  # as the zoo reads them
            kwargs[key] = eval(kwargs[key], {"get_class_by_name": find_by_name})
    rate = kwargs.get("learning_rate")
    if isinstance(rate, str):
        kind, _, rate = rate.partition("_")
        assert kind == "lin"
        kwargs["learning_rate"] = float(rate)
    options = {**settings["env_kwargs"], **SMALL}
    if algorithm is SLT:
        env = make_sb3_env(ENV_ID, settings["n_envs"], threads=1, **options)
    else:
        env = DummyVecEnv([lambda: gym.make(f"slt_gym:{ENV_ID}", **options)])
    model = algorithm(env=env, seed=0, device="cpu", **kwargs)
    if "callback" in settings:
        callback = find_by_name(settings["callback"])()
        callback.init_callback(model)
        callback.on_training_start({}, {})
        assert model.replay_buffer._get_recropper() is not None
    actions, _ = model.predict(env.reset())
    assert all(env.action_space.contains(action) for action in actions)
    extractors = [m for m in model.policy.modules() if isinstance(m, TrackerFeaturesExtractor)]
    assert bool(extractors) == (algorithm is not SLT)
    env.close()


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algo: str, *arguments: str, **env_kwargs: Any
) -> tuple[BaseAlgorithm, Path]:
    """Run the zoo's script on small clips; return the saved model and its folder."""
    train = importlib.import_module("rl_zoo3.train")
    settings = read_settings(algo)[ENV_ID]
    options = {**settings["env_kwargs"], **SMALL, "reward": "overlap", **env_kwargs}
    short = {key: value for key, value in SHORT.items() if key in settings}
    short |= SHORTER.get(algo, {})
    command = [
        *("train.py", "--algo", algo, "--env", ENV_ID, "--gym-packages", "slt_gym"),
        *("--conf-file", str(FOLDER / f"{algo}.yml"), "-n", str(STEPS), "--seed", "0"),
        *("-f", str(tmp_path), "--device", "cpu", "-params"),
        *(f"{key}:{value}" for key, value in short.items()),
        *("--env-kwargs", *(f"{key}:{value!r}" for key, value in options.items())),
        *arguments,
    ]
    monkeypatch.setattr(sys, "argv", command)
    train.train()
    folder = tmp_path / algo / f"{ENV_ID}_1"
    model = train.ALGOS[algo].load(folder / f"{ENV_ID}.zip", device="cpu")
    assert model.num_timesteps >= STEPS
    assert model._n_updates > 0
    assert all(torch.isfinite(value).all() for value in model.policy.state_dict().values())
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert len(returns) >= 5
    assert all(np.isfinite(r) and 0 <= r <= 1 for r in returns)
    return model, folder


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The zoo, left as it was."""
    zoo = pytest.importorskip("rl_zoo3", reason='needs the zoo: pip install -e ".[zoo]"')
    for name in ("train", "exp_manager"):
        module = importlib.import_module(f"rl_zoo3.{name}")
        for attribute in ("ALGOS", "ExperimentManager"):
            monkeypatch.setattr(module, attribute, getattr(module, attribute))
    monkeypatch.setattr(zoo, "ALGOS", zoo.ALGOS)
    return zoo


@pytest.mark.slow
@pytest.mark.parametrize("algo", sorted(set(CLASSES) - {"slt"}))
def test_the_zoo_trains(
    algo: str, zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = run(tmp_path, monkeypatch, algo, "--eval-freq", "-1")
    assert type(model).__name__ == CLASSES[algo]
    logs = sorted(folder.glob("*.monitor.csv"))
    assert len(logs) == SHORT["n_envs"]
    assert all(len(log.read_text("utf-8").splitlines()) > 2 for log in logs)


@pytest.mark.slow
def test_the_zoo_evaluates_in_an_environment_like_the_one_for_training(
    zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "geometry": "transt-tiny", "action": "delta", "split": "val"}
    pairs = [f"{key}:{value!r}" for key, value in options.items()]
    evaluation = ["--eval-freq", "16", "--eval-episodes", "2", "--eval-env-kwargs", *pairs]
    _, folder = run(tmp_path, monkeypatch, "ppo", *evaluation)
    assert_evaluations(folder)


@pytest.mark.slow
def test_slt_trains_and_is_evaluated_under_the_zoo(
    zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("zoo_train_slt", FOLDER / "train_slt.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    model, folder = run(
        tmp_path, monkeypatch, "slt", "--eval-freq", "16", "--eval-episodes", "2", threads=1
    )
    assert isinstance(model, SLT)
    assert_evaluations(folder)


def assert_evaluations(folder: Path) -> None:
    """Assert that there are evaluations, whose returns are shares of a clip."""
    with np.load(folder / "evaluations.npz") as evaluations:
        results = evaluations["results"]
    assert results.shape[0] >= 1
    assert results.shape[1] == 2
    assert ((results >= 0) & (results <= 1)).all()
    assert (folder / "best_model.zip").is_file()
