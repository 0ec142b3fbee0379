"""What algorithms that learn from whole clips share: tracking them, and going on after a kill."""

from __future__ import annotations

import io
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.features import map_features
from slt_gym.agents.graphs import KeptGraphs
from slt_gym.agents.network import Proposals
from slt_gym.agents.policy import TrackerPolicy
from slt_gym.agents.precision import allow_tf32
from slt_gym.agents.processes import Processes
from slt_gym.agents.rollout import ClipRollout, RolloutRecorder
from slt_gym.agents.target_masks import crop_target_masks
from slt_gym.data import SequenceDataset
from slt_gym.envs import make_sb3_env
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import Geometry

SelfClipAlgorithm = TypeVar("SelfClipAlgorithm", bound="ClipAlgorithm")


class ClipAlgorithm(BaseAlgorithm):
    """Track batches of clips to their ends, several tracks for each clip, and learn from them.

    The clips are divided among the processes of ``torchrun``, if there are several, so that each
    sees what one process would see of them.

    Attributes:
        processes: Those that train the model.
        n_clips: Clips in an iteration, of all processes together.
        micro_batch: Clips in one backward pass.
        env_id: The environment's id, if the algorithm makes it.
        env_kwargs: Its arguments then.
        precision: Of the network, see :meth:`TrackerPolicy.compute_with`.
        keep_graph: Whether rollouts keep autograd's graphs of the sampled tracks.
        curve: Environment steps and greedy AUC on the training clips, one pair an iteration.
        iterations: Batches of clips so far.
        seconds: Wall time spent in :meth:`learn`.
    """

    policy: TrackerPolicy
    processes: Processes
    n_clips: int
    micro_batch: int
    env_id: str | None
    env_kwargs: dict[str, Any]
    precision: str
    keep_graph: bool = False
    curve: list[list[float]]
    iterations: int
    seconds: float
    _at_start: bool
    _rng: np.random.Generator
    _stopwatch: Stopwatch

    @property
    @abstractmethod
    def with_greedy(self) -> bool:
        """Whether the first track of each clip is greedy; the others sample."""

    @property
    @abstractmethod
    def tracks_per_clip(self) -> int:
        """Tracks that follow each clip."""

    @property
    @abstractmethod
    def needs_masks(self) -> bool:
        """Whether :meth:`train` learns from the targets' masks, where they are known."""

    @abstractmethod
    def train(self, rollout: ClipRollout) -> None:
        """Learn from a batch of clips."""

    @abstractmethod
    def appraise(
        self, distribution: ProposalDistribution, box: NDArray, frame: int
    ) -> dict[str, Tensor]:
        """Return what else exploration keeps of each track's state, by the rollout's names."""

    @abstractmethod
    def log_rollout(
        self, final: dict[int, dict[str, Any]], greedy: NDArray[np.bool_], entropy: list[float]
    ) -> None:
        """Record how the clips went.

        Args:
            final: The last infos by track.
            greedy: Which tracks are greedy.
            entropy: The policy's mean entropy in the sampled tracks, frame by frame.
        """

    @abstractmethod
    def dump_logs(self, iteration: int = 0) -> None:
        """Write the logger's records."""

    @property
    def own_clips(self) -> int:
        """Clips of an iteration that this process tracks.

        Raises:
            InvalidArgumentError: The processes cannot divide them and compute what one would.
        """
        count = self.processes.count
        own, rest = divmod(self.n_clips, count)
        if count > 1 and (rest or own % self.micro_batch):
            raise InvalidArgumentError(
                f"n_clips={self.n_clips} cannot be divided among {count} processes: needed is a "
                f"multiple of {count} * micro_batch={self.micro_batch}, so that backward passes "
                "stay whole"
            )
        return own

    def _make_env(self) -> VecEnv:
        assert self.env_id is not None
        return make_sb3_env(
            self.env_id,
            n_envs=self.own_clips * self.tracks_per_clip,
            tracks_per_clip=self.tracks_per_clip,
            **self.env_kwargs,
        )

    def _check_env(self, env: VecEnv) -> None:
        needed = self.own_clips * self.tracks_per_clip
        if env.num_envs != needed:
            raise InvalidArgumentError(
                f"the environment has {env.num_envs} tracks and SLT needs {needed}: n_clips="
                f"{self.n_clips} times {self.tracks_per_clip} for each clip"
                + (f", over {self.processes.count} processes" if self.processes.count > 1 else "")
            )
        split = _split(env)
        if split == "test":
            raise InvalidArgumentError(
                "the environment's split is 'test', which SLT does not train on: accepted are "
                "'train' and 'val', and 'train' with dataset_options={'train_on_test': True}"
            )
        if split != "train" and self.processes.count > 1:
            raise InvalidArgumentError(
                f"the environment's split is {split!r}, which every process would walk alike: "
                "accepted with torchrun is 'train', whose clips are drawn"
            )

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed everything, see SB3; each process's tracks as one process would seed them."""
        super().set_random_seed(seed)
        if self.env is not None:
            self._seed_env(self.env, seed)

    def _seed_env(self, env: VecEnv, seed: int | None) -> None:
        if seed is not None:
            env.seed(seed + self.processes.rank * env.num_envs)

    def _current_seed(self) -> int | None:
        """Return the seed of what is drawn from now on: the model's, or one for its updates."""
        if self.seed is None or not self._n_updates:
            return self.seed
        return int(np.random.SeedSequence([self.seed, self._n_updates]).generate_state(1)[0])

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Set the environment, see SB3; its number of tracks may not change."""
        if isinstance(env, VecEnv):
            self._check_env(env)  # before SB3 asserts the same
        super().set_env(env, force_reset)
        assert self.env is not None
        self._check_env(self.env)

    def learn(
        self: SelfClipAlgorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "SLT",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        checkpoint: str | Path | None = None,
        checkpoint_interval: int = 100,
    ) -> SelfClipAlgorithm:
        """Train for ``total_timesteps`` environment steps, greedy tracks included.

        A run that was killed goes on from its checkpoint, with the same result, to the bit where
        the device's own sums are reproducible, as if it had not been:

            model = SLT.load("run/checkpoint.zip")
            model.learn(total - model.num_timesteps, reset_num_timesteps=False, checkpoint=…)

        To that end all that is drawn after a checkpoint follows from the seed and the number of
        updates: a run with checkpoints sees other clips than one without. Without a seed, the
        clips of a run that goes on are others again; a walk over ``val`` then begins anew.

        Args:
            total_timesteps: Of this call, of all processes together.
            callback: As in SB3; called in the first process alone.
            log_interval: Iterations between records.
            tb_log_name: As in SB3.
            reset_num_timesteps: As in SB3.
            progress_bar: As in SB3.
            checkpoint: File that the model is saved to, whole or not at all; None for none.
            checkpoint_interval: Iterations between checkpoints; the last one has one, too.
        """
        if checkpoint_interval < 1:
            raise InvalidArgumentError(
                f"checkpoint_interval is {checkpoint_interval}: it must be at least 1"
            )
        if self.env is None and self.env_id is not None:
            env = self._make_env()
            self._seed_env(env, self._current_seed())
            self.set_env(env)
        if reset_num_timesteps:
            self.curve, self.seconds = [], 0.0
        if not self.processes.first:
            callback, progress_bar = None, False
            self.verbose, self.tensorboard_log = 0, None
        fresh = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        self._at_start = self._at_start or fresh  # SB3 resets the environment only then
        callback.on_training_start(locals(), globals())
        iteration, started = 0, time.perf_counter() - self.seconds
        while self.num_timesteps < total_timesteps:
            # The rate of an iteration is that of its start: the last one still learns.
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            rollout = self.collect_rollout(callback)
            if rollout is None:
                break
            self.train(rollout)
            self.seconds = time.perf_counter() - started
            iteration += 1
            if log_interval and iteration % log_interval == 0:
                self.dump_logs(iteration)
            self.iterations += 1
            done = self.num_timesteps >= total_timesteps
            if checkpoint is not None and (done or self.iterations % checkpoint_interval == 0):
                self.save(checkpoint)
                self._draw_anew()
        callback.on_training_end()
        return self

    def _draw_anew(self) -> None:
        """Let all that is drawn follow from the seed and the number of updates, as after a load."""
        seed = self._current_seed()
        if seed is None:
            return
        self.policy.set_seed(seed)
        self._rng = np.random.default_rng(seed)
        assert self.env is not None
        if _split(self.env) == "train":  # others are walked
            self._seed_env(self.env, seed)
            self._at_start = False

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save the model as SB3 does, but whole or not at all, and in the first process alone."""
        if not self.processes.first:
            return
        if not isinstance(path, (str, Path)):
            super().save(path, exclude, include)
            return
        path = Path(path)
        path = path if path.suffix else path.with_suffix(".zip")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
        try:
            super().save(temporary, exclude, include)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def collect_rollout(self, callback: BaseCallback) -> ClipRollout | None:
        """Track one batch of clips to their ends; None if the callback asks to stop."""
        env, policy, processes = self.env, self.policy, self.processes
        assert env is not None
        policy.set_training_mode(False)
        callback.on_rollout_start()
        if not self._at_start or self._last_obs is None:
            self._last_obs = env.reset()  # type: ignore[assignment]
        obs: Any = self._last_obs
        self._at_start = False
        k = self.tracks_per_clip
        greedy = np.zeros(env.num_envs, bool)
        if self.with_greedy:
            greedy[::k] = True
        recorder = RolloutRecorder(obs, k, greedy)
        source = self._find_masks()
        tf32 = self.precision == "tf32"
        with self._stopwatch.measure("network"), torch.no_grad(), allow_tf32(tf32):
            propose, graphs = self._encode(recorder, greedy)
        alive = np.ones(env.num_envs, bool)
        final: dict[int, dict[str, Any]] = {}
        chosen: list[dict[str, Tensor]] = []  # on the device until all is done
        together = True
        while processes.any(bool(alive.any())):  # those that are done keep the others company
            together = bool(alive.all())
            with self._stopwatch.measure("network"), torch.no_grad(), allow_tf32(tf32):
                actions, index, distribution = policy.choose(propose(obs), obs["box"], greedy)
                chosen.append(
                    {
                        "index": index,
                        "log_prob": distribution.log_prob(index),
                        "entropy": distribution.entropy(),
                        **self.appraise(distribution, obs["box"], len(chosen)),
                    }
                )
            recorder.add_observation(obs, alive)
            with self._stopwatch.measure("environment"):
                obs, rewards, dones, infos = env.step(actions)
            recorder.add_outcome(rewards, infos)
            if source is not None:
                with self._stopwatch.measure("mask"):
                    recorder.add_masks(*crop_target_masks(infos, alive & ~greedy, *source))
            self.num_timesteps += env.num_envs * processes.count
            for i in np.flatnonzero(alive & dones):
                final[int(i)] = infos[i]
            self._update_info_buffer(infos, dones & alive)
            callback.update_locals(locals())
            if processes.any(not callback.on_step()):
                if graphs is not None:
                    graphs.forget()
                return None
            alive &= ~dones
        self._last_obs = obs
        # All ended together: what the environment shows already is the next batch's start. A track
        # that ended early may have ended again by chance, clips ahead of the others.
        self._at_start = not processes.any(not together)
        kept = {name: torch.stack([step[name] for step in chosen]) for name in chosen[0]}
        arrays = {name: steps.cpu().numpy() for name, steps in kept.items()}
        entropy = arrays.pop("entropy")[:, ~greedy].mean(axis=1).tolist()
        self.log_rollout(final, greedy, entropy)
        callback.on_rollout_end()
        return recorder.rollout(graphs, **arrays)

    def _encode(
        self, recorder: RolloutRecorder, greedy: NDArray[np.bool_]
    ) -> tuple[Callable[[dict[str, Any]], Proposals], KeptGraphs | None]:
        """Encode the clips' templates; return what proposes for all tracks, and the graphs."""
        policy, k = self.policy, self.tracks_per_clip
        templates = recorder.template, recorder.template_box
        if self.keep_graph:
            graphs = KeptGraphs(policy, *templates, greedy.reshape(-1, k))
            return graphs.propose, graphs
        features = map_features(lambda f: f.repeat_interleave(k, dim=0), policy.encode(*templates))
        return partial(policy.propose_once, features, tracks_per_clip=k), None

    def _find_masks(self) -> tuple[SequenceDataset, Geometry] | None:
        """Return where masks come from and how they are cropped, if any are needed."""
        env = self.env
        assert env is not None
        if not self.needs_masks or not (env.has_attr("sequences") and env.has_attr("rules")):
            return None
        return env.get_attr("sequences", [0])[0], env.get_attr("rules", [0])[0].geometry

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_last_obs",
            "_last_original_obs",
            "_at_start",
            "_stopwatch",
            "processes",
        ]


def _split(env: VecEnv) -> str:
    """Return the split that clips come from; ``"train"`` where the environment does not say."""
    return env.get_attr("split", [0])[0] if env.has_attr("split") else "train"
