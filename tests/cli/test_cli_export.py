"""``slt-gym export``: from a tracked test part to a submission, and the check of one."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from slt_gym.cli import main
from slt_gym.data.samples import Source, write_sample
from slt_gym.evaluation.submission import SERVERS

SEQUENCES, FRAMES = 2, 5


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, and the benchmarks small."""
    monkeypatch.chdir(tmp_path)
    for name, server in SERVERS.items():
        monkeypatch.setitem(SERVERS, name, replace(server, sequences=SEQUENCES))
    return tmp_path


@pytest.mark.parametrize("server", ["got10k", "trackingnet"])
def test_from_tracking_to_the_submission(
    server: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = write_sample(server, "data", Source(SEQUENCES, FRAMES, 96, 80, 1))["test"]
    main(["evaluate", "random-walk", server, "--root", "data", "--workers", "1"])
    results = f"results/{server}-test/random-walk"
    capsys.readouterr()
    main(["export", server, "new/out.zip", "--results", results, "--root", "data"])
    printed = capsys.readouterr()
    assert printed.out == "submission: new/out.zip\n"
    assert f"{SEQUENCES}/{SEQUENCES}" in printed.err
    with zipfile.ZipFile("new/out.zip") as archive:
        assert len(archive.namelist()) == len(names) * (2 if server == "got10k" else 1)
    check = ["export", server, "new/out.zip", "--check", "--root", "data", "--no-progress-bar"]
    main(check)
    printed = capsys.readouterr()
    assert printed.out == f"new/out.zip keeps the rules of {server}\n"
    assert printed.err == ""
    # A sequence less: neither the results nor a submission of them will do.
    gone = next(iter(names))
    (here / results / f"{gone}.txt").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["export", server, "other.zip", "--results", results, "--root", "data"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"{results} cannot be submitted to {server}:" in error
    assert f"{gone}" in error
    assert not Path("other.zip").exists()
    with zipfile.ZipFile("new/out.zip", "a") as archive:
        archive.writestr("notes.txt", "mine")
    with pytest.raises(SystemExit) as stop:
        main(check)
    assert stop.value.code == 2
    assert "notes.txt: not a file of the submission" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["got-10k", "out.zip", "--check"], "unknown server 'got-10k'"),
        (["got10k", "out.zip"], "give --results FOLDER to make the submission OUT, or --check"),
        (["got10k", "out.zip", "--results", "r", "--check"], "give --results FOLDER to make"),
        (["got10k", "out.tar", "--results", "r"], "out.tar must end in .zip"),
        (["got10k", "out.zip", "--check", "--root", "data"], "there is no submission out.zip"),
        (["got10k", "out.zip", "--results", "r", "--root", "data"], "there are no results at r"),
    ],
)
def test_wrong_input(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--root" in words:
        write_sample("got10k", "data", Source(SEQUENCES, FRAMES, 96, 80, 1))
    with pytest.raises(SystemExit) as stop:
        main(["export", *words, "--no-progress-bar"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path.name for path in here.iterdir()} <= {"data"}


def test_a_dataset_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "got10k", "out.zip", "--results", "r", "--root", "nowhere"])
    assert stop.value.code == 2
    assert "nowhere" in capsys.readouterr().err
