"""The library's own exceptions.

Each message is one sentence: what was wrong, where (file and line, id or key) and what is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SltGymError(Exception):
    """Base of every error that this library raises on purpose."""


class InvalidArgumentError(SltGymError, ValueError):
    """Raised when an argument's value is not among the accepted ones."""


class DatasetNotFoundError(SltGymError, FileNotFoundError):
    """Raised when a dataset's folder is missing, or holds nothing that can be read."""


class AnnotationError(SltGymError, ValueError):
    """Raised when an annotation file is garbled, or does not fit its frames."""


class FrameError(SltGymError, OSError):
    """Raised when a frame cannot be read or decoded."""


class CheckpointError(SltGymError, ValueError):
    """Raised when a file of weights cannot be read, or belongs to another network."""


class ResultsError(SltGymError, ValueError):
    """Raised when a tracker's results are missing or garbled, or a rule refuses to score them."""


def unknown(kind: str, value: object, accepted: Iterable[str]) -> InvalidArgumentError:
    """Build the error for a name that is not in a table.

    Args:
        kind: What the name stands for, as in ``unknown reward 'auk'``.
        value: The offending value.
        accepted: The names that would have been right.
    """
    names = sorted(accepted)
    close = get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return InvalidArgumentError(f"unknown {kind} {value!r}: accepted are {', '.join(names)}{hint}")
