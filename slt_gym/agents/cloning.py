"""Behaviour cloning: learning an expert's actions as a supervised task."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import (
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import configure_logger, obs_as_tensor, safe_mean
from torch import Tensor

from slt_gym.agents.experts import Expert, ExpertLike, make_expert
from slt_gym.agents.replay import ReferenceReplayBuffer
from slt_gym.envs.arguments import check_count
from slt_gym.errors import InvalidArgumentError

if TYPE_CHECKING:
    from minari import MinariDataset

SelfBehaviourCloning = TypeVar("SelfBehaviourCloning", bound="BehaviourCloning")
# Observations by key, (B, ...), and the expert's actions, (B, action_dim).
Batch: TypeAlias = tuple[dict[str, Tensor], Tensor]
_EPISODES_AT_ONCE = 16  # recorded ones in memory, whose steps are shuffled


class BehaviourCloning(BaseAlgorithm):
    """Imitate an expert: maximise the log-likelihood of its actions in the states that are visited.

    Its policies are those of PPO and A2C, so that what it learns is a start for them:

        env = make_sb3_env("SLTTrack-LaSOT-v0", n_envs=8, geometry="transt", action="delta")
        model = BehaviourCloning("MultiInputPolicy", env, expert="oracle").learn(100_000)
        ppo = PPO("MultiInputPolicy", env)
        ppo.policy.load_state_dict(model.policy.state_dict())  # its critic has yet to learn

    As a rule the expert acts, and the learner sees only where the expert goes: once it errs, it is
    where nothing was taught. With ``beta`` below 1 the learner acts too, and the expert says what
    it would have done there (DAgger; Ross et al., AISTATS 2011). With 0 the learner always acts;
    ``lambda progress: progress`` hands over bit by bit.

    Steps of every iteration go into a :class:`ReferenceReplayBuffer`, from which all batches are
    drawn. With ``demonstrations`` nothing acts: batches come from the recorded episodes, read in
    random order, each step once before any comes again.

    Args:
        policy: ``"MultiInputPolicy"``, or an ``ActorCriticPolicy``, such as
            :class:`TrackerActorCriticPolicy`.
        env: A tracking environment; may be None with ``demonstrations``.
        expert: What to imitate, see :func:`slt_gym.agents.experts.make_expert`: ``"oracle"``,
            another tracker's name, a tracker, a model or a policy.
        learning_rate: Or a schedule of the remaining progress, 1 to 0.
        n_steps: Steps in each track between updates.
        batch_size: Of each gradient step.
        gradient_steps: After each ``n_steps``.
        buffer_size: Steps that are kept.
        beta: Probability that the expert acts in a step and not the learner, in [0, 1], or a
            schedule of the remaining progress.
        ent_coef: Weight of the policy's entropy.
        max_grad_norm: L2 norm that gradients are clipped to.
        demonstrations: A Minari dataset with the environment's spaces, see
            :func:`slt_gym.agents.trajectories.record_trajectories`.
        replay_buffer_kwargs: Arguments of :class:`ReferenceReplayBuffer`, such as ``cache_bytes``.
        policy_kwargs: As in Stable-Baselines3.
        stats_window_size: As in Stable-Baselines3.
        tensorboard_log: As in Stable-Baselines3.
        verbose: As in Stable-Baselines3.
        seed: As in Stable-Baselines3; also of the batches.
        device: As in Stable-Baselines3.

    Raises:
        InvalidArgumentError: An argument is not accepted.

    Attributes:
        replay_buffer: The steps that are kept; neither saved, nor kept with another environment.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MultiInputPolicy": MultiInputActorCriticPolicy
    }
    policy: ActorCriticPolicy

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None = None,
        expert: ExpertLike = "oracle",
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 16,
        batch_size: int = 64,
        gradient_steps: int = 16,
        buffer_size: int = 1_000_000,
        beta: float | Schedule = 1.0,
        ent_coef: float = 0.0,
        max_grad_norm: float = 0.5,
        demonstrations: MinariDataset | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            supported_action_spaces=(spaces.Box, spaces.Discrete),
        )
        # A loaded model has the expert of its file, if that was a name, or the one given to load.
        self.expert: ExpertLike | None = expert if _init_setup_model else None
        self.n_steps = check_count("argument 'n_steps'", n_steps, least=1)
        self.batch_size = check_count("argument 'batch_size'", batch_size, least=1)
        self.gradient_steps = check_count("argument 'gradient_steps'", gradient_steps, least=1)
        self.buffer_size = check_count("argument 'buffer_size'", buffer_size, least=1)
        if not callable(beta) and not 0 <= beta <= 1:
            raise InvalidArgumentError(
                f"argument 'beta' is {beta!r}: accepted are probabilities, 0 to 1, and schedules"
            )
        self.beta = beta
        self.ent_coef = ent_coef
        self.max_grad_norm = max_grad_norm
        self.demonstrations = demonstrations
        self.replay_buffer_kwargs = replay_buffer_kwargs or {}
        self.replay_buffer: ReferenceReplayBuffer | None = None
        self._teacher: Expert | None = None
        self._recorded: Iterator[int] = iter(())
        if demonstrations is not None:
            self._take_spaces(demonstrations)
        if _init_setup_model:
            self._setup_model()

    def _take_spaces(self, demonstrations: MinariDataset) -> None:
        found = demonstrations.observation_space, demonstrations.action_space
        if self.env is None:
            self.observation_space, self.action_space = found
            self.n_envs = 1
        elif found != (self.observation_space, self.action_space):
            raise InvalidArgumentError(
                f"the demonstrations {demonstrations.id!r} have the spaces {found}, and the "
                f"environment has {(self.observation_space, self.action_space)}"
            )

    def _setup_model(self) -> None:
        if getattr(self, "observation_space", None) is None:
            raise InvalidArgumentError(
                "there is neither an environment nor a dataset to learn from: give env or "
                "demonstrations"
            )
        if not issubclass(self.policy_class, ActorCriticPolicy):
            raise InvalidArgumentError(
                f"argument 'policy' is {self.policy_class.__name__}: accepted are "
                "'MultiInputPolicy' and sub-classes of ActorCriticPolicy"
            )
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._rng = np.random.default_rng(self.seed)
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Set the environment, see SB3; the steps of the previous one are forgotten."""
        super().set_env(env, force_reset)
        self.replay_buffer = None

    def learn(
        self: SelfBehaviourCloning,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "BehaviourCloning",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfBehaviourCloning:
        """Learn for ``total_timesteps`` steps: taken in the environment, or read from the dataset.

        Args:
            total_timesteps: ``epochs * demonstrations.total_steps`` reads the dataset that often.
            callback: As in SB3.
            log_interval: Iterations between records.
            tb_log_name: As in SB3.
            reset_num_timesteps: As in SB3.
            progress_bar: As in SB3.

        Raises:
            InvalidArgumentError: There is nothing to learn from.
        """
        offline = self.demonstrations is not None
        if not offline and self.env is None:
            raise InvalidArgumentError(
                "the model has neither an environment nor demonstrations: call set_env first"
            )
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if not offline:
            self._prepare()
        callback.on_training_start(locals(), globals())
        iteration = 0
        while self.num_timesteps < total_timesteps:
            batches = self.read(callback) if offline else self.collect(callback)
            if batches is None:
                break
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train(batches)
            iteration += 1
            if log_interval and iteration % log_interval == 0:
                self.dump_logs(iteration)
        callback.on_training_end()
        return self

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if self.env is not None:
            return super()._setup_learn(
                total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
            )
        # What SB3 does, without an environment to reset.
        self.start_time = time.time_ns()
        self.ep_info_buffer = deque(maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        if reset_num_timesteps:
            self.num_timesteps = 0
        else:
            total_timesteps += self.num_timesteps
        self._total_timesteps = total_timesteps
        self._num_timesteps_at_start = self.num_timesteps
        if not self._custom_logger:
            self._logger = configure_logger(
                self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps
            )
        return total_timesteps, self._init_callback(callback, progress_bar)

    def _prepare(self) -> None:
        """Make the memory, and let the expert into the environment."""
        assert self.env is not None
        if self.expert is None:
            raise InvalidArgumentError(
                "the loaded model does not say what it imitated, since that was no name: give it "
                "again, as in BehaviourCloning.load(path, env=env, expert=expert)"
            )
        self._teacher = make_expert(self.expert, self.env, device=str(self.device))
        if self.replay_buffer is None:
            self.replay_buffer = ReferenceReplayBuffer(
                self.buffer_size,
                self.observation_space,
                self.action_space,
                self.device,
                self.n_envs,
                env=self.env,
                **self.replay_buffer_kwargs,
            )

    def collect(self, callback: BaseCallback) -> Iterable[Batch] | None:
        """Take ``n_steps`` in every track; return the batches to learn from, None to stop."""
        env, memory = self.env, self.replay_buffer
        assert env is not None
        assert memory is not None
        assert self._teacher is not None
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        for _ in range(self.n_steps):
            obs: Any = self._last_obs
            labels = self._teacher.act(obs, self._last_episode_starts)  # type: ignore[arg-type]
            new_obs, rewards, dones, infos = env.step(self._mix(obs, labels))
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return None
            self._update_info_buffer(infos, dones)
            memory.add(obs, _last_seen(new_obs, dones, infos), labels, rewards, dones, infos)
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
        callback.on_rollout_end()
        size, rng = self.batch_size, self._rng
        return (memory.sample_actions(size, rng) for _ in range(self.gradient_steps))

    def _mix(self, obs: dict[str, NDArray], labels: NDArray) -> NDArray:
        """Return the actions to take: the expert's with probability beta, or else the learner's."""
        progress = self._current_progress_remaining
        beta = self.beta(progress) if callable(self.beta) else self.beta
        if beta >= 1:
            return labels
        own, _ = self.policy.predict(obs, deterministic=True)
        mine = self._rng.random(len(labels)) >= beta
        return np.where(mine.reshape(-1, *[1] * (labels.ndim - 1)), own, labels)

    def read(self, callback: BaseCallback) -> Iterable[Batch] | None:
        """Read some recorded episodes; return their steps in batches, None to stop."""
        dataset = self.demonstrations
        assert dataset is not None
        callback.on_rollout_start()
        chosen: list[Any] = []
        for _ in range(min(_EPISODES_AT_ONCE, dataset.total_episodes)):
            index = next(self._recorded, None)
            if index is None:  # All have been read.
                self._recorded = iter(self._rng.permutation(dataset.total_episodes).tolist())
                if chosen:
                    break
                index = next(self._recorded)
            chosen.append(dataset[index])
        actions = np.concatenate([episode.actions for episode in chosen])
        obs = {
            # The last observation of an episode has no action.
            key: np.concatenate([e.observations[key][: len(e.actions)] for e in chosen])
            for key in chosen[0].observations
        }
        self.num_timesteps += len(actions)
        callback.update_locals(locals())
        if not callback.on_step():
            return None
        callback.on_rollout_end()
        order = self._rng.permutation(len(actions))
        parts = np.array_split(order, max(round(len(order) / self.batch_size), 1))
        return (self._to_batch(obs, actions, rows) for rows in parts)

    def _to_batch(self, obs: dict[str, NDArray], actions: NDArray, rows: NDArray) -> Batch:
        seen = obs_as_tensor({key: array[rows] for key, array in obs.items()}, self.device)
        taken = torch.as_tensor(actions[rows].reshape(len(rows), -1), device=self.device)
        return seen, taken  # type: ignore[return-value]

    def train(self, batches: Iterable[Batch]) -> None:
        """Take a gradient step on each batch."""
        policy, discrete = self.policy, isinstance(self.action_space, spaces.Discrete)
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        losses, entropies, fits = [], [], []
        for obs, actions in batches:
            wanted = actions.long().flatten() if discrete else actions
            distribution = policy.get_distribution(obs)
            log_prob = distribution.log_prob(wanted)
            entropy = distribution.entropy()
            entropy = -log_prob if entropy is None else entropy
            loss = -log_prob.mean() - self.ent_coef * entropy.mean()
            policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
            policy.optimizer.step()
            self._n_updates += 1
            with torch.no_grad():
                mode = distribution.mode()
                fit = (mode == wanted).float() if discrete else (mode - wanted).abs()
            losses.append(loss.item())
            entropies.append(entropy.mean().item())
            fits.append(fit.mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))
        self.logger.record("train/entropy", np.mean(entropies))
        self.logger.record("train/accuracy" if discrete else "train/action_error", np.mean(fits))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the logger's records."""
        assert self.ep_info_buffer is not None
        seconds = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
        steps = self.num_timesteps - self._num_timesteps_at_start
        self.logger.record("time/iterations", iteration, exclude="tensorboard")
        if self.ep_info_buffer:
            for name, key in (("ep_rew_mean", "r"), ("ep_len_mean", "l")):
                mean = safe_mean([info[key] for info in self.ep_info_buffer])
                self.logger.record(f"rollout/{name}", mean)
        self.logger.record("time/fps", int(steps / seconds))
        self.logger.record("time/time_elapsed", int(seconds), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            *([] if isinstance(self.expert, str) else ["expert"]),
            "_last_obs",
            "_last_original_obs",
            "_recorded",
            "_rng",
            "_teacher",
            "demonstrations",
            "replay_buffer",
            "replay_buffer_kwargs",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


def _last_seen(
    obs: Any, dones: NDArray[np.bool_], infos: list[dict[str, Any]]
) -> dict[str, NDArray]:
    """Return what the tracks' steps led to: of those that ended, the last observation."""
    if not dones.any():
        return obs
    seen = {key: array.copy() for key, array in obs.items()}
    for i in np.flatnonzero(dones):
        for key, array in infos[i]["terminal_observation"].items():
            seen[key][i] = array
    return seen
