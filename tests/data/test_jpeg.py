"""JPEG frames decoded in part or at a fraction of their size, by every sequence that can."""

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


NOISE = np.random.default_rng(1).integers(0, 256, (203, 57, 3), np.uint8)
SAMPLING = {
    name: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
    for name in ("411", "420", "422", "440", "444")
}


def encode_noise(*options: int) -> bytes:
    return cv2.imencode(".jpg", NOISE, options)[1].tobytes()


@pytest.mark.parametrize("factor", [1, *FACTORS])
@pytest.mark.parametrize("sampling", SAMPLING)
def test_upper_rows_are_those_of_the_whole_frame(
    factor: int, sampling: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode_noise(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[sampling])
    whole = decode(data) if factor == 1 else decode_reduced(data, factor).pixels  # type: ignore[union-attr]
    fewer = 0
    for rows in range(-1, 205):
        part = decode_reduced(memoryview(data), factor, rows)
        if part is None:  # all are as fast
            assert factor == 1
            assert rows > 144
            continue
        assert part[1:] == ((57, 203), factor)
        assert part.rows >= min(rows, 203)
        assert part.rows <= max(rows, 0) + 32 or part.rows == 203
        np.testing.assert_array_equal(part.pixels, whole[: len(part.pixels)])
        fewer += part.rows < 203
    assert fewer == 146  # down to row 144: of more, little can be left out
    assert capfd.readouterr() == ("", "")  # libjpeg does not warn of what it leaves out


def test_where_rows_do_not_stand_alone_the_frame_is_decoded_whole() -> None:
    plain = encode_noise()
    assert decode_reduced(plain, 1, 20) is not None
    exif = b"\xff\xe1\x00\x08Exif\x00\x00"
    others = {
        "several passes": encode_noise(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "marks in between": encode_noise(cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "perhaps turned": plain[:2] + exif + plain[2:],
        "cut off": plain[:-2],
        "more behind": plain + b"\0\0",
        "cut off early": plain[:400],
        "a header": plain[:20],
        "another format": cv2.imencode(".png", NOISE)[1].tobytes(),
        "nothing": b"",
    }
    for name, data in others.items():
        assert decode_reduced(data, 1, 20) is None, name


def test_a_frame_of_which_all_is_needed_is_whole() -> None:
    data = encode_noise()
    assert decode_reduced(data) is None
    assert decode_reduced(data, 1, 203) is None
    reduced = decode_reduced(data, 2, 203)
    assert reduced is not None
    assert (reduced.rows, reduced.pixels.shape) == (203, (102, 29, 3))


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
        part = plain.read_reduced(t, rows=20)
        assert part.rows == (32 if t < 2 else part.size[1])
        for sequence in (packed, mixed):
            np.testing.assert_array_equal(sequence.read_reduced(t, 2).pixels, first.pixels)
            again = sequence.read_reduced(t, rows=20)
            np.testing.assert_array_equal(again.pixels, part.pixels)
        np.testing.assert_array_equal(part.pixels, plain.read(t)[: part.rows])
        if first.factor == 1:
            np.testing.assert_array_equal(first.pixels, plain.read(t))


def test_what_is_drawn_or_augmented_stays_whole(folder: Path) -> None:
    drawn = open_dataset("synthetic")[0].read_reduced(0, 2)
    assert (drawn.factor, drawn.size) == (1, drawn.pixels.shape[1::-1])
    clip = draw_clip(open_dataset("folder", folder), np.random.default_rng(0), 3)
    assert clip.read_reduced(0, 1).factor == 1
    np.testing.assert_array_equal(clip.read_reduced(1, 1).pixels, clip.read(1))
