"""TransT's frame-level losses (paper, section 3.4): classification, L1 and generalised IoU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou_loss

BACKGROUND_WEIGHT = 0.0625  # TransT


def positive_cells(gt_box: Tensor, grid: int, official_quirks: bool = False) -> Tensor:
    """Mark the cells of the feature map that lie in the ground-truth box.

    A cell is positive when its column is in ``[ceil(grid * x1), ceil(grid * x2))``, at least one
    column wide, and its row likewise.

    Args:
        gt_box: Shape ``(B, 4)``, ``(x, y, w, h)`` in crop units.
        grid: Cells along one side.
        official_quirks: Count columns and rows like the published code, whose Python slices take
            negative ends from the far side: a box that leaves the crop to the left or the top has
            no positive cells, or cells on the opposite side. Otherwise the box is cut to the crop.

    Returns:
        Booleans, shape ``(B, grid * grid)``, row-major.
    """
    corners = box_convert(gt_box, "xywh", "xyxy")
    ends = torch.ceil(corners * grid).long()
    low, high = ends[:, :2], ends[:, 2:]  # (B, 2): column, row
    high = torch.where(low == high, high + 1, high)
    if official_quirks:
        low, high = _slice_end(low, grid), _slice_end(high, grid)
        inside = torch.ones(len(gt_box), 1, 1, dtype=torch.bool, device=gt_box.device)
    else:
        present = (
            (gt_box[:, 2:] > 0).all(1) & (corners[:, 2:] > 0).all(1) & (corners[:, :2] < 1).all(1)
        )
        inside = present[:, None, None]
    cell = torch.arange(grid, device=gt_box.device)
    columns = (cell >= low[:, :1]) & (cell < high[:, :1])  # (B, grid)
    rows = (cell >= low[:, 1:]) & (cell < high[:, 1:])
    return (rows[:, :, None] & columns[:, None, :] & inside).flatten(1)


def _slice_end(index: Tensor, length: int) -> Tensor:
    return torch.where(index < 0, (index + length).clamp(min=0), index.clamp(max=length))


def classification_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """Compute the weighted two-class cross-entropy from log-odds.

    Args:
        scores: Shape ``(B, N)``, target's logit minus background's.
        positive: Booleans, shape ``(B, N)``.
    """
    target = positive.to(scores.dtype)
    weight = torch.where(positive, 1.0, BACKGROUND_WEIGHT).to(scores.dtype)
    entropy = F.binary_cross_entropy_with_logits(scores, target, weight, reduction="sum")
    return entropy / weight.sum()


def box_losses(boxes: Tensor, gt_box: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the L1 and the generalised-IoU loss of the positive proposals.

    Args:
        boxes: Shape ``(B, N, 4)``, ``(x, y, w, h)`` in crop units.
        gt_box: Shape ``(B, 4)``, likewise.
        positive: Booleans, shape ``(B, N)``.

    Returns:
        L1 over ``(cx, cy, w, h)`` and 1 - GIoU, each a sum over positives divided by their number.
    """
    count = positive.sum().clamp(min=1)
    image = positive.nonzero()[:, 0]
    predicted, target = boxes[positive], gt_box[image].to(boxes.dtype)
    predicted_cxcywh = box_convert(predicted, "xywh", "cxcywh")
    target_cxcywh = box_convert(target, "xywh", "cxcywh")
    l1 = (predicted_cxcywh - target_cxcywh).abs().sum() / count
    giou = generalized_box_iou_loss(
        box_convert(predicted, "xywh", "xyxy"), box_convert(target, "xywh", "xyxy"), reduction="sum"
    )
    return l1, giou / count
