"""SiamRPN++ (Li et al., CVPR 2019), published size and laptop size."""

from __future__ import annotations

from typing import Any, cast

from slt_gym.agents.registry import override, register_tracker
from slt_gym.agents.siamrpnpp.network import (
    SIAMRPNPP_TINY,
    AnchorProposals,
    SiamRPNpp,
    SiamRPNppConfig,
)
from slt_gym.geometry import SiamRPNGeometry, get_geometry

__all__ = [
    "SIAMRPNPP_TINY",
    "AnchorProposals",
    "SiamRPNpp",
    "SiamRPNppConfig",
    "siamrpnpp",
    "siamrpnpp_tiny",
]


@register_tracker("siamrpnpp")
def siamrpnpp(**overrides: Any) -> SiamRPNpp:
    """Build SiamRPN++ as published: atrous ResNet-50, 127 and 255 px crops, 3125 anchors."""
    geometry = cast(SiamRPNGeometry, get_geometry("siamrpnpp"))
    return SiamRPNpp(override(SiamRPNppConfig(), overrides), geometry)


@register_tracker("siamrpnpp-tiny")
def siamrpnpp_tiny(**overrides: Any) -> SiamRPNpp:
    """Build SiamRPN++ of a laptop's size: a small backbone, 63 and 127 px crops, 405 anchors."""
    geometry = cast(SiamRPNGeometry, get_geometry("siamrpnpp-tiny"))
    return SiamRPNpp(override(SIAMRPNPP_TINY, overrides), geometry)
