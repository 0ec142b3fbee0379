"""Time the scoring of a benchmark's results on one core, against a loop over the frames.

Several trackers' results on as many sequences and frames as LaSOT's test part has, random boxes,
are scored under a rule. The loop computes the same three curves under LaSOT's rule in plain Python,
on a fraction of the sequences; its time is scaled up. Both are run in every round, and their
curves are compared. Times are seconds of the CPU, not of the clock.

    python benchmarks/metrics.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from slt_gym.evaluation.dataset_scoring import GroundTruth, score_dataset
from slt_gym.evaluation.rules import RULES

Boxes = np.ndarray


def make_sequence(rng: np.random.Generator, frames: int) -> GroundTruth:
    """Draw a target that wanders and changes its size, absent in a twentieth of the frames."""
    steps = np.cumsum(rng.normal(0, [3, 3, 0.5, 0.5], (frames, 4)), axis=0)
    boxes = np.round(np.maximum(steps + np.array([600, 400, 80, 60]), 1))
    return GroundTruth(boxes, absent=np.arange(frames) >= 0.95 * frames)


def make_track(rng: np.random.Generator, truth: GroundTruth, error: float) -> Boxes:
    """Draw a tracker's boxes around the truth."""
    return truth.boxes + rng.normal(0, error, truth.boxes.shape).clip(-50, 50)


def score_by_loop(truth: GroundTruth, track: Boxes) -> list[list[float]]:
    """Compute the three curves under LaSOT's rule frame by frame, threshold by threshold."""
    success, precision, norm_precision = [0] * 21, [0] * 51, [0] * 51
    boxes, absent = truth.boxes.tolist(), truth.absent.tolist()
    last = track[0].tolist()
    for t, (gt, box) in enumerate(zip(boxes, track.tolist(), strict=True)):
        if t and (any(map(math.isnan, box)) or box[2] <= 0 or box[3] <= 0):
            box = last  # noqa: PLW2901
        last = box
        if t == 0:
            box = gt  # noqa: PLW2901
        if absent[t]:
            continue
        width = min(gt[0] + gt[2] - 1, box[0] + box[2] - 1) - max(gt[0], box[0]) + 1
        height = min(gt[1] + gt[3] - 1, box[1] + box[3] - 1) - max(gt[1], box[1]) + 1
        both = max(width, 0) * max(height, 0)
        overlap = both / (gt[2] * gt[3] + box[2] * box[3] - both)
        x = (box[0] + (box[2] - 1) / 2) - (gt[0] + (gt[2] - 1) / 2)
        y = (box[1] + (box[3] - 1) / 2) - (gt[1] + (gt[3] - 1) / 2)
        error, norm_error = math.hypot(x, y), math.hypot(x / gt[2], y / gt[3])
        for k in range(21):
            success[k] += overlap > 0.05 * k
        for k in range(51):
            precision[k] += error <= k
            norm_precision[k] += norm_error <= k / 100
    return [[n / len(boxes) for n in curve] for curve in (success, precision, norm_precision)]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=280, help="of the dataset")
    parser.add_argument("--frames", type=int, default=2500, help="in each sequence")
    parser.add_argument("--trackers", type=int, default=5, help="each with a result per sequence")
    parser.add_argument("--rule", default="lasot", choices=list(RULES), help="to score by")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--loop-sequences", type=int, default=4, help="that the loop scores")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    truths = {f"s-{k}": make_sequence(rng, args.frames) for k in range(args.sequences)}
    trackers = [
        {name: make_track(rng, truth, error) for name, truth in truths.items()}
        for error in np.linspace(2, 20, args.trackers)
    ]
    part = list(truths)[: args.loop_sequences]
    scale = args.trackers * args.sequences / len(part)

    seconds, loop_seconds = [], []
    for _ in range(args.rounds):
        start = time.process_time()
        for track in trackers:
            score_dataset(truths, track, args.rule)
        seconds.append(time.process_time() - start)
        start = time.process_time()
        looped = [score_by_loop(truths[name], trackers[0][name]) for name in part]
        loop_seconds.append(scale * (time.process_time() - start))
    scored = score_dataset(truths, trackers[0], "lasot").sequences
    for name, curves in zip(part, looped, strict=True):
        found = scored[name]
        for curve, expected in zip(
            (found.success, found.precision, found.norm_precision), curves, strict=True
        ):
            np.testing.assert_allclose(curve, expected, atol=1e-12)

    ratio = statistics.median(b / a for a, b in zip(seconds, loop_seconds, strict=True))
    frames = args.trackers * args.sequences * args.frames
    numbers = {
        "rule": args.rule,
        "frames": frames,
        "seconds": statistics.median(seconds),
        "loop_seconds": statistics.median(loop_seconds),
        "ratio": ratio,
    }
    print(
        f"{args.trackers} trackers, {args.sequences} sequences of {args.frames} frames, rule "
        f"{args.rule}, one thread, median of {args.rounds} rounds"
    )
    print(f"score_dataset         {numbers['seconds']:8.2f} s")
    print(
        f"loop over the frames  {numbers['loop_seconds']:8.2f} s  {ratio:.0f} x "
        f"({len(part)} sequences of one tracker, lasot, scaled by {scale:g})"
    )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(numbers, file, indent=2)


if __name__ == "__main__":
    main()
