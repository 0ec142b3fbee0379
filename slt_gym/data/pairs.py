"""Template and search crops of single pairs of frames, for frame-level training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data.sampling import draw_index, sample_pair
from slt_gym.data.sequence import Sequence, SequenceDataset
from slt_gym.data.transform import blur_cross, draw_blur, draw_colour, shift_colour
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError
from slt_gym.geometry import Geometry, Window, from_cxcywh, to_cxcywh


@dataclass(frozen=True)
class PairConfig:
    """How pairs are drawn and disturbed; the defaults are TransT's frame-level training.

    Attributes:
        max_gap: Most frames between template and search frame.
        centre_jitter: The search window's centre moves by up to half of this, in target sizes.
        scale_jitter: Standard deviation of the log size that the search window is cut for.
        flip_probability: Share of pairs that are mirrored.
        grey_probability: Share of pairs that lose their colour.
        brightness_jitter: Largest relative change of brightness, drawn for each crop.
        samples_per_pair: Search crops, with jitter of their own, that are cut from one pair of
            frames in each direction (either frame serves as template once).
        pairs_per_sequence: Pairs of frames drawn from a sequence while it is at hand.
        negative_probability: Share of negative pairs, whose search frame is another sequence's.
        template_shift: The template's window moves by up to this share of its side, each way.
        template_scale: Its side changes by up to this share.
        search_shift: As ``template_shift``, of the search window.
        search_scale: As ``template_scale``, of the search window.
        colour_probability: Share of crops with a shift of the colours.
        blur_probability: Share of search crops with a blur.
        search_flip_probability: Share of search crops that are mirrored, the template is not.
    """

    max_gap: int = 100  # TransT
    centre_jitter: float = 3.0  # TransT
    scale_jitter: float = 0.25  # TransT
    flip_probability: float = 0.5  # TransT
    grey_probability: float = 0.05  # TransT
    brightness_jitter: float = 0.2  # TransT
    # Differs from TransT (1, one direction, 1): decoding a frame costs more than a crop.
    samples_per_pair: int = 2
    pairs_per_sequence: int = 1
    # TransT does none of these.
    negative_probability: float = 0.0
    template_shift: float = 0.0
    template_scale: float = 0.0
    search_shift: float = 0.0
    search_scale: float = 0.0
    colour_probability: float = 0.0
    blur_probability: float = 0.0
    search_flip_probability: float = 0.0


# Differs from PySOT, where width and height are scaled apart: windows are square.
SIAMRPNPP_PAIRS = PairConfig(
    centre_jitter=0.0,
    scale_jitter=0.0,
    flip_probability=0.0,
    grey_probability=0.0,
    brightness_jitter=0.0,
    negative_probability=0.2,  # PySOT
    template_shift=4 / 127,  # PySOT
    template_scale=0.05,  # PySOT
    search_shift=64 / 255,  # PySOT
    search_scale=0.18,  # PySOT
    colour_probability=1.0,  # PySOT
    blur_probability=0.2,  # PySOT
)
SIAMATTN_PAIRS = replace(
    SIAMRPNPP_PAIRS,
    colour_probability=0.5,  # SiamAttn
    search_flip_probability=0.2,  # SiamAttn
)

Crop: TypeAlias = NDArray[np.uint8]
Box: TypeAlias = NDArray[np.float64]


@dataclass
class PairBatch:
    """Crops for one step of frame-level training.

    Attributes:
        template: RGB uint8, shape ``(B, 3, Z, Z)``.
        search: RGB uint8, shape ``(B, 3, S, S)``.
        gt_box: Float32, shape ``(B, 4)``, ``(x, y, w, h)`` in crop units of ``search``;
            zeros in negative pairs.
        negative: Which pairs are negative, booleans, shape ``(B,)``.
        other_box: As ``gt_box``, of the other target that a negative pair's search crop shows;
            zeros in the other pairs.
        template_box: Float32, shape ``(B, 4)``, ``(x, y, w, h)`` in crop units of ``template``
            before its ``template_shift`` and ``template_scale``.
        mask: The target's pixels in ``search``, booleans, shape ``(B, S, S)``; False where they
            are not known. None if masks were not asked for.
        has_mask: Where they are known, booleans, shape ``(B,)``; not in negative pairs.
    """

    template: NDArray[np.uint8]
    search: NDArray[np.uint8]
    gt_box: NDArray[np.float32]
    negative: NDArray[np.bool_]
    other_box: NDArray[np.float32]
    template_box: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None
    has_mask: NDArray[np.bool_] | None = None


class _Shown(NamedTuple):
    """One frame of a pair: its pixels, the target's box and mask, if that is known and wanted."""

    frame: NDArray[np.uint8]
    box: Box
    mask: NDArray[np.bool_] | None = None


class _Sample(NamedTuple):
    """One row of a batch."""

    template: Crop
    template_box: Box
    search: Crop
    gt_box: Box
    mask: NDArray[np.bool_] | None


class PairSampler:
    """Draws batches of pairs, each from a generator of its own.

    Batch ``i`` is a function of the dataset, the config, the seed and ``i`` alone, however many
    threads work on it.

    Args:
        dataset: Where the pairs come from.
        geometry: The tracker's windows.
        batch_size: Samples in a batch.
        seed: Of the draws.
        config: How pairs are drawn.
        threads: Threads that decode and crop; batches wait in a queue twice as long.
        masks: Read the targets' masks, too; the pairs are the same.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        geometry: Geometry,
        batch_size: int,
        seed: int,
        config: PairConfig | None = None,
        threads: int = 2,
        masks: bool = False,
    ) -> None:
        self.dataset = dataset
        self.geometry = geometry
        self.batch_size = batch_size
        self.seed = seed
        self.config = config or PairConfig()
        self.threads = threads
        self.masks = masks
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size is {batch_size}: it must be at least 1")
        if dataset.split == "test":
            raise InvalidArgumentError(
                f"the pairs are to train on, and {dataset!r} is a test split: open it with "
                "split='train' and train_on_test=True to train on it anyway"
            )
        if self.config.negative_probability and len(dataset) < 2:
            raise InvalidArgumentError(
                f"negative_probability is {self.config.negative_probability}, and {dataset!r} has "
                "no second sequence to take negative pairs from"
            )

    def __iter__(self) -> Generator[PairBatch]:
        """Go through batches 0, 1, 2, … without end, drawn ahead by the threads."""
        pool = ThreadPoolExecutor(self.threads, "pairs")
        ahead: deque[Future[PairBatch]] = deque()
        try:
            for index in count():
                ahead.append(pool.submit(self.batch, index))
                if len(ahead) > 2 * self.threads:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, index: int) -> PairBatch:
        """Draw batch ``index``."""
        rng = np.random.default_rng([self.seed, index])
        geometry = self.geometry
        template = np.empty(
            (self.batch_size, 3, geometry.template_size, geometry.template_size), np.uint8
        )
        search = np.empty(
            (self.batch_size, 3, geometry.search_size, geometry.search_size), np.uint8
        )
        box = np.empty((self.batch_size, 4), np.float32)
        template_box = np.empty_like(box)
        negative = np.empty(self.batch_size, np.bool_)
        mask = np.zeros((self.batch_size, *search.shape[2:]), np.bool_)
        has_mask = np.zeros(self.batch_size, np.bool_)
        samples = self._samples(rng)
        for row in range(self.batch_size):
            sample, negative[row] = next(samples)
            template[row], template_box[row], search[row], box[row], known = sample
            if known is not None:
                mask[row], has_mask[row] = known, True
        gt_box, other_box = box * ~negative[:, None], box * negative[:, None]
        batch = PairBatch(template, search, gt_box, negative, other_box, template_box)
        return replace(batch, mask=mask, has_mask=has_mask) if self.masks else batch

    def _samples(self, rng: np.random.Generator) -> Iterator[tuple[_Sample, bool]]:
        while True:
            sequence = self._sequence(rng)
            for _ in range(self.config.pairs_per_sequence):
                first, second = sample_pair(sequence, rng, self.config.max_gap)
                frames = {t: _show(sequence, t, self.masks) for t in (first, second)}
                for t, s in ((first, second), (second, first)):
                    for _ in range(self.config.samples_per_pair):
                        search = frames[s]
                        negative = self._chance(rng, self.config.negative_probability)
                        if negative:
                            search = self._draw_other(rng, sequence)
                        yield self._sample(rng, frames[t], search), negative

    def _sequence(self, rng: np.random.Generator) -> Sequence:
        for _ in range(1000):
            sequence = self.dataset[draw_index(self.dataset, rng)]
            # A still is a pair of itself.
            if np.count_nonzero(sequence.visible) >= min(2, len(sequence)) > 0:
                return sequence
        raise DatasetNotFoundError(
            f"1000 sequences drawn from {self.dataset!r} have fewer than two frames with a target"
        )

    def _draw_other(self, rng: np.random.Generator, sequence: Sequence) -> _Shown:
        """Draw a frame and its box from another sequence."""
        for _ in range(1000):
            other = self._sequence(rng)
            if other.name != sequence.name:
                t, _ = sample_pair(other, rng)
                return _show(other, t, with_mask=False)
        raise DatasetNotFoundError(
            f"1000 draws from {self.dataset!r} gave no sequence beside {sequence.name!r}, which "
            "negative pairs need"
        )

    def _sample(self, rng: np.random.Generator, first: _Shown, second: _Shown) -> _Sample:
        config, geometry = self.config, self.geometry
        template_frame, template_box, _ = first
        search_frame, search_box, whole_mask = second
        template = geometry.crop(
            template_frame,
            self._move(
                rng,
                geometry.template_window(template_box),
                config.template_shift,
                config.template_scale,
            ),
            geometry.template_size,
            geometry.fill_colour(template_frame),
        )
        window = geometry.search_window(
            self._jitter(rng, search_box), (search_frame.shape[1], search_frame.shape[0])
        )
        window = self._move(rng, window, config.search_shift, config.search_scale)
        search = geometry.crop(
            search_frame, window, geometry.search_size, geometry.fill_colour(search_frame)
        )
        mask = None
        if whole_mask is not None:
            mask = geometry.crop_mask(whole_mask, window, geometry.search_size)
        shown_box, gt_box = geometry.template_box(template_box), window.to_crop(search_box)
        if rng.random() < config.flip_probability:
            template, search, mask = template[:, :, ::-1], search[:, :, ::-1], _mirror(mask)
            for box in (shown_box, gt_box):
                box[0] = 1 - box[0] - box[2]
        if rng.random() < config.grey_probability:
            template, search = _grey(template), _grey(search)
        template, search = self._brighten(rng, template), self._brighten(rng, search)
        template, search = self._recolour(rng, template), self._recolour(rng, search)
        if self._chance(rng, config.blur_probability):
            search = _on_pixels(search, lambda pixels: blur_cross(pixels, *draw_blur(rng)))
        if self._chance(rng, config.search_flip_probability):
            search, mask = search[:, :, ::-1], _mirror(mask)
            gt_box[0] = 1 - gt_box[0] - gt_box[2]
        return _Sample(template, shown_box, search, gt_box, mask)

    def _jitter(self, rng: np.random.Generator, box: NDArray[np.float64]) -> NDArray[np.float64]:
        centre, size = to_cxcywh(box)[:2], box[2:]
        size = size * np.exp(rng.standard_normal(2) * self.config.scale_jitter)
        reach = np.sqrt(size.prod()) * self.config.centre_jitter
        centre = centre + reach * (rng.random(2) - 0.5)
        return from_cxcywh(np.concatenate([centre, size]))

    def _chance(self, rng: np.random.Generator, probability: float) -> bool:
        # Nothing is drawn for what never happens, so that its absence changes no other draw.
        return probability > 0 and bool(rng.random() < probability)

    def _move(self, rng: np.random.Generator, window: Window, shift: float, scale: float) -> Window:
        """Change a window's place and side, as PySOT does with its crops."""
        if not shift and not scale:
            return window
        factor = 1 + scale * rng.uniform(-1, 1)
        dx, dy = shift * window.side * rng.uniform(-1, 1, 2)
        side = max(1, round(window.side * factor))
        factor = side / window.side
        unit = None if window.unit is None else window.unit * factor
        reach = None if window.reach is None else window.reach * factor
        return Window(window.cx + dx, window.cy + dy, side, unit, reach)

    def _recolour(self, rng: np.random.Generator, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self._chance(rng, self.config.colour_probability):
            return crop
        colour = draw_colour(rng)
        return _on_pixels(crop, lambda pixels: shift_colour(pixels, colour))

    def _brighten(self, rng: np.random.Generator, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        reach = self.config.brightness_jitter
        if not reach:
            return crop
        factor = rng.uniform(max(0.0, 1 - reach), 1 + reach)
        flat = np.ascontiguousarray(crop).reshape(-1)
        return np.asarray(cv2.convertScaleAbs(flat, alpha=factor), np.uint8).reshape(crop.shape)


def _show(sequence: Sequence, t: int, with_mask: bool) -> _Shown:
    mask = sequence.read_mask(t) if with_mask else None
    return _Shown(sequence.read(t), sequence.boxes[t], mask)


def _mirror(mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    return None if mask is None else mask[:, ::-1]


def _on_pixels(
    crop: NDArray[np.uint8], change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Apply a function of images ``(S, S, 3)`` to a crop ``(3, S, S)``."""
    return change(np.ascontiguousarray(crop.transpose(1, 2, 0))).transpose(2, 0, 1)


def _grey(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), crop, axes=1)  # ITU-R BT.601
    return np.broadcast_to(luma.round().astype(np.uint8), crop.shape)
