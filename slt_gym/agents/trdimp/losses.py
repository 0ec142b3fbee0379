"""TrDiMP's losses: overlap prediction as density estimation, and a hinge on the scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from slt_gym.agents.trdimp.refinement import from_relative, to_relative

_HINGE_THRESHOLD = 0.05  # ours: label above which a cell belongs to the target


def draw_proposals(
    gt_box: Tensor, count: int, sigmas: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes around the ground truth (PrDiMP, Danelljan et al., CVPR 2020).

    Args:
        gt_box: Shape ``(B, 4)``, ``(x, y, w, h)``, with positive sizes.
        count: Boxes for each.
        sigmas: Widths of the two distributions that are mixed, in relative coordinates.
        generator: On the CPU; for each row first the components, then the normal numbers.

    Returns:
        The boxes ``(B, count, 4)``, and :func:`proposal_densities` of them.
    """
    size = gt_box[:, None, 2:]
    widths = torch.tensor(sigmas)
    noise = []
    for _ in range(len(gt_box)):
        component = torch.randint(2, (count,), generator=generator)
        noise.append(torch.randn(count, 4, generator=generator) * widths[component][:, None])
    shift = torch.stack(noise).to(gt_box) if noise else gt_box.new_zeros(0, count, 4)
    boxes = from_relative(to_relative(gt_box[:, None], size) + shift, size)
    return boxes, *proposal_densities(boxes, gt_box, sigmas)


def proposal_densities(
    boxes: Tensor, gt_box: Tensor, sigmas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Compute how likely boxes are under the mixture, and under the ground truth's own width.

    Args:
        boxes: Shape ``(B, N, 4)``.
        gt_box: Shape ``(B, 4)``.
        sigmas: Widths of the two distributions; the first is the ground truth's own.

    Returns:
        Two densities ``(B, N)``.
    """
    size = gt_box[:, None, 2:]
    distance = (to_relative(boxes, size) - to_relative(gt_box[:, None], size)).square().sum(-1)

    def normal(sigma: float) -> Tensor:
        return torch.exp(-0.5 * distance / sigma**2) / (math.sqrt(2 * math.pi) * sigma) ** 4

    first, second = (normal(sigma) for sigma in sigmas)
    return (first + second) / 2, first


def density_loss(overlap: Tensor, density: Tensor, gt_density: Tensor) -> Tensor:
    """Compute the divergence of predicted from true box densities, by importance sampling.

    Args:
        overlap: The IoU-Net's predictions, log-densities up to a constant, shape ``(B, N)``.
        density: Of the boxes where they were drawn, shape ``(B, N)``.
        gt_density: Under the ground truth, shape ``(B, N)``.
    """
    count = overlap.shape[1]
    normaliser = torch.logsumexp(overlap - density.log(), dim=1) - math.log(count)
    expected = (overlap * gt_density / density).mean(dim=1)
    return (normaliser - expected).sum() / max(len(overlap), 1)


def hinge_loss(scores: Tensor, label: Tensor) -> Tensor:
    """Compute the classification error, with the hinge of DiMP (Bhat et al., ICCV 2019).

    In the target's place any difference from the label counts; elsewhere only positive scores do.

    Args:
        scores: Shape ``(I, B, H, W)``, of the filters after each iteration.
        label: Shape ``(B, H, W)``, Gaussian.
    """
    target = label > _HINGE_THRESHOLD
    error = torch.where(target, scores - label, F.relu(scores))
    return error.square().mean()
