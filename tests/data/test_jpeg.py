"""JPEG frames decoded at a fraction of their size, by every kind of sequence that can."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from slt_gym.data import ImageSequence, draw_clip, open_dataset
from slt_gym.data.jpeg import FACTORS, decode_reduced
from slt_gym.data.pack.plan import make_plan, open_source
from slt_gym.data.pack.writer import write_pack

SMOOTH = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)


def encode(width: int, height: int, *options: int, suffix: str = ".jpg") -> bytes:
    frame = cv2.resize(SMOOTH, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(suffix, frame, options)[1].tobytes()


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [(96, 64), (97, 71), (40, 200)])
@pytest.mark.parametrize("progressive", [0, 1])
def test_pixels_are_means_of_blocks(factor: int, size: tuple[int, int], progressive: int) -> None:
    data = encode(*size, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    reduced = decode_reduced(memoryview(data), factor)
    assert reduced is not None
    assert reduced[1:] == (size, factor)
    assert reduced.pixels.shape == (-(-size[1] // factor), -(-size[0] // factor), 3)
    rows, columns = size[1] // factor, size[0] // factor
    blocks = decode(data)[: rows * factor, : columns * factor].astype(float)
    means = blocks.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    difference = np.abs(reduced.pixels[:rows, :columns] - means)
    assert difference.mean() < 4
    # The mean colour is the same, channel by channel: RGB, not BGR.
    assert np.abs((reduced.pixels[:rows, :columns] - means).mean(axis=(0, 1))).max() < 2


def test_other_formats_and_broken_files_are_not_reduced() -> None:
    data = encode(64, 48)
    for other in (encode(64, 48, suffix=".png"), b"", data[:2], data[:40], b"no image"):
        assert decode_reduced(other, 2) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sequence of two JPEGs, a PNG and a JPEG of another size."""
    images = tmp_path / "folder" / "one" / "img"
    images.mkdir(parents=True)
    for t, (suffix, size) in enumerate(
        [(".jpg", (96, 64)), (".jpg", (96, 64)), (".png", (96, 64)), (".jpg", (50, 30))]
    ):
        (images / f"{t}{suffix}").write_bytes(encode(*size, suffix=suffix))
    (images.parent / "groundtruth.txt").write_text("3,4,10,12\n" * 4)
    return tmp_path / "folder"


def test_every_sequence_of_files_can(folder: Path) -> None:
    plain = open_dataset("folder", folder)[0]
    write_pack(make_plan(open_source("folder", folder, ["train"]), 1 << 30), folder.parent / "pack")
    packed = open_dataset("folder", folder.parent / "pack")[0]
    mixed = open_dataset("folder+synthetic", {"folder": str(folder)})[0]
    assert isinstance(plain, ImageSequence)
    for t in range(4):
        first = plain.read_reduced(t, 2)
        assert first.factor == (1 if t == 2 else 2)
        assert first.size == ((50, 30) if t == 3 else (96, 64))
        for sequence in (packed, mixed):
            np.testing.assert_array_equal(sequence.read_reduced(t, 2).pixels, first.pixels)
        if first.factor == 1:
            np.testing.assert_array_equal(first.pixels, plain.read(t))


def test_what_is_drawn_or_augmented_stays_whole(folder: Path) -> None:
    drawn = open_dataset("synthetic")[0].read_reduced(0, 2)
    assert (drawn.factor, drawn.size) == (1, drawn.pixels.shape[1::-1])
    clip = draw_clip(open_dataset("folder", folder), np.random.default_rng(0), 3)
    assert clip.read_reduced(0, 1).factor == 1
    np.testing.assert_array_equal(clip.read_reduced(1, 1).pixels, clip.read(1))
