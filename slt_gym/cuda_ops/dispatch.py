"""When the Triton kernels serve an operator, and what happens where they cannot."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

KERNEL_DEVICES = ("cuda",)
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Operators whose kernels failed in this process: no Triton, a compiler that is missing, an old GPU.
_failed: set[str] = set()
_logger = logging.getLogger(__name__)


def run(
    name: str, plain: Callable[..., Tensor], *tensors: Tensor | None, **settings: Any
) -> Tensor:
    """Run an operator by its Triton kernels where they serve, else by its plain PyTorch form.

    They serve float32 and 16-bit features on a GPU, outside of ``torch.compile``. Where Triton is
    missing, or a kernel does not compile or run, forward or backward, the plain form takes over
    for the rest of the process; only the log (level DEBUG) tells. The kernels have no second
    derivatives.

    Args:
        name: Module in :mod:`slt_gym.cuda_ops.kernels`.
        plain: The plain form, called with the tensors and the settings.
        *tensors: The features, then other tensors or None.
        **settings: Numbers.
    """
    if name not in _failed and _serve(*tensors):
        try:
            return _Kernels.apply(name, plain, settings, *tensors)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # Triton and its compilers raise anything
            _give_up(name, error)
    return plain(*tensors, **settings)


def _serve(*tensors: Tensor | None) -> bool:
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(tensor.device.type in KERNEL_DEVICES for tensor in given)
        and given[0].dtype in KERNEL_DTYPES
        and all(tensor.dtype != torch.float64 for tensor in given)
        and not torch.compiler.is_compiling()
    )


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"slt_gym.cuda_ops.kernels.{name}")


def _give_up(name: str, error: Exception) -> None:
    _failed.add(name)
    _logger.debug("%s runs in its plain form from now on: %r", name, error)


class _Kernels(torch.autograd.Function):
    """An operator by its kernels, whose gradients fall back to the plain form's."""

    @staticmethod
    def forward(
        ctx: Any,
        name: str,
        plain: Callable[..., Tensor],
        settings: dict[str, Any],
        *tensors: Tensor | None,
    ) -> Tensor:
        """Pool."""
        ctx.name, ctx.plain, ctx.settings = name, plain, settings
        ctx.save_for_backward(*tensors)
        return _load(name).forward(*tensors, **settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the tensors that need one."""
        needed, tensors = ctx.needs_input_grad[3:], ctx.saved_tensors
        if ctx.name not in _failed:
            try:
                found = _load(ctx.name).backward(grads[0], needed, *tensors, **ctx.settings)
                return (None, None, None, *found)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                _give_up(ctx.name, error)
        with torch.enable_grad():
            leaves: list[Any] = [
                None if tensor is None else tensor.detach().requires_grad_(need)
                for tensor, need in zip(tensors, needed, strict=True)
            ]
            pooled = ctx.plain(*leaves, **ctx.settings)
        wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
        computed = iter(torch.autograd.grad(pooled, wanted, grads[0]))
        return (None, None, None, *(next(computed) if need else None for need in needed))
