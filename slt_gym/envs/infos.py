"""Many tracks' infos as one, the way Gymnasium's vector environments pack them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def pack_infos(infos: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Pack one info for each track into arrays over the tracks.

    Gives what ``gymnasium.vector.VectorEnv._add_info`` gives, one NumPy call for each key instead
    of one for each track.

    Args:
        infos: One for each track; None for a track that has none.

    Returns:
        For each key an array of shape ``(len(infos), ...)``, zeros (or None, for objects) where a
        track lacks the key, and under ``"_" + key`` the mask of the tracks that have it. Dicts are
        packed in turn, except the observations under ``"final_obs"``.
    """
    packed: dict[str, Any] = {}
    for key in dict.fromkeys(key for info in infos if info for key in info):
        mask = np.array([info is not None and key in info for info in infos])
        values = [info[key] for info in infos if info is not None and key in info]
        first = values[0]
        if isinstance(first, Mapping) and key != "final_obs":
            packed[key] = pack_infos([None if info is None else info.get(key) for info in infos])
        elif type(first) in (int, float, bool) or isinstance(first, np.number):
            packed[key] = np.zeros(len(infos), type(first))
            packed[key][mask] = values
        elif isinstance(first, np.ndarray):
            packed[key] = np.zeros((len(infos), *first.shape), first.dtype)
            packed[key][mask] = values
        else:
            packed[key] = np.full(len(infos), None, object)
            for i, value in zip(np.flatnonzero(mask), values, strict=True):
                packed[key][i] = value
        packed[f"_{key}"] = mask
    return packed
