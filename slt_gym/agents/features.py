"""What a network keeps of its templates: a tensor, or a dict of tensors, with the batch first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

# ``Tensor | dict[str, Tensor]``; each network narrows it to its own.
Features: TypeAlias = Any


def map_features(function: Callable[[Tensor], Tensor], features: Features) -> Features:
    """Apply a function to each tensor."""
    if isinstance(features, dict):
        return {name: function(tensor) for name, tensor in features.items()}
    return function(features)


def replace_rows(features: Features, rows: Tensor, new: Features) -> Features:
    """Return features with other rows.

    Args:
        features: Of ``n`` tracks; left as they are.
        rows: Indices of the rows to replace, shape ``(m,)``.
        new: Features of ``m`` tracks.
    """
    if isinstance(features, dict):
        return {name: replace_rows(features[name], rows, new[name]) for name in features}
    return features.index_copy(0, rows, new)


def count_rows(features: Features) -> int:
    """Return the length of the first axis."""
    return len(next(iter(features.values())) if isinstance(features, dict) else features)
