"""Which clip an environment's next episode runs over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from slt_gym.data import (
    AugmentationConfig,
    Clip,
    SequenceDataset,
    augment_clip,
    draw_clip,
    whole_clip,
)
from slt_gym.data.sampling import draw_index
from slt_gym.envs.arguments import check_count
from slt_gym.errors import AnnotationError, InvalidArgumentError, unknown

# What ``reset(options=...)`` accepts.
OPTIONS = ("sequence", "start", "stride")


class ClipSource:
    """Draw training clips at random, or walk a shard of the sequences in order.

    Attributes:
        dataset: Where the sequences come from; its split ``"train"`` is drawn from, others walked.
        num_frames: Length of a clip; None is whole sequences.
        sampler: The rule that training clips are drawn by.
        augmentation: How drawn clips are changed, chosen and walked ones are not; None not at all.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        num_frames: int | None,
        shard: int = 0,
        shards: int = 1,
        sampler: str = "pytracking",
        augmentation: AugmentationConfig | None = None,
    ) -> None:
        self.dataset = dataset
        self.num_frames = num_frames
        self.sampler = sampler
        self.augmentation = augmentation
        # More shards than sequences: the surplus ones go round once more.
        self._shard = range(shard % len(dataset), len(dataset), shards)
        self._position = 0

    def restart(self) -> None:
        """Walk from the shard's first sequence again."""
        self._position = 0

    def next(self, rng: np.random.Generator) -> Clip:
        """Return the next episode's clip.

        Args:
            rng: Source of the training clips; a walk leaves it alone.

        Raises:
            AnnotationError: The sequence has no two usable frames.
        """
        if self.dataset.split == "train":
            if self.num_frames is not None:
                return draw_clip(
                    self.dataset,
                    rng,
                    self.num_frames,
                    sampler=self.sampler,
                    augmentation=self.augmentation,
                )
            clip = self._whole(draw_index(self.dataset, rng))
            return augment_clip(clip, rng, self.augmentation) if self.augmentation else clip
        index = self._shard[self._position % len(self._shard)]
        self._position += 1
        return self._whole(index)

    def choose(self, options: Mapping[str, Any]) -> Clip:
        """Return the clip that the options of ``reset`` ask for.

        Args:
            options: ``sequence`` (a name), and optionally ``start`` (a frame number; default: the
                first visible frame) and ``stride`` (default 1).

        Raises:
            InvalidArgumentError: An option is unknown, or there is no such clip.
        """
        for key in options:
            if key not in OPTIONS:
                raise unknown("option of reset", key, OPTIONS)
        if "sequence" not in options:
            given = ", ".join(sorted(map(repr, options)))
            raise InvalidArgumentError(
                f"option {given} of reset says which frames of a sequence to take: needed is "
                "'sequence', the name of one, too"
            )
        sequence = self.dataset.get(options["sequence"])
        stride = check_count("option 'stride' of reset", options.get("stride", 1), least=1)
        start = options.get("start")
        if start is not None:
            start = check_count("option 'start' of reset", start, least=0)
            visible = np.flatnonzero(sequence.visible)
            if start + stride >= len(sequence) or not sequence.visible[start]:
                first = f", the first at {visible[0]}" if len(visible) else ""
                raise InvalidArgumentError(
                    f"option 'start'={start} of reset does not start a clip of {sequence.name!r}, "
                    f"which has {len(sequence)} frames: accepted are frames where the target is "
                    f"visible{first} and that another frame follows at stride {stride}"
                )
        return whole_clip(sequence, num_frames=self.num_frames, start=start, stride=stride)

    def _whole(self, index: int) -> Clip:
        sequence = self.dataset[index]
        visible = np.flatnonzero(sequence.visible)
        if not len(visible) or visible[0] + 1 >= len(sequence):
            raise AnnotationError(
                f"sequence {sequence.name!r} of {self.dataset.name} {self.dataset.split} has fewer "
                "than 2 usable frames: needed is one where the target is visible, and another "
                "frame after it"
            )
        return whole_clip(sequence, num_frames=self.num_frames, start=None)
