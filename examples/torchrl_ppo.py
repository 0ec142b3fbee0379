"""PPO of TorchRL on tracks: environment, policy, collector, advantages and loss are TorchRL's.

    pip install -e ".[torchrl]"
    python examples/torchrl_ppo.py
    python examples/torchrl_ppo.py --steps 100000 --tracks 16

A policy from random weights learns to shift and scale the previous estimate. The same held-out
sequences are tracked before and after. Procedural video: nothing to download.

``GymEnv("slt_gym:SLTTrack-Synthetic-v0", geometry="transt-tiny")`` is one track. Here many run in
the threads of Gymnasium's ``make_vec``; with ``autoreset_mode="disabled"`` TorchRL resets them.

Shapes: B tracks, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.envs import (
    Compose,
    ExplorationType,
    GymWrapper,
    RewardScaling,
    RewardSum,
    TransformedEnv,
    set_exploration_type,
)
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from slt_gym.agents import TrackerFeaturesExtractor

KEYS = ["template", "search", "box"]


@dataclass
class Config:
    """What can be set on the command line."""

    steps: int = 50_000
    """Environment steps, of all tracks together."""
    tracks: int = 8
    """Tracks side by side."""
    horizon: int = 64
    """Steps of each track between two updates."""
    frames: int = 24
    """Frames of a clip; the first one only shows where the target is."""
    epochs: int = 5
    """Passes over what was collected."""
    minibatch: int = 256
    """Steps in a gradient step."""
    lr: float = 1e-3
    """Learning rate at the start; it falls to 0."""
    gamma: float = 0.3
    """Discount: a frame's box decides mostly about the next frames."""
    gae_lambda: float = 0.95
    """Of the generalised advantage estimation."""
    clip: float = 0.2
    """How far from 1 the ratio of probabilities teaches."""
    log_std: float = -2.0
    """Logarithm of the actions' standard deviation at the start."""
    max_grad_norm: float = 0.5
    """L2 norm that gradients are clipped to."""
    test_sequences: int = 50
    """Held-out sequences."""
    test_frames: int = 40
    """Their length."""
    seed: int = 0
    """Of weights, clips and actions."""
    save: Path | None = None
    """File for the policy's weights."""


def make_env(tracks: int, frames: int, **options) -> GymWrapper:
    """Make tracks that run side by side, with crops of 48 and 96 pixels."""
    vector_env = gym.make_vec(
        "slt_gym:SLTTrack-Synthetic-v0",
        num_envs=tracks,
        geometry="transt-tiny",
        action="delta",  # the previous estimate, shifted and scaled
        num_frames=frames,
        autoreset_mode="disabled",
        **options,
    )
    return GymWrapper(vector_env)


class Network(nn.Module):
    """Compares the two crops, and maps what it finds to ``outputs`` numbers."""

    def __init__(self, space: gym.spaces.Dict, outputs: int) -> None:
        super().__init__()
        self.features = TrackerFeaturesExtractor(space)
        self.head = nn.Sequential(
            nn.Linear(self.features.features_dim, 64), nn.Tanh(), nn.Linear(64, outputs)
        )

    def forward(self, template: Tensor, search: Tensor, box: Tensor) -> Tensor:
        """Map observations of any batch shape, such as ``(B, T)``."""
        batch = box.shape[:-1]
        observation = {"template": template, "search": search, "box": box}
        flat = {key: value.flatten(0, len(batch) - 1) for key, value in observation.items()}
        return self.head(self.features(flat)).unflatten(0, batch)


class Actor(Network):
    """Gives the mean and the standard deviation of the action, both ``(..., 4)``."""

    def __init__(self, space: gym.spaces.Dict, log_std: float) -> None:
        super().__init__(space, outputs=4)
        self.log_std = nn.Parameter(torch.full((4,), log_std))
        nn.init.zeros_(self.head[-1].weight)  # at first the estimate stays
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, template: Tensor, search: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Map observations of any batch shape."""
        mean = super().forward(template, search, box)
        return mean, self.log_std.exp().expand_as(mean)


@torch.no_grad()
def test(actor: ProbabilisticActor, config: Config) -> float:
    """Return the mean success AUC over the held-out sequences, tracked without noise."""
    size = {"num_sequences": config.test_sequences, "num_frames": config.test_frames}
    env = make_env(
        config.test_sequences,
        config.test_frames,
        split="test",
        reward="auc",
        dataset_options=size,
    )
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        track = env.rollout(config.test_frames - 1, actor)  # (B, T)
    env.close()
    return track["next", "reward"].sum(dim=1).mean().item()


def main(config: Config) -> dict[str, float]:
    """Train; return the test AUC before and after, and the steps taken."""
    torch.manual_seed(config.seed)
    tracks = make_env(config.tracks, config.frames, reward="iou_gain")
    space = tracks.unwrapped.single_observation_space
    # A frame's reward is divided by the clip's length: undone, it is the frame's gain in IoU.
    scale = RewardScaling(loc=0.0, scale=config.frames - 1)
    env = TransformedEnv(tracks, Compose(scale, RewardSum()))
    env.set_seed(config.seed)

    actor = ProbabilisticActor(
        TensorDictModule(Actor(space, config.log_std), KEYS, ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )
    critic = ValueOperator(Network(space, outputs=1), in_keys=KEYS)
    advantage = GAE(gamma=config.gamma, lmbda=config.gae_lambda, value_network=critic)
    ppo = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=config.clip,
        entropy_coeff=0.0,
        normalize_advantage=True,
    )
    optimizer = torch.optim.Adam(ppo.parameters(), config.lr)

    aucs = {"untrained": test(actor, config)}
    print(f"untrained: test AUC {100 * aucs['untrained']:.1f} %", flush=True)
    batch = config.tracks * config.horizon
    collector = Collector(
        env,
        actor,
        frames_per_batch=batch,
        total_frames=config.steps,
        auto_register_policy_transforms=False,  # the policy has no state
    )
    steps = 0
    for data in collector:  # (B, T)
        optimizer.param_groups[0]["lr"] = config.lr * (1 - steps / config.steps)
        steps += data.numel()
        with torch.no_grad():
            advantage(data)
        flat = data.reshape(-1)  # (B T,)
        for _ in range(config.epochs):
            for chosen in torch.randperm(len(flat)).split(config.minibatch):
                losses = ppo(flat[chosen])
                loss = losses["loss_objective"] + losses["loss_critic"]
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(ppo.parameters(), config.max_grad_norm)
                optimizer.step()
        ended = data["next", "done"]
        gains = data["next", "episode_reward"][ended] / (config.frames - 1)
        print(
            f"{steps} steps: return of {len(gains)} clips {gains.mean():+.3f}, "
            f"critic's loss {losses['loss_critic'].item():.4f}",
            flush=True,
        )
    collector.shutdown()
    aucs["trained"] = test(actor, config)
    print(f"trained: test AUC {100 * aucs['trained']:.1f} %")
    if config.save is not None:
        config.save.parent.mkdir(parents=True, exist_ok=True)
        torch.save(actor.state_dict(), config.save)
    return {**aucs, "steps": steps}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
