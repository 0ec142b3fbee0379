"""Trackers as actor-critic policies, for PPO, A2C and TRPO."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from slt_gym.agents.beta import BetaDistribution
from slt_gym.agents.network import TrackerNetwork
from slt_gym.agents.policy import TrackerPolicy
from slt_gym.errors import InvalidArgumentError, unknown

_DISTRIBUTIONS: dict[str, type[DiagGaussianDistribution]] = {
    "beta": BetaDistribution,
    "gaussian": DiagGaussianDistribution,
}


class TrackerActorCriticPolicy(ActorCriticPolicy):
    """A tracker whose greedy estimate is the mean of a distribution over boxes.

    Stable-Baselines3's actor-critic algorithms can so fine-tune it:

        env = make_sb3_env("SLTTrack-LaSOT-v0", n_envs=8, geometry="transt", action="box")
        policy_kwargs = {"tracker": "transt", "weights": "transt.pth"}
        model = PPO(TrackerActorCriticPolicy, env, policy_kwargs=policy_kwargs)

    Deterministic predictions are the tracker's own: the box of the most probable proposal after
    the test-time prior, by the tracker's test-time rule. Sampled ones scatter around it, with
    standard deviations that are learnt.

    The mean's gradient reaches the chosen proposal's box as it is. The choice has no gradient; the
    scores take that of the proposals' mean box, weighted by their probabilities, instead
    (a straight-through estimate). TrDiMP's refined boxes have none: only its scores learn.

    The critic reads what the tracker says: the estimate, the previous one, the chosen score and
    the proposals' largest probability and entropy. Its loss does not move the tracker.

    Nothing is kept between calls: each one encodes the templates anew. The network stays in eval
    mode, and a tracker that draws at random draws the same in each call.

    Args:
        observation_space: Of a tracking environment with this tracker's geometry.
        action_space: Of a tracking environment with ``action="box"``.
        lr_schedule: Learning rate from the remaining progress, of the critic and the deviations.
        tracker: The tracker's name, see :func:`slt_gym.list_trackers`.
        weights: A folder or a checkpoint's file, ``"pretrained"``, or None for random weights.
        distribution: ``"gaussian"``, or ``"beta"``, whose samples stay inside the action space and
            whose mode is the estimate.
        log_std_init: Logarithm of the standard deviations at the start, in search crops' sides.
        tracker_lr_scale: Factor on the learning rate for the tracker, besides its own ones for its
            parts.
        critic_width: Units of the critic's two hidden layers.
        seed: Of the tracker's own draws.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments besides parameters and learning rate.
        use_sde: Must be False; the algorithms pass it.
        **overrides: Fields of the tracker's configuration; they go before those stored with
            ``weights``.

    Raises:
        InvalidArgumentError: An argument is not accepted, or the environment is another tracker's.
    """

    features_extractor: _Estimator

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        tracker: str = "transt",
        weights: str | None = None,
        distribution: str = "gaussian",
        log_std_init: float = -4.0,
        tracker_lr_scale: float = 0.1,
        critic_width: int = 64,
        seed: int = 0,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        **overrides: Any,
    ) -> None:
        if use_sde:
            raise InvalidArgumentError(
                "argument 'use_sde' is True: TrackerActorCriticPolicy has no state-dependent noise"
            )
        if distribution not in _DISTRIBUTIONS:
            raise unknown("distribution", distribution, _DISTRIBUTIONS)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[critic_width, critic_width],
            log_std_init=log_std_init,
            features_extractor_class=_Estimator,
            features_extractor_kwargs={
                "action_space": action_space,
                "tracker": tracker,
                "weights": weights,
                "seed": seed,
                **overrides,
            },
            normalize_images=False,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.distribution = distribution
        self.action_dist = _DISTRIBUTIONS[distribution](_Critic.latent_dim_pi)
        self.tracker_lr_scale = tracker_lr_scale
        self.critic_width = critic_width
        self._make_optimizer(lr_schedule)

    @property
    def network(self) -> TrackerNetwork:
        """The tracker's network."""
        return self.features_extractor.policy.network

    @property
    def tracker(self) -> str:
        """The tracker's name."""
        return self.features_extractor.policy.tracker

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields of the tracker's configuration that are not its defaults."""
        return self.features_extractor.policy.overrides

    def _build(self, lr_schedule: Schedule) -> None:
        del lr_schedule  # The optimizer comes last, in the constructor.
        self.mlp_extractor = _Critic(self.features_dim, *self.net_arch)  # type: ignore[assignment]
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        self.mlp_extractor.apply(partial(self.init_weights, gain=np.sqrt(2)))
        self.log_std = nn.Parameter(torch.full((_Critic.latent_dim_pi,), self.log_std_init))

    def _make_optimizer(self, lr_schedule: Schedule) -> None:
        groups = self.network.parameter_groups()
        for group in groups:
            group["lr_scale"] *= self.tracker_lr_scale
        own = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in self.parameters() if id(p) not in own]
        groups.append({"params": rest, "lr_scale": 1.0})
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        # The algorithms give all groups the same rate before each update.
        self.optimizer.register_step_pre_hook(_scale_rates)
        self.optimizer.register_step_post_hook(_restore_rates)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that learn: TRPO differentiates by every one."""
        return (item for item in super().named_parameters(*args, **kwargs) if item[1].requires_grad)

    def set_training_mode(self, mode: bool) -> None:
        """Set the critic's mode; the tracker stays in eval mode."""
        super().set_training_mode(mode)
        self.features_extractor.train(False)

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Return the distribution of the actions; it can be differentiated twice, as TRPO does."""
        if not torch.is_grad_enabled():
            return super().get_distribution(obs)
        with sdpa_kernel(SDPBackend.MATH):
            return super().get_distribution(obs)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        return self.action_dist.proba_distribution(latent_pi, self.log_std)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "tracker": self.tracker,
            "distribution": self.distribution,
            "log_std_init": self.log_std_init,
            "tracker_lr_scale": self.tracker_lr_scale,
            "critic_width": self.critic_width,
            "seed": self.features_extractor.policy.seed,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self.overrides,
        }


class _Estimator(BaseFeaturesExtractor):
    """Computes a tracker's greedy actions, and what it says about them.

    The features ``(B, 11)``: the action, the previous estimate, the chosen proposal's score and
    probability, and the entropy of the proposals' distribution, as a share of the largest possible.
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, **policy_kwargs: Any
    ) -> None:
        super().__init__(observation_space, features_dim=11)
        self.policy = TrackerPolicy(observation_space, action_space, **policy_kwargs)

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        policy, box = self.policy, observation["box"]
        # Rollout buffers hold, and preprocessing returns, floats from 0 to 255.
        template, search = (observation[key].to(torch.uint8) for key in ("template", "search"))
        policy.network.set_seed(policy.seed)
        features = policy.encode(template, observation.get("template_box"))
        proposals, distribution = policy.propose(features, search, box)
        index = distribution.mode()
        action = _to_action(policy.network.resolve(proposals, index, box))
        probability = distribution.log_probs.exp()
        candidates = _to_action(proposals.boxes.detach())
        mean = (probability[..., None] * candidates).sum(dim=1).float()
        said = [
            box,
            proposals.scores.gather(1, index[:, None]).sigmoid(),
            probability.gather(1, index[:, None]),
            distribution.entropy()[:, None] / np.log(proposals.scores.shape[1]),
        ]
        # The term in brackets is zero and has the mean's gradient.
        return torch.cat([action + (mean - mean.detach()), *(x.float() for x in said)], dim=1)


class _Critic(nn.Module):
    """Hands the action on, and computes the value function's features of all that is said."""

    latent_dim_pi = 4

    def __init__(self, inputs: int, *widths: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.Tanh()]
            inputs = width
        self.value_layers = nn.Sequential(*layers)  # TRPO knows the critic by "value"
        self.latent_dim_vf = inputs

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        return features[:, : self.latent_dim_pi]

    def forward_critic(self, features: Tensor) -> Tensor:
        return self.value_layers(features.detach())


def _to_action(box: Tensor) -> Tensor:
    """Convert boxes ``(..., 4)`` as :func:`slt_gym.envs.box_to_action` does, differentiably."""
    corner, size = box.double().split(2, dim=-1)
    action = torch.cat([corner + size / 2 - 0.5, size - 1], dim=-1)
    return action.clamp(-1, 1).float()


def _scale_rates(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_scale"]


def _restore_rates(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] /= group["lr_scale"]
