"""Lists of frame files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from slt_gym.data.frames import (
    FramePaths,
    list_frame_range,
    list_frames,
    list_numbered_frames,
    sort_naturally,
)
from slt_gym.errors import FrameError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_numbers_order_the_frames(tmp_path: Path):
    touch(tmp_path, "10.jpg", "2.jpg", "0.jpg", "100.jpg")
    assert [p.name for p in list_frames(tmp_path)] == ["0.jpg", "2.jpg", "10.jpg", "100.jpg"]


def test_only_images_that_are_not_hidden(tmp_path: Path):
    touch(tmp_path, "1.jpg", "2.JPEG", "3.png", "4.BMP", "5.txt", "._1.jpg", "6.jpg.part")
    assert [p.name for p in list_frames(tmp_path)] == ["1.jpg", "2.JPEG", "3.png", "4.BMP"]


@pytest.mark.parametrize(
    "names",
    [
        ["00000002.jpg", "00000010.jpg"],
        ["person-2", "person-10", "person-10-1", "robot-1"],
        ["a1b2", "a1b10", "a2b1", "b"],
        ["01.jpg", "1.jpg", "2.jpg"],
        [],
    ],
)
def test_natural_order(names: list[str]):
    assert sort_naturally(names[::-1]) == names


def test_paths_are_a_sequence(tmp_path: Path):
    paths = FramePaths(tmp_path, ["1.jpg", "2.jpg", "größe-3.jpg"])
    assert len(paths) == 3
    assert paths[0] == tmp_path / "1.jpg"
    assert paths[-1] == tmp_path / "größe-3.jpg"
    assert list(paths[1:]) == list(paths)[1:]
    assert list(pickle.loads(pickle.dumps(paths))) == list(paths)
    with pytest.raises(IndexError):
        paths[3]
    assert len(FramePaths(tmp_path, [])) == 0


def test_a_long_list_is_small(tmp_path: Path):
    paths = FramePaths(tmp_path, [f"{t:08d}.jpg" for t in range(1000)])
    assert len(pickle.dumps(paths)) < 15_000


def test_numbered_frames_are_all_listed(tmp_path: Path):
    touch(tmp_path, "00000001.jpg", "00000002.jpg", "00000003.jpg")
    for count in (2, 3, 9):
        assert len(list_numbered_frames(tmp_path, "{:08d}.jpg", count)) == 3


def test_numbering_may_start_elsewhere(tmp_path: Path):
    touch(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    assert len(list_numbered_frames(tmp_path, "{}.jpg", 3, first=0)) == 3
    with pytest.raises(FrameError, match=r"holds '0\.jpg' where '1\.jpg' is expected.* from 1 "):
        list_numbered_frames(tmp_path, "{}.jpg", 3)


def test_a_gap_is_named(tmp_path: Path):
    touch(tmp_path, "00000001.jpg", "00000002.jpg", "00000004.jpg")
    # Beyond the frames that have a box a gap does no harm.
    assert len(list_numbered_frames(tmp_path, "{:08d}.jpg", 2)) == 3
    with pytest.raises(
        FrameError, match=r"holds '00000004\.jpg' where '00000003\.jpg' is expected"
    ):
        list_numbered_frames(tmp_path, "{:08d}.jpg", 4)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FrameError, match=r"cannot list .*img: No such file"):
        list_frames(tmp_path / "img")


@pytest.mark.parametrize("pattern", ["{:04d}.jpg", "{:05d}.png", "{}.jpg"])
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_range_goes_by_the_numbers_in_the_names(tmp_path: Path, pattern: str, start: int):
    touch(tmp_path, *(pattern.format(t) for t in range(start, 13)))

    def listed(first: int, last: int | None = None) -> list[str]:
        return [path.name for path in list_frame_range(tmp_path, first, last)]

    assert listed(3) == [pattern.format(t) for t in range(3, 13)]
    assert listed(4, 11) == [pattern.format(t) for t in range(4, 12)]
    assert listed(10, 40) == [pattern.format(t) for t in range(10, 13)]
    assert listed(20, 30) == []


def test_a_range_in_which_a_frame_is_missing(tmp_path: Path):
    assert len(list_frame_range(tmp_path)) == 0
    touch(tmp_path, "0003.jpg", "0004.jpg", "0006.jpg", "0007.jpg")
    assert len(list_frame_range(tmp_path, 3, 4)) == 2
    with pytest.raises(FrameError, match=r"'0006\.jpg' where '0005\.jpg' is expected"):
        list_frame_range(tmp_path, 6, 7)
    with pytest.raises(FrameError, match=r"begins with '0003\.jpg': .* 1 among them"):
        list_frame_range(tmp_path)
    touch(tmp_path, "0_cover.jpg")
    with pytest.raises(FrameError, match=r"begins with '0_cover\.jpg'"):
        list_frame_range(tmp_path, 3, 4)
