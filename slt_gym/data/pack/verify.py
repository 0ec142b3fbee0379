"""Looking for damage in a pack: every byte against its checksum."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slt_gym.data.pack.manifest import (
    CHECKSUM_DIFFERS,
    Manifest,
    Shard,
    find_damage,
    read_manifest,
)


def verify_pack(
    folder: Path, workers: int = 1, progress: Callable[[int], object] = lambda count: None
) -> list[str]:
    """Compare every byte of a pack with its checksums.

    Args:
        folder: The pack.
        workers: The number of threads.
        progress: Called with numbers of bytes that are done, by one thread at a time.

    Returns:
        What is damaged: the file, and in a shard the sequence and the frame; nothing if all is
        whole.

    Raises:
        SltGymError: ``pack.json`` is damaged, so that there is nothing to compare with.
        InvalidArgumentError: A newer version of the library wrote the pack.
    """
    manifest = read_manifest(folder)
    lock, stop = threading.Lock(), threading.Event()

    def report(count: int) -> None:
        with lock:
            progress(count)
        if stop.is_set():
            raise _StoppedError

    with ThreadPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(_check_shard, folder, number, shard, report)
            for number, shard in enumerate(manifest.shards)
        ]
        try:
            found = [damage for job in jobs for damage in job.result()]
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    index = find_damage(folder, manifest.index)
    return found if index is None else [index, *found]


def total_bytes(manifest: Manifest) -> int:
    """Return how many bytes :func:`verify_pack` reports."""
    return sum(shard.bytes for shard in manifest.shards)


class _StoppedError(Exception):
    """Raised in the threads when the user wants to stop."""


def _check_shard(
    folder: Path, number: int, shard: Shard, report: Callable[[int], object]
) -> list[str]:
    damage = find_damage(folder, shard, report)
    if damage is None or not damage.endswith(CHECKSUM_DIFFERS):
        return [damage] if damage else []
    # LMDB trusts its files, so that a damaged one can crash the process: another one looks.
    command = [sys.executable, "-m", "slt_gym.data.pack.examine", str(folder), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = done.stdout.splitlines()
    if done.returncode:
        found.append("LMDB's structure is damaged, so that the rest of it cannot be read")
    elif not found:
        found = ["LMDB's structure is damaged, the frames and annotations are whole"]
    return [f"{shard.file}: {what}" for what in found]
