"""TransT's windows and crops (Chen et al., "Transformer Tracking", CVPR 2021, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.geometry.base import Geometry, register_geometry
from slt_gym.geometry.boxes import keep_inside
from slt_gym.geometry.window import Window, crop_window, mean_colour


@dataclass(frozen=True)
class TransTGeometry(Geometry):
    """Square windows that grow with the box and some context around it.

    Attributes:
        template_size: Side of the template crop, pixels.
        search_size: Side of the search crop, pixels.
        template_context: Context factor of the template window; 1 is the bare box.
        search_context: Context factor of the search window.
        min_size: Smallest width and height of an estimate, frame pixels.
    """

    template_size: int = 128  # TransT
    search_size: int = 256  # TransT
    template_context: float = 2.0  # TransT
    search_context: float = 4.0  # TransT
    min_size: float = 10.0  # TransT

    stays_in_window = True

    def fill_colour(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame's mean colour, cut (not rounded) to uint8, shape ``(3,)``."""
        return mean_colour(frame)

    def template_window(self, box: ArrayLike) -> Window:
        """Return the template's window around ``box``, frame pixels."""
        return _context_window(box, self.template_context)

    def search_window(self, box: ArrayLike, frame_size: tuple[int, int]) -> Window:
        """Return the search window around ``box``, frame pixels, wherever the frame ends."""
        del frame_size
        return _context_window(box, self.search_context)

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

    def limit(self, box: ArrayLike, frame_size: tuple[int, int]) -> NDArray[np.float64]:
        """Keep the centre inside the frame, and each side between ``min_size`` and the frame's.

        Args:
            box: ``(x, y, w, h)``, frame pixels.
            frame_size: ``(W, H)``, pixels.
        """
        return keep_inside(box, frame_size, self.min_size)


def _context_window(box: ArrayLike, factor: float) -> Window:
    x, y, w, h = np.asarray(box, np.float64).tolist()
    context = (factor - 1) * (w + h) / 2
    side = math.ceil(math.sqrt((w + context) * (h + context)))
    return Window(x + w / 2, y + h / 2, max(side, 1))


register_geometry("transt", TransTGeometry())
register_geometry("transt-tiny", TransTGeometry(template_size=48, search_size=96))
