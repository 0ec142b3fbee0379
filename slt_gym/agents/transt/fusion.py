"""TransT's feature fusion: ego-context augment and cross-feature augment (paper, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.recomputation import Recomputing


def sine_position(height: int, width: int, channels: int) -> Tensor:
    """Compute the sine position encoding of a feature map (Carion et al., ECCV 2020).

    Args:
        height: Rows of the map.
        width: Columns of the map.
        channels: Features per position: the first half tells the row, the second the column.

    Returns:
        Float32, shape ``(height * width, channels)``, row-major.
    """
    half = channels // 2
    frequency = 10000 ** (2 * (torch.arange(half) // 2).float() / half)

    def axis(count: int) -> Tensor:
        position = torch.arange(1, count + 1, dtype=torch.float32) / (count + 1e-6) * (2 * math.pi)
        angle = position[:, None] / frequency  # (count, half)
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = axis(height)[:, None].expand(height, width, half)
    columns = axis(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).reshape(height * width, channels)


def rectify(x: Tensor) -> Tensor:
    """Return ``relu(x)`` of a linear layer's output ``x``, which is lost where nothing is learnt.

    That output is a view, which autograd would copy before it is changed.
    """
    return F.relu(x, inplace=not torch.is_grad_enabled())


class Attention(nn.Module):
    """Multi-head attention with the parameters of ``nn.MultiheadAttention``, without its detours.

    Nothing here asks for the attention weights, so PyTorch's fused kernel always serves; and
    self-attention, whose queries and keys are one tensor, projects both in one product.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor | None, value: Tensor) -> Tensor:
        """Attend from ``query`` ``(B, Nq, C)`` to ``key`` and ``value`` ``(B, Nk, C)``.

        Without ``key`` the queries are the keys.
        """
        width = query.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if key is None:
            both = F.linear(query, weight[: 2 * width], bias[: 2 * width])
            q, k = both.split(width, dim=-1)
        else:
            q = F.linear(query, weight[:width], bias[:width])
            k = F.linear(key, weight[width : 2 * width], bias[width : 2 * width])
        v = F.linear(value, weight[2 * width :], bias[2 * width :])
        attended = F.scaled_dot_product_attention(
            self._split(q),
            self._split(k),
            self._split(v),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)


class FusionLayer(nn.Module):
    """Self-attention in each branch, then attention to the other branch (keys end in 1 and 2).

    Index 1 is the template's branch, index 2 the search crop's.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn1 = Attention(width, heads, dropout)
        self.self_attn2 = Attention(width, heads, dropout)
        self.multihead_attn1 = Attention(width, heads, dropout)
        self.multihead_attn2 = Attention(width, heads, dropout)
        self.linear11 = nn.Linear(width, feedforward)
        self.linear12 = nn.Linear(feedforward, width)
        self.linear21 = nn.Linear(width, feedforward)
        self.linear22 = nn.Linear(feedforward, width)
        self.norm11 = nn.LayerNorm(width)
        self.norm12 = nn.LayerNorm(width)
        self.norm13 = nn.LayerNorm(width)
        self.norm21 = nn.LayerNorm(width)
        self.norm22 = nn.LayerNorm(width)
        self.norm23 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, template: Tensor, search: Tensor, template_pos: Tensor, search_pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update both token sets: ``(B, Nt, C)`` and ``(B, Ns, C)``."""
        drop = self.dropout
        t, s = template, search
        t = self.norm11(t + drop(self.self_attn1(t + template_pos, None, t)))
        s = self.norm21(s + drop(self.self_attn2(s + search_pos, None, s)))
        from_search = self.multihead_attn1(t + template_pos, s + search_pos, s)
        from_template = self.multihead_attn2(s + search_pos, t + template_pos, t)
        t = self.norm12(t + drop(from_search))
        s = self.norm22(s + drop(from_template))
        t = self.norm13(t + drop(self.linear12(drop(rectify(self.linear11(t))))))
        s = self.norm23(s + drop(self.linear22(drop(rectify(self.linear21(s))))))
        return t, s


class DecoderLayer(nn.Module):
    """The search tokens look at the template once more."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, template: Tensor, search: Tensor, template_pos: Tensor, search_pos: Tensor
    ) -> Tensor:
        """Update the search tokens ``(B, Ns, C)`` from the template's ``(B, Nt, C)``."""
        drop = self.dropout
        s = search
        attended = self.multihead_attn(s + search_pos, template + template_pos, template)
        s = self.norm1(s + drop(attended))
        return self.norm2(s + drop(self.linear2(drop(rectify(self.linear1(s))))))


class _Encoder(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(width, heads, ffn, dropout) for _ in range(layers))


class _Decoder(nn.Module):
    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(width, heads, ffn, dropout)])
        self.norm = nn.LayerNorm(width)


class FeatureFusion(Recomputing):
    """Fuse template and search tokens into search tokens that know the target."""

    def __init__(self, layers: int, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.encoder = _Encoder(layers, width, heads, ffn, dropout)
        self.decoder = _Decoder(width, heads, ffn, dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, template: Tensor, search: Tensor, template_pos: Tensor, search_pos: Tensor
    ) -> Tensor:
        """Map tokens ``(B, Nt, C)``, ``(B, Ns, C)``, encodings ``(N, C)`` to ``(B, Ns, C)``."""
        for layer in self.encoder.layers:
            template, search = self.run(layer, template, search, template_pos, search_pos)
        search = self.run(self.decoder.layers[0], template, search, template_pos, search_pos)
        return self.decoder.norm(search)
