"""``slt-gym sample-data``: a small dataset of synthetic video in the layout of a real one."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from tqdm import tqdm
from tyro.conf import Positional, arg

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.registry import find_name
from slt_gym.data.samples import Source, count_images, list_samples, write_sample
from slt_gym.data.video import VideoSequence
from slt_gym.envs.registration import DATASETS
from slt_gym.evaluation.files import check_output_folder

_DATASET_HELP = f"The layout: {', '.join(list_samples())}."


@dataclass(frozen=True)
class Arguments:
    """Write synthetic sequences in exactly the layout in which a dataset is downloaded.

    It takes seconds, and every command that reads the dataset reads the folder: try them before
    the download is there. All parts of the dataset are written (train, val, test), with their
    lists, and frames in which the target is hidden.

    Attributes:
        dataset: The dataset whose layout it is.
        out: The folder, new or empty.
        sequences: Sequences in each part; of coco, images.
        frames: Frames of each sequence.
        width: Frame width, pixels.
        height: Frame height, pixels.
        seed: Other seeds give other sequences.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATASET", help=_DATASET_HELP)]
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    sequences: int = 4
    frames: int = 48
    width: int = 320
    height: int = 240
    seed: int = 0
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Write the folder, and print what to try next.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is none; nothing is written.
    """
    del command
    dataset, out = find_name(arguments.dataset), arguments.out.expanduser()
    check_output_folder(out)
    sequences, frames = arguments.sequences, arguments.frames
    total = count_images(dataset, sequences, frames)
    hide = not arguments.progress_bar
    size = (arguments.width, arguments.height)
    Source(sequences, frames, *size, arguments.seed)  # Refuses numbers before the bar is there.
    with tqdm(total=total, desc=f"writing {dataset}", unit="frame", disable=hide) as bar:
        source = Source(sequences, frames, *size, arguments.seed, bar.update)
        written = write_sample(dataset, out, source)
    parts = ", ".join(f"{len(sequences)} {split}" for split, sequences in written.items())
    print(f"wrote sequences of {dataset} ({parts}) to {out}; what to try next:")
    for line in _suggest(dataset, out, list(written)):
        print(f"  {line}")


def _suggest(dataset: str, out: Path, splits: list[str]) -> list[str]:
    """Return command lines that work with what was written."""
    lines = [["slt-gym", "data", dataset, str(out)]]
    if "train" in splits:
        run = str(out.with_name(f"{out.name}-run"))
        words = ["slt-gym", "pretrain", "transt-tiny", dataset, run, "--root", str(out)]
        lines.append([*words, "--steps", "20", "--batch-size", "8"])
    else:
        sequence = open_dataset(dataset, out, splits[0])[0]
        if isinstance(sequence, VideoSequence):
            path = sequence.path
        else:
            path = cast("ImageSequence", sequence).paths[0].parent
        box = ",".join(f"{value:g}" for value in sequence.boxes[0].tolist())
        output = str(out.with_name(f"{out.name}-track.mp4"))
        lines.append(["slt-gym", "track", str(path), f"--box={box}", "--video", output])
    for title, name, *_ in DATASETS:
        if name == dataset:
            values = (f"SLTTrack-{title}-v0", str(out), splits[0])
            env_id, root, split = map(json.dumps, values)  # In double quotes.
            make = f"gym.make({env_id}, root={root}, split={split})"
            code = f"import gymnasium as gym, slt_gym; print({make}.reset()[1])"
            lines.append(["python", "-c", code])
    return [shlex.join(words) for words in lines]
