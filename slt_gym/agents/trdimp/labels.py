"""Where the target is, as maps over a sample's cells."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_label(box: Tensor, cells: int, stride: int, factor: float, extra: int = 0) -> Tensor:
    """Compute Gaussian maps around boxes (DiMP).

    Args:
        box: Shape ``(..., 4)``, ``(x, y, w, h)``, pixels of the sample.
        cells: Cells along a side of the sample's features.
        stride: Pixels from cell to cell.
        factor: Standard deviation, in sides of the sample.
        extra: Entries beyond the features': 1 for a map of an even filter's scores.

    Returns:
        Shape ``(..., cells + extra, cells + extra)``.
    """
    centre = box[..., :2] + box[..., 2:] / 2
    # Half a cell more, because the scores of an even filter lie between the cells.
    centre = centre / stride - cells / 2 + 0.5
    position = torch.arange(cells + extra, device=box.device, dtype=box.dtype) - (cells - 1) / 2
    distance = position - centre[..., None]  # (..., 2, cells + extra)
    profile = torch.exp(-(distance**2) / (2 * (factor * cells) ** 2))
    return profile[..., 1, :, None] * profile[..., 0, None, :]


def centre_distance(box: Tensor, cells: int, stride: int) -> Tensor:
    """Compute the distance of a score map's cells from the boxes' centres.

    Args:
        box: Shape ``(..., 4)``, ``(x, y, w, h)``, pixels of the sample.
        cells: Cells along a side of the score map.
        stride: Pixels from cell to cell.

    Returns:
        In cells, shape ``(..., cells, cells)``.
    """
    centre = (box[..., :2] + box[..., 2:] / 2) / stride
    position = torch.arange(cells, device=box.device, dtype=box.dtype)
    squared = (position - centre[..., None]) ** 2
    return (squared[..., 1, :, None] + squared[..., 0, None, :]).sqrt()
