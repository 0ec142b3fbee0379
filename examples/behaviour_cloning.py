"""Behaviour cloning from recorded trajectories, and from a teacher that corrects (DAgger).

First an expert's episodes are recorded as a Minari dataset, or an earlier recording is opened. A
policy learns them without an environment. Where it errs afterwards, it is in states that the expert
never came to; so it goes on in the environment, where it acts more and more, and the expert says
what it would have done (DAgger; Ross et al., AISTATS 2011). Held-out sequences are tracked after
each part. Procedural video: nothing to download.

    pip install "slt-gym[offline]"
    python examples/behaviour_cloning.py
    python examples/behaviour_cloning.py --expert transt-tiny    # imitate a tracker
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from slt_gym.agents import BehaviourCloning, TrackerFeaturesExtractor
from slt_gym.agents.experts import make_expert
from slt_gym.agents.trajectories import import_minari, load_trajectories, record_trajectories
from slt_gym.envs import make_sb3_env

ENV_ID = "SLTTrack-Synthetic-v0"


@dataclass
class Config:
    """What can be set on the command line."""

    expert: str = "oracle"
    """Who is imitated: oracle, which knows the ground truth, or another tracker's name."""
    episodes: int = 400
    """Episodes that are recorded."""
    epochs: int = 30
    """How often the recording is read."""
    corrected_steps: int = 8000
    """Steps of the policy with the expert's corrections."""
    action: str = "delta"
    """Form of the actions: box, delta, moves or proposals."""
    frames: int = 16
    """Frames of a clip."""
    size: tuple[int, int] = (192, 144)
    """Width and height of the video."""
    n_envs: int = 8
    """Tracks that run side by side."""
    test_sequences: int = 50
    """Held-out sequences."""
    learning_rate: float = 1e-3
    """Of both parts."""
    threads: int = 1
    """PyTorch's threads; the environment draws frames in threads of its own."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the policy runs."""
    seed: int = 0
    """Of weights, clips and batches."""
    dataset_id: str | None = None
    """The recording's id; by default one that names its settings."""


def main(config: Config) -> dict[str, float]:
    """Record, learn, and return the mean success AUC of each tracker on the held-out sequences."""
    torch.set_num_threads(config.threads)
    width, height = config.size
    env_kwargs = {
        "geometry": "transt-tiny",  # template crops of 48 pixels, search crops of 96
        "action": config.action,
        "num_frames": config.frames,
        "dataset_options": {"width": width, "height": height, "num_frames": 2 * config.frames},
    }

    dataset_id = config.dataset_id or (
        f"slt-gym/synthetic-{config.action}/{config.expert}-{config.episodes}x{config.frames}"
        f"-{width}x{height}-seed{config.seed}-v0"
    )
    if dataset_id in import_minari().list_local_datasets():
        dataset = load_trajectories(dataset_id)
    else:
        dataset = record_trajectories(
            dataset_id,
            ENV_ID,
            config.expert,
            config.episodes,
            n_envs=config.n_envs,
            seed=config.seed,
            device=config.device,
            progress_bar=True,
            **env_kwargs,
        )
    print(f"{dataset.id}: {dataset.total_steps} steps, {dataset.storage.get_size():.0f} MB")

    def make_test_env() -> VecEnv:
        options = {**env_kwargs["dataset_options"], "num_sequences": config.test_sequences}
        kwargs = {**env_kwargs, "dataset_options": options, "split": "test"}
        return make_sb3_env(ENV_ID, config.n_envs, config.seed, **kwargs)

    scores = {}
    for name in ("static", config.expert):
        env = make_test_env()
        scores[name] = track(env, make_expert(name, env).act)

    model = BehaviourCloning(
        "MultiInputPolicy",
        demonstrations=dataset,
        learning_rate=config.learning_rate,
        policy_kwargs={"features_extractor_class": TrackerFeaturesExtractor},
        seed=config.seed,
        device=config.device,
    )

    def act(obs: dict[str, NDArray], _: NDArray[np.bool_]) -> NDArray:
        return model.predict(obs, deterministic=True)[0]

    scores["untrained"] = track(make_test_env(), act)
    model.learn(config.epochs * dataset.total_steps)
    scores["cloned"] = track(make_test_env(), act)

    # The same policy, where it leads itself; what it learnt so far stays.
    cloned = model.policy.state_dict()
    model = BehaviourCloning(
        "MultiInputPolicy",
        # A crop without the target cannot show what the expert says: a lost track ends.
        make_sb3_env(ENV_ID, config.n_envs, config.seed + 1, lost_after=1, **env_kwargs),
        expert=config.expert,
        beta=hand_over,
        learning_rate=config.learning_rate,
        policy_kwargs={"features_extractor_class": TrackerFeaturesExtractor},
        seed=config.seed,
        device=config.device,
    )
    model.policy.load_state_dict(cloned)
    model.learn(config.corrected_steps)
    scores["cloned, then corrected"] = track(make_test_env(), act)

    for name, score in scores.items():
        print(f"{name:>24}  AUC {100 * score:5.1f} %")
    return scores


def hand_over(left: float) -> float:
    """Return the probability that the expert acts, from the share of the training that is left."""
    return left


def track(env: VecEnv, act: Callable[[Any, NDArray[np.bool_]], NDArray]) -> float:
    """Track every sequence of the split once; return their mean success AUC."""
    names = set(env.get_attr("sequence_names")[0])
    aucs: dict[str, float] = {}
    obs: Any = env.reset()
    start = np.ones(env.num_envs, np.bool_)
    while set(aucs) < names:
        obs, _, start, infos = env.step(act(obs, start))
        # A short shard comes round again while the others finish: the same result.
        aucs |= {info["sequence"]: info["auc"] for info in infos if "auc" in info}
    env.close()
    return float(np.mean(list(aucs.values())))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
