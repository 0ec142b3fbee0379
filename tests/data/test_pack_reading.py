"""Packs that many threads and processes read at once."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from packing import pack, write_sequences

from slt_gym.data import SequenceDataset, open_dataset
from slt_gym.data.pack import environments
from slt_gym.errors import FrameError

COUNTS = {f"s-{i}": 6 for i in range(8)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequences(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.fixture
def packed(root: Path, tmp_path: Path) -> SequenceDataset:
    assert len(pack(root, tmp_path / "pack", shard_bytes=1).shards) == len(COUNTS)
    return open_dataset("folder", tmp_path / "pack", "test")


def sums(dataset: SequenceDataset) -> list[int]:
    return [zlib.crc32(s.read(t).tobytes()) for s in dataset for t in range(len(s))]


def read_all(dataset: SequenceDataset, expected: list[int], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(lambda _: sums(dataset), range(threads)):
            assert found == expected


def read_while(dataset: SequenceDataset, expected: list[int], stop: threading.Event) -> int:
    rounds = 0
    while not stop.is_set() or not rounds:
        assert sums(dataset) == expected
        rounds += 1
        stop.wait(0.02)  # Leaves something of two cores to the processes.
    return rounds


def start(method: str, target: Callable[..., None], *arguments: object) -> list[object]:
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=target, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    return list(processes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_threads_and_processes_at_once(root: Path, packed: SequenceDataset) -> None:
    expected = sums(open_dataset("folder", root, "test"))
    stop = threading.Event()
    with ThreadPoolExecutor(16) as pool:
        readers = [pool.submit(read_while, packed, expected, stop) for _ in range(16)]
        try:
            # Forked while threads are reading; spawned with a dataset whose files are open.
            processes = start("fork", read_all, packed, expected, 3)
            processes += start("spawn", read_all, packed, expected, 3)
            for process in processes:
                process.join(60)  # type: ignore[attr-defined]
        finally:
            stop.set()
        assert [process.exitcode for process in processes] == [0] * 4  # type: ignore[attr-defined]
        assert all(reader.result() > 0 for reader in readers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_forked_from_a_forked_one(root: Path, packed: SequenceDataset) -> None:
    expected = sums(open_dataset("folder", root, "test"))

    def child(depth: int) -> None:
        assert sums(packed) == expected
        if depth:
            inner = multiprocessing.get_context("fork").Process(target=child, args=(depth - 1,))
            inner.start()
            inner.join(30)
            assert inner.exitcode == 0
            assert sums(packed) == expected

    child(2)


def test_no_more_files_are_open_than_allowed(root: Path, packed: SequenceDataset, monkeypatch):
    monkeypatch.setattr(environments, "_KEPT", 3)
    expected = sums(open_dataset("folder", root, "test"))
    read_all(packed, expected, 8)
    opened = environments._environments._open
    assert len(opened) <= 3 + 8  # those in use are not closed
    assert sums(packed) == expected
    assert len(opened) <= 3
    assert all(entry.users == 0 for entry in opened.values())


def test_pickles_are_small_and_read(root: Path, packed: SequenceDataset) -> None:
    sequence = packed[0]
    frame = sequence.read(3)
    text = pickle.dumps(sequence)
    assert len(text) < 4000
    np.testing.assert_array_equal(pickle.loads(text).read(3), frame)


def test_a_pack_made_anew_in_the_same_place_is_read(
    root: Path, packed: SequenceDataset, tmp_path: Path
) -> None:
    assert sums(packed) == sums(open_dataset("folder", root, "test"))
    shutil.rmtree(tmp_path / "pack")
    other = write_sequences(tmp_path / "other", COUNTS, seed=1)
    pack(other, tmp_path / "pack", shard_bytes=1)
    again = open_dataset("folder", tmp_path / "pack", "test")
    assert sums(again) == sums(open_dataset("folder", other, "test"))


def test_a_missing_or_cut_shard_is_an_error(packed: SequenceDataset, tmp_path: Path) -> None:
    for i in (0, 1):
        path = tmp_path / "pack" / f"shard-{i:05d}.lmdb"
        os.truncate(path, 4096) if i else path.unlink()
    with pytest.raises(FrameError, match=r"pack lacks shard-00000\.lmdb"):
        packed[0]
    with pytest.raises(FrameError, match=r"00001\.lmdb is damaged: it has 4096 bytes instead of"):
        packed[1]
    assert packed[2].read(0).shape == (24, 32, 3)


def test_a_shard_that_is_not_lmdb_is_an_error(packed: SequenceDataset, tmp_path: Path) -> None:
    path = tmp_path / "pack" / "shard-00000.lmdb"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(FrameError, match=r"00000\.lmdb is damaged: .*; `slt-gym pack --verify"):
        packed[0]
