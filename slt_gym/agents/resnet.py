"""Residual backbone with bottleneck blocks (He et al., CVPR 2016), cut as trackers do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.convolution import ConvBN, conv_bn
from slt_gym.agents.recomputation import Blocks

_EXPANSION = 4  # output channels of a bottleneck over its inner channels


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; the stride sits on the 3x3 one."""

    def __init__(self, channels: int, planes: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        width = planes * _EXPANSION
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = (
            ConvBN(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if stride != 1 or channels != width
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, 4 * planes, H / stride, W / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(conv_bn(x, self.conv1, self.bn1), inplace=True)
        x = F.relu(conv_bn(x, self.conv2, self.bn2), inplace=True)
        return F.relu(conv_bn(x, self.conv3, self.bn3).add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """A residual network up to its last listed layer, without pooling and classifier.

    Args:
        stem: Output channels of the first convolution.
        planes: Inner channels of each layer's blocks; a layer gives four times as many.
        blocks: Number of blocks in each layer.
        strides: Stride of each layer's first block.
        dilations: Dilation of each layer's first block; the later blocks have none.
    """

    def __init__(
        self,
        stem: int,
        planes: tuple[int, ...],
        blocks: tuple[int, ...],
        strides: tuple[int, ...],
        dilations: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for i, (width, count, stride, dilation) in enumerate(
            zip(planes, blocks, strides, dilations, strict=True), start=1
        ):
            first = Bottleneck(channels, width, stride, dilation)
            channels = width * _EXPANSION
            layer = Blocks(first, *(Bottleneck(channels, width) for _ in range(count - 1)))
            setattr(self, f"layer{i}", layer)
        self.num_layers = len(planes)
        self.channels = channels
        self._initialise()
        # On CPUs, pooling and small convolutions are faster with channels last.
        self.to(memory_format=torch.channels_last)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, 3, H, W)`` to the last layer's features."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(conv_bn(x, self.conv1, self.bn1), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        for i in range(1, self.num_layers + 1):
            x = getattr(self, f"layer{i}")(x)
        return x
