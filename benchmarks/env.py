"""Time environments against decoding and cropping alone, and against SB3's vector environments.

All take clips of one sequence, drawn by the training sampler, with actions that keep the estimate;
the two tracks of a pair so see the same window, which is decoded once and cropped twice. There are
as many tracks as in a published iteration of SLT. A step's cost includes its share of the resets,
which decode one frame more; "steps alone" are the single environment's steps without them. The
floor takes the frames of these steps: `cv2.imdecode` of bytes that lie in memory, all of the frame,
and one `cv2.resize` of the window's part of it, nothing else. Environments decode down to the lower
edge of the windows. OpenCV's own threads are off. Vector environments reset in the same step.

The peers take turns in each round; printed are medians over the rounds. "decode" and "crop" are
seconds of the threads at work, "CPU" those of all threads and processes, in milliseconds for each
step of a track. A ratio is one of times of the same round, by the clock and by the CPU: above 1
the first peer is the slower one in "cost", the faster one in "rate".

    python benchmarks/env.py
    python benchmarks/env.py --dataset folder --root DIR --sequence NAME --json env.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from slt_gym.data import Sequence, open_dataset
from slt_gym.envs import TrackingEnv, box_to_action
from slt_gym.envs.registration import register_envs
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.envs.vector_env import count_cores
from slt_gym.geometry import Window

ID = "SLTTrack-Folder-v0"


class Shot(NamedTuple):
    """What one step decodes and crops: an encoded image and a window."""

    data: NDArray[np.uint8]
    window: Window


class Cost(NamedTuple):
    """Of one step of one track, milliseconds: by the clock, of the CPU, and by phase."""

    wall: float
    cpu: float
    phases: dict[str, float]


@dataclass
class Peer:
    """What is timed.

    Attributes:
        run: Takes a round's steps.
        steps: Number of them, over all tracks.
        stopwatch: Sums its phases.
        processes: Ids of the processes beside this one that work for it.
        close: Ends them.
        costs: Of the rounds.
    """

    run: Callable[[], object]
    steps: int
    stopwatch: Stopwatch | None = None
    processes: tuple[int, ...] = ()
    close: Callable[[], object] = lambda: None
    costs: list[Cost] = field(default_factory=list)

    def time(self) -> Cost:
        """Take a round's steps."""
        before = dict(self.stopwatch.seconds) if self.stopwatch else {}
        cpu, wall = cpu_seconds(self.processes), time.perf_counter()
        self.run()
        wall, cpu = time.perf_counter() - wall, cpu_seconds(self.processes) - cpu
        after = self.stopwatch.seconds if self.stopwatch else {}
        scale = 1e3 / self.steps
        phases = {name: scale * (after[name] - before.get(name, 0.0)) for name in after}
        return Cost(scale * wall, scale * cpu, phases)


def cpu_seconds(processes: tuple[int, ...]) -> float:
    """Return the CPU time of this process and of others (Linux; elsewhere of this one)."""
    total = time.process_time()
    for process in processes:
        stat = Path(f"/proc/{process}/stat")
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def write_sequence(folder: Path, encoded: list[bytes], sequence: Sequence) -> None:
    """Write one sequence in a folder's layout."""
    (folder / "img").mkdir(parents=True)
    for t, data in enumerate(encoded, 1):
        (folder / "img" / f"{t:06d}.jpg").write_bytes(data)
    boxes = np.where(sequence.visible[:, None], sequence.boxes, 0.0)
    np.savetxt(folder / "groundtruth.txt", boxes, "%.9g", ",")


def encode_synthetic(frames: int, width: int, height: int) -> tuple[list[bytes], Sequence]:
    """Return a synthetic sequence, and its frames as JPEG of quality 90."""
    options = {"num_frames": frames, "width": width, "height": height}
    sequence = open_dataset("synthetic", split="test", **options)[0]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    encode = partial(cv2.imencode, ".jpg", params=quality)
    return [encode(sequence.read(t)[..., ::-1])[1].tobytes() for t in range(frames)], sequence


def keep(observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the actions that keep the estimates."""
    return box_to_action(observation["box"])


def list_shots(arguments: dict[str, Any], encoded: list[bytes], steps: int) -> list[Shot]:
    """Return what the steps of the single environment decode and crop."""
    data = [np.frombuffer(frame, np.uint8) for frame in encoded]
    env, shots = make_tracking_env(arguments), []
    observation, _ = env.reset(seed=0)
    for _ in range(steps):
        assert env._episode is not None
        window = env._episode.window
        observation, _, ended, _, info = env.step(keep(observation))
        shots.append(Shot(data[info["frame"]], window))
        if ended:
            observation, _ = env.reset()
    return shots


def decode_and_crop(shots: list[Shot], size: int) -> None:
    """Do the floor's work."""
    for data, window in shots:
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert frame is not None
        x, y = (max(v, 0) for v in window.origin)
        cv2.resize(frame[y : y + window.side, x : x + window.side], (size, size))


def make_floor(shots: list[Shot], size: int, steps: int, threads: int = 1) -> Peer:
    """Return the floor, by one thread or more."""
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    rounds = iter([shots[i : i + steps] for i in range(0, len(shots), steps)])

    def run() -> None:
        mine = next(rounds)
        if pool is None:
            decode_and_crop(mine, size)
        else:
            parts = [mine[i::threads] for i in range(threads)]
            list(pool.map(partial(decode_and_crop, size=size), parts))

    return Peer(run, steps)


def make_single(arguments: dict[str, Any], steps: int) -> Peer:
    """Return a single environment."""
    env = make_tracking_env(arguments)
    env.stopwatch.clock = time.thread_time
    observation, _ = env.reset(seed=0)

    def run() -> None:
        nonlocal observation
        for _ in range(steps):
            observation, _, ended, _, _ = env.step(keep(observation))
            if ended:
                with env.stopwatch.measure("reset"):
                    observation, _ = env.reset()

    return Peer(run, steps, env.stopwatch)


def leave_out_resets(single: Peer) -> Peer:
    """Return the steps of a single environment alone."""
    costs = [
        Cost(cost.wall - cost.phases["reset"], cost.cpu - cost.phases["reset"], {})
        for cost in single.costs
    ]
    return Peer(single.run, single.steps, costs=costs)


def make_vector(arguments: dict[str, Any], steps: int) -> Peer:
    """Return this library's vector environment."""
    env: Any = gym.make_vec(ID, autoreset_mode="same_step", **arguments)
    env.stopwatch.clock = time.thread_time
    observation, _ = env.reset(seed=0)

    def run() -> None:
        nonlocal observation
        for _ in range(steps):
            observation, *_ = env.step(keep(observation))

    return Peer(run, env.num_envs * steps, env.stopwatch, close=env.close)


def make_stable(venv: VecEnv, steps: int) -> Peer:
    """Return a vector environment of Stable-Baselines3."""
    processes = tuple(process.pid for process in getattr(venv, "processes", ()))
    venv.seed(0)
    observation: Any = venv.reset()

    def run() -> None:
        nonlocal observation
        for _ in range(steps):
            observation, *_ = venv.step(keep(observation))

    return Peer(run, venv.num_envs * steps, processes=processes, close=venv.close)


def make_tracking_env(arguments: dict[str, Any]) -> TrackingEnv:
    """Make a single environment without wrappers."""
    env = gym.make(ID, **arguments).unwrapped
    assert isinstance(env, TrackingEnv)
    return env


def make_one(arguments: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make an environment, in a process of its own or in this one."""
    register_envs()
    cv2.setNumThreads(1)
    return gym.make(ID, **arguments)


def make_peers(
    arguments: dict[str, Any], many: dict[str, Any], shots: list[Shot], steps: int
) -> dict[str, Peer]:
    """Return everything that is timed, by name, each for ``steps`` steps of a track in a round.

    Args:
        arguments: Of every environment.
        many: Of this library's vector environments, ``num_envs`` and ``threads`` among them.
        shots: Of all rounds.
        steps: A multiple of the numbers of tracks and cores.
    """
    tracks, threads, cores = many["num_envs"], many["threads"], count_cores()
    size = make_tracking_env(arguments).rules.geometry.search_size
    one = partial(make_one, arguments)
    pairs = {**arguments, **many, "tracks_per_clip": 2}
    subproc = make_vec_env(one, cores, vec_env_cls=SubprocVecEnv)
    return {
        "floor": make_floor(shots, size, steps),
        "floor, threads": make_floor(shots, size, steps, threads),
        "single": make_single(arguments, steps),
        "vector": make_vector({**arguments, **many}, steps // tracks),
        "vector, pairs": make_vector(pairs, steps // tracks),
        "DummyVecEnv": make_stable(make_vec_env(one, tracks), steps // tracks),
        "SubprocVecEnv": make_stable(subproc, steps // cores),
    }


# What is compared: its name, the two peers, whether as costs, and what is aimed at.
COMPARISONS = (
    ("single : floor, cost", "single", "floor", "<= 1.15"),
    ("single, steps alone : floor, cost", "steps alone", "floor", "<= 1.15"),
    ("floor, threads : floor, rate", "floor", "floor, threads", ""),
    ("vector : floor, rate", "floor", "vector", ">= 1.7"),
    ("vector, pairs : vector, rate", "vector", "vector, pairs", ">= 1.7"),
    ("vector : DummyVecEnv, rate", "DummyVecEnv", "vector", ""),
    ("vector : SubprocVecEnv, rate", "SubprocVecEnv", "vector", ""),
    ("vector, pairs : SubprocVecEnv, rate", "SubprocVecEnv", "vector, pairs", ">= 2"),
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="without it, synthetic frames")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--sequence", help="its name (default: the first)")
    parser.add_argument("--geometry", default="transt")
    parser.add_argument("--num-frames", type=int, default=24, help="of a clip")
    parser.add_argument("--tracks", type=int, default=16, help="of vector environments")
    parser.add_argument("--threads", type=int, default=2, help="of vector environments")
    parser.add_argument("--no-prefetch", action="store_true", help="in vector environments")
    parser.add_argument("--episodes", type=int, default=2, help="of each track in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=1280, help="of synthetic frames, pixels")
    parser.add_argument("--height", type=int, default=720, help="of synthetic frames, pixels")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    with tempfile.TemporaryDirectory() as temporary:
        if args.dataset is None:
            encoded, sequence = encode_synthetic(100, args.width, args.height)
        else:
            dataset = open_dataset(args.dataset, args.root, args.split)
            sequence = dataset[0] if args.sequence is None else dataset.get(args.sequence)
            encoded = [sequence.read_encoded(t) for t in range(len(sequence))]  # type: ignore[attr-defined]
        write_sequence(Path(temporary), encoded, sequence)
        arguments = {"root": temporary, "geometry": args.geometry, "num_frames": args.num_frames}
        many = {
            "num_envs": args.tracks,
            "threads": args.threads,
            "prefetch": not args.no_prefetch,
        }
        steps = args.episodes * (args.num_frames - 1) * math.lcm(args.tracks, count_cores())
        shots = list_shots(arguments, encoded, steps * (args.rounds + 1))
        peers = make_peers(arguments, many, shots, steps)
        names = list(peers)
        for i in range(args.rounds + 1):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                cost = peers[name].time()
                if i:  # The first round warms up.
                    peers[name].costs.append(cost)
        peers["steps alone"] = leave_out_resets(peers["single"])
        height, width = sequence.read(0).shape[:2]
        for peer in peers.values():
            peer.close()

    settings = {
        "sequence": sequence.name,
        "width": width,
        "height": height,
        "window_bottom": statistics.mean(min(s.window.bottom / height, 1.0) for s in shots),
        "kilobytes_per_frame": sum(map(len, encoded)) / len(encoded) / 1000,
        "cores": count_cores(),
        "opencv": cv2.__version__,
        **{key: value for key, value in vars(args).items() if isinstance(value, int | str)},
    }
    report = {"peers": summarise(peers), "ratios": compare(peers)}
    show(settings, report)
    if args.json is not None:
        args.json.write_text(json.dumps({**settings, **report}, indent=2) + "\n")


def summarise(peers: dict[str, Peer]) -> dict[str, dict[str, float]]:
    """Return the medians over the rounds."""
    rows = {}
    for name, peer in peers.items():
        rows[name] = {
            "steps_per_second": statistics.median(1e3 / cost.wall for cost in peer.costs),
            "ms": statistics.median(cost.wall for cost in peer.costs),
            "cpu_ms": statistics.median(cost.cpu for cost in peer.costs),
        }
        for phase in peer.costs[0].phases:
            values = [cost.phases[phase] for cost in peer.costs]
            rows[name][f"{phase}_ms"] = statistics.median(values)
    return rows


def compare(peers: dict[str, Peer]) -> dict[str, dict[str, Any]]:
    """Return the medians of the rounds' ratios."""
    return {
        name: {
            "wall": median_ratio(peers[a], peers[b], "wall"),
            "cpu": median_ratio(peers[a], peers[b], "cpu"),
            "aim": aim,
        }
        for name, a, b, aim in COMPARISONS
    }


def median_ratio(a: Peer, b: Peer, clock: str) -> float:
    """Return the median of the rounds' ratios of two peers' costs."""
    pairs = zip(a.costs, b.costs, strict=True)
    return statistics.median(getattr(x, clock) / getattr(y, clock) for x, y in pairs)


def show(settings: dict[str, Any], report: dict[str, Any]) -> None:
    """Print the tables."""
    print(
        f"{settings['sequence']}, {settings['width']}x{settings['height']}, "
        f"{settings['kilobytes_per_frame']:.0f} kB each, clips of {settings['num_frames']}, "
        f"windows down to {settings['window_bottom']:.2f} of the height on average; "
        f"{settings['tracks']} tracks, {settings['threads']} threads, {settings['cores']} cores, "
        f"median of {settings['rounds']} rounds"
    )
    columns = {
        "steps/s": "steps_per_second",
        "ms": "ms",
        "CPU ms": "cpu_ms",
        "decode": "decode_ms",
        "crop": "crop_ms",
    }
    print(" " * 20 + "".join(f"{column:>10}" for column in (*columns, "rest")))
    for name, row in report["peers"].items():
        cells = "".join(f"{row[key]:10.2f}" for key in columns.values() if key in row)
        if "decode_ms" in row:  # What is neither is CPU time, whichever thread it is in.
            cells += f"{row['cpu_ms'] - row['decode_ms'] - row['crop_ms']:10.2f}"
        print(f"{name:20}{cells}")
    print(f"\n{'ratio':36}{'clock':>8}{'CPU':>8}  aim")
    for name, row in report["ratios"].items():
        print(f"{name:36}{row['wall']:8.3f}{row['cpu']:8.3f}  {row['aim']}")


if __name__ == "__main__":
    main()
