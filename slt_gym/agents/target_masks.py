"""The targets' masks in the search crops that an environment showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import Clip, SequenceDataset
from slt_gym.envs.references import unpack_reference, unpack_transform
from slt_gym.geometry import Geometry


def crop_target_masks(
    infos: Sequence[Mapping[str, Any]],
    wanted: NDArray[np.bool_],
    sequences: SequenceDataset,
    geometry: Geometry,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Crop the targets' masks as the crops that tracks saw before a step.

    The masks come from the dataset, by the references in the infos: an environment shows none.

    Args:
        infos: Of the step, one for each of ``B`` tracks.
        wanted: Booleans, shape ``(B,)``, the tracks whose masks are of use.
        sequences: The environment's.
        geometry: The environment's.

    Returns:
        Booleans, shape ``(B, S, S)``, the targets' pixels, and shape ``(B,)``, where they are
        known; unknown masks, those that are not wanted, and those of absent targets are False.

    Raises:
        AnnotationError: A mask cannot be read.
    """
    size = geometry.search_size
    crops = np.zeros((len(infos), size, size), bool)
    known = np.zeros(len(infos), bool)
    whole: dict[tuple[str, int, bytes], NDArray[np.float32] | None] = {}  # tracks share frames
    for i in np.flatnonzero(wanted).tolist():
        info = infos[i]
        if not info["visible"]:
            continue
        reference = unpack_reference(info["reference"])
        view = reference.before
        key = (info["sequence"], view.frame, view.transform)
        if key not in whole:
            transforms = (unpack_transform(view.transform),)
            sequence = sequences.get(info["sequence"])
            clip = Clip(sequence, np.array([view.frame]), reference.template, 0, transforms)
            whole[key] = clip.read_mask(0)
        mask = whole[key]
        if mask is not None:
            window = geometry.search_window(np.array(view.box), view.size)
            crops[i], known[i] = geometry.crop_mask(mask, window, size), True
    return crops, known
