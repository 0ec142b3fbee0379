"""Fusion, refinement and mask of SiamAttn (Yu et al., CVPR 2020, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.convolution import conv_bn
from slt_gym.agents.siamrpnpp.heads import DepthwiseCorrelation
from slt_gym.cuda_ops import deform_roi_pool

MASK_UPSAMPLING = 4


class ConvolutionUnit(nn.Module):
    """Convolution, BatchNorm and ReLU (the published key ``BN256``)."""

    def __init__(self, channels: int, hidden: int, size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, hidden, size, padding=size // 2, bias=False)
        self.BN256 = nn.BatchNorm2d(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, hidden, H, W)``."""
        return F.relu(conv_bn(x, self.conv, self.BN256), inplace=True)


class FeatureFusion(nn.Module):
    """Fuses the levels into one map for boxes and one, finer, for masks."""

    def __init__(self, channels: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        laterals = (*channels, hidden, hidden, hidden)
        self.lateral_convs = nn.ModuleList(ConvolutionUnit(width, hidden) for width in laterals)
        self.xcorr = nn.ModuleList(DepthwiseCorrelation(hidden, hidden) for _ in range(3))
        self.convs = nn.ModuleList(ConvolutionUnit(hidden, hidden) for _ in range(3))

    def forward(self, templates: list[Tensor], searches: list[Tensor]) -> Tensor:
        """Fuse the correlations of the three enhanced levels into the box map ``(B, C, g, g)``."""
        fused = torch.zeros((), device=searches[0].device)
        correlations = cast(Iterable[DepthwiseCorrelation], self.xcorr)
        for unit, xcorr, z, x in zip(self.convs, correlations, templates, searches, strict=True):
            fused = fused + unit(xcorr(xcorr.conv_kernel(z), x))
        return fused

    def fuse_mask(self, maps: list[Tensor]) -> Tensor:
        """Fuse stem, first layer and enhanced levels into the mask map, as large as the layer's."""
        size = maps[1].shape[-2:]
        fused = self.lateral_convs[1](maps[1])
        for i in (0, 2, 3, 4):
            resized = F.interpolate(maps[i], size, mode="bilinear", align_corners=True)
            fused = fused + self.lateral_convs[i](resized)
        return fused


class DeformableRoIPool(nn.Module):
    """Pools a region twice: evenly, and with the offsets that the first pooling asks for."""

    def __init__(self, hidden: int, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.offset_fc = nn.Sequential(
            nn.Linear(hidden * size * size, width),
            nn.ReLU(True),
            nn.Linear(width, width),
            nn.ReLU(True),
            nn.Linear(width, 2 * size * size),
        )
        nn.init.zeros_(self.offset_fc[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.offset_fc[-1].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, rois: Tensor, scale: float) -> Tensor:
        """Pool ``(B, C, H, W)`` in regions ``(R, 5)`` of the crop into ``(R, C, P, P)``."""

        def pool(offset: Tensor | None) -> Tensor:
            return deform_roi_pool(
                features, rois, offset, output_size=self.size, spatial_scale=scale
            )

        offset = self.offset_fc(pool(None).flatten(1))
        return pool(offset.reshape(-1, 2, self.size, self.size))


class RefineHead(nn.Module):
    """Predicts what a region lacks to be the target's box."""

    def __init__(self, hidden: int, size: int, offset_width: int, width: int) -> None:
        super().__init__()
        self.roi_pool_b = DeformableRoIPool(hidden, size, offset_width)
        self.tail_det = nn.Sequential(
            nn.Linear(hidden * size * size, width),
            nn.ReLU(True),
            nn.Linear(width, width),
            nn.ReLU(True),
        )
        self.tail_det_box = nn.Linear(width, 4)

    def forward(self, features: Tensor, rois: Tensor, scale: float) -> Tensor:
        """Map regions ``(R, 5)`` to normalised deltas ``(R, 4)``."""
        pooled = self.roi_pool_b(features, rois, scale)
        return self.tail_det_box(self.tail_det(pooled.flatten(1)))


class MaskHead(nn.Module):
    """Predicts the target's mask in a region."""

    def __init__(self, hidden: int, size: int, offset_width: int) -> None:
        super().__init__()
        self.roi_pool_m = DeformableRoIPool(hidden, size, offset_width)
        self.convs = nn.ModuleList(ConvolutionUnit(hidden, hidden, 3) for _ in range(4))
        self.upsample = nn.ConvTranspose2d(hidden, hidden, MASK_UPSAMPLING, MASK_UPSAMPLING)
        self.conv_logits = nn.Conv2d(hidden, 1, 1)

    def forward(self, features: Tensor, rois: Tensor, scale: float) -> Tensor:
        """Map regions ``(R, 5)`` to log-odds ``(R, 1, 4 * P, 4 * P)``."""
        x = self.roi_pool_m(features, rois, scale)
        for unit in self.convs:
            x = unit(x)
        return self.conv_logits(F.relu(self.upsample(x), inplace=True))
