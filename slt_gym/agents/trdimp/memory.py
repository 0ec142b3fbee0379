"""The samples that TrDiMP's filter is optimised on."""

from __future__ import annotations

import torch
from torch import Tensor

from slt_gym.agents.trdimp.config import TrDiMPConfig


class SampleMemory:
    """Features, boxes and weights of samples; the least important one makes room.

    Args:
        tokens: Features of the initial samples, shape ``(n, L, C)``; they are never replaced.
        boxes: Shape ``(n, 4)``, ``(x, y, w, h)``, pixels of the samples.
        config: Size and rates.
    """

    def __init__(self, tokens: Tensor, boxes: Tensor, config: TrDiMPConfig) -> None:
        self.config = config
        self.num_initial = self.count = len(tokens)
        size = max(config.sample_memory_size, self.count + 1)
        self._tokens = tokens.new_zeros(size, *tokens.shape[1:])
        self._boxes = boxes.new_zeros(size, 4)
        self._weights = tokens.new_zeros(size)
        self._tokens[: self.count] = tokens
        self._boxes[: self.count] = boxes
        self._weights[: self.count] = 1 / self.count
        self._latest: int | None = None

    @property
    def samples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``(n, L, C)``, boxes ``(n, 4)`` and weights ``(n,)`` of what is stored."""
        n = self.count
        return self._tokens[:n], self._boxes[:n], self._weights[:n]

    def add(self, tokens: Tensor, box: Tensor, rate: float) -> None:
        """Store a sample with a weight of ``rate``, in the place of the least important one.

        Args:
            tokens: Shape ``(L, C)``.
            box: Shape ``(4,)``.
            rate: Learning rate.
        """
        weights, initial = self._weights, self.num_initial
        if self.count < len(weights):
            place = self.count
            self.count += 1
        else:
            place = initial + int(weights[initial:].argmin())
        if self._latest is None:
            weights /= 1 - rate
            weights[place] = rate
        else:
            weights[place] = weights[self._latest] / (1 - rate)
        weights /= weights.sum()
        least = self.config.init_samples_minimum_weight
        if weights[:initial].sum() < least:
            weights /= least + weights[initial:].sum()
            weights[:initial] = least / initial
        self._tokens[place] = tokens
        self._boxes[place] = box
        self._latest = place


class TransformerMemory:
    """Classification features and labels that the transformer's encoder sees, the newest first.

    Args:
        tokens: Features of the initial samples, shape ``(n, L, C)``.
        labels: Shape ``(n, L)``.
        config: Its size.
    """

    def __init__(self, tokens: Tensor, labels: Tensor, config: TrDiMPConfig) -> None:
        self.tokens = tokens
        self.labels = labels
        self._size = config.transformer_memory_size

    def add(self, tokens: Tensor, label: Tensor) -> None:
        """Put a sample, ``(L, C)`` and ``(L,)``, in front; the last one goes when it is full."""
        kept = len(self.tokens) if len(self.tokens) < self._size else len(self.tokens) - 1
        self.tokens = torch.cat([tokens[None], self.tokens[:kept]])
        self.labels = torch.cat([label[None], self.labels[:kept]])
