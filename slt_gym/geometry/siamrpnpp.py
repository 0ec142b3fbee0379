"""Windows and crops of SiamRPN++ and SiamAttn (Li et al., CVPR 2019; Yu et al., CVPR 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.geometry.base import Geometry, register_geometry
from slt_gym.geometry.boxes import keep_inside, to_cxcywh
from slt_gym.geometry.window import Window, crop_mask, crop_window, mean_colour


@dataclass(frozen=True)
class SiamRPNGeometry(Geometry):
    """Square windows whose pixels are cut with a rounded side, and whose units are not rounded.

    Attributes:
        template_size: Side of the template crop, pixels.
        search_size: Side of the search crop, pixels; both crops show the target at one scale.
        context: Margin of the template window, in mean sides of the target.
        min_size: Smallest width and height of an estimate, frame pixels.
        rounded_corner: Measure crop units from the corner of the rounded window, as SiamAttn does
            when it tracks (not when it is trained).
    """

    template_size: int = 127  # SiamRPN++
    search_size: int = 255  # SiamRPN++
    context: float = 0.5  # SiamRPN++
    min_size: float = 10.0  # SiamRPN++

    stays_in_window = True
    rounded_corner: bool = False

    def fill_colour(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame's mean colour, cut (not rounded) to uint8, shape ``(3,)``."""
        return mean_colour(frame)

    def template_window(self, box: ArrayLike) -> Window:
        """Return the template's window around ``box``, frame pixels."""
        return self._window(box, 1.0)

    def search_window(self, box: ArrayLike, frame_size: tuple[int, int]) -> Window:
        """Return the search window around ``box``, frame pixels, wherever the frame ends."""
        del frame_size
        return self._window(box, self.search_size / self.template_size)

    def _window(self, box: ArrayLike, factor: float) -> Window:
        cx, cy, w, h = to_cxcywh(np.asarray(box, np.float64)).tolist()
        margin = self.context * (w + h)
        unit = max(math.sqrt((w + margin) * (h + margin)) * factor, 1.0)
        side = round(unit)
        return Window(cx, cy, side, unit, side / 2 if self.rounded_corner else None)

    def crop(
        self,
        frame: NDArray[np.uint8],
        window: Window,
        size: int,
        fill: NDArray[np.uint8],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Cut ``window`` out of ``frame``: RGB uint8 ``(3, size, size)``, into ``out`` if given."""
        return crop_window(frame, window, size, fill, out)

    def crop_mask(self, mask: NDArray, window: Window, size: int) -> NDArray[np.bool_]:
        """Cut ``window`` out of a mask ``(H, W)``: booleans ``(size, size)``, as published."""
        return crop_mask(mask, window, size)

    def limit(self, box: ArrayLike, frame_size: tuple[int, int]) -> NDArray[np.float64]:
        """Keep the centre inside the frame, and each side between ``min_size`` and the frame's.

        Args:
            box: ``(x, y, w, h)``, frame pixels.
            frame_size: ``(W, H)``, pixels.
        """
        return keep_inside(box, frame_size, self.min_size)


for _name in ("siamrpnpp", "siamattn"):
    register_geometry(_name, SiamRPNGeometry())
    register_geometry(f"{_name}-tiny", SiamRPNGeometry(template_size=63, search_size=127))
