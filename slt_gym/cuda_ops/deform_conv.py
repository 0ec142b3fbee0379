"""Deformable convolution (Dai et al., ICCV 2017), without modulation."""

from __future__ import annotations

import torchvision
from torch import Tensor


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

    Torchvision's operator: compiled, on CPUs and GPUs.

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
    return torchvision.ops.deform_conv2d(x, offset, weight, bias, stride, padding, dilation)
