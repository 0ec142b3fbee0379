"""IoU-guided refinement of boxes (ATOM, CVPR 2019; steps in relative coordinates: PrDiMP)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slt_gym.agents.trdimp.config import TrDiMPConfig

Predict = Callable[[Tensor], Tensor]


def to_relative(box: Tensor, size: Tensor) -> Tensor:
    """Convert ``(x, y, w, h)`` to ``(cx / w0, cy / h0, log w, log h)`` with ``size`` (w0, h0)."""
    centre = box[..., :2] + box[..., 2:] / 2
    return torch.cat([centre / size, box[..., 2:].log()], dim=-1)


def from_relative(relative: Tensor, size: Tensor) -> Tensor:
    """Invert :func:`to_relative`."""
    wh = relative[..., 2:].exp()
    return torch.cat([relative[..., :2] * size - wh / 2, wh], dim=-1)


def jitter(box: Tensor, draws: Tensor, config: TrDiMPConfig) -> Tensor:
    """Put disturbed copies beside boxes.

    Args:
        box: Shape ``(B, 4)``, ``(x, y, w, h)``, pixels of the sample.
        draws: Uniform in [0, 1), shape ``(n, 4)`` for all the boxes, or ``(B, n, 4)``.
        config: Says how much.

    Returns:
        Shape ``(B, 1 + n, 4)``, the boxes themselves first.
    """
    factor = draws.new_tensor([config.box_jitter_pos] * 2 + [config.box_jitter_sz] * 2)
    side = box[:, 2:].prod(dim=1).sqrt()[:, None, None]
    move = (draws - 0.5) * factor * side  # (B, n, 4)
    least = box[:, 2:].amin(dim=1)[:, None, None] / 3
    size = torch.maximum(box[:, None, 2:] + move[..., 2:], least)
    centre = (box[:, :2] + box[:, 2:] / 2)[:, None] + move[..., :2]
    return torch.cat([box[:, None], torch.cat([centre - size / 2, size], dim=-1)], dim=1)


def ascend(predict: Predict, boxes: Tensor, config: TrDiMPConfig) -> tuple[Tensor, Tensor]:
    """Move boxes uphill on the predicted overlap.

    Args:
        predict: Maps boxes ``(B, N, 4)`` to overlaps ``(B, N)``.
        boxes: Shape ``(B, N, 4)``; the first one of each row sets the unit of length.
        config: Says how many steps of which length.

    Returns:
        The boxes ``(B, N, 4)``, and the overlaps ``(B, N)`` before the last step, as published.
    """
    size = boxes[:, :1, 2:]
    relative = to_relative(boxes, size)
    length = config.box_refinement_step_length
    overlap = boxes.new_zeros(boxes.shape[:2])
    for _ in range(config.box_refinement_iter):
        with torch.enable_grad():
            relative.requires_grad_()
            overlap = predict(from_relative(relative, size))
            (slope,) = torch.autograd.grad(overlap.sum(), relative)
        relative = relative.detach() + length * slope
        length *= config.box_refinement_step_decay
    return from_relative(relative, size), overlap.detach()


def select(boxes: Tensor, overlap: Tensor, config: TrDiMPConfig) -> tuple[Tensor, Tensor]:
    """Average the boxes of the highest predicted overlap.

    Args:
        boxes: Shape ``(B, N, 4)``.
        overlap: Shape ``(B, N)``.
        config: Says how many, and which shapes take part.

    Returns:
        Boxes ``(B, 4)``, and whether any box had an acceptable shape, ``(B,)``.
    """
    boxes = torch.cat([boxes[..., :2], boxes[..., 2:].clamp(min=1)], dim=-1)
    aspect = boxes[..., 2] / boxes[..., 3]
    most = config.maximal_aspect_ratio
    valid = (aspect < most) & (aspect > 1 / most)
    count = min(config.iounet_k, boxes.shape[1])
    best = overlap.masked_fill(~valid, -torch.inf).topk(count, dim=1).indices
    share = valid.gather(1, best)[..., None].to(boxes.dtype)
    chosen = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    return (chosen * share).sum(1) / share.sum(1).clamp(min=1), valid.any(dim=1)


def refine(
    predict: Predict, box: Tensor, draws: Tensor, config: TrDiMPConfig
) -> tuple[Tensor, Tensor]:
    """Refine one box of each sample: jitter, ascent, selection.

    Args:
        predict: Maps boxes ``(B, N, 4)`` to overlaps ``(B, N)``.
        box: Shape ``(B, 4)``, ``(x, y, w, h)``, pixels of the sample.
        draws: As for :func:`jitter`.
        config: The constants.

    Returns:
        Boxes ``(B, 4)``, moved by half a pixel down and to the right as published (there, boxes are
        built around a pixel's centre and read back from its corner); and whether the refinement
        found one, ``(B,)``. Where it did not, the box is the one that came in.
    """
    refined, found = select(*ascend(predict, jitter(box, draws, config), config), config)
    refined = refined + refined.new_tensor([0.5, 0.5, 0.0, 0.0])
    return torch.where(found[:, None], refined, box), found
