"""The policy's distribution over a network's proposals."""

from __future__ import annotations

import torch
from torch import Tensor


class ProposalDistribution:
    """A categorical distribution over ``N`` proposals for each of ``B`` crops.

    Args:
        logits: Shape ``(B, N)``, unnormalised log-probabilities.
    """

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = torch.log_softmax(logits, dim=-1)

    def mode(self) -> Tensor:
        """Return the most probable proposals' indices ``(B,)``; the first one of equals."""
        return self.log_probs.argmax(dim=-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw indices ``(B,)``."""
        return torch.multinomial(self.log_probs.exp(), 1, generator=generator).squeeze(1)

    def log_prob(self, index: Tensor) -> Tensor:
        """Return the log-probabilities ``(B,)`` of the proposals ``index`` ``(B,)``."""
        return self.log_probs.gather(-1, index[:, None]).squeeze(1)

    def entropy(self) -> Tensor:
        """Return the entropies ``(B,)`` in nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)
