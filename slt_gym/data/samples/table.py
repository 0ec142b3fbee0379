"""The table of layouts, and the one function that writes them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slt_gym.data.samples import benchmarks, plain, training, vot
from slt_gym.data.samples.writing import Source, Written
from slt_gym.errors import InvalidArgumentError, unknown


@dataclass(frozen=True)
class _Layout:
    """Who writes a layout, for which splits; ``stills``: one image of each sequence."""

    write: Callable[[Path, Source], Written]
    splits: tuple[str, ...] = ("test",)
    stills: bool = False


_LAYOUTS = {
    "coco": _Layout(training.write_coco, ("train", "val"), stills=True),
    "folder": _Layout(plain.write_folder),
    "got10k": _Layout(training.write_got10k, ("train", "val", "test")),
    "lasot": _Layout(training.write_lasot, ("train", "test")),
    "lasotext": _Layout(benchmarks.write_lasot_ext),
    "nfs": _Layout(benchmarks.write_nfs),
    "otb100": _Layout(benchmarks.write_otb100),
    "tnl2k": _Layout(benchmarks.write_tnl2k, ("train", "test")),
    "trackingnet": _Layout(training.write_trackingnet, ("train", "test")),
    "uav123": _Layout(benchmarks.write_uav123),
    "uav20l": _Layout(benchmarks.write_uav20l),
    "vid": _Layout(training.write_vid, ("train", "val")),
    "video": _Layout(plain.write_video),
    "vot2018": _Layout(vot.write_vot2018),
    "vot2020": _Layout(vot.write_vot2020),
    "youtubebb": _Layout(training.write_youtubebb, ("train",)),
}


def list_samples() -> dict[str, tuple[str, ...]]:
    """Return the splits that :func:`write_sample` writes, by the names of the datasets."""
    return {name: layout.splits for name, layout in _LAYOUTS.items()}


def count_images(dataset: str, sequences: int, frames: int) -> int:
    """Return how many images :func:`write_sample` writes at most.

    Raises:
        InvalidArgumentError: The dataset is unknown.
    """
    layout = _find(dataset)
    return sequences * len(layout.splits) * (1 if layout.stills else frames)


def write_sample(dataset: str, out: str | os.PathLike[str], source: Source) -> Written:
    """Write synthetic sequences in the layout of a dataset, whole or not at all.

    Args:
        dataset: One of :func:`list_samples`.
        out: The folder, new or empty.
        source: How many sequences, of what length and size, and their seed.

    Returns:
        The sequences that were written, by split and by the name that the dataset's reader gives
        them.

    Raises:
        InvalidArgumentError: The dataset is unknown, ``out`` is not empty, or one of the source's
            numbers is not accepted; nothing is written.
    """
    layout = _find(dataset)
    out = Path(out).expanduser().absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidArgumentError(f"{out} is there already: give a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        temporary.chmod(0o755)
        written = layout.write(temporary, source)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def _find(dataset: str) -> _Layout:
    if dataset not in _LAYOUTS:
        raise unknown("layout", dataset, _LAYOUTS)
    return _LAYOUTS[dataset]
