from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from slt_gym.errors import AnnotationError, ResultsError
from slt_gym.evaluation import load_results
from slt_gym.evaluation.names import match_names
from slt_gym.evaluation.results import load_repetitions, load_times, mean_speed

ROWS = [[10.25, 20.0, 30.5, 40.0], [11.0, 21.0, 30.0, 40.0], [12.0, 22.0, 30.0, 41.0]]


def write(path: Path, rows: list[list[float]], separator: str = ",", number: str = "%g") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(number % v for v in row) + "\n" for row in rows))


def zip_folder(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/._a-1.txt", b"\0\5\26\7")
    return path


def write_pysot(folder: Path) -> None:
    for name in ("a-1", "a-2", "a-10"):
        write(folder / f"{name}.txt", ROWS)


def write_pytracking(folder: Path) -> None:
    for name in ("a-1", "a-2", "a-10"):
        write(folder / "dimp" / "dimp50_000" / f"{name}.txt", ROWS, "\t", "%d")
        write(folder / "dimp" / "dimp50_000" / f"{name}_time.txt", [[0.5], [0.25], [0.25]])


def write_ostrack(folder: Path) -> None:
    for name in ("a-1", "a-2", "a-10"):
        write(folder / "vitb" / "lasot" / f"{name}.txt", ROWS, "\t", "%d")
        write(folder / "vitb" / "lasot" / f"{name}_time.txt", [[0.5], [0.25], [0.25]], number="%f")


def write_got10k_otb(folder: Path) -> None:
    for name in ("a-1", "a-2", "a-10"):
        write(folder / "SiamFC" / f"{name}.txt", ROWS, number="%.3f")
        times = folder / "SiamFC" / "times" / f"{name}_time.txt"
        write(times, [[0.5], [0.25], [0.25]], number="%.8f")


def write_got10k(folder: Path) -> None:
    for name in ("a-1", "a-2", "a-10"):
        for k in (1, 2, 3):
            moved = (np.array(ROWS) + (k - 1)).tolist()
            write(folder / "SiamFC" / name / f"{name}_{k:03d}.txt", moved, number="%.3f")
        times = folder / "SiamFC" / name / f"{name}_time.txt"
        write(times, [[0.5, 1, 1], [0.25, 1, 1], [0.25, 1, 1]], number="%.8f")


def write_lasot(folder: Path) -> None:
    for name in ("a-1", "a-2", "a-10"):
        write(folder / "ECO_tracking_result" / f"{name}.txt", ROWS, " ")


def write_own(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    for name in ("a-1", "a-2", "a-10"):
        write(folder / f"{name}.txt", ROWS, number="%.4f")
        write(folder / "times" / f"{name}_time.txt", [[0.5], [0.25], [0.25]])


LAYOUTS = {
    "pysot": write_pysot,
    "pytracking": write_pytracking,
    "ostrack": write_ostrack,
    "got10k-otb": write_got10k_otb,
    "got10k": write_got10k,
    "lasot": write_lasot,
    "own": write_own,
}


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str, zipped: bool) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    LAYOUTS[layout](folder)
    path = zip_folder(folder) if zipped else folder
    results = load_results(path)
    assert list(results) == ["a-1", "a-2", "a-10"]
    whole_numbers = layout in ("pytracking", "ostrack")
    for boxes in results.values():
        assert boxes.dtype == np.float64
        np.testing.assert_array_equal(boxes, np.trunc(ROWS) if whole_numbers else ROWS)
    times = load_times(str(path))
    if layout in ("pysot", "lasot"):
        assert times == {}
        return
    assert list(times) == ["a-1", "a-2", "a-10"]
    assert times["a-1"].shape == (3, 3 if layout == "got10k" else 1)
    assert times["a-1"][:, 0].tolist() == [0.5, 0.25, 0.25]


def test_repetitions(tmp_path: Path) -> None:
    write_got10k(tmp_path)
    (tmp_path / "SiamFC" / "a-2" / "a-2_001.txt").unlink()
    runs = load_repetitions(tmp_path)
    assert [len(run) for run in runs.values()] == [3, 2, 3]
    for k, boxes in enumerate(runs["a-1"]):
        np.testing.assert_array_equal(boxes, np.array(ROWS) + k)
    np.testing.assert_array_equal(load_results(tmp_path)["a-2"], np.array(ROWS) + 1)
    # Three digits that no folder explains belong to the name.
    write(tmp_path / "flat" / "video_002.txt", ROWS)
    assert list(load_results(tmp_path / "flat")) == ["video_002"]


def test_one_file_and_names_with_dots(tmp_path: Path) -> None:
    write(tmp_path / "Jogging.1.txt", ROWS)
    for path in (tmp_path, tmp_path / "Jogging.1.txt"):
        assert list(load_results(path)) == ["Jogging.1"]


def test_polygons_become_their_hulls(tmp_path: Path) -> None:
    write(tmp_path / "ball1.txt", [[2, 1, 6, 3, 4, 7, 0, 5], [3, 1, 7, 3, 5, 7, 1, 5]])
    assert load_results(tmp_path)["ball1"].tolist() == [[0, 1, 6, 6], [1, 1, 6, 6]]


def test_nan_and_windows_newlines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1,2,3,4\r\nNaN,NaN,NaN,NaN\r\n")
    boxes = load_results(tmp_path)["a"]
    assert boxes[0].tolist() == [1, 2, 3, 4]
    assert np.isnan(boxes[1]).all()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no results at .*nowhere: expected is a folder"):
        load_results(tmp_path / "nowhere")
    (tmp_path / "report.json").touch()
    with pytest.raises(ResultsError, match="holds no result"):
        load_results(tmp_path)
    write(tmp_path / "one" / "car-1.txt", ROWS)
    write(tmp_path / "two" / "car-1.txt", ROWS)
    with pytest.raises(ResultsError, match=r"two results for 'car-1', .*one.* and .*two.*tracker"):
        load_results(tmp_path)
    (tmp_path / "two" / "car-1.txt").write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(AnnotationError, match=r"car-1\.txt, line 2: '1,2,3' is not four numbers"):
        load_results(tmp_path / "two")
    path = zip_folder(tmp_path / "two")
    with pytest.raises(AnnotationError, match=r"two\.zip.car-1\.txt, line 2"):
        load_results(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"1,2,3,4")] ^= 1
    path.write_bytes(data)
    with pytest.raises(ResultsError, match=r"cannot unpack .*two\.zip: Bad CRC"):
        load_results(path)
    (tmp_path / "one" / "car-1_time.txt").write_text("0.1\nfast\n")
    with pytest.raises(ResultsError, match=r"car-1_time\.txt is not rows of seconds"):
        load_times(tmp_path / "one")


def test_speed_is_the_mean_of_the_frames_rates() -> None:
    times = {"a": np.array([[0.5], [0.25]]), "b": np.array([[0.1, 0.0]])}
    assert mean_speed(times) == pytest.approx((2 + 4 + 10) / 3)
    assert np.isnan(mean_speed({}))


OTB = ["Basketball", "Human4-2", "Jogging-1", "Jogging-2", "Skating1", "Skating2-1", "Skating2-2"]
OTB_NAMES = {
    "pysot": OTB,
    "pytracking": [name.replace("-", "_") for name in OTB],
    "got10k": [name.replace("Human4-2", "Human4").replace("-", ".") for name in OTB],
    "vot": [name.replace("Jogging-", "Jogging").replace("-", "_") for name in OTB],
    "lower": [name[0].lower() + name[1:] for name in OTB],
}


@pytest.mark.parametrize("toolkit", OTB_NAMES)
def test_otb_names_of_every_toolkit(toolkit: str) -> None:
    results = OTB_NAMES[toolkit]
    for wanted, offered in ((OTB, results), (results, OTB)):
        match = match_names(reversed(offered), wanted)
        assert match.results == dict(zip(wanted, offered, strict=True))
        assert list(match.results) == wanted
        assert (match.missing, match.unknown, match.ambiguous) == ((), (), {})


def test_prefixes_of_pytracking() -> None:
    match = match_names(["uav_bike1", "uav_car1_1", "uav_car11"], ["bike1", "car1_1", "car11"])
    assert match.results == {"bike1": "uav_bike1", "car1_1": "uav_car1_1", "car11": "uav_car11"}
    # A sequence of UAV123 is itself called uav1.
    names = ["uav1_1", "uav2"]
    assert match_names(names, names).results == {name: name for name in names}
    prefixed = match_names(["uav_uav1_1", "uav_uav2"], names).results
    assert prefixed == {"uav1_1": "uav_uav1_1", "uav2": "uav_uav2"}
    assert match_names(["nfs_Gymnastics"], ["Gymnastics"]).results == {
        "Gymnastics": "nfs_Gymnastics"
    }


def test_what_does_not_match_is_said() -> None:
    match = match_names(["a-1", "b_1", "log"], ["a-1", "a-2", "b-1"])
    assert match.results == {"a-1": "a-1", "b-1": "b_1"}
    assert match.missing == ("a-2",)
    assert match.unknown == ("log",)
    # Another sequence of the same class is no stand-in.
    match = match_names(["airplane-2"], ["airplane-1"])
    assert (match.missing, match.unknown) == (("airplane-1",), ("airplane-2",))


def test_what_could_be_two_is_not_chosen() -> None:
    match = match_names(["Jogging"], ["Jogging-1", "Jogging-2"])
    assert match.results == {}
    assert match.ambiguous == {"Jogging-1": ("Jogging",), "Jogging-2": ("Jogging",)}
    assert (match.missing, match.unknown) == ((), ())
    match = match_names(["Car_1", "car.1"], ["car-1"])
    assert match.ambiguous == {"car-1": ("Car_1", "car.1")}
    # An equal name takes precedence; the other one is then of no sequence.
    match = match_names(["Car-1", "car-1"], ["car-1"])
    assert (match.results, match.unknown) == ({"car-1": "car-1"}, ("Car-1",))
