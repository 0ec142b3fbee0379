"""TrDiMP (Wang et al., "Transformer Meets Tracker", CVPR 2021), published size and laptop size."""

from __future__ import annotations

from typing import Any, cast

from slt_gym.agents.registry import override, register_tracker
from slt_gym.agents.trdimp.config import TRDIMP_TINY, TrDiMPConfig
from slt_gym.agents.trdimp.network import TrDiMP
from slt_gym.agents.trdimp.tracker import TrDiMPTracker
from slt_gym.geometry import TrDiMPGeometry, get_geometry

__all__ = ["TRDIMP_TINY", "TrDiMP", "TrDiMPConfig", "TrDiMPTracker", "trdimp", "trdimp_tiny"]


@register_tracker("trdimp", tracker=TrDiMPTracker)
def trdimp(**overrides: Any) -> TrDiMP:
    """Build TrDiMP as published: ResNet-50, 352 px samples, 23 x 23 scores."""
    geometry = cast(TrDiMPGeometry, get_geometry("trdimp"))
    return TrDiMP(override(TrDiMPConfig(), overrides), geometry)


@register_tracker("trdimp-tiny", tracker=TrDiMPTracker)
def trdimp_tiny(**overrides: Any) -> TrDiMP:
    """Build TrDiMP of a laptop's size: a small backbone, 96 px samples, 13 x 13 scores."""
    geometry = cast(TrDiMPGeometry, get_geometry("trdimp-tiny"))
    return TrDiMP(override(TRDIMP_TINY, overrides), geometry)
