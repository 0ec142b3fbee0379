"""Where datasets are looked for, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

LAYOUT = "NFS/\n  <sequence>/30/\n"


def test_argument_then_own_variable_then_common_one(tmp_path: Path, monkeypatch):
    for name in ("argument", "own", "all/nfs"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("SLT_GYM_DATA", str(tmp_path / "all"))
    assert find_root("nfs", None, LAYOUT) == tmp_path / "all" / "nfs"
    monkeypatch.setenv("SLT_GYM_NFS", str(tmp_path / "own"))
    assert find_root("nfs", None, LAYOUT) == tmp_path / "own"
    assert find_root("nfs", tmp_path / "argument", LAYOUT) == tmp_path / "argument"
    assert find_root("nfs", str(tmp_path / "argument"), LAYOUT) == tmp_path / "argument"


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch):
    (tmp_path / "NFS").mkdir()
    (tmp_path / "nfs").mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_root("nfs", "~/NFS", LAYOUT) == tmp_path / "NFS"
    monkeypatch.setenv("SLT_GYM_DATA", "~")
    assert find_root("nfs", None, LAYOUT) == tmp_path / "nfs"


def test_nothing_given_says_what_to_set(monkeypatch):
    monkeypatch.delenv("SLT_GYM_NFS", raising=False)
    with pytest.raises(DatasetNotFoundError) as error:
        find_root("nfs", None, LAYOUT)
    message = str(error.value)
    for part in ("cannot find nfs", "no root is given", "$SLT_GYM_NFS", "$SLT_GYM_DATA", "root=…"):
        assert part in message
    assert message.endswith(LAYOUT.rstrip())


def test_what_was_tried_is_named(tmp_path: Path, monkeypatch):
    missing = str(tmp_path / "missing")
    (tmp_path / "file").touch()
    for root in (missing, str(tmp_path / "file"), ""):
        with pytest.raises(DatasetNotFoundError) as error:
            find_root("nfs", root, LAYOUT)
        assert f"root={root!r} is not a folder" in str(error.value)
    monkeypatch.setenv("SLT_GYM_DATA", missing)
    with pytest.raises(DatasetNotFoundError) as error:
        find_root("nfs", None, LAYOUT)
    assert "$SLT_GYM_NFS is not set, and $SLT_GYM_DATA/nfs=" in str(error.value)
    assert missing in str(error.value)
    monkeypatch.setenv("SLT_GYM_NFS", missing)
    with pytest.raises(DatasetNotFoundError) as error:
        find_root("nfs", None, LAYOUT)
    assert f"$SLT_GYM_NFS={missing!r} is not a folder" in str(error.value)


def test_a_root_that_is_no_path():
    with pytest.raises(InvalidArgumentError, match="root=3 is not a path"):
        find_root("nfs", 3, LAYOUT)  # type: ignore[arg-type]


def test_folders_without_files_and_hidden_ones(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / ".b").mkdir()
    (tmp_path / "c.txt").touch()
    (tmp_path / "d").symlink_to(tmp_path / "a")
    assert sorted(list_folders(tmp_path)) == ["a", "d"]
    with pytest.raises(DatasetNotFoundError, match="cannot list"):
        list_folders(tmp_path / "missing")


def test_wrong_root_shows_what_is_expected(tmp_path: Path):
    message = str(wrong_root("nfs", tmp_path, "holds no sequence", LAYOUT))
    assert message == (
        f"cannot read nfs: {tmp_path} holds no sequence; expected is a folder like\n"
        + LAYOUT.rstrip()
    )
