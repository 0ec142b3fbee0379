"""Precise RoI pooling (Jiang et al., "Acquisition of Localization Confidence", ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from slt_gym.cuda_ops import dispatch
from slt_gym.errors import InvalidArgumentError


def prroi_pool(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Average feature maps over the bins of boxes, exactly.

    A map is taken as the continuous surface that bilinear interpolation spans between its cells,
    zero outside; a bin's value is the integral over the bin divided by its area. Features and box
    coordinates both get exact gradients.

    On a GPU by Triton kernels where they serve (:mod:`slt_gym.cuda_ops.dispatch`), without atomic
    additions: the same input gives the same bits. 16-bit features are pooled in float32.

    Args:
        features: Shape ``(B, C, H, W)``, floating point.
        rois: Either ``(B, N, 4)``, ``N`` boxes of each image, ``(x1, y1, x2, y2)``; or ``(K, 5)``,
            with the number of the image in front. In the image's pixels, without a half-pixel
            shift: cell ``k`` lies at ``k / spatial_scale``.
        output_size: P, bins along each side.
        spatial_scale: Cells for each pixel.

    Returns:
        Shape ``(B, N, C, P, P)`` or ``(K, C, P, P)``, of ``features``' type. A box without a
        positive width and height gives zeros.

    Raises:
        InvalidArgumentError: A shape does not fit.
    """
    if features.dim() != 4 or output_size < 1:
        raise InvalidArgumentError(
            f"features have shape {tuple(features.shape)} and output_size is {output_size}: needed "
            "are (B, C, H, W) and at least 1"
        )
    if rois.dim() == 2 and rois.shape[1] == 5:
        image = rois.detach()[:, 0].long()
        if len(rois) and (image.min() < 0 or image.max() >= len(features)):
            raise InvalidArgumentError(
                f"rois name images {int(image.min())} to {int(image.max())}: there are "
                f"{len(features)}"
            )
    elif rois.dim() != 3 or rois.shape[0] != features.shape[0] or rois.shape[2] != 4:
        raise InvalidArgumentError(
            f"rois have shape {tuple(rois.shape)}: needed is (K, 5) or, for {len(features)} "
            f"images, ({len(features)}, N, 4)"
        )
    settings = {"output_size": output_size, "spatial_scale": spatial_scale}
    return dispatch.run("prroi_pool", _pool, features, rois, **settings)


def _pool(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Pool with PyTorch's own calls.

    The surface is a sum of products of hat functions, so that the integral is two small matrix
    products for each box.
    """
    if features.dtype in (torch.float16, torch.bfloat16):
        return _pool(features.float(), rois, output_size, spatial_scale).to(features.dtype)
    if rois.dim() == 3:
        return _pool_images(features, rois, output_size, spatial_scale)
    image = rois[:, 0].long()
    order = image.argsort(stable=True)
    pooled = [
        _pool_images(features[b : b + 1], rois[None, image == b, 1:], output_size, spatial_scale)[0]
        for b in range(len(features))
    ]
    shape = (0, features.shape[1], output_size, output_size)
    return torch.cat([*pooled, features.new_zeros(shape)])[order.argsort()]


def _pool_images(features: Tensor, boxes: Tensor, bins: int, scale: float) -> Tensor:
    batch, channels, height, width = features.shape
    count = boxes.shape[1]
    corners = boxes * scale
    rows = _bin_weights(corners[..., 1], corners[..., 3], bins, height).to(features.dtype)
    columns = _bin_weights(corners[..., 0], corners[..., 2], bins, width).to(features.dtype)
    # (B, N * P, H) x (B, H, C * W): one product for all the boxes of an image.
    maps = features.permute(0, 2, 1, 3).reshape(batch, height, channels * width)
    strips = rows.flatten(1, 2) @ maps
    strips = strips.view(batch, count, bins, channels, width).transpose(2, 3)  # (B, N, C, P, W)
    return strips @ columns.transpose(2, 3)[:, :, None]  # (B, N, C, P, P)


def _bin_weights(low: Tensor, high: Tensor, bins: int, cells: int) -> Tensor:
    """Compute each cell's share in the mean over each bin.

    Args:
        low: Shape ``(B, N)``, the boxes' first ends, in cells.
        high: Shape ``(B, N)``, their other ends.
        bins: P.
        cells: Length of the axis.

    Returns:
        Shape ``(B, N, P, cells)``.
    """
    size = ((high - low) / bins)[..., None, None]
    valid = size > 0
    safe = torch.where(valid, size, 1.0)
    number = torch.arange(bins, device=low.device, dtype=low.dtype)[:, None]  # (P, 1)
    cell = torch.arange(cells, device=low.device, dtype=low.dtype)
    start = low[..., None, None] + number * safe - cell  # (B, N, P, cells)
    mean = _integrate_hat(start, start + safe) / safe
    return torch.where(valid, mean, 0.0)


def _integrate_hat(low: Tensor, high: Tensor) -> Tensor:
    """Integrate ``max(0, 1 - |t|)`` from ``low`` to ``high``.

    Each half as length times mean height, which loses no digits where the ends are close, as the
    difference of two antiderivatives would.
    """

    def rising(t: Tensor) -> Tensor:
        return torch.where(t < 0, t.clamp(min=-1), 0.0)

    def falling(t: Tensor) -> Tensor:
        return torch.where(t < 0, 0.0, t.clamp(max=1))

    a, b, c, d = rising(low), rising(high), falling(low), falling(high)
    return (b - a) * (1 + (a + b) / 2) + (d - c) * (1 - (c + d) / 2)
