"""What an update minimises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slt_gym.agents.critic import ProposalCritic
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.features import map_features, upload
from slt_gym.agents.network import Proposals
from slt_gym.agents.policy import TrackerPolicy
from slt_gym.agents.rollout import ClipRollout
from slt_gym.errors import unknown


def policy_loss(
    log_prob: Tensor,
    advantage: Tensor,
    old_log_prob: Tensor | None = None,
    clip_range: float | None = None,
) -> dict[str, Tensor]:
    """Compute the policy's loss: that of REINFORCE, or the clipped one of PPO.

    Args:
        log_prob: Shape ``(B,)``, of the actions that were taken, with gradients.
        advantage: Shape ``(B,)``.
        old_log_prob: Shape ``(B,)``, of the same actions when they were taken; with ``clip_range``.
        clip_range: How far from 1 the ratio of the two probabilities may go and still teach
            (Schulman et al., "Proximal Policy Optimization Algorithms", 2017, equation 7). None
            leaves the ratio out: REINFORCE.

    Returns:
        ``policy_gradient_loss``; with ``clip_range`` also ``clip_fraction``, the share of ratios
        out of range, and ``approx_kl``, the mean of ``r - 1 - log r``, an estimate of
        KL(old policy || new policy).
    """
    if clip_range is None:
        return {"policy_gradient_loss": -(advantage * log_prob).mean()}
    assert old_log_prob is not None
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    with torch.no_grad():
        clip_fraction = ((ratio - 1).abs() > clip_range).double().mean()
        approx_kl = (ratio - 1 - log_ratio).mean()
    return {
        "policy_gradient_loss": -torch.minimum(advantage * ratio, advantage * clipped).mean(),
        "clip_fraction": clip_fraction,
        "approx_kl": approx_kl,
    }


@dataclass
class Objective:
    """The weighted sum of the policy's loss, the tracker's own losses, the critic's and penalties.

    Attributes:
        policy: What learns.
        policy_weight: Of the policy's loss.
        loss_weights: Of the tracker's own losses, by name.
        clip_range: Of the policy's loss, see :func:`policy_loss`.
        critic: Learns what advantages were computed with; None without one.
        value_weight: Of its squared error.
        entropy_weight: Of the policy's entropy, which is favoured.
        base: What the policy is kept near to; None without such a penalty.
        kl_weight: Of KL(policy || base).
    """

    policy: TrackerPolicy
    policy_weight: float
    loss_weights: Mapping[str, float]
    clip_range: float | None = None
    critic: ProposalCritic | None = None
    value_weight: float = 0.0
    entropy_weight: float = 0.0
    base: TrackerPolicy | None = None
    kl_weight: float = 0.0

    @property
    def needs_masks(self) -> bool:
        """Whether one of the tracker's losses learns from masks, which a rollout may hold."""
        return self.policy.network.needs_masks(self.loss_weights)

    def terms(
        self,
        rollout: ClipRollout,
        advantage: NDArray[np.float64],
        used: NDArray[np.bool_],
        clips: slice,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Compute the sum, ``loss``, and its terms before their weights, of some clips.

        Args:
            rollout: The tracks.
            advantage: Shape ``(T, C, S)``.
            used: Booleans, shape ``(T, C, S)``, the frames that take part.
            clips: Which of the ``C`` clips.
            rng: The source of the tracker's own draws.
        """
        t, c, s = np.nonzero(used[:, clips])
        rows = (t, c + clips.start, s)

        def take(array: NDArray | None) -> Tensor:
            assert array is not None
            return upload(array[rows], self.policy.device)

        if rollout.graphs is None:
            proposals, distribution = _propose(self.policy, rollout, clips, rows)
        else:
            taken = np.zeros_like(used)
            taken[rows] = True
            proposals = rollout.graphs.take(taken)
            distribution = self.policy.distribute(proposals, rollout.box[rows])
        log_prob = distribution.log_prob(take(rollout.index))
        weight = take(advantage).to(log_prob.dtype)
        old = None if self.clip_range is None else take(rollout.log_prob).to(log_prob.dtype)
        terms = policy_loss(log_prob, weight, old, self.clip_range)
        total = self.policy_weight * terms["policy_gradient_loss"]
        masks = {}
        if rollout.mask is not None:
            masks = {"mask": take(rollout.mask), "has_mask": take(rollout.has_mask)}
        network = self.policy.network
        own = network.training_losses(proposals, take(rollout.gt_box), rng, **masks)
        for name, factor in self.loss_weights.items():
            if name not in own:
                raise unknown(f"loss of {self.policy.tracker!r}", name, own)
            terms[name] = own[name]
            total = total + factor * own[name]
        if self.critic is not None:
            frame = upload(t, self.policy.device)
            values = self.critic(proposals, distribution, take(rollout.box), frame)
            target = (take(advantage) + take(rollout.values)).to(values.dtype)
            terms["value_loss"] = ((values - target) ** 2).mean()
            total = total + self.value_weight * terms["value_loss"]
        if self.entropy_weight:
            terms["entropy_loss"] = -distribution.entropy().mean()
            total = total + self.entropy_weight * terms["entropy_loss"]
        if self.base is not None:
            with torch.no_grad():
                _, base = _propose(self.base, rollout, clips, rows)
            terms["kl_to_base"] = distribution.divergence(base).mean()
            total = total + self.kl_weight * terms["kl_to_base"]
        return {"loss": total, **terms}


def _propose(
    policy: TrackerPolicy, rollout: ClipRollout, clips: slice, rows: tuple[NDArray[np.int64], ...]
) -> tuple[Proposals, ProposalDistribution]:
    """Propose for the frames ``rows`` of some clips, whose templates are encoded once."""
    template_box = None if rollout.template_box is None else rollout.template_box[clips]
    features = policy.encode(rollout.template[clips], template_box)
    clip = upload(rows[1] - clips.start, policy.device)
    return policy.propose(
        map_features(lambda f: f[clip], features), rollout.search[rows], rollout.box[rows]
    )
