"""Watch the resident memory of environments over many episodes.

Random actions lose the target soon, so that windows of all sizes are cropped. Frames are small JPEG
files and clips are short: what counts is the number of episodes. The first tenth of the episodes is
a warm-up; growth is that of the mean over the last tenth against the mean over the second one.

    python benchmarks/memory.py --episodes 10000
    python benchmarks/memory.py --dataset lasot --root LaSOT --geometry transt
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import gymnasium as gym

import slt_gym  # noqa: F401  (registers the environments)
from slt_gym.data.samples import Source, write_sample
from slt_gym.envs.registration import find_env_id

POINTS = 200  # where the memory is looked at
KINDS = ("single", "vector", "vector, shared clips")


def resident_bytes() -> int:
    """Return this process's resident memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def make_runner(kind: str, name: str, arguments: dict[str, Any]) -> Callable[[int], int]:
    """Return what runs at least so many episodes, and tells how many."""
    if kind == "single":
        env = gym.make(name, **arguments)
        env.reset(seed=0)
        env.action_space.seed(0)

        def run_single(episodes: int) -> int:
            for _ in range(episodes):
                env.reset()
                ended = False
                while not ended:
                    _, _, ended, _, _ = env.step(env.action_space.sample())
            return episodes

        return run_single

    shared = {"tracks_per_clip": 2} if "shared" in kind else {}
    tracks = gym.make_vec(name, num_envs=8, autoreset_mode="same_step", **arguments, **shared)
    tracks.reset(seed=0)
    tracks.action_space.seed(0)

    def run_tracks(episodes: int) -> int:
        done = 0
        while done < episodes:
            _, _, ended, _, _ = tracks.step(tracks.action_space.sample())
            done += int(ended.sum())
        return done

    return run_tracks


def watch(run: Callable[[int], int], episodes: int) -> dict[str, float]:
    """Run episodes; return the resident memory after the warm-up and at the end, and its growth."""
    part, measured = max(episodes // POINTS, 1), []
    done = 0
    while done < episodes:
        done += run(part)
        measured.append(resident_bytes())
    tenth = max(len(measured) // 10, 1)
    start = statistics.mean(measured[tenth : 2 * tenth])
    end = statistics.mean(measured[-tenth:])
    return {"start": start, "end": end, "growth": end / start - 1, "peak": max(measured)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--root", type=Path, help="its folder; without it, synthetic frames")
    parser.add_argument("--split", default="train")
    parser.add_argument("--geometry", default="transt-tiny")
    parser.add_argument("--num-frames", type=int, default=6, help="of a clip")
    parser.add_argument(
        "--episodes", type=int, default=10_000, help="of each kind, warm-up and all"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    with tempfile.TemporaryDirectory() as temporary:
        root = args.root
        if root is None:
            root = Path(temporary) / args.dataset
            write_sample(args.dataset, root, Source(4, 20, 320, 240, seed=0))
        arguments = {
            "root": str(root),
            "split": args.split,
            "geometry": args.geometry,
            "num_frames": args.num_frames,
        }
        rows = {}
        print(f"{args.episodes} episodes of {args.num_frames} frames, resident memory in MB")
        print(f"{'':24}{'start':>9}{'end':>9}{'peak':>9}{'growth':>9}  aim < 2 %")
        for kind in args.kinds:
            run = make_runner(kind, find_env_id(args.dataset), arguments)
            rows[kind] = row = watch(run, args.episodes)
            cells = "".join(f"{row[key] / 1e6:9.1f}" for key in ("start", "end", "peak"))
            print(f"{kind:24}{cells}{row['growth']:9.2%}", flush=True)
    if args.json is not None:
        report = {"episodes": args.episodes, "num_frames": args.num_frames, "bytes": rows}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
