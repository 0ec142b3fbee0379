"""The example in one file: it trains, and its parts do what its comments say."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slt_gym.envs import action_to_box

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "slt_single_file.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("slt_single_file", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_it_needs_the_environment_alone():
    tree = ast.parse(SCRIPT.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    assert not any(name.startswith(("slt_gym", "stable_baselines3")) for name in names)


def test_actions_are_the_boxes(example):
    box = torch.rand(20, 4) * 0.8
    actions = example.to_action(box)
    np.testing.assert_allclose(action_to_box(actions), box, atol=1e-6)


def test_the_network_compares_each_crop_with_its_own_template(example):
    torch.manual_seed(0)
    network = example.Siamese()
    template = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    search = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
    log_probs, boxes = network(network.encode(template), search)
    assert log_probs.shape == (3, 144)
    assert boxes.shape == (3, 144, 4)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(3))
    for i in range(3):
        alone, box = network(network.encode(template[i : i + 1]), search[i : i + 1])
        torch.testing.assert_close(alone[0], log_probs[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(box[0], boxes[i], atol=1e-4, rtol=1e-4)
    other, _ = network(network.encode(template.flip(0)), search)
    assert not torch.allclose(other[0], log_probs[0], atol=1e-3)


def test_a_job_of_seconds(example, tmp_path, capsys):
    config = example.Config(
        clips=2,
        frames=4,
        warmup=2,
        updates=2,
        test_sequences=2,
        test_frames=4,
        device="cpu",
        output=tmp_path,
    )
    first, second = example.main(config), example.main(config)
    assert first == second  # the same seed, the same result
    assert list(first) == ["untrained", "frame by frame", "sequences"]
    assert all(0 < auc < 1 for auc in first.values())
    assert capsys.readouterr().out.count("test AUC") == 6
    scalars = EventAccumulator(str(tmp_path)).Reload()
    assert {"warmup/l1", "slt/greedy_auc", "test/auc"} <= set(scalars.Tags()["scalars"])
    values = [event.value for event in scalars.Scalars("slt/reinforce")]
    assert len(values) == 4
    assert np.isfinite(values).all()
