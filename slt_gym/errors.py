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


class UnexpectedArgumentError(InvalidArgumentError, TypeError):
    """Raised when a function has no argument of that name: a ``TypeError``, like Python's own."""


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
    return InvalidArgumentError(f"unknown {kind} {value!r}: {_suggest(value, accepted)}")


def unexpected_argument(name: str, accepted: Iterable[str]) -> UnexpectedArgumentError:
    """Build the error for a keyword argument that there is none of.

    It is worded as Python words it: TorchRL tries arguments, and reads the error's text.
    """
    return UnexpectedArgumentError(
        f"unexpected keyword argument {name!r}: {_suggest(name, accepted)}"
    )


def _suggest(value: object, accepted: Iterable[str]) -> str:
    names = sorted(accepted)
    close = get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"accepted are {', '.join(names)}{hint}"
