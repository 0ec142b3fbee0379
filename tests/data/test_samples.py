"""Sample datasets: what each reader makes of them is what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from slt_gym.data import Sequence, list_datasets, open_dataset
from slt_gym.data.samples import Source, Written, count_images, list_samples, write_sample
from slt_gym.data.samples.vot import encode_mask
from slt_gym.data.samples.writing import clip_boxes
from slt_gym.errors import InvalidArgumentError

LENGTH, WIDTH, HEIGHT = 12, 96, 80
SOURCE = Source(2, LENGTH, WIDTH, HEIGHT, 1)
PARTS = [(name, split) for name, splits in list_samples().items() for split in splits]

Write = Callable[[str], tuple[Path, Written]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write a sample dataset, once for all tests."""
    kept: dict[str, tuple[Path, Written]] = {}

    def write(name: str) -> tuple[Path, Written]:
        if name not in kept:
            root = tmp_path_factory.mktemp("samples") / name
            kept[name] = root, write_sample(name, root, SOURCE)
        return kept[name]

    return write


def test_every_dataset_has_a_sample() -> None:
    assert {*list_samples(), "synthetic"} == set(list_datasets())


def first_only(name: str, split: str) -> bool:
    return split == "test" and name in ("got10k", "trackingnet")


def expected_visible(name: str, split: str, sequence: Sequence) -> NDArray[np.bool_]:
    if first_only(name, split):
        return np.arange(len(sequence)) == 0
    if name in ("otb100", "trackingnet", "vot2018", "vot2020"):  # These have no such flags.
        return np.ones(len(sequence), bool)
    return sequence.visible


def expected_boxes(name: str, sequence: Sequence) -> tuple[NDArray[np.float64], float]:
    """Return the boxes, and by how much the format's rounding may change them."""
    boxes = sequence.boxes
    if name in ("vid", "vot2020"):
        boxes = clip_boxes(boxes, WIDTH, HEIGHT)
    return boxes, {
        "coco": 0.005,
        "folder": 0.005,
        "got10k": 5e-5,
        "trackingnet": 0.005,
        "video": 0.005,
        "vot2018": 1e-4,
        "vot2020": 1.0,  # pixels of the mask
    }.get(name, 0.5)


@pytest.mark.parametrize(("name", "split"), PARTS)
def test_the_reader_finds_what_was_written(name: str, split: str, sample: Write) -> None:
    root, written = sample(name)
    dataset = open_dataset(name, root, split)
    assert sorted(dataset.names) == sorted(written[split])
    assert len(dataset) == SOURCE.sequences
    for sequence in dataset:
        source = written[split][sequence.name]
        frames = np.arange(1 if name == "coco" else LENGTH)
        if name == "youtubebb":
            frames = np.flatnonzero(source.visible)
        assert len(sequence) == len(frames)
        assert sequence.notes == ()
        visible = expected_visible(name, split, source)[frames]
        np.testing.assert_array_equal(sequence.visible, visible)
        if name == "youtubebb":
            check_crops(sequence, source, frames)
            continue
        boxes, tolerance = expected_boxes(name, source)
        np.testing.assert_allclose(
            sequence.boxes[visible], boxes[frames][visible], rtol=0, atol=tolerance + 1e-9
        )
        for t in (0, len(frames) - 1):
            errors = [difference(sequence.read(t), source.read(k)) for k in range(LENGTH)]
            assert np.argmin(errors) == t
            assert errors[t] < 8
        mask, expected = sequence.read_mask(0), source.read_mask(0)
        if name in ("coco", "vot2020"):
            assert mask is not None
            assert expected is not None
            assert expected.any()
            assert (mask != expected).sum() <= 0.02 * expected.sum()
        else:
            assert mask is None


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(abs(a.astype(int) - b).mean())


def check_crops(sequence: Sequence, source: Sequence, frames: NDArray[np.int64]) -> None:
    """Compare with PySOT's crops of 511 pixels around the target."""
    w, h = source.boxes[frames, 2:].T
    scale = 127 / np.sqrt((w + (w + h) / 2) * (h + (w + h) / 2))
    size = np.stack([w, h], axis=1) * scale[:, None]
    np.testing.assert_allclose(sequence.boxes[:, 2:], size, rtol=0.01)
    centre = sequence.boxes[:, :2] + sequence.boxes[:, 2:] / 2
    np.testing.assert_allclose(centre, 255)
    assert sequence.read(0).shape == (511, 511, 3)


def test_the_target_disappears_where_the_format_can_say_so(sample: Write) -> None:
    for name, split in PARTS:
        root, written = sample(name)
        first = next(iter(written[split].values()))
        assert not first.visible.all()
        assert first.visible[0]
        sequence = open_dataset(name, root, split).get(next(iter(written[split])))
        absent = ~first.visible
        flags = sequence.attributes
        if name in ("lasot", "lasotext"):
            flagged = flags["full_occlusion"] | flags["out_of_view"]
            np.testing.assert_array_equal(flagged, absent)
        elif name == "got10k" and split != "test":
            np.testing.assert_array_equal(flags["absence"], absent)
            np.testing.assert_array_equal(flags["cover"] == 0, absent)
        elif name == "nfs":
            np.testing.assert_array_equal(flags["lost"], absent)
        elif name == "vid":
            np.testing.assert_array_equal(flags["occluded"], absent)
        elif name in ("uav123", "uav20l"):
            np.testing.assert_array_equal(np.isnan(sequence.boxes).any(axis=1), absent)
        elif name in ("tnl2k", "folder", "video"):
            np.testing.assert_array_equal((sequence.boxes == 0).all(axis=1), absent)


def test_all_splits_and_frames_are_counted(tmp_path: Path) -> None:
    frames = []
    source = Source(2, 4, 64, 64, 0, lambda: frames.append(1))
    for name in ("coco", "lasot", "otb100"):
        frames.clear()
        write_sample(name, tmp_path / name, source)
        assert len(frames) == count_images(name, 2, 4)
    assert len(list((tmp_path / "lasot").rglob("*.jpg"))) == 2 * 2 * 4


def test_the_seed_decides(tmp_path: Path) -> None:
    def content(seed: int, folder: str) -> dict[str, bytes]:
        write_sample("trackingnet", tmp_path / folder, Source(1, 3, 64, 64, seed))
        files = (path for path in (tmp_path / folder).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / folder)): path.read_bytes() for path in files}

    first = content(5, "a")
    assert content(5, "b") == first
    assert content(6, "c").keys() != first.keys()  # Made-up video ids.


def test_an_empty_folder_is_filled_and_another_one_left_alone(tmp_path: Path) -> None:
    source = Source(1, 2, 64, 64, 0)
    (tmp_path / "empty").mkdir()
    write_sample("otb100", tmp_path / "empty", source)
    assert os.listdir(tmp_path / "empty") == ["Basketball"]  # noqa: PTH208
    with pytest.raises(InvalidArgumentError, match="is there already"):
        write_sample("otb100", tmp_path / "empty", source)
    with pytest.raises(InvalidArgumentError, match="is there already"):
        write_sample("otb100", tmp_path / "empty" / "Basketball" / "groundtruth_rect.txt", source)


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_sample("lasot", tmp_path / "out", Source(1, 2, 64, 64, 0, fail))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 2, 64, 64, 0), "sequences is 0"),
        ((1, 1, 64, 64, 0), "num_frames is 1"),
        ((1, 2, 10, 64, 0), "width is 10"),
        ((1, 2, 64, 64, -1), "seed is -1"),
    ],
)
def test_numbers_are_checked(numbers: tuple[int, int, int, int, int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Source(*numbers)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown layout 'lasott'"):
        write_sample("lasott", tmp_path / "out", SOURCE)
    with pytest.raises(InvalidArgumentError, match="accepted are 1 to 20, as many"):
        write_sample("uav20l", tmp_path / "out", Source(21, 2, 64, 64, 0))
    with pytest.raises(InvalidArgumentError, match="even width and height"):
        write_sample("video", tmp_path / "out", Source(1, 2, 65, 64, 0))
    assert not (tmp_path / "out").exists()


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_masks_come_back(mask: NDArray[np.bool_]) -> None:
    text = encode_mask(mask)
    x, y, width, height, *runs = map(int, text[1:].split(","))
    values = np.arange(len(runs)) % 2 == 1
    decoded = np.zeros_like(mask)
    decoded[y : y + height, x : x + width] = np.repeat(values, runs).reshape(height, width)
    np.testing.assert_array_equal(decoded, mask)
