"""Template and search crops of single pairs of frames, for frame-level training."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data.sampling import sample_pair
from slt_gym.data.sequence import Sequence, SequenceDataset
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError
from slt_gym.geometry import Geometry, from_cxcywh, to_cxcywh


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


@dataclass
class PairBatch:
    """Crops for one step of frame-level training.

    Attributes:
        template: RGB uint8, shape ``(B, 3, Z, Z)``.
        search: RGB uint8, shape ``(B, 3, S, S)``.
        gt_box: Float32, shape ``(B, 4)``, ``(x, y, w, h)`` in crop units of ``search``.
    """

    template: NDArray[np.uint8]
    search: NDArray[np.uint8]
    gt_box: NDArray[np.float32]


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
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        geometry: Geometry,
        batch_size: int,
        seed: int,
        config: PairConfig | None = None,
        threads: int = 2,
    ) -> None:
        self.dataset = dataset
        self.geometry = geometry
        self.batch_size = batch_size
        self.seed = seed
        self.config = config or PairConfig()
        self.threads = threads
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size is {batch_size}: it must be at least 1")

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
        gt_box = np.empty((self.batch_size, 4), np.float32)
        samples = self._samples(rng)
        for row in range(self.batch_size):
            template[row], search[row], gt_box[row] = next(samples)
        return PairBatch(template, search, gt_box)

    def _samples(
        self, rng: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]]:
        while True:
            sequence = self._sequence(rng)
            for _ in range(self.config.pairs_per_sequence):
                first, second = sample_pair(sequence, rng, self.config.max_gap)
                frames = {t: sequence.read(t) for t in (first, second)}
                for t, s in ((first, second), (second, first)):
                    for _ in range(self.config.samples_per_pair):
                        yield self._sample(
                            rng, frames[t], sequence.boxes[t], frames[s], sequence.boxes[s]
                        )

    def _sequence(self, rng: np.random.Generator) -> Sequence:
        for _ in range(1000):
            sequence = self.dataset[int(rng.integers(len(self.dataset)))]
            if np.count_nonzero(sequence.visible) >= 2:
                return sequence
        raise DatasetNotFoundError(
            f"1000 sequences drawn from {self.dataset!r} have fewer than two frames with a target"
        )

    def _sample(
        self,
        rng: np.random.Generator,
        template_frame: NDArray[np.uint8],
        template_box: NDArray[np.float64],
        search_frame: NDArray[np.uint8],
        search_box: NDArray[np.float64],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
        config, geometry = self.config, self.geometry
        template = geometry.crop(
            template_frame,
            geometry.template_window(template_box),
            geometry.template_size,
            geometry.fill_colour(template_frame),
        )
        window = geometry.search_window(
            self._jitter(rng, search_box), (search_frame.shape[1], search_frame.shape[0])
        )
        search = geometry.crop(
            search_frame, window, geometry.search_size, geometry.fill_colour(search_frame)
        )
        gt_box = window.to_crop(search_box)
        if rng.random() < config.flip_probability:
            template, search = template[:, :, ::-1], search[:, :, ::-1]
            gt_box[0] = 1 - gt_box[0] - gt_box[2]
        if rng.random() < config.grey_probability:
            template, search = _grey(template), _grey(search)
        template, search = self._brighten(rng, template), self._brighten(rng, search)
        return template, search, gt_box

    def _jitter(self, rng: np.random.Generator, box: NDArray[np.float64]) -> NDArray[np.float64]:
        centre, size = to_cxcywh(box)[:2], box[2:]
        size = size * np.exp(rng.standard_normal(2) * self.config.scale_jitter)
        reach = np.sqrt(size.prod()) * self.config.centre_jitter
        centre = centre + reach * (rng.random(2) - 0.5)
        return from_cxcywh(np.concatenate([centre, size]))

    def _brighten(self, rng: np.random.Generator, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        reach = self.config.brightness_jitter
        if not reach:
            return crop
        factor = rng.uniform(max(0.0, 1 - reach), 1 + reach)
        flat = np.ascontiguousarray(crop).reshape(-1)
        return np.asarray(cv2.convertScaleAbs(flat, alpha=factor), np.uint8).reshape(crop.shape)


def _grey(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), crop, axes=1)  # ITU-R BT.601
    return np.broadcast_to(luma.round().astype(np.uint8), crop.shape)
