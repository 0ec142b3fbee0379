"""A dataset of painted frames with results on it, and readers of the pages of a report."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import Sequence, SequenceDataset

LENGTHS = {"long": 90, "middle": 12, "short": 5}
WIDTH, HEIGHT = 100, 80


class Painted(Sequence):
    """A square on a plain ground."""

    def read(self, t: int) -> NDArray[np.uint8]:
        frame = np.full((HEIGHT, WIDTH, 3), 60 + t, np.uint8)
        x, y, w, h = np.nan_to_num(self.boxes[t]).astype(int)
        frame[y : y + h, x : x + w] = (40, 90, 200)
        return frame


class Gallery(SequenceDataset):
    """Painted sequences, under the name of any dataset."""

    def __init__(self, name: str, sequences: list[Sequence], split: str = "test") -> None:
        super().__init__(name, split, [sequence.name for sequence in sequences])
        self.sequences = sequences

    def _load(self, index: int) -> Sequence:
        return self.sequences[index]


def paint(name: str, length: int, **attributes: Any) -> Painted:
    t = np.arange(length)[:, None]
    boxes = np.hstack([10 + 0.5 * t, 20 + 0.25 * t, 0 * t + 20, 0 * t + 16])
    return Painted(name, boxes, attributes=attributes)


def make_gallery(name: str = "otb100") -> Gallery:
    flags = {"long": {"fast_motion": np.arange(90) == 7, "camera": np.zeros(90, bool)}}
    flags["short"] = {"fast_motion": np.array(True), "tags": np.array(["Scale", "Camera"])}
    return Gallery(name, [paint(key, n, **flags.get(key, {})) for key, n in LENGTHS.items()])


def write_results(folder: Path, boxes: Mapping[str, NDArray[np.float64]], fps: float = 0) -> Path:
    (folder / "times").mkdir(parents=True)
    for name, rows in boxes.items():
        np.savetxt(folder / f"{name}.txt", rows, fmt="%.4f", delimiter=",")
        if fps:
            # The first frame's takes as long as a tracker's start may.
            seconds = [9.0] + [1 / fps] * (len(rows) - 1)
            np.savetxt(folder / "times" / f"{name}_time.txt", seconds, fmt="%.8f")
    return folder


def track(dataset: Gallery, drift: float, late: int = 0) -> dict[str, NDArray[np.float64]]:
    """Return boxes that drift away from frame ``late`` on."""
    found = {}
    for sequence in dataset:
        steps = np.clip(np.arange(len(sequence)) - late, 0, None)[:, None]
        found[sequence.name] = sequence.boxes + drift * steps * [1, 0, 0, 0]
    return found


class Page(HTMLParser):
    """A page's tables, images and outward references; refuses tags that are not closed in order."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.best: list[str] = []
        self.images: dict[str, tuple[str, bytes]] = {}
        self.outward: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._best = False
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "h2":
            self.tables[""] = []
        elif tag == "tr":
            self.tables[""].append([])
        elif tag in ("td", "th"):
            self.tables[""][-1].append("")
            self._best = given.get("class") == "best"
        elif tag == "img":
            kind, code = given.pop("src").split(";base64,")
            self.images[given["alt"]] = kind, base64.b64decode(code, validate=True)
        self.outward += [v for k, v in given.items() if k in ("src", "href", "srcset", "onload")]
        self.outward += [tag] if tag in ("script", "link", "iframe", "object") else []

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open[-1:] == ["h2"]:
            self.tables[data] = self.tables.pop("")
            self.tables[""] = self.tables[data]
        elif self._open[-1:] in (["td"], ["th"]):
            self.tables[""][-1][-1] += data
            self.best += [data] if self._best else []


def read_markdown(text: str) -> dict[str, list[list[str]]]:
    tables = {}
    for section in text.split("\n## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        cells = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
        rows = [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in cells]
        tables[section.splitlines()[0]] = [rows[0], *rows[2:]]
    return tables
