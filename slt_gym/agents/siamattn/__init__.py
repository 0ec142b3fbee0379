"""SiamAttn (Yu et al., CVPR 2020), published size and laptop size."""

from __future__ import annotations

from typing import Any, cast

from slt_gym.agents.registry import override, register_tracker
from slt_gym.agents.siamattn.network import (
    SIAMATTN_TINY,
    RefinableProposals,
    SiamAttn,
    SiamAttnConfig,
)
from slt_gym.agents.siamattn.tracker import SiamAttnTracker
from slt_gym.geometry import SiamRPNGeometry, get_geometry

__all__ = [
    "SIAMATTN_TINY",
    "RefinableProposals",
    "SiamAttn",
    "SiamAttnConfig",
    "SiamAttnTracker",
    "siamattn",
    "siamattn_tiny",
]


@register_tracker("siamattn", tracker=SiamAttnTracker)
def siamattn(**overrides: Any) -> SiamAttn:
    """Build SiamAttn as published: atrous ResNet-50, 127 and 255 px crops, 3125 anchors."""
    geometry = cast(SiamRPNGeometry, get_geometry("siamattn"))
    return SiamAttn(override(SiamAttnConfig(), overrides), geometry)


@register_tracker("siamattn-tiny", tracker=SiamAttnTracker)
def siamattn_tiny(**overrides: Any) -> SiamAttn:
    """Build SiamAttn of a laptop's size: a small backbone, 63 and 127 px crops, 405 anchors."""
    geometry = cast(SiamRPNGeometry, get_geometry("siamattn-tiny"))
    return SiamAttn(override(SIAMATTN_TINY, overrides), geometry)
