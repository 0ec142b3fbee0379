"""SiamRPN++'s losses: which anchors learn, cross-entropy, and L1 of the deltas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slt_gym.agents.siamrpnpp.anchors import STRIDE, encode, paired_iou

POSITIVE_IOU = 0.6  # SiamRPN++
NEGATIVE_IOU = 0.3  # SiamRPN++
POSITIVES = 16  # SiamRPN++
NEGATIVES = 48  # SiamRPN++: 64 in all
OTHER_REACH = 3  # SiamRPN++: cells beside an other target's, a block of 7 x 7
OTHER_NEGATIVES = 16  # SiamRPN++


class Draws(Protocol):
    """What the losses need of a source of randomness: NumPy's ``Generator`` or ``RandomState``."""

    def shuffle(self, x: NDArray) -> None:
        """Shuffle an array in place."""

    def choice(self, a: int, size: int, replace: bool) -> NDArray:
        """Draw ``size`` of the numbers below ``a``."""


@dataclass
class AnchorLabels:
    """What the anchors of ``B`` crops learn.

    Attributes:
        positive: Booleans, shape ``(B, N)``, the anchors that learn the target.
        negative: Booleans, shape ``(B, N)``, those that learn the background.
        deltas: Shape ``(B, N, 4)``, the deltas to the target; zeros where there is none.
    """

    positive: Tensor
    negative: Tensor
    deltas: Tensor


def label_anchors(
    anchors: Tensor, target: Tensor, rng: Draws, other: Tensor | None = None
) -> AnchorLabels:
    """Label the anchors of ``B`` crops, with at most 16 positives and 48 negatives in each.

    Args:
        anchors: Shape ``(N, 4)``, ``(cx, cy, w, h)``.
        target: Shape ``(B, 4)``, likewise; a row without positive size labels nothing.
        rng: Draws the positives and negatives where there are more; row by row, the positives
            first, as published.
        other: Shape ``(B, 4)``, likewise: of negative pairs, the other target that the crop shows,
            around which 16 anchors learn the background; zeros in the other rows.
    """
    present = (target[:, 2:] > 0).all(1)
    box = torch.where(present[:, None], target, torch.ones_like(target))[:, None]
    overlap = paired_iou(anchors[None], box)  # (B, N)
    deltas = encode(box, anchors[None]) * present[:, None, None]
    values = overlap.detach().cpu().numpy()
    chosen = np.zeros((2, *values.shape), bool)
    for row in np.flatnonzero(present.cpu().numpy()):
        chosen[0, row, _subset(values[row] > POSITIVE_IOU, POSITIVES, rng)] = True
        chosen[1, row, _subset(values[row] < NEGATIVE_IOU, NEGATIVES, rng)] = True
    if other is not None:
        cell = (other[:, None, :2] / STRIDE).round() * STRIDE
        near = ((anchors[:, :2] - cell).abs() <= OTHER_REACH * STRIDE).all(-1).cpu().numpy()
        for row in np.flatnonzero((other[:, 2:] > 0).all(1).cpu().numpy()):
            chosen[1, row, _subset(near[row], OTHER_NEGATIVES, rng)] = True
    positive, negative = torch.from_numpy(chosen).to(target.device)
    return AnchorLabels(positive, negative, deltas)


def _subset(mask: NDArray[np.bool_], most: int, rng: Draws) -> NDArray[np.int64]:
    index = np.flatnonzero(mask)
    if len(index) > most:
        rng.shuffle(index)
    return index[:most]


def classification_loss(scores: Tensor, labels: AnchorLabels) -> Tensor:
    """Compute the two-class cross-entropy: half the positives' mean, half the negatives'.

    Args:
        scores: Shape ``(B, N)``, log-odds.
        labels: Of the same anchors.
    """

    def mean(values: Tensor) -> Tensor:
        return values.sum() / max(len(values), 1)

    positive = F.softplus(-scores[labels.positive])
    negative = F.softplus(scores[labels.negative])
    return 0.5 * mean(positive) + 0.5 * mean(negative)


def regression_loss(deltas: Tensor, labels: AnchorLabels) -> Tensor:
    """Compute the L1 distance of the positives' deltas: their mean in each crop, over all crops.

    Args:
        deltas: Shape ``(B, N, 4)``, as predicted.
        labels: Of the same anchors.
    """
    row = labels.positive.nonzero()[:, 0]
    count = labels.positive.sum(1).to(deltas.dtype) + 1e-6
    distance = (deltas - labels.deltas)[labels.positive].abs().sum(-1)
    return (distance / count[row]).sum() / len(deltas)
