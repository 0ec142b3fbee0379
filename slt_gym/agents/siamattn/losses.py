"""SiamAttn's losses: refinement of sampled regions, and their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slt_gym.agents.siamrpnpp.anchors import encode, paired_iou
from slt_gym.agents.siamrpnpp.losses import Draws

ROIS = 16  # SiamAttn: regions of each crop
FOREGROUND_IOU = 0.5  # SiamAttn
DELTA_SCALE = (0.1, 0.1, 0.2, 0.2)  # SiamAttn: standard deviations of the deltas
HARD_PIXELS = 0.7  # SiamAttn: share of the mask's pixels that learn


@dataclass
class Regions:
    """Regions that the heads learn from.

    Attributes:
        rois: Shape ``(R, 5)``: index of the crop, then ``x1, y1, x2, y2``, crop pixels.
        deltas: Shape ``(R, 4)``, normalised, from the region to the target.
    """

    rois: Tensor
    deltas: Tensor


@torch.no_grad()
def sample_regions(boxes: Tensor, target: Tensor, rng: Draws, official_quirks: bool) -> Regions:
    """Draw 16 regions that overlap the target in each crop that has one.

    Args:
        boxes: Shape ``(B, N, 4)``, proposals, ``(x, y, w, h)`` in crop pixels.
        target: Shape ``(B, 4)``, likewise; it is a candidate itself.
        rng: The source of the draws, crop by crop.
        official_quirks: Also draw nothing from the background, which moves NumPy's legacy
            generator on.
    """
    candidates = torch.cat([boxes, target[:, None]], dim=1).double()
    centred = torch.cat([candidates[..., :2] + candidates[..., 2:] / 2, candidates[..., 2:]], -1)
    overlap = paired_iou(centred, centred[:, -1:])
    rows, chosen = [], []
    values = overlap.cpu().numpy()
    for number in np.flatnonzero((target[:, 2:] > 0).all(1).cpu().numpy()).tolist():
        foreground = np.flatnonzero(values[number] >= FOREGROUND_IOU)
        count = len(foreground)
        times = 0 if count > ROIS else ROIS // count
        rest = rng.choice(count, ROIS - times * count, replace=False)
        index = np.concatenate([np.tile(foreground, times), foreground[rest]])
        background = int(np.count_nonzero(values[number] < FOREGROUND_IOU))
        if official_quirks and background:
            rng.choice(background, 0, replace=False)
        rows.append(np.full(ROIS, number))
        chosen.append(index)
    if not rows:
        return Regions(boxes.new_zeros(0, 5), boxes.new_zeros(0, 4))
    row = torch.from_numpy(np.concatenate(rows)).to(boxes.device)
    region = candidates[row, torch.from_numpy(np.concatenate(chosen)).to(boxes.device)]
    corners = torch.cat([region[:, :2], region[:, :2] + region[:, 2:]], dim=1)
    size = region[:, 2:]
    region_centred = torch.cat([region[:, :2] + size / 2, size], dim=1)
    deltas = encode(centred[row, -1], region_centred) / corners.new_tensor(DELTA_SCALE)
    rois = torch.cat([row[:, None].double(), corners], dim=1)
    return Regions(rois.to(boxes.dtype), deltas.to(boxes.dtype))


def refinement_loss(predicted: Tensor, regions: Regions) -> Tensor:
    """Compute the smooth L1 distance of normalised deltas ``(R, 4)``; 0 without regions."""
    if not len(regions.deltas):
        return predicted.sum()
    return F.smooth_l1_loss(predicted, regions.deltas.to(predicted.dtype))


def cut_masks(mask: Tensor, rois: Tensor, size: int) -> Tensor:
    """Cut the regions out of the crops' masks.

    Args:
        mask: Shape ``(B, S, S)``, 1 on the target.
        rois: Shape ``(R, 5)``, as in :class:`Regions`.
        size: Side of the result, pixels.

    Returns:
        Shape ``(R, size, size)``, the type of the regions: the nearest pixels.
    """
    side = mask.shape[-1]
    corners = rois[:, 1:].clamp(0, side - 1).long()
    step = torch.arange(size, device=mask.device)

    def pixels(first: Tensor, last: Tensor) -> Tensor:
        return first[:, None] + step * (last - first + 1)[:, None] // size  # (R, size)

    x1, y1, x2, y2 = corners.unbind(1)
    rows, columns = pixels(y1, y2), pixels(x1, x2)
    cut = mask[rois[:, 0].long()[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.to(rois.dtype)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the hardest pixels of masks ``(R, P, P)``."""
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten()
    return losses.topk(int(HARD_PIXELS * len(losses)), sorted=False).values.mean()
