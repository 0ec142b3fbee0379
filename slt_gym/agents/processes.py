"""Several processes that train one model: what ``torchrun`` starts, or this process alone."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# The others wait while the first process tests or trains a base; torchrun itself ends them all
# where one fails.
_PATIENCE = timedelta(days=7)


class Processes:
    """The processes among which a batch of clips is divided.

    Attributes:
        rank: This process's number; the first one, 0, writes and speaks for all.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1, cpu_group: Any = None) -> None:
        self.rank = rank
        self.count = count
        self._cpu_group = cpu_group  # for what is not a gradient, whatever the gradients' backend

    @staticmethod
    def join() -> Processes:
        """Join the processes that ``torchrun`` started, or those already joined; else be alone."""
        if dist.is_available() and (dist.is_initialized() or dist.is_torchelastic_launched()):
            return _join()
        return Processes()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def device(self, name: torch.device | str) -> torch.device | str:
        """Return the process's own GPU where ``"auto"`` or ``"cuda"`` leaves the choice."""
        if self.count > 1 and str(name) in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{_local_gpu(self.rank)}"
        return name

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value (anything that can be pickled), by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self._cpu_group)
        return values

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, group=self._cpu_group)
        return bool(flags)

    def mean(self, value: float) -> float:
        """Return the mean of the processes' values."""
        return sum(self.gather(value)) / self.count

    def add(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums of the processes' values, by name; a name may be missing in some."""
        gathered = self.gather(values)
        names = {name: None for part in gathered for name in part}  # in the first one's order
        return {name: sum(part.get(name, 0.0) for part in gathered) for name in names}

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by the sum of the processes' gradients.

        A parameter that has one in no process keeps none.
        """
        if self.count == 1:
            return
        parameters = list(parameters)
        present = torch.tensor([parameter.grad is not None for parameter in parameters]).int()
        dist.all_reduce(present, group=self._cpu_group)
        reductions = []
        for parameter, processes in zip(parameters, present.tolist(), strict=True):
            if processes:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                reductions.append(dist.all_reduce(parameter.grad, async_op=True))
        for reduction in reductions:
            reduction.wait()


def _local_gpu(rank: int) -> int:
    return int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count()


@functools.cache
def _join() -> Processes:
    if not dist.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(_local_gpu(int(os.environ["RANK"])))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=_PATIENCE)
        atexit.register(dist.destroy_process_group)
    cpu_group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return Processes(dist.get_rank(), dist.get_world_size(), cpu_group)
