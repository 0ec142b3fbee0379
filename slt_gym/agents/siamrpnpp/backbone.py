"""The atrous ResNet of SiamRPN++ and SiamAttn (Li et al., CVPR 2019, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.convolution import ConvBN, conv_bn
from slt_gym.agents.recomputation import Blocks
from slt_gym.errors import InvalidArgumentError, unknown

_EXPANSION = 4  # output channels of a bottleneck over its inner channels
_STRIDES = (1, 2, 1, 1)
_DILATIONS = (1, 1, 2, 4)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; a stride of 2 goes without padding."""

    def __init__(self, channels: int, planes: int, stride: int, dilation: int, first: bool) -> None:
        super().__init__()
        width = planes * _EXPANSION
        pointwise = stride == dilation == 1  # layer1's shortcut
        if first and dilation > 1:
            dilation //= 2  # as published
        padding = dilation if dilation > 1 else 2 - stride
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if first:
            self.downsample = ConvBN(
                nn.Conv2d(channels, width, 1, bias=False)
                if pointwise
                else nn.Conv2d(channels, width, 3, stride, padding, dilation, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, 4 * planes, H', W')``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(conv_bn(x, self.conv1, self.bn1), inplace=True)
        x = F.relu(conv_bn(x, self.conv2, self.bn2), inplace=True)
        return F.relu(conv_bn(x, self.conv3, self.bn3).add_(shortcut), inplace=True)


class AtrousResNet(nn.Module):
    """A residual network of stride 8 whose later layers dilate instead of striding.

    Args:
        stem: Output channels of the first convolution.
        planes: Inner channels of the four layers' blocks; a layer gives four times as many.
        blocks: Number of blocks in each layer.
        frozen: Children that neither learn nor update their BatchNorm statistics.

    Raises:
        InvalidArgumentError: There are not four layers, or no such children.
    """

    def __init__(
        self,
        stem: int,
        planes: tuple[int, ...],
        blocks: tuple[int, ...],
        frozen: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if not len(planes) == len(blocks) == len(_STRIDES):
            raise InvalidArgumentError(
                f"the backbone has {len(_STRIDES)} layers, but planes {planes} and blocks {blocks} "
                "are given"
            )
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 0, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for i, (width, count) in enumerate(zip(planes, blocks, strict=True)):
            layer = Blocks()
            for k in range(count):
                stride = _STRIDES[i] if k == 0 else 1
                layer.append(Bottleneck(channels, width, stride, _DILATIONS[i], first=k == 0))
                channels = width * _EXPANSION
            setattr(self, f"layer{i + 1}", layer)
        for name in frozen:
            if name not in dict(self.named_children()):
                raise unknown("part of the backbone", name, dict(self.named_children()))
        self.channels = (stem, *(width * _EXPANSION for width in planes))
        self.frozen = frozen
        for name in frozen:
            getattr(self, name).requires_grad_(False)
        self._initialise()
        # On CPUs, pooling and small convolutions are faster with channels last.
        self.to(memory_format=torch.channels_last)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            self.conv1.weight /= 64  # pixels come as 0 to 255

    def train(self, mode: bool = True) -> AtrousResNet:
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    @staticmethod
    def map_size(size: int) -> int:
        """Return the side of the last three layers' maps of a crop with side ``size``."""
        stem = (size - 7) // 2 + 1
        pooled = (stem - 1) // 2 + 1
        return (pooled - 3) // 2 + 1

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images ``(B, 3, H, W)``, BGR in 0 to 255, to the stem's and the layers' maps."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(conv_bn(x, self.conv1, self.bn1), inplace=True)
        maps = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            maps.append(x)
        return maps
