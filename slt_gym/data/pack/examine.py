"""Name what is damaged in one shard: ``python -m slt_gym.data.pack.examine PACK NUMBER``.

A program of its own, because LMDB may crash on a damaged file; what it has said by then counts.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from slt_gym.data.pack.environments import ShardFile, read_value
from slt_gym.data.pack.manifest import Manifest, read_index, read_manifest
from slt_gym.data.pack.records import decode_record, frame_key, is_whole, sequence_key, unseal
from slt_gym.errors import FrameError, SltGymError


def examine(folder: Path, number: int) -> Iterator[str]:
    """Yield what is damaged in a shard: annotations of sequences, then frames.

    Args:
        folder: The pack.
        number: The shard's number.
    """
    manifest = read_manifest(folder)
    shard = manifest.shards[number]
    file = ShardFile((folder / shard.file).resolve(), shard.bytes, shard.crc32)
    users: dict[int, list[str]] = {}
    for record in range(shard.sequences):
        content = _read(file, sequence_key(record))
        if content is None:
            yield f"the annotations of {_name(folder, manifest, number, record)} are damaged"
        else:
            sequence = decode_record(content)
            for t, frame in enumerate(sequence.frames.tolist()):
                users.setdefault(frame, []).append(f"frame {t} of sequence {sequence.name!r}")
    for frame in range(shard.frames):
        if _read(file, frame_key(frame)) is None:
            whose = dict.fromkeys(users.get(frame, [f"frame {frame} of the shard"]))
            yield f"{' and '.join(whose)} is damaged"


def _read(file: ShardFile, key: bytes) -> bytes | None:
    """Return the content of a value, None if it is damaged."""
    try:
        return read_value(file, key, lambda v: bytes(unseal(v)) if is_whole(v) else None)
    except FrameError:
        return None


def _name(folder: Path, manifest: Manifest, shard: int, record: int) -> str:
    """Return the name of a sequence whose record cannot tell it."""
    with contextlib.suppress(SltGymError):
        for split, index in read_index(folder, manifest).items():
            for i, place in enumerate(zip(index["shards"], index["records"], strict=True)):
                if place == (shard, record):
                    return f"sequence {index['names'][i]!r} of {split}"
    return f"sequence {record} of the shard"


if __name__ == "__main__":
    for line in examine(Path(sys.argv[1]), int(sys.argv[2])):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
