"""What a program does with an error: one line and an exit code instead of a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from slt_gym.errors import SltGymError

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def run(function: Callable[[], object]) -> None:
    """Call ``function``, and end the program in order where it fails.

    Wrong input (the sub-classes of :class:`slt_gym.errors.SltGymError`) exits with 2, an interrupt
    from the keyboard with 130, and what else can go wrong outside the program (a full disk, a
    missing permission, a reader that went away, a run that broke off with a bare
    :class:`~slt_gym.errors.SltGymError`) with 1, each with a line on the standard error stream.
    Other exceptions are mistakes in the program and keep their traceback; the environment variable
    ``SLT_GYM_DEBUG=1`` shows it for all.

    Raises:
        SystemExit: ``function`` failed in one of these ways.
    """
    try:
        function()
        # A reader that went away is noticed here rather than while Python shuts down.
        sys.stdout.flush()
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain again.
        with contextlib.suppress(OSError):  # A stand-in for the stream has no number.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail("the reader of the output went away before it was written whole", FAILED)
    except SltGymError as error:
        _fail(str(error), FAILED if type(error) is SltGymError else WRONG_INPUT)
    except OSError as error:
        reason = error.strerror or str(error)
        _fail(reason if error.filename is None else f"{error.filename}: {reason}", FAILED)


def _fail(message: str, code: int) -> None:
    if os.environ.get("SLT_GYM_DEBUG") == "1":
        raise  # noqa: PLE0704 (called while the exception is handled)
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code) from None
