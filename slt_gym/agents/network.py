"""The contract between a tracker's network and everything that drives it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from slt_gym.agents.features import Features
from slt_gym.data.pairs import PairConfig

# ImageNet's statistics, of RGB in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

SelfProposals = TypeVar("SelfProposals", bound="Proposals")


@dataclass(frozen=True)
class SLTDefaults:
    """What sequence-level training of a tracker takes where its user says nothing.

    Attributes:
        learning_rate: Or a schedule of the remaining progress, 1 to 0.
        max_grad_norm: L2 norm that the gradient is clipped to.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments besides parameters and learning rate.
        average_micro_batches: Weight a micro-batch's losses by its share of the frames; otherwise
            the gradients of the micro-batches, each normalised by itself, are summed.
    """

    learning_rate: float | Callable[[float], float] = 1e-5  # SLT-TransT
    max_grad_norm: float = 100.0  # SLT-TransT
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW  # SLT-TransT
    optimizer_kwargs: Mapping[str, Any] = field(default_factory=lambda: {"weight_decay": 1e-4})
    average_micro_batches: bool = False


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

    def take(self: SelfProposals, rows: Tensor) -> SelfProposals:
        """Return the proposals of the crops ``rows`` ``(B',)``, which may come more than once."""
        return self._combine(lambda parts: parts[0][rows], [self])

    def detach(self: SelfProposals) -> SelfProposals:
        """Return the same proposals, cut off from autograd's graph."""
        return self._combine(lambda parts: parts[0].detach(), [self])

    def join(self: SelfProposals, others: Sequence[SelfProposals]) -> SelfProposals:
        """Return these proposals, and behind them those of other crops."""
        return self._combine(torch.cat, [self, *others]) if others else self

    @classmethod
    def _combine(
        cls, function: Callable[[list[Tensor]], Tensor], all_proposals: Sequence[SelfProposals]
    ) -> SelfProposals:
        """Apply a function to each tensor of several proposals, whose first axis is the batch."""

        def combine(values: Sequence[Any]) -> Any:
            first = values[0]
            if isinstance(first, (list, tuple)):
                return type(first)(combine(parts) for parts in zip(*values, strict=True))
            return function(list(values))

        first = all_proposals[0]
        fields = {
            f.name: combine([getattr(proposals, f.name) for proposals in all_proposals])
            for f in dataclasses.fields(first)
        }
        return dataclasses.replace(first, **fields)


class TrackerNetwork(nn.Module, ABC):
    """A network that proposes boxes for the template's target in a search crop.

    Crops are RGB: uint8 as observations hold them, or floats that are already normalised.

    Attributes:
        slt_weights: The published weights of sequence-level training: ``policy`` for the policy
            term, and one for each of :meth:`losses` that takes part.
        slt_defaults: The published settings of sequence-level training.
        pretraining_weights: The published weights of :meth:`losses` in frame-level training.
        pretraining_pairs: How frame-level training draws its pairs, as published.
        mask_losses: Those of :meth:`losses` that learn from the targets' masks. Masks are read
            where one of them has a weight, and :meth:`training_losses` then takes them.
        precision: ``"float32"``, or ``"bf16"`` for what runs within :meth:`reduced`.
    """

    precision: str = "float32"

    slt_weights: ClassVar[Mapping[str, float]] = {"policy": 1.0}
    slt_defaults: ClassVar[SLTDefaults] = SLTDefaults()
    pretraining_weights: ClassVar[Mapping[str, float]] = {}
    pretraining_pairs: ClassVar[PairConfig] = PairConfig()
    mask_losses: ClassVar[frozenset[str]] = frozenset()

    def reduced(self) -> AbstractContextManager[Any]:
        """Return the context for what bears the network's ``precision``; results are cast after.

        A network keeps out of it what boxes and probabilities follow from at once.
        """
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(next(self.parameters()).device.type, torch.bfloat16)

    @abstractmethod
    def encode(self, template: Tensor) -> Features:
        """Compute what is needed of a template, once per clip.

        A network whose geometry has ``shows_template_box`` also takes ``template_box``, the
        targets' boxes in the templates, shape ``(B, 4)``, ``(x, y, w, h)`` in crop units.

        Args:
            template: Shape ``(B, 3, Z, Z)``.

        Returns:
            A tensor, or a dict of tensors, with the batch as first axis.
        """

    @abstractmethod
    def propose(self, features: Features, search: Tensor) -> Proposals:
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

    def training_losses(
        self,
        proposals: Proposals,
        gt_box: Tensor,
        rng: np.random.Generator,
        other_box: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute :meth:`losses` in training; trackers that need more for them override it.

        A network with ``mask_losses`` also takes ``mask``, booleans of shape ``(B, S, S)``, the
        targets' pixels in the crops, and ``has_mask``, booleans of shape ``(B,)``, in which crops
        they are known.

        Args:
            proposals: Of ``B`` crops.
            gt_box: Shape ``(B, 4)``, as for :meth:`losses`.
            rng: The source of what is drawn.
            other_box: Of negative pairs, whose ``gt_box`` is zero: the box of the other target
                that the crop shows, likewise; zeros in the other rows. None without such pairs.
        """
        del rng, other_box
        return self.losses(proposals, gt_box)

    def needs_masks(self, weights: Mapping[str, float]) -> bool:
        """Tell whether losses with these weights, by name, learn from masks."""
        return any(weights.get(name) for name in self.mask_losses)

    def action_logits(self, proposals: Proposals, box: Tensor) -> Tensor:
        """Compute the policy's logits ``(B, N)``: the scores after the tracker's test-time prior.

        Args:
            proposals: Of ``B`` crops.
            box: Shape ``(B, 4)``, the previous estimate, ``(x, y, w, h)`` in crop units.
        """
        del box
        return proposals.scores

    def set_seed(self, seed: int) -> None:
        """Start the network's own draws anew, for networks that draw at random."""
        del seed

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
    return crops if crops.is_floating_point() else normalise_levels(crops)


def normalise_levels(crops: Tensor) -> Tensor:
    """Normalise RGB crops ``(B, 3, S, S)`` in [0, 255] by ImageNet's statistics.

    Of any type; what is returned has PyTorch's default one.
    """
    mean = torch.tensor(IMAGE_MEAN, device=crops.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=crops.device).view(1, 3, 1, 1)
    return (crops.to(mean.dtype) / 255).sub_(mean).div_(std)
