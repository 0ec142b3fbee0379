"""A vector environment of tracks as a Stable-Baselines3 ``VecEnv`` (imports PyTorch)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from slt_gym.envs.episode import Observation
from slt_gym.envs.vector_env import TrackingVectorEnv
from slt_gym.errors import DatasetNotFoundError


class TrackingSB3VecEnv(VecEnv):
    """Present the tracks of a :class:`TrackingVectorEnv` the way Stable-Baselines3 expects.

    Attributes and methods asked for by name are the vector environment's, the same for each track.

    Args:
        tracks: Resets in the same step.
    """

    def __init__(self, tracks: TrackingVectorEnv) -> None:
        self.tracks = tracks
        self._actions: NDArray[Any] | None = None
        self._returns = np.zeros(tracks.num_envs)
        self._lengths = np.zeros(tracks.num_envs, np.int64)
        self._started = time.time()
        super().__init__(
            tracks.num_envs, tracks.single_observation_space, tracks.single_action_space
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how it was made: the copy is a new environment, to be reset first."""
        return _make_again, (self.tracks.spec,)

    def reset(self) -> Observation:
        """Begin new episodes in every track, with the seeds and options set before."""
        seeds = None if self._seeds[0] is None else list(self._seeds)
        # Tracks with equal options are reset together; as a rule that is all of them.
        waiting = np.ones(self.num_envs, np.bool_)
        while waiting.any():
            options = self._options[int(np.flatnonzero(waiting)[0])]
            mask = waiting & np.array([other == options for other in self._options])
            observations, infos = self.tracks.reset_tracks(
                seed=seeds, options={**options, "reset_mask": mask}
            )
            for i in np.flatnonzero(mask):
                self.reset_infos[i] = infos[i] or {}
            waiting &= ~mask
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every track; those that end begin anew."""
        assert self._actions is not None, "step_async() comes before step_wait()"
        observations, steps = self.tracks.step_tracks(self._actions)
        rewards = np.array([track.reward for track in steps], np.float32)
        dones = np.array([track.terminated for track in steps], np.bool_)
        self._returns += [track.reward for track in steps]
        self._lengths += 1
        infos: list[dict[str, Any]] = []
        for i, track in enumerate(steps):
            info = track.info if track.final_info is None else track.final_info
            info["TimeLimit.truncated"] = False
            if track.final_info is not None:
                info["terminal_observation"] = track.final_obs
                info["episode"] = self._finish(i)
                self.reset_infos[i] = track.info
            infos.append(info)
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Stop the threads."""
        self.tracks.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Draw each track's latest frame; None without ``render_mode="rgb_array"``."""
        images = self.tracks.render()
        return [None] * self.num_envs if images is None else list(images)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment, once for each index."""
        value = getattr(self.tracks, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment, for all tracks whatever the indices."""
        setattr(self.tracks, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once; return its result for each index."""
        result = getattr(self.tracks, method_name)(*method_args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell that there is no wrapper, but that episodes are reported as Monitor does."""
        wrapped = issubclass(wrapper_class, Monitor)
        return [wrapped for _ in self._get_indices(indices)]

    def _finish(self, i: int) -> dict[str, float]:
        """Return track ``i``'s episode as Monitor reports it, and start the next one's sums."""
        episode = {
            "r": round(float(self._returns[i]), 6),
            "l": int(self._lengths[i]),
            "t": round(time.time() - self._started, 6),
        }
        self._returns[i] = 0.0
        self._lengths[i] = 0
        return episode


def _make_again(spec: EnvSpec) -> TrackingSB3VecEnv | None:
    """Return a new environment; None, with a warning, where its data are not there.

    What holds an environment, such as a saved model, can so be loaded everywhere.
    """
    try:
        tracks = gym.make_vec(spec)
    except DatasetNotFoundError as error:
        gym.logger.warn(f"a pickled environment is left out: {error}")
        return None
    return TrackingSB3VecEnv(cast("TrackingVectorEnv", tracks))
