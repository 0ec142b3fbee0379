"""A replay buffer for Stable-Baselines3 that stores references to frames, not images."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from slt_gym.agents.replay_crops import CropCache, Recropper
from slt_gym.agents.replay_log import ReferenceLog, Shown
from slt_gym.data import SequenceDataset
from slt_gym.envs.arguments import check_count
from slt_gym.envs.episode import EpisodeRules, Observation
from slt_gym.envs.references import StepReference, unpack_reference
from slt_gym.envs.vector_env import count_cores
from slt_gym.errors import InvalidArgumentError


class ReferenceReplayBuffer(ReplayBuffer):
    """A million transitions of a tracking environment in some 60 MB.

    Stable-Baselines3's ``DictReplayBuffer`` keeps the images of every transition, twice. This one
    keeps where they came from: the sequence, the frame, the previous estimate. When a batch is
    sampled, the frames are decoded and cropped again, by threads; the observations are those that
    the agent saw, bit by bit, and so are the batches: the same seed draws the same transitions from
    either buffer. It serves SAC, TD3, DQN, and TQC and QR-DQN of sb3-contrib:

        env = make_sb3_env("SLTTrack-LaSOT-v0", n_envs=4)
        model = SAC(
            "MultiInputPolicy",
            env,
            replay_buffer_class=ReferenceReplayBuffer,
            replay_buffer_kwargs={"env": env},
        )

    Memory buys speed: up to ``cache_bytes`` of crops are kept beside the references, as they come
    in and as they are sampled. A buffer whose crops all fit never decodes a frame again.

    ``model.save_replay_buffer`` writes the references and the dataset's own state, no frames. Where
    the data have moved since, :meth:`set_env` gives a loaded buffer the environment to read from.

    There are no n-step returns (``n_steps``), and goals are not relabelled (HER).

    Args:
        buffer_size: Transitions of all tracks together.
        observation_space: Of one track.
        action_space: Of one track.
        device: Where batches go.
        n_envs: Number of tracks.
        optimize_memory_usage: Must be False: memory is small as it is.
        env: The environment that the transitions come from, wrapped or not. None waits for
            :meth:`set_env`, which :class:`slt_gym.agents.ReplayEnvCallback` calls.
        cache_bytes: Memory for crops.
        threads: Threads that decode and crop; 0 takes one for each core.
        handle_timeout_termination: An episode that a time limit ended is no terminal state.

    Raises:
        InvalidArgumentError: An argument is not accepted.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        env: VecEnv | gym.Env | None = None,
        cache_bytes: int = 2**30,
        threads: int = 0,
        handle_timeout_termination: bool = True,
        **unknown: Any,
    ) -> None:
        for key in unknown:
            raise InvalidArgumentError(
                f"argument {key!r} of ReferenceReplayBuffer is not supported: accepted are env, "
                "cache_bytes, threads and handle_timeout_termination (there are no n-step returns)"
            )
        if optimize_memory_usage:
            raise InvalidArgumentError(
                "argument 'optimize_memory_usage' is True: leave it out, ReferenceReplayBuffer "
                "stores each observation once as it is"
            )
        # Past ReplayBuffer's constructor, which makes arrays for the images.
        super(ReplayBuffer, self).__init__(
            buffer_size, observation_space, action_space, device, n_envs=n_envs
        )
        self.buffer_size = max(buffer_size // n_envs, 1)  # rows, as in SB3
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        dtype = self._maybe_cast_dtype(action_space.dtype)
        self.actions = np.zeros((self.buffer_size, n_envs, self.action_dim), dtype)
        self.rewards = np.zeros((self.buffer_size, n_envs), np.float32)
        self.dones = np.zeros((self.buffer_size, n_envs), np.bool_)  # those by time limits left out
        cache_bytes = check_count("argument 'cache_bytes'", cache_bytes, least=0)
        threads = check_count("argument 'threads' (0: one for each core)", threads, least=0)
        self._threads = threads or count_cores()
        self._cache = CropCache(cache_bytes)
        self._source: tuple[SequenceDataset, EpisodeRules] | None = None
        self._recropper: Recropper | None = None
        self.reset()
        if env is not None:
            self.set_env(env)

    def set_env(self, env: VecEnv | gym.Env) -> None:
        """Read frames from the dataset of ``env`` from now on.

        Raises:
            InvalidArgumentError: It is no tracking environment, or shows other observations.
        """
        try:
            sequences, rules = (ask_env(env, name) for name in ("sequences", "rules"))
        except AttributeError:
            raise InvalidArgumentError(
                f"argument 'env' is {env!r}: accepted are tracking environments, such as "
                "slt_gym.envs.make_sb3_env returns"
            ) from None
        shown = {key: space.shape for key, space in rules.observation_space.items()}
        if shown != self.obs_shape:
            raise InvalidArgumentError(
                f"argument 'env' shows observations of the shapes {shown}: needed are the "
                f"buffer's, {self.obs_shape}"
            )
        self._source = sequences, rules
        self._recropper = None
        self._cache.clear()
        self._ended[:] = False  # The next observations are compared.

    @property
    def cached_bytes(self) -> int:
        """Memory that crops take at present."""
        return self._cache.used

    def reset(self) -> None:
        """Forget all transitions."""
        super().reset()
        self._steps = 0
        self._log = ReferenceLog(self.buffer_size, self.n_envs)
        self._ended = np.zeros(self.n_envs, np.bool_)
        self._cache.clear()

    def add(  # type: ignore[override]
        self,
        obs: Observation,
        next_obs: Observation,
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a transition of every track.

        Where an episode does not follow the end of another one in the buffer, as at the start, its
        first observation is compared with what the dataset gives.

        Args:
            obs: By key, shape ``(n_envs, ...)``, what the agents saw.
            next_obs: The same after the step; of ended episodes, the last observation.
            action: Shape ``(n_envs, ...)``.
            reward: Shape ``(n_envs,)``.
            done: Shape ``(n_envs,)``.
            infos: One for each track.

        Raises:
            InvalidArgumentError: The buffer has no environment, or the transitions come from
                another one, or through a wrapper that changes observations.
        """
        row = self.pos
        for j in range(self.n_envs):
            self._cache.drop_search((row, j, False))
            self._cache.drop_search((row, j, True))
        steps = [self._read(info) for info in infos]
        for j, step in enumerate(steps):
            if not self._log.goes_on(j, *step):
                self._begin(j, *step, {key: array[j] for key, array in obs.items()})
        for j, (sequence, reference) in enumerate(steps):
            self._log.add(self._steps, j, sequence, reference)
            self._cache.put_search((row, j, False), obs["search"][j])
            if done[j]:
                self._cache.put_search((row, j, True), next_obs["search"][j])
        done = np.asarray(done, np.bool_)
        self.actions[row] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[row] = reward
        timeouts = [bool(info.get("TimeLimit.truncated", False)) for info in infos]
        self.dones[row] = done & ~np.array(timeouts) if self.handle_timeout_termination else done
        self._ended = done.copy()
        self._steps += 1
        self.pos = self._steps % self.buffer_size
        self.full = self._steps >= self.buffer_size

    def sample_actions(
        self, batch_size: int, rng: np.random.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Draw what was seen and what was done, at half the cost of whole transitions.

        Args:
            batch_size: Number of steps, drawn with replacement.
            rng: Draws them.

        Returns:
            Observations by key, ``(batch_size, ...)``, and actions, ``(batch_size, action_dim)``.
        """
        rows = rng.integers(self.size(), size=batch_size)
        tracks = rng.integers(self.n_envs, size=batch_size)
        found = self._log.find(rows, tracks, self._steps)
        seen = self._write([before for before, _ in found])
        return self._to_tensors(seen, None), self.to_torch(self.actions[rows, tracks])

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[np.intp], env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        # SB3 seeds NumPy's global generator, and draws the tracks from it here.
        tracks = np.random.randint(0, self.n_envs, size=len(batch_inds))  # noqa: NPY002
        before, after = zip(*self._log.find(batch_inds, tracks, self._steps), strict=True)
        both = self._write([*before, *after])
        obs = {key: array[: len(before)] for key, array in both.items()}
        next_obs = {key: array[len(before) :] for key, array in both.items()}
        rewards = self.rewards[batch_inds, tracks].reshape(-1, 1)
        return DictReplayBufferSamples(
            observations=self._to_tensors(obs, env),
            actions=self.to_torch(self.actions[batch_inds, tracks]),
            next_observations=self._to_tensors(next_obs, env),
            dones=self.to_torch(self.dones[batch_inds, tracks].reshape(-1, 1).astype(np.float32)),
            rewards=self.to_torch(self._normalize_reward(rewards, env)),
        )

    def _write(self, shown: list[Shown]) -> Observation:
        """Return observations by key, fresh arrays of shape ``(len(shown), ...)``."""
        recropper = self._get_recropper()
        batch = {
            key: np.empty((len(shown), *self.obs_shape[key]), space.dtype)  # type: ignore[call-overload]
            for key, space in recropper.rules.observation_space.items()
        }
        rows = [{key: array[k] for key, array in batch.items()} for k in range(len(shown))]
        recropper.write(shown, rows)
        return batch

    def _get_recropper(self) -> Recropper:
        if self._source is None:
            raise InvalidArgumentError(
                "the replay buffer has no environment to read frames from: pass "
                'replay_buffer_kwargs={"env": env}, or call set_env(env) of a loaded buffer'
            )
        if self._recropper is None:
            self._recropper = Recropper(*self._source, self._cache, self._threads)
        return self._recropper

    def _read(self, info: dict[str, Any]) -> tuple[str, StepReference]:
        try:
            return info["sequence"], unpack_reference(info["reference"])
        except KeyError as error:
            raise InvalidArgumentError(
                f"an info of the environment holds no {error}: ReferenceReplayBuffer needs the "
                "infos of a tracking environment's steps"
            ) from None

    def _begin(self, j: int, sequence: str, reference: StepReference, seen: Observation) -> None:
        """Take note of what a track sees first; refuse what the dataset does not give."""
        clip = sequence, reference.template, reference.template_transform
        shown = Shown((self.pos, j, False), *clip, reference.before)
        if self._ended[j]:
            self._get_recropper().keep_template(shown, seen["template"], reference.fill)
            return
        for key, array in self._write([shown]).items():
            if not np.array_equal(array[0], seen[key]):
                raise InvalidArgumentError(
                    f"{key!r} of track {j}, frame {shown.view.frame} of {sequence!r}, is not what "
                    "the replay buffer's environment shows: needed is env, the one that the model "
                    "is trained in, without wrappers that change observations"
                )

    def _to_tensors(self, obs: Observation, env: VecNormalize | None) -> dict[str, torch.Tensor]:
        normalised = self._normalize_obs(obs, env)
        assert isinstance(normalised, dict)
        # No copy: the arrays are this batch's own.
        return {key: self.to_torch(array, copy=False) for key, array in normalised.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out threads and crops; the next observations are compared."""
        return {
            **self.__dict__,
            "_recropper": None,
            "_cache": CropCache(self._cache.capacity),
            "_ended": np.zeros_like(self._ended),
        }


def ask_env(env: Any, name: str) -> Any:
    """Return an attribute of the innermost environment."""
    if isinstance(env, VecEnv):
        return env.get_attr(name, 0)[0]
    return env.get_wrapper_attr(name) if isinstance(env, gym.Env) else getattr(env, name)
