"""Sequence-level training: self-critical REINFORCE on whole clips."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from slt_gym.agents.features import map_features
from slt_gym.agents.policy import (
    SiamAttnPolicy,
    SiamRPNppPolicy,
    TrackerPolicy,
    TransTPolicy,
    TrDiMPPolicy,
)
from slt_gym.agents.rollout import ClipRollout, advantages, check_baseline
from slt_gym.envs import make_sb3_env
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.errors import InvalidArgumentError, unknown

SelfSLT = TypeVar("SelfSLT", bound="SLT")


class SLT(BaseAlgorithm):
    """Sequence-level training (Kim et al., "Towards Sequence-Level Training for Visual Tracking").

    In each iteration ``n_clips`` clips are tracked side by side, once greedily and ``n_samples``
    times with sampled proposals. With returns R, baselines b and the tracker's own losses L_k on
    the sampled tracks' crops, the update follows the gradient of

        L = -w * mean_{t,i} (R_i - b_i) * log pi(a_{t,i} | s_{t,i}) + sum_k w_k * L_k .

    The network stays in eval mode throughout. Templates are encoded once per clip, in exploration
    and in the update. Environment steps count all tracks.

    Args:
        policy: ``"TransTPolicy"``, or a subclass of :class:`TrackerPolicy`.
        env: An environment's id, from which the vector environment is built, or a ``VecEnv`` of
            :func:`slt_gym.envs.make_sb3_env` with ``n_clips * (tracks per clip)`` tracks, those of
            a clip side by side (``tracks_per_clip=…``), the greedy one first.
        learning_rate: Or a schedule of the remaining progress, 1 to 0; None takes the tracker's
            published one.
        n_clips: Clips in an iteration; published are 8, and 12 for SiamAttn.
        n_samples: Sampled tracks of each clip.
        baseline: ``"greedy"``: the greedy track's return; ``"leave_one_out"``: the mean return of
            the clip's other sampled tracks (no greedy track runs then).
        reward_to_go: Credit an action only with the rewards from its frame on.
        policy_weight: w; None takes the tracker's published weight. 0 leaves the tracker's own
            losses alone, on the crops that it meets itself.
        loss_weights: The w_k by name; None takes the tracker's published ones.
        micro_batch: Clips in one backward pass. As published, the gradient is the sum over the
            passes, each normalised by itself, for TransT, and their mean, weighted by their
            frames, for SiamRPN++ and SiamAttn.
        frame_fraction: Share of the tracked frames, drawn anew in each iteration, that enter the
            update.
        max_grad_norm: L2 norm that the gradient is clipped to; None takes the tracker's published
            one.
        env_kwargs: The environment's arguments where ``env`` is an id; ``geometry`` defaults to
            the policy's tracker and ``reward`` to ``"overlap"``, SLT's.
        policy_kwargs: The policy's arguments: ``tracker``, ``weights``, fields of its config.
        stats_window_size: Episodes that SB3's rollout statistics average over.
        tensorboard_log: Folder for TensorBoard; None for none.
        verbose: 0 silent, 1 info, 2 debug.
        seed: Of the weights, clips and samples.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …

    Raises:
        InvalidArgumentError: An argument has a value that is not accepted.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "SiamAttnPolicy": SiamAttnPolicy,
        "SiamRPNppPolicy": SiamRPNppPolicy,
        "TrackerPolicy": TrackerPolicy,
        "TrDiMPPolicy": TrDiMPPolicy,
        "TransTPolicy": TransTPolicy,
    }
    policy: TrackerPolicy

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
        env_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_baseline(baseline, n_samples)
        for name, value in (
            ("n_clips", n_clips),
            ("n_samples", n_samples),
            ("micro_batch", micro_batch),
        ):
            if value < 1:
                raise InvalidArgumentError(f"{name} is {value}: it must be at least 1")
        if not 0 < frame_fraction <= 1:
            raise InvalidArgumentError(
                f"frame_fraction is {frame_fraction}: it must be above 0 and at most 1"
            )
        self.n_clips = n_clips
        self.n_samples = n_samples
        self.baseline = baseline
        self.reward_to_go = reward_to_go
        self.policy_weight = policy_weight
        self.loss_weights = loss_weights
        self.micro_batch = micro_batch
        self.frame_fraction = frame_fraction
        self.max_grad_norm = max_grad_norm
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
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        self._at_start = False
        self._stopwatch = Stopwatch()
        if _init_setup_model:
            self._setup_model()

    @property
    def tracks_per_clip(self) -> int:
        """Tracks that follow each clip: the sampled ones, and the greedy one if there is one."""
        return self.n_samples + (self.baseline == "greedy")

    def _make_env(self) -> VecEnv:
        assert self.env_id is not None
        return make_sb3_env(
            self.env_id,
            n_envs=self.n_clips * self.tracks_per_clip,
            tracks_per_clip=self.tracks_per_clip,
            **self.env_kwargs,
        )

    def _setup_model(self) -> None:
        self.set_random_seed(self.seed)
        kwargs = {"seed": self.seed or 0, **self.policy_kwargs}
        # The rate may be the tracker's own: the optimizer gets it below.
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, lambda _: 0.0, **kwargs
        ).to(self.device)
        defaults = self.policy.network.slt_defaults
        if self.learning_rate is None:
            self.learning_rate = defaults.learning_rate
        if self.max_grad_norm is None:
            self.max_grad_norm = defaults.max_grad_norm
        self._setup_lr_schedule()
        self._set_rates(self.policy.optimizer, self.lr_schedule(1))
        # The weights live in the policy from now on; a saved model must not ask for their file.
        kept = {k: v for k, v in self.policy_kwargs.items() if k != "weights"}
        self.policy_kwargs = {**kept, **self.policy.overrides}
        self._rng = np.random.default_rng(self.seed)
        published = self.policy.network.slt_weights
        self._policy_weight = (
            published["policy"] if self.policy_weight is None else float(self.policy_weight)
        )
        if self.loss_weights is None:
            self._loss_weights = {k: v for k, v in published.items() if k != "policy"}
        else:
            self._loss_weights = dict(self.loss_weights)
        if self.env is not None:
            self._check_env(self.env)

    def _check_env(self, env: VecEnv) -> None:
        needed = self.n_clips * self.tracks_per_clip
        if env.num_envs != needed:
            raise InvalidArgumentError(
                f"the environment has {env.num_envs} tracks and SLT needs {needed}: n_clips="
                f"{self.n_clips} times {self.tracks_per_clip} for each clip"
            )
        if env.has_attr("split") and env.get_attr("split", [0])[0] == "test":
            raise InvalidArgumentError(
                "the environment's split is 'test', which SLT does not train on: accepted are "
                "'train' and 'val', and 'train' with dataset_options={'train_on_test': True}"
            )

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Set the environment, see SB3; its number of tracks may not change."""
        if isinstance(env, VecEnv):
            self._check_env(env)  # before SB3 asserts the same
        super().set_env(env, force_reset)
        assert self.env is not None
        self._check_env(self.env)

    def learn(
        self: SelfSLT,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "SLT",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfSLT:
        """Train for ``total_timesteps`` environment steps, greedy tracks included (see SB3)."""
        if self.env is None and self.env_id is not None:
            env = self._make_env()
            if self.seed is not None:
                env.seed(self.seed)
            self.set_env(env)
        fresh = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        self._at_start = self._at_start or fresh  # SB3 resets the environment only then
        callback.on_training_start(locals(), globals())
        iteration = 0
        while self.num_timesteps < total_timesteps:
            # The rate of an iteration is that of its start: the last one still learns.
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            rollout = self.collect_rollout(callback)
            if rollout is None:
                break
            self.train(rollout)
            iteration += 1
            if log_interval and iteration % log_interval == 0:
                self.dump_logs(iteration)
        callback.on_training_end()
        return self

    def collect_rollout(self, callback: BaseCallback) -> ClipRollout | None:
        """Track one batch of clips to their ends; None if the callback asks to stop."""
        env, policy = self.env, self.policy
        assert env is not None
        policy.set_training_mode(False)
        callback.on_rollout_start()
        if not self._at_start or self._last_obs is None:
            self._last_obs = env.reset()  # type: ignore[assignment]
        obs: Any = self._last_obs
        self._at_start = False
        k, with_greedy = self.tracks_per_clip, self.baseline == "greedy"
        greedy = np.zeros(env.num_envs, bool)
        if with_greedy:
            greedy[::k] = True
        sampled = ~greedy
        template = obs["template"][::k].copy()
        template_box = obs["template_box"][::k].copy() if "template_box" in obs else None
        with self._stopwatch.measure("network"), torch.no_grad():
            features = map_features(
                lambda f: f.repeat_interleave(k, dim=0), policy.encode(template, template_box)
            )
        alive = np.ones(env.num_envs, bool)
        steps: list[dict[str, NDArray]] = []
        final: dict[int, dict[str, Any]] = {}
        entropy = []
        together = True
        while alive.any():
            together = bool(alive.all())
            with self._stopwatch.measure("network"):
                actions, index, distribution = policy.act(features, obs, greedy)
                chosen = index.cpu().numpy()
                entropy.append(float(distribution.entropy()[torch.as_tensor(sampled)].mean()))
            step = {
                "search": obs["search"][sampled],
                "box": obs["box"][sampled],
                "index": chosen[sampled],
                "alive": alive[sampled],
            }
            with self._stopwatch.measure("environment"):
                obs, rewards, dones, infos = env.step(actions)
            self._check_clips(infos, alive)
            gt_box = np.stack([info["gt_box_crop"] * info["visible"] for info in infos])
            step["gt_box"] = gt_box[sampled]  # zeros, which teach nothing, where it is absent
            step["rewards"] = (rewards * alive)[sampled]
            step["greedy_rewards"] = (rewards * alive)[greedy]
            steps.append(step)
            self.num_timesteps += env.num_envs
            for i in np.flatnonzero(alive & dones):
                final[int(i)] = infos[i]
            self._update_info_buffer(infos, dones & alive)
            callback.update_locals(locals())
            if not callback.on_step():
                return None
            alive &= ~dones
        self._last_obs = obs
        # All ended together: what the environment shows already is the next batch's start. A track
        # that ended early may have ended again by chance, clips ahead of the others.
        self._at_start = together
        self._log_rollout(final, greedy, entropy)
        callback.on_rollout_end()
        return self._stack(template, template_box, steps)

    def _stack(
        self, template: NDArray, template_box: NDArray | None, steps: list[dict[str, NDArray]]
    ) -> ClipRollout:
        def stack(name: str, dtype: Any = None) -> NDArray:
            array = np.stack([step[name] for step in steps])  # (T, C * S, ...)
            shape = (len(steps), self.n_clips, self.n_samples, *array.shape[2:])
            return array.reshape(shape).astype(dtype or array.dtype, copy=False)

        greedy = None
        if self.baseline == "greedy":
            greedy = np.stack([step["greedy_rewards"] for step in steps]).astype(np.float64)
        return ClipRollout(
            template=template,
            template_box=template_box,
            search=stack("search"),
            box=stack("box"),
            index=stack("index"),
            gt_box=stack("gt_box", np.float32),
            alive=stack("alive"),
            rewards=stack("rewards", np.float64),
            greedy_rewards=greedy,
        )

    def _check_clips(self, infos: list[dict[str, Any]], alive: NDArray[np.bool_]) -> None:
        k = self.tracks_per_clip
        for start in range(0, len(infos), k):
            group = [infos[i] for i in range(start, start + k) if alive[i]]
            if len({(info["sequence"], info["frame"]) for info in group}) > 1:
                raise InvalidArgumentError(
                    f"tracks {start} to {start + k - 1} follow different clips: make the "
                    f"environment with tracks_per_clip={k}"
                )

    def train(self, rollout: ClipRollout) -> None:
        """Take one optimizer step on the sampled tracks of ``rollout``."""
        self.policy.set_training_mode(False)
        optimizer = self.policy.optimizer
        self._update_learning_rate(optimizer)
        advantage = advantages(rollout, self.baseline, self.reward_to_go)
        used = rollout.alive
        if self.frame_fraction < 1:
            used = used & (self._rng.random(used.shape) < self.frame_fraction)
        with self._stopwatch.measure("update"):
            optimizer.zero_grad()
            sums: dict[str, float] = {}
            chunks = range(0, self.n_clips, self.micro_batch)
            average = self.policy.network.slt_defaults.average_micro_batches
            for first in chunks:
                clips = slice(first, first + self.micro_batch)
                if not used[:, clips].any():
                    continue
                terms = self.loss(rollout, advantage, used, clips)
                share = float(used[:, clips].sum() / used.sum())
                (terms["loss"] * (share if average else 1.0)).backward()
                for name, value in terms.items():
                    part = share if average else 1 / len(chunks)
                    sums[name] = sums.get(name, 0.0) + part * float(value.detach())
            limit = cast(float, self.max_grad_norm)  # set up from the defaults, where it was None
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
            optimizer.step()
        self._n_updates += 1
        for name, mean in sums.items():
            self.logger.record(f"train/{name}", mean)
        self.logger.record("train/grad_norm", float(norm))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("rollout/positive_advantage", float((advantage[0] > 0).mean()))

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
            ``loss``, ``policy_gradient_loss`` and the tracker's own losses that have a weight.
        """
        network, device = self.policy.network, self.device
        t, c, s = np.nonzero(used[:, clips])
        rows = (t, c + clips.start, s)
        template_box = None if rollout.template_box is None else rollout.template_box[clips]
        features = self.policy.encode(rollout.template[clips], template_box)
        clip = torch.as_tensor(c, device=device)
        proposals, distribution = self.policy.propose(
            map_features(lambda f: f[clip], features), rollout.search[rows], rollout.box[rows]
        )
        terms: dict[str, Tensor] = {}
        index = torch.as_tensor(rollout.index[rows], device=device)
        log_prob = distribution.log_prob(index)
        weight = torch.as_tensor(advantage[rows], device=device).to(log_prob.dtype)
        terms["policy_gradient_loss"] = -(weight * log_prob).mean()
        total = self._policy_weight * terms["policy_gradient_loss"]
        gt_box = torch.as_tensor(rollout.gt_box[rows], device=device)
        own = network.training_losses(proposals, gt_box, self._rng)
        for name, factor in self._loss_weights.items():
            if name not in own:
                raise unknown(f"loss of {self.policy.tracker!r}", name, own)
            terms[name] = own[name]
            total = total + factor * own[name]
        return {"loss": total, **terms}

    def _update_learning_rate(self, optimizers: Any) -> None:
        rate = self.lr_schedule(self._current_progress_remaining)
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            self._set_rates(optimizer, rate)

    @staticmethod
    def _set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def _log_rollout(
        self, final: dict[int, dict[str, Any]], greedy: NDArray[np.bool_], entropy: list[float]
    ) -> None:
        sampled_auc = np.mean([info["auc"] for i, info in final.items() if not greedy[i]])
        self.logger.record("rollout/sampled_auc", float(sampled_auc))
        if greedy.any():
            greedy_auc = np.mean([info["auc"] for i, info in final.items() if greedy[i]])
            self.logger.record("rollout/greedy_auc", float(greedy_auc))
            self.logger.record("rollout/auc_gap", float(sampled_auc - greedy_auc))
        self.logger.record("train/entropy", float(np.mean(entropy)))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the logger's records, with SB3's usual keys and the split of the time."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
        if self.ep_info_buffer:
            for key, name in (("r", "ep_rew_mean"), ("l", "ep_len_mean")):
                mean = safe_mean([info[key] for info in self.ep_info_buffer])
                self.logger.record(f"rollout/{name}", mean)
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
        return [
            *super()._excluded_save_params(),
            "_last_obs",
            "_last_original_obs",
            "_at_start",
            "_stopwatch",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
