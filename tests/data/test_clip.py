"""What environments ask of a clip."""

from __future__ import annotations

import numpy as np
from distributions import Boxes

from slt_gym.data import Clip, Sequence
from slt_gym.data.transform import FrameTransform


class Numbered(Sequence):
    """Frames of one brightness each, with a target that moves to the right."""

    def __init__(self, count: int = 6) -> None:
        boxes = np.tile([4.0, 2.0, 6.0, 3.0], (count, 1))
        boxes[:, 0] += np.arange(count)
        visible = np.arange(count) != 3
        super().__init__("numbered", boxes, visible)

    def read(self, t: int) -> np.ndarray:
        return np.full((10, 20, 3), 10 * t, np.uint8)


def test_a_plain_clip_is_a_part_of_the_sequence() -> None:
    sequence = Numbered()
    clip = Clip(sequence, np.array([1, 3, 3, 5]), 2)
    assert (len(clip), clip.real_frames) == (4, 4)
    np.testing.assert_array_equal(clip.boxes, sequence.boxes[[1, 3, 3, 5]])
    assert clip.visible.tolist() == [True, False, False, True]
    assert [int(clip.read(i)[0, 0, 0]) for i in range(4)] == [10, 30, 30, 50]
    assert clip.read_template()[0, 0, 0] == 20
    np.testing.assert_array_equal(clip.template_box, sequence.boxes[2])


def test_the_boxes_are_a_copy() -> None:
    sequence = Numbered()
    clip = Clip(sequence, np.arange(6), 0)
    clip.boxes[:] = 0
    clip.template_box[:] = 0
    assert (sequence.boxes > 0).all()


def test_padding_is_not_visible() -> None:
    clip = Clip(Boxes([True] * 3), np.array([0, 1, 2, 2, 2]), 0, padding=2)
    assert clip.visible.tolist() == [True, True, True, False, False]
    assert clip.real_frames == 3
    np.testing.assert_array_equal(clip.boxes[4], clip.boxes[2])


def test_transforms_change_frames_and_boxes_together() -> None:
    sequence = Numbered()
    darker = FrameTransform((20, 10), flip=True, colour=(5.0, 0.0, 0.0))
    clip = Clip(
        sequence,
        np.array([1, 2, 4]),
        0,
        transforms=(None, darker, FrameTransform((20, 10))),
        template_transform=darker,
    )
    assert clip.read(0)[0, 0].tolist() == [10, 10, 10]
    assert clip.read(1)[0, 0].tolist() == [15, 20, 20]
    np.testing.assert_array_equal(clip.read(2), sequence.read(4))
    np.testing.assert_array_equal(clip.boxes, [[5, 2, 6, 3], [8, 2, 6, 3], [8, 2, 6, 3]])
    assert clip.read_template()[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(clip.template_box, [10, 2, 6, 3])
