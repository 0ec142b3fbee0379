"""SLT-TrDiMP's recipe: the paper's constants, and that the synthetic job runs."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slt_gym.agents import create_tracker
from slt_gym.agents.trdimp import TrDiMP
from slt_gym.cli.job import Config, make_experiment
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.experiment import run_experiment

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_slt_trdimp.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_paper_recipe_has_the_papers_constants(example):
    options = re.search(r"--dataset-options '(.*?)'", example.__doc__, re.DOTALL)[1]
    config = Config(
        dataset="lasot+got10k+trackingnet",
        root="all",
        weights="trdimp.pth.tar",
        dataset_options=options,
    )
    experiment = make_experiment(example.RECIPE, config)
    assert experiment.tracker == "trdimp" and experiment.env_id == "SLTTrack-LaSOT-v0"
    assert experiment.updates == 40 * 5000 // 8
    assert experiment.slt == {"n_clips": 8, "micro_batch": 4}
    train = experiment.train_kwargs
    assert train["num_frames"] == 24 and train["dataset"] == "lasot+got10k+trackingnet"
    # A third of the clips from each dataset, of these parts; PyTracking's clips are the default.
    assert train["dataset_options"] == {
        "options": {"got10k": {"split": "vottrain"}, "trackingnet": {"chunks": [*range(6, 12)]}}
    }
    assert "sampler" not in train and "augment" not in train


def test_the_networks_defaults_are_the_papers():
    defaults, weights = TrDiMP.slt_defaults, TrDiMP.slt_weights
    assert weights == {"policy": 4.0, "bb_ce": 0.01}
    assert defaults.optimizer_class.__name__ == "Adam" and defaults.max_grad_norm == 40
    # Eight epochs of forty at each rate.
    rates = [defaults.learning_rate(1 - epoch / 40) for epoch in range(40)]
    np.testing.assert_allclose(rates, np.repeat(4e-5 * 0.5 ** np.arange(5), 8))
    net = TrDiMP()
    parts = {
        "classifier.filter_initializer": 2e-6,
        "classifier.filter_optimizer": 2e-5,
        "classifier.feature_extractor": 2e-6,
        "classifier.transformer": 4e-5,
        "bb_regressor": 4e-5,
        "feature_extractor.layer3": 8e-7,
    }
    groups = {id(p): g["lr_scale"] for g in net.parameter_groups() for p in g["params"]}
    for name, parameter in net.named_parameters():
        part = next((part for part in parts if name.startswith(part)), None)
        if part is None or "WV" in name:
            assert id(parameter) not in groups, name
        else:
            assert 4e-5 * groups[id(parameter)] == pytest.approx(parts[part]), name


def test_published_recipe_needs_weights(example):
    with pytest.raises(InvalidArgumentError, match=r"--weights trdimp\.pth"):
        make_experiment(example.RECIPE, Config(dataset="lasot", root="x"))


@pytest.mark.slow
def test_synthetic_job_makes_its_base(example, tmp_path):
    config = Config(steps=1, clips=1, frames=3, test_frames=3, test_sequences=2)
    experiment = make_experiment(example.RECIPE, config)
    assert experiment.tracker == "trdimp-tiny"
    base, control = (
        replace(part, steps=2, batch_size=4) for part in (experiment.base, experiment.control)
    )
    run_experiment(replace(experiment, base=base, control=control), tmp_path)
    report = json.loads((tmp_path / "results.json").read_text())
    assert all(
        report[row]["updates"] >= (row != "base")
        for row in ("base", "control", "on_policy_regression", "slt")
    )
    networks = [
        create_tracker("trdimp-tiny", weights=tmp_path / "weights" / row).network
        for row in ("base", "slt")
    ]
    pairs = zip(*[network.parameters() for network in networks], strict=True)
    assert not all(a.equal(b) for a, b in pairs)
