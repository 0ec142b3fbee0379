"""``slt-gym track``: follow one target through a video or a folder of frames."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tyro.conf import Positional, arg

from slt_gym.cli.arguments import choose_device
from slt_gym.cli.frame_source import FrameSource, open_source
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.files import check_output_file, replacing

if TYPE_CHECKING:
    from slt_gym.agents import Tracker

_DEFAULT_TRACKER = "transt-tiny"


@dataclass(frozen=True)
class Arguments:
    """Follow one target through a video file or a folder of frames.

    Writes one row "x,y,w,h" per frame: top-left corner, width and height in pixels of the frame,
    four decimals. The first row is the given box. Files that exist are replaced, once the new ones
    are whole.

    Attributes:
        source: A video file, or a folder of jpg, png or bmp frames, taken in the order of the
            numbers in their names.
        box: The target in the first frame: top-left corner x, y, width and height, pixels.
        tracker: The tracker's name; by default the one that a folder of --weights names, else
            transt-tiny.
        weights: A folder of weights (config.json and weights.safetensors), a published checkpoint
            file, or "pretrained" for weights that ship with the package, which is the default.
        output: The file for the boxes, text.
        video: Also write a video with the box drawn, .mp4.
        start: The number of the frame that --box belongs to, counted from 0; earlier ones are
            passed over, and have no row.
        device: Where the network runs: auto (a GPU if there is one), cpu, cuda, or cuda:1 and
            so on.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    box: Annotated[str, arg(metavar="X,Y,W,H")]
    tracker: Annotated[str | None, arg(metavar="NAME")] = None
    weights: Annotated[str | None, arg(metavar="PATH")] = None
    output: Path = Path("boxes.txt")
    video: Annotated[Path | None, arg(metavar="PATH")] = None
    start: int = 0
    device: str = "auto"
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Track and write the boxes, and the video if one is asked for.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is none; nothing is written.
        FrameError: The source cannot be read; nothing is written.
        CheckpointError: The weights cannot be read; nothing is written.
    """
    del command
    box = parse_box(arguments.box)
    source = open_source(arguments.source)
    output = arguments.output.expanduser()
    video = arguments.video and arguments.video.expanduser()
    _check_outputs(source, output, video)
    frames = source.frames(arguments.start)
    first = next(frames)
    _check_inside(box, first, arguments.start)
    tracker = _create(arguments)
    tracker.init(first, box)

    # Imported late: PyTorch takes seconds, and the checks above should not.
    from slt_gym.envs import draw_overlay  # noqa: PLC0415
    from slt_gym.evaluation.video import write_video  # noqa: PLC0415

    boxes = [box]
    updates = _Stopwatch()

    def follow() -> Iterator[NDArray[np.uint8]]:
        yield draw_overlay(first, None, box, text=f"{arguments.start}") if video else first
        left = source.count - arguments.start if source.count else None
        with tqdm(
            frames,
            desc=f"tracking with {tracker.name}",
            total=left and max(0, left - 1),
            unit="frame",
            disable=not arguments.progress_bar,
        ) as bar:
            for t, frame in enumerate(bar, arguments.start + 1):
                with updates:
                    boxes.append(tracker.update(frame))
                text = f"{t}  score {tracker.score:.2f}"
                yield draw_overlay(frame, None, boxes[-1], text=text) if video else frame

    started = time.perf_counter()
    if video:
        write_video(video, follow(), source.fps)
    else:
        for _ in follow():
            pass
    seconds = time.perf_counter() - started
    with replacing(output) as temporary:
        np.savetxt(temporary, boxes, fmt="%.4f", delimiter=",")
    _report(source, arguments.start, len(boxes), seconds, updates.seconds)
    print(f"boxes: {output}" + (f"\nvideo: {video}" if video else ""))


def parse_box(text: str) -> NDArray[np.float64]:
    """Read a box from text such as ``"120,80,60,40"``: float64 ``(4,)``, ``(x, y, w, h)``.

    Raises:
        InvalidArgumentError: It is not four numbers with a positive size.
    """
    try:
        box = np.array([float(part) for part in text.split(",")])
    except ValueError:
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > 0).all():
        raise InvalidArgumentError(
            f"--box {text!r} is not a box: expected is x,y,w,h, the top-left corner and a width "
            "and height above 0 in pixels, such as 120,80,60,40"
        )
    return box


class _Stopwatch:
    """Sums the seconds inside its blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._started


def _create(arguments: Arguments) -> Tracker:
    from slt_gym.agents.creation import choose_weights, create_tracker  # noqa: PLC0415 (torch)
    from slt_gym.agents.weights import read_config  # noqa: PLC0415

    weights = arguments.weights
    name = arguments.tracker
    if name is None:
        is_folder = weights not in (None, "pretrained") and Path(str(weights)).expanduser().is_dir()
        name = read_config(str(weights))["tracker"] if is_folder else _DEFAULT_TRACKER
    return create_tracker(name, choose_weights(name, weights), choose_device(arguments.device))


def _check_outputs(source: FrameSource, output: Path, video: Path | None) -> None:
    check_output_file(output)
    if video:
        check_output_file(video, (".mp4",))
    for flag, path in (("--output", output), ("--video", video)):
        if path and path.exists() and path.samefile(source.path):
            raise InvalidArgumentError(f"{flag} {path} is the source, which would be replaced")
    if video and video.absolute() == output.absolute():
        raise InvalidArgumentError(f"--output and --video are both {output}")


def _check_inside(box: NDArray[np.float64], frame: NDArray[np.uint8], start: int) -> None:
    height, width = frame.shape[:2]
    x, y, w, h = box.tolist()
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise InvalidArgumentError(
            f"--box {x:g},{y:g},{w:g},{h:g} lies outside frame {start}, which is {width}x{height} "
            "pixels (x from the left, y from the top)"
        )


def _report(source: FrameSource, start: int, rows: int, seconds: float, updates: float) -> None:
    frames = rows - 1
    rate = frames / seconds if frames and seconds else math.nan
    alone = frames / updates if frames and updates else math.nan
    print(
        f"tracked {frames} frames in {seconds:.1f} s: {rate:.1f} frames per second, "
        f"{alone:.1f} by the tracker alone"
    )
    if source.is_video and start + rows < source.count:
        print(
            f"{source.path} ends or is damaged after frame {start + rows - 1}, though its header "
            f"announces {source.count} frames"
        )
