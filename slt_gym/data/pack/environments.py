"""LMDB files open for reading: one environment per process and file, shared by its threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

from slt_gym.errors import FrameError

# Each takes a file descriptor, of which a process often has 1024. A pack of TrackingNet has 500
# shards; sequences are read one after the other, so that few of them are in use at a time.
_KEPT = 256


@dataclass(frozen=True)
class ShardFile:
    """Where a shard is and what it must be; cheap to pickle.

    Attributes:
        path: The absolute path.
        bytes: The file's size.
        crc32: The file's checksum, which tells it from another pack's file at the same path.
    """

    path: Path
    bytes: int
    crc32: int


class _Open:
    def __init__(self, environment: lmdb.Environment) -> None:
        self.environment = environment
        self.users = 0


class _Environments:
    """The open files, the one last used last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._open: dict[ShardFile, _Open] = {}

    @contextmanager
    def use(self, shard: ShardFile) -> Iterator[lmdb.Environment]:
        with self.lock:
            # LMDB must not open a file twice in one process: opening is under the lock, too.
            entry = self._open.pop(shard, None) or _Open(_open(shard))
            self._open[shard] = entry
            entry.users += 1
            self._close_oldest()
        try:
            yield entry.environment
        finally:
            with self.lock:
                entry.users -= 1

    def _close_oldest(self) -> None:
        if len(self._open) > _KEPT:
            for shard in [shard for shard, entry in self._open.items() if not entry.users]:
                self._open.pop(shard).environment.close()
                break

    def start_anew(self) -> None:
        """Close all files in a process that was just forked, where they must not be used.

        Nobody else lets go of them: threads of the parent that were reading are not here.
        """
        for entry in self._open.values():
            entry.environment.close()
        self._open.clear()
        self.lock.release()


_environments = _Environments()
if hasattr(os, "register_at_fork"):
    # The lock is held while the process forks, so that no other thread is just opening a file.
    os.register_at_fork(
        before=_environments.lock.acquire,
        after_in_parent=_environments.lock.release,
        after_in_child=_environments.start_anew,
    )


@contextmanager
def open_value(shard: ShardFile, key: bytes) -> Iterator[memoryview]:
    """Give a value of a shard, without copying it; it must not be used after the block.

    Works from any thread, and from processes that were forked or spawned.

    Raises:
        FrameError: The shard is missing or damaged.
    """
    with _environments.use(shard) as environment, environment.begin(buffers=True) as transaction:
        try:
            value = transaction.get(key)
        except lmdb.Error as error:
            raise _damaged(shard, str(error)) from None
        if value is None:
            raise _damaged(shard, f"it lacks {key!r}")
        yield value


def _open(shard: ShardFile) -> lmdb.Environment:
    try:
        size = shard.path.stat().st_size
        # A page beyond the end of a mapped file would kill the process.
        if size != shard.bytes:
            raise _damaged(shard, f"it has {size} bytes instead of {shard.bytes}")
        return lmdb.open(str(shard.path), subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise _damaged(shard, str(error)) from None
    except FileNotFoundError:
        raise FrameError(f"the pack {shard.path.parent} lacks {shard.path.name}") from None


def _damaged(shard: ShardFile, what: str) -> FrameError:
    return FrameError(
        f"{shard.path} is damaged: {what}; `slt-gym pack --verify {shard.path.parent}` tells more"
    )
