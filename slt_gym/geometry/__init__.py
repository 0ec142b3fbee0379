"""Boxes, overlap, search windows and crops (NumPy and OpenCV only)."""

from slt_gym.geometry.base import Geometry, get_geometry, list_geometries, register_geometry
from slt_gym.geometry.boxes import (
    from_corners,
    from_cxcywh,
    iou,
    is_valid,
    to_corners,
    to_cxcywh,
)
from slt_gym.geometry.siamrpnpp import SiamRPNGeometry
from slt_gym.geometry.transt import TransTGeometry
from slt_gym.geometry.trdimp import TrDiMPGeometry
from slt_gym.geometry.window import Window, crop_mask, crop_window

__all__ = [
    "Geometry",
    "SiamRPNGeometry",
    "TrDiMPGeometry",
    "TransTGeometry",
    "Window",
    "crop_mask",
    "crop_window",
    "from_corners",
    "from_cxcywh",
    "get_geometry",
    "iou",
    "is_valid",
    "list_geometries",
    "register_geometry",
    "to_corners",
    "to_cxcywh",
]
