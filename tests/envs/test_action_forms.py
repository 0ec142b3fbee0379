"""Forms of actions: what each action does to a box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slt_gym.envs import box_to_action
from slt_gym.envs.action_forms import (
    ACTIONS,
    BoxForm,
    DeltaForm,
    MovesForm,
    ProposalsForm,
    make_form,
)
from slt_gym.envs.actions import check_choice
from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import iou, to_cxcywh

LEFT, RIGHT, UP, DOWN, FAR_LEFT, FAR_RIGHT, FAR_UP, FAR_DOWN, BIGGER, SMALLER, STOP = range(11)
BOX = np.array([0.3, 0.2, 0.2, 0.4])
NUMBERS = arrays(np.float64, 4, elements=st.floats(-1, 1))
BOXES = st.builds(
    lambda corner, size: np.array([*corner, *size]),
    st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
    st.tuples(st.floats(0.01, 2), st.floats(0.01, 2)),
)


def test_spaces() -> None:
    found = {name: make_form(name).space for name in ACTIONS}
    box = spaces.Box(-1, 1, (4,), np.float32)
    assert found == {
        "box": box,
        "delta": box,
        "moves": spaces.Discrete(11),
        "proposals": spaces.Discrete(729),
    }


@given(BOXES, BOXES)
def test_box_names_any_box_that_fits(box: np.ndarray, previous: np.ndarray) -> None:
    action = box_to_action(box)
    if (np.abs(action) < 1).all():  # else it was cut
        np.testing.assert_allclose(BoxForm().decode(action, previous), box, atol=1e-6)


@given(BOXES)
def test_delta_zero_keeps_the_box(box: np.ndarray) -> None:
    np.testing.assert_allclose(DeltaForm().decode(np.zeros(4), box), box, atol=1e-12)


@given(BOXES, NUMBERS)
def test_delta_shifts_in_sizes_and_scales_in_powers_of_two(box: np.ndarray, a: np.ndarray) -> None:
    before, after = to_cxcywh(box), to_cxcywh(DeltaForm().decode(a, box))
    np.testing.assert_allclose((after - before)[:2] / box[2:], a[:2], atol=1e-9)
    np.testing.assert_allclose(np.log2(after[2:] / before[2:]), a[2:], atol=1e-9)


@given(
    st.sampled_from(["delta", "moves", "proposals"]),
    BOXES,
    st.integers(0, 728),
    NUMBERS,
    st.floats(0.1, 500),
    st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
)
def test_relative_forms_mean_the_same_in_any_unit(
    name: str, box: np.ndarray, choice: int, numbers: np.ndarray, unit: float, corner: tuple
) -> None:
    form = make_form(name)
    action: Any = numbers if form.choices is None else choice % form.choices
    shift = np.array([*corner, 0, 0])
    moved = form.decode(action, box * unit + shift)
    np.testing.assert_allclose(moved, form.decode(action, box) * unit + shift, atol=1e-6)


@given(BOXES, st.integers(0, STOP - 1))
def test_a_move_and_its_opposite_cancel(box: np.ndarray, move: int) -> None:
    form = MovesForm()
    away = form.decode(move, box)
    assert not np.allclose(away, box, atol=1e-6)
    np.testing.assert_allclose(form.decode(move ^ 1, away), box, atol=1e-12)


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (LEFT, [-0.03, 0]),
        (RIGHT, [0.03, 0]),
        (UP, [0, -0.03]),
        (DOWN, [0, 0.03]),
        (FAR_LEFT, [-0.06, 0]),
        (FAR_RIGHT, [0.06, 0]),
        (FAR_UP, [0, -0.06]),
        (FAR_DOWN, [0, 0.06]),
        (STOP, [0, 0]),
    ],
)
def test_moves_go_by_shares_of_the_size(move: int, expected: list[float]) -> None:
    moved = MovesForm().decode(move, BOX)
    np.testing.assert_allclose((moved - BOX)[:2] / BOX[2:], expected, atol=1e-12)
    np.testing.assert_allclose(moved[2:], BOX[2:])


def test_moves_scale_about_the_centre() -> None:
    for move, factor in ((BIGGER, 1.1), (SMALLER, 1 / 1.1)):
        moved = MovesForm(step=0.1).decode(move, BOX)
        np.testing.assert_allclose(moved[2:], BOX[2:] * factor)
        np.testing.assert_allclose(to_cxcywh(moved)[:2], to_cxcywh(BOX)[:2])


@pytest.mark.parametrize(
    ("taken", "ends"),
    [
        ([STOP], True),
        ([LEFT], False),
        ([LEFT, UP, STOP], True),
        ([LEFT, RIGHT], False),
        ([LEFT, RIGHT, LEFT], True),
        ([UP, BIGGER, SMALLER, BIGGER], True),
        ([LEFT, LEFT, LEFT], False),
        ([LEFT, FAR_RIGHT, LEFT], False),
        ([RIGHT, UP, RIGHT], False),
        ([LEFT, UP] * 3, True),
        ([LEFT, UP, LEFT, UP, LEFT], False),
    ],
)
def test_a_frame_ends_by_stop_oscillation_or_its_last_move(taken: list[int], ends: bool) -> None:
    assert MovesForm(max_moves=6).ends_frame(taken) is ends


def test_proposals_fill_their_grid() -> None:
    form = ProposalsForm(grid=3, reach=2.0, scales=[0.5, 1.0], ratios=[1.0, 4.0])
    assert form.space == spaces.Discrete(3 * 3 * 2 * 2)
    boxes = to_cxcywh(form.propose(BOX)).reshape(3, 3, 2, 2, 4)  # row, column, scale, ratio
    centre, size = to_cxcywh(BOX)[:2], BOX[2:]
    for row, column in np.ndindex(3, 3):
        expected = centre + 2 * size * [column - 1, row - 1]
        np.testing.assert_allclose(
            boxes[row, column, :, :, :2], np.broadcast_to(expected, (2, 2, 2))
        )
    np.testing.assert_allclose(boxes[0, 0, 0, 0, 2:], 0.5 * size)
    np.testing.assert_allclose(boxes[2, 1, 1, 1, 2:], size * [2, 0.5])


@given(BOXES)
def test_proposals_surround_the_previous_estimate(box: np.ndarray) -> None:
    form = ProposalsForm()
    boxes = form.propose(box)
    assert boxes.shape == (729, 4)
    np.testing.assert_allclose(boxes[729 // 2], box, atol=1e-12)
    np.testing.assert_array_equal(form.decode(5, box), boxes[5])
    # Point symmetry: as many to the left as to the right, as many larger as smaller.
    np.testing.assert_allclose(
        to_cxcywh(boxes)[:, :2] + to_cxcywh(boxes)[::-1, :2],
        np.tile(2 * to_cxcywh(box)[:2], (729, 1)),
        atol=1e-9,
    )
    np.testing.assert_allclose(boxes[:, 2:] * boxes[::-1, 2:], np.tile(box[2:] ** 2, (729, 1)))


@given(arrays(np.float64, 4, elements=st.floats(-1, 1)))
def test_some_proposal_fits_any_target_near_by(a: np.ndarray) -> None:
    target = DeltaForm().decode(a * [0.55, 0.55, 0.1, 0.1], BOX)
    assert iou(ProposalsForm().propose(BOX), target).max() > 0.5


@pytest.mark.parametrize(
    ("action", "options", "message"),
    [
        ("move", None, r"unknown action 'move': accepted are box, .*did you mean 'moves'"),
        (["box"], None, r"unknown action \['box'\]"),
        ("box", {"grid": 3}, r"holds 'grid', and action 'box' has no options"),
        ("moves", 3, r"'action_options' is 3: accepted are None or a dict"),
        ("moves", {"moves": 3}, r"unknown option of action 'moves' 'moves': accepted are max_mo"),
        ("moves", {"max_moves": 0}, r"'max_moves' of action 'moves' is 0: accepted are whole"),
        ("moves", {"max_moves": 2.0}, r"'max_moves' of action 'moves' is 2.0"),
        ("moves", {"step": 1}, r"'step' of action 'moves' is 1: accepted are numbers from 0 to 1"),
        ("moves", {"step": "far"}, r"'step' of action 'moves' is 'far'"),
        ("proposals", {"grid": 1}, r"'grid' of action 'proposals' is 1: .*from 2 up"),
        ("proposals", {"reach": 0}, r"'reach' of action 'proposals' is 0: .*above 0"),
        ("proposals", {"reach": float("nan")}, r"'reach' of action 'proposals' is nan"),
        ("proposals", {"scales": []}, r"'scales' of action 'proposals' is \[\]: accepted are list"),
        ("proposals", {"scales": 1.0}, r"'scales' of action 'proposals' is 1.0"),
        ("proposals", {"ratios": [1, -1]}, r"'ratios' of action 'proposals' is \[1, -1\]"),
    ],
)
def test_refuses_wrong_forms(action: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make_form(action, options)


def test_choices_of_every_integer_type_pass() -> None:
    for action in (3, np.int32(3), np.uint8(3), np.array(3)):
        assert check_choice(action, 11) == 3
    np.testing.assert_array_equal(check_choice([0, 10], 11, (2,)), [0, 10])


@pytest.mark.parametrize(
    ("action", "shape", "message"),
    [
        (11, (), r"action 11 is out of range: accepted are whole numbers from 0 to 10"),
        (-1, (), r"action -1 is out of range"),
        ([0, 99], (2,), r"action \[0, 99\] is out of range"),
        (3.0, (), r"action 3.0 is no whole number: accepted are 0 to 10"),
        (True, (), r"action True is no whole number"),
        ("left", (), r"action 'left' is no whole number"),
        (np.array([3]), (), r"action has shape \(1,\): needed is \(\)"),
        ([3, 3, 3], (2,), r"action has shape \(3,\): needed is \(2,\)"),
    ],
)
def test_refuses_wrong_choices(action: Any, shape: tuple, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        check_choice(action, 11, shape)


@given(BOXES, NUMBERS)
def test_delta_encode_undoes_decode(box: np.ndarray, numbers: np.ndarray) -> None:
    form = DeltaForm()
    np.testing.assert_allclose(form.encode(form.decode(numbers, box), box), numbers, atol=1e-6)
    far = form.encode(box * [1, 1, 8, 8] + [100, 0, 0, 0], box)
    assert far.dtype == np.float32
    np.testing.assert_array_equal(far[[0, 2, 3]], 1)  # cut


@given(BOXES, st.integers(0, 728))
def test_proposals_encode_finds_a_listed_box(box: np.ndarray, choice: int) -> None:
    form = ProposalsForm()
    named = form.decode(form.encode(form.decode(choice, box), box), box)
    np.testing.assert_allclose(named, form.decode(choice, box), atol=1e-6)


@given(BOXES, BOXES)
def test_encode_takes_the_most_overlap(target: np.ndarray, box: np.ndarray) -> None:
    form = ProposalsForm(grid=3)
    overlaps = iou(form.propose(box), target)
    chosen = form.encode(target, box)
    if overlaps.max() > 0:
        assert overlaps[chosen] == overlaps.max()
    else:  # none reaches it: the nearest
        apart = to_cxcywh(form.propose(box))[:, :2] - to_cxcywh(target)[:2]
        distances = np.linalg.norm(apart, axis=1)
        assert distances[chosen] == distances.min()


@given(BOXES, st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)), st.floats(0.8, 1.25))
def test_moves_encode_comes_nearer_with_every_move(
    box: np.ndarray, shift: tuple[float, float], factor: float
) -> None:
    form = MovesForm(max_moves=60)
    target = to_cxcywh(box)
    target[:2] += np.array(shift) * box[2:]
    target[2:] *= factor
    target[:2] -= target[2:] / 2
    taken: list[int] = []
    overlaps = [float(iou(box, target))]
    while not taken or not form.ends_frame(taken):
        taken.append(form.encode(target, box))
        box = form.decode(taken[-1], box)
        overlaps.append(float(iou(box, target)))
    assert taken[-1] == STOP
    assert np.all(np.diff(overlaps[:-1]) > 0)
    assert overlaps[-1] > 0.85


def test_box_encode_is_the_box() -> None:
    np.testing.assert_array_equal(BoxForm().encode(BOX, BOX + 1), box_to_action(BOX))
