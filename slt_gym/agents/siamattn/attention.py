"""Deformable siamese attention (Yu et al., "SiamAttn", CVPR 2020, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slt_gym.agents.recomputation import Recomputing
from slt_gym.cuda_ops import deform_conv2d

_REDUCTION = 8  # width over that of queries and keys
_TAPS = 9


class SpatialAttention(nn.Module):
    """Self-attention between the positions of a map, without scaling."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(hidden, hidden // _REDUCTION, 1)
        self.key_conv = nn.Conv2d(hidden, hidden // _REDUCTION, 1)
        self.value_conv = nn.Conv2d(hidden, hidden, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        query, key, value = (
            conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        attention = (query.transpose(1, 2) @ key).softmax(-1)  # (B, N, N)
        return self.gamma * (value @ attention.transpose(1, 2)).view_as(x) + x


def channel_affinity(x: Tensor) -> Tensor:
    """Compute how each channel attends to the others, ``(B, C, C)``: most to the least alike."""
    x = x.flatten(2)
    energy = x @ x.transpose(1, 2)
    return (energy.amax(-1, keepdim=True) - energy).softmax(-1)


class ChannelAttention(nn.Module):
    """Mixes the channels of a map by an affinity, its own or the other branch's."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, affinity: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``, with an affinity ``(B, C, C)``, to the same shape."""
        return self.gamma * (affinity @ x.flatten(2)).view_as(x) + x


class DeformableConvolution(nn.Module):
    """A 3x3 convolution that reads where a second one says."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, hidden, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.conv_offset = nn.Conv2d(hidden, 2 * _TAPS, 3, padding=1)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return deform_conv2d(x, self.conv_offset(x), self.weight, padding=1)


class FeatureEnhancement(Recomputing):
    """Attention within and between template and search region, with shared weights."""

    def __init__(self, hidden: int, levels: int = 3) -> None:
        super().__init__()
        self.pams = nn.ModuleList(SpatialAttention(hidden) for _ in range(levels))
        self.cam_uses = nn.ModuleList(ChannelAttention() for _ in range(levels))
        self.deform_convs = nn.ModuleList(DeformableConvolution(hidden) for _ in range(levels))

    def forward(
        self, templates: list[Tensor], searches: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Enhance the maps of each level, template's ``(B, C, 7, 7)`` and search region's."""
        pairs = [
            self.run(self._enhance, i, z, x)
            for i, (z, x) in enumerate(zip(templates, searches, strict=True))
        ]
        return [z for z, _ in pairs], [x for _, x in pairs]

    def _enhance(self, level: int, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        pam, cam = self.pams[level], self.cam_uses[level]
        of_z, of_x = channel_affinity(z), channel_affinity(x)
        mixed_z = pam(z) + cam(z, of_z) + cam(z, of_x)
        mixed_x = pam(x) + cam(x, of_x) + cam(x, of_z)
        return self.deform_convs[level](mixed_z), self.deform_convs[level](mixed_x)
