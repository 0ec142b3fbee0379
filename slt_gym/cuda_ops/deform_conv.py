"""Deformable convolution (Dai et al., ICCV 2017), without modulation."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Convolve a map that is read at displaced positions, bilinearly, zero outside.

    On a GPU torchvision's operator, which keeps no columns for the backward pass. On a CPU, where
    that is slow, ``grid_sample`` and a matrix product.

    Args:
        x: Shape ``(B, C, H, W)``.
        offset: Shape ``(B, 2 * kh * kw, H', W')``, pixels: for each tap of the kernel, row by row,
            the vertical displacement, then the horizontal one.
        weight: Shape ``(C', C, kh, kw)``.
        bias: Shape ``(C',)``.
        stride: Of the output's positions.
        padding: Zeros around the map.
        dilation: Distance between the kernel's taps.

    Returns:
        Shape ``(B, C', H', W')``.
    """
    if x.device.type != "cpu":
        return torchvision.ops.deform_conv2d(x, offset, weight, bias, stride, padding, dilation)
    batch, _, height, width = x.shape
    taps, out_height, out_width = offset.shape[1] // 2, *offset.shape[2:]
    tap = torch.arange(taps)
    shift = torch.stack([tap // weight.shape[3], tap % weight.shape[3]]) * dilation - padding
    row, column = stride * torch.arange(out_height)[:, None], stride * torch.arange(out_width)
    moved = offset.reshape(batch, taps, 2, out_height, out_width)
    y = moved[:, :, 0] + (shift[0, :, None, None] + row)
    at = moved[:, :, 1] + (shift[1, :, None, None] + column)
    # What grid_sample means by coordinates: -1 and 1 are the outer edges of the map.
    grid = torch.stack([(2 * at + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.reshape(batch, taps * out_height, out_width, 2)
    columns = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    out = weight.flatten(1) @ columns.reshape(batch, -1, out_height * out_width)
    if bias is not None:
        out = out + bias[:, None]
    return out.reshape(batch, len(weight), out_height, out_width)
