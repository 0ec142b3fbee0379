"""The page that ``slt-gym data`` prints."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from slt_gym.data.checking import KINDS, Problem


@dataclass
class PartReport:
    """What was found in one part of a dataset.

    Attributes:
        split: The part's name.
        sequences: How many are there.
        published: How many were published, if that is a fixed number.
        frames: Frames of the sequences that can be read.
        visible: Those in which the target is visible.
        decoded: Those that were decoded.
        problems: What is wrong.
        absent: Why the part could not be checked, if it could not.
    """

    split: str
    sequences: int = 0
    published: int | None = None
    frames: int = 0
    visible: int = 0
    decoded: int = 0
    problems: list[Problem] = field(default_factory=list)
    absent: str = ""


@dataclass(frozen=True)
class Report:
    """What was found in a dataset.

    Attributes:
        dataset: The dataset's name.
        root: Its folder; empty where it was found by the environment's variables.
        command: The command line.
        decode: Which frames were decoded.
        seconds: How long it took.
        parts: The parts.
    """

    dataset: str
    root: str
    command: str
    decode: str
    seconds: float
    parts: list[PartReport]

    def summarise(self) -> str:
        """Return what is broken, such as ``truncated frames: 3``; nothing where all is well."""
        groups = self._group(known=False)
        return "; ".join(f"{KINDS[kind]}: {_count(rows)}" for kind, rows in groups.items())

    def to_markdown(self, show: int) -> str:
        """Return the page.

        Args:
            show: How many problems of each kind to list.
        """
        broken = self.summarise()
        lines = [
            f"# {self.dataset}{f' in {self.root}' if self.root else ''}",
            "",
            f"`{self.command}` took {self.seconds} s; frames decoded: {self.decode}.",
            "",
            *_table(
                ("split", "sequences", "published", "frames", "with target", "decoded", "broken"),
                (_summary_row(part) for part in self.parts),
            ),
            "",
            *(
                f"{part.split} is not checked: {part.absent}\n"
                for part in self.parts
                if part.absent
            ),
            f"Broken: {broken}." if broken else "Nothing is broken.",
        ]
        for known, title in ((False, "Broken"), (True, "Known, not broken")):
            for kind, rows in self._group(known).items():
                lines += ["", f"## {title}, {KINDS[kind]}: {_count(rows)}", ""]
                columns = ("split", "sequence", "frames", "found", "file")
                lines += _table(columns, (self._row(*row) for row in rows[:show]))
                if len(rows) > show:
                    lines.append(f"\n… and {len(rows) - show} more rows.")
        return "\n".join(lines) + "\n"

    def _group(self, known: bool) -> dict[str, list[tuple[str, Problem]]]:
        """Return the problems, with their splits, by kind in the order of :data:`KINDS`."""
        groups: dict[str, list[tuple[str, Problem]]] = defaultdict(list)
        for part in self.parts:
            for problem in part.problems:
                if problem.known == known:
                    groups[problem.kind].append((part.split, problem))
        return {kind: groups[kind] for kind in KINDS if kind in groups}

    def _row(self, split: str, problem: Problem) -> tuple[object, ...]:
        frames = "" if problem.first is None else str(problem.first)
        if problem.count > 1:
            frames += f" to {problem.last}"
        file = problem.file or ""
        if self.root and file.startswith(self.root):
            file = os.path.relpath(file, self.root)
        return split, problem.sequence, frames, problem.detail, file


def _summary_row(part: PartReport) -> tuple[object, ...]:
    published = "" if part.published is None else str(part.published)
    if part.published and part.sequences < part.published:
        published += " (a partial download)"
    broken = sum(problem.count for problem in part.problems if not problem.known)
    return (
        part.split,
        "not there" if part.absent else part.sequences,
        published,
        part.frames,
        part.visible,
        part.decoded,
        broken,
    )


def _count(rows: list[tuple[str, Problem]]) -> int:
    return sum(problem.count for _, problem in rows)


def _table(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return [f"| {' | '.join(_cell(value) for value in line)} |" for line in lines]


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
