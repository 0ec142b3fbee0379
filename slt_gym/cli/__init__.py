"""The ``slt-gym`` command: one file per sub-command, imported when it is called."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import tyro

from slt_gym.cli.run import run
from slt_gym.version import __version__

__all__ = ["main", "run"]

PROGRAM = "slt-gym"
# A new command is one file, with Arguments and execute, and one row. The text stands in
# ``slt-gym --help``, which must not wait for PyTorch.
COMMANDS = {
    "benchmark": "Train algorithms with several seeds on one environment, and compare them.",
    "data": "Check a downloaded dataset, and report what is missing, damaged or wrong.",
    "evaluate": "Run a tracker over a dataset, and report under the benchmark's own rule.",
    "export": "Make a submission for the server of GOT-10k or TrackingNet.",
    "pack": "Copy a dataset into a few large files that open as it does, or verify them.",
    "pretrain": "Train a tracker on single pairs of frames (frame-level training).",
    "report": "Compare trackers' result files on a dataset: a page, tables, plots and clips.",
    "sample-data": "Write a small dataset of synthetic video in the layout of a real one.",
    "track": "Follow one target through a video file or a folder of frames.",
    "trajectories": "Record a tracker's episodes in an environment as a Minari dataset.",
    "trax": "Serve a tracker over TraX, so that the official vot-toolkit runs it.",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``slt-gym``.

    Args:
        argv: The words after ``slt-gym``; None takes those of this process.

    Raises:
        SystemExit: With 2 for wrong input, 130 for an interrupt, 1 for another failure; and with 0
            after a help text.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    run(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> None:
    if words == ["--version"]:
        print(f"{PROGRAM} {__version__}")
    elif words and words[0] in COMMANDS:
        module: Any = import_module(f"slt_gym.cli.{words[0].replace('-', '_')}")
        arguments = tyro.cli(
            module.Arguments,
            prog=f"{PROGRAM} {words[0]}",
            args=words[1:],
            config=(tyro.conf.OmitArgPrefixes,),
        )
        module.execute(arguments, shlex.join([PROGRAM, *words]))
    else:
        # No command matches, so that this shows the list of them, or what is wrong, and exits.
        tyro.extras.subcommand_cli_from_dict(
            {name: _stand_in(text) for name, text in COMMANDS.items()},
            prog=PROGRAM,
            description="Single-object tracking as reinforcement learning.",
            args=words or ["--help"],
        )


def _stand_in(text: str) -> Callable[[], None]:
    def command() -> None: ...

    command.__doc__ = text
    return command
