"""``slt-gym trax``: the official vot-toolkit runs our trackers (where it is installed)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import slt_gym
from slt_gym.agents import Tracker
from slt_gym.cli import main
from slt_gym.cli.trax import serve
from slt_gym.data import open_dataset
from slt_gym.errors import FrameError

WORKSPACE = Path(__file__).resolve().parents[2] / "examples" / "vot_workspace"


def write_sequence(folder: Path, frames: int = 12) -> np.ndarray:
    """Write a sequence of synthetic video as VOT keeps them; return its boxes."""
    source = open_dataset("synthetic", split="test", num_frames=frames, width=160, height=120)[0]
    (folder / "color").mkdir(parents=True)
    for t in range(frames):
        frame = cv2.cvtColor(source.read(t), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "color" / f"{t + 1:08d}.jpg"), frame)
    np.savetxt(folder / "groundtruth.txt", source.boxes, fmt="%.4f", delimiter=",")
    (folder / "sequence").write_text(
        "channels.color=color/%08d.jpg\nfps=30\nformat=default\nname=moving\n"
    )
    (folder.parent / "list.txt").write_text(f"{folder.name}\n")
    return source.boxes


class FakeTrax:
    """The part of the package trax that the command uses, with requests from a list."""

    Region = SimpleNamespace(RECTANGLE="rectangle")
    Image = SimpleNamespace(PATH="path", BUFFER="buffer", MEMORY="memory")

    def __init__(self, requests: list[Any]) -> None:
        self.requests = iter(requests)
        self.answers: list[Any] = []
        self.Rectangle = SimpleNamespace(create=lambda *box: box)

    def Server(self, regions: list[str], images: list[str], *_: Any, **__: Any) -> FakeTrax:  # noqa: N802
        assert regions == ["rectangle"]
        assert set(images) == {"path", "buffer", "memory"}
        return self

    def __enter__(self) -> FakeTrax:
        return self

    def __exit__(self, *_: object) -> None: ...

    def wait(self) -> Any:
        return next(self.requests)

    def status(self, objects: list[Any]) -> None:
        self.answers.append(objects)


def ask(kind: str, image: Any, box: list[float] | None = None) -> Any:
    objects = [] if box is None else [(SimpleNamespace(bounds=lambda: box), {})]
    return SimpleNamespace(type=kind, image={"color": image}, objects=objects)


def make_images(frame: np.ndarray, path: Path) -> Iterator[Any]:
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1])
    yield SimpleNamespace(type=lambda: "path", path=lambda: str(path))
    yield SimpleNamespace(type=lambda: "buffer", buffer=path.read_bytes)
    yield SimpleNamespace(type=lambda: "memory", array=lambda: frame)


def test_every_kind_of_image_gives_the_same_answer(tmp_path: Path) -> None:
    source = open_dataset("synthetic", split="test", num_frames=4, width=160, height=120)[0]
    tracker = slt_gym.create_tracker("transt-tiny", "pretrained")
    start = source.boxes[0].tolist()
    tracker.init(source.read(0), start)
    expected = tracker.update(source.read(1))
    first = list(make_images(source.read(0), tmp_path / "0.png"))
    second = list(make_images(source.read(1), tmp_path / "1.png"))
    requests = []
    for a, b in zip(first, second, strict=True):
        requests += [ask("initialize", a, start), ask("frame", b)]
    client = FakeTrax([*requests, SimpleNamespace(type="quit")])
    serve(tracker, client)
    assert len(client.answers) == 6
    for initial, answer in zip(client.answers[::2], client.answers[1::2], strict=True):
        np.testing.assert_array_equal(initial[0][0], start)
        np.testing.assert_array_equal(answer[0][0], expected)
        assert 0 <= float(answer[0][1]["confidence"]) <= 1
    missing = SimpleNamespace(type=lambda: "path", path=lambda: str(tmp_path / "9.png"))
    with pytest.raises(FrameError, match=r"cannot read .*9\.png: No such file"):
        serve(tracker, FakeTrax([ask("initialize", missing, start)]))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "trax", None)
    with pytest.raises(SystemExit) as caught:
        main(["trax", "static"])
    assert caught.value.code == 2
    assert 'pip install "slt-gym[vot]"' in capsys.readouterr().err


def test_a_network_gets_the_weights_that_ship_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_dataset("synthetic", split="test", num_frames=2, width=160, height=120)[0]
    expected = slt_gym.create_tracker("transt-tiny", "pretrained")
    expected.init(source.read(0), source.boxes[0])
    answers = []

    def follow(tracker: Tracker, trax: Any) -> None:
        tracker.init(source.read(0), source.boxes[0])
        answers.append(tracker.update(source.read(1)))

    monkeypatch.setitem(sys.modules, "trax", SimpleNamespace())
    monkeypatch.setattr("slt_gym.cli.trax.serve", follow)
    main(["trax", "transt-tiny", "--device", "cpu"])
    np.testing.assert_array_equal(answers, [expected.update(source.read(1))])


def test_wrong_input(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "trax", SimpleNamespace())
    for word, message in (("transt", "no weights of 'transt' ship"), ("kcf", "unknown tracker")):
        with pytest.raises(SystemExit) as caught:
            main(["trax", word])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_official_toolkit_gets_our_boxes(tmp_path: Path) -> None:
    pytest.importorskip("vot", reason="needs vot-toolkit: pip install -e '.[vot]'")
    from vot.region.io import read_trajectory

    for name in ("config.yaml", "stack.yaml", "trackers.ini"):
        text = (WORKSPACE / name).read_text("utf-8")
        if name == "trackers.ini":
            assert "command = slt-gym trax" in text
            text = text.replace("slt-gym trax", f"{sys.executable} -m slt_gym.cli trax")
        (tmp_path / name).write_text(text)
    write_sequence(tmp_path / "sequences" / "moving")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "vot", "evaluate", "--workspace", str(tmp_path), "transt-tiny"],
        check=True,
        capture_output=True,
        env=environment,
        timeout=300,
    )
    (file,) = (tmp_path / "results").rglob("moving_001.bin")
    regions = read_trajectory(str(file))
    theirs = np.array([(r.x, r.y, r.width, r.height) for r in regions[1:]])
    sequence = open_dataset("vot2018", tmp_path / "sequences", split="test")[0]
    tracker = slt_gym.create_tracker("transt-tiny", "pretrained")
    tracker.init(sequence.read(0), sequence.boxes[0])
    ours = np.array([tracker.update(sequence.read(t)) for t in range(1, len(sequence))])
    assert len(theirs) == 11
    np.testing.assert_allclose(theirs, ours, atol=1e-2)  # TraX sends two decimals or float32
