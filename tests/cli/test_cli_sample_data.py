"""``slt-gym sample-data``: what it writes, and that what it says to try next works."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from slt_gym.cli import main
from slt_gym.data import open_dataset
from slt_gym.data.samples import list_samples

SMALL = ["--sequences", "1", "--frames", "4", "--width", "96", "--height", "64"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLT_GYM_CACHE", str(tmp_path_factory.mktemp("cache")))


def suggestions(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Return the printed command lines, as lists of words."""
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line) for line in lines if line.startswith("  ")]


@pytest.mark.parametrize("dataset", list_samples())
def test_the_check_that_is_suggested_finds_nothing(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a folder"
    main(["sample-data", dataset, str(out), *SMALL])
    printed = suggestions(capsys)
    assert printed[0] == ["slt-gym", "data", dataset, str(out)]
    assert printed[1][1] == ("pretrain" if "train" in list_samples()[dataset] else "track")
    main(printed[0][1:])
    assert "Nothing is broken." in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a folder"]


@pytest.mark.parametrize("dataset", ["otb100", "video"])
def test_tracking_as_suggested(
    dataset: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # track writes boxes.txt where it is.
    main(["sample-data", dataset, "out", *SMALL])
    command = suggestions(capsys)[1]
    main([*command[1:], "--device", "cpu"])
    assert "tracked 3 frames" in capsys.readouterr().out
    assert (tmp_path / "out-track.mp4").is_file()


def test_training_as_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample-data", "GOT-10k", str(tmp_path / "out"), *SMALL])
    command = suggestions(capsys)[1]
    assert command[command.index("--steps") :] == ["--steps", "20", "--batch-size", "8"]
    main([*command[1:-3], "1", "--batch-size", "4", "--device", "cpu"])
    assert (tmp_path / "out-run" / "weights" / "config.json").is_file()


def test_the_environment_as_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "it's here"
    main(["sample-data", "uav123", str(out), *SMALL])
    program, *words = suggestions(capsys)[2]
    assert program == "python"
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert "'sequence': 'bike1'" in result.stdout


def test_arguments_and_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample-data", "lasot", str(tmp_path / "a"), *SMALL, "--seed", "3"])
    printed = capsys.readouterr()
    assert "wrote sequences of lasot (1 train, 1 test)" in printed.out
    assert "8/8" in printed.err
    assert "frame/s" in printed.err
    sequence = open_dataset("lasot", tmp_path / "a", "test")[0]
    assert len(sequence) == 4
    assert sequence.read(0).shape == (64, 96, 3)
    main(["sample-data", "lasot", str(tmp_path / "b"), *SMALL, "--no-progress-bar"])
    assert capsys.readouterr().err == ""
    other = open_dataset("lasot", tmp_path / "b", "test")[0]
    assert (other.boxes != sequence.boxes).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lasott", "new"], "unknown dataset 'lasott'"),
        (["synthetic", "new"], "unknown layout 'synthetic'"),
        (["lasot", "."], "is not empty"),
        (["lasot", "new", "--frames", "1"], "num_frames is 1"),
        (["lasot", "new", "--sequences", "0"], "sequences is 0"),
        (["uav20l", "new", "--sequences", "99"], "sequences is 99: accepted are 1 to 20"),
    ],
)
def test_refusals_write_nothing(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(["sample-data", *words, "--no-progress-bar"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
