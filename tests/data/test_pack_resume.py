"""Packs that are interrupted while they are made, and finished later."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from packing import assert_equal_datasets, contents, pack, write_sequences

from slt_gym.data import open_dataset
from slt_gym.data.pack import writer
from slt_gym.data.pack.manifest import UNFINISHED
from slt_gym.data.pack.plan import Plan, make_plan, open_source
from slt_gym.data.pack.verify import verify_pack
from slt_gym.data.pack.writer import find_complete, find_finished_shards, write_pack
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError, SltGymError

SHARD = 12_000  # A few of the small sequences.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "data", {f"s-{i}": 3 + i % 4 for i in range(12)})


@pytest.fixture
def plan(root: Path) -> Plan:
    return make_plan(open_source("folder", root, ["test"]), SHARD)


class Break:
    """Fails when ``count`` frames are done."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, frames: int) -> None:
        self.left -= frames
        if self.left < 0:
            raise RuntimeError("stop")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("breaks", [[0], [1, 9], [20, 20, 3], [40, 2, 2, 2]])
def test_an_interrupted_pack_is_finished(
    plan: Plan, tmp_path: Path, workers: int, breaks: list[int], monkeypatch
) -> None:
    monkeypatch.setattr(writer, "_BATCH_BYTES", 3000)
    write_pack(plan, tmp_path / "whole", 2)
    assert len(plan.shards) > 3
    out, kept = tmp_path / "pack", 0
    for count in breaks:
        with pytest.raises(RuntimeError, match="stop"):
            write_pack(plan, out, workers, Break(count))
        finished = find_finished_shards(plan, out)
        assert kept <= len(finished) < len(plan.shards)
        kept = len(finished)
        with pytest.raises(DatasetNotFoundError, match="unfinished"):
            open_dataset("folder", out, "test")
    if workers == 1 and breaks[0] > 5:
        assert kept  # and these are not written again:
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.lmdb")}
    counts: list[int] = []
    write_pack(plan, out, workers, counts.append)
    rest = sum(shard.frames for n, shard in enumerate(plan.shards) if n not in finished)
    assert sum(counts) == rest
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert contents(out) == contents(tmp_path / "whole")


def test_leftovers_are_not_taken_for_shards(plan: Plan, tmp_path: Path) -> None:
    write_pack(plan, tmp_path / "whole")
    whole, out = contents(tmp_path / "whole"), tmp_path / "pack"
    with pytest.raises(RuntimeError, match="stop"):
        write_pack(plan, out, 1, Break(45))
    finished = find_finished_shards(plan, out)
    assert len(finished) >= 3
    (out / "shard-00000.lmdb").write_bytes(whole["shard-00000.lmdb"][:-4096])
    (out / "shard-00001.lmdb").unlink()
    (out / UNFINISHED / "2.json").unlink()
    (out / UNFINISHED / "shard-00003.lmdb").write_bytes(b"torn")
    (out / "shard-00099.lmdb").write_bytes(b"of another plan")
    (out / "pack.json.part").write_text("{")
    assert set(find_finished_shards(plan, out)) == set(finished) - {0, 1, 2}
    write_pack(plan, out)
    assert contents(out) == whole


def test_what_changed_meanwhile_is_packed_again(plan: Plan, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    with pytest.raises(RuntimeError, match="stop"):
        write_pack(plan, out, 1, Break(45))
    finished = find_finished_shards(plan, out)
    boxes = root / "s-0" / "groundtruth.txt"
    boxes.write_text("7,7,7,7\n" + boxes.read_text().partition("\n")[2])
    (root / "s-11" / "img" / "00000006.jpg").unlink()
    changed = make_plan(open_source("folder", root, ["test"]), SHARD)
    assert set(find_finished_shards(changed, out)) == set(finished) - {0}
    write_pack(changed, out)
    pack(root, tmp_path / "whole", shard_bytes=SHARD)
    assert contents(out) == contents(tmp_path / "whole")
    assert open_dataset("folder", out, "test")[0].boxes[0].tolist() == [7, 7, 7, 7]


def test_another_pack_is_not_finished_into_this_one(plan: Plan, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    with pytest.raises(RuntimeError, match="stop"):
        write_pack(plan, out, 1, Break(9))
    assert find_complete(plan.source, SHARD, out) is None
    with pytest.raises(InvalidArgumentError, match=r"unfinished pack with splits \['test'\], not"):
        find_complete(open_source("folder", root), SHARD, out)
    with pytest.raises(InvalidArgumentError, match="unfinished pack with shard_bytes 12000, not 5"):
        find_complete(plan.source, 5, out)


@pytest.mark.skipif(writer.fcntl is None, reason="needs locks of POSIX")
def test_two_processes_do_not_make_the_same_pack(plan: Plan, tmp_path: Path) -> None:
    def progress(count: int) -> None:
        with pytest.raises(SltGymError, match="another process is making the pack"):
            write_pack(plan, tmp_path / "pack")

    write_pack(plan, tmp_path / "pack", 1, progress)
    assert verify_pack(tmp_path / "pack") == []


def test_a_full_disk_is_an_error(plan: Plan, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "_VALUE_OVERHEAD", 0)
    monkeypatch.setattr(writer, "_MAP_MARGIN", 4096 * 4)
    with pytest.raises(OSError, match=r"cannot write .*shard-0000.*MDB_MAP_FULL"):
        write_pack(plan, tmp_path / "pack")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for i in range(30):  # 30 MB; a pack holds whatever the files hold
        (root / f"s-{i}" / "img").mkdir(parents=True)
        for t in range(100):
            (root / f"s-{i}" / "img" / f"{t}.jpg").write_bytes(rng.bytes(int(rng.integers(20_000))))
        (root / f"s-{i}" / "groundtruth.txt").write_text("1,2,3,4\n" * 100)
    start = time.perf_counter()
    whole = pack(root, tmp_path / "whole", splits=("train", "val", "test"), shard_bytes=2 << 20)
    pause = (time.perf_counter() - start) / len(whole.shards)
    out = tmp_path / "pack"
    command = [sys.executable, "-m", "slt_gym.cli", "pack", "folder", str(root), str(out)]
    command += ["--shard-size", "2", "--workers", "2", "--no-progress-bar"]

    def call() -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, start_new_session=True, stdout=quiet, stderr=quiet)

    def count() -> int:
        return len(list(out.glob("*.lmdb")))

    kills, states = 0, []
    while kills < 10:
        process, more = call(), count() + int(rng.integers(3))
        while process.poll() is None and not ((out / UNFINISHED).exists() and count() >= more):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 2 * pause))
        with contextlib.suppress(ProcessLookupError):  # It has ended.
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
        if (out / "pack.json").exists():  # Too late: the next one starts from nothing.
            assert contents(out).items() >= contents(tmp_path / "whole").items()
            shutil.rmtree(out)
            continue
        kills += 1
        states.append(count())
        with pytest.raises(DatasetNotFoundError, match="unfinished"):
            open_dataset("folder", out, "test")
    assert len(set(states)) > 2  # The kills came at different stages.
    assert call().wait() == 0
    assert contents(out) == contents(tmp_path / "whole")
    for split in ("train", "val", "test"):
        assert_equal_datasets(
            open_dataset("folder", out, split), open_dataset("folder", root, split)
        )
