"""Text files of boxes, flags and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slt_gym.data.annotations import (
    read_boxes,
    read_flags,
    read_lines,
    read_names,
    read_optional_text,
    read_polygons,
)
from slt_gym.errors import AnnotationError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "boxes.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("separator", [",", "\t", " ", ", ", ",\t", "   ", " , "])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_separator_and_newline(tmp_path: Path, separator: str, newline: str):
    rows = [["1", "2", "3", "4"], ["5.25", "-6", "7e1", "8"]]
    text = newline.join(separator.join(row) for row in rows)
    expected = [[1, 2, 3, 4], [5.25, -6, 70, 8]]
    for ending in ("", newline, newline * 3, newline + "  " + newline):
        boxes = read_boxes(write(tmp_path, text + ending))
        assert boxes.dtype == np.float64
        np.testing.assert_array_equal(boxes, expected)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=4, max_size=4),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_numbers_survive_any_mixture_of_separators(tmp_path: Path, rows, data):
    separators = st.sampled_from([",", "\t", " ", ", ", " ,\t"])
    lines = [
        "".join(repr(v) + data.draw(separators) for v in row[:3]) + repr(row[3]) for row in rows
    ]
    np.testing.assert_array_equal(read_boxes(write(tmp_path, "\n".join(lines))), rows)


def test_one_row_stays_two_dimensional(tmp_path: Path):
    assert read_boxes(write(tmp_path, " 1.00,102.00,3.00,4.00\n")).shape == (1, 4)


def test_nan_rows_are_kept_in_place(tmp_path: Path):
    boxes = read_boxes(write(tmp_path, "1,2,3,4\nNaN,NaN,NaN,NaN\n5,6,7,8\n"))
    assert np.isnan(boxes).all(axis=1).tolist() == [False, True, False]


def test_byte_order_mark_is_no_number(tmp_path: Path):
    np.testing.assert_array_equal(
        read_boxes(write(tmp_path, b"\xef\xbb\xbf1,2,3,4\n")), [[1, 2, 3, 4]]
    )


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("1,2,3,4\n5,6,7\n", 2, "'5,6,7'"),
        ("1,2,3\n4,5,6\n", 1, "'1,2,3'"),
        ("1,2,3,4,5\n", 1, "'1,2,3,4,5'"),
        ("1,2,3,4\n5,6,seven,8\n", 2, "'5,6,seven,8'"),
        ("1,2,3,4\n\n5,6,7,8\n", 2, "''"),
        ("1,2,3,4\n5,,6,7,8\n", 2, "'5,,6,7,8'"),
        ("1,2,3,4\n,5,6,7,8\n", 2, "',5,6,7,8'"),
        ("1;2;3;4\n", 1, "'1;2;3;4'"),
        ("1,2,3,4\n1_0,2,3,4\n", 2, "'1_0,2,3,4'"),
        (b"1,2,3,4\n1,2,\xff3,4\n", 2, "line 2"),
        ("1,2,3,4\n" + "9" * 500 + "\n", 2, "'" + "9" * 59 + "…'"),
        ("1,2,3,4,5,6,7,8\n", 1, "'1,2,3,4,5,6,7,8'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str | bytes, line: int, shown: str):
    path = write(tmp_path, text)
    with pytest.raises(AnnotationError) as error:
        read_boxes(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert shown in message
    assert message.endswith("is not four numbers x, y, w, h separated by comma, tab or blanks")


@pytest.mark.parametrize("text", ["", "\n", "  \r\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path: Path, text: str | bytes):
    path = write(tmp_path, text)
    for read in (read_boxes, read_flags, read_names):
        with pytest.raises(AnnotationError, match="is empty") as error:
            read(path)
        assert str(path) in str(error.value)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(AnnotationError, match=r"cannot read .*nothing\.txt: No such file"):
        read_boxes(tmp_path / "nothing.txt")
    with pytest.raises(AnnotationError, match="cannot read"):
        read_boxes(tmp_path)


def test_polygons_become_hulls(tmp_path: Path):
    path = write(tmp_path, "10,20, 4,26, 8,30, 14,24\n0,0,0,2,3,2,3,0\n")
    np.testing.assert_array_equal(read_boxes(path, polygons=True), [[4, 20, 10, 10], [0, 0, 3, 2]])
    boxes = write(tmp_path, "1,2,3,4\n")
    np.testing.assert_array_equal(read_boxes(boxes, polygons=True), [[1, 2, 3, 4]])


def test_polygons_as_they_are_and_boxes_as_polygons(tmp_path: Path):
    rows = [[4, 26, 8, 30, 14, 24, 10, 20], [0, 0, 1, 0, 1, 1, 0, 1]]
    path = write(tmp_path, "\n".join(",".join(map(str, row)) for row in rows))
    np.testing.assert_array_equal(read_polygons(path), rows)
    path = write(tmp_path, "1,2,3,4\n")
    np.testing.assert_array_equal(read_polygons(path), [[1, 2, 4, 2, 4, 6, 1, 6]])
    with pytest.raises(AnnotationError, match="line 1"):
        read_polygons(write(tmp_path, "1,2,3\n"))


def test_boxes_and_polygons_do_not_mix(tmp_path: Path):
    path = write(tmp_path, "1,2,3,4\n1,2,3,4,5,6,7,8\n")
    with pytest.raises(AnnotationError, match=r"line 2: '1,2,3,4,5,6,7,8' is not four"):
        read_boxes(path, polygons=True)


@pytest.mark.parametrize(
    "text", ["0,0,1,8", "0,0,1,8\n", "0\n0\n1\n8\n", "0 0\t1 , 8\r\n", "0\r\n0\r\n1\r\n8"]
)
def test_flags_on_one_line_or_one_per_line(tmp_path: Path, text: str):
    flags = read_flags(write(tmp_path, text))
    assert flags.dtype == np.int64
    assert flags.tolist() == [0, 0, 1, 8]


@pytest.mark.parametrize(
    ("text", "line"), [("0,x,1", 1), ("0\n1\n0.5\n", 3), ("0\n\n1\n", 2), ("0,,1", 1)]
)
def test_a_bad_flag_is_named(tmp_path: Path, text: str, line: int):
    path = write(tmp_path, text)
    with pytest.raises(
        AnnotationError, match=rf"line {line}: .* does not consist of whole numbers"
    ):
        read_flags(path)


def test_names_without_final_newline_blanks_and_repetitions(tmp_path: Path):
    assert read_names(write(tmp_path, "b-2 \r\na-1\r\n\r\nb-2\r\nc-3")) == ["b-2", "a-1", "c-3"]


def test_lines_in_between_are_kept(tmp_path: Path):
    assert read_lines(write(tmp_path, "a \r\n\r\nb\r\n\r\n")) == ["a ", "", "b"]


def test_optional_text(tmp_path: Path):
    assert read_optional_text(write(tmp_path, "\nwhite plane \n")) == "white plane"
    assert read_optional_text(tmp_path / "nothing.txt") is None
