"""What a tracker's geometry must answer, and the table of geometries by tracker name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.errors import InvalidArgumentError, unknown
from slt_gym.geometry.window import Window, crop_reduced


class Geometry(ABC):
    """Which windows of a frame a tracker sees, and what its answer means in the frame.

    A geometry holds constants only; a track's state is its box and its padding colour, and both
    are passed in. One geometry therefore serves any number of tracks and threads.

    Attributes:
        template_size: Side of the template crop, pixels.
        search_size: Side of the search crop, pixels.
        shows_template_box: Whether the network needs the target's box in the template, too.
        stays_in_window: Whether crops depend on no row of the frame from ``window.bottom`` on, so
            that frames need to be decoded only down to there.
    """

    template_size: int
    search_size: int
    shows_template_box: bool = False
    stays_in_window: bool = False

    @abstractmethod
    def fill_colour(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the padding colour, RGB uint8 ``(3,)``, that a track starting here keeps."""

    @abstractmethod
    def template_window(self, box: ArrayLike) -> Window:
        """Return the template's window around ``box`` (``(x, y, w, h)``, frame pixels)."""

    def template_box(self, box: ArrayLike) -> NDArray[np.float64]:
        """Return ``box``, frame pixels, in crop units of the template that is cut around it."""
        return self.template_window(box).to_crop(box)

    @abstractmethod
    def search_window(self, box: ArrayLike, frame_size: tuple[int, int]) -> Window:
        """Return the search window around the previous estimate.

        Args:
            box: ``(x, y, w, h)``, frame pixels.
            frame_size: ``(W, H)``, pixels; some trackers keep their window inside the frame.
        """

    @abstractmethod
    def crop(
        self,
        frame: NDArray[np.uint8],
        window: Window,
        size: int,
        fill: NDArray[np.uint8],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Cut ``window`` out of ``frame``: RGB uint8 ``(3, size, size)``, into ``out`` if given.

        With ``stays_in_window``, rows from ``window.bottom`` on may be missing.
        """

    def crop_mask(self, mask: NDArray, window: Window, size: int) -> NDArray[np.bool_]:
        """Cut ``window`` out of the target's mask, aligned with :meth:`crop`.

        Args:
            mask: Shape ``(H, W)``, booleans, or floats from 0 to 1.
            window: The square to cut, frame pixels.
            size: Side of the crop in pixels.

        Returns:
            Booleans, shape ``(size, size)``.

        Raises:
            InvalidArgumentError: The geometry is none of a tracker that learns masks.
        """
        raise InvalidArgumentError(
            f"{type(self).__name__} cuts no masks: accepted are geometries with a crop_mask of "
            "their own, such as siamattn's"
        )

    def crop_reduced(
        self,
        frame: NDArray[np.uint8],
        factor: int,
        window: Window,
        size: int,
        fill: NDArray[np.uint8],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Cut ``window`` out of a frame decoded at 1/``factor`` of its size; else as :meth:`crop`.

        The crop looks like that of the whole frame, but is not the same in every grey level.
        """
        scale = window.side / size
        x, y = (first + (scale - 1) / 2 for first in window.origin)
        return crop_reduced(frame, factor, (x, y), scale, size, fill, out)

    @abstractmethod
    def limit(self, box: ArrayLike, frame_size: tuple[int, int]) -> NDArray[np.float64]:
        """Keep an estimate inside the frame, by the tracker's own rule.

        Args:
            box: ``(x, y, w, h)``, frame pixels.
            frame_size: ``(W, H)``, pixels.
        """


_GEOMETRIES: dict[str, Geometry] = {}


def register_geometry(name: str, geometry: Geometry) -> None:
    """Make ``geometry`` available under a tracker's ``name``, replacing an earlier one."""
    _GEOMETRIES[name] = geometry


def get_geometry(name: str) -> Geometry:
    """Return the geometry of the tracker ``name``.

    Raises:
        InvalidArgumentError: No geometry has that name.
    """
    try:
        return _GEOMETRIES[name]
    except KeyError:
        raise unknown("geometry", name, _GEOMETRIES) from None


def list_geometries() -> list[str]:
    """Return the names that :func:`get_geometry` accepts, sorted."""
    return sorted(_GEOMETRIES)
