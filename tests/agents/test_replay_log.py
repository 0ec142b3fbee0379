"""The log of references: what it finds is what was logged, and no more is kept."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.agents.replay_log import ReferenceLog
from slt_gym.data.transform import FrameTransform
from slt_gym.envs.references import StepReference, View, pack_transform

TRANSFORMS = (b"", *(pack_transform(FrameTransform((9, k), flip=True)) for k in range(3)))
views = st.builds(
    View,
    st.integers(0, 3),
    st.sampled_from([(64, 48), (48, 64)]),
    st.tuples(*[st.floats(-10, 10)] * 4),
    st.sampled_from(TRANSFORMS),
)


@st.composite
def draw_tracks(draw: st.DrawFn) -> list[list[tuple[str, StepReference]]]:
    """Two tracks of equally many steps, in clips of up to four steps."""
    tracks, length = [], draw(st.integers(1, 25))
    for _ in range(2):
        steps: list[tuple[str, StepReference]] = []
        while len(steps) < length:
            name, template = draw(st.sampled_from("ab")), draw(st.integers(0, 1))
            of_template = draw(st.sampled_from(TRANSFORMS))
            for before, after in pairwise(draw(st.lists(views, min_size=2, max_size=5))):
                steps.append((name, StepReference(template, of_template, before, after, (1, 2, 3))))
        tracks.append(steps[:length])
    return tracks


@settings(max_examples=40, deadline=None)
@given(draw_tracks(), st.integers(1, 9))
def test_finds_what_was_logged(tracks: list[list[tuple[str, StepReference]]], rows: int) -> None:
    log = ReferenceLog(rows, len(tracks))
    model = [deque(maxlen=rows) for _ in tracks]
    for step in range(len(tracks[0])):
        for j, steps in enumerate(tracks):
            goes_on = step > 0 and (
                (steps[step - 1][0], *steps[step - 1][1][:2], steps[step - 1][1].after)
                == (steps[step][0], *steps[step][1][:2], steps[step][1].before)
            )
            assert log.goes_on(j, *steps[step]) is goes_on
            log.add(step, j, *steps[step])
            model[j].append((step % rows, steps[step]))
        logged = [(row, j, one) for j, kept in enumerate(model) for row, one in kept]
        places = [np.array([entry[k] for entry in logged]) for k in (0, 1)]
        found = log.find(places[0], places[1], step + 1)
        for (row, j, (name, reference)), (before, after) in zip(logged, found, strict=True):
            for shown, view in ((before, reference.before), (after, reference.after)):
                assert shown[1:] == (name, *reference[:2], view)
            assert before.place == (row, j, False)
            assert after.place in ((row, j, True), ((row + 1) % rows, j, False))
        for track in log._tracks:
            assert len(track.runs) <= min(rows, step + 1)
            assert len(track._looks) <= 3 * len(track.runs) + 3


def test_place_names_one_observation() -> None:
    """An observation that two steps share has one place, so that it is cached once."""
    log = ReferenceLog(8, 1)
    seen = [View(k, (9, 9), (float(k), 0.0, 1.0, 1.0), b"") for k in range(5)]
    for step, (before, after) in enumerate(pairwise(seen)):
        log.add(step, 0, "a", StepReference(0, b"", before, after, (1, 2, 3)))
    found = log.find(np.arange(4), np.zeros(4, int), 4)
    assert [before.place for before, _ in found] == [(k, 0, False) for k in range(4)]
    assert [after.place for _, after in found] == [
        *((k, 0, False) for k in (1, 2, 3)),
        (3, 0, True),
    ]
