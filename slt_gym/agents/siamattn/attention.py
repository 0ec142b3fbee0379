"""Deformable siamese attention (Yu et al., "SiamAttn", CVPR 2020, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class FeatureEnhancement(nn.Module):
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
        enhanced: tuple[list[Tensor], list[Tensor]] = ([], [])
        for i, (z, x) in enumerate(zip(templates, searches, strict=True)):
            of_z, of_x = channel_affinity(z), channel_affinity(x)
            cam = self.cam_uses[i]
            for side, other_first, maps in ((z, (of_z, of_x), 0), (x, (of_x, of_z), 1)):
                own, other = other_first
                mixed = self.pams[i](side) + cam(side, own) + cam(side, other)
                enhanced[maps].append(self.deform_convs[i](mixed))
        return enhanced
