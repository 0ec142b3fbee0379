"""A pack, read as the dataset that was packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.jpeg import ReducedFrame
from slt_gym.data.pack.environments import ShardFile, read_value
from slt_gym.data.pack.manifest import Manifest, read_index, read_manifest
from slt_gym.data.pack.records import (
    Record,
    decode_record,
    frame_key,
    is_whole,
    sequence_key,
    unseal,
)
from slt_gym.data.sequence import Sequence, SequenceDataset, decode_frame, decode_part
from slt_gym.errors import AnnotationError, InvalidArgumentError


class PackedSequence(Sequence):
    """A sequence whose frames lie in a shard of a pack.

    Threads may read at the same time, and so may processes that it was forked or pickled into.
    """

    def __init__(self, record: Record, shard: ShardFile) -> None:
        super().__init__(record.name, record.boxes, record.visible, record.attributes, record.notes)
        self._frames = record.frames
        self._shard = shard

    def read(self, t: int) -> NDArray[np.uint8]:
        """Read and decode frame ``t``: RGB uint8, shape ``(H, W, 3)``."""
        key, what = frame_key(self._frames[t]), self._describe(t)
        return read_value(self._shard, key, lambda value: decode_frame(unseal(value), what))

    def read_reduced(self, t: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``t`` smaller, or its upper part, if it is a JPEG, else whole."""
        key, what = frame_key(self._frames[t]), self._describe(t)

        def decode(value: memoryview) -> ReducedFrame:
            return decode_part(unseal(value), what, factor, rows)

        return read_value(self._shard, key, decode)

    def read_encoded(self, t: int) -> bytes:
        """Return the content of the file that frame ``t`` was.

        Raises:
            FrameError: The shard is missing or damaged.
        """
        key = frame_key(self._frames[t])
        return read_value(self._shard, key, lambda value: bytes(unseal(value)))

    def _describe(self, t: int) -> str:
        return f"frame {t} of {self.name!r}, in {self._shard.path}"


class PackDataset(SequenceDataset):
    """One split of a pack, sequence for sequence what the packed dataset gave.

    Args:
        root: The pack's folder.
        name: The dataset's name.
        split: One of the packed splits.
        options: The dataset's options, as far as they differ from the defaults.

    Raises:
        InvalidArgumentError: The pack holds another dataset, not that split, or was made with other
            options.
        SltGymError: The pack is damaged.
    """

    def __init__(self, root: Path, name: str, split: str, options: dict[str, Any]) -> None:
        manifest = read_manifest(root)
        _check_request(root, manifest, name, split, options)
        index = read_index(root, manifest)[split]
        super().__init__(name, split, index["names"])
        self.root = root
        folder = root.resolve()  # Workers may run in another folder.
        self._shards = [ShardFile(folder / s.file, s.bytes, s.crc32) for s in manifest.shards]
        self._places = np.array([index["shards"], index["records"]], np.uint32)

    def _load(self, index: int) -> Sequence:
        number, record = self._places[:, index]
        shard = self._shards[number]

        def decode(value: memoryview) -> Record:
            if not is_whole(value):
                raise AnnotationError(
                    f"{shard.path} is damaged: the annotations of {self.names[index]!r} are not "
                    "what was packed"
                )
            return decode_record(unseal(value))

        return PackedSequence(read_value(shard, sequence_key(record), decode), shard)


def _check_request(
    root: Path, manifest: Manifest, name: str, split: str, options: dict[str, Any]
) -> None:
    held = f"it holds {manifest.describe()}"
    if name != manifest.dataset:
        raise InvalidArgumentError(f"the pack {root} is not one of {name}: {held}")
    if split not in manifest.splits:
        raise InvalidArgumentError(f"the pack {root} has no split {split!r}: {held}")
    if options != manifest.options:
        raise InvalidArgumentError(
            f"the pack {root} was not made with options {options}: {held}; pass the same options, "
            "or pack again with these"
        )
