"""TrDiMP's transformer (Wang et al., CVPR 2021): it refines the samples' features."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SOFTMAX_SCALE = 30.0  # TrDiMP


def instance_norm(tokens: Tensor, filter_size: int) -> Tensor:
    """Scale each image's features to the norm that the filter's learning expects (DiMP).

    Args:
        tokens: Shape ``(..., L, C)``, one image's positions and channels.
        filter_size: Side of the filter.
    """
    scale = math.sqrt(tokens.shape[-2]) / filter_size  # sqrt(C L) / sqrt(C k k)
    energy = tokens.square().sum(dim=(-2, -1), keepdim=True)
    return tokens * (scale / (energy + 1e-5).sqrt())


class _Head(nn.Module):
    """The linear maps of one attention; ``WV`` is in published checkpoints and never runs."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.WK = nn.Linear(channels, key_channels)
        self.WV = nn.Linear(channels, channels).requires_grad_(False)


class Attention(nn.Module):
    """One head that projects queries and keys alike, and does not project values."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.head = nn.ModuleList([_Head(channels, key_channels)])

    def key(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(B, L, C)`` to unit vectors ``(B, L, K)``, of queries and of keys."""
        return F.normalize(cast(_Head, self.head[0]).WK(tokens), dim=-1)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Average ``values`` ``(B, L, D)`` by the likeness of :meth:`key`'s vectors."""
        weights = torch.softmax(_SOFTMAX_SCALE * queries @ keys.transpose(1, 2), dim=-1)
        return weights @ values


class _Encoder(nn.Module):
    def __init__(self, self_attention: Attention) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        self.layers[0].self_attn = self_attention


class _Decoder(_Encoder):
    def __init__(self, self_attention: Attention, cross_attention: Attention) -> None:
        super().__init__(self_attention)
        self.layers[0].cross_attn = cross_attention


class Transformer(nn.Module):
    """One encoder and one decoder layer around one shared self-attention.

    The self-attention has two names in checkpoints, both of which are kept.
    """

    def __init__(self, channels: int, key_channels: int, filter_size: int) -> None:
        super().__init__()
        self.filter_size = filter_size
        shared = Attention(channels, key_channels)
        self.encoder = _Encoder(shared)
        self.decoder = _Decoder(shared, Attention(channels, key_channels))

    @property
    def _self_attention(self) -> Attention:
        return cast(Attention, self.decoder.layers[0].self_attn)

    @property
    def _cross_attention(self) -> Attention:
        return cast(Attention, self.decoder.layers[0].cross_attn)

    def _attend_to_itself(self, tokens: Tensor) -> Tensor:
        key = self._self_attention.key(tokens)
        return tokens + self._self_attention(key, key, tokens)

    def encode(self, tokens: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the template's samples into the decoder's memory.

        Args:
            tokens: Shape ``(B, n, L, C)``, the features of ``n`` images.
            label: Shape ``(B, n, L)``, where the target is.

        Returns:
            Keys ``(B, n L, K)`` and values ``(B, n L, C + 1)``: the label, then the encoded
            features where the label lets them through.
        """
        encoded = self._attend_to_itself(tokens.flatten(1, 2)).view_as(tokens)
        memory = instance_norm(encoded, self.filter_size).flatten(1, 2)
        label = label.flatten(1)[..., None]
        key = self._cross_attention.key(memory)
        return key, torch.cat([label, memory * label], dim=-1)

    def decode(self, tokens: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Refine the features ``(B, L, C)`` of one image each by the memory of :meth:`encode`."""
        tokens = instance_norm(self._attend_to_itself(tokens), self.filter_size)
        found = self._cross_attention(self._cross_attention.key(tokens), *memory)
        masked = instance_norm(tokens * found[..., :1], self.filter_size)
        added = instance_norm(tokens + found[..., 1:], self.filter_size)
        return instance_norm(masked + added, self.filter_size)
