"""PPO of RLlib on tracks, with a network of one's own that compares the two crops.

    pip install -e ".[rllib]"
    python examples/rllib_ppo.py
    python examples/rllib_ppo.py --env-runners 4 --steps 200000

RLlib's own networks take no ``Dict`` of images. ``TrackerModule`` is an ``RLModule`` of its new API
that does: it learns, from random weights, to shift and scale the previous estimate. The same
held-out sequences are tracked before and after. Procedural video: nothing to download.

RLlib 2.60 pins gymnasium 1.2.2, and installs it in place of a newer one. This file also runs with
1.4.0.

Shapes: B observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.tune.registry import register_env
from torch import Tensor, nn

from slt_gym.agents import TrackerFeaturesExtractor

ID = "slt_gym:SLTTrack-Synthetic-v0"
TRACK = {"geometry": "transt-tiny", "action": "delta"}  # crops of 48 and 96 pixels


@dataclass
class Config:
    """What can be set on the command line."""

    steps: int = 50_000
    """Environment steps, of all tracks together."""
    env_runners: int = 0
    """Processes that collect; 0 collects in this one."""
    tracks: int = 8
    """Tracks side by side in each of them."""
    batch: int = 512
    """Steps between two updates."""
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
    log_std: float = -2.0
    """Logarithm of the actions' standard deviation at the start."""
    test_sequences: int = 50
    """Held-out sequences."""
    test_frames: int = 40
    """Their length."""
    seed: int = 0
    """Of weights, clips and actions."""
    save: Path | None = None
    """Folder for a checkpoint."""


class TrackerModule(TorchRLModule, ValueFunctionAPI):
    """Policy and value on the features that compare template and search crop."""

    def setup(self) -> None:
        """Make the layers."""
        self.features = TrackerFeaturesExtractor(self.observation_space)
        size = self.features.features_dim
        self.mean = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 4))
        self.value = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((4,), self.model_config["log_std"]))
        nn.init.zeros_(self.mean[-1].weight)  # at first the estimate stays
        nn.init.zeros_(self.mean[-1].bias)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Return the Gaussian's means and log standard deviations, ``(B, 8)``, and features."""
        features = self.features(batch[Columns.OBS])
        mean = self.mean(features)
        inputs = torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.EMBEDDINGS: features}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Return values ``(B,)``."""
        if embeddings is None:
            embeddings = self.features(batch[Columns.OBS])
        return self.value(embeddings).squeeze(-1)


def make_env(options: dict[str, Any]) -> gym.Env:
    """Make one track whose reward is a frame's gain in IoU over the previous estimate."""
    env = gym.make(ID, **TRACK, reward="iou_gain", **options)
    # A frame's reward is divided by the clip's length: undone here.
    length = options["num_frames"] - 1
    return gym.wrappers.TransformReward(env, lambda reward: length * reward)


@torch.no_grad()
def test(module: RLModule, config: Config) -> float:
    """Return the mean success AUC over the held-out sequences, tracked without noise."""
    size = {"num_sequences": config.test_sequences, "num_frames": config.test_frames}
    env = gym.make_vec(
        ID,
        num_envs=config.test_sequences,
        split="test",
        num_frames=config.test_frames,
        dataset_options=size,
        autoreset_mode="disabled",
        **TRACK,
    )
    obs, info = env.reset()
    for _ in range(config.test_frames - 1):
        batch = {Columns.OBS: {key: torch.from_numpy(value) for key, value in obs.items()}}
        mean = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS][:, :4]
        obs, _, _, _, info = env.step(mean.numpy())
    env.close()
    return float(np.mean(info["auc"]))


def main(config: Config) -> dict[str, float]:
    """Train; return the test AUC before and after, and the steps taken."""
    register_env("tracks", make_env)
    # No dashboard: it is a web server.
    ray.init(num_cpus=max(config.env_runners, 1), include_dashboard=False, log_to_driver=False)
    settings = (
        PPOConfig()
        .environment("tracks", env_config={"num_frames": config.frames})
        .env_runners(
            num_env_runners=config.env_runners,
            num_envs_per_env_runner=config.tracks,
            rollout_fragment_length="auto",
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=TrackerModule, model_config={"log_std": config.log_std}
            )
        )
        .training(
            lr=[[0, config.lr], [config.steps, 0.0]],
            gamma=config.gamma,
            lambda_=0.95,
            clip_param=0.2,
            use_kl_loss=False,
            train_batch_size_per_learner=config.batch,
            minibatch_size=config.minibatch,
            num_epochs=config.epochs,
            grad_clip=0.5,
        )
        .debugging(seed=config.seed, log_level="ERROR")
    )
    algorithm = settings.build_algo()
    aucs = {"untrained": test(algorithm.get_module(), config)}
    print(f"untrained: test AUC {100 * aucs['untrained']:.1f} %", flush=True)
    steps = 0
    while steps < config.steps:
        result = algorithm.train()
        steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
        gain = result["env_runners"]["episode_return_mean"] / (config.frames - 1)
        print(f"{steps} steps: return of recent clips {gain:+.3f}", flush=True)
    aucs["trained"] = test(algorithm.get_module(), config)
    print(f"trained: test AUC {100 * aucs['trained']:.1f} %")
    if config.save is not None:
        algorithm.save_to_path(config.save.absolute())
    algorithm.stop()
    ray.shutdown()
    return {**aucs, "steps": steps}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
