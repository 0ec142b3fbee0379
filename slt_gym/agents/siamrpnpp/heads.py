"""Neck and region-proposal heads of SiamRPN++ and SiamAttn (Li et al., section 4.2 and 4.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slt_gym.agents.convolution import ConvBN
from slt_gym.cuda_ops import depthwise_xcorr

TEMPLATE_MAP = 7  # side of the template's maps, cut from their centre
KERNEL = 5  # side of the kernels that are made of them


class Neck(nn.Module):
    """Brings the backbone's maps to one width (keys ``downsample<level>``)."""

    def __init__(self, channels: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.names = []
        for level, width in enumerate(channels, start=2):
            layer = nn.Module()
            layer.downsample = ConvBN(
                nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
            )
            self.names.append(f"downsample{level}")
            self.add_module(self.names[-1], layer)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map ``(B, C_i, H, W)`` of each level to ``(B, C, H, W)``."""
        layers = [getattr(self, name).downsample for name in self.names]
        return [layer(x) for layer, x in zip(layers, maps, strict=True)]


def crop_centre(x: Tensor, side: int = TEMPLATE_MAP) -> Tensor:
    """Cut the central ``side x side`` pixels out of maps ``(B, C, H, W)``."""
    start = (x.shape[-1] - side) // 2
    return x[..., start : start + side, start : start + side]


class DepthwiseCorrelation(nn.Module):
    """Correlates the template's map with the search map and reads the result with 1x1 layers."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()

        def adjust() -> nn.Sequential:
            return ConvBN(
                nn.Conv2d(hidden, hidden, 3, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(True)
            )

        self.conv_kernel = adjust()
        self.conv_search = adjust()
        self.head = ConvBN(
            nn.Conv2d(hidden, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(True),
            nn.Conv2d(hidden, outputs, 1),
        )

    def forward(self, kernel: Tensor, search: Tensor) -> Tensor:
        """Map kernels ``(B, C, 5, 5)`` (``conv_kernel``) and a search map to ``(B, out, g, g)``."""
        return self.head(depthwise_xcorr(self.conv_search(search), kernel))


class RegionProposal(nn.Module):
    """One level's classification and regression."""

    def __init__(self, hidden: int, anchors: int) -> None:
        super().__init__()
        self.cls = DepthwiseCorrelation(hidden, 2 * anchors)
        self.loc = DepthwiseCorrelation(hidden, 4 * anchors)


class RegionProposals(nn.Module):
    """Three levels, averaged with learnt weights (keys ``rpn<level>``)."""

    def __init__(self, hidden: int, anchors: int) -> None:
        super().__init__()
        self.cls_weight = nn.Parameter(torch.ones(3))
        self.loc_weight = nn.Parameter(torch.ones(3))
        for level in (2, 3, 4):
            self.add_module(f"rpn{level}", RegionProposal(hidden, anchors))

    @property
    def levels(self) -> list[RegionProposal]:
        """The levels' heads, in order."""
        return [getattr(self, f"rpn{level}") for level in (2, 3, 4)]

    def kernels(self, templates: list[Tensor]) -> Tensor:
        """Map the template's three maps ``(B, C, 7, 7)`` to kernels ``(B, 6, C, 5, 5)``.

        For each level the kernel of the classification, then that of the regression.
        """
        pairs = zip(self.levels, templates, strict=True)
        return torch.stack(
            [head.conv_kernel(z) for level, z in pairs for head in (level.cls, level.loc)], dim=1
        )

    def forward(self, kernels: Tensor, searches: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute class logits ``(B, 2 * A, g, g)`` and deltas ``(B, 4 * A, g, g)``."""
        cls_weight, loc_weight = self.cls_weight.softmax(0), self.loc_weight.softmax(0)
        cls = loc = torch.zeros((), device=kernels.device)
        for i, (level, x) in enumerate(zip(self.levels, searches, strict=True)):
            cls = cls + cls_weight[i] * level.cls(kernels[:, 2 * i], x)
            loc = loc + loc_weight[i] * level.loc(kernels[:, 2 * i + 1], x)
        return cls, loc
