"""Train PPO on synthetic video, and print the AUC of its greedy policy on held-out clips.

Learners: Stable-Baselines3's default features (`default`), `TrackerFeaturesExtractor` (`features`),
and the pretrained `transt-tiny` as `TrackerActorCriticPolicy` (`tracker`). All get the same number
of environment steps; the first two the same settings, the third its own.

    python benchmarks/ppo.py --learners default features
    python benchmarks/ppo.py --learners tracker --steps 8192
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from slt_gym.agents import TrackerActorCriticPolicy, TrackerFeaturesExtractor
from slt_gym.envs import make_sb3_env

ENV = {
    "id": "SLTTrack-Synthetic-v0",
    "n_envs": 8,
    "geometry": "transt-tiny",
    "num_frames": 12,
    "dataset_options": {"width": 160, "height": 120},
}
PPO_KWARGS = {"n_steps": 64, "batch_size": 256, "n_epochs": 5, "gamma": 0.3}
# Of each learner: the form of actions, the policy, its arguments, the learning rate.
LEARNERS: dict[str, tuple[str, Any, dict[str, Any], float]] = {
    "default": ("delta", "MultiInputPolicy", {"log_std_init": -2.0}, 1e-3),
    "features": (
        "delta",
        "MultiInputPolicy",
        {"log_std_init": -2.0, "features_extractor_class": TrackerFeaturesExtractor},
        1e-3,
    ),
    "tracker": (
        "box",
        TrackerActorCriticPolicy,
        {"tracker": "transt-tiny", "weights": "pretrained"},
        1e-3,
    ),
}


def make_env(learner: str, seed: int, threads: int) -> VecEnv:
    """Return the training environment, its rewards scaled to unit variance."""
    env = make_sb3_env(
        seed=seed,
        action=LEARNERS[learner][0],
        reward="iou_gain",
        lost_after=3,
        threads=threads,
        **ENV,
    )
    return VecNormalize(env, norm_obs=False, gamma=PPO_KWARGS["gamma"])


def evaluate(model: BaseAlgorithm, learner: str, clips: int) -> float:
    """Return the mean AUC of the greedy policy on the first clips of the val split."""
    env = make_sb3_env(action=LEARNERS[learner][0], split="val", threads=1, seed=0, **ENV)
    scores: list[float] = []
    observation = env.reset()
    while len(scores) < clips:
        actions, _ = model.predict(observation, deterministic=True)  # type: ignore[arg-type]
        observation, _, _, infos = env.step(actions)
        scores += [info["auc"] for info in infos if "auc" in info]
    env.close()
    return float(np.mean(scores[:clips]))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--steps", type=int, default=12_288, help="of the environment")
    parser.add_argument("--every", type=int, default=4096, help="steps between evaluations")
    parser.add_argument("--clips", type=int, default=96, help="held-out clips, 11 frames to track")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and the environment")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    results: dict[str, list[dict[str, float]]] = {}
    for learner in args.learners:
        _, policy, policy_kwargs, rate = LEARNERS[learner]
        env = make_env(learner, args.seed, args.threads)
        model = PPO(
            policy,
            env,
            policy_kwargs=policy_kwargs,
            learning_rate=rate,
            seed=args.seed,
            device="cpu",
            **PPO_KWARGS,
        )
        seconds, rows = 0.0, results.setdefault(learner, [])
        while True:
            auc = evaluate(model, learner, args.clips)
            rows.append({"steps": model.num_timesteps, "auc": auc, "cpu_seconds": seconds})
            print(
                f"{learner:9} {model.num_timesteps:6d} steps  AUC {100 * auc:5.1f}  "
                f"{seconds:6.0f} s of CPU time",
                flush=True,
            )
            if model.num_timesteps >= args.steps:
                break
            started = time.process_time()
            model.learn(args.every, reset_num_timesteps=False)
            seconds += time.process_time() - started
        env.close()
    if args.json is not None:
        report = {"seed": args.seed, "clips": args.clips, "learners": results}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
