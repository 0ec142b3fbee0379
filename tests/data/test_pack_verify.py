"""Damage in packs, found and named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import lmdb
import numpy as np
import pytest
from packing import pack, write_sequences

from slt_gym.data import open_dataset
from slt_gym.data.pack.manifest import read_manifest
from slt_gym.data.pack.verify import total_bytes, verify_pack
from slt_gym.errors import AnnotationError, SltGymError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    counts = {"a": 40, "b": 30}
    return write_sequences(tmp_path / "data", counts)


@pytest.fixture
def out(root: Path, tmp_path: Path) -> Path:
    (root / "a" / "groundtruth.txt").rename(root / "a" / "groundtruth_rect.1.txt")
    (root / "a" / "groundtruth_rect.2.txt").write_text("1,2,3,4\n" * 40)
    pack(root, tmp_path / "pack", splits=("train", "test"), shard_bytes=1)
    return tmp_path / "pack"


def flip(path: Path, place: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def find(path: Path, content: bytes) -> int:
    data = path.read_bytes()
    assert data.count(content) == 1
    return data.index(content)


def test_a_whole_pack(out: Path) -> None:
    counts: list[int] = []
    assert verify_pack(out, 2, counts.append) == []
    assert sum(counts) == total_bytes(read_manifest(out))


@pytest.mark.parametrize("t", [0, 17])
def test_a_flipped_byte_of_a_frame_is_named(root: Path, out: Path, t: int) -> None:
    content = (root / "b" / "img" / f"{t + 1:08d}.jpg").read_bytes()
    shard = out / "shard-00001.lmdb"
    flip(shard, find(shard, content) + len(content) // 2)
    damage = verify_pack(out, 2)
    assert damage == [f"shard-00001.lmdb: frame {t} of sequence 'b' is damaged"]


def test_a_frame_of_two_sequences_is_named_with_both(root: Path, out: Path) -> None:
    shard = out / "shard-00000.lmdb"
    flip(shard, find(shard, (root / "a" / "img" / "00000008.jpg").read_bytes()))
    whose = "frame 7 of sequence 'a-1' and frame 7 of sequence 'a-2' is damaged"
    assert verify_pack(out) == [f"shard-00000.lmdb: {whose}"]


def test_a_flipped_byte_of_an_annotation_is_named(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "annotations"
    pack(root, out, splits=("test",), shard_bytes=1)
    shard = out / "shard-00001.lmdb"
    flip(shard, find(shard, open_dataset("folder", root, "test").get("b").boxes.tobytes()) + 99)
    assert verify_pack(out) == [
        "shard-00001.lmdb: the annotations of sequence 'b' of test are damaged"
    ]
    packed = open_dataset("folder", out, "test")
    with pytest.raises(AnnotationError, match=r"damaged: the annotations of 'b' are not what was"):
        packed.get("b")
    assert len(packed.get("a")) == 40
    (out / "index.json").write_text("{}")
    assert verify_pack(out)[1] == (
        "shard-00001.lmdb: the annotations of sequence 0 of the shard are damaged"
    )


def test_damage_in_several_places_is_all_named(root: Path, out: Path) -> None:
    for number, name, t in ((0, "a", 3), (0, "a", 33), (1, "b", 29)):
        shard = out / f"shard-{number:05d}.lmdb"
        flip(shard, find(shard, (root / name / "img" / f"{t + 1:08d}.jpg").read_bytes()) + 50)
    found = " ".join(verify_pack(out, 2))
    for what in ("frame 3 of sequence 'a-1'", "frame 33", "frame 29 of sequence 'b'"):
        assert what in found


def test_missing_and_cut_shards(out: Path) -> None:
    size = (out / "shard-00000.lmdb").stat().st_size
    os.truncate(out / "shard-00000.lmdb", size - 4096)
    (out / "shard-00001.lmdb").unlink()
    assert verify_pack(out, 2) == [
        f"shard-00000.lmdb: has {size - 4096} bytes instead of {size}",
        "shard-00001.lmdb: No such file or directory",
    ]


def test_damaged_index_and_manifest(out: Path) -> None:
    flip(out / "index.json", 30)
    assert verify_pack(out) == ["index.json: its checksum differs"]
    for place in (0, 40, (out / "pack.json").stat().st_size // 2):
        flip(out / "pack.json", place)
        with pytest.raises(SltGymError, match=r"is damaged, pack\.json"):
            verify_pack(out)
        flip(out / "pack.json", place)


def find_leaf(data: bytes, page: int) -> int:
    """Return where the first leaf of LMDB's tree begins."""
    return next(p for p in range(0, len(data), page) if data[p + 10 : p + 12] == b"\x02\x00")


@pytest.mark.parametrize("where", ["header", "root", "leaf's flags", "leaf's offsets", "size"])
def test_damage_in_lmdbs_structure_is_survived(out: Path, where: str) -> None:
    shard = out / "shard-00001.lmdb"
    with lmdb.open(str(shard), subdir=False, readonly=True, lock=False) as environment:
        page = environment.stat()["psize"]
    data = shard.read_bytes()
    leaf = find_leaf(data, page)
    places = {
        "header": [16, page + 16],  # the magic number in both meta pages
        "root": [128, page + 128],  # the root's page number
        "leaf's flags": [leaf + 10],
        "leaf's offsets": [leaf + 16],
        # Of frame 5: of four bytes before the flags and the length of its key, the highest.
        "size": [data.index(b"\x05\x00f\x00\x00\x00\x05") - 3],
    }[where]
    for place in places:
        flip(shard, place, 0x7F)
    found = verify_pack(out)
    assert found
    assert all(damage.startswith("shard-00001.lmdb: ") for damage in found)
    if where == "size":
        assert found == ["shard-00001.lmdb: frame 5 of sequence 'b' is damaged"] or (
            "cannot be read" in found[-1]  # an LMDB that gives memory beyond the file, and dies
        )


def test_a_crash_leaves_what_was_found_before(out: Path, monkeypatch) -> None:
    flip(out / "shard-00000.lmdb", 8)
    crashed = subprocess.CompletedProcess([], -11, "frame 1 of sequence 'b' is damaged\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crashed)
    assert verify_pack(out) == [
        "shard-00000.lmdb: frame 1 of sequence 'b' is damaged",
        "shard-00000.lmdb: LMDB's structure is damaged, so that the rest of it cannot be read",
    ]


def test_damage_outside_of_all_values_is_found(out: Path) -> None:
    shard = out / "shard-00001.lmdb"
    flip(shard, 8)  # the first page's checksum field, which LMDB does not use
    assert verify_pack(out) == [
        "shard-00001.lmdb: LMDB's structure is damaged, the frames and annotations are whole"
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_bit_anywhere_is_found(out: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shard = out / f"shard-{seed:05d}.lmdb"
    place = int(rng.integers(shard.stat().st_size))
    flip(shard, place, 1 << int(rng.integers(8)))
    assert verify_pack(out)
