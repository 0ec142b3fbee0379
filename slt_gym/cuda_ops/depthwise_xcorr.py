"""Depth-wise cross-correlation of a search map with a template's map."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def depthwise_xcorr(search: Tensor, kernel: Tensor) -> Tensor:
    """Slide each sample's kernel over its search map, channel by channel, without a flip.

    Computed as one grouped convolution on any device: of the exact forms (the same with channels
    last, an einsum over windows, a sum of shifted products) the fastest on a CPU at the sizes of
    SiamRPN++, forward in any case, with gradients for several tracks (``benchmarks/ops.py``).

    Args:
        search: Shape ``(B, C, H, W)``.
        kernel: Shape ``(B, C, h, w)``.

    Returns:
        Shape ``(B, C, H - h + 1, W - w + 1)``.
    """
    batch, channels = kernel.shape[:2]
    groups = batch * channels
    out = F.conv2d(
        search.reshape(1, groups, *search.shape[2:]),
        kernel.reshape(groups, 1, *kernel.shape[2:]),
        groups=groups,
    )
    return out.reshape(batch, channels, *out.shape[2:])
