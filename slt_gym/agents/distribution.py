"""The policy's distribution over a network's proposals."""

from __future__ import annotations

import torch
from torch import Tensor

from slt_gym.agents.network import Proposals


class ProposalDistribution:
    """A categorical distribution over ``N`` proposals for each of ``B`` crops.

    Args:
        logits: Shape ``(B, N)``, unnormalised log-probabilities.
        proposals: What it is over, for those who want to look at it.
    """

    def __init__(self, logits: Tensor, proposals: Proposals | None = None) -> None:
        self.log_probs = torch.log_softmax(logits, dim=-1)
        self.proposals = proposals

    def mode(self) -> Tensor:
        """Return the most probable proposals' indices ``(B,)``; the first one of equals."""
        return self.log_probs.argmax(dim=-1)

    def sample(
        self, generator: torch.Generator | None = None, part: int = 0, parts: int = 1
    ) -> Tensor:
        """Draw indices ``(B,)``.

        Args:
            generator: The source of randomness.
            part: Which part of a batch of ``parts * B`` crops these crops are: what is drawn for a
                crop does not depend on how the batch is divided.
            parts: Number of parts.
        """
        # A race of exponential clocks, as torch.multinomial runs it: the same draws.
        rows, count = self.log_probs.shape
        clocks = self.log_probs.new_empty(parts * rows, count).exponential_(generator=generator)
        return (self.log_probs.exp() / clocks[part * rows : (part + 1) * rows]).argmax(dim=-1)

    def log_prob(self, index: Tensor) -> Tensor:
        """Return the log-probabilities ``(B,)`` of the proposals ``index`` ``(B,)``."""
        return self.log_probs.gather(-1, index[:, None]).squeeze(1)

    def entropy(self) -> Tensor:
        """Return the entropies ``(B,)`` in nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)

    def divergence(self, other: ProposalDistribution) -> Tensor:
        """Return the Kullback-Leibler divergences ``(B,)`` from ``other``, in nats."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(dim=-1)
