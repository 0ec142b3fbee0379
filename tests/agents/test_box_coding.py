"""Properties of the trackers' box coding: anchors, labels over cells, relative boxes, peaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slt_gym.agents.siamrpnpp.anchors import (
    RATIOS,
    STRIDE,
    decode,
    encode,
    make_anchors,
    paired_iou,
)
from slt_gym.agents.trdimp.labels import centre_distance, gaussian_label
from slt_gym.agents.trdimp.localisation import find_peak
from slt_gym.agents.trdimp.refinement import from_relative, to_relative
from slt_gym.geometry import from_cxcywh, iou

place = st.floats(-300, 300)
length = st.floats(1, 400)
box = st.tuples(place, place, length, length)


def to_tensor(*boxes: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float64)


@given(boxes=st.lists(st.tuples(box, box), min_size=1, max_size=5))
@settings(deadline=None)
def test_decoding_inverts_encoding(boxes: list[tuple[tuple[float, ...], ...]]) -> None:
    targets, anchors = (to_tensor(*column) for column in zip(*boxes, strict=True))
    deltas = encode(targets, anchors)
    torch.testing.assert_close(decode(deltas, anchors), targets, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(encode(decode(deltas, anchors), anchors), deltas)
    assert not encode(anchors, anchors).any()


@given(box=box, anchor=box, shift=st.tuples(place, place), factor=st.floats(0.1, 10))
@settings(deadline=None)
def test_deltas_depend_on_neither_place_nor_scale(
    box: tuple[float, ...],
    anchor: tuple[float, ...],
    shift: tuple[float, float],
    factor: float,
) -> None:
    moved = to_tensor((*shift, 0, 0))
    deltas = encode(to_tensor(box), to_tensor(anchor))
    again = encode(factor * to_tensor(box) + moved, factor * to_tensor(anchor) + moved)
    torch.testing.assert_close(again, deltas, rtol=1e-6, atol=1e-6)


@given(deltas=st.tuples(*[st.floats(-1e6, 1e6)] * 4), anchor=box)
@settings(deadline=None)
def test_any_delta_gives_a_finite_box(deltas: tuple[float, ...], anchor: tuple[float, ...]) -> None:
    decoded = decode(to_tensor(deltas).float(), to_tensor(anchor).float())
    assert decoded.isfinite().all()
    assert (decoded[:, 2:] >= 0).all()


@given(a=box, b=box)
@settings(deadline=None)
def test_paired_overlap_is_the_environments(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    expected = iou(from_cxcywh(a), from_cxcywh(b))
    assert paired_iou(to_tensor(a), to_tensor(b)).item() == pytest.approx(expected, abs=1e-9)


@given(grid=st.integers(1, 13).map(lambda n: 2 * n - 1), scale=st.integers(1, 10))
@settings(max_examples=30, deadline=None)
def test_anchors_are_one_set_of_shapes_in_each_cell(grid: int, scale: int) -> None:
    anchors = make_anchors(grid, scale).reshape(len(RATIOS), grid, grid, 4)
    assert (anchors[..., 2:] == anchors[:, :1, :1, 2:]).all()
    assert (anchors[..., :2] == anchors[:1, ..., :2]).all()
    np.testing.assert_array_equal(anchors[0, ..., :2], -anchors[0, ::-1, ::-1, :2])
    steps = np.diff(anchors[0, 0, :, 0]), np.diff(anchors[0, :, 0, 1])
    assert all((step == STRIDE).all() for step in steps)
    size = anchors[:, 0, 0, 2:] / scale
    # Sides are cut to whole numbers: by less than one.
    for (w, h), ratio in zip(size, RATIOS, strict=True):
        assert 0 <= (STRIDE**2 / ratio) ** 0.5 - w < 1
        assert 0 <= w * ratio - h < 1


inside = st.tuples(*[st.floats(20, 60)] * 2, *[st.floats(1, 30)] * 2)


@given(
    box=inside,
    cells=st.sampled_from([12, 22]),
    factor=st.floats(0.03, 0.3),
    extra=st.integers(0, 1),
)
@settings(deadline=None)
def test_labels_are_gaussians_of_the_distance(
    box: tuple[float, ...], cells: int, factor: float, extra: int
) -> None:
    stride = 8
    label = gaussian_label(to_tensor(box)[0], cells, stride, factor, extra)
    assert label.shape == (cells + extra, cells + extra)
    assert ((label >= 0) & (label <= 1)).all()
    x, y = ((box[i] + box[i + 2] / 2) / stride for i in range(2))
    for row, column in ((0, 0), (3, 7), (cells - 1, cells - 2)):
        squared = (column - x) ** 2 + (row - y) ** 2
        expected = np.exp(-squared / (2 * (factor * cells) ** 2))
        assert label[row, column].item() == pytest.approx(expected, abs=1e-12)
    # One cell further along, the label of a target that is one cell further.
    moved = gaussian_label(
        to_tensor((box[0] + stride, box[1], *box[2:]))[0], cells, stride, factor, extra
    )
    torch.testing.assert_close(moved[:, 1:], label[:, :-1])


@given(box=inside, cells=st.integers(5, 23))
@settings(deadline=None)
def test_distances_are_those_of_the_centre(box: tuple[float, ...], cells: int) -> None:
    distance = centre_distance(to_tensor(box)[0], cells, 8)
    x, y = ((box[i] + box[i + 2] / 2) / 8 for i in range(2))
    rows, columns = np.mgrid[:cells, :cells]
    np.testing.assert_allclose(distance.numpy(), np.hypot(columns - x, rows - y), atol=1e-9)


@given(box=box, reference=st.tuples(length, length))
@settings(deadline=None)
def test_relative_boxes_come_back(box: tuple[float, ...], reference: tuple[float, float]) -> None:
    size = to_tensor(reference)
    relative = to_relative(to_tensor(box), size)
    torch.testing.assert_close(from_relative(relative, size), to_tensor(box), rtol=1e-9, atol=1e-9)


@given(arrays(np.float32, (5, 6), elements=st.integers(-3, 3).map(float)))
def test_the_peak_is_the_leftmost_then_the_uppermost(scores: np.ndarray) -> None:
    row, column = find_peak(scores)
    best = np.argwhere(scores == scores.max())
    assert (column, row) == min((int(c), int(r)) for r, c in best)
