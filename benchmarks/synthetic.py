"""Time synthetic video on one core, against decoding the same frames from JPEG.

Prints, for each measurement, the median over the rounds in milliseconds, and its ratio to
`cv2.imdecode` of the same frames (JPEG, quality 95) taken in the same rounds.

    python benchmarks/synthetic.py --sequences 20 --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import cv2

from slt_gym.data.synthetic import SyntheticDataset, SyntheticSequence


def mean_ms(work: Callable[[Any], object], items: Iterable[Any]) -> float:
    """Return the mean time that ``work`` takes on an item, milliseconds."""
    items = list(items)
    start = time.perf_counter()
    for item in items:
        work(item)
    return 1e3 * (time.perf_counter() - start) / len(items)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=20, help="sequences in a round")
    parser.add_argument("--frames", type=int, default=32, help="frames read of each sequence")
    parser.add_argument("--rounds", type=int, default=5, help="each on fresh sequences")
    parser.add_argument("--width", type=int, default=320, help="pixels")
    parser.add_argument("--height", type=int, default=240, help="pixels")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    size = {"width": args.width, "height": args.height}
    SyntheticDataset("test", **size)[0].read(0)  # the noise that all sequences share

    times: dict[str, list[float]] = {}
    for seed in range(args.rounds):
        dataset = SyntheticDataset("train", seed=seed, num_sequences=args.sequences, **size)
        sequences: list[SyntheticSequence] = []
        construct = mean_ms(lambda i: sequences.append(dataset[i]), range(args.sequences))  # noqa: B023
        first = mean_ms(lambda sequence: sequence.read(0), sequences)
        frames, ms = [], []
        for sequence in sequences:
            ms.append(mean_ms(lambda t: frames.append(sequence.read(t)), range(args.frames)))  # noqa: B023
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        jpegs = [cv2.imencode(".jpg", frame, quality)[1] for frame in frames]
        decode = mean_ms(lambda jpeg: cv2.imdecode(jpeg, cv2.IMREAD_COLOR), jpegs)
        row = {
            "decode a JPEG frame": decode,
            "draw a frame": statistics.mean(ms),
            "make a sequence": construct,
            "read its first frame": first,
        }
        for name, value in row.items():
            times.setdefault(name, []).append(value)

    reference = times["decode a JPEG frame"]
    print(f"{args.width}x{args.height}, one thread, median of {args.rounds} rounds")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, reference, strict=True))
        print(f"{name:22} {statistics.median(values):7.2f} ms  {ratio:6.2f} x cv2.imdecode")


if __name__ == "__main__":
    main()
