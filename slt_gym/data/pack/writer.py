"""Making a pack: shards built by threads, whole or not at all, and kept when the work is killed."""

from __future__ import annotations

import json
import mmap
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from slt_gym.data.pack.manifest import (
    FORMAT,
    INDEX,
    MANIFEST,
    UNFINISHED,
    Manifest,
    Shard,
    read_manifest,
    shard_name,
    sum_file,
    write_index,
    write_manifest,
    write_text,
)
from slt_gym.data.pack.plan import Plan, ShardPlan, Source, load_images
from slt_gym.data.pack.records import encode_record, frame_key, seal, sequence_key
from slt_gym.errors import InvalidArgumentError, SltGymError
from slt_gym.version import __version__

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[int], object]
_Value = tuple[bytes, bytes]

_PLAN = "plan.json"
# Written at once. LMDB keeps what a transaction writes in memory until its end.
_BATCH_BYTES = 16 << 20
# What LMDB may need for a value beside its bytes: the rest of a page, and a share of the tree.
_VALUE_OVERHEAD = 2 * mmap.PAGESIZE
_MAP_MARGIN = 1 << 20


def check_output(source_root: Path, out: Path) -> None:
    """Check that ``out`` can be, or become, a pack of what lies in ``source_root``.

    Raises:
        InvalidArgumentError: It lies in the dataset, or holds something else.
    """
    out, source_root = out.resolve(), source_root.resolve()
    if out == source_root or source_root in out.parents:
        raise InvalidArgumentError(
            f"{out} lies in the dataset's folder {source_root}: give a folder outside of it"
        )
    if out.is_dir():
        names = {path.name for path in out.iterdir()}
        ours = (MANIFEST, INDEX, UNFINISHED, "shard-") if names & {MANIFEST, UNFINISHED} else ()
        strange = sorted(name for name in names if not name.startswith(ours))
        if strange:
            raise InvalidArgumentError(
                f"the folder {out} holds something else than a pack, such as {strange[0]!r}: give "
                "a new or empty one"
            )
    elif out.exists():
        raise InvalidArgumentError(f"{out} is a file: expected is a new or empty folder")


def find_complete(source: Source, shard_bytes: int, out: Path) -> Manifest | None:
    """Return the manifest of the pack that ``out`` is already; None if it is yet to be made.

    Raises:
        InvalidArgumentError: ``out`` is a pack of something else, complete or not.
        SltGymError: ``pack.json`` is damaged.
    """
    wanted = _describe(source, shard_bytes)
    complete, plan = out / MANIFEST, out / UNFINISHED / _PLAN
    manifest = read_manifest(out) if complete.is_file() else None
    if manifest is not None:
        held = {key: getattr(manifest, key) for key in wanted}
        held["splits"] = list(manifest.splits)
    elif plan.is_file():
        held = json.loads(plan.read_bytes())
    else:
        return None
    for key, value in wanted.items():
        if held[key] != value:
            raise InvalidArgumentError(
                f"the folder {out} holds {'a' if manifest else 'an unfinished'} pack with {key} "
                f"{held[key]!r}, not {value!r}: give a new folder, or remove it"
            )
    if manifest is not None and (out / UNFINISHED).is_dir():
        shutil.rmtree(out / UNFINISHED)  # Killed when only this was left to do.
    return manifest


def find_finished_shards(plan: Plan, out: Path) -> dict[int, Shard]:
    """Return the shards that an interrupted run left behind, by number."""
    found: dict[int, Shard] = {}
    for number, shard in enumerate(plan.shards):
        try:
            note = json.loads((out / UNFINISHED / f"{number}.json").read_bytes())
            size = (out / shard_name(number)).stat().st_size
        except FileNotFoundError:
            continue
        if note["fingerprint"] == shard.fingerprint and note["shard"]["bytes"] == size:
            found[number] = Shard(**note["shard"])
    return found


def write_pack(
    plan: Plan, out: Path, workers: int = 1, progress: Progress = lambda count: None
) -> Manifest:
    """Make a pack, or go on with one whose making was killed.

    ``pack.json`` is written last: a folder without it is no pack. What the plan needs and a former
    run has finished is kept, shard by shard, and the result is byte for byte that of one run.

    Args:
        plan: What to write.
        out: The pack's folder.
        workers: The number of threads.
        progress: Called with numbers of frames that are done, by one thread at a time.

    Raises:
        InvalidArgumentError: ``out`` lies in the dataset's folder or holds something else.
        FrameError: A frame cannot be read; finished shards are kept.
        SltGymError: Another process is making this pack.
        OSError: ``out`` cannot be written; finished shards are kept.
    """
    check_output(plan.source.root, out)
    complete = find_complete(plan.source, plan.shard_bytes, out)
    if complete is not None:
        return complete
    (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
    with _alone(out):
        wanted = _describe(plan.source, plan.shard_bytes)
        write_text(out / UNFINISHED / _PLAN, json.dumps(wanted))
        shards = find_finished_shards(plan, out)
        kept = {shard_name(number) for number in shards}
        for path in [*out.glob("shard-*.lmdb"), *(out / UNFINISHED).glob("*.lmdb")]:
            if path.parent != out or path.name not in kept:
                path.unlink()
        left = [number for number in range(len(plan.shards)) if number not in shards]
        shards |= _write_shards(plan, left, out, workers, progress)
        wanted["splits"] = {split: len(dataset) for split, dataset in plan.source.splits.items()}
        manifest = Manifest(
            **wanted,
            index=write_index(out, _make_index(plan)),
            shards=tuple(shards[number] for number in range(len(plan.shards))),
            library=__version__,
        )
        write_manifest(out, manifest)
        shutil.rmtree(out / UNFINISHED)
    return manifest


def _write_shards(
    plan: Plan, numbers: list[int], out: Path, workers: int, progress: Progress
) -> dict[int, Shard]:
    lock, stop = threading.Lock(), threading.Event()

    def report(count: int) -> None:
        with lock:
            progress(count)
        if stop.is_set():
            raise _StoppedError

    # Threads, not processes: a frame takes some 0.1 ms, most of it in reads, checksums and LMDB,
    # which let other threads run, and then the disk is the limit. Threads share the one list of the
    # dataset's files, and none is left over when the process is killed.
    with ThreadPoolExecutor(workers) as pool:
        jobs = {n: pool.submit(_write_shard, plan, n, out, report) for n in numbers}
        try:
            wait(jobs.values(), return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # No matter after success; else it ends the others within a batch.
            pool.shutdown(wait=True, cancel_futures=True)
    failures = [e for job in jobs.values() if not job.cancelled() and (e := job.exception())]
    for failure in failures:
        if not isinstance(failure, _StoppedError):
            raise failure
    return {number: job.result() for number, job in jobs.items()}


class _StoppedError(Exception):
    """Raised in the other threads when one has failed or the user wants to stop."""


def _write_shard(plan: Plan, number: int, out: Path, report: Progress) -> Shard:
    """Write one shard, and a note beside it which says that it is whole."""
    shard, path = plan.shards[number], out / shard_name(number)
    temporary = out / UNFINISHED / path.name
    frames: dict[str, int] = {}
    try:
        _fill(temporary, _read_values(plan.source, shard, frames, report))
    except lmdb.Error as error:
        raise OSError(f"cannot write {temporary}: {error}") from None
    total = sum_file(temporary)
    temporary.replace(path)
    written = Shard(path.name, total.bytes, total.crc32, len(shard.entries), len(frames))
    note = {"fingerprint": shard.fingerprint, "shard": asdict(written)}
    write_text(out / UNFINISHED / f"{number}.json", json.dumps(note))
    return written


def _read_values(
    source: Source, shard: ShardPlan, frames: dict[str, int], report: Progress
) -> Iterator[_Value]:
    """Yield a shard's values in the order of their keys; ``frames`` gets the frames' numbers."""
    records = []
    for entry in shard.entries:
        sequence = load_images(source.splits[entry.split], entry.index)
        numbers = np.empty(len(sequence), np.uint32)
        for t in range(len(sequence)):
            path = str(sequence.paths[t])
            if path not in frames:
                frames[path] = len(frames)
                yield frame_key(frames[path]), seal(sequence.read_encoded(t))
            numbers[t] = frames[path]
            report(1)
        records.append(encode_record(sequence, numbers))
    for number, record in enumerate(records):
        yield sequence_key(number), seal(record)


def _fill(path: Path, values: Iterable[_Value]) -> None:
    """Write an LMDB file; equal values give equal bytes."""
    size = _MAP_MARGIN
    with closing(
        lmdb.open(str(path), map_size=size, subdir=False, lock=False, sync=False)
    ) as environment:
        for batch in _batches(values):
            size += sum(len(value) + _VALUE_OVERHEAD for _, value in batch)
            environment.set_mapsize(size - size % -mmap.PAGESIZE)
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value, append=True)
        environment.sync(True)


def _batches(values: Iterable[_Value]) -> Iterator[list[_Value]]:
    batch: list[_Value] = []
    size = 0
    for value in values:
        batch.append(value)
        size += len(value[1])
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _make_index(plan: Plan) -> dict[str, dict[str, list[Any]]]:
    """Return the place of each sequence of each split."""
    index: dict[str, dict[str, list[Any]]] = {
        split: {
            "names": dataset.names,
            "shards": [0] * len(dataset),
            "records": [0] * len(dataset),
        }
        for split, dataset in plan.source.splits.items()
    }
    for number, shard in enumerate(plan.shards):
        for record, entry in enumerate(shard.entries):
            index[entry.split]["shards"][entry.index] = number
            index[entry.split]["records"][entry.index] = record
    return index


def _describe(source: Source, shard_bytes: int) -> dict[str, Any]:
    """Return what tells one pack from another."""
    return {
        "format": FORMAT,
        "dataset": source.dataset,
        "options": source.options,
        "splits": list(source.splits),
        "shard_bytes": shard_bytes,
    }


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse to make a pack that another process is making; a killed one does not count."""
    with (out / UNFINISHED / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SltGymError(f"another process is making the pack {out}") from None
            except OSError:
                pass  # A file system without locks.
        yield
