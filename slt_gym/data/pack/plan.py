"""What goes into a pack, and which sequence into which of its shards."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slt_gym.data.pack.manifest import changed_options, is_pack
from slt_gym.data.pack.records import encode_record
from slt_gym.data.registry import is_on_disk, open_dataset
from slt_gym.data.sequence import ImageSequence, SequenceDataset
from slt_gym.errors import DatasetNotFoundError, FrameError, InvalidArgumentError

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A dataset that is to be packed.

    Attributes:
        dataset: Its name.
        root: Its folder.
        options: Its options as JSON values, as far as they differ from the defaults.
        splits: Its splits, opened.
    """

    dataset: str
    root: Path
    options: dict[str, Any]
    splits: dict[str, SequenceDataset]


@dataclass(frozen=True, slots=True)  # COCO has 850,000 of them.
class Entry:
    """A sequence's place in its split, and its number of frames."""

    split: str
    index: int
    frames: int


@dataclass
class ShardPlan:
    """The sequences of a shard, in order.

    Attributes:
        entries: The sequences.
        fingerprint: A number that differs when a shard would get other content.
    """

    entries: list[Entry] = field(default_factory=list)
    fingerprint: int = 0

    @property
    def frames(self) -> int:
        """The number of frames, those that sequences share counted for each."""
        return sum(entry.frames for entry in self.entries)


@dataclass(frozen=True)
class Plan:
    """A source, divided into shards of about ``shard_bytes``."""

    source: Source
    shard_bytes: int
    shards: list[ShardPlan]


def open_source(
    name: str,
    root: str | Path,
    splits: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Open the splits of a dataset that is to be packed.

    Args:
        name: The dataset's name.
        root: Its folder.
        splits: The splits; none stands for those of train, val and test that can be opened.
        options: The dataset's options, JSON values.

    Raises:
        InvalidArgumentError: The dataset, a split or an option is unknown, or the dataset is not
            one that can be packed.
        DatasetNotFoundError: The folder does not hold the dataset, or not the split.
    """
    options, folder = dict(options or {}), Path(root).expanduser().resolve()
    for option in ("name", "root", "split", "train_on_test"):
        if option in options:
            raise InvalidArgumentError(f"a pack's dataset takes no option {option!r}")
    if "+" in name:
        raise InvalidArgumentError(f"{name!r} is a mixture: pack each dataset by itself")
    if not is_on_disk(name):
        raise InvalidArgumentError(
            f"{name} cannot be packed: a pack holds copies of image files, and it has none"
        )
    if is_pack(folder):
        raise InvalidArgumentError(f"{folder} is a pack already: expected is the dataset's folder")
    wanted = list(dict.fromkeys(splits))
    opened: dict[str, SequenceDataset] = {}
    first: Exception | None = None
    for split in wanted or _SPLITS:
        try:
            opened[split] = open_dataset(name, folder, split, **options)
        except (DatasetNotFoundError, InvalidArgumentError) as error:
            if wanted:
                raise
            first = first or error
    if not opened:
        raise first or InvalidArgumentError(f"no split of {name} is given")
    dataset = next(iter(opened.values()))
    return Source(dataset.name, folder, changed_options(type(dataset), options), opened)


def make_plan(
    source: Source, shard_bytes: int, progress: Callable[[int], object] = lambda count: None
) -> Plan:
    """Divide a dataset into shards; the same files give the same plan.

    Sequences keep their order, except that those of the same video stay together, so that a frame
    which several sequences or splits share is stored once.

    Args:
        source: The dataset.
        shard_bytes: The size of a shard, about: sizes are estimated from a few frames of each
            sequence, and a video is not divided.
        progress: Called with the number of sequences that were looked at.

    Raises:
        InvalidArgumentError: The sequences are not made of image files.
        FrameError: A frame is missing.
        AnnotationError: An annotation file is garbled.
    """
    videos: dict[str, _Video] = {}
    for split, dataset in source.splits.items():
        for index in range(len(dataset)):
            sequence = load_images(dataset, index)
            videos.setdefault(_find_video(sequence), _Video()).add(split, index, sequence)
            progress(1)
    shards: list[ShardPlan] = []
    room = 0
    for video in videos.values():
        size = sum(video.sizes.values())
        if not shards or size > room:
            shards.append(ShardPlan())
            room = shard_bytes
        shard = shards[-1]
        shard.entries += video.entries
        shard.fingerprint = zlib.crc32(b"%d" % video.fingerprint, shard.fingerprint)
        room -= size
    return Plan(source, shard_bytes, shards)


def load_images(dataset: SequenceDataset, index: int) -> ImageSequence:
    """Return a sequence of a dataset that can be packed.

    Raises:
        InvalidArgumentError: It is not made of image files.
    """
    sequence = dataset[index]
    if not isinstance(sequence, ImageSequence):
        raise InvalidArgumentError(
            f"{dataset.name} cannot be packed: a pack holds copies of image files, and sequence "
            f"{sequence.name!r} is not made of them"
        )
    return sequence


@dataclass
class _Video:
    """The sequences that may share frames.

    Attributes:
        entries: The sequences.
        sizes: Estimated bytes by first frame, last frame and number of frames.
        fingerprint: A number that differs when the content does.
    """

    entries: list[Entry] = field(default_factory=list)
    sizes: dict[tuple[str, str, int], int] = field(default_factory=dict)
    fingerprint: int = 0

    def add(self, split: str, index: int, sequence: ImageSequence) -> None:
        count = len(sequence)
        self.entries.append(Entry(split, index, count))
        samples = sorted({0, count // 2, count - 1}) if count else []
        sizes = [_measure(sequence, t) for t in samples]
        ends = [str(sequence.paths[t]) for t in samples[:1] + samples[-1:]] or [""]
        self.sizes[ends[0], ends[-1], count] = sum(sizes) * count // max(1, len(sizes))
        record = encode_record(sequence, [])
        text = f"{split} {index} {ends} {sizes}".encode()
        self.fingerprint = zlib.crc32(record, zlib.crc32(text, self.fingerprint))


def _find_video(sequence: ImageSequence) -> str:
    """Return what sequences that may share frames have in common.

    That is the folder of the frames, and the frame itself where there is one: the images of a whole
    dataset for detection lie in one folder.
    """
    if not len(sequence):
        return sequence.name
    first = sequence.paths[0]
    return str(first if len(sequence) == 1 else first.parent)


def _measure(sequence: ImageSequence, t: int) -> int:
    """Return the size of a frame's file."""
    path = sequence.paths[t]
    try:
        return path.stat().st_size
    except OSError as error:
        raise FrameError(
            f"cannot read frame {t} of {sequence.name!r}, {path}: {error.strerror or error}"
        ) from None
