"""ImageNet-VID's objects as sequences."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset, vid
from slt_gym.data.vid import VIDDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

PART = "ILSVRC2015_VID_train_0000"
A, B = "ILSVRC2015_train_00000000", "ILSVRC2015_train_00139005"
VAL = "ILSVRC2015_val_00000000"


def describe(track: str, t: int, occluded: int = 0, width: int = 8) -> str:
    """One object, whose box is (t, 2, width, 5)."""
    return (
        f"\t<object>\n\t\t<trackid>{track}</trackid>\n\t\t<name>n0195834{track}</name>\n\t\t<bndbox>\n"
        f"\t\t\t<xmax>{t + width}</xmax>\n\t\t\t<xmin>{t}</xmin>\n\t\t\t<ymax>7</ymax>\n"
        f"\t\t\t<ymin>2</ymin>\n\t\t</bndbox>\n\t\t<occluded>{occluded}</occluded>\n"
        "\t\t<generated>0</generated>\n\t</object>\n"
    )


def write_video(root: Path, place: str, frames: list[str], write_frames) -> None:
    write_frames(root / "Data" / "VID" / place, len(frames), "{:06d}.JPEG", first=0)
    folder = root / "Annotations" / "VID" / place
    folder.mkdir(parents=True)
    for t, objects in enumerate(frames):
        size = "<size>\n\t\t<width>16</width>\n\t\t<height>12</height>\n\t</size>"
        text = f"<annotation>\n\t<filename>{t:06d}</filename>\n\t{size}\n{objects}</annotation>\n"
        (folder / f"{t:06d}.xml").write_text(text)


@pytest.fixture
def root(tmp_path: Path, write_frames) -> Path:
    base = tmp_path / "ILSVRC2015"
    # Object 1 is there from the first frame to the fourth; 0 from 2 to 4, then again from 6.
    frames = [describe("1", t, occluded=int(t == 2)) if t < 4 else "" for t in range(9)]
    for t in (2, 3, 4, 6, 7, 8):
        frames[t] = describe("0", t) + frames[t]
    write_video(base, f"train/{PART}/{A}", frames, write_frames)
    # Object 5 is there for one frame before its gap, 6 ends with the video.
    frames = [describe("5", t) if t != 1 else "" for t in range(4)]
    frames[2] += describe("6", 2, width=0)
    frames[3] += describe("6", 3)
    write_video(base, f"train/ILSVRC2015_VID_train_0003/{B}", frames, write_frames)
    write_video(base, f"val/{VAL}", [describe("0", t) for t in range(3)], write_frames)
    return base


def test_an_object_lasts_until_its_first_gap(root: Path):
    dataset = open_dataset("VID", root)
    assert (dataset.name, dataset.split) == ("vid", "train")
    assert dataset.names == [f"{A}-1", f"{A}-0", f"{B}-6"]
    sequence = dataset.get(f"{A}-0")
    assert isinstance(sequence, ImageSequence)
    assert [path.name for path in sequence.paths] == [f"{t:06d}.JPEG" for t in (2, 3, 4)]
    assert [round(sequence.read(t).mean() / 10) for t in range(3)] == [3, 4, 5]
    np.testing.assert_array_equal(sequence.boxes, [[t, 2, 8, 5] for t in (2, 3, 4)])
    assert sequence.boxes.dtype == np.float64
    assert str(sequence.attributes["object_class"]) == "n01958340"
    assert sequence.notes == ()


def test_the_occluded_and_the_empty_are_not_visible(root: Path):
    dataset = VIDDataset(root)
    sequence = dataset.get(f"{A}-1")
    assert sequence.visible.tolist() == [True, True, False, True]
    assert sequence.attributes["occluded"].tolist() == [False, False, True, False]
    assert dataset.get(f"{B}-6").visible.tolist() == [False, True]


@pytest.mark.parametrize("above", [False, True])
def test_both_kinds_of_root_and_val(root: Path, above: bool):
    given = root.parent if above else root
    dataset = VIDDataset(given, "val")
    assert (dataset.root, dataset.split, dataset.names) == (root, "val", [f"{VAL}-0"])
    assert len(dataset[0]) == 3
    assert len(VIDDataset(given)) == 3


def test_pysots_links_add_nothing(root: Path):
    names = VIDDataset(root).names
    for part in ("Annotations", "Data"):
        folder = root / part / "VID" / "train"
        (folder / "a").symlink_to(PART)
        (folder / "e").symlink_to("../val")
    assert VIDDataset(root).names == names
    for part in ("Annotations", "Data"):
        folder = root / part / "VID" / "train"
        (folder / "a").unlink()
        (folder / PART).rename(folder / "a")  # a copy under that name is as good
    dataset = VIDDataset(root)
    assert sorted(dataset.names) == sorted(names)
    assert all(len(sequence) > 1 for sequence in dataset)


def test_videos_without_frames_are_left_out(root: Path):
    data = root / "Data" / "VID" / "train"
    shutil.rmtree(data / PART / A)
    assert VIDDataset(root).names == [f"{B}-6"]
    shutil.rmtree(data)
    with pytest.raises(DatasetNotFoundError, match="holds no object with frames in the 2 videos"):
        VIDDataset(root)


def test_missing_frames_and_annotations(root: Path):
    frames = root / "Data" / "VID" / "train" / PART / A
    (frames / "000003.JPEG").rename(root / "kept")
    with pytest.raises(FrameError, match=r"'000004\.JPEG' where '000003\.JPEG' is expected"):
        VIDDataset(root).get(f"{A}-0")
    for t in range(4, 9):
        (frames / f"{t:06d}.JPEG").unlink()
    sequence = VIDDataset(root).get(f"{A}-0")
    assert len(sequence) == 1
    assert sequence.notes == ("3 boxes for 1 frames: the last 2 are left out",)
    (frames / "000002.JPEG").unlink()
    with pytest.raises(DatasetNotFoundError, match="-0' has no frames from 2 in"):
        VIDDataset(root).get(f"{A}-0")
    (root / "Annotations" / "VID" / "train" / PART / A / "000002.xml").unlink()
    assert len(VIDDataset(root).get(f"{A}-1")) == 2  # a frame without its file is a gap


def test_the_files_are_read_once_until_they_change(root: Path, monkeypatch, write_frames):
    calls = []
    read = vid._read_video
    monkeypatch.setattr(
        vid, "_read_video", lambda folder: calls.append(folder.name) or read(folder)
    )
    for _ in range(2):
        assert len(VIDDataset(root)) == 3
    assert sorted(calls) == [A, B]
    VIDDataset(root, "val")
    assert len(calls) == 3
    write_video(
        root, f"train/{PART}/ILSVRC2015_train_00000007", [describe("0", 0)] * 2, write_frames
    )
    assert len(VIDDataset(root)) == 4
    assert len(calls) == 6
    folder = root / "Annotations" / "VID" / "train" / PART / A
    (folder / "000008.xml").unlink()
    os.utime(folder, ns=(1, 1))
    VIDDataset(root)
    assert len(calls) == 9


def test_nothing_is_written_beside_the_data(root: Path):
    before = sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*"))
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert [sequence.read(0).ndim for sequence in VIDDataset(root)] == [3] * 3
    assert sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-30], "ParseError"),
        (lambda text: "", "ParseError"),
        (lambda text: text.replace("xmin>", "xmim>"), "KeyError: 'xmin'"),
        (lambda text: text.replace("<ymax>7", "<ymax>seven"), "ValueError.*seven"),
    ],
)
def test_a_broken_annotation_is_named(root: Path, change, message: str):
    path = root / "Annotations" / "VID" / "train" / PART / A / "000001.xml"
    path.write_text(change(path.read_text()))
    with pytest.raises(AnnotationError, match=rf"000001\.xml is not a whole .*: {message}"):
        VIDDataset(root)
    assert len(VIDDataset(root, "val")) == 1


def test_unknown_splits_and_folders(tmp_path: Path, root: Path):
    with pytest.raises(InvalidArgumentError, match="unknown split of vid 'test'"):
        VIDDataset(root, "test")
    shutil.rmtree(root / "Annotations" / "VID" / "val")
    with pytest.raises(DatasetNotFoundError) as error:
        VIDDataset(root, "val")
    assert f"{root} holds no Annotations/VID/val/" in str(error.value)
    assert "Data/VID/train/ILSVRC2015_VID_train_0000/<video>" in str(error.value)


def test_the_published_layout(layouts: Path):
    root = layouts / "ILSVRC2015"
    dataset = open_dataset("vid", root)
    folders = sorted((root / "Annotations" / "VID" / "train").glob("*/*"))
    assert dataset.names == [f"{folder.name}-0" for folder in folders]
    assert len(dataset) == 2
    for folder, sequence in zip(folders, dataset, strict=True):
        entries = [ElementTree.parse(path).find("object") for path in sorted(folder.iterdir())]
        assert [entry is not None for entry in entries] == [True] * 14 + [False] * 3 + [True] * 7
        rows, occluded = [], []
        for entry in entries[:14]:
            x1, y1, x2, y2 = (
                int(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            rows.append([x1, y1, x2 - x1, y2 - y1])
            occluded.append(entry.findtext("occluded") == "1")
        np.testing.assert_array_equal(sequence.boxes, rows)
        np.testing.assert_array_equal(sequence.attributes["occluded"], occluded)
        np.testing.assert_array_equal(sequence.visible, ~np.array(occluded))
        assert sum(occluded) == 2
        assert str(sequence.attributes["object_class"]) == "n02958343"
        assert isinstance(sequence, ImageSequence)
        frames = root / "Data" / "VID" / "train" / folder.parent.name / folder.name
        assert list(sequence.paths) == [frames / f"{t:06d}.JPEG" for t in range(14)]
        assert sequence.read(13).ndim == 3
