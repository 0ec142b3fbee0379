"""A Beta distribution over actions, for Stable-Baselines3's actor-critic policies."""

from __future__ import annotations

import math

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution
from torch import Tensor
from torch.distributions import Beta


class BetaDistribution(DiagGaussianDistribution):
    """Beta distributions over [-1, 1], one for each number of an action, given by their modes.

    Samples stay inside the action space, where a Gaussian's are cut to it (Chou et al., "Improving
    Stochastic Policy Gradients in Continuous Control with Deep Reinforcement Learning using the
    Beta Distribution", ICML 2017). Computed in float64, because narrow ones have large parameters.
    """

    distribution: Beta  # type: ignore[assignment]  # of (action + 1) / 2

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> BetaDistribution:
        """Set modes and widths.

        Args:
            mean_actions: Shape ``(B, n)``, the modes, in [-1, 1].
            log_std: Shape ``(n,)``, logarithm of the standard deviation that a mode of 0 has; it
                falls towards the space's ends. At 3 ** -0.5 the distribution is uniform; above, it
                stays so.
        """
        self._mode = mean_actions
        share = (mean_actions.double() + 1) / 2
        strength = (torch.exp(-2 * log_std.double()) - 3).clamp(min=0)
        self.distribution = Beta(1 + share * strength, 1 + (1 - share) * strength)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-density ``(B,)`` of actions ``(B, n)``."""
        # The ends are left out, where the logarithm of the density is infinite.
        share = ((actions.double() + 1) / 2).clamp(1e-6, 1 - 1e-6)
        return (self.distribution.log_prob(share) - math.log(2)).sum(dim=1).float()

    def entropy(self) -> Tensor:
        """Return the differential entropy ``(B,)`` in nats."""
        return (self.distribution.entropy() + math.log(2)).sum(dim=1).float()

    def sample(self) -> Tensor:
        """Draw actions ``(B, n)``."""
        return (2 * self.distribution.sample() - 1).float()

    def mode(self) -> Tensor:
        """Return the modes ``(B, n)``, exactly as they were given."""
        return self._mode
