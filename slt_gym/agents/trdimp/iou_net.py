"""The network that predicts boxes' overlap with the target (ATOM: Danelljan et al., CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.convolution import ConvBN
from slt_gym.cuda_ops import prroi_pool


def _conv(inputs: int, outputs: int, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    return ConvBN(
        nn.Conv2d(inputs, outputs, kernel, padding=padding),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Linear(nn.Module):
    """A linear layer over whole pooled maps, normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map ``(B, N, C, P, P)`` to ``(B, N, outputs)``."""
        batch, count = pooled.shape[:2]
        return F.relu(self.bn(self.linear(pooled.flatten(0, 1).flatten(1)))).view(batch, count, -1)


class IoUNet(nn.Module):
    """Overlap prediction, modulated by the template's target.

    Boxes are ``(x, y, w, h)`` in pixels of the sample.

    Args:
        inputs: Channels of the backbone's layers 2 and 3.
        width: Inner channels.
        strides: Pixels from cell to cell of the two layers.
    """

    def __init__(self, inputs: tuple[int, int], width: int, strides: tuple[int, int]) -> None:
        super().__init__()
        self.scales = tuple(1 / stride for stride in strides)
        self.conv3_1r = _conv(inputs[0], width // 2)
        self.conv3_1t = _conv(inputs[0], width)
        self.conv3_2t = _conv(width, width)
        self.fc3_1r = _conv(width // 2, width, padding=0)
        self.conv4_1r = _conv(inputs[1], width)
        self.conv4_1t = _conv(inputs[1], width)
        self.conv4_2t = _conv(width, width)
        self.fc34_3r = _conv(2 * width, width, kernel=1, padding=0)
        self.fc34_4r = _conv(2 * width, width, kernel=1, padding=0)
        self.fc3_rt = _Linear(width * 5 * 5, width)
        self.fc4_rt = _Linear(width * 3 * 3, width)
        self.iou_predictor = nn.Linear(2 * width, 1)

    def modulate(self, layer2: Tensor, layer3: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the modulation vectors of templates.

        Args:
            layer2: Features of the templates, shape ``(B, C2, H2, W2)``.
            layer3: Shape ``(B, C3, H3, W3)``.
            box: Shape ``(B, 4)``, the targets.

        Returns:
            Two tensors ``(B, width, 1, 1)``, one for each layer.
        """
        corners = _to_corners(box[:, None])
        pooled3 = prroi_pool(self.conv3_1r(layer2), corners, 3, self.scales[0])[:, 0]
        pooled4 = prroi_pool(self.conv4_1r(layer3), corners, 1, self.scales[1])[:, 0]
        both = torch.cat([self.fc3_1r(pooled3), pooled4], dim=1)
        return self.fc34_3r(both), self.fc34_4r(both)

    def features(self, layer2: Tensor, layer3: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what boxes are pooled from, shapes ``(B, width, H2, W2)`` and ``…3``."""
        return self.conv3_2t(self.conv3_1t(layer2)), self.conv4_2t(self.conv4_1t(layer3))

    def forward(self, features: tuple[Tensor, Tensor], box: Tensor) -> Tensor:
        """Predict overlaps.

        Args:
            features: Of :meth:`features`, times the modulation vectors.
            box: Shape ``(B, N, 4)``.

        Returns:
            Shape ``(B, N)``, without an activation.
        """
        corners = _to_corners(box)
        pooled3 = prroi_pool(features[0], corners, 5, self.scales[0])
        pooled4 = prroi_pool(features[1], corners, 3, self.scales[1])
        both = torch.cat([self.fc3_rt(pooled3), self.fc4_rt(pooled4)], dim=-1)
        return self.iou_predictor(both).squeeze(-1)


def _to_corners(box: Tensor) -> Tensor:
    return torch.cat([box[..., :2], box[..., :2] + box[..., 2:]], dim=-1)
