"""Where the time goes, summed over threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


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

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block's seconds to ``seconds[name]``."""
        started = self.clock()
        try:
            yield
        finally:
            spent = self.clock() - started
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + spent
