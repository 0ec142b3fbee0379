"""The contract between a tracker's network and everything that drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

# ImageNet's statistics, of RGB in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass
class Proposals:
    """What a network proposes for a batch of search crops.

    Attributes:
        scores: Shape ``(B, N)``, log-odds that a proposal is the target.
        boxes: Shape ``(B, N, 4)``, ``(x, y, w, h)`` in crop units.
    """

    scores: Tensor
    boxes: Tensor

    def pick(self, index: Tensor) -> Tensor:
        """Return the boxes ``(B, 4)`` of the proposals ``index`` ``(B,)``."""
        return self.boxes[torch.arange(len(index), device=index.device), index]


class TrackerNetwork(nn.Module, ABC):
    """A network that proposes boxes for the template's target in a search crop.

    Crops are RGB: uint8 as observations hold them, or floats that are already normalised.

    Attributes:
        slt_weights: The published weights of sequence-level training: ``policy`` for the policy
            term, and one for each of :meth:`losses` that takes part.
        pretraining_weights: The published weights of :meth:`losses` in frame-level training.
    """

    slt_weights: ClassVar[Mapping[str, float]] = {"policy": 1.0}
    pretraining_weights: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def encode(self, template: Tensor) -> Tensor:
        """Compute what is needed of a template, once per clip.

        Args:
            template: Shape ``(B, 3, Z, Z)``.

        Returns:
            Features with the batch as their first axis.
        """

    @abstractmethod
    def propose(self, features: Tensor, search: Tensor) -> Proposals:
        """Propose boxes in the search crops ``(B, 3, S, S)`` for the encoded templates."""

    @abstractmethod
    def losses(self, proposals: Proposals, gt_box: Tensor) -> dict[str, Tensor]:
        """Compute the tracker's own supervised losses.

        Args:
            proposals: Of ``B`` crops.
            gt_box: Shape ``(B, 4)``, ``(x, y, w, h)`` in crop units; a crop whose box has no
                positive size teaches no box.

        Returns:
            Scalars by name.
        """

    def action_logits(self, proposals: Proposals, box: Tensor) -> Tensor:
        """Compute the policy's logits ``(B, N)``: the scores after the tracker's test-time prior.

        Args:
            proposals: Of ``B`` crops.
            box: Shape ``(B, 4)``, the previous estimate, ``(x, y, w, h)`` in crop units.
        """
        del box
        return proposals.scores

    def resolve(self, proposals: Proposals, index: Tensor, box: Tensor) -> Tensor:
        """Turn chosen proposals into the estimates, by the tracker's test-time rule.

        Args:
            proposals: Of ``B`` crops.
            index: Shape ``(B,)``, the chosen ones.
            box: Shape ``(B, 4)``, the previous estimates, which a tracker may smooth with.

        Returns:
            Boxes ``(B, 4)``, ``(x, y, w, h)`` in crop units.
        """
        del box
        return proposals.pick(index)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group the parameters for an optimizer.

        Returns:
            Dicts with ``params`` and ``lr_scale``, the group's factor on the learning rate.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr_scale": 1.0}]


def normalise(crops: Tensor) -> Tensor:
    """Normalise RGB uint8 crops ``(B, 3, S, S)`` by ImageNet's statistics; pass floats through."""
    if crops.is_floating_point():
        return crops
    mean = torch.tensor(IMAGE_MEAN, device=crops.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=crops.device).view(1, 3, 1, 1)
    return (crops.float() / 255 - mean) / std
