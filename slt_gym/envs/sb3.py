"""The way from an environment's id to Stable-Baselines3.

Stable-Baselines3, and PyTorch with it, is imported by the first call of :func:`make_sb3_env`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from slt_gym.envs.registration import list_env_ids, register_envs
from slt_gym.envs.vector_env import TrackingVectorEnv
from slt_gym.errors import InvalidArgumentError

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


def make_sb3_env(id: str, n_envs: int = 1, seed: int | None = None, **env_kwargs: Any) -> VecEnv:
    """Build an environment for Stable-Baselines3's algorithms: a ``VecEnv`` of ``n_envs`` tracks.

    It is a :class:`TrackingVectorEnv` inside, with its threads and shared clips. It needs no
    ``Monitor``: the last info of an episode holds ``"episode"`` as Monitor writes it, from which
    SB3 logs ``rollout/ep_rew_mean`` and evaluates policies.

    Args:
        id: ``"SLTTrack-LaSOT-v0"``, or ``"slt_gym:SLTTrack-LaSOT-v0"``.
        n_envs: Number of tracks.
        seed: Seeds the first reset: track i gets ``seed + i``.
        **env_kwargs: The environment's arguments, and those of :class:`TrackingVectorEnv`.

    Raises:
        InvalidArgumentError: An argument is not accepted, or the id is no tracking environment's.
    """
    from slt_gym.envs.sb3_vec_env import TrackingSB3VecEnv  # noqa: PLC0415  (imports torch)

    if "autoreset_mode" in env_kwargs:
        raise InvalidArgumentError(
            f"argument 'autoreset_mode' is {env_kwargs['autoreset_mode']!r}: leave it out, "
            "Stable-Baselines3 knows only the reset in the same step"
        )
    register_envs()
    module, _, name = id.rpartition(":")
    if module:
        import_module(module)
    # Another library's environment would fail with its own, puzzling message.
    if name in gym.registry and not _makes_tracks(gym.registry[name].vector_entry_point):
        raise InvalidArgumentError(
            f"environment {id!r} is no tracking environment: accepted are "
            f"{', '.join(list_env_ids())} and ids registered with TrackingVectorEnv as "
            "vector_entry_point"
        )
    tracks = gym.make_vec(name, num_envs=n_envs, autoreset_mode="same_step", **env_kwargs)
    venv = TrackingSB3VecEnv(cast("TrackingVectorEnv", tracks))
    if seed is not None:
        venv.seed(seed)
    return venv


def _makes_tracks(entry_point: Any) -> bool:
    if isinstance(entry_point, str):
        entry_point = load_env_creator(entry_point)
    return isinstance(entry_point, type) and issubclass(entry_point, TrackingVectorEnv)
