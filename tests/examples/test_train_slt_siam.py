"""The recipes of SLT-SiamRPN++ and SLT-SiamAttn: the paper's constants, and that both jobs run."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest

import slt_gym  # noqa: F401 (registers the environments)
from slt_gym.agents import create_tracker
from slt_gym.cli.job import Config, make_experiment
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.experiment import run_experiment

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("siamrpnpp", "siamattn")


@pytest.fixture(scope="module")
def recipes():
    found = {}
    for name in NAMES:
        path = EXAMPLES / f"train_slt_{name}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found[name] = module.RECIPE
    return found


@pytest.mark.parametrize(
    ("name", "clips", "updates", "augment"),
    [("siamrpnpp", 8, 25_000, False), ("siamattn", 12, 16_660, {"mode": "padding"})],
)
def test_paper_recipe_has_the_papers_constants(recipes, name, clips, updates, augment):
    config = Config(dataset="trackingnet+lasot", root="all", weights=f"{name}.pth")
    experiment = make_experiment(recipes[name], config)
    assert experiment.tracker == name and experiment.updates == updates
    # 20 epochs of 10,000 clips.
    assert updates == 20 * (10_000 // clips)
    # The rest is the network's: nothing here overrides its published settings.
    assert experiment.slt == {"n_clips": clips}
    train = experiment.train_kwargs
    assert train["dataset"] == "trackingnet+lasot" and train["num_frames"] == 24
    assert train["sampler"] == "pysot" and train.get("augment", False) == augment


@pytest.mark.parametrize("name", NAMES)
def test_environment_takes_the_recipes_arguments(recipes, name):
    kwargs = {**recipes[name].train, "geometry": f"{name}-tiny"}
    options = {"num_frames": 6, "width": 80, "height": 64}
    env = gym.make("SLTTrack-Synthetic-v0", dataset_options=options, **kwargs)
    env.reset(seed=0)
    # Stills and short videos are padded to whole clips.
    for t in range(23):
        done = env.step(env.action_space.sample())[2]
        assert done == (t == 22)
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_published_recipe_needs_weights(recipes, name):
    with pytest.raises(InvalidArgumentError, match=rf"--weights {name}\.pth"):
        make_experiment(recipes[name], Config(dataset="lasot", root="x"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_synthetic_job_makes_its_base(recipes, name, tmp_path):
    config = Config(steps=1, clips=1, frames=3, test_frames=3, test_sequences=2)
    experiment = make_experiment(recipes[name], config)
    assert experiment.tracker == f"{name}-tiny"
    experiment = replace(experiment, base=replace(experiment.base, steps=2, batch_size=4))
    experiment = replace(experiment, control=replace(experiment.control, batch_size=4))
    report = run_experiment(experiment, tmp_path)
    assert all(report[row] is not None for row in ("base", "control", "slt"))
    assert report["sequences"] == 2
    tracker = create_tracker(f"{name}-tiny", weights=tmp_path / "weights" / "slt")
    base = create_tracker(f"{name}-tiny", weights=tmp_path / "weights" / "base")
    moved = [
        not (a == b).all()
        for a, b in zip(tracker.network.parameters(), base.network.parameters(), strict=True)
    ]
    assert any(moved)
