"""Convolution and BatchNorm in one pass, with the gradients of both."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(x: Tensor, conv: nn.Module, bn: nn.Module) -> Tensor:
    """Compute ``bn(conv(x))``.

    With fixed statistics BatchNorm only scales and shifts channels. Where that is cheaper it is
    done to the kernel instead of the map, in each call anew, so that gradients reach all
    parameters as they would, and no map between the two is kept for the backward pass. The same
    up to rounding. Modules with forward hooks run as they are.

    Args:
        x: Shape ``(B, C, H, W)``.
        conv: An ``nn.Conv2d`` that pads with zeros.
        bn: An ``nn.BatchNorm2d``; in training mode it is applied as it is.

    Returns:
        Shape ``(B, C', H', W')``.
    """
    conv, bn = cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, bn)
    mean, variance = bn.running_mean, bn.running_var
    stride = conv.stride[0] * conv.stride[1]
    # For a batch of about eight; one rule for all sizes, so that rounding does not depend on them.
    pixels, weights = 8 * x.shape[2] * x.shape[3] // stride, conv.weight[0].numel()
    watched = any((m._forward_hooks or m._forward_pre_hooks) for m in (conv, bn))
    if bn.training or mean is None or variance is None or pixels < weights or watched:
        return bn(conv(x))
    scale = bn.weight * (variance + bn.eps).rsqrt()
    shift = bn.bias - mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvBN(nn.Sequential):
    """A convolution, its BatchNorm, and other layers after them."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the last layer's output."""
        conv, bn, *others = self
        x = conv_bn(x, conv, bn)
        for layer in others:
            x = layer(x)
        return x
