"""TrDiMP's windows, crops and initial samples (Wang et al., CVPR 2021; DiMP's arithmetic)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry.base import Geometry, register_geometry
from slt_gym.geometry.boxes import from_cxcywh, to_cxcywh
from slt_gym.geometry.window import Window, crop_reduced


@dataclass(frozen=True)
class SteppedWindow(Window):
    """A window whose pixels are read in steps when it is much larger than its crop.

    Attributes:
        step: Every ``step``-th row and column of the frame is read.
        offset: First column and row that are read; crop units do not know of them, as published.
    """

    step: int = 1
    offset: tuple[int, int] = (0, 0)

    @property
    def first(self) -> tuple[int, int]:
        """First column and row, wherever the frame ends."""
        centres = zip((self.cx, self.cy), self.offset, strict=True)
        x, y = (o + self.step * round((c - self.side / 2) / self.step) for c, o in centres)
        return x, y

    @property
    def bottom(self) -> int:
        """The row behind the last one that is read, wherever the frame ends."""
        return self.first[1] + self.side

    def indices(self, frame_size: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the columns and rows to read, the frame's border repeated outside of it."""
        count = self.side // self.step
        found = []
        for centre, offset, length in zip((self.cx, self.cy), self.offset, frame_size, strict=True):
            first = round((centre - self.side / 2) / self.step)
            last = (length - 1 - offset) // self.step
            index = np.clip(np.arange(first, first + count), 0, last)
            found.append(offset + self.step * index)
        return found[0], found[1]


@dataclass(frozen=True)
class TrDiMPGeometry(Geometry):
    """Square windows of a fixed multiple of the target's area, pushed into the frame.

    Attributes:
        template_size: Side of the patch that the initial samples are cut from, pixels.
        search_size: Side of a sample, pixels.
        search_area_scale: Side of a sample's window over the target's mean side.
        max_scale_change: Most by which a window shrinks to fit into the frame.
        outside: How far, in target sizes, a centre may lie outside of the frame.
        min_size: Smallest width and height of an estimate in an environment, frame pixels.
        translation: Shift of the four translated initial samples, in half samples.
        random_shift: Range of the random shift of the others, in samples.
        blurs: Standard deviations (vertical, horizontal) of the blurred initial samples, pixels.
        rotations: Angles of the rotated ones, degrees.
    """

    template_size: int = 704  # TrDiMP: twice a sample
    search_size: int = 352  # TrDiMP
    search_area_scale: float = 6.0  # TrDiMP
    max_scale_change: float = 1.5  # TrDiMP
    outside: float = 0.3  # TrDiMP
    # Differs from TrDiMP, which has no limits of size: an arbitrary action could otherwise let the
    # window collapse.
    min_size: float = 1.0
    translation: float = 0.6  # TrDiMP
    random_shift: float = 1 / 3  # TrDiMP
    blurs: tuple[tuple[float, float], ...] = ((3, 1), (1, 3), (2, 2))  # TrDiMP
    rotations: tuple[float, ...] = (10, -10, 45, -45)  # TrDiMP

    shows_template_box = True
    stays_in_window = True

    def fill_colour(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return black: the border is repeated instead."""
        del frame
        return np.zeros(3, np.uint8)

    def target_scale(self, box: ArrayLike) -> float:
        """Return the frame pixels for each pixel of a sample around ``box``, frame pixels."""
        width, height = np.asarray(box, np.float64)[2:].tolist()
        area = max(width, 0.0) * max(height, 0.0)
        return self.search_area_scale * math.sqrt(area) / self.search_size

    def template_window(self, box: ArrayLike) -> SteppedWindow:
        """Return the window of the patch around ``box``, frame pixels, wherever the frame ends."""
        x, y = (round(v) for v in _position(box))  # half to even, as published
        return _cut(x, y, self.target_scale(box) * self.template_size, self.template_size)

    def template_box(self, box: ArrayLike) -> NDArray[np.float64]:
        """Return ``box``, frame pixels, in crop units of the patch, as the published tracker does.

        It counts from the rounded centre and with the window's side before rounding, up to a pixel
        beside what :meth:`template_window` says.
        """
        x, y, w, h = np.asarray(box, np.float64).tolist()
        side = self.target_scale(box) * self.template_size
        centre = np.array([round(v) + 0.5 for v in _position(box)])
        corner = (np.array([x, y]) - centre) / side + 0.5
        return np.concatenate([corner, np.array([w, h]) / side])

    def search_window(self, box: ArrayLike, frame_size: tuple[int, int]) -> SteppedWindow:
        """Return the search window around ``box``, frame pixels, as far inside as it goes."""
        return self.window_at(_position(box), self.target_scale(box), frame_size)

    def window_at(
        self, position: tuple[float, float], scale: float, frame_size: tuple[int, int]
    ) -> SteppedWindow:
        """Return the search window at a position (mode "inside_major").

        Args:
            position: Column and row of the centre, as a pixel's number: half a pixel less than the
                coordinate.
            scale: Frame pixels for each pixel of the crop.
            frame_size: ``(W, H)``, pixels.
        """
        side = scale * self.search_size
        shrink = min(side / length for length in frame_size)
        side = math.trunc(side / min(max(shrink, 1.0), self.max_scale_change))
        return _cut(*position, side, self.search_size, frame_size)

    def crop(
        self,
        frame: NDArray[np.uint8],
        window: Window,
        size: int,
        fill: NDArray[np.uint8],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Cut ``window`` out of ``frame``: RGB uint8 ``(3, size, size)``, into ``out`` if given.

        The published crop, :func:`crop_float`, rounded to whole grey levels.
        """
        del fill
        crop = np.rint(crop_float(frame, window, size))
        if out is None:
            return crop.astype(np.uint8)
        if out.shape != crop.shape:
            raise InvalidArgumentError(f"out has shape {out.shape}: needed is {crop.shape}")
        out[:] = crop
        return out

    def crop_reduced(
        self,
        frame: NDArray[np.uint8],
        factor: int,
        window: Window,
        size: int,
        fill: NDArray[np.uint8],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Cut ``window`` out of a frame decoded at 1/``factor`` of its size, see :class:`Geometry`.

        The border is repeated, as by :meth:`crop`.
        """
        del fill
        if not isinstance(window, SteppedWindow):
            window = SteppedWindow(window.cx, window.cy, window.side)
        # Where the first of the pixels that are read, every step-th one, lies in the crop.
        inset = window.step * (window.side // window.step / size - 1) / 2
        x, y = (first + inset for first in window.first)
        return crop_reduced(frame, factor, (x, y), window.side / size, size, None, out)

    def limit(self, box: ArrayLike, frame_size: tuple[int, int]) -> NDArray[np.float64]:
        """Keep the size between ``min_size`` and the frame's, and the centre near the frame.

        Args:
            box: ``(x, y, w, h)``, frame pixels.
            frame_size: ``(W, H)``, pixels.
        """
        box_cxcywh = to_cxcywh(np.asarray(box, np.float64))
        # The frame wins over min_size, as for TransT.
        size = np.minimum(np.maximum(box_cxcywh[2:], self.min_size), frame_size)
        position = self.limit_position(box_cxcywh[:2] - 0.5, size, frame_size)
        return from_cxcywh(np.concatenate([position + 0.5, size]))

    def limit_position(
        self, position: ArrayLike, size: ArrayLike, frame_size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Keep a position no further outside of the frame than ``outside`` times the size.

        Args:
            position: Column and row, as for :meth:`window_at`.
            size: Width and height of the target, frame pixels.
            frame_size: ``(W, H)``, pixels.
        """
        reach = self.outside * np.asarray(size, np.float64)
        return np.clip(np.asarray(position, np.float64), -reach, np.array(frame_size) + reach)

    @property
    def num_random_shifts(self) -> int:
        """How many of the initial samples have a random shift."""
        return 1 + len(self.blurs) + len(self.rotations)

    def initial_shifts(self, draws: ArrayLike) -> NDArray[np.int64]:
        """Compute the initial samples' shifts.

        Args:
            draws: Uniform in [0, 1), shape ``(num_random_shifts, 2)``.

        Returns:
            By how much the content moves, pixels of the crop, shape ``(n, 2)``, (down, right): the
            identity, four translations, then the random ones.
        """
        t = math.trunc(self.translation * (self.search_size // 2))
        fixed = [(0, 0), (t, t), (-t, t), (t, -t), (-t, -t)]
        reach = self.search_size * self.random_shift
        random = np.trunc((np.asarray(draws, np.float32) - np.float32(0.5)) * np.float32(reach))
        return np.concatenate([np.array(fixed), random.astype(np.int64).reshape(-1, 2)])

    def initial_samples(
        self, patch: NDArray[np.float32], shifts: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Augment the first frame's patch.

        Args:
            patch: RGB, float32, shape ``(3, Z, Z)``, grey levels or normalised.
            shifts: Of :meth:`initial_shifts`, shape ``(n, 2)``.

        Returns:
            Float32, shape ``(n, 3, S, S)``: the identity, four translations, the mirror image,
            blurred and rotated copies.
        """
        image = np.ascontiguousarray(patch.transpose(1, 2, 0), np.float32)
        images = [image] * 5 + [image[:, ::-1]]
        images += [_blur(image, *sigmas) for sigmas in self.blurs]
        images += [_rotate(image, angle) for angle in self.rotations]
        size = self.search_size
        samples = np.empty((len(images), 3, size, size), np.float32)
        for sample, augmented, shift in zip(samples, images, shifts, strict=True):
            top, left = (self.template_size - size) // 2 - shift
            sample[:] = augmented[top : top + size, left : left + size].transpose(2, 0, 1)
        return samples


def crop_float(frame: NDArray[np.uint8], window: Window, size: int) -> NDArray[np.float32]:
    """Cut a window out of a frame as the published tracker does.

    Args:
        frame: RGB uint8, shape ``(H, W, 3)``; its border is repeated outside of it.
        window: The square to cut.
        size: Side of the crop in pixels.

    Returns:
        Grey levels, float32, channels first, shape ``(3, size, size)``, bilinear.
    """
    if not isinstance(window, SteppedWindow):
        window = SteppedWindow(window.cx, window.cy, window.side)
    columns, rows = window.indices((frame.shape[1], frame.shape[0]))
    patch = frame[rows[:, None], columns].astype(np.float32)
    if len(rows) != size:
        patch = np.asarray(cv2.resize(patch, (size, size)), np.float32)  # half-pixel centres
    return np.ascontiguousarray(patch.transpose(2, 0, 1))


def _position(box: ArrayLike) -> tuple[float, float]:
    x, y, w, h = np.asarray(box, np.float64).tolist()
    return x + (w - 1) / 2, y + (h - 1) / 2


def _cut(
    x: float, y: float, side: float, size: int, frame_size: tuple[int, int] | None = None
) -> SteppedWindow:
    """Place a window of about ``side``, inside the frame where one is given."""
    step = max(math.trunc(side / size - 0.1), 1)
    count = max(round(side / step), 2)
    centres, offsets = [], []
    for axis, position in enumerate((x, y)):
        centre = math.trunc(position)
        offset = centre % step
        centre //= step
        low = centre - (count - 1) // 2
        high = centre + count // 2 + 1
        if frame_size is not None:
            length = len(range(offset, frame_size[axis], step))
            shift = max(-low, 0) - max(high - length, 0)
            low, high = low + shift, high + shift
            outside = (max(-low, 0) + max(high - length, 0)) // 2
            if outside > 0:  # larger than the frame: centred on it
                low, high = -outside, high - low - outside
        centres.append(step * (low + high) / 2)
        offsets.append(offset)
    return SteppedWindow(
        centres[0], centres[1], step * count, step=step, offset=(offsets[0], offsets[1])
    )


def _blur(image: NDArray[np.float32], vertical: float, horizontal: float) -> NDArray[np.float32]:
    def kernel(sigma: float) -> NDArray[np.float32]:
        reach = math.ceil(2 * sigma)
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        return (weights / weights.sum()).astype(np.float32)

    blurred = cv2.sepFilter2D(
        image, -1, kernel(horizontal), kernel(vertical), borderType=cv2.BORDER_CONSTANT
    )
    return np.asarray(blurred, np.float32)


def _rotate(image: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    angle = math.radians(degrees)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = (np.array(image.shape[:2]) - 1) / 2
    matrix = np.concatenate([rotation, (centre - rotation @ centre)[:, None]], axis=1)
    size = image.shape[1], image.shape[0]
    rotated = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(rotated, np.float32)


register_geometry("trdimp", TrDiMPGeometry())
register_geometry(
    "trdimp-tiny",
    TrDiMPGeometry(
        template_size=192,
        search_size=96,
        search_area_scale=4.0,
        blurs=((2, 2),),
        rotations=(),
    ),
)
