"""Where the time goes, summed over threads."""

from __future__ import annotations

import threading
import time


class Stopwatch:
    """Sums the seconds spent in named ``with`` blocks, by any number of threads.

    Attributes:
        seconds: The sums by name; threads that work at once each count.
        clock: What tells the seconds: ``time.thread_time`` in place of ``time.perf_counter`` leaves
            out what the machine does besides.
    """

    def __init__(self) -> None:
        self.clock = time.perf_counter
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Stopwatch], tuple[()]]:
        """Copy and pickle without the sums: they are of this process's threads."""
        return Stopwatch, ()

    def measure(self, name: str) -> Lap:
        """Return a context that adds the block's seconds to ``seconds[name]``."""
        return Lap(self, name)

    def add(self, name: str, seconds: float) -> None:
        """Add to a sum."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class Lap:
    """A block that a stopwatch measures; several times in each step, so it is no generator."""

    __slots__ = ("_name", "_started", "_stopwatch")

    def __init__(self, stopwatch: Stopwatch, name: str) -> None:
        self._stopwatch = stopwatch
        self._name = name

    def __enter__(self) -> None:
        self._started = self._stopwatch.clock()

    def __exit__(self, *error: object) -> None:
        self._stopwatch.add(self._name, self._stopwatch.clock() - self._started)
