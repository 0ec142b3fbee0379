"""Layers whose activations may be computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """A module that runs its large layers by :meth:`run`.

    Attributes:
        activation_checkpointing: Whether the layers keep only their inputs.
    """

    activation_checkpointing: bool = False

    def run(self, layer: Callable[..., Any], *inputs: Any) -> Any:
        """Return ``layer(*inputs)``."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


class Blocks(Recomputing, nn.Sequential):
    """Blocks that follow each other, each run by :meth:`run`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map the first block's input to the last one's output."""
        for block in self:
            x = self.run(block, x)
        return x


def set_checkpointing(module: nn.Module, on: bool) -> None:
    """Tell all parts of ``module`` that run layers whether to keep only their inputs."""
    for part in module.modules():
        if isinstance(part, Recomputing):
            part.activation_checkpointing = on
