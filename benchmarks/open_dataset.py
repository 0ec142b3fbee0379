"""Time the opening of a TrackingNet of full size, with and without its index.

Makes a tree of 12 x 2511 sequences in a temporary folder, an annotation file and an empty folder of
frames each, and prints the seconds that `open_dataset` takes in a process of its own that has
imported the library: first with an empty index cache (cold), then with the index that this left
(warm). Each is followed by its ratio to `os.listdir` of the same 24 folders. The operating system's
own cache of the files is warm in all of them.

    python benchmarks/open_dataset.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CHUNKS = 12

OPEN = """
import sys, time
from slt_gym.data import open_dataset
import slt_gym.data.trackingnet
start = time.perf_counter()
dataset = open_dataset("trackingnet", sys.argv[1])
print(time.perf_counter() - start, len(dataset))
"""

LIST = """
import os, sys, time
start = time.perf_counter()
for chunk in os.listdir(sys.argv[1]):
    for folder in ("anno", "frames"):
        count = len(os.listdir(os.path.join(sys.argv[1], chunk, folder)))
print(time.perf_counter() - start, count)
"""


def make_tree(root: Path, sequences: int) -> None:
    """Write the annotation files and the folders of every chunk."""
    for chunk in range(CHUNKS):
        for folder in ("anno", "frames"):
            (root / f"TRAIN_{chunk}" / folder).mkdir(parents=True)
        for k in range(sequences):
            name = f"{chunk:02d}{k:09d}_{k % 3}"  # as long as a YouTube id and its number
            (root / f"TRAIN_{chunk}" / "anno" / f"{name}.txt").write_text("1.00,2.00,30.00,40.00\n")
            (root / f"TRAIN_{chunk}" / "frames" / name).mkdir()


def measure(code: str, root: Path, cache: Path) -> tuple[float, int]:
    """Run a piece of code in a process of its own; return its seconds and its count."""
    environment = {**os.environ, "SLT_GYM_CACHE": str(cache)}
    command = [sys.executable, "-c", code, str(root)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, count = output.stdout.split()
    return float(seconds), int(count)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=2511, help="in each of the 12 chunks")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    times: dict[str, list[float]] = {"os.listdir": [], "open, cold": [], "open, warm": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "TrackingNet"
        make_tree(root, args.sequences)
        for i in range(args.rounds):
            cache = Path(folder) / f"cache-{i}"
            times["os.listdir"].append(measure(LIST, root, cache)[0])
            times["open, cold"].append(measure(OPEN, root, cache)[0])
            seconds, count = measure(OPEN, root, cache)
            times["open, warm"].append(seconds)
    print(f"trackingnet, {count} sequences, median of {args.rounds} rounds")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["os.listdir"], strict=True))
        print(f"{name:12} {statistics.median(values):7.3f} s  {ratio:6.2f} x os.listdir")


if __name__ == "__main__":
    main()
