"""TrDiMP's backbone: a residual network whose last two used layers both go on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.convolution import conv_bn
from slt_gym.agents.resnet import ResNet


class Backbone(ResNet):
    """ResNet up to layer 3.

    Args:
        stem: Output channels of the first convolution.
        planes: Inner channels of each layer's blocks. A fourth layer, and the classifier after it,
            are kept for published checkpoints, which carry them, and never run.
        blocks: Number of blocks in each layer.
        strides: Stride of each layer's first block.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        stem: int,
        planes: tuple[int, ...],
        blocks: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None:
        super().__init__(stem, planes, blocks, strides, (1,) * len(planes))
        self._frozen: list[nn.Module] = []
        if len(planes) == 4:
            self.fc = nn.Linear(self.channels, 1000)

    def freeze(self, layers: int) -> None:
        """Freeze the stem and the first layers (nothing for 0), and what never runs.

        Frozen parts keep their BatchNorm statistics in training, too.
        """
        frozen: list[nn.Module] = [self.conv1, self.bn1] if layers else []
        frozen += [getattr(self, f"layer{i}") for i in range(1, layers + 1)]
        if self.num_layers == 4:
            frozen += [self.layer4, self.fc]
        for module in frozen:
            module.requires_grad_(False)
        self._frozen = frozen

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map images ``(B, 3, S, S)`` to the features of layers 2 and 3."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(conv_bn(x, self.conv1, self.bn1), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        layer2 = self.layer2(self.layer1(x))
        return layer2, self.layer3(layer2)
