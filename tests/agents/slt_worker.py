"""Trains a small tracker by SLT, alone or as one of torchrun's processes (test_slt_processes.py).

Arguments: a folder. The first process writes what came out there, by the name of the case.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import KVWriter, Logger
from tiny import VIDEO, make_slt

from slt_gym.agents import Proposals, TrackerNetwork, register_tracker
from slt_gym.agents.network import SLTDefaults, normalise
from slt_gym.agents.slt import SLT
from slt_gym.geometry import TransTGeometry


class Stamp(TrackerNetwork):
    """Compares the template's mean colour with each cell; in float64, where order matters less."""

    slt_weights = {"policy": 1.0, "distance": 0.5}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(3, 4, 8, stride=8)
        self.head = torch.nn.Conv2d(8, 5, 1)
        self.unused = torch.nn.Parameter(torch.ones(3))  # has no gradient anywhere
        self.double()

    def encode(self, template: torch.Tensor) -> torch.Tensor:
        return self.look(normalise(template).double()).mean(dim=(2, 3))

    def propose(self, features: torch.Tensor, search: torch.Tensor) -> Proposals:
        seen = self.look(normalise(search).double())  # (B, C, 4, 4)
        both = torch.cat([seen, features[:, :, None, None].expand_as(seen)], dim=1)
        scores, boxes = self.head(both).flatten(2).transpose(1, 2).split([1, 4], dim=2)
        return Proposals(5 * scores[..., 0], 0.1 + boxes.sigmoid() * 0.5)

    def losses(self, proposals: Proposals, gt_box: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"distance": (proposals.boxes - gt_box[:, None]).abs().mean()}

    def training_losses(
        self, proposals: Proposals, gt_box: torch.Tensor, rng: Any, other_box: Any = None
    ) -> dict[str, torch.Tensor]:
        """Draw a number of times that depends on the crops, as anchors are drawn."""
        scale = 0.0
        for row in proposals.scores.argmax(dim=1).tolist():
            scale += rng.random(row + 1).sum()
        distance = self.losses(proposals, gt_box)["distance"]
        return {"distance": distance * scale / len(gt_box)}


class MeanStamp(Stamp):
    """The same, with the other rule for backward passes."""

    slt_defaults = SLTDefaults(average_micro_batches=True)


GEOMETRY = TransTGeometry(template_size=16, search_size=32)
register_tracker("stamp", geometry=GEOMETRY)(Stamp)
register_tracker("mean-stamp", geometry=GEOMETRY)(MeanStamp)
SGD = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}}
LOST = {"num_frames": 6, "lost_after": 2, "dataset_options": {**VIDEO, "speed": 0.2}}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"policy_kwargs": {"tracker": "stamp"}, "frame_fraction": 0.6, "env_kwargs": LOST},
    "one-per-pass": {
        "policy_kwargs": {"tracker": "mean-stamp"},
        "micro_batch": 1,
        "frame_fraction": 0.2,  # some passes have no frame
        "env_kwargs": LOST,
        "max_grad_norm": 0.01,
    },
    "critic": {
        "policy_kwargs": {"tracker": "mean-stamp"},
        "baseline": "critic",
        "n_samples": 2,
        "n_epochs": 2,
        "clip_range": 0.1,
        "entropy_weight": 0.01,
        "kl_weight": 0.1,
    },
    "transt": {"policy_kwargs": SGD, "learning_rate": 1e-4},
}


class Records(KVWriter):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append({k: v for k, v in key_values.items() if not k.startswith("time/")})

    def close(self) -> None:
        pass


def train(name: str, folder: Path) -> None:
    settings = {"n_clips": 4, "micro_batch": 2, "policy": "TrackerPolicy", **CASES[name]}
    model, records = make_slt(**settings), Records()
    model.set_logger(Logger(None, [records]))
    first = model.processes.first
    boxes = []
    step = model.env.step
    model.env.step = lambda actions: (boxes.append(actions), step(actions))[1]  # type: ignore[method-assign]
    model.learn(60, checkpoint=folder / f"{name}.zip", checkpoint_interval=1)
    seen = model.processes.gather(np.stack(boxes))
    if first:
        content = {
            "weights": model.get_parameters()["policy"],
            "rows": records.rows,
            "steps": model.num_timesteps,
            "curve": model.curve,
            "actions": np.concatenate(seen, axis=1),
        }
        torch.save(content, folder / f"{name}.pt")
    model.env.close()
    if name == "critic":  # goes on from its checkpoint, whoever wrote it
        model.processes.gather(None)  # the file is there now
        model = SLT.load(folder / f"{name}.zip", device="cpu")
        model.learn(20, reset_num_timesteps=False)
        if first:
            content = {"weights": model.get_parameters()["policy"], "steps": model.num_timesteps}
            torch.save(content, folder / "resumed.pt")
        model.env.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        train(case, Path(sys.argv[1]))
