"""Sequence-level training: self-critical REINFORCE on whole clips."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import explained_variance, safe_mean
from torch import Tensor

from slt_gym.agents.clip_algorithm import ClipAlgorithm
from slt_gym.agents.critic import ProposalCritic
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.features import upload
from slt_gym.agents.objective import Objective
from slt_gym.agents.policy import (
    SiamAttnPolicy,
    SiamRPNppPolicy,
    TrackerPolicy,
    TransTPolicy,
    TrDiMPPolicy,
)
from slt_gym.agents.precision import allow_tf32, check_precision
from slt_gym.agents.processes import Processes
from slt_gym.agents.rollout import CRITIC, ClipRollout, advantages, check_baseline
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.errors import InvalidArgumentError, unknown


class SLT(ClipAlgorithm):
    """Sequence-level training (Kim et al., "Towards Sequence-Level Training for Visual Tracking").

    In each iteration ``n_clips`` clips are tracked side by side, once greedily and ``n_samples``
    times with sampled proposals. With returns R, baselines b and the tracker's own losses L_k on
    the sampled tracks' crops, the update follows the gradient of

        L = -w * mean_{t,i} (R_i - b_i) * log pi(a_{t,i} | s_{t,i}) + sum_k w_k * L_k .

    The network stays in eval mode throughout. Templates are encoded once per clip in exploration,
    and once in the update. Environment steps count all tracks. Other baselines, a clipped ratio
    with several epochs, and penalties make of it RLOO, GRPO, PPO, …

    Under ``torchrun`` the clips of an iteration are divided among the processes and the gradients
    added: the result is that of one process. The first process alone logs, saves, and calls
    callbacks, which may stop the training but must not change the model.

    Args:
        policy: ``"TransTPolicy"``, or a subclass of :class:`TrackerPolicy`.
        env: An environment's id, from which the vector environment is built, or a ``VecEnv`` of
            :func:`slt_gym.envs.make_sb3_env` with ``n_clips * (tracks per clip)`` tracks, those of
            a clip side by side (``tracks_per_clip=…``), the greedy one first.
        learning_rate: Or a schedule of the remaining progress, 1 to 0; None takes the tracker's
            published one.
        n_clips: Clips in an iteration, of all processes together; published are 8, and 12 for
            SiamAttn.
        n_samples: Sampled tracks of each clip.
        baseline: ``"greedy"``: the greedy track's return. Without a greedy track:
            ``"leave_one_out"``: the mean return of the clip's other sampled tracks; ``"group"``:
            the mean of all of them, and the difference is divided by their standard deviation
            (GRPO); ``"critic"``: a learnt value, see :class:`ProposalCritic`.
        reward_to_go: Credit an action only with the rewards from its frame on.
        policy_weight: w; None takes the tracker's published weight. 0 leaves the tracker's own
            losses alone, on the crops that it meets itself.
        loss_weights: The w_k by name; None takes the tracker's published ones.
        micro_batch: Clips in one backward pass. As published, the gradient is the sum over the
            passes, each normalised by itself, for TransT and TrDiMP, and their mean, weighted by
            their frames, for SiamRPN++ and SiamAttn.
        frame_fraction: Share of the tracked frames, drawn anew in each iteration, that enter the
            update.
        max_grad_norm: L2 norm that the gradient is clipped to; None takes the tracker's published
            one.
        n_epochs: Optimizer steps on the same rollout, each on all of it; above 1 only with
            ``clip_range``.
        clip_range: How far from 1 PPO's ratio may go and still teach; None leaves it out.
        gae_lambda: With the critic and ``reward_to_go``: below 1, the critic's values stand in for
            part of the later rewards (generalised advantage estimation, no discount).
        value_weight: Weight of the critic's squared error; its gradient stays in the critic.
        critic_learning_rate: The critic's own, constant.
        entropy_weight: Weight of the policy's entropy, which is favoured.
        kl_weight: Weight of KL(policy || base), with the policy that training started from as
            base, which is kept (GRPO's beta). Costs another forward pass.
        precision: ``"float32"``; ``"tf32"``, which lets a GPU round the factors of products to 10
            bits; ``"bf16"``, in which backbones and TransT's fusion compute. Boxes, probabilities,
            losses and the weights stay as they are.
        compile: Compile the network by ``torch.compile``; a string is its ``mode``,
            ``"reduce-overhead"`` uses CUDA graphs. Needs a C++ compiler or, on a GPU, Triton.
        activation_checkpointing: Keep only the inputs of the network's large layers for the
            backward pass, and compute the rest again: less memory, a longer update, the same
            gradient.
        keep_graph: Keep autograd's graphs of the sampled tracks from exploration, and spare the
            update its forward pass: the same gradient for less time, and memory for the network's
            activations in all frames of all clips at once, whatever ``micro_batch`` says. Not with
            ``compile``.
        env_kwargs: The environment's arguments where ``env`` is an id; ``geometry`` defaults to
            the policy's tracker and ``reward`` to ``"overlap"``, SLT's.
        policy_kwargs: The policy's arguments: ``tracker``, ``weights``, fields of its config.
        stats_window_size: Episodes that SB3's rollout statistics average over.
        tensorboard_log: Folder for TensorBoard; None for none.
        verbose: 0 silent, 1 info, 2 debug.
        seed: Of the weights, clips and samples.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …; under ``torchrun``, the first two of
            ``"auto"`` and ``"cuda"`` are each process's own GPU.

    Raises:
        InvalidArgumentError: An argument has a value that is not accepted.

    Attributes:
        curve: Environment steps and greedy AUC on the training clips, one pair an iteration.
        seconds: Wall time spent in :meth:`learn`.
        critic: The learnt baseline, or None.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "SiamAttnPolicy": SiamAttnPolicy,
        "SiamRPNppPolicy": SiamRPNppPolicy,
        "TrackerPolicy": TrackerPolicy,
        "TrDiMPPolicy": TrDiMPPolicy,
        "TransTPolicy": TransTPolicy,
    }

    def __init__(
        self,
        policy: str | type[TrackerPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        n_clips: int = 8,  # SLT-TransT
        n_samples: int = 1,  # SLT
        baseline: str = "greedy",
        reward_to_go: bool = False,
        policy_weight: float | None = None,
        loss_weights: Mapping[str, float] | None = None,
        micro_batch: int = 2,  # SLT-TransT
        frame_fraction: float = 1.0,
        max_grad_norm: float | None = None,
        n_epochs: int = 1,  # SLT
        clip_range: float | None = None,
        gae_lambda: float = 1.0,
        value_weight: float = 0.5,  # A2C
        critic_learning_rate: float = 1e-3,
        entropy_weight: float = 0.0,
        kl_weight: float = 0.0,
        precision: str = "float32",
        compile: bool | str = False,
        activation_checkpointing: bool = False,
        keep_graph: bool = False,
        env_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.processes = Processes.join()
        self.n_clips = n_clips
        self.n_samples = n_samples
        self.baseline = baseline
        self.reward_to_go = reward_to_go
        self.policy_weight = policy_weight
        self.loss_weights = loss_weights
        self.micro_batch = micro_batch
        self.frame_fraction = frame_fraction
        self.max_grad_norm = max_grad_norm
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.gae_lambda = gae_lambda
        self.value_weight = value_weight
        self.critic_learning_rate = critic_learning_rate
        self.entropy_weight = entropy_weight
        self.kl_weight = kl_weight
        self.precision = precision
        self.compile = compile
        self.activation_checkpointing = activation_checkpointing
        self.keep_graph = keep_graph
        self._check_arguments()
        self.env_id = env if isinstance(env, str) else None
        self.env_kwargs = dict(env_kwargs or {})
        if isinstance(env, str):
            if isinstance(policy, str) and policy not in self.policy_aliases:
                raise unknown("policy", policy, self.policy_aliases)
            cls = self.policy_aliases[policy] if isinstance(policy, str) else policy
            tracker = (policy_kwargs or {}).get("tracker") or cast(Any, cls).default_tracker
            self.env_kwargs = {"geometry": tracker, "reward": "overlap", **self.env_kwargs}
            env = self._make_env()
        elif self.env_kwargs:
            raise InvalidArgumentError(
                "env_kwargs go with an environment's id, not with a made one"
            )
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=cast(Any, learning_rate),
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=self.processes.device(device),
            support_multi_env=True,
            seed=seed,
        )
        self.curve = []
        self.iterations = 0
        self.seconds = 0.0
        self._at_start = False
        self._stopwatch = Stopwatch()
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        check_baseline(self.baseline, self.n_samples)
        check_precision(self.precision)
        for name, value in (
            ("n_clips", self.n_clips),
            ("n_samples", self.n_samples),
            ("micro_batch", self.micro_batch),
            ("n_epochs", self.n_epochs),
        ):
            if value < 1:
                raise InvalidArgumentError(f"{name} is {value}: it must be at least 1")
        if not 0 < self.frame_fraction <= 1:
            raise InvalidArgumentError(
                f"frame_fraction is {self.frame_fraction}: it must be above 0 and at most 1"
            )
        if self.clip_range is not None and self.clip_range <= 0:
            raise InvalidArgumentError(
                f"clip_range is {self.clip_range}: it must be above 0, or None"
            )
        if self.n_epochs > 1 and self.clip_range is None:
            raise InvalidArgumentError(
                f"n_epochs is {self.n_epochs} without clip_range: REINFORCE learns only once from "
                "a rollout; PPO's clip_range=0.2 allows more"
            )
        if self.keep_graph and self.compile:
            raise InvalidArgumentError(
                "keep_graph does not go with compile: a compiled network wants each forward pass "
                "followed by its backward pass"
            )
        if not 0 <= self.gae_lambda <= 1:
            raise InvalidArgumentError(f"gae_lambda is {self.gae_lambda}: it must be from 0 to 1")
        if self.gae_lambda < 1 and not (self.baseline == CRITIC and self.reward_to_go):
            raise InvalidArgumentError(
                f"gae_lambda is {self.gae_lambda}: below 1 it goes with baseline='critic' and "
                "reward_to_go=True"
            )

    @property
    def with_greedy(self) -> bool:
        """Whether the first track of each clip is greedy: where the baseline needs it."""
        return self.baseline == "greedy"

    @property
    def needs_masks(self) -> bool:
        """Whether one of the tracker's losses that have a weight learns from masks."""
        return self._objective.needs_masks

    @property
    def tracks_per_clip(self) -> int:
        """Tracks that follow each clip: the sampled ones, and the greedy one if there is one."""
        return self.n_samples + self.with_greedy

    def _setup_model(self) -> None:
        if self.seed is None and self.processes.count > 1:
            self.seed = self.processes.gather(int(np.random.default_rng().integers(2**31)))[0]
        seed = self._current_seed()
        self.set_random_seed(seed)
        # The rate may be the tracker's own: the optimizer gets it below.
        self.policy = self._make_policy(lambda _: 0.0, seed)
        defaults = self.policy.network.slt_defaults
        if self.learning_rate is None:
            self.learning_rate = defaults.learning_rate
        if self.max_grad_norm is None:
            self.max_grad_norm = defaults.max_grad_norm
        # The weights live in the policy from now on; a saved model must not ask for their file.
        kept = {k: v for k, v in self.policy_kwargs.items() if k != "weights"}
        self.policy_kwargs = {**kept, **self.policy.overrides}
        self.critic = None
        if self.baseline == CRITIC:
            self.critic = ProposalCritic().to(self.device)
            self.policy.optimizer.add_param_group(
                {"params": list(self.critic.parameters()), "constant_lr": self.critic_learning_rate}
            )
        self.base_policy = None
        if self.kl_weight:
            self.base_policy = self._make_policy(None, seed).requires_grad_(False)
            self.base_policy.load_state_dict(self.policy.state_dict())
        if self.processes.count > 1:
            self.policy.sampling_part = (self.processes.rank, self.processes.count)
        self._setup_lr_schedule()
        self._set_rates(self.policy.optimizer, self.lr_schedule(1))
        self._rng = self._loss_rng = np.random.default_rng(seed)
        own = dict(self.policy.network.slt_weights)
        published = own.pop("policy")
        self._objective = Objective(
            self.policy,
            published if self.policy_weight is None else float(self.policy_weight),
            own if self.loss_weights is None else dict(self.loss_weights),
            self.clip_range,
            self.critic,
            self.value_weight,
            self.entropy_weight,
            self.base_policy,
            self.kl_weight,
        )
        self.n_envs = self.own_clips * self.tracks_per_clip
        if self.env is not None:
            self._check_env(self.env)

    def _make_policy(self, lr_schedule: Schedule | None, seed: int | None) -> TrackerPolicy:
        kwargs = {"seed": seed or 0, **self.policy_kwargs}
        made = self.policy_class(
            self.observation_space, self.action_space, cast(Any, lr_schedule), **kwargs
        )
        policy = cast(TrackerPolicy, made.to(self.device))
        policy.compute_with(self.precision, self.compile, self.activation_checkpointing)
        return policy

    def _draw_anew(self) -> None:
        super()._draw_anew()
        if self.base_policy is not None:
            self.base_policy.set_seed(self.policy.seed)

    def appraise(
        self, distribution: ProposalDistribution, box: NDArray, frame: int
    ) -> dict[str, Tensor]:
        """Return the critic's ``values``, if there is a critic."""
        if self.critic is None:
            return {}
        assert distribution.proposals is not None
        estimate = upload(box, self.device)
        frames = torch.full((len(estimate),), frame, device=self.device)
        values = self.critic(distribution.proposals, distribution, estimate, frames)
        return {"values": values}

    def train(self, rollout: ClipRollout) -> None:
        """Take ``n_epochs`` optimizer steps on the sampled tracks of ``rollout``."""
        self.policy.set_training_mode(False)
        self._update_learning_rate(self.policy.optimizer)
        advantage = advantages(rollout, self.baseline, self.reward_to_go, self.gae_lambda)
        used = rollout.alive
        if self.frame_fraction < 1:
            used = used & (self._draw_for_frames(used.shape) < self.frame_fraction)
        with self._stopwatch.measure("update"):
            for _ in range(self.n_epochs):
                sums, norm = self._step(rollout, advantage, used)
                if rollout.graphs is not None:  # of weights that are no more
                    rollout.graphs.forget()
                    rollout.graphs = None
        self._n_updates += self.n_epochs
        for name, mean in sums.items():
            self.logger.record(f"train/{name}", mean)
        self.logger.record("train/grad_norm", norm)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        positive = self.processes.mean(float((advantage[0] > 0).mean()))
        self.logger.record("rollout/positive_advantage", positive)
        if rollout.values is not None:
            seen = np.stack([rollout.values, advantage + rollout.values])[:, rollout.alive]
            values, targets = np.concatenate(self.processes.gather(seen), axis=1)
            explained = explained_variance(values, targets)
            self.logger.record("train/explained_variance", float(explained))

    def _draw_for_frames(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Draw uniform numbers for the frames of all processes, and return this one's."""
        frames, clips, samples = shape
        draws = self._rng.random((frames, clips * self.processes.count, samples))
        return draws[:, clips * self.processes.rank :][:, :clips]

    def _step(
        self, rollout: ClipRollout, advantage: NDArray[np.float64], used: NDArray[np.bool_]
    ) -> tuple[dict[str, float], float]:
        """Take an optimizer step; return the loss's means by name, and the gradient's norm."""
        optimizer, processes = self.policy.optimizer, self.processes
        optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        firsts = range(0, rollout.alive.shape[1], self.micro_batch)
        passes = len(firsts) * processes.count
        average = self.policy.network.slt_defaults.average_micro_batches
        frames = sum(processes.gather(int(used.sum())))
        # A generator for each pass, so that draws do not depend on which process makes it.
        draws = self._rng.spawn(passes)[processes.rank * len(firsts) :]
        for first, self._loss_rng in zip(firsts, draws, strict=False):
            clips = slice(first, first + self.micro_batch)
            if not used[:, clips].any():
                continue
            share = float(used[:, clips].sum() / frames)
            with allow_tf32(self.precision == "tf32"):
                terms = self.loss(rollout, advantage, used, clips)
                loss = terms["loss"] * (share if average else 1.0)
                if rollout.graphs is None:
                    loss.backward()
                else:
                    losses.append(loss)
            part = share if average else 1 / passes
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + part * value.detach()
        if losses:  # whose graphs lie in memory anyway, shared by all of them
            with allow_tf32(self.precision == "tf32"):
                torch.stack(losses).sum().backward()
        parameters = list(self.policy.parameters())
        parameters += [] if self.critic is None else self.critic.parameters()
        processes.add_gradients(parameters)
        limit = cast(float, self.max_grad_norm)  # set up from the defaults, where it was None
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        optimizer.step()
        return processes.add({name: float(value) for name, value in sums.items()}), float(norm)

    def loss(
        self,
        rollout: ClipRollout,
        advantage: NDArray[np.float64],
        used: NDArray[np.bool_],
        clips: slice,
    ) -> dict[str, Tensor]:
        """Compute the loss of some clips, with gradients.

        Args:
            rollout: The tracks.
            advantage: Shape ``(T, C, S)``.
            used: Booleans, shape ``(T, C, S)``, the frames that take part.
            clips: Which of the ``C`` clips.

        Returns:
            ``loss``, ``policy_gradient_loss`` and the other terms that have a weight.
        """
        return self._objective.terms(rollout, advantage, used, clips, self._loss_rng)

    def _update_learning_rate(self, optimizers: Any) -> None:
        rate = self.lr_schedule(self._current_progress_remaining)
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            self._set_rates(optimizer, rate)

    @staticmethod
    def _set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group.get("constant_lr", rate * group.get("lr_scale", 1.0))

    def log_rollout(
        self, final: dict[int, dict[str, Any]], greedy: NDArray[np.bool_], entropy: list[float]
    ) -> None:
        """Record the tracks' AUC and entropy."""

        def mean(values: list[float]) -> float:
            return self.processes.mean(float(np.mean(values)))

        sampled_auc = mean([info["auc"] for i, info in final.items() if not greedy[i]])
        self.logger.record("rollout/sampled_auc", sampled_auc)
        if greedy.any():
            greedy_auc = mean([info["auc"] for i, info in final.items() if greedy[i]])
            self.logger.record("rollout/greedy_auc", greedy_auc)
            self.logger.record("rollout/auc_gap", sampled_auc - greedy_auc)
            self.curve.append([self.num_timesteps, greedy_auc])
        self.logger.record("train/entropy", mean(entropy))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the logger's records, with SB3's usual keys and the split of the time."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
        if self.ep_info_buffer:
            for key, name in (("r", "ep_rew_mean"), ("l", "ep_len_mean")):
                mean = safe_mean([info[key] for info in self.ep_info_buffer])
                self.logger.record(f"rollout/{name}", self.processes.mean(mean))
        fps = int((self.num_timesteps - self._num_timesteps_at_start) / elapsed)
        self.logger.record("time/fps", fps)
        self.logger.record("time/iterations", iteration, exclude="tensorboard")
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        for name, seconds in self._split_time().items():
            self.logger.record(f"time/{name}_seconds", seconds)
        self.logger.dump(step=self.num_timesteps)

    def _split_time(self) -> dict[str, float]:
        """Return the seconds by phase; decode and crop are the environment's threads' own."""
        seconds = dict(self._stopwatch.seconds)
        if self.env is not None and self.env.has_attr("stopwatch"):
            seconds.update(self.env.get_attr("stopwatch", [0])[0].seconds)
        return seconds

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_objective"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names = ["policy", "policy.optimizer"]
        names += [name for name in ("critic", "base_policy") if getattr(self, name) is not None]
        return names, []
