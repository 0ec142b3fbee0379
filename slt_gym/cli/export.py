"""``slt-gym export``: a submission for a benchmark's server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from slt_gym.data import open_dataset
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.files import check_output_file
from slt_gym.evaluation.submission import SERVERS, check_submission, get_server, write_submission

_SERVER_HELP = f"The benchmark whose server it is for: {', '.join(SERVERS)}."


@dataclass(frozen=True)
class Arguments:
    """Make a submission for a benchmark's server, or check one.

    Checks the results of the test part against the server's rules (names, rows, counts, times) and
    zips them as it wants them; with --check OUT is a zip that is there already, and RESULTS is left
    out. GOT-10k: http://got-10k.aitestunion.com; one-shot results come from training on its own
    train part alone. TrackingNet: challenge 1805 on https://eval.ai (participate and submit there).

    Attributes:
        server: The benchmark.
        out: The zip file.
        results: The tracker's folder of results, of slt-gym evaluate or any toolkit.
        root: The dataset's folder, whose frames are counted; by default $SLT_GYM_<DATASET>, then
            $SLT_GYM_DATA/<dataset>.
        check: Only check the zip OUT.
        progress_bar: Show a progress bar while frames are counted.
    """

    server: Annotated[Positional[str], arg(metavar="SERVER", help=_SERVER_HELP)]
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    results: Annotated[Path | None, arg(metavar="FOLDER")] = None
    root: Annotated[str | None, arg(metavar="FOLDER")] = None
    check: bool = False
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Check and write the submission.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: The server is unknown, or an argument is missing.
        ResultsError: The results break the server's rules.
        DatasetNotFoundError: The dataset is not there.
    """
    del command
    server = get_server(arguments.server)
    if arguments.check == (arguments.results is not None):
        raise InvalidArgumentError(
            "give --results FOLDER to make the submission OUT, or --check to look at one"
        )
    out = arguments.out.expanduser()
    if not arguments.check:
        check_output_file(out, (".zip",))
    dataset = open_dataset(server.dataset, arguments.root, "test")
    bar = tqdm(dataset, "counting frames", unit="seq", disable=not arguments.progress_bar)
    frames = {sequence.name: len(sequence) for sequence in bar}
    if arguments.results is None:
        check_submission(arguments.server, out, frames)
        print(f"{out} keeps the rules of {arguments.server}")
    else:
        write_submission(arguments.server, arguments.results, frames, out)
        print(f"submission: {out}")
