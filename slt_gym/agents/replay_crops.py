"""Cropping observations again, by threads, with a cache of the crops."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.agents.replay_log import Shown
from slt_gym.data import Clip, SequenceDataset
from slt_gym.envs.episode import EpisodeRules, Observation, write_boxes
from slt_gym.envs.frames import ClipFrames
from slt_gym.envs.references import unpack_transform
from slt_gym.geometry import Window

Pixels = NDArray[np.uint8]


class Template(NamedTuple):
    """What the observations of a clip share.

    Attributes:
        crop: RGB uint8, shape ``(3, Z, Z)``.
        fill: The padding colour, RGB uint8, shape ``(3,)``.
        box: The target in the template's frame, ``(x, y, w, h)``, shape ``(4,)``.
    """

    crop: Pixels
    fill: Pixels
    box: NDArray[np.float64]


class CropCache:
    """Crops in memory, up to a number of bytes.

    Templates, which many observations share, take the place of search crops, and the place of the
    templates used least recently. Search crops take free space only: where all are equally likely
    to be asked for, replacing one by another gains nothing.

    Args:
        capacity: In bytes.

    Attributes:
        used: Bytes of the crops that are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._templates: OrderedDict[Hashable, Template] = OrderedDict()
        self._searches: dict[Hashable, Pixels] = {}
        self.used = 0

    def get_template(self, key: Hashable) -> Template | None:
        """Return a template, if it is there."""
        if key in self._templates:
            self._templates.move_to_end(key)
        return self._templates.get(key)

    def put_template(self, key: Hashable, template: Template) -> None:
        """Keep a template; where there is no place for it even alone, do nothing."""
        size = template.crop.nbytes
        if size > self.capacity or key in self._templates:
            return
        while self.used + size > self.capacity:
            if self._searches:
                self.drop_search(next(iter(self._searches)))
            else:
                self.used -= self._templates.popitem(last=False)[1].crop.nbytes
        self._templates[key] = template
        self.used += size

    def get_search(self, key: Hashable) -> Pixels | None:
        """Return a search crop, if it is there."""
        return self._searches.get(key)

    def put_search(self, key: Hashable, crop: Pixels) -> None:
        """Keep a copy of a search crop if there is place."""
        if self.used + crop.nbytes <= self.capacity and key not in self._searches:
            self._searches[key] = crop.copy()
            self.used += crop.nbytes

    def drop_search(self, key: Hashable) -> None:
        """Forget a search crop, if it is there."""
        crop = self._searches.pop(key, None)
        self.used -= 0 if crop is None else crop.nbytes


class Recropper:
    """Write logged observations anew from the dataset's frames.

    Args:
        sequences: Where the frames come from.
        rules: Taken over.
        cache: Where crops are looked for and put.
        threads: Threads that decode and crop.

    Attributes:
        rules: What the environment shows.
    """

    def __init__(
        self, sequences: SequenceDataset, rules: EpisodeRules, cache: CropCache, threads: int
    ) -> None:
        self._sequences = sequences
        self.rules = rules
        self._cache = cache
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="slt_gym-replay")

    def keep_template(self, shown: Shown, crop: Pixels, fill: tuple[int, int, int]) -> None:
        """Put a template into the cache that is there already."""
        key = _template_key(shown)
        if self._cache.capacity and self._cache.get_template(key) is None:
            box = self._make_clip(shown).template_box
            template = Template(crop.copy(), np.array(fill, np.uint8), box)
            self._cache.put_template(key, template)

    def write(self, shown: Sequence[Shown], out: Sequence[Observation]) -> None:
        """Write observations, each to arrays by the observation's keys.

        Raises:
            FrameError: A frame cannot be read.
            InvalidArgumentError: The dataset has no such sequence.
        """
        templates = self._find_templates(shown)
        # Frames that several observations show are decoded once.
        missing: dict[Hashable, list[tuple[Shown, Observation]]] = {}
        for one, arrays in zip(shown, out, strict=True):
            crop = self._cache.get_search(one.place)
            if crop is None:
                frame = (one.sequence, one.view.frame, one.view.transform)
                missing.setdefault(frame, []).append((one, arrays))
            else:
                self._write_rest(one, templates[_template_key(one)], arrays)
                arrays["search"][:] = crop

        def crop_frame(group: list[tuple[Shown, Observation]]) -> None:
            clip, rules = self._make_clip(group[0][0]), self.rules
            windows = [
                self._write_rest(one, templates[_template_key(one)], arrays)
                for one, arrays in group
            ]
            parts = [rules.part(window) for window in windows]
            needed: dict[int, int] = {}
            for factor, rows in parts:
                needed[factor] = max(rows, needed.get(factor, 0))
            frames = {factor: clip.read_reduced(0, factor, rows) for factor, rows in needed.items()}
            for (one, arrays), window, (factor, _) in zip(group, windows, parts, strict=True):
                fill = templates[_template_key(one)].fill
                rules.crop_search(frames[factor], window, fill, arrays["search"])

        for _ in self._pool.map(crop_frame, missing.values()):
            pass
        for group in missing.values():
            for one, arrays in group:
                self._cache.put_search(one.place, arrays["search"])

    def _find_templates(self, shown: Sequence[Shown]) -> dict[Hashable, Template]:
        found: dict[Hashable, Any] = {}
        missing: dict[Hashable, Shown] = {}
        for one in shown:
            key = _template_key(one)
            if key not in found:
                found[key] = self._cache.get_template(key)
                if found[key] is None:
                    missing[key] = one
        made = self._pool.map(self._make_template, missing.values())
        for key, template in zip(missing, made, strict=True):
            found[key] = template
            self._cache.put_template(key, template)
        return found

    def _make_template(self, shown: Shown) -> Template:
        clip = self._make_clip(shown)
        frames = ClipFrames(clip, self.rules.geometry)
        return Template(frames.template, frames.fill, clip.template_box)

    def _make_clip(self, shown: Shown) -> Clip:
        """Return a clip of the one frame that is shown."""
        return Clip(
            self._sequences.get(shown.sequence),
            np.array([shown.view.frame]),
            shown.template,
            transforms=(unpack_transform(shown.view.transform),),
            template_transform=unpack_transform(shown.template_transform),
        )

    def _write_rest(self, shown: Shown, template: Template, out: Observation) -> Window:
        """Write all but the search crop; return the search window."""
        box = np.array(shown.view.box)
        window = self.rules.geometry.search_window(box, shown.view.size)
        write_boxes(out, self.rules, box, window, template.box)
        out["template"][:] = template.crop
        return window


def _template_key(shown: Shown) -> Hashable:
    return shown.sequence, shown.template, shown.template_transform
