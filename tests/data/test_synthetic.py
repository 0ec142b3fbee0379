from __future__ import annotations

import dataclasses
import hashlib
import math
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.data.sequence import Sequence
from slt_gym.data.synthetic import SyntheticConfig, SyntheticDataset
from slt_gym.data.synthetic.motion import bounce, ornstein_uhlenbeck, unbounce, wander
from slt_gym.data.synthetic.render import render, render_mask
from slt_gym.data.synthetic.shapes import hidden_fractions
from slt_gym.errors import FrameError, InvalidArgumentError
from slt_gym.geometry import iou


def centres(sequence: Sequence) -> np.ndarray:
    return sequence.boxes[:, :2] + sequence.boxes[:, 2:] / 2


def digest(sequence: Sequence, frames: list[int]) -> str:
    content = b"".join(sequence.read(t).tobytes() for t in frames)
    return hashlib.sha256(sequence.boxes.tobytes() + content).hexdigest()


def mean_speed(dataset: SyntheticDataset) -> float:
    """Mean displacement, in target sizes a frame."""
    steps = [
        np.hypot(*np.diff(centres(s), axis=0).T) / np.sqrt(s.boxes[:-1, 2:].prod(axis=1))
        for s in dataset
    ]
    return float(np.mean(steps))


def test_splits_have_their_sizes_and_names():
    assert [len(SyntheticDataset(split)) for split in ("train", "val", "test")] == [10000, 250, 250]
    dataset = SyntheticDataset("train", num_sequences=124)
    assert dataset.names[123] == dataset[123].name == "train-000123"
    assert dataset.get("train-000007") is dataset[7]
    assert len(dataset[0]) == 64


def test_frames_are_rgb_of_the_size_asked_for_and_the_callers_to_keep():
    sequence = SyntheticDataset("val", num_sequences=1, width=200, height=120)[0]
    frame = sequence.read(3)
    assert frame.shape == (120, 200, 3)
    assert frame.dtype == np.uint8
    before = frame.copy()
    frame[:] = 0
    np.testing.assert_array_equal(sequence.read(3), before)


def test_no_order_of_reading_changes_a_frame():
    forward = SyntheticDataset("train", num_sequences=1)[0]
    backward = SyntheticDataset("train", num_sequences=50)[0]
    frames = {t: forward.read(t) for t in range(12)}
    for t in reversed(range(12)):
        np.testing.assert_array_equal(backward.read(t), frames[t])


def test_threads_read_the_same_frames():
    dataset = SyntheticDataset("train", num_sequences=3)
    jobs = [(i, t) for t in range(10) for i in range(3)]
    alone = [SyntheticDataset("train", num_sequences=3)[i].read(t) for i, t in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: dataset[job[0]].read(job[1]), jobs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropping_textures_does_not_change_frames(monkeypatch):
    monkeypatch.setattr("slt_gym.data.synthetic.dataset._KEPT_BYTES", 0)
    monkeypatch.setattr("slt_gym.data.synthetic.dataset._KEPT_SEQUENCES", 1)
    dataset = SyntheticDataset("train", num_sequences=2)
    first = dataset[0].read(5)
    dataset[1].read(5)
    assert len(dataset._cache._kept) == 1
    np.testing.assert_array_equal(dataset[0].read(5), first)


def test_another_process_draws_the_same():
    sequence = SyntheticDataset("test", seed=3)[17]
    code = (
        "import hashlib\n"
        "from slt_gym.data.synthetic import SyntheticDataset\n"
        "s = SyntheticDataset('test', seed=3)[17]\n"
        "content = b''.join(s.read(t).tobytes() for t in (40, 0))\n"
        "print(hashlib.sha256(s.boxes.tobytes() + content).hexdigest())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == digest(sequence, [40, 0])


def test_pickling_keeps_the_recipe():
    dataset = SyntheticDataset("val", seed=5, num_sequences=4, speed=0.1)
    dataset[2].read(0)
    assert len(pickle.dumps(dataset)) < 1000
    copies = [pickle.loads(pickle.dumps(dataset))[2], pickle.loads(pickle.dumps(dataset[2]))]
    for copy in copies:
        assert digest(copy, [9]) == digest(dataset[2], [9])


def test_no_two_sequences_are_the_same():
    sequences = [
        SyntheticDataset(split, seed=seed)[index]
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for index in range(4)
    ]
    assert len({s.boxes.tobytes() for s in sequences}) == len(sequences)
    assert len({s.read(0).tobytes() for s in sequences}) == len(sequences)


@pytest.mark.parametrize("size", [(320, 240), (180, 240)])
def test_boxes_are_the_extent_of_the_silhouette(size):
    checked = 0
    dataset = SyntheticDataset("test", num_sequences=12, width=size[0], height=size[1])
    for sequence in dataset:
        scene = sequence.scene
        for t in range(0, 64, 7):
            x, y, w, h = sequence.boxes[t]
            if min(x, y) < 0 or x + w > size[0] or y + h > size[1]:
                continue
            rows, columns = np.nonzero(
                render_mask(scene.things[scene.target], sequence.config, t) > 127
            )
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(extent, [x, y, x + w, y + h], atol=1.6)
            checked += 1
    assert checked > 40


def test_pixels_change_inside_the_boxes_only():
    # With everything else still, what differs from frame 0 is the target, before and after.
    still = {
        "distractors": 0, "occluders": 0, "illumination": 0.0, "camera_motion": 0.0,
        "camera_shake": 0.0, "blur": 0.0, "noise": 0.0,
    }  # fmt: skip
    for sequence in SyntheticDataset("test", num_sequences=6, speed=0.1, **still):
        first, other = sequence.read(0).astype(int), sequence.read(40).astype(int)
        rows, columns = np.nonzero(np.abs(first - other).max(axis=2) > 8)
        allowed = np.zeros(first.shape[:2], bool)
        for x, y, w, h in sequence.boxes[[0, 40]]:
            top, left = max(math.floor(y - 1), 0), max(math.floor(x - 1), 0)
            allowed[top : math.ceil(y + h + 1), left : math.ceil(x + w + 1)] = True
        assert allowed[rows, columns].all()
        assert len(rows) > 100


def test_the_target_starts_in_full_view_and_its_centre_stays_inside():
    for options in ({}, {"speed": 0.3, "max_size": 0.6, "occluders": 8, "camera_shake": 0.02}):
        for sequence in SyntheticDataset("val", num_sequences=60, **options):
            assert sequence.visible[0]
            assert sequence.attributes["hidden"][0] == 0
            x, y, w, h = sequence.boxes[0]
            assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 240
            assert ((centres(sequence) > 0) & (centres(sequence) < (320, 240))).all()


def test_a_covered_target_is_flagged():
    dataset = SyntheticDataset("val", num_sequences=60, occluders=6)
    seen = 0
    for sequence in dataset:
        occlusion, hidden = sequence.attributes["occlusion"], sequence.attributes["hidden"]
        assert ((occlusion >= 0) & (occlusion <= hidden + 1e-12) & (hidden <= 1)).all()
        np.testing.assert_array_equal(sequence.visible, hidden <= 0.85)
        seen += int((~sequence.visible).sum())
    assert seen > 20
    clear = SyntheticDataset("val", num_sequences=20, occluders=0, distractors=0)
    assert all((s.attributes["occlusion"] == 0).all() and s.visible.all() for s in clear)


def test_occlusion_agrees_with_full_size_masks():
    checked = 0
    for sequence in SyntheticDataset("val", num_sequences=15, occluders=4):
        scene = sequence.scene
        for t in np.flatnonzero(sequence.attributes["occlusion"] > 0.05)[::5]:
            target = render_mask(scene.things[scene.target], sequence.config, t) / 255.0
            left = target.copy()
            for thing in scene.things[scene.target + 1 :]:
                left *= 1 - render_mask(thing, sequence.config, t) / 255.0
            box = sequence.boxes[t]
            if (box[:2] < 0).any() or (box[:2] + box[2:] > (320, 240)).any():
                continue
            expected = 1 - left.sum() / target.sum()
            assert sequence.attributes["occlusion"][t] == pytest.approx(expected, abs=0.05)
            checked += 1
    assert checked > 15


def test_masks_are_the_pixels_that_the_target_colours():
    # A black and a white target make the same picture but for its mask.
    sharp = {"illumination": 0.0, "blur": 0.0, "noise": 0.0, "width": 160, "height": 120}
    occluded = 0
    for sequence in SyntheticDataset("val", num_sequences=8, occluders=5, **sharp):
        sequence.read(0)
        textures = sequence._cache.get(sequence.name)
        scene, target = sequence.scene, sequence.scene.target
        black, white = (
            dataclasses.replace(
                textures,
                sprites=tuple(
                    [np.full_like(level, value) for level in sprite] if k == target else sprite
                    for k, sprite in enumerate(textures.sprites)
                ),
                second=[np.full_like(level, value) for level in textures.second],
            )
            for value in (0, 255)
        )
        times = np.argsort(-sequence.attributes["occlusion"] * sequence.visible)[:2]
        for t in (0, *times):
            mask = sequence.read_mask(t)
            assert mask.shape == (120, 160)
            dark, light = (
                render(scene, pixels, sequence.config, t)[..., 0].astype(int)
                for pixels in (black, white)
            )
            clear = abs(light - dark - 127.5) > 4
            np.testing.assert_array_equal(mask[clear], (light - dark > 127.5)[clear])
            assert clear.mean() > 0.98
            occluded += sequence.attributes["occlusion"][t] > 0.1
    assert occluded >= 4


def test_masks_fill_the_boxes_of_targets_in_view():
    checked = 0
    for sequence in SyntheticDataset("test", num_sequences=8):
        for t in range(0, 64, 9):
            mask = sequence.read_mask(t)
            x, y, w, h = sequence.boxes[t]
            hidden = sequence.attributes["hidden"][t]
            inside = np.zeros_like(mask)
            inside[max(int(y) - 1, 0) : int(y + h) + 2, max(int(x) - 1, 0) : int(x + w) + 2] = True
            assert not (mask & ~inside).any()
            if hidden == 0:
                rows, columns = np.nonzero(mask)
                extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(extent, [x, y, x + w, y + h], atol=1.6)
                assert 0.3 < mask.sum() / (w * h) <= 1.02
                checked += 1
    assert checked > 20
    with pytest.raises(FrameError, match="no frame 64"):
        sequence.read_mask(64)


def test_hidden_fractions_of_squares():
    def square(x: float, y: float, side: float) -> np.ndarray:
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * side + (x, y)
        return np.repeat(corners, 12, axis=0)[None].astype(float)

    target = square(10, 10, 40)
    covered, hidden = hidden_fractions(target, [square(30, 0, 100)], (320, 240))
    assert covered[0] == hidden[0] == pytest.approx(0.5, abs=0.03)
    covered, hidden = hidden_fractions(target, [], (20, 240))
    assert covered[0] == 0
    assert hidden[0] == pytest.approx(0.75, abs=0.03)
    covered, hidden = hidden_fractions(target, [square(30, 0, 100)], (30, 30))
    assert (covered[0], hidden[0]) == pytest.approx((0.5, 0.75), abs=0.03)


def small(**options: float) -> SyntheticDataset:
    return SyntheticDataset("train", num_sequences=16, **options)


def log_range(dataset: SyntheticDataset, ratio: bool) -> float:
    """Mean range of log aspect ratio (``ratio``) or of log size over a sequence."""
    ranges = []
    for sequence in dataset:
        w, h = sequence.boxes[:, 2:].T
        ranges.append(np.ptp(np.log(w / h) if ratio else np.log(w * h) / 2))
    return float(np.mean(ranges))


def test_motion_knobs_have_their_effect():
    # The box's centre also moves a little as the outline turns and wobbles.
    frozen = {"rotation": 0.0, "deformation": 0.0, "scale_change": 0.0, "aspect_change": 0.0}
    assert mean_speed(small(speed=0.0, camera_shake=0.0, **frozen)) == pytest.approx(0.0, abs=1e-9)
    assert 0.02 < mean_speed(small(speed=0.03)) < 0.06
    assert mean_speed(small(speed=0.15)) > 3 * mean_speed(small(speed=0.03))

    assert log_range(small(**frozen), ratio=False) == pytest.approx(0.0, abs=1e-9)
    assert log_range(small(**frozen), ratio=True) == pytest.approx(0.0, abs=1e-9)
    assert log_range(small(**frozen | {"scale_change": 0.05}), ratio=False) > 0.4
    assert log_range(small(**frozen | {"scale_change": 0.05}), ratio=True) < 1e-9
    assert log_range(small(**frozen | {"aspect_change": 0.05}), ratio=True) > 0.3
    assert log_range(small(**frozen | {"rotation": 8.0}), ratio=True) > 0.2
    assert log_range(small(**frozen | {"deformation": 0.1}), ratio=True) > 0.1


def test_sizes_stay_within_the_limits():
    for sequence in small(min_size=0.1, max_size=0.2, scale_change=0.1):
        target = sequence.scene.things[sequence.scene.target]
        size = np.sqrt(target.track.size.prod(axis=1)) / 240
        assert (size >= 0.1 - 1e-9).all() and (size <= 0.2 + 1e-9).all()
    # The boxes grow with rotation and wobble, but stay of that order.
    boxes = np.concatenate([s.boxes for s in SyntheticDataset("val", num_sequences=90)])
    low, high = np.percentile(np.sqrt(boxes[:, 2:].prod(axis=1)), [2, 98])
    assert 15 < low < 30
    assert 70 < high < 130


def test_things_knobs_have_their_effect():
    def counts(dataset: SyntheticDataset) -> set[int]:
        return {len(s.scene.things) for s in dataset}

    assert counts(small(distractors=0, occluders=0)) == {1}
    assert counts(small(distractors=4, occluders=0)) == {3, 4, 5}
    assert max(counts(small(distractors=0, occluders=4))) > 3
    alike = small(distractors=2, occluders=0, min_similarity=0.7, max_similarity=0.8)
    similarities = [t.similarity for s in alike for t in s.scene.things if t.similarity < 1]
    assert 0.7 <= min(similarities) <= max(similarities) <= 0.8


def test_look_knobs_have_their_effect():
    quiet = {"illumination": 0.0, "noise": 0.0, "blur": 0.0}

    def frames(**options: float) -> np.ndarray:
        dataset = SyntheticDataset("train", num_sequences=4, **quiet | options)
        return np.stack([s.read(t) for s in dataset for t in (0, 30)]).astype(float)

    def sharpness(images: np.ndarray) -> float:
        return float(np.abs(np.diff(images, axis=2)).mean())

    plain = frames()
    residue = (frames(noise=10.0) - plain)[(plain > 60) & (plain < 190)]
    assert residue.std() == pytest.approx(10.0, rel=0.1)
    assert sharpness(frames(blur=1.0)) < 0.7 * sharpness(plain)
    lit = frames(illumination=0.3).mean(axis=(1, 2, 3)) - plain.mean(axis=(1, 2, 3))
    assert np.abs(lit).mean() > 10
    still = {"camera_motion": 0.0, "camera_shake": 0.0, "speed": 0.0}
    corner = np.s_[:, :20, :20]
    moved = {key: frames(**still | {"camera_motion": key})[corner] for key in (0.0, 0.05)}
    change = {key: np.abs(v[0::2] - v[1::2]).mean() for key, v in moved.items()}
    assert change[0.0] < 0.5 * change[0.05]


def test_appearance_drifts_only_if_asked():
    assert all((s.scene.drift == 0).all() for s in small(appearance_change=0.0))
    drift = np.array([s.scene.drift for s in small(appearance_change=0.5)])
    assert (drift[:, 0] == pytest.approx(0.0, abs=1e-9)) and drift.min() >= -1e-9
    assert drift[:, -1].mean() > 0.1 and drift.max() <= 0.5 + 1e-9
    # Slow: two frames in a row look alike.
    assert np.abs(np.diff(drift, axis=1)).max() < 0.15


def test_a_frozen_box_loses_the_target():
    # The default is no still life: neither a frozen place nor a frozen size survives 40 frames.
    place, size = [], []
    for sequence in small():
        boxes = sequence.boxes[:40]
        place.append(iou(boxes, boxes[0]).mean())
        centred = np.concatenate([centres(sequence)[:40] - boxes[0, 2:] / 2, boxes[:, 2:]], axis=1)
        centred[:, 2:] = boxes[0, 2:]
        size.append(iou(boxes, centred).mean())
    assert np.mean(place) < 0.4
    assert np.mean(size) < 0.8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spede": 0.1}, "did you mean 'speed'"),
        ({"speed": -0.1}, "speed is -0.1: accepted are numbers from 0.0 to 0.3"),
        ({"speed": math.nan}, "speed is nan"),
        ({"speed": "fast"}, "speed is 'fast'"),
        ({"occluders": 1.5}, "occluders is 1.5: accepted are whole numbers"),
        ({"occluders": True}, "occluders is True"),
        ({"num_frames": 1}, "num_frames is 1"),
        ({"num_sequences": 0}, "num_sequences is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"width": 10**6}, "width is 1000000"),
        ({"min_size": 0.5, "max_size": 0.2}, "min_size 0.5 is above max_size 0.2"),
        ({"split": "dev"}, "unknown split of synthetic video 'dev'"),
    ],
)
def test_bad_values_are_refused(options, words):
    with pytest.raises(InvalidArgumentError) as caught:
        SyntheticDataset(**options)
    assert words in str(caught.value)


def test_frames_that_are_not_there():
    sequence = SyntheticDataset("val", num_sequences=1, num_frames=5)[0]
    with pytest.raises(FrameError, match=r"val-000000.*no frame 5"):
        sequence.read(5)


@pytest.mark.parametrize(
    "options",
    [
        {"num_frames": 2},
        {"num_frames": 3000, "speed": 0.3},
        {"width": 64, "height": 64, "max_size": 0.6},
        {"width": 640, "height": 90, "distractors": 6, "occluders": 6},
        {"min_size": 0.2, "max_size": 0.2, "min_similarity": 1.0, "max_similarity": 1.0},
    ],
)
def test_extreme_settings(options):
    sequence = SyntheticDataset("train", num_sequences=3, **options)[2]
    config = SyntheticConfig(**options)
    assert len(sequence) == config.num_frames
    assert np.isfinite(sequence.boxes).all()
    frame = sequence.read(len(sequence) - 1)
    assert frame.shape == (config.height, config.width, 3)
    assert frame.std() > 5


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 1), st.floats(-30, 30))
def test_bounce_folds_smoothly(y, x):
    assert float(bounce(unbounce(y))) == pytest.approx(y, abs=1e-9)
    assert abs(float(bounce(x))) <= 1 + 1e-12
    assert abs(float(bounce(x + 1e-4)) - float(bounce(x))) <= 1.0001e-4


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-5, 5),
    st.lists(st.floats(-3, 3), min_size=1, max_size=20),
    st.floats(-4, 4),
    st.floats(0, 6),
)
def test_wander_keeps_its_limits_and_pace(start, steps, low, extent):
    values = wander(start, np.array(steps), low, low + extent)
    assert (values >= low - 1e-9).all() and (values <= low + extent + 1e-9).all()
    assert values[0] == pytest.approx(min(max(start, low), low + extent), abs=1e-6)
    assert (np.abs(np.diff(values)) <= np.abs(steps[1:]) + 1e-9).all()


def test_ornstein_uhlenbeck_is_the_recursion_it_claims_to_be():
    n, tau, std = 37, 5.0, 2.0
    path = ornstein_uhlenbeck(np.random.default_rng(1), n, [std], [tau])[0]
    kicks = std * np.random.default_rng(1).standard_normal(n)
    keep = math.exp(-1 / tau)
    expected = [kicks[0]]
    for kick in kicks[1:]:
        expected.append(keep * expected[-1] + math.sqrt(1 - keep**2) * kick)
    np.testing.assert_allclose(path, expected, atol=1e-12)


def test_ornstein_uhlenbeck_is_stationary():
    paths = ornstein_uhlenbeck(np.random.default_rng(0), 60, [1.5] * 4000, [8.0] * 4000)
    np.testing.assert_allclose(paths.std(axis=0), 1.5, rtol=0.06)
    correlation = (paths[:, 20] * paths[:, 28]).mean() / 1.5**2
    assert correlation == pytest.approx(math.exp(-1), abs=0.05)
