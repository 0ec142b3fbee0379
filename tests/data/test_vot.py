"""VOT2018's rotated rectangles and VOT2020's masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.vot import VOT2018Dataset, VOT2020Dataset, _find_mask_box, _parse_mask
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

# A square of side 2 about (10, 20), upright and turned by 45 degrees.
UPRIGHT = [9, 19, 11, 19, 11, 21, 9, 21]
DIAMOND = [10, 20 - 2**0.5, 10 + 2**0.5, 20, 10, 20 + 2**0.5, 10 - 2**0.5, 20]


def write_sequence(
    root: Path, name: str, write_frames, rows: list[str], sub: str = "color"
) -> Path:
    write_frames(root / name / sub, len(rows), "{:08d}.jpg")
    (root / name / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    with (root / "list.txt").open("a") as file:
        file.write(name + "\n")
    return root / name


def join(numbers: list[float]) -> str:
    return ",".join(f"{v:.6f}" for v in numbers)


@pytest.mark.parametrize("sub", ["color", ""])
@pytest.mark.parametrize("below", ["", "sequences"])
def test_places_of_lists_and_frames(tmp_path: Path, write_frames, sub: str, below: str):
    base = tmp_path / below
    base.mkdir(exist_ok=True)
    write_sequence(base, "zebra", write_frames, [join(UPRIGHT), join(DIAMOND)], sub)
    write_sequence(base, "ants1", write_frames, [join(UPRIGHT)], sub)
    (base / "unlisted").mkdir()
    (base / "list.txt").open("a").write("not_downloaded\n")
    dataset = VOT2018Dataset(tmp_path)
    assert dataset.names == ["zebra", "ants1"]
    assert [round(dataset[0].read(t).mean() / 10) for t in range(2)] == [1, 2]


def test_rectangles(tmp_path: Path, write_frames):
    rows = [UPRIGHT, DIAMOND, [0] * 8, [np.nan] * 8]
    write_sequence(tmp_path, "a", write_frames, [join(row) for row in rows])
    (sequence,) = VOT2018Dataset(tmp_path)
    r = 2**0.5
    expected = [[9, 19, 2, 2], [10 - r, 20 - r, 2 * r, 2 * r], [0] * 4, [np.nan] * 4]
    np.testing.assert_allclose(sequence.boxes, expected, atol=1e-5)
    assert sequence.visible.tolist() == [True, True, False, False]
    np.testing.assert_allclose(sequence.attributes["polygon"], rows, atol=1e-5)
    # Of the same area as the square, plus one pixel each way, about its centre.
    (sequence,) = VOT2018Dataset(tmp_path, rectangle="area")
    expected = [[9, 19, 3, 3], [9, 19, 3, 3], [0] * 4, [np.nan] * 4]
    np.testing.assert_allclose(sequence.boxes, expected, atol=1e-5)
    assert sequence.visible.tolist() == [True, True, False, False]


def test_tags_and_the_sequence_file(tmp_path: Path, write_frames):
    folder = write_sequence(tmp_path, "a", write_frames, [join(UPRIGHT)] * 3)
    (folder / "camera_motion.tag").write_text("0\n1\n0\n")
    (folder / "occlusion.tag").write_text("1\n")
    (folder / "size_change.tag").write_text("")
    (folder / "motion_change.tag").write_text("0\n0\n1\n1\n")
    (folder / "sequence").write_text(
        "channels.color=color/%08d.jpg\nfps=25\nformat=default\nheight=12\nlength=3\nname=a\nwidth=16\n"
    )
    (sequence,) = VOT2018Dataset(tmp_path)
    tags = {
        "camera_motion": [0, 1, 0],
        "illum_change": [0, 0, 0],
        "motion_change": [0, 0, 1],
        "occlusion": [1, 0, 0],
        "size_change": [0, 0, 0],
    }
    for tag, values in tags.items():
        assert sequence.attributes[tag].dtype == bool
        assert sequence.attributes[tag].tolist() == [bool(v) for v in values]
    assert [float(sequence.attributes[k]) for k in ("fps", "width", "height")] == [25, 16, 12]
    assert set(sequence.attributes) == {*tags, "polygon", "fps", "width", "height"}


def test_unequal_lengths_are_cut_and_noted(tmp_path: Path, write_frames):
    folder = write_sequence(tmp_path, "a", write_frames, [join(UPRIGHT)] * 3)
    (folder / "color" / "00000003.jpg").unlink()
    (folder / "camera_motion.tag").write_text("0\n1\n0\n")
    (sequence,) = VOT2018Dataset(tmp_path)
    assert len(sequence) == len(sequence.attributes["camera_motion"]) == 2
    assert sequence.attributes["polygon"].shape == (2, 8)
    assert sequence.notes == ("3 boxes for 2 frames: the last 1 are left out",)


def test_masks(tmp_path: Path, write_frames):
    rows = [
        "m10,20,4,3,5,2,2,2",  # ...., .XX., .XX (and the rest left out)
        "m10,20,4,3,0,1",
        "m10,20,4,3,12",
        "m0,0,0,0",
        "m-2,3,2,2,0,4",
    ]
    folder = write_sequence(tmp_path, "a", write_frames, rows)
    (folder / "anchor.value").write_text("1\n0\n-1.0\n0\n")
    (sequence,) = VOT2020Dataset(tmp_path)
    expected = [[11, 21, 2, 2], [10, 20, 1, 1], [0] * 4, [0] * 4, [-2, 3, 2, 2]]
    np.testing.assert_array_equal(sequence.boxes, expected)
    assert sequence.visible.tolist() == [True, True, False, False, True]
    assert sequence.attributes["anchor"].tolist() == [1, 0, -1, 0, 0]
    assert "polygon" not in sequence.attributes
    (folder / "anchor.value").unlink()
    assert "anchor" not in VOT2020Dataset(tmp_path)[0].attributes


def test_masks_lie_in_their_frames(tmp_path: Path, write_frames):
    # The frames have 12 rows and 16 columns; what of a mask is outside is cut off.
    rows = ["m10,8,4,3,5,2,2,2", "m0,0,0,0", "m-1,-2,3,4,3,9", "m14,10,4,4,0,16", "m20,0,2,2,0,4"]
    write_sequence(tmp_path, "a", write_frames, rows)
    expected = np.zeros((5, 12, 16), bool)
    expected[0, 9:11, 11:13] = expected[2, :2, :2] = expected[3, 10:, 14:] = True
    (sequence,) = VOT2020Dataset(tmp_path)
    for t, mask in enumerate(expected):
        np.testing.assert_array_equal(sequence.read_mask(t), mask)
    write_sequence(tmp_path / "2018", "a", write_frames, [join(UPRIGHT)])
    assert VOT2018Dataset(tmp_path / "2018")[0].read_mask(0) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.9))
def test_the_box_is_that_of_the_decoded_mask(seed: int, share: float):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 9, 2)
    x, y = rng.integers(-5, 50, 2)
    mask = rng.random((height, width)) < share
    runs, value = [0], False
    for pixel in mask.ravel():
        if pixel != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    line = "m" + ",".join(map(str, [x, y, width, height, *runs]))
    box = _find_mask_box(_parse_mask(Path("groundtruth.txt"), 1, line))
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    expected = (0, 0, 0, 0)
    if mask.any():
        expected = (x + columns[0], y + rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert box == expected


@pytest.mark.parametrize(
    "row", ["1,2,3,4", "m1,2,3", "m1,2,3,4,x", "m0,0,2,2,5", "m0,0,2,2,1,-1", "", "m0,0,-1,-2,2"]
)
def test_rows_that_are_no_mask(tmp_path: Path, write_frames, row: str):
    write_sequence(tmp_path, "a", write_frames, ["m0,0,2,2,0,4", row, "m0,0,2,2,0,4"])
    with pytest.raises(AnnotationError, match=r"groundtruth\.txt, line 2: .* is not a mask"):
        VOT2020Dataset(tmp_path)[0]


def test_bad_sequences_are_named(tmp_path: Path, write_frames):
    folder = write_sequence(tmp_path, "a", write_frames, ["1,2,3,4,5,6,7,8", "1,2,3,4,5,6"])
    with pytest.raises(AnnotationError, match=r"groundtruth\.txt, line 2"):
        VOT2018Dataset(tmp_path)[0]
    (folder / "groundtruth.txt").write_text("m0,0,2,2,0,4\nm0,0,2,2,0,4\n")
    (folder / "anchor.value").write_text("1\nno\n")
    with pytest.raises(AnnotationError, match=r"anchor\.value, line 2: 'no' is not 1, -1 or 0"):
        VOT2020Dataset(tmp_path)[0]
    (folder / "anchor.value").unlink()
    (folder / "color" / "00000001.jpg").unlink()
    with pytest.raises(FrameError, match=r"begins with '00000002\.jpg'"):
        VOT2020Dataset(tmp_path)[0]
    (folder / "color" / "00000002.jpg").unlink()
    with pytest.raises(DatasetNotFoundError, match="'a' has no frames"):
        VOT2020Dataset(tmp_path)[0]


@pytest.mark.parametrize("name", ["vot2018", "vot2020"])
def test_wrong_roots_and_splits(tmp_path: Path, name: str):
    with pytest.raises(DatasetNotFoundError, match=r"(?s)holds no list\.txt.*camera_motion\.tag"):
        open_dataset(name, tmp_path, "test")
    (tmp_path / "list.txt").write_text("ants1\nbag\n")
    with pytest.raises(DatasetNotFoundError, match="none of the 2 sequences of its list"):
        open_dataset(name, tmp_path, "test")
    with pytest.raises(InvalidArgumentError, match=f"{name} is a benchmark for testing"):
        open_dataset(name, tmp_path, "train")


def test_unknown_options(tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match="'hull': accepted are area, minmax"):
        open_dataset("vot2018", tmp_path, "test", rectangle="hull")
    with pytest.raises(InvalidArgumentError, match="vot2020 has no options"):
        open_dataset("vot2020", tmp_path, "test", rectangle="area")


def test_the_published_layout(layouts: Path):
    root = layouts / "VOT2018"
    dataset = open_dataset("VOT2018", root, "test")
    assert dataset.names == ["bag", "ball1"]
    assert (root / "list.txt").read_text().split() == dataset.names
    shrunk = open_dataset("VOT2018", root, "test", rectangle="area")
    for sequence, area in zip(dataset, shrunk, strict=True):
        folder = root / sequence.name
        rows = [
            [float(v) for v in line.split(",")]
            for line in (folder / "groundtruth.txt").read_text().split()
        ]
        polygons = np.array(rows)
        np.testing.assert_array_equal(sequence.attributes["polygon"], polygons)
        x, y = polygons[:, 0::2], polygons[:, 1::2]
        expected = np.stack([x.min(1), y.min(1), np.ptp(x, axis=1), np.ptp(y, axis=1)], axis=1)
        np.testing.assert_allclose(sequence.boxes, expected)
        np.testing.assert_allclose(area.boxes[:, 0] + (area.boxes[:, 2] - 1) / 2, x.mean(1))
        assert (area.boxes[:, 2:] <= expected[:, 2:] + 1 + 1e-9).all()
        for tag in ("camera_motion", "illum_change", "motion_change", "occlusion", "size_change"):
            flags = (folder / f"{tag}.tag").read_text().split()
            assert sequence.attributes[tag].tolist() == [flag == "1" for flag in flags]
        assert sequence.attributes["fps"] == 30
        size = sequence.read(0).shape[1::-1]
        assert size == (sequence.attributes["width"], sequence.attributes["height"])
        assert isinstance(sequence, ImageSequence)
        assert [p.name for p in sequence.paths] == [f"{t + 1:08d}.jpg" for t in range(24)]
        assert sequence.notes == ()
