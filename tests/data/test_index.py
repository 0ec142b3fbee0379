"""The cache of indices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import index as index_module
from slt_gym.data.index import cache_folder as find_cache
from slt_gym.data.index import cached_index, fingerprint


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SLT_GYM_CACHE", str(folder))
    return folder


class Builder:
    """Counts how often it is called."""

    def __init__(self, names: str = "a b") -> None:
        self.names = names
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {
            "names": np.array(self.names.split()),
            "raw": np.array([b"x\xff", b"y"], np.bytes_),
            "boxes": np.empty((0, 4)),
            "flags": np.array([True, False]),
        }


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value.dtype == b[key].dtype
        np.testing.assert_array_equal(value, b[key])


def test_builds_once(tmp_path: Path, cache_folder: Path):
    build = Builder()
    first = cached_index("toy", tmp_path, "1", build)
    again = cached_index("toy", tmp_path, "1", build)
    assert build.calls == 1
    assert_same(first, Builder()())
    assert_same(again, Builder()())
    assert [path.suffix for path in cache_folder.iterdir()] == [".npz"]
    assert list(tmp_path.iterdir()) == []


def test_a_new_fingerprint_builds_anew(tmp_path: Path, cache_folder: Path):
    cached_index("toy", tmp_path, "1", Builder("a"))
    assert cached_index("toy", tmp_path, "2", Builder("a b c"))["names"].tolist() == list("abc")
    assert cached_index("toy", tmp_path, "2", Builder("z"))["names"].tolist() == list("abc")
    assert len(list(cache_folder.iterdir())) == 1  # the stale one is gone


def test_datasets_and_roots_have_their_own(tmp_path: Path, monkeypatch, cache_folder: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to("one")
    monkeypatch.chdir(tmp_path)
    cached_index("toy", tmp_path / "one", "1", Builder())
    for root in (tmp_path / "link", Path("one"), tmp_path / "two" / ".." / "one"):
        same = Builder()
        cached_index("toy", root, "1", same)
        assert same.calls == 0
    for dataset, root in (("toy", "two"), ("other", "one")):
        other = Builder()
        cached_index(dataset, tmp_path / root, "1", other)
        assert other.calls == 1
    assert len(list(cache_folder.iterdir())) == 3


def test_another_format_is_built_anew(tmp_path: Path, monkeypatch):
    cached_index("toy", tmp_path, "1", Builder())
    monkeypatch.setattr(index_module, "_FORMAT", index_module._FORMAT + 1)
    build = Builder()
    cached_index("toy", tmp_path, "1", build)
    assert build.calls == 1


def break_by_pickle(path: Path) -> None:
    np.savez(path, names=np.array([{"a": 1}], object), fingerprint=np.array("1"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a zip"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"a\0\0\0b", b"a\0\0\0c")),
        lambda path: np.save(path.open("wb"), np.zeros(3)),
        lambda path: np.savez(path, names=np.array(["other"])),
        break_by_pickle,
    ],
)
def test_a_broken_file_is_built_anew(tmp_path: Path, cache_folder: Path, damage):
    cached_index("toy", tmp_path, "1", Builder())
    (path,) = cache_folder.iterdir()
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    build = Builder()
    assert_same(cached_index("toy", tmp_path, "1", build), Builder()())
    assert build.calls == 1
    cached_index("toy", tmp_path, "1", build)
    assert build.calls == 1


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLT_GYM_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        build = Builder()
        with pytest.warns(UserWarning, match=r"cannot keep the index of toy.*SLT_GYM_CACHE"):
            assert_same(cached_index("toy", tmp_path, "1", build), Builder()())
        assert build.calls == 1


def test_nothing_half_written_is_left(tmp_path: Path, cache_folder: Path, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_module.np, "savez", fail)
    with pytest.warns(UserWarning, match="No space left on device"):
        cached_index("toy", tmp_path, "1", Builder())
    assert list(cache_folder.iterdir()) == []


def test_errors_of_building_pass(tmp_path: Path, cache_folder: Path):
    def build():
        raise ValueError("a broken file")

    with pytest.raises(ValueError, match="a broken file"):
        cached_index("toy", tmp_path, "1", build)
    assert list(cache_folder.iterdir()) == []


def test_several_processes_at_once(tmp_path: Path, cache_folder: Path):
    code = (
        "import sys, pathlib, numpy as np\n"
        "from slt_gym.data.index import cached_index\n"
        "for k in range(15):\n"
        "    x = cached_index('toy', pathlib.Path(sys.argv[1]), str(k % 3), \n"
        "        lambda: {'x': np.full(20000, k % 3)})['x']\n"
        "    assert x.shape == (20000,) and (x == k % 3).all()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert [path.suffix for path in cache_folder.iterdir()] == [".npz"]


def test_what_changes_a_fingerprint(tmp_path: Path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("1")
    seen = {fingerprint([folder, file]), fingerprint([file, folder]), fingerprint([folder])}
    assert len(seen) == 3
    assert fingerprint([folder, file]) in seen
    for path in (folder, file):
        os.utime(path, ns=(1, 1))
        seen.add(fingerprint([folder, file]))
    assert len(seen) == 5
    (folder / "new").write_text("")
    seen.add(fingerprint([folder, file]))
    file.unlink()
    seen.add(fingerprint([folder, file]))
    assert len(seen) == 7
    assert fingerprint([folder, file]) in seen


def test_where_the_cache_is(tmp_path: Path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("SLT_GYM_CACHE", "~/own")
    assert find_cache() == home / "own"
    monkeypatch.delenv("SLT_GYM_CACHE")
    assert find_cache() == tmp_path / "xdg" / "slt_gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, place in (
        ("linux", home / ".cache" / "slt_gym"),
        ("darwin", home / "Library" / "Caches" / "slt_gym"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert find_cache() == place
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert find_cache() == tmp_path / "local" / "slt_gym"
