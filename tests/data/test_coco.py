"""COCO's annotations as sequences of one frame."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest

import slt_gym  # noqa: F401 (registers the environments)
from slt_gym.data import ImageSequence, coco, open_dataset
from slt_gym.data.coco import COCODataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

RLE = {"counts": [0, 10, 182], "size": [12, 16]}


def annotate(number: int, image: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    row = {"id": number, "image_id": image, "category_id": 90, "bbox": bbox, "iscrowd": 0}
    return {"segmentation": [[1, 2, 3, 4, 5, 6]], "area": 3.5, **row, **more}


def content(pattern: str = "{:012d}.jpg") -> dict[str, Any]:
    return {
        "info": {"description": "COCO", "year": 2017},
        "licenses": [{"id": 1, "name": "Attribution", "url": ""}],
        "images": [
            {"id": k, "file_name": pattern.format(k), "license": 1} for k in (9, 25, 581929)
        ],
        "annotations": [
            annotate(1768, 581929, [1.08, 2.69, 5.25, 6.5]),
            annotate(40, 9, [0, 0, 3, 4], category_id=3),
            annotate(41, 9, [0, 0, 9, 9], iscrowd=1, segmentation=RLE),
            annotate(42, 9, [2.5, 2, 0, 5]),
            annotate(900100, 25, [7, 1.5, 2, 2]),
        ],
        "categories": [
            {"id": 3, "name": "car", "supercategory": "vehicle"},
            {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
        ],
    }


def write(root: Path, part: str, data: Any, images: str = "images") -> Path:
    """Write an annotation file, and images as bright as their id ends."""
    folder = root / images / part
    folder.mkdir(parents=True)
    for entry in data["images"]:
        frame = np.full((12, 16, 3), entry["id"] % 100, np.uint8)
        (folder / entry["file_name"]).write_bytes(cv2.imencode(".jpg", frame)[1].tobytes())
    path = root / "annotations" / f"instances_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "COCO", "train2017", content())
    return tmp_path / "COCO"


def add_segmentations(data: dict[str, Any], **segmentations: Any) -> dict[str, Any]:
    """Put segmentations, by the annotations' numbers, and the images' sizes into a file."""
    for image in data["images"]:
        image.update(width=16, height=12)
    for row in data["annotations"]:
        row["segmentation"] = segmentations.get(f"n{row['id']}", row["segmentation"])
    return data


def test_masks_of_polygons_and_runs(tmp_path: Path):
    # Two polygons; runs column by column, plain and compressed; nothing.
    data = add_segmentations(
        content(),
        n1768=[[1, 2, 5, 2, 5, 8, 1, 8], [8.0, 3.0, 10.0, 3.0, 10.0, 4.0, 8.0, 4.0]],
        n40={"counts": [0, 3, 9, 3, 177], "size": [12, 16]},
        n42=[],
        n900100={"counts": "61X13mN", "size": [12, 16]},  # 6, 1, 40, 4, 5
    )
    path = write(tmp_path, "train2017", data)
    dataset = COCODataset(tmp_path)
    expected = np.zeros((4, 12, 16), bool)
    expected[0, 2:8, 1:5] = expected[0, 3, 8:10] = True
    expected[1, :3, :2] = True
    for pixel in (6, 47, 48, 49, 50):
        expected[3, pixel % 12, pixel // 12] = True
    for sequence, mask in zip(dataset, expected, strict=True):
        found = sequence.read_mask(0)
        if sequence.name.endswith("-42"):
            assert found is None
        else:
            np.testing.assert_array_equal(found, mask)
            assert found.shape == sequence.read(0).shape[:2]
    with pytest.raises(FrameError, match="no frame 1"):
        dataset[0].read_mask(1)
    # A second opening reads the index, not the file.
    state = path.stat()
    path.write_bytes(b" " * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    np.testing.assert_array_equal(COCODataset(tmp_path)[0].read_mask(0), expected[0])


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 2, 3, 4]], "less than three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "ValueError"),
        ({"counts": [0, 200], "size": [12, 16]}, "do not fit into 192"),
        ({"size": [12, 16]}, "KeyError: 'counts'"),
        ("polygon", "gives no mask"),
    ],
)
def test_segmentations_that_are_none(tmp_path: Path, segmentation: Any, reason: str):
    write(tmp_path, "train2017", add_segmentations(content(), n40=segmentation))
    dataset = COCODataset(tmp_path)
    with pytest.raises(AnnotationError, match=rf"train2017\.json, annotation 40.*{reason}"):
        dataset[0].read_mask(0)


def test_polygons_of_images_without_a_size(root: Path):
    with pytest.raises(AnnotationError, match="no width and height"):
        COCODataset(root)[0].read_mask(0)


NAMES = ["000000581929-1768", "000000000009-40", "000000000009-42", "000000000025-900100"]


def test_one_frame_for_each_annotation_that_is_no_crowd(root: Path):
    dataset = open_dataset("COCO", root)
    assert (dataset.name, dataset.split, dataset.names) == ("coco", "train", NAMES)
    for sequence, box, brightness in zip(
        dataset,
        [[1.08, 2.69, 5.25, 6.5], [0, 0, 3, 4], [2.5, 2, 0, 5], [7, 1.5, 2, 2]],
        [29, 9, 9, 25],
        strict=True,
    ):
        assert len(sequence) == 1
        assert sequence.boxes.dtype == np.float64
        np.testing.assert_array_equal(sequence.boxes, [box])
        assert abs(int(sequence.read(0).mean()) - brightness) <= 1
        assert sequence.visible.tolist() == [box[2] > 0]
    classes = [str(sequence.attributes["object_class"]) for sequence in dataset]
    assert classes == ["toothbrush", "car", "toothbrush", "toothbrush"]
    assert dataset.get("000000000009-42").attributes["object_class"].shape == ()


@pytest.mark.parametrize("images", ["images", "."])
@pytest.mark.parametrize("year", [2014, 2017])
def test_both_years_with_or_without_images(tmp_path: Path, year: int, images: str):
    pattern = f"COCO_val{year}_{{:012d}}.jpg" if year == 2014 else "{:012d}.jpg"
    write(tmp_path, f"val{year}", content(pattern), images)
    for asked in (None, year):
        dataset = COCODataset(tmp_path, "val", year=asked)
        assert (dataset.split, dataset.names) == ("val", NAMES)
        sequence = dataset[1]
        assert isinstance(sequence, ImageSequence)
        assert sequence.paths[0].name == pattern.format(9)
        assert sequence.read(0).shape == (12, 16, 3)
    with pytest.raises(
        DatasetNotFoundError, match=r"does not hold annotations/instances_train2017"
    ):
        COCODataset(tmp_path, "train")


def test_of_two_years_2017_comes_first(root: Path):
    data = content("COCO_train2014_{:012d}.jpg")
    data["annotations"] = data["annotations"][:1]
    write(root, "train2014", data)
    assert len(COCODataset(root)) == 4
    assert len(COCODataset(root, year=2014)) == 1
    assert len(COCODataset(root, year=2017)) == 4
    with pytest.raises(InvalidArgumentError, match=r"year=2015 of coco: accepted are None, 2014"):
        COCODataset(root, year=2015)


def test_images_that_are_not_there_are_left_out(root: Path):
    images = root / "images" / "train2017"
    dataset = COCODataset(root)
    (images / "000000000009.jpg").unlink()
    with pytest.raises(FrameError, match=r"000000000009\.jpg"):
        dataset[1].read(0)
    assert COCODataset(root).names == [NAMES[0], NAMES[3]]
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"holds none of the images that .*train2017"):
        COCODataset(root)
    images.rmdir()
    with pytest.raises(DatasetNotFoundError, match="neither images/train2017/ nor train2017/"):
        COCODataset(root)


def test_the_file_is_parsed_once_until_it_changes(root: Path, monkeypatch):
    calls = []
    parse = coco._parse
    monkeypatch.setattr(coco, "_parse", lambda path: calls.append(path) or parse(path))
    for _ in range(3):
        dataset = COCODataset(root)
        assert dataset.names == NAMES
        np.testing.assert_array_equal(dataset[0].boxes, [[1.08, 2.69, 5.25, 6.5]])
    path = root / "annotations" / "instances_train2017.json"
    assert calls == [path]
    data = content()
    del data["annotations"][0]
    path.write_text(json.dumps(data))
    assert COCODataset(root).names == NAMES[1:]
    assert len(calls) == 2
    COCODataset(root)
    os.utime(root / "images" / "train2017", ns=(1, 1))
    COCODataset(root)
    assert len(calls) == 3


def test_nothing_is_written_beside_the_data(root: Path):
    before = sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*"))
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert [sequence.read(0).ndim for sequence in COCODataset(root)] == [3] * 4
    assert sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*")) == before


def broken(change) -> str:
    data = content()
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', r"is not a whole COCO annotation file: JSONDecodeError.*line 1 column"),
        ("[]", "is not a whole COCO annotation file: TypeError"),
        ("{}", "is not a whole COCO annotation file: KeyError: 'images'"),
        (broken(lambda d: d.pop("categories")), "KeyError: 'categories'"),
        (
            broken(lambda d: d["annotations"][1].pop("image_id")),
            r"object 7 \(id 40\) is not a COCO annotation or image: KeyError: 'image_id'",
        ),
        (broken(lambda d: d["annotations"][3].update(bbox=[1, 2])), r"\(id 42\).*ValueError"),
        (broken(lambda d: d["annotations"][3].update(bbox=None)), r"\(id 42\).*TypeError"),
        (broken(lambda d: d["annotations"][3].update(category_id=5)), "unknown category 5"),
        (broken(lambda d: d["annotations"][3].update(id=40)), "same id to several annotations"),
    ],
)
def test_a_broken_file_is_named(root: Path, text: str, message: str):
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message) as error:
        COCODataset(root)
    assert str(path) in str(error.value)


def test_unknown_splits_and_folders(tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match="unknown split of coco 'test'"):
        COCODataset(tmp_path, "test")
    with pytest.raises(DatasetNotFoundError) as error:
        COCODataset(tmp_path)
    message = str(error.value)
    assert "annotations/instances_train2017.json nor annotations/instances_train2014" in message
    assert "images/train2017/000000000009.jpg" in message


def test_the_environment_can_be_made(root: Path):
    env = gym.make("SLTTrack-COCO-v0", root=str(root), geometry="transt-tiny")
    assert env.unwrapped.split == "train"


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("val", 3)])
def test_the_published_layout(layouts: Path, split: str, count: int):
    root = layouts / "COCO"
    data = json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())
    files = {entry["id"]: entry["file_name"] for entry in data["images"]}
    kinds = {entry["id"]: entry["name"] for entry in data["categories"]}
    dataset = open_dataset("coco", root, split)
    rows = [row for row in data["annotations"] if not row["iscrowd"]]
    assert len(dataset) == len(rows) == count
    for row, sequence in zip(rows, dataset, strict=True):
        assert sequence.name == f"{row['image_id']:012d}-{row['id']}"
        assert isinstance(sequence, ImageSequence)
        path = root / "images" / f"{split}2017" / files[row["image_id"]]
        assert list(sequence.paths) == [path]
        assert sequence.read(0).ndim == 3
        np.testing.assert_array_equal(sequence.boxes, [row["bbox"]])
        assert sequence.visible.tolist() == [row["bbox"][2] > 0 and row["bbox"][3] > 0]
        assert str(sequence.attributes["object_class"]) == kinds[row["category_id"]]
    assert (~np.concatenate([sequence.visible for sequence in dataset])).sum() == 1
