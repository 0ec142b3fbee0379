"""What a network keeps of its templates: a tensor, or a dict of tensors, with the batch first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# ``Tensor | dict[str, Tensor]``; each network narrows it to its own.
Features: TypeAlias = Any


def map_features(function: Callable[[Tensor], Tensor], features: Features) -> Features:
    """Apply a function to each tensor."""
    if isinstance(features, dict):
        return {name: function(tensor) for name, tensor in features.items()}
    return function(features)


def upload(data: NDArray | Tensor, device: torch.device) -> Tensor:
    """Bring data to a device, without waiting for the copy to a GPU."""
    tensor = torch.as_tensor(data)
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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


def find_equal_crops(
    search: NDArray[np.uint8], box: NDArray, group: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find tracks that see what an earlier track of their group sees.

    Args:
        search: The crops, shape ``(B, 3, S, S)``.
        box: Shape ``(B, 4)``, the previous estimates: equal ones come before equal crops.
        group: How many tracks lie side by side in a group.

    Returns:
        The rows that differ from the earlier ones of their groups, shape ``(U,)``, and for each
        of the ``B`` rows the place among them of the one that it equals.
    """
    first: list[int] = []
    source = np.empty(len(search), np.int64)
    for i in range(len(search)):
        start = i - i % group
        for place in range(len(first) - 1, -1, -1):
            j = first[place]
            if j < start:
                source[i] = len(first)
                break
            if np.array_equal(box[i], box[j]) and np.array_equal(search[i], search[j]):
                source[i] = place
                break
        else:
            source[i] = len(first)
        if source[i] == len(first):
            first.append(i)
    return np.array(first, np.int64), source
