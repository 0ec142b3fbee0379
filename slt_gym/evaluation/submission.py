"""Submissions for the servers of GOT-10k and TrackingNet, checked before they are zipped."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slt_gym.errors import ResultsError, unknown
from slt_gym.evaluation.files import replacing
from slt_gym.evaluation.names import match_names
from slt_gym.evaluation.results import load_repetitions, load_times

_SHOWN_FAULTS = 10
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Server:
    """What a benchmark's server takes.

    Attributes:
        dataset: The dataset, as :func:`slt_gym.data.open_dataset` takes it, split ``test``.
        sequences: How many there are.
        boxes: The name of a sequence's file in the zip, a format of its name and the repetition's
            number.
        times: The name of its file of times; None where the server wants none.
        repetitions: How many a tracker with randomness may hand in; the first is a must.
        decimals: Of the boxes' numbers.
    """

    dataset: str
    sequences: int
    boxes: str
    times: str | None
    repetitions: int
    decimals: int


SERVERS = {
    "got10k": Server("got10k", 180, "{0}/{0}_{1:03d}.txt", "{0}/{0}_time.txt", 3, decimals=4),
    "trackingnet": Server("trackingnet", 511, "{0}.txt", None, 1, decimals=2),
}


def get_server(name: str) -> Server:
    """Return a server by its benchmark's name.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if name not in SERVERS:
        raise unknown("server", name, SERVERS)
    return SERVERS[name]


def write_submission(
    server: str, results: str | Path, frames: Mapping[str, int], path: str | Path
) -> Path:
    """Check a tracker's results against a server's rules and zip them as it wants them.

    Args:
        server: ``"got10k"`` or ``"trackingnet"``.
        results: The tracker's result files, in any toolkit's layout.
        frames: The number of frames of every test sequence.
        path: The zip file; one that is there is replaced.

    Returns:
        Its path.

    Raises:
        ResultsError: The results break the rules; the message lists how, and nothing is written.
        InvalidArgumentError: The server is unknown.
    """
    rules = get_server(server)
    runs = load_repetitions(results)
    names = match_names(runs, frames)
    texts = {
        rules.boxes.format(name, k): _format(boxes, rules.decimals)
        for name, found in names.results.items()
        for k, boxes in enumerate(runs[found][: rules.repetitions], 1)
    }
    if rules.times is not None:
        times = load_times(results)
        for name, found in match_names(times, frames).results.items():
            texts[rules.times.format(name)] = _format(times[found][:, : rules.repetitions], 8)
    faults = [f"{name}: no sequence of the test part" for name in names.unknown]
    faults += [
        f"{name}: could be any of {', '.join(files)}" for name, files in names.ambiguous.items()
    ]
    faults += _find_faults(rules, texts, frames)
    _refuse(f"{results} cannot be submitted to {server}", faults)
    path = Path(path).expanduser()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text, zipfile.ZIP_DEFLATED)
    return path


def check_submission(server: str, path: str | Path, frames: Mapping[str, int]) -> None:
    """Check a zip file against a server's rules: names, rows, separators, counts.

    Args:
        server: ``"got10k"`` or ``"trackingnet"``.
        path: The zip; of GOT-10k's all may lie in one folder more.
        frames: The number of frames of every test sequence.

    Raises:
        ResultsError: It breaks them, or is no zip; the message lists how.
        InvalidArgumentError: The server is unknown.
    """
    rules = get_server(server)
    texts = _read_zip(Path(path).expanduser())
    tops = {name.partition("/")[0] for name in texts}
    if rules.times is not None and len(tops) == 1 and not tops & set(frames):
        texts = {name.partition("/")[2]: text for name, text in texts.items()}
    _refuse(f"{path} breaks the rules of {server}", _find_faults(rules, texts, frames))


def _read_zip(path: Path) -> dict[str, str]:
    """Return the texts in a zip file by name."""
    if not path.is_file():
        raise ResultsError(f"there is no submission {path}: expected is a zip file")
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename: archive.read(info).decode("utf-8", "replace")
                for info in archive.infolist()
                if not info.is_dir()
            }
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last: encrypted
        raise ResultsError(f"{path} is not a whole zip file: {error}") from None


def _find_faults(rules: Server, texts: Mapping[str, str], frames: Mapping[str, int]) -> list[str]:
    faults = []
    if len(frames) != rules.sequences:
        faults.append(
            f"the test part on this disk has {len(frames)} sequences, the benchmark "
            f"{rules.sequences}"
        )
    known = set()
    for name, count in frames.items():
        runs = [rules.boxes.format(name, k + 1) for k in range(rules.repetitions)]
        times = [] if rules.times is None else [rules.times.format(name)]
        known |= {*runs, *times}
        faults += [f"{file}: missing" for file in (runs[0], *times) if file not in texts]
        for file in (*runs, *times):
            if file in texts:
                found = _check_rows(texts[file], count, are_times=file in times)
                faults += [f"{file}: {fault}" for fault in found]
    return faults + [f"{name}: not a file of the submission" for name in texts if name not in known]


def _check_rows(text: str, frames: int, are_times: bool) -> Iterator[str]:
    """Yield what is wrong with a file."""
    lines = text.splitlines()
    rows = [_parse(line) for line in lines]
    if len(rows) != frames:
        yield f"{len(rows)} rows for {frames} frames (the first frame included)"
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        if row is None or (len(row) != 4 and not are_times):
            wanted = "seconds" if are_times else "four numbers"
            shown = line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"
            yield f"row {number} is not {wanted} with commas between them: {shown!r}"
        elif not np.isfinite(row).all():
            yield f"row {number} is not finite: {line!r}"
        elif are_times and min(row) < 0:
            yield f"row {number} is a negative time: {line!r}"
        elif not are_times and min(row[2:]) < 0:
            yield f"row {number} has a negative size: {line!r}"
        else:
            continue
        return  # What is wrong with one row is mostly wrong with all.


def _parse(line: str) -> list[float] | None:
    try:
        return [float(field) for field in line.split(",")]
    except ValueError:
        return None


def _refuse(subject: str, faults: Sequence[str]) -> None:
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        lines = [*faults[:_SHOWN_FAULTS], *([f"and {more} more"] if more > 0 else [])]
        raise ResultsError("\n  ".join([f"{subject}:", *lines]))


def _format(rows: NDArray[np.float64], decimals: int) -> str:
    return "".join(",".join(f"{value:.{decimals}f}" for value in row) + "\n" for row in rows)
