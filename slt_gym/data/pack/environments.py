"""LMDB files open for reading: one environment per process and file, shared by its threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import lmdb

from slt_gym.errors import FrameError

_Result = TypeVar("_Result")

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
        self._open: dict[ShardFile, _Open] = {}
        self._forking = False
        self._changed = threading.Condition(threading.Lock())

    def acquire(self, shard: ShardFile) -> _Open:
        """Return the open file, which stays open until :meth:`release`."""
        with self._changed:
            while self._forking:
                self._changed.wait()
            # LMDB must not open a file twice in one process: opening is under the lock, too.
            entry = self._open.pop(shard, None) or _Open(_open(shard))
            self._open[shard] = entry
            entry.users += 1
            self._close_oldest()
            return entry

    def release(self, entry: _Open) -> None:
        with self._changed:
            entry.users -= 1
            if self._forking:
                self._changed.notify_all()

    def _close_oldest(self) -> None:
        if len(self._open) > _KEPT:
            for shard in [shard for shard, entry in self._open.items() if not entry.users]:
                self._open.pop(shard).environment.close()
                break

    # LMDB's environments must not be used in a forked process, nor can they be closed there while
    # a thread of the parent, which is not in the child, is reading. So a fork waits for the reads
    # that are under way, which takes milliseconds, and the child starts with no file open.

    def before_fork(self) -> None:
        self._changed.acquire()
        while self._forking:
            self._changed.wait()
        self._forking = True
        while any(entry.users for entry in self._open.values()):
            self._changed.wait()

    def after_fork_in_parent(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def after_fork_in_child(self) -> None:
        for entry in self._open.values():
            entry.environment.close()
        self._open.clear()
        self._forking = False
        self._changed = threading.Condition(threading.Lock())


_environments = _Environments()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_environments.before_fork,
        after_in_parent=_environments.after_fork_in_parent,
        after_in_child=_environments.after_fork_in_child,
    )


def read_value(shard: ShardFile, key: bytes, decode: Callable[[memoryview], _Result]) -> _Result:
    """Decode a value of a shard without copying it.

    Works from any thread, and from processes that were forked or spawned.

    Args:
        shard: The shard.
        key: The value's key.
        decode: Called with the value, which it must not keep; its result is returned.

    Raises:
        FrameError: The shard is missing or damaged.
    """
    entry = _environments.acquire(shard)
    try:
        with entry.environment.begin(buffers=True) as transaction:
            try:
                value = transaction.get(key)
            except lmdb.Error as error:
                raise _damaged(shard, str(error)) from None
            if value is None:
                raise _damaged(shard, f"it lacks {key!r}")
            return decode(value)
    finally:
        _environments.release(entry)


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
