"""``keep_graph``: the update goes back through exploration, to the same gradient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from tiny import make_slt

from slt_gym.agents import SLT, TrackerPolicy
from slt_gym.agents.rollout import ClipRollout
from slt_gym.errors import InvalidArgumentError


@pytest.fixture
def doubles() -> Iterator[None]:
    """Compute with float64, in which both ways agree to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_pair(tracker: str = "transt-tiny", **settings: Any) -> tuple[SLT, SLT]:
    """Return a model that computes everything anew, and one that keeps graphs."""
    settings = {
        "policy": TrackerPolicy,
        "policy_kwargs": {"tracker": tracker},
        "n_clips": 3,
        "learning_rate": 0.0,
        **settings,
    }
    settings["env_kwargs"] = {"geometry": tracker, **settings.get("env_kwargs", {})}
    models = make_slt(**settings), make_slt(keep_graph=True, **settings)
    models[1].policy.load_state_dict(models[0].policy.state_dict())
    return models


def count_proposals(model: SLT) -> list[int]:
    """Have the sizes of the network's batches of search crops counted."""
    seen: list[int] = []
    propose = model.policy._propose

    def watch(features: Any, search: torch.Tensor) -> Any:
        seen.append(len(search))
        return propose(features, search)

    model.policy._propose = watch
    return seen


def explore(model: SLT) -> ClipRollout:
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(1)
    rollout = model.collect_rollout(callback)
    assert rollout is not None
    return rollout


def gradients(model: SLT) -> dict[str, torch.Tensor]:
    parameters = [*model.policy.named_parameters()]
    parameters += [] if model.critic is None else model.critic.named_parameters("critic")
    return {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def assert_equal_gradients(ours: SLT, theirs: SLT) -> None:
    expected, found = gradients(theirs), gradients(ours)
    assert found.keys() == expected.keys()
    norm = sum(float(g.square().sum()) for g in expected.values()) ** 0.5
    assert norm > 1e-3
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) < 1e-6 * norm, name


SETTINGS: list[dict[str, Any]] = [
    {},
    {"micro_batch": 1, "frame_fraction": 0.5},
    {"n_samples": 3, "baseline": "leave_one_out", "micro_batch": 3},
    {"baseline": "critic", "entropy_weight": 0.01},
    {"env_kwargs": {"lost_after": 1, "num_frames": 8}},
    {"kl_weight": 0.1, "n_samples": 2, "baseline": "group"},
    {"activation_checkpointing": True, "loss_weights": {"classification": 1.0}},
]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_gradient_is_that_of_a_second_pass(settings: dict[str, Any]) -> None:
    plain, keeping = make_pair(**settings)
    expected, rollout = explore(plain), explore(keeping)
    np.testing.assert_array_equal(rollout.index, expected.index)
    np.testing.assert_array_equal(rollout.search, expected.search)
    np.testing.assert_array_equal(rollout.alive, expected.alive)
    for model, seen in ((plain, expected), (keeping, rollout)):
        model.train(seen)
    assert_equal_gradients(keeping, plain)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("tracker", ["siamattn-tiny", "siamrpnpp-tiny", "trdimp-tiny"])
def test_every_tracker_can(tracker: str) -> None:
    plain, keeping = make_pair(tracker)
    for model in (plain, keeping):
        model.train(explore(model))
    assert_equal_gradients(keeping, plain)


def test_the_update_computes_nothing_forward_and_forgets() -> None:
    _, model = make_pair(n_clips=4)
    seen = count_proposals(model)
    rollout = explore(model)
    assert seen[0] == 4  # the sampled tracks, whose crops the greedy ones share in the first frame
    assert rollout.graphs is not None
    before = len(seen)
    graphs = rollout.graphs
    model.train(rollout)
    assert len(seen) == before
    assert rollout.graphs is None
    assert graphs._kept == []  # which a callback's locals may still hold
    assert graphs._features is None


def test_a_callback_that_stops_keeps_no_graphs() -> None:
    _, model = make_pair()
    held: list[Any] = []

    def stop(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
        held.append(locals_["graphs"])
        return len(held) < 2

    model.learn(100, callback=stop)
    assert len(held) == 2
    assert held[0]._kept == []


def test_it_does_not_go_with_a_compiled_network() -> None:
    with pytest.raises(InvalidArgumentError, match="keep_graph does not go with compile"):
        make_slt(keep_graph=True, compile=True)


def test_greedy_tracks_share_what_sampled_ones_see() -> None:
    _, model = make_pair(n_clips=2)
    seen = count_proposals(model)
    assert model.env is not None
    step, frames = model.env.step, []

    def stay(actions: np.ndarray) -> Any:
        frames.append(len(seen))
        # The first clip's tracks stay together, the second one's part.
        actions = np.tile(np.float32([0.0, 0.0, -0.5, -0.5]), (4, 1))
        actions[3, 0] = 0.2
        return step(actions)

    model.env.step = stay  # type: ignore[method-assign]
    explore(model)
    assert seen == [2, 2, 1, 2, 1]  # the sampled tracks, and greedy ones with crops of their own
    assert frames == [1, 3, 5]


@pytest.mark.usefixtures("doubles")
def test_later_epochs_compute_again(tmp_path: Path) -> None:
    settings = {"n_epochs": 2, "clip_range": 0.2, "learning_rate": 1e-3}
    plain, keeping = make_pair(**settings)
    for model in (plain, keeping):
        model.learn(2 * 3 * 2 * 3)
    for name, value in plain.policy.state_dict().items():
        torch.testing.assert_close(keeping.policy.state_dict()[name], value, msg=name)
    keeping.save(tmp_path / "model")
    assert SLT.load(tmp_path / "model").keep_graph
