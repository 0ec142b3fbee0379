"""Jobs in processes of their own, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from slt_gym.evaluation.benchmark.job import Job, limit_threads, run_job
from slt_gym.evaluation.files import replacing

_PATIENCE = 0.5  # seconds between two messages of a job
Outcome = dict[str, Any] | str  # what results.json holds, or why there is none


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    on_end: Callable[[Job, Outcome], object],
    on_steps: Callable[[int], object] = lambda steps: None,
) -> None:
    """Run each job in a process of its own, ``workers`` at a time, begun in order.

    A job that fails does not stop the others; its traceback goes to ``failures/`` in the
    benchmark's folder. Where this is interrupted, the jobs that run end, and leave nothing.

    Args:
        jobs: What to do.
        workers: The number of processes.
        on_end: Called for each job that ends, with its outcome: results, or one line on the error.
        on_steps: Called with the number of environment steps that some job took.
    """
    context = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork.
    waiting = list(jobs)
    running: dict[Connection, tuple[Job, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                arguments = (job, there, os.getpid())
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                there.close()  # Else the end of the process would go unnoticed.
                running[here] = job, process
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                job, process = running[connection]
                try:
                    message = connection.recv()
                except EOFError:
                    process.join()
                    shutil.rmtree(job.partial, ignore_errors=True)
                    code = process.exitcode
                    hint = " (the system ran out of memory?)" if code == -signal.SIGKILL else ""
                    message = _note(job, f"its process ended with code {code}{hint}")
                if isinstance(message, int):
                    on_steps(message)
                    continue
                del running[connection]
                connection.close()
                process.join()
                on_end(job, message)
    finally:
        for _, process in running.values():
            process.terminate()
        for job, process in running.values():
            process.join()
            shutil.rmtree(job.partial, ignore_errors=True)


def _note(job: Job, text: str) -> str:
    """Keep the reason of a failure, and return its last line."""
    with replacing(job.failure) as temporary:
        temporary.write_text(f"{job.name}\n{text.rstrip()}\n", "utf-8")
    return text.rstrip().splitlines()[-1]


def _work(job: Job, messages: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent speaks for all.
    limit_threads()
    steps, last = 0, time.monotonic()

    def tell(more: int) -> None:
        nonlocal steps, last
        steps += more
        if time.monotonic() - last > _PATIENCE:
            if os.getppid() != parent:  # It was killed: nobody would end this process.
                shutil.rmtree(job.partial, ignore_errors=True)
                os._exit(1)
            messages.send(steps)
            steps, last = 0, time.monotonic()

    try:
        outcome: Outcome = run_job(job, tell)
    except Exception:
        outcome = _note(job, traceback.format_exc())
    messages.send(steps)
    messages.send(outcome)
