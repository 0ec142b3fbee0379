"""Writers of the datasets that trackers are trained on."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data.samples.writing import (
    Source,
    Written,
    clip_boxes,
    round_boxes,
    write_lines,
    write_rows,
    write_text,
)
from slt_gym.data.synthetic import SyntheticSequence

_CLASSES = ("airplane", "basketball", "bear", "bicycle", "bird", "boat", "book", "bottle", "bus")
_ID_CHARACTERS = string.ascii_letters + string.digits + "-_"
_TRACKINGNET_CHUNKS = 12
_CROP_SIDE = 511
_META = """\
[METAINFO]
url: https://youtu.be/xxxxxxxxxxx
begin: 00:00:00
end: 00:00:{seconds:02d}
anno_fps: 10Hz
object_class: sprite
motion_class: drifting
major_class: shape
root_class: object
motion_adverb: slowly
resolution: ({width}, {height})
"""
_OBJECT = (
    "\t<object>\n\t\t<trackid>0</trackid>\n\t\t<name>n02084071</name>\n\t\t<bndbox>\n"
    "\t\t\t<xmax>{2}</xmax>\n\t\t\t<xmin>{0}</xmin>\n\t\t\t<ymax>{3}</ymax>\n"
    "\t\t\t<ymin>{1}</ymin>\n\t\t</bndbox>\n\t\t<occluded>{4}</occluded>\n"
    "\t\t<generated>0</generated>\n\t</object>\n"
)
_ANNOTATION = (
    "<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{file}</filename>\n"
    "\t<source>\n\t\t<database>ILSVRC_2015</database>\n\t</source>\n"
    "\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t</size>\n"
    "{objects}</annotation>\n"
)


def write_lasot(root: Path, source: Source) -> Written:
    """Write LaSOT: class folders, flags on one line, and the two lists."""
    written = {}
    for split, part, first in (("train", "training", 2), ("test", "testing", 1)):
        names = (f"{name}-{k}" for k in count(first, 2) for name in _CLASSES)
        written[split] = source.name(split, names)
        for name, sequence in written[split].items():
            write_lasot_sequence(root / name.rpartition("-")[0] / name, source, sequence)
        write_lines(root / f"{part}_set.txt", written[split])
    return written


def write_lasot_sequence(folder: Path, source: Source, sequence: SyntheticSequence) -> None:
    """Write one sequence in LaSOT's manner; its frames without a target keep their boxes."""
    source.write_frames(sequence, folder / "img", "{:08d}.jpg")
    write_rows(folder / "groundtruth.txt", round_boxes(sequence.boxes))
    covered = sequence.attributes["occlusion"] >= sequence.attributes["hidden"] / 2
    for flag, values in (("full_occlusion", covered), ("out_of_view", ~covered)):
        row = (~sequence.visible & values).astype(int)
        write_text(folder / f"{flag}.txt", ",".join(map(str, row)))
    write_lines(folder / "nlp.txt", ["textured shape moving over a textured background"])


def write_trackingnet(root: Path, source: Source) -> Written:
    """Write TrackingNet: chunks of the training part, and the test part with first boxes only."""
    written = {}
    ids = _video_ids(np.random.default_rng(source.seed))
    for split in ("train", "test"):
        written[split] = source.name(split, (f"{video}_0" for video in ids))
        in_chunk = -(-source.sequences // _TRACKINGNET_CHUNKS)
        for k, (name, sequence) in enumerate(written[split].items()):
            part = root / (f"TRAIN_{k // in_chunk}" if split == "train" else "TEST")
            source.write_frames(sequence, part / "frames" / name, "{}.jpg", first=0)
            rows = sequence.boxes if split == "train" else sequence.boxes[:1]
            write_rows(part / "anno" / f"{name}.txt", rows, decimals=2)
    return written


def write_got10k(root: Path, source: Source) -> Written:
    """Write GOT-10k: three parts with labels, of which the test part has first boxes only."""
    written = {}
    for split in ("train", "val", "test"):
        names = (f"GOT-10k_{split.capitalize()}_{k:06d}" for k in count(1))
        written[split] = source.name(split, names)
        for name, sequence in written[split].items():
            folder = root / split / name
            source.write_frames(sequence, folder, "{:08d}.jpg")
            rows = sequence.boxes[:1] if split == "test" else sequence.boxes
            write_rows(folder / "groundtruth.txt", rows, decimals=4)
            if split == "test":
                continue
            hidden = sequence.attributes["hidden"]
            # Eighths that can be seen; a target that counts as visible shows at least one.
            cover = np.where(sequence.visible, np.maximum(np.rint(8 * (1 - hidden)), 1), 0)
            inside = clip_boxes(sequence.boxes, source.width, source.height)
            cut = (inside != sequence.boxes).any(axis=1)
            labels = {"absence": ~sequence.visible, "cover": cover, "cut_by_image": cut}
            for label, values in labels.items():
                write_lines(folder / f"{label}.label", values.astype(int))
            seconds = min(len(sequence) // 10, 59)
            text = _META.format(seconds=seconds, width=source.width, height=source.height)
            write_text(folder / "meta_info.ini", text)
        write_lines(root / split / "list.txt", written[split])
    return written


def write_coco(root: Path, source: Source) -> Written:
    """Write COCO (2017): images with one annotation each, first frames of the sequences."""
    written: Written = {}
    for split in ("train", "val"):
        images, annotations = [], []
        written[split] = {}
        for k, sequence in enumerate(source.draw(split)):
            image_id, annotation_id = 9 + 16 * k, 1001 + k
            file = f"{image_id:012d}.jpg"
            source.write_image(root / "images" / f"{split}2017" / file, sequence.read(0))
            size = {"width": source.width, "height": source.height}
            images.append({"id": image_id, "file_name": file, "license": 1, **size})
            x, y, w, h = np.round(sequence.boxes[0], 2).tolist()
            # Nothing covers the target in a first frame: its outline is its mask's.
            target = sequence.scene.things[sequence.scene.target]
            outline = target.shape.pose(target.track, slice(0, 1)).reshape(-1).tolist()
            annotations.append(
                {
                    "id": annotation_id,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": float(np.count_nonzero(sequence.read_mask(0))),
                    "iscrowd": 0,
                    "segmentation": [[round(value, 2) for value in outline]],
                }
            )
            written[split][f"{image_id:012d}-{annotation_id}"] = sequence
        content = {
            "info": {"description": "Synthetic frames in COCO's layout", "year": 2017},
            "licenses": [{"id": 1, "name": "none", "url": ""}],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "sprite", "supercategory": "shape"}],
        }
        write_text(root / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    return written


def write_vid(root: Path, source: Source) -> Written:
    """Write ImageNet-VID: one XML file a frame; a hidden target is marked as occluded."""
    written: Written = {}
    for split in ("train", "val"):
        written[split] = {}
        for k, sequence in enumerate(source.draw(split)):
            video = f"ILSVRC2015_{split}_{1000 * k:08d}"
            place = f"VID/train/ILSVRC2015_VID_train_0000/{video}"
            if split == "val":
                place = f"VID/val/{video}"
            source.write_frames(sequence, root / "Data" / place, "{:06d}.JPEG", first=0)
            boxes = round_boxes(clip_boxes(sequence.boxes, source.width, source.height))
            boxes[:, 2:] += boxes[:, :2]
            for t, corners in enumerate(boxes.astype(int).tolist()):
                text = _ANNOTATION.format(
                    folder=video,
                    file=f"{t:06d}",
                    width=source.width,
                    height=source.height,
                    objects=_OBJECT.format(*corners, int(not sequence.visible[t])),
                )
                write_text(root / "Annotations" / place / f"{t:06d}.xml", text)
            written[split][f"{video}-0"] = sequence
    return written


def write_youtubebb(root: Path, source: Source) -> Written:
    """Write YouTube-BB as it is used: crops of 511 pixels around the target, and one JSON file."""
    part = "yt_bb_detection_train"
    tracks: dict[str, dict[str, dict[str, list[float]]]] = {}
    written: Written = {"train": {}}
    ids = _video_ids(np.random.default_rng(source.seed))
    for sequence, video in zip(source.draw("train"), ids, strict=False):
        folder = f"{part}/0/{video}"
        rows = {}
        for t in range(len(sequence)):
            # A frame without the target has no row and no crop.
            if sequence.visible[t]:
                crop = _crop_511(sequence.read(t), sequence.boxes[t])
                source.write_image(root / "crop511" / folder / f"{t:06d}.00.x.jpg", crop)
                x, y, w, h = sequence.boxes[t].tolist()
                rows[f"{t:06d}"] = [round(value, 2) for value in (x, y, x + w, y + h)]
        tracks[folder] = {"00": rows}
        written["train"][f"{part}-0-{video}-00"] = sequence
    write_text(root / "train.json", json.dumps(tracks))
    return written


def _crop_511(frame: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cut pysot's training crop, in which a 127-pixel template would hold half of its context."""
    x, y, w, h = box.tolist()
    context = (w + h) / 2
    side = ((w + context) * (h + context)) ** 0.5 * _CROP_SIDE / 127
    scale = (_CROP_SIDE - 1) / side
    matrix = np.array(
        [[scale, 0, scale * (side / 2 - x - w / 2)], [0, scale, scale * (side / 2 - y - h / 2)]]
    )
    fill = frame.mean(axis=(0, 1)).tolist()
    crop = cv2.warpAffine(frame, matrix, (_CROP_SIDE, _CROP_SIDE), borderValue=fill)
    return np.asarray(crop, np.uint8)


def _video_ids(rng: np.random.Generator) -> Iterator[str]:
    """Yield made-up YouTube ids; some start with a dash, or hold underscores."""
    letters = np.array(list(_ID_CHARACTERS))
    while True:
        yield "".join(rng.choice(letters, 11))
