"""The command's frame: help, exit codes and one line instead of a traceback."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import slt_gym
from slt_gym.cli import COMMANDS, main, run
from slt_gym.cli.arguments import parse_options
from slt_gym.errors import FrameError, InvalidArgumentError, SltGymError
from slt_gym.evaluation.files import check_output_file, check_output_folder

REPOSITORY = Path(slt_gym.__file__).parents[1]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_help_lists_the_commands_without_torch() -> None:
    code = (
        "import sys\nfrom slt_gym.cli import main\ntry: main(['--help'])\n"
        "finally: print('torch' in sys.modules, 'stable_baselines3' in sys.modules)"
    )
    result = call("-c", code)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "False False"
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("content", [None, b"this is no video" * 99])
def test_wrong_input_is_one_line_and_leaves_nothing(content: bytes | None, tmp_path: Path) -> None:
    source, folder = tmp_path / "source.mp4", tmp_path / "new"
    if content:
        source.write_bytes(content)  # OpenCV and FFmpeg would print lines of their own.
    words = ["track", str(source), "--box", "1,2,3,4", "--output", str(folder / "boxes.txt")]
    result = call("-m", "slt_gym.cli", *words, "--video", str(folder / "out.mp4"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: cannot read " if content else "error: there is no ")
    assert not folder.exists()


@pytest.mark.parametrize("words", [["trak"], ["track", "--bax", "1,2,3,4"], ["track"]])
def test_unknown_words_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"slt-gym {slt_gym.__version__}\n"


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidArgumentError("seed is -1"), 2, "seed is -1"),
        (FrameError("cannot read frame 3"), 2, "cannot read frame 3"),
        (SltGymError("the loss is nan"), 1, "the loss is nan"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left", "a.txt"), 1, "a.txt: No space left"),
        (PermissionError(errno.EACCES, "Permission denied"), 1, "Permission denied"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "the reader of the output went away"),
    ],
)
def test_errors_become_lines_and_codes(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(raising(error))
    assert stop.value.code == code
    text = capsys.readouterr().err
    assert text.startswith(f"error: {line}" if code != 130 else "error: interrupted")
    assert text.count("\n") == 1


def test_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    monkeypatch.setenv("SLT_GYM_DEBUG", "1")
    with pytest.raises(InvalidArgumentError):
        run(raising(InvalidArgumentError("x")))


def test_success_returns() -> None:
    calls: list[int] = []
    run(lambda: calls.append(1))
    assert calls == [1]


@pytest.mark.parametrize("text", ["{", "[1]", "3", '{"a" 1}'])
def test_options_that_are_no_json_object(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"--options .* JSON"):
        parse_options("--options", text)


def test_options_are_read() -> None:
    options = {"width": 256, "speed": 0.5, "name": "é"}
    assert parse_options("--options", json.dumps(options)) == options


def test_outputs_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    check_output_folder(tmp_path / "new" / "run")
    check_output_file(tmp_path / "new" / "a.mp4", (".mp4",))
    check_output_file(file)
    with pytest.raises(InvalidArgumentError, match="not empty \\(it holds file\\)"):
        check_output_folder(tmp_path)
    with pytest.raises(InvalidArgumentError, match="is a file"):
        check_output_folder(file)
    with pytest.raises(InvalidArgumentError, match="file is a file, not a folder"):
        check_output_folder(file / "run")
    with pytest.raises(InvalidArgumentError, match="is a folder"):
        check_output_file(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"must end in \.mp4"):
        check_output_file(file, (".mp4",))
    assert list(tmp_path.iterdir()) == [file]
