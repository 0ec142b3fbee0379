"""How exactly networks compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from slt_gym.errors import unknown

PRECISIONS = ("float32", "tf32", "bf16")


def check_precision(name: str) -> None:
    """Raise InvalidArgumentError unless ``name`` is one of ``PRECISIONS``."""
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)


@contextmanager
def allow_tf32(allowed: bool) -> Iterator[None]:
    """Let a GPU round the factors of float32 products to 10 bits within the block, backward too.

    Args:
        allowed: Whether to; otherwise PyTorch's settings stay as they are.
    """
    switches: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        if allowed:
            for switch in switches:
                switch.allow_tf32 = True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
