"""Packs: what goes in comes out, shared frames once, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import (
    assert_equal_datasets,
    assert_equal_sequences,
    contents,
    pack,
    write_sequences,
)

from slt_gym.data import ImageSequence, Sequence, SequenceDataset, open_dataset
from slt_gym.data.pack import manifest as manifest_module
from slt_gym.data.pack.manifest import MANIFEST, UNFINISHED, read_manifest, write_manifest
from slt_gym.data.pack.plan import make_plan, open_source
from slt_gym.data.pack.records import (
    decode_record,
    encode_record,
    frame_key,
    is_whole,
    seal,
    sequence_key,
    unseal,
)
from slt_gym.data.pack.writer import check_output, find_complete, write_pack
from slt_gym.data.samples import Source, list_samples, write_sample
from slt_gym.errors import (
    AnnotationError,
    DatasetNotFoundError,
    FrameError,
    InvalidArgumentError,
    SltGymError,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"bear-1": 9, "bear-2": 5, "cat-1": 12, "cat-10": 3, "dog-4": 7}
    root = write_sequences(tmp_path_factory.mktemp("lasot"), counts)
    (root / "training_set.txt").write_text("bear-1\nbear-2\ncat-1\ncat-10\n")
    return root


def test_the_real_sequences(real_sequences: Path, tmp_path: Path) -> None:
    manifest = pack(real_sequences, tmp_path / "pack", shard_bytes=4 << 20)
    assert [shard.frames for shard in manifest.shards] == [254, 196, 105]
    packed = open_dataset("folder", tmp_path / "pack", "test")
    plain = open_dataset("folder", real_sequences, "test")
    assert packed.names == ["Crossing", "Man", "bag", "ball1"]
    for sequence, expected in zip(packed, plain, strict=True):
        assert isinstance(expected, ImageSequence)
        np.testing.assert_array_equal(sequence.boxes, expected.boxes, strict=True)
        np.testing.assert_array_equal(sequence.visible, expected.visible)
        np.testing.assert_array_equal(sequence.read(5), expected.read(5))
        for t, path in enumerate(expected.paths):
            assert sequence.read_encoded(t) == path.read_bytes()  # type: ignore[attr-defined]


@pytest.mark.parametrize("shard_bytes", [1, 40_000, 1 << 30])
def test_a_pack_is_the_dataset(root: Path, tmp_path: Path, shard_bytes: int) -> None:
    splits = ("train", "val", "test", "all")
    manifest = pack(root, tmp_path, "lasot", splits, shard_bytes)
    assert len(manifest.shards) == {1: 5, 40_000: 2, 1 << 30: 1}[shard_bytes]
    assert manifest.splits == {"train": 4, "val": 1, "test": 1, "all": 5}
    # train, val and all share their frames.
    assert sum(shard.frames for shard in manifest.shards) == 9 + 5 + 12 + 3 + 7
    for split in splits:
        packed = open_dataset("LaSOT", tmp_path, split)
        assert_equal_datasets(packed, open_dataset("lasot", root, split))
        assert packed[0].visible.any() and not packed[0].visible.all()
        assert packed[0].attributes["nlp"].shape == ()
    files = ["index.json", "pack.json"] + [shard.file for shard in manifest.shards]
    assert sorted(contents(tmp_path)) == files


LAYOUTS = {name: splits for name, splits in list_samples().items() if name != "video"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_dataset_can_be_packed(name: str, tmp_path: Path) -> None:
    write_sample(name, tmp_path / "data", Source(2, 6, 64, 64, seed=0))
    manifest = write_pack(make_plan(open_source(name, tmp_path / "data"), 1), tmp_path / "pack")
    assert set(manifest.splits) >= set(LAYOUTS[name])
    for split in manifest.splits:
        packed, plain = (open_dataset(name, tmp_path / r, split) for r in ("pack", "data"))
        assert_equal_datasets(packed, plain)


def test_videos_cannot_be_packed(tmp_path: Path) -> None:
    write_sample("video", tmp_path / "data", Source(1, 3, 64, 64, seed=0))
    with pytest.raises(
        InvalidArgumentError, match="video cannot be packed: a pack holds copies of"
    ):
        make_plan(open_source("video", tmp_path / "data"), 1)


def test_frames_are_decoded_alike(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path)
    packed, plain = (open_dataset("folder", r, "test")[1] for r in (tmp_path, root))
    for t in (0, 4, -1):
        frame = packed.read(t)
        np.testing.assert_array_equal(frame, plain.read(t), strict=True)
        frame[:] = 0  # the caller's to keep
    assert packed.read(0).any()
    with pytest.raises(IndexError):
        packed.read(5)


def test_two_targets_share_their_frames(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "otb" / "Jogging"
    shutil.copytree(root / "bear-1", folder)
    (folder / "groundtruth.txt").unlink()
    (folder / "groundtruth_rect.1.txt").write_text("1,2,3,4\n" * 9)
    (folder / "groundtruth_rect.2.txt").write_text("5,6,7,8\n" * 6)
    manifest = pack(tmp_path / "otb", tmp_path / "pack", shard_bytes=1)
    assert [(s.sequences, s.frames) for s in manifest.shards] == [(2, 9)]
    packed = open_dataset("folder", tmp_path / "pack", "test")
    assert_equal_datasets(packed, open_dataset("folder", tmp_path / "otb", "test"))
    assert packed.get("Jogging-2").notes == ("9 images for 6 frames: the last 3 are left out",)


class OneImage(SequenceDataset):
    """Four targets in two images, as in a dataset for detection."""

    def __init__(self, root: Path) -> None:
        super().__init__("images", "train", ["a-1", "b-1", "a-2", "b-2"])
        self._root = root

    def _load(self, index: int) -> Sequence:
        path = self._root / f"{self.names[index][0]}.jpg"
        return ImageSequence(self.names[index], [path], [[index, 0, 4, 4]])


def test_targets_in_one_image_stay_together(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode() * 5000)
    source = open_source("folder", write_sequences(tmp_path / "x", {"a": 2}), ["test"])
    images = OneImage(tmp_path)
    source.splits["test"] = images
    plan = make_plan(source, 5000)
    assert [[entry.index for entry in shard.entries] for shard in plan.shards] == [[0, 2], [1, 3]]
    manifest = write_pack(plan, tmp_path / "pack")
    assert [shard.frames for shard in manifest.shards] == [1, 1]
    packed = open_dataset("folder", tmp_path / "pack", "test")
    for sequence, expected in zip(packed, images, strict=True):
        assert_equal_sequences(sequence, expected)


def test_a_frame_that_is_no_image_stays_one(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "bear-2", tmp_path / "data" / "a")
    for t, content in enumerate((b"", b"no image"), 1):
        (tmp_path / "data" / "a" / "img" / f"{t:08d}.jpg").write_bytes(content)
    pack(tmp_path / "data", tmp_path / "pack")
    sequence = open_dataset("folder", tmp_path / "pack", "test")[0]
    for t in (0, 1):
        with pytest.raises(FrameError, match=rf"decode frame {t} of 'a', in .*shard-00000\.lmdb"):
            sequence.read(t)
    assert sequence.read(2).shape == (24, 32, 3)


def test_frames_that_go_missing_are_named(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "bear-1", tmp_path / "data" / "a")
    plan = make_plan(open_source("folder", tmp_path / "data", ["test"]), 1 << 30)
    path = tmp_path / "data" / "a" / "img" / "00000009.jpg"
    path.unlink()
    with pytest.raises(FrameError, match=r"cannot read frame 8 of 'a', .*00000009\.jpg: No such"):
        write_pack(plan, tmp_path / "pack")
    with pytest.raises(DatasetNotFoundError, match="is an unfinished pack: call the same"):
        open_dataset("folder", tmp_path / "pack", "test")
    path.symlink_to("nowhere")
    with pytest.raises(FrameError, match=r"cannot read frame 8 of 'a', .*00000009\.jpg: No such"):
        make_plan(open_source("folder", tmp_path / "data", ["test"]), 1 << 30)


def test_default_splits_are_those_that_open(root: Path, tmp_path: Path) -> None:
    assert list(open_source("lasot", root).splits) == ["train", "val", "test"]
    (tmp_path / "a-1").mkdir()
    (tmp_path / "testing_set.txt").write_text("a-1\n")
    assert list(open_source("lasot", tmp_path).splits) == ["test"]
    with pytest.raises(DatasetNotFoundError, match="none of the 0 of split 'train'"):
        open_source("lasot", tmp_path, ["train", "test"])
    with pytest.raises(DatasetNotFoundError, match="holds no folder with a ground truth file"):
        open_source("folder", tmp_path)


def test_what_a_pack_does_not_hold_is_an_error(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path, "lasot", ("train", "test"), holdout=True)
    train = open_dataset("lasot", tmp_path, "train", holdout=True)
    assert train.names == open_dataset("lasot", root, "train", holdout=True).names
    held = r'it holds lasot, splits train, test, options \{"holdout": true\}'
    with pytest.raises(InvalidArgumentError, match=f"is not one of folder: {held}"):
        open_dataset("folder", tmp_path, "train")
    with pytest.raises(InvalidArgumentError, match=f"has no split 'val': {held}"):
        open_dataset("lasot", tmp_path, "val", holdout=True)
    with pytest.raises(InvalidArgumentError, match=rf"not made with options \{{\}}: {held}; pass"):
        open_dataset("lasot", tmp_path, "train", holdout=False)
    with pytest.raises(InvalidArgumentError, match="unknown option of lasot 'hold'"):
        open_dataset("lasot", tmp_path, "train", hold=True)


def test_options_that_are_the_defaults_do_not_matter(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path, "lasot", ("train",), holdout=False)
    assert len(open_dataset("lasot", tmp_path)) == 4
    assert len(open_dataset("lasot", tmp_path, holdout=False)) == 4


def test_packs_are_found_through_the_environment(root: Path, tmp_path: Path, monkeypatch) -> None:
    pack(root, tmp_path / "folder")
    monkeypatch.setenv("SLT_GYM_DATA", str(tmp_path))
    assert len(open_dataset("folder", split="test")) == 5
    monkeypatch.setenv("SLT_GYM_FOLDER", str(root))
    assert isinstance(open_dataset("folder", split="test")[0], ImageSequence)


def test_a_relative_root_works_from_another_folder(root: Path, tmp_path: Path, monkeypatch) -> None:
    pack(root, tmp_path / "pack")
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset("folder", "pack", "test")
    monkeypatch.chdir("/")
    assert dataset[0].read(0).shape == (24, 32, 3)


def test_what_cannot_be_packed(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="synthetic cannot be packed: a pack holds"):
        open_source("synthetic", root)
    with pytest.raises(InvalidArgumentError, match="is a mixture: pack each dataset by itself"):
        open_source("folder+lasot", root)
    with pytest.raises(InvalidArgumentError, match="takes no option 'split'"):
        open_source("folder", root, (), {"split": "test"})
    pack(root, tmp_path)
    with pytest.raises(InvalidArgumentError, match="is a pack already: expected is the dataset's"):
        open_source("folder", tmp_path)


class Drawn(Sequence):
    def read(self, t: int) -> Any:
        raise NotImplementedError


def test_sequences_without_files_cannot_be_packed(root: Path, monkeypatch) -> None:
    source = open_source("folder", root, ["test"])
    monkeypatch.setattr(type(source.splits["test"]), "_load", lambda *_: Drawn("a", [[1, 1, 2, 2]]))
    with pytest.raises(InvalidArgumentError, match=r"folder cannot be packed: .* 'a' is not made"):
        make_plan(source, 1)


def test_places_that_are_refused(root: Path, tmp_path: Path) -> None:
    for place in (root, root / "pack", root / "bear-1" / ".." / "deep" / "pack"):
        with pytest.raises(InvalidArgumentError, match="lies in the dataset's folder"):
            check_output(root, place)
    link = tmp_path / "link"
    link.symlink_to(root)
    with pytest.raises(InvalidArgumentError, match="lies in the dataset's folder"):
        check_output(root, link / "pack")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="file is a file: expected is a new or empty"):
        check_output(root, tmp_path / "file")
    with pytest.raises(InvalidArgumentError, match="something else than a pack, such as 'file'"):
        check_output(root, tmp_path)
    (tmp_path / "shards" / "shard-00000.lmdb").mkdir(parents=True)
    with pytest.raises(InvalidArgumentError, match=r"such as 'shard-00000\.lmdb'"):
        check_output(root, tmp_path / "shards")
    pack(root, tmp_path / "pack")
    check_output(root, tmp_path / "pack")
    (tmp_path / "pack" / "notes.txt").touch()
    with pytest.raises(InvalidArgumentError, match=r"such as 'notes\.txt'"):
        check_output(root, tmp_path / "pack")


def times_of_shards(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.lmdb")}


def test_a_complete_pack_is_recognised(root: Path, tmp_path: Path) -> None:
    source = open_source("lasot", root, ["train"])
    assert find_complete(source, 5, tmp_path / "pack") is None
    manifest = write_pack(make_plan(source, 5), tmp_path / "pack")
    assert find_complete(source, 5, tmp_path / "pack") == manifest
    with pytest.raises(InvalidArgumentError, match="a pack with shard_bytes 5, not 6: give a new"):
        find_complete(source, 6, tmp_path / "pack")
    (tmp_path / "pack" / UNFINISHED).mkdir()  # killed when only this was left to do
    before = times_of_shards(tmp_path / "pack")
    assert write_pack(make_plan(source, 5), tmp_path / "pack") == manifest
    assert times_of_shards(tmp_path / "pack") == before
    assert not (tmp_path / "pack" / UNFINISHED).exists()
    with pytest.raises(InvalidArgumentError, match="a pack with shard_bytes 5, not 7: give a new"):
        write_pack(make_plan(source, 7), tmp_path / "pack")
    for other, what in (
        (open_source("folder", root, ["train"]), "dataset 'lasot', not 'folder'"),
        (open_source("lasot", root, ["train", "val"]), "splits"),
        (open_source("lasot", root, ["train"], {"holdout": True}), "options"),
    ):
        with pytest.raises(InvalidArgumentError, match=f"holds a pack with {what}"):
            find_complete(other, 5, tmp_path / "pack")


def test_a_damaged_manifest_is_an_error(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path)
    path = tmp_path / MANIFEST
    text = path.read_text()
    for damaged in (text.replace('"test": 5', '"test": 4'), text[:-20], "[]", "{}", ""):
        path.write_text(damaged)
        with pytest.raises(SltGymError, match=r"is damaged, pack\.json"):
            open_dataset("folder", tmp_path, "test")
    path.write_text(text)
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace("bear-1", "bear-3"))
    with pytest.raises(SltGymError, match=r"is damaged, index\.json: its checksum differs"):
        open_dataset("folder", tmp_path, "test")


def test_a_newer_format_is_an_error(root: Path, tmp_path: Path, monkeypatch) -> None:
    write_manifest(tmp_path, pack(root, tmp_path))
    content = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(InvalidArgumentError, match=r"has format 2, .* up to 1: update slt_gym"):
        read_manifest(tmp_path)
    monkeypatch.setattr(manifest_module, "FORMAT", 2)
    with pytest.raises(SltGymError, match="checksum"):
        read_manifest(tmp_path)


def test_opening_a_folder_does_not_import_lmdb(root: Path) -> None:
    code = (
        "import sys; from slt_gym.data import open_dataset; "
        f"open_dataset('folder', {str(root)!r})[0].read(0); sys.exit('lmdb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TEXT = st.text(max_size=8)


@settings(deadline=None)
@given(
    name=TEXT,
    notes=st.lists(TEXT, max_size=3),
    boxes=st.lists(st.tuples(*[st.floats(width=64)] * 4), max_size=5),
    attributes=st.dictionaries(
        TEXT,
        st.one_of(
            TEXT.map(np.array),
            st.lists(st.booleans(), max_size=4).map(np.array),
            st.lists(st.integers(-9, 9), max_size=6).map(lambda x: np.array([x, x], np.int16)),
            st.floats(),
        ),
        max_size=4,
    ),
)
def test_records_come_back(name, notes, boxes, attributes) -> None:
    sequence = Drawn(name, np.array(boxes, np.float64).reshape(-1, 4), None, attributes, notes)
    frames = np.arange(len(boxes)) * 3
    content = encode_record(sequence, frames)
    assert encode_record(sequence, frames) == content
    value = seal(content)
    record = decode_record(unseal(value))
    assert (record.name, list(record.notes)) == (name, notes)
    np.testing.assert_array_equal(record.boxes, sequence.boxes, strict=True)
    np.testing.assert_array_equal(record.visible, sequence.visible, strict=True)
    np.testing.assert_array_equal(record.frames, frames)
    assert list(record.attributes) == list(attributes)
    for key, expected in attributes.items():
        np.testing.assert_array_equal(record.attributes[key], np.asarray(expected), strict=True)
    assert is_whole(value)
    for byte in range(0, len(value), 7):
        broken = bytearray(value)
        broken[byte] ^= 1
        assert not is_whole(bytes(broken))


def test_records_refuse_python_objects() -> None:
    sequence = Drawn("a", [[1, 1, 2, 2]], attributes={"tags": np.array([{}], object)})
    with pytest.raises(AnnotationError, match=r"attribute 'tags' of sequence 'a' has dtype object"):
        encode_record(sequence, [0])


def test_keys_sort_like_numbers_frames_first() -> None:
    numbers = [0, 1, 255, 256, 65536, 2**32 - 1]
    keys = [*map(frame_key, numbers), *map(sequence_key, numbers)]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_a_pack_that_was_killed_at_once(root: Path, tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).mkdir()
    check_output(root, tmp_path)  # killed before anything was written
    with pytest.raises(DatasetNotFoundError, match="unfinished"):
        open_dataset("folder", tmp_path, "test")
    assert [path.name for path in tmp_path.iterdir()] == [UNFINISHED]
