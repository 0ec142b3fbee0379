"""The references in infos: packing, and what they say of a step's observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slt_gym.data import Clip
from slt_gym.data.transform import FrameTransform
from slt_gym.envs import TrackingEnv
from slt_gym.envs.references import (
    make_view,
    pack_reference,
    pack_transform,
    unpack_reference,
    unpack_transform,
)

FILL = np.array([7, 8, 255], np.uint8)
numbers = st.floats(-1e4, 1e4)
transforms = st.none() | st.builds(
    FrameTransform,
    st.tuples(st.integers(1, 70_000), st.integers(1, 70_000)),
    st.none() | st.tuples(numbers, numbers, numbers, numbers),
    st.booleans(),
    st.none() | st.tuples(numbers, numbers, numbers),
    st.none() | st.tuples(st.integers(5, 99), st.floats(0, 1)),
)


@given(transforms)
def test_transforms_come_back_exactly(transform: FrameTransform | None) -> None:
    assert unpack_transform(pack_transform(transform)) == transform


class Numbered:
    """As much of a sequence as a reference looks at."""


@given(transforms, transforms, transforms, st.lists(numbers, min_size=8, max_size=8))
def test_references_come_back_exactly(
    first: FrameTransform | None,
    second: FrameTransform | None,
    of_template: FrameTransform | None,
    boxes: list[float],
) -> None:
    sequence: Any = Numbered()
    clip = Clip(
        sequence,
        np.array([7, 2_000_000]),
        template=3,
        transforms=(first, second),
        template_transform=of_template,
    )
    before = make_view(clip, 0, (640, 360), np.array(boxes[:4]))
    after = make_view(clip, 1, (70_000, 9), np.array(boxes[4:]))
    packed = pack_reference(clip, before, after, FILL)
    assert packed.dtype == np.uint8
    assert packed.shape == pack_reference(Clip(sequence, clip.frames, 3), before, after, FILL).shape
    assert unpack_reference(packed) == (
        *(3, pack_transform(of_template), before, after),
        (7, 8, 255),
    )
    assert (before.frame, after.frame) == (7, 2_000_000)
    assert list(before.box + after.box) == boxes


@pytest.mark.parametrize("augment", [False, True])
def test_infos_lead_from_one_observation_to_the_next(augment: bool) -> None:
    options = {"num_sequences": 2, "width": 160, "height": 120}
    env = TrackingEnv(
        "synthetic",
        geometry="transt-tiny",
        num_frames=5,
        augment=augment,
        dataset_options=options,
    )
    _, start = env.reset(seed=1)
    views, frames, done = [], [], False
    while not done:
        _, _, done, _, info = env.step(np.zeros(4, np.float32))
        reference = unpack_reference(info["reference"])
        views.append((reference.before, reference.after))
        frames.append(info["frame"])
        assert reference.before.frame == info["frame"]
        assert reference.after.box == tuple(info["box"])
        assert bool(reference.before.transform) is augment
    assert views[0][0].box == tuple(start["box"])
    assert [after for _, after in views[:-1]] == [before for before, _ in views[1:]]
    assert views[-1][1].frame == frames[-1]  # There is no frame after the last one.
