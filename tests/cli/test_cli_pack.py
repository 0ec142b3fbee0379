"""``slt-gym pack``: packs it makes, verifies, resumes and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slt_gym.cli import main, pack
from slt_gym.data import open_dataset
from slt_gym.data.pack.manifest import UNFINISHED, read_manifest


def write_folder(root: Path, sequences: int = 4, frames: int = 5, size: int = 900) -> Path:
    """Write sequences whose frames are no images, for a pack holds whatever the files hold."""
    rng = np.random.default_rng(0)
    for i in range(sequences):
        (root / f"s-{i}" / "img").mkdir(parents=True)
        for t in range(frames):
            (root / f"s-{i}" / "img" / f"{t}.jpg").write_bytes(rng.bytes(size))
        (root / f"s-{i}" / "groundtruth.txt").write_text("1,2,3,4\n" * frames)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


def fail(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["pack", *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_packs_and_verifies(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "pack"
    words = ["pack", "folder", str(root), str(out), "--splits", "test", "--shard-size", "0.005"]
    main([*words, "--workers", "2"])
    printed = capsys.readouterr()
    assert printed.out.startswith(f"the pack {out} (folder, split test: 4 sequences, 20 frames, 4 ")
    assert "packing folder: 100%" in printed.err
    assert "frame/s" in printed.err
    packed, plain = (open_dataset("folder", place, "test") for place in (out, root))
    for sequence, expected in zip(packed, plain, strict=True):
        np.testing.assert_array_equal(sequence.boxes, expected.boxes)
        for t in range(5):
            assert sequence.read_encoded(t) == expected.read_encoded(t)  # type: ignore[attr-defined]
    main(["pack", "--verify", str(out)])
    printed = capsys.readouterr()
    assert printed.out.endswith("is whole\n")
    assert "verifying: 100%" in printed.err
    main(words)
    assert "is complete already; --verify looks for damage" in capsys.readouterr().out


def test_damage_is_named_and_exits_with_1(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    main(["pack", "folder", str(root), str(out), "--splits", "test", "--no-progress-bar"])
    frame = (root / "s-2" / "img" / "3.jpg").read_bytes()
    shard = out / "shard-00000.lmdb"
    shard.write_bytes(shard.read_bytes().replace(frame[:100], frame[:99] + b"!"))
    capsys.readouterr()
    assert fail("--verify", str(out), "--no-progress-bar") == 1
    printed = capsys.readouterr()
    assert printed.out == f"{out}, shard-00000.lmdb: frame 3 of sequence 's-2' is damaged\n"
    assert (
        printed.err == f"error: the pack {out} is damaged: remove it and pack the dataset again\n"
    )
    (out / "pack.json").write_text("{")
    assert fail("--verify", str(out)) == 1


def test_much_damage_is_cut_short(
    root: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    main(["pack", "folder", str(root), str(out), "--no-progress-bar"])
    monkeypatch.setattr(pack, "verify_pack", lambda *_: [f"frame {i}" for i in range(33)])
    capsys.readouterr()
    assert fail("--verify", str(out), "--no-progress-bar") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 13 more"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected are `slt-gym pack DATASET ROOT OUT`, or"),
        (["folder", "{root}"], "expected are `slt-gym pack DATASET ROOT OUT`, or"),
        (["--verify", "{tmp}/pack", "folder"], "--verify takes the pack alone, but 'folder'"),
        (["--verify", "{tmp}/pack"], "there is no pack at {tmp}/pack: it has no pack.json"),
        (["foldr", "{root}", "{tmp}/pack"], "did you mean 'folder'?"),
        (["synthetic", "{root}", "{tmp}/pack"], "synthetic cannot be packed"),
        (["folder", "{tmp}/nowhere", "{tmp}/pack"], "is not a folder"),
        (["lasot", "{root}", "{tmp}/pack"], "cannot divide lasot"),
        (["folder", "{root}", "{root}/pack"], "lies in the dataset's folder"),
        (["folder", "{root}", "{tmp}"], "holds something else than a pack, such as 'data'"),
        (["folder", "{root}", "{tmp}/pack", "--splits", "dev"], "unknown split of folder 'dev'"),
        (["folder", "{root}", "{tmp}/pack", "--workers", "0"], "it must be at least 1"),
        (["folder", "{root}", "{tmp}/pack", "--shard-size", "0"], "it must be above 0"),
        (["folder", "{root}", "{tmp}/pack", "--dataset-options", "["], "is not JSON"),
        (
            ["lasot", "{root}", "{tmp}/pack", "--dataset-options", '{"split": "test"}'],
            "takes no option 'split'",
        ),
    ],
)
def test_wrong_input_leaves_nothing(
    words: list[str],
    message: str,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"root": str(root), "tmp": str(tmp_path)}

    def fill(text: str) -> str:
        return text.replace("{root}", places["root"]).replace("{tmp}", places["tmp"])

    assert fail(*map(fill, words), "--no-progress-bar") == 2
    assert fill(message) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_another_pack_is_kept(root: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "pack")
    main(["pack", "folder", str(root), out, "--splits", "test", "--no-progress-bar"])
    before = (tmp_path / "pack" / "pack.json").read_bytes()
    assert fail("folder", str(root), out, "--splits", "train", "--no-progress-bar") == 2
    assert "holds a pack with splits ['test'], not ['train']" in capsys.readouterr().err
    assert (tmp_path / "pack" / "pack.json").read_bytes() == before


def test_a_failure_keeps_what_is_finished(root: Path, tmp_path: Path, capsys) -> None:
    words = ["folder", str(root), str(tmp_path / "pack"), "--splits", "test"]
    words += ["--shard-size", "0.005", "--workers", "1", "--no-progress-bar"]
    broken = root / "s-3" / "img" / "3.jpg"
    content = broken.read_bytes()
    broken.unlink()
    broken.mkdir()  # Listed, but not readable.
    assert fail(*words) == 2
    error = capsys.readouterr().err
    assert "3 of 4 shards are finished: the same command goes on there\n" in error
    assert "error: cannot read frame 3 of 's-3'" in error
    broken.rmdir()
    broken.write_bytes(content)
    main(["pack", *words])
    assert len(read_manifest(tmp_path / "pack").shards) == 4
    assert not (tmp_path / "pack" / UNFINISHED).exists()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", sequences=40, frames=200, size=6000)
    out = tmp_path / "pack"
    command = [sys.executable, "-m", "slt_gym.cli", "pack", "folder", str(root), str(out)]
    command += ["--splits", "test", "--shard-size", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob("*.lmdb")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "shards are finished: the same command goes on there\nerror: interrupted\n" in error
    assert (out / UNFINISHED).is_dir()
    assert not (out / "pack.json").exists()
