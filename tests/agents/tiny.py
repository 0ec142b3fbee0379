"""A tracker of a laptop's size, small environments for it, and formulas written out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from slt_gym.agents import SLT
from slt_gym.agents.transt import TransT, transt_tiny
from slt_gym.envs.episode import EpisodeRules
from slt_gym.geometry import get_geometry

ENV_ID = "slt_gym:SLTTrack-Synthetic-v0"
VIDEO = {"num_frames": 20, "width": 160, "height": 120, "num_sequences": 8}


def make_network(seed: int = 0, **overrides: Any) -> TransT:
    """Build transt-tiny with random weights and BatchNorm statistics, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = transt_tiny(**overrides)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def make_spaces(geometry: str = "transt-tiny") -> tuple[spaces.Dict, spaces.Box]:
    """Return the observation and the action space of one track."""
    rules = EpisodeRules(get_geometry(geometry))
    return rules.observation_space, rules.action_space


def draw_observation(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw a batch of observations of ``transt-tiny``: noise for pixels."""
    rng = np.random.default_rng(seed)
    return {
        "template": rng.integers(0, 256, (count, 3, 48, 48), np.uint8),
        "search": rng.integers(0, 256, (count, 3, 96, 96), np.uint8),
        "box": rng.uniform(0.2, 0.5, (count, 4)).astype(np.float32),
    }


def make_slt(**kwargs: Any) -> SLT:
    """Build SLT with ``transt-tiny`` on clips of four frames; keywords replace or extend."""
    env_kwargs = {"num_frames": 4, "threads": 1, "dataset_options": VIDEO}
    env_kwargs.update(kwargs.pop("env_kwargs", {}))
    policy_kwargs = {"tracker": "transt-tiny", **kwargs.pop("policy_kwargs", {})}
    defaults = {"n_clips": 2, "learning_rate": 1e-3, "seed": 3, "device": "cpu"}
    return SLT(
        kwargs.pop("policy", "TransTPolicy"),
        kwargs.pop("env", ENV_ID),
        env_kwargs=env_kwargs,
        policy_kwargs=policy_kwargs,
        **{**defaults, **kwargs},
    )


def mark_positive_cells(box: tuple[float, ...], grid: int, clamped: bool) -> np.ndarray:
    """Mark the cells of ``(x, y, w, h)`` with slices, as the published code does, or clamped."""
    x, y, w, h = box
    left, top = math.ceil(grid * x), math.ceil(grid * y)
    right, bottom = math.ceil(grid * (x + w)), math.ceil(grid * (y + h))
    right += right == left
    bottom += bottom == top
    mask = np.zeros((grid, grid), bool)
    if clamped:
        overlaps = w > 0 and h > 0 and x < 1 and y < 1 and x + w > 0 and y + h > 0
        if overlaps:
            mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    else:
        mask[top:bottom, left:right] = True
    return mask.reshape(-1)


def compute_losses(
    scores: Tensor, boxes: Tensor, gt_box: Tensor, positive: np.ndarray
) -> dict[str, Tensor]:
    """Compute TransT's losses cell by cell; differentiable."""
    l1 = giou = entropy = torch.zeros((), dtype=torch.float64)
    weights = 0.0
    for b in range(len(scores)):
        gx, gy, gw, gh = gt_box[b].double()
        for n in range(scores.shape[1]):
            score = scores[b, n].double()
            if not positive[b, n]:
                entropy = entropy + 0.0625 * torch.log(1 + torch.exp(score))
                weights += 0.0625
                continue
            entropy = entropy + torch.log(1 + torch.exp(-score))
            weights += 1
            x, y, w, h = boxes[b, n].double()
            centre = (x + w / 2 - gx - gw / 2).abs() + (y + h / 2 - gy - gh / 2).abs()
            l1 = l1 + centre + (w - gw).abs() + (h - gh).abs()
            width = (torch.minimum(x + w, gx + gw) - torch.maximum(x, gx)).clamp(min=0)
            height = (torch.minimum(y + h, gy + gh) - torch.maximum(y, gy)).clamp(min=0)
            union = w * h + gw * gh - width * height
            hull = (torch.maximum(x + w, gx + gw) - torch.minimum(x, gx)) * (
                torch.maximum(y + h, gy + gh) - torch.minimum(y, gy)
            )
            giou = giou + 1 - (width * height / union - (hull - union) / hull)
    count = max(int(positive.sum()), 1)
    return {"classification": entropy / weights, "l1": l1 / count, "giou": giou / count}
