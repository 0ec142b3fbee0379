"""Deformable pooling of regions of interest (Dai et al., ICCV 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slt_gym.cuda_ops import dispatch


def deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    *,
    output_size: int,
    spatial_scale: float,
    samples: int = 4,
    offset_scale: float = 0.1,
) -> Tensor:
    """Average each of ``P x P`` bins of a region over ``S x S`` bilinear samples.

    The samples of a bin start at its edge and are shifted together by its offset. Those more than
    half a pixel outside the map are left out, and a bin without any is 0. Gradients reach the map
    and the offsets, not the regions.

    On a GPU by a Triton kernel where it serves (:mod:`slt_gym.cuda_ops.dispatch`). Its gradient of
    the features is added up in an order that changes from run to run, so that the last digits do,
    too: under ``torch.use_deterministic_algorithms(True)`` the plain form is taken, whose order is
    fixed. 16-bit features are pooled in float32.

    Args:
        features: Shape ``(B, C, H, W)``.
        rois: Shape ``(R, 5)``: index in the batch, then ``x1, y1, x2, y2`` in pixels of the image.
        offset: Shape ``(R, 2, P, P)``, along x, then along y, in sizes of the region.
        output_size: P.
        spatial_scale: Pixels of the map in one of the image.
        samples: S.
        offset_scale: Factor on ``offset``.

    Returns:
        Shape ``(R, C, P, P)``.
    """
    settings: dict[str, Any] = {
        "output_size": output_size,
        "spatial_scale": spatial_scale,
        "samples": samples,
        "offset_scale": offset_scale,
    }
    if torch.are_deterministic_algorithms_enabled():
        return _pool(features, rois.detach(), offset, **settings)
    return dispatch.run("deform_roi_pool", _pool, features, rois.detach(), offset, **settings)


def _pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: int,
    spatial_scale: float,
    samples: int,
    offset_scale: float,
) -> Tensor:
    """Pool with PyTorch's own calls.

    A bin's samples form a grid, so their bilinear weights are products of weights along y and along
    x: the pooling is one weighted sum of pixels for each bin, whose terms are never stored.
    """
    dtype = features.dtype
    features = features if dtype == torch.float64 else features.float()
    batch, channels, height, width = features.shape
    count, p = len(rois), output_size
    rois = rois.to(features.dtype)
    corner = _round(rois[:, 1:3]) * spatial_scale - 0.5  # (R, 2): x, y
    size = ((_round(rois[:, 3:5]) + 1) * spatial_scale - 0.5 - corner).clamp(min=0.1)
    if offset is None:
        offset = features.new_zeros(count, 2, p, p)
    shift = offset_scale * offset.to(features.dtype) * size[:, :, None, None]
    sides = []
    for axis, length in ((0, width), (1, height)):
        bins = torch.arange(p, device=rois.device).to(rois.dtype)
        bins = bins[None, :] if axis == 0 else bins[:, None]  # columns, or rows
        step = size[:, axis, None, None] / p
        start = bins * step + corner[:, axis, None, None] + shift[:, axis]  # (R, P, P)
        sides.append(_weigh(start, step / samples, samples, length))
    (column, across), (row, down) = sides  # (R, P, P, 2 * S) each
    base = rois[:, 0].long()[:, None, None, None, None] * (height * width)
    index = base + row[..., :, None] * width + column[..., None, :]
    weight = down[..., :, None] * across[..., None, :]
    table = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    terms = (2 * samples) ** 2
    pooled = F.embedding_bag(
        index.reshape(-1, terms), table, per_sample_weights=weight.reshape(-1, terms), mode="sum"
    )
    return pooled.reshape(count, p, p, channels).permute(0, 3, 1, 2).contiguous().to(dtype)


def _round(x: Tensor) -> Tensor:
    """Round half away from zero."""
    return torch.sign(x) * torch.floor(x.abs() + 0.5)


def _weigh(start: Tensor, step: Tensor, samples: int, length: int) -> tuple[Tensor, Tensor]:
    """Return the pixels along one axis that a bin reads, and how much it takes of each.

    Args:
        start: The first sample's coordinate, shape ``(R, P, P)``.
        step: Distance of the samples, shape ``(R, 1, 1)``.
        samples: Their number, S.
        length: Pixels along the axis.

    Returns:
        Indices and weights, each ``(R, P, P, 2 * S)``; the weights sum to 1, or to 0 where all
        samples lie outside.
    """
    at = start[..., None] + step[..., None] * torch.arange(samples, device=start.device)
    kept = ((at >= -0.5) & (at <= length - 0.5)).to(at.dtype)
    at = at.clamp(0, length - 1)
    low, high = at.detach().floor(), at.detach().ceil()
    share = kept / kept.sum(-1, keepdim=True).clamp(min=1)
    upper = at - low
    index = torch.cat([low, high], dim=-1).long()
    return index, torch.cat([(1 - upper) * share, upper * share], dim=-1)
