"""The check of a dataset finds each kind of damage, names it, and finds nothing in a sound one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from slt_gym.data import Sequence, SequenceDataset, list_datasets, open_dataset
from slt_gym.data.checking import DECODE, KINDS, Problem, SequenceCheck, check_dataset
from slt_gym.data.published import SEQUENCES, is_known, official_parts
from slt_gym.data.samples import Source, list_samples, write_sample
from slt_gym.data.truncation import is_truncated
from slt_gym.errors import InvalidArgumentError

LENGTH, WIDTH, HEIGHT = 8, 96, 64
SOURCE = Source(2, LENGTH, WIDTH, HEIGHT, 1)


def check(name: str, root: Path, split: str = "test", decode: str = "all") -> list[SequenceCheck]:
    return list(check_dataset(open_dataset(name, root, split), decode, workers=2))


def find(name: str, root: Path, split: str = "test", decode: str = "all") -> list[Problem]:
    return [problem for found in check(name, root, split, decode) for problem in found.problems]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "lasot"
    write_sample("lasot", root, SOURCE)
    return root


@pytest.fixture
def lasot(sound: Path, tmp_path: Path) -> Path:
    """A copy of a sound dataset, to be damaged: airplane-1 and basketball-1 are its test part."""
    return Path(shutil.copytree(sound, tmp_path / "lasot"))


def frame(root: Path, t: int, sequence: str = "airplane-1") -> Path:
    return root / sequence.rpartition("-")[0] / sequence / "img" / f"{t + 1:08d}.jpg"


def change_box(root: Path, t: int, text: str) -> None:
    path = root / "airplane" / "airplane-1" / "groundtruth.txt"
    rows = path.read_text().splitlines()
    rows[t] = text
    path.write_text("\n".join(rows) + "\n")
    for flag in ("full_occlusion", "out_of_view"):  # The target is there in all frames.
        (path.parent / f"{flag}.txt").write_text(",".join("0" * len(rows)))


@pytest.mark.parametrize("name", list_samples())
def test_a_sound_dataset_has_no_problems(name: str, tmp_path: Path) -> None:
    written = write_sample(name, tmp_path / name, Source(1, 6, WIDTH, HEIGHT, 1))
    for split, sequences in written.items():
        dataset = open_dataset(name, tmp_path / name, split)
        for decode, decoded in (("none", 0), ("all", sum(map(len, dataset)))):
            results = list(check_dataset(dataset, decode))
            assert [result.problems for result in results] == [()] * len(sequences)
            assert [result.frames for result in results] == [len(s) for s in dataset]
            assert [result.visible for result in results] == [s.visible.sum() for s in dataset]
            assert sum(result.decoded for result in results) == decoded


def cut_jpeg(root: Path) -> None:
    data = frame(root, 3).read_bytes()
    frame(root, 3).write_bytes(data[: len(data) // 2])


def fill_with_zeros(root: Path) -> None:
    data = frame(root, 3).read_bytes()  # As a download that was given its place in advance.
    frame(root, 3).write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))


def empty_file(root: Path) -> None:
    frame(root, 3).write_bytes(b"")


def web_page(root: Path) -> None:
    frame(root, 3).write_text("<html>404</html>")


def other_size(root: Path) -> None:
    image = np.zeros((HEIGHT // 2, WIDTH, 3), np.uint8)
    frame(root, 3).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def no_last_frames(root: Path) -> None:
    frame(root, LENGTH - 1).unlink()


def too_many_frames(root: Path) -> None:
    shutil.copy(frame(root, 0), frame(root, LENGTH))


def gap(root: Path) -> None:
    frame(root, 3).unlink()


def no_text_file(root: Path) -> None:
    (root / "airplane" / "airplane-1" / "groundtruth.txt").unlink()


def garbled_row(root: Path) -> None:
    change_box(root, 3, "1,2,three,4")


def no_area(root: Path) -> None:
    change_box(root, 3, "10,10,5,-11")


def no_number(root: Path) -> None:
    change_box(root, 3, "NaN,NaN,NaN,NaN")


def outside(root: Path) -> None:
    change_box(root, 3, f"{WIDTH + 2},10,5,5")


def no_first_box(root: Path) -> None:
    change_box(root, 0, "0,0,0,0")


DAMAGES: list[tuple[Callable[[Path], None], str, int | None, str]] = [
    (cut_jpeg, "truncated", 3, "00000004.jpg"),
    (fill_with_zeros, "truncated", 3, "00000004.jpg"),
    (empty_file, "unreadable", 3, "00000004.jpg"),
    (web_page, "unreadable", 3, "00000004.jpg"),
    (other_size, "size", 3, "00000004.jpg"),
    (no_last_frames, "missing", None, "8 boxes for 7 frames"),
    (too_many_frames, "extra", None, "9 images for 8 frames"),
    (gap, "sequence", None, "holds '00000005.jpg' where '00000004.jpg' is expected"),
    (no_text_file, "sequence", None, "groundtruth.txt"),
    (garbled_row, "sequence", None, "groundtruth.txt, line 4"),
    (no_area, "area", 3, "box 10, 10, 5, -11"),
    (no_number, "nan", 3, "box nan, nan, nan, nan"),
    (outside, "outside", 3, f"box {WIDTH + 2}, 10, 5, 5 in {WIDTH}x{HEIGHT} pixels"),
    (no_first_box, "first", 0, "box 0, 0, 0, 0"),
]


@pytest.mark.parametrize(
    ("damage", "kind", "t", "told"), DAMAGES, ids=[damage.__name__ for damage, *_ in DAMAGES]
)
def test_damage_is_found_and_named(
    damage: Callable[[Path], None], kind: str, t: int | None, told: str, lasot: Path
) -> None:
    damage(lasot)
    problems = find("lasot", lasot)
    assert {(p.kind, p.sequence, p.first, p.last) for p in problems} == {(kind, "airplane-1", t, t)}
    assert any(told in f"{p.detail} {p.file}" for p in problems)
    assert not any(p.known for p in problems)
    # The other part is sound.
    assert find("lasot", lasot, "train") == []


def test_every_kind_has_a_test() -> None:
    assert {kind for _, kind, *_ in DAMAGES} == set(KINDS) - {"part", "note"}


def test_the_check_goes_on_after_a_sequence_that_cannot_be_read(lasot: Path) -> None:
    no_text_file(lasot)
    broken, sound = check("lasot", lasot)
    assert (broken.frames, broken.decoded, len(broken.problems)) == (0, 0, 1)
    assert (sound.frames, sound.decoded, len(sound.problems)) == (LENGTH, LENGTH, 0)


def test_frames_that_follow_each_other_are_one_problem(lasot: Path) -> None:
    for t in (2, 3, 4, 6):
        frame(lasot, t).write_bytes(b"")
    problems = find("lasot", lasot)
    assert [(p.first, p.last, p.count) for p in problems] == [(2, 4, 3), (6, 6, 1)]


def test_decoding_less_finds_less(lasot: Path) -> None:
    for t in (0, 5):
        frame(lasot, t).write_bytes(b"")
    outside(lasot)
    found = {d: {(p.kind, p.first) for p in find("lasot", lasot, decode=d)} for d in DECODE}
    assert found["all"] == {("unreadable", 0), ("unreadable", 5), ("outside", 3)}
    assert found["first"] == {("unreadable", 0)}  # No size to compare boxes with.
    assert found["none"] == set()
    decoded = {d: sum(result.decoded for result in check("lasot", lasot, decode=d)) for d in DECODE}
    assert decoded == {"all": 2 * LENGTH, "first": 2, "none": 0}


def test_what_the_published_files_are_known_for_is_marked(lasot: Path) -> None:
    no_area(lasot)
    (lasot / "lion").mkdir()
    shutil.copytree(lasot / "airplane" / "airplane-1", lasot / "lion" / "lion-5")
    (lasot / "testing_set.txt").write_text("airplane-1\nlion-5\n")
    assert [(p.sequence, p.known) for p in find("lasot", lasot)] == [
        ("airplane-1", False),
        ("lion-5", True),
    ]


@pytest.mark.parametrize(
    ("row", "kinds"),
    [("0,0,0,0", set()), ("-1,-1,-1,-1", set()), ("NaN,NaN,NaN,NaN", set()), ("9,9,0,0", {"area"})],
)
def test_without_flags_some_boxes_say_that_the_target_is_absent(
    row: str, kinds: set[str], tmp_path: Path
) -> None:
    write_sample("folder", tmp_path / "root", Source(1, 4, WIDTH, HEIGHT, 0))
    path = tmp_path / "root" / "clip-1" / "groundtruth_rect.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:-1], row]))
    assert {problem.kind for problem in find("folder", tmp_path / "root")} == kinds


def test_a_file_that_several_targets_share_is_reported_for_each(tmp_path: Path) -> None:
    write_sample("folder", tmp_path / "root", Source(1, 4, WIDTH, HEIGHT, 0))
    folder = (tmp_path / "root" / "clip-1").rename(tmp_path / "root" / "pair")
    boxes = folder / "groundtruth_rect.txt"
    shutil.copy(boxes, folder / "groundtruth_rect.1.txt")
    boxes.rename(folder / "groundtruth_rect.2.txt")
    (folder / "img" / "0002.jpg").write_bytes(b"")
    problems = find("folder", tmp_path / "root")
    assert [(p.sequence, p.first) for p in problems] == [("pair-1", 1), ("pair-2", 1)]


def test_missing_crops_are_missing_frames(tmp_path: Path) -> None:
    write_sample("youtubebb", tmp_path / "root", Source(1, 6, WIDTH, HEIGHT, 0))
    next((tmp_path / "root").rglob("000001.00.x.jpg")).unlink()
    (problem,) = find("youtubebb", tmp_path / "root", "train")
    assert (problem.kind, problem.known) == ("missing", False)
    assert problem.detail.startswith("1 of ")


def test_a_video_that_ends_early_is_found(tmp_path: Path) -> None:
    write_sample("video", tmp_path / "root", Source(1, 6, WIDTH, HEIGHT, 0))
    text = tmp_path / "root" / "clip-1.txt"
    text.write_text(text.read_text() + "1,1,5,5\n")
    assert [(p.kind, p.detail[:7]) for p in find("video", tmp_path / "root")] == [
        ("missing", "7 boxes")
    ]
    text.with_suffix(".mp4").write_bytes(b"no video")
    assert [p.kind for p in find("video", tmp_path / "root")] == ["sequence"]


class Remarked(Sequence):
    def read(self, t: int) -> NDArray[np.uint8]:
        return np.zeros((8, 8, 3), np.uint8)


class RemarkedDataset(SequenceDataset):
    def _load(self, index: int) -> Sequence:
        return Remarked("a", [[1, 1, 2, 2]], notes=["the reader did something"])


def test_other_notes_are_remarks() -> None:
    (result,) = check_dataset(RemarkedDataset("folder", "test", ["a"]))
    (problem,) = result.problems
    assert (problem.kind, problem.known) == ("note", True)


def test_wrong_arguments() -> None:
    dataset = RemarkedDataset("folder", "test", ["a"])
    with pytest.raises(InvalidArgumentError, match="unknown frames to decode 'some'"):
        check_dataset(dataset, "some")
    with pytest.raises(InvalidArgumentError, match="workers is 0"):
        check_dataset(dataset, workers=0)


def test_the_published_counts_cover_all_datasets() -> None:
    assert {*SEQUENCES, "synthetic"} == set(list_datasets())
    assert official_parts("lasot") == ("train", "test")
    assert official_parts("got10k") == ("train", "val", "test")
    for name, splits in list_samples().items():
        assert set(splits) == set(official_parts(name))


def test_need_for_speed_may_be_off_by_one() -> None:
    note = "{} boxes for 40 frames: the last {} are left out"
    assert is_known("nfs", "missing", "bee", note.format(41, 1))
    assert not is_known("nfs", "missing", "bee", note.format(42, 2))
    assert not is_known("otb100", "missing", "Bolt", note.format(41, 1))


def encode(suffix: str, **options: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    flags = [value for key, v in options.items() for value in (getattr(cv2, key), v)]
    return cv2.imencode(suffix, image, flags)[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        encode(".jpg"),
        encode(".jpg", IMWRITE_JPEG_PROGRESSIVE=1),
        encode(".jpg", IMWRITE_JPEG_RST_INTERVAL=1),
        encode(".png"),
    ],
    ids=["jpeg", "progressive", "restarts", "png"],
)
def test_truncation_is_seen_wherever_it_is(data: bytes) -> None:
    zeros = bytes(10)
    assert not is_truncated(data)
    assert not is_truncated(data + zeros)
    for end in (8, 20, 200, len(data) // 2, len(data) - 9, len(data) - 8):
        assert is_truncated(data[:end])
        assert is_truncated(data[:end] + zeros)


def test_the_end_of_a_preview_is_not_the_end() -> None:
    data, preview = encode(".jpg"), encode(".jpg")
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    whole = data[:2] + b"\xff" + segment + data[2:]  # With a byte of padding.
    assert cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR).shape == (20, 30, 3)
    assert not is_truncated(whole)
    assert is_truncated(whole[:-2])


@pytest.mark.parametrize("data", [b"", b"GIF89a", encode(".bmp")[:50]])
def test_other_formats_are_left_to_the_decoder(data: bytes) -> None:
    assert not is_truncated(data)
