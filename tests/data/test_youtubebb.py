"""YouTube-BB in pysot's crops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset, youtubebb
from slt_gym.data.youtubebb import YouTubeBBDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, InvalidArgumentError

V = "yt_bb_detection_train/0/-9bU-6Ka_w0"
W = "yt_bb_detection_train/23/zzJt8FrjBPE"
TRACKS: dict[str, Any] = {
    V: {
        "00": {"000012": [10, 20, 50, 50], "000002": [10, 20, 40, 60], "000003": [0, 0, 5, -2]},
        "01": {"000002": [1.5, 2, 3, 4]},
        "02": {},
    },
    W: {"00": {"000000": [0, 0, 20, 20], "000001": [0, 0, 22, 20]}},
}


def write(root: Path, tracks: dict[str, Any] = TRACKS, crops: str = "crop511") -> Path:
    for video, entries in tracks.items():
        folder = root / crops / video
        folder.mkdir(parents=True, exist_ok=True)
        for track, rows in entries.items():
            for frame in rows:
                image = np.full((511, 511, 3), 10 * int(frame), np.uint8)
                path = folder / f"{frame}.{track}.x.jpg"
                path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    (root / "train.json").write_text(json.dumps(tracks))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "yt_bb")


NAMES = [
    "yt_bb_detection_train-0--9bU-6Ka_w0-00",
    "yt_bb_detection_train-0--9bU-6Ka_w0-01",
    "yt_bb_detection_train-23-zzJt8FrjBPE-00",
]


def test_tracks_and_their_frames(root: Path):
    dataset = open_dataset("YouTube-BB", root)
    assert (dataset.name, dataset.split, dataset.names) == ("youtubebb", "train", NAMES)
    sequence = dataset[0]
    assert isinstance(sequence, ImageSequence)
    folder = root / "crop511" / V
    assert list(sequence.paths) == [folder / f"0000{t}.00.x.jpg" for t in ("02", "03", "12")]
    assert [round(sequence.read(t).mean()) for t in range(3)] == [20, 30, 120]
    assert sequence.visible.tolist() == [True, False, True]
    assert len(dataset[1]) == 1
    assert list(dataset[1].paths) == [folder / "000002.01.x.jpg"]


def test_boxes_are_those_in_the_crop(root: Path):
    """The target is centred, and drawn at the crop's scale."""
    box = YouTubeBBDataset(root)[0].boxes[0]
    w, h = 30, 40  # of the original frame
    window = np.sqrt((w + 35) * (h + 35))
    np.testing.assert_allclose(box[2:], [w * 127 / window, h * 127 / window])
    np.testing.assert_allclose(box[:2] + box[2:] / 2, [255, 255])
    # A square of 20 has a window of 40, and the crop shows 511 / 127 * 40 pixels of the frame.
    np.testing.assert_allclose(YouTubeBBDataset(root)[2].boxes[0, 2:], [63.5, 63.5])


@pytest.mark.parametrize("size", [(30, 40), (80, 12), (17, 17)])
def test_a_target_that_is_cropped_lies_in_its_box(tmp_path: Path, size: tuple[int, int]):
    """Crop a drawn target as pysot does: a window mapped onto the crop's outermost pixels."""
    (w, h), (x, y) = size, (150, 120)
    frame = np.zeros((300, 400), np.uint8)
    frame[y : y + h, x : x + w] = 255
    side = np.sqrt((w + (w + h) / 2) * (h + (w + h) / 2)) * 511 / 127
    scale = 510 / side
    # Columns x to x + w - 1 are lit: the pixels' centre is half a pixel before the box's.
    cx, cy = x + (w - 1) / 2, y + (h - 1) / 2
    matrix = np.array([[scale, 0, 255 - scale * cx], [0, scale, 255 - scale * cy]])
    lit = cv2.warpAffine(frame, matrix, (511, 511)) > 127
    columns, rows = np.flatnonzero(lit.any(axis=0)), np.flatnonzero(lit.any(axis=1))
    write(tmp_path, {"v": {"00": {"000000": [x, y, x + w, y + h]}}})
    box = YouTubeBBDataset(tmp_path)[0].boxes[0]
    found = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    np.testing.assert_allclose(box, found, atol=1.5)


def test_missing_crops_and_videos_are_left_out(root: Path):
    (root / "crop511" / V / "000003.00.x.jpg").unlink()
    sequence = YouTubeBBDataset(root)[0]
    assert [path.name[:6] for path in sequence.paths] == ["000002", "000012"]
    assert sequence.notes == ("1 of 3 crops are missing and left out",)
    assert sequence.visible.all()
    (root / "crop511" / V / "000002.01.x.jpg").unlink()
    with pytest.raises(DatasetNotFoundError, match="-01' has none of its 1 crops"):
        YouTubeBBDataset(root)[1]
    (root / "crop511" / W).rename(root / "elsewhere")
    assert YouTubeBBDataset(root).names == NAMES[:2]
    (root / "crop511").rename(root / "crops")
    with pytest.raises(DatasetNotFoundError, match="holds crops of none of the videos in"):
        YouTubeBBDataset(root)


def test_where_the_json_file_is(root: Path):
    crops = root / "crop511"
    assert YouTubeBBDataset(crops).names == NAMES
    (root / "train.json").rename(root / "train2017.json")
    assert YouTubeBBDataset(root).names == NAMES
    (root / "train2017.json").rename(crops / "val.json")
    dataset = YouTubeBBDataset(crops, "val")
    assert (dataset.split, dataset.names) == ("val", NAMES)
    with pytest.raises(DatasetNotFoundError) as error:
        YouTubeBBDataset(root)
    assert f"{root} holds no train.json" in str(error.value)
    assert "crop511/yt_bb_detection_train/<class>/<youtubeid>" in str(error.value)
    with pytest.raises(InvalidArgumentError, match="unknown split of youtubebb 'test'"):
        YouTubeBBDataset(root, "test")


def test_pysots_coco(tmp_path: Path):
    video = "train2017/000000000009"
    write(tmp_path, {video: {"00": {"000000": [1, 2, 31, 42]}, "01": {"000000": [0, 0, 9, 9]}}})
    dataset = YouTubeBBDataset(tmp_path)
    assert dataset.names == ["train2017-000000000009-00", "train2017-000000000009-01"]
    assert [len(sequence) for sequence in dataset] == [1, 1]


def test_the_file_is_parsed_once_until_it_changes(root: Path, monkeypatch):
    calls = []
    parse = youtubebb._parse
    monkeypatch.setattr(youtubebb, "_parse", lambda path: calls.append(path) or parse(path))
    for _ in range(3):
        assert YouTubeBBDataset(root).names == NAMES
    assert len(calls) == 1
    (root / "train.json").write_text(json.dumps({W: TRACKS[W]}))
    assert YouTubeBBDataset(root).names == NAMES[2:]
    assert len(calls) == 2


def test_nothing_is_written_beside_the_data(root: Path):
    before = sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*"))
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert [sequence.read(0).shape for sequence in YouTubeBBDataset(root)] == [(511, 511, 3)] * 3
    assert sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"v": 3}',
        '{"v": {"00": 3}}',
        '{"v": {"00": {"000000": [1, 2, 3]}}}',
        '{"v": {"00": {"000000": [1, 2, 3, "x"]}}}',
        '{"v": {"00": {"first": [1, 2, 3, 4]}}}',
        '{"v": {"000000": [1, 2, 3, 4]}}',
    ],
)
def test_a_broken_file_is_named(root: Path, text: str):
    (root / "train.json").write_text(text)
    with pytest.raises(AnnotationError, match=r"train\.json is not a file of \{video: \{track:"):
        YouTubeBBDataset(root)
