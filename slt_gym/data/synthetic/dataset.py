"""Synthetic sequences and the dataset of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.sequence import Sequence, SequenceDataset
from slt_gym.data.synthetic.config import SyntheticConfig, check_number
from slt_gym.data.synthetic.render import (
    Textures,
    draw_textures,
    render,
    render_target_mask,
)
from slt_gym.data.synthetic.scene import MIN_VISIBLE_FRACTION, write_scene
from slt_gym.errors import FrameError, unknown

# Each split has seeds of its own, and its default number of sequences.
_SPLITS = {"train": (0, 10_000), "val": (1, 250), "test": (2, 250)}
_SCRIPT, _PIXELS = 0, 1
# Textures kept by one dataset, in bytes (about 1 MB a sequence at 320x240) and at least in number;
# others are drawn again when they are needed.
_KEPT_BYTES = 96 * 2**20
_KEPT_SEQUENCES = 8


class TextureCache:
    """Textures of the sequences read last; safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, Textures] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Textures | None:
        """Return the textures kept under ``name``, if any."""
        with self._lock:
            textures = self._kept.get(name)
            if textures is not None:
                self._kept.move_to_end(name)
            return textures

    def put(self, name: str, textures: Textures) -> None:
        """Keep ``textures``, and drop those that were used least recently."""
        with self._lock:
            self._kept[name] = textures
            self._kept.move_to_end(name)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)


class SyntheticSequence(Sequence):
    """A procedural video, drawn frame by frame as it is read.

    Its boxes are exact: the extent of the target's silhouette, also where it is hidden or outside
    the frame. ``visible`` is False where less than 15% of the silhouette can be seen. Masks are of
    the pixels that can be seen.

    Frames may be read in any order and from several threads; each is a function of the seed, the
    split, the index and the config alone. Textures are drawn at the first read.

    Attributes:
        config: The knobs.
        scene: Where everything is in every frame.
        attributes: ``occlusion``, fraction of the target covered by other objects, and ``hidden``,
            fraction covered or outside the frame; float64, shape ``(T,)``.
    """

    def __init__(
        self,
        split: str,
        index: int,
        seed: int = 0,
        config: SyntheticConfig | None = None,
        cache: TextureCache | None = None,
    ) -> None:
        self.config = config or SyntheticConfig()
        self._key = (split, index, seed)
        self._cache = cache or TextureCache(1)
        self.scene = write_scene(self._generator(_SCRIPT), self.config)
        super().__init__(
            f"{split}-{index:06d}",
            self.scene.boxes,
            self.scene.hidden <= 1.0 - MIN_VISIBLE_FRACTION,
            {"occlusion": self.scene.occlusion, "hidden": self.scene.hidden},
        )

    def _generator(self, purpose: int) -> np.random.Generator:
        split, index, seed = self._key
        key = (_SPLITS[split][0], index, purpose)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the recipe instead of the pixels."""
        return SyntheticSequence, (*self._key, self.config)

    def read(self, t: int) -> NDArray[np.uint8]:
        """Draw frame ``t``: RGB uint8, shape ``(height, width, 3)``."""
        t = self._check(t)
        textures = self._cache.get(self.name)
        if textures is None:
            # Two threads may both draw them: they draw the same.
            textures = draw_textures(self._generator(_PIXELS), self.scene, self.config)
            self._cache.put(self.name, textures)
        return render(self.scene, textures, self.config, t)

    def read_mask(self, t: int) -> NDArray[np.bool_]:
        """Return which pixels of frame ``t`` the target makes at least half of."""
        return render_target_mask(self.scene, self.config, self._check(t))

    def _check(self, t: int) -> int:
        if not -len(self) <= t < len(self):
            raise FrameError(f"{self.name!r} has no frame {t}: it has {len(self)} frames")
        return t % len(self)


class SyntheticDataset(SequenceDataset):
    """Procedural videos: nothing to download, as many as wanted, the same on every machine.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``; no two of them share a sequence.
        seed: Chooses another collection of sequences; 0 or above.
        num_sequences: How many; by default 10,000 for training, 250 for the others. A smaller
            collection is the beginning of a larger one.
        **options: Fields of :class:`SyntheticConfig`, such as ``num_frames`` or ``speed``.

    Raises:
        InvalidArgumentError: An option is unknown, or a value is not accepted.

    Attributes:
        seed: As given.
        config: The knobs.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        seed: int = 0,
        num_sequences: int | None = None,
        **options: Any,
    ) -> None:
        if split not in _SPLITS:
            raise unknown("split of synthetic video", split, _SPLITS)
        check_number("seed", seed, 0, 2**63 - 1, whole=True)
        if num_sequences is None:
            num_sequences = _SPLITS[split][1]
        check_number("num_sequences", num_sequences, 1, 1_000_000, whole=True)
        self.seed = seed
        self.config = SyntheticConfig.from_options(options)
        self._options = options
        # The background, with its margins and four channels, is most of it.
        size = 10 * self.config.width * self.config.height
        self._cache = TextureCache(max(_KEPT_BYTES // size, _KEPT_SEQUENCES))
        super().__init__("synthetic", split, [f"{split}-{i:06d}" for i in range(num_sequences)])

    def _load(self, index: int) -> SyntheticSequence:
        """Write the script of sequence ``index``."""
        return SyntheticSequence(self.split, index, self.seed, self.config, self._cache)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the recipe instead of the caches."""
        return _rebuild, (self.split, self.seed, len(self), self._options)


def _rebuild(split: str, seed: int, num_sequences: int, options: dict[str, Any]) -> Any:
    return SyntheticDataset(split, seed=seed, num_sequences=num_sequences, **options)
