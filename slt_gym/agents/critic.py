"""A learnt baseline: the return to expect, from what the network proposes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.network import Proposals


class ProposalCritic(nn.Module):
    """The value of a state, from the proposals' features pooled over the crop.

    Each proposal's score, log-probability and box become features, whose mean over the proposals
    and whose mean under the policy, with the previous estimate and the frame's number, give the
    value (pooling of a set: Zaheer et al., "Deep Sets", 2017). So it serves every tracker. No
    gradient goes on into the tracker's network.

    Args:
        width: Of its layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.value = nn.Sequential(nn.Linear(2 * width + 5, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(
        self, proposals: Proposals, distribution: ProposalDistribution, box: Tensor, frame: Tensor
    ) -> Tensor:
        """Compute values.

        Args:
            proposals: Of ``B`` crops.
            distribution: The policy over them.
            box: Shape ``(B, 4)``, the previous estimates, ``(x, y, w, h)`` in crop units.
            frame: Shape ``(B,)``, the number of the tracked frame, from 0 on.

        Returns:
            Shape ``(B,)``.
        """
        dtype = next(self.parameters()).dtype
        log_prob = distribution.log_probs.detach().to(dtype)  # (B, N)
        scores = proposals.scores.detach().to(dtype)
        boxes = proposals.boxes.detach().to(dtype)  # (B, N, 4)
        # Log-odds and log-probabilities of a sure tracker are large.
        seen = torch.stack([scores, log_prob], dim=-1) / 10
        features = self.features(torch.cat([seen, boxes], dim=-1))  # (B, N, width)
        under_policy = (log_prob.exp()[..., None] * features).sum(dim=1)
        context = torch.cat([box.to(dtype), frame.to(dtype).log1p()[:, None]], dim=-1)
        return self.value(torch.cat([features.mean(dim=1), under_policy, context], dim=-1))[:, 0]
