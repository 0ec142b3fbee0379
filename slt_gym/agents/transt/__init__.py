"""TransT (Chen et al., "Transformer Tracking", CVPR 2021), published size and laptop size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from slt_gym.agents.registry import override, register_tracker
from slt_gym.agents.transt.network import TRANST_TINY, TransT, TransTConfig
from slt_gym.geometry import TransTGeometry, get_geometry

__all__ = ["TRANST_TINY", "TransT", "TransTConfig", "transt", "transt_tiny"]


@register_tracker("transt")
def transt(**overrides: Any) -> TransT:
    """Build TransT as published: ResNet-50, four fusion layers, 128 and 256 px crops."""
    geometry = cast(TransTGeometry, get_geometry("transt"))
    return TransT(override(TransTConfig(), overrides), geometry)


@register_tracker("transt-tiny", pretrained=Path(__file__).parent / "tiny_base")
def transt_tiny(**overrides: Any) -> TransT:
    """Build TransT of a laptop's size: a small backbone, one fusion layer, 48 and 96 px crops."""
    geometry = cast(TransTGeometry, get_geometry("transt-tiny"))
    return TransT(override(TRANST_TINY, overrides), geometry)
