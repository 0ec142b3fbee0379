from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_network

from slt_gym.agents import TrackerNetwork, pretrain
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.data import open_dataset
from slt_gym.errors import FrameError, InvalidArgumentError
from slt_gym.geometry import get_geometry

GEOMETRY = get_geometry("transt-tiny")


def train(network: TrackerNetwork, **config: Any) -> list[dict[str, float]]:
    """Train and return what was logged."""
    dataset = open_dataset(
        "synthetic", num_frames=12, width=96, height=80, num_sequences=4, occluders=0
    )
    defaults = {"steps": 6, "batch_size": 4, "threads": 1}
    rows: list[dict[str, float]] = []
    trained = pretrain(
        network,
        dataset,
        GEOMETRY,
        PretrainingConfig(**{**defaults, **config}),
        log=lambda step, row: rows.append({"step": step, **row}),
        log_interval=2,
    )
    assert trained is network
    assert not any(module.training for module in network.modules())
    return rows


def test_the_loss_falls() -> None:
    rows = train(make_network(), steps=30, batch_size=8, learning_rate=3e-3, max_grad_norm=1.0)
    assert [row["step"] for row in rows] == list(range(2, 32, 2))
    assert rows[0].keys() == {
        *("step", "classification", "l1", "giou", "loss", "grad_norm"),
        *("steps_per_second", "learning_rate"),
    }
    for row in rows:
        weighted = 8.334 * row["classification"] + 5 * row["l1"] + 2 * row["giou"]
        assert row["loss"] == pytest.approx(weighted, rel=1e-5)
    early, late = (np.mean([row["loss"] for row in part]) for part in (rows[:3], rows[-3:]))
    assert late < 0.85 * early


def test_the_same_seed_trains_the_same_weights() -> None:
    networks = [make_network() for _ in range(3)]
    for network, seed, threads in zip(networks, (1, 1, 2), (1, 2, 1), strict=True):
        train(network, seed=seed, threads=threads, steps=3)
    first, second, other = (network.state_dict() for network in networks)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_batch_norm_learns_its_statistics() -> None:
    network = make_network()
    before = network.backbone[0].body.bn1.running_mean.clone()
    train(network, steps=2)
    assert not torch.equal(network.backbone[0].body.bn1.running_mean, before)


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = PretrainingConfig(
        steps=110, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5
    )
    rates = [config.rate(step) for step in range(111)]
    np.testing.assert_allclose(rates[:10], 1e-4 * np.arange(1, 11))
    assert rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[110] == pytest.approx(1e-5)
    assert (np.diff(rates[10:]) <= 0).all()


def test_learning_rates_follow_the_networks_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    step = torch.optim.AdamW.step

    def watch(self: torch.optim.AdamW, *args: Any) -> Any:
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    network = make_network(backbone_lr_scale=0.1)
    train(network, steps=3, learning_rate=1e-3, final_learning_rate=0.0)
    expected = 1e-3 * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2
    np.testing.assert_allclose(seen, np.column_stack([expected, 0.1 * expected]))


def test_a_time_limit_ends_the_training() -> None:
    # The clock is the machine's: a budget that is over at once gives one step at most.
    rows = train(make_network(), seconds=1e-9, steps=1000)
    assert rows == []


def test_a_failing_frame_ends_the_training_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    dataset = open_dataset("synthetic", num_frames=12, width=96, height=80, num_sequences=1)

    def fail(t: int) -> Any:
        raise FrameError(f"frame {t} is torn")

    monkeypatch.setattr(dataset[0], "read", fail)
    before = threading.active_count()
    config = PretrainingConfig(steps=5, batch_size=2, threads=2)
    with pytest.raises(FrameError, match="is torn"):
        pretrain(make_network(), dataset, GEOMETRY, config)
    assert threading.active_count() == before


def test_networks_without_losses_are_refused() -> None:
    class Silent(torch.nn.Identity):
        pretraining_weights: dict[str, float] = {}  # noqa: RUF012

    with pytest.raises(InvalidArgumentError, match=r"Silent has no pretraining_weights"):
        pretrain(Silent(), open_dataset("synthetic"), GEOMETRY)  # type: ignore[arg-type]


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_batch_norm_keeps_its_statistics(freeze: bool) -> None:
    torch.manual_seed(0)
    network = make_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    train(network, steps=2, freeze_batch_norm=freeze)
    after = network.state_dict()
    kept = [torch.equal(before[k], after[k]) for k in before if "running_" in k]
    assert kept and all(kept) == freeze
    assert not torch.equal(before["input_proj.weight"], after["input_proj.weight"])
