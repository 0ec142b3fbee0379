"""Measure the replay buffer of references against Stable-Baselines3's buffer of images.

First its memory: transitions of real episodes are added, again and again, until it holds a million,
and the bytes that Python and NumPy have allocated for it are counted (`tracemalloc`). No crops are
kept here.

Then sampling: both kinds of buffer get the same transitions, with several sizes of the cache of
crops, and batches are drawn with the same seeds, which must be equal. Frames are JPEG files of
synthetic video, linked under many names so that hardly any two transitions show the same one; they
lie in the system's cache. Ratios are of the CPU's time, of all threads together. The images of
20,000 transitions of `transt` take 10 GB of memory.

    python benchmarks/replay.py
    python benchmarks/replay.py --geometry transt-tiny --caches 0 0.1 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.vec_env import VecEnv

from slt_gym.agents import ReferenceReplayBuffer
from slt_gym.data import open_dataset
from slt_gym.envs import box_to_action, make_sb3_env

TRACKS = 4
FRAMES = 60  # of a sequence
LINKS = 40  # names of a sequence
Step = tuple[Any, Any, Any, Any, Any, list[dict[str, Any]]]


def write_sequences(root: Path, count: int, width: int, height: int) -> None:
    """Write synthetic sequences in a folder's layout, each under many names."""
    size = {"num_frames": FRAMES, "width": width, "height": height}
    dataset = open_dataset("synthetic", split="test", **size)
    for i in range(count):
        folder = root / f"sequence-{i}-0"
        (folder / "img").mkdir(parents=True)
        for t in range(FRAMES):
            path, frame = folder / "img" / f"{t + 1:04d}.jpg", dataset[i].read(t)
            cv2.imwrite(str(path), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        np.savetxt(folder / "groundtruth.txt", dataset[i].boxes, "%.2f", ",")
        for k in range(1, LINKS):
            (root / f"sequence-{i}-{k}").symlink_to(folder, target_is_directory=True)


def make_env(root: Path, geometry: str, augment: bool) -> VecEnv:
    """Make the environment: clips of 24 frames."""
    return make_sb3_env(
        "SLTTrack-Folder-v0", TRACKS, 0, root=str(root), geometry=geometry, augment=augment
    )


def make_buffer(venv: VecEnv, cls: type, transitions: int, **kwargs: Any) -> Any:
    """Make a buffer for that many transitions."""
    spaces = venv.observation_space, venv.action_space
    return cls(transitions, *spaces, device="cpu", n_envs=TRACKS, **kwargs)


def play(env: VecEnv) -> Iterator[Step]:
    """Act at random around the latest estimates; yield what SB3's algorithms store, for ever."""
    rng = np.random.default_rng(0)
    obs = env.reset()
    while True:
        actions = box_to_action(obs["box"])
        actions += rng.normal(0, 0.02, actions.shape).astype(np.float32)
        new_obs, rewards, dones, infos = env.step(actions)
        next_obs = {key: array.copy() for key, array in new_obs.items()}
        for j in np.flatnonzero(dones):
            for key, array in infos[j].pop("terminal_observation").items():
                next_obs[key][j] = array
        yield obs, next_obs, actions, rewards, dones, infos
        obs = new_obs


def measure_bytes(env: VecEnv, transitions: int) -> float:
    """Return the bytes that a transition takes in a full buffer."""
    steps = 10 * 23  # whole episodes, so that they can follow each other again
    recorded = [step for step, _ in zip(play(env), range(steps), strict=False)]
    env.close()  # Its threads would read ahead.
    tracemalloc.start()
    buffer = make_buffer(env, ReferenceReplayBuffer, transitions, env=env, cache_bytes=0)
    for k in range(transitions // TRACKS):
        buffer.add(*recorded[k % steps])
    bytes_used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert buffer.size() == transitions // TRACKS
    return bytes_used / transitions


def sample(buffer: Any, batch_size: int, seed: int) -> tuple[float, float, Any]:
    """Return the seconds that a batch takes, those of the CPU, and the batch."""
    np.random.seed(seed)  # noqa: NPY002  (what SB3's buffers draw from)
    start, cpu_start = time.perf_counter(), time.process_time()
    batch = buffer.sample(batch_size)
    return time.perf_counter() - start, time.process_time() - cpu_start, batch


def check_equal(batch: Any, expected: Any) -> None:
    """Make sure that two batches are the same, bit by bit."""
    for part, other in zip(batch[:5], expected[:5], strict=True):
        pairs = [(part[k], other[k]) for k in other] if isinstance(other, dict) else [(part, other)]
        assert all(bool((ours == theirs).all()) for ours, theirs in pairs)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", default="transt", help="a tracker's, for the crops' sizes")
    parser.add_argument("--augment", action="store_true", help="change the clips at random")
    parser.add_argument("--million", type=int, default=1_000_000, help="transitions, for memory")
    parser.add_argument("--transitions", type=int, default=20_000, help="for sampling")
    parser.add_argument("--caches", type=float, nargs="*", default=[0, 1], help="GiB of crops")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is shown")
    parser.add_argument("--sequences", type=int, default=10, help="different ones")
    parser.add_argument("--width", type=int, default=1280, help="of a frame, pixels")
    parser.add_argument("--height", type=int, default=720, help="of a frame, pixels")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    numbers: dict[str, Any] = {"geometry": args.geometry, "transitions": args.transitions}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_sequences(root, args.sequences, args.width, args.height)

        def env() -> VecEnv:
            return make_env(root, args.geometry, args.augment)

        numbers["reference_bytes"] = measure_bytes(env(), args.million)
        measure_sampling(args, env, numbers)
    report(args, numbers)


def measure_sampling(
    args: argparse.Namespace, make: Callable[[], VecEnv], numbers: dict[str, Any]
) -> None:
    """Fill the buffers with the same transitions, and time batches of each."""
    env, size = make(), args.transitions
    images = make_buffer(env, DictReplayBuffer, size)
    buffers = {
        gib: make_buffer(env, ReferenceReplayBuffer, size, env=env, cache_bytes=int(gib * 2**30))
        for gib in args.caches
    }
    for _, step in zip(range(images.buffer_size), play(env), strict=False):
        for buffer in (images, *buffers.values()):
            buffer.add(*step)
    env.close()

    times: dict[Any, list[tuple[float, float]]] = {}
    for seed in range(args.rounds):
        *spent, expected = sample(images, args.batch_size, seed)
        times.setdefault("images", []).append(tuple(spent))
        for gib, buffer in buffers.items():
            *spent, batch = sample(buffer, args.batch_size, seed)
            times.setdefault(gib, []).append(tuple(spent))
            check_equal(batch, expected)
    parts = [*images.observations.values(), *images.next_observations.values(), images.actions]
    parts += [images.rewards, images.dones, images.timeouts]
    numbers["images_bytes"] = sum(part.nbytes for part in parts) / size
    numbers["images"] = summarise(times["images"], times["images"])
    numbers["caches"] = [
        {
            "capacity_gib": gib,
            "crop_bytes": buffer.cached_bytes,
            **summarise(times[gib], times["images"]),
        }
        for gib, buffer in buffers.items()
    ]


def summarise(
    times: list[tuple[float, float]], reference: list[tuple[float, float]]
) -> dict[str, float]:
    """Return the medians of seconds, seconds of the CPU, and the latter's ratio to others."""
    return {
        "seconds": statistics.median(seconds for seconds, _ in times),
        "cpu_seconds": statistics.median(cpu for _, cpu in times),
        "ratio": statistics.median(a / b for (_, a), (_, b) in zip(times, reference, strict=True)),
    }


def report(args: argparse.Namespace, numbers: dict[str, Any]) -> None:
    """Print the numbers, and write them where asked."""
    reference, image = numbers["reference_bytes"], numbers["images_bytes"]
    print(f"{args.geometry}, box actions, clips of 24 frames{', augmented' * args.augment}")
    print(f"a transition as references  {reference:10,.1f} bytes (at {args.million:,})")
    print(f"a transition as images      {image:10,.0f} bytes, {image / reference:,.0f} x")
    print(
        f"batches of {args.batch_size} from {args.transitions:,} transitions, "
        f"{args.width}x{args.height} JPEG, median of {args.rounds} rounds"
    )
    rows = [("DictReplayBuffer", image * args.transitions, numbers["images"])]
    for cache in numbers["caches"]:
        size = reference * args.transitions + cache["crop_bytes"]
        rows.append((f"references, {cache['capacity_gib']:g} GiB", size, cache))
    for name, size, times in rows:
        milliseconds = f"{1e3 * times['seconds']:9.1f} ms {1e3 * times['cpu_seconds']:9.1f} CPU-ms"
        print(f"{name:22} {size / 1e6:9,.1f} MB {milliseconds} {times['ratio']:7.2f} x")
    if args.json:
        Path(args.json).write_text(json.dumps(numbers, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
