"""``slt-gym evaluate``: every dataset's results and report, continuing, saved models, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import A2C

import slt_gym
from slt_gym.agents.policy_tracker import load_policy_tracker
from slt_gym.cli import main
from slt_gym.data import open_dataset
from slt_gym.data.samples import Source, write_sample
from slt_gym.envs import make_sb3_env
from slt_gym.evaluation import load_results
from slt_gym.evaluation.dataset_scoring import read_truths, score_dataset
from slt_gym.evaluation.protocols import find_rule
from slt_gym.evaluation.report.scores import main_score

FRAMES = 6
VIDEO = {"num_sequences": 3, "num_frames": FRAMES, "width": 96, "height": 80}
SYNTHETIC = ["--dataset-options", json.dumps(VIDEO), "--device", "cpu", "--workers", "1"]

Root = Callable[[str], Path]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Write two sequences in the layout of a dataset, once for all tests."""
    kept: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in kept:
            kept[name] = tmp_path_factory.mktemp("trees") / name
            write_sample(name, kept[name], Source(2, FRAMES, 96, 80, 1))
        return kept[name]

    return write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("dataset", "split"),
    [
        ("got10k", "val"),
        ("lasot", "test"),
        ("nfs", "test"),
        ("otb100", "test"),
        ("tnl2k", "test"),
        ("trackingnet", "train"),
        ("uav123", "test"),
        ("vot2018", "test"),
    ],
)
def test_every_benchmark_by_its_own_rule(
    dataset: str, split: str, root: Root, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["static", dataset, "--root", str(root(dataset)), "--split", split, "--clips", "1"]
    main(["evaluate", *words, "--workers", "1", "--no-progress-bar"])
    folder = Path("results") / f"{dataset}-{split}" / "static"
    opened = open_dataset(dataset, root(dataset), split)
    found = load_results(folder)
    assert sorted(found) == sorted(opened.names)
    for sequence in opened:
        np.testing.assert_allclose(
            found[sequence.name], np.tile(sequence.boxes[0], (FRAMES, 1)), atol=5.1e-5
        )
    rule = find_rule(dataset)
    data = json.loads((folder / "report" / "report.json").read_text("utf-8"))
    assert data["rule"] == rule
    scored = score_dataset(read_truths(opened, rule), found, rule)
    for key, value in scored.scores.items():
        np.testing.assert_array_equal(data["trackers"]["static"]["scores"][key], value)
    printed = capsys.readouterr()
    assert f"Scored on {dataset} {split} by the rule {rule!r}" in printed.out
    column = 2 if rule == "trackingnet" else 1  # Coverage is its first.
    row = next(line for line in printed.out.splitlines() if line.startswith("| static |"))
    assert row.split(" | ")[column] == f"{main_score(scored.overall):.1f}"
    assert f"report: {folder / 'report' / 'report.html'}" in printed.out
    assert (folder / "report" / "report.html").stat().st_size > 10_000
    assert printed.err == ""
    assert [path.name for path in here.iterdir()] == ["results"]


@pytest.mark.parametrize("dataset", ["got10k", "trackingnet"])
def test_hidden_ground_truth_is_tracked_and_left_to_the_server(
    dataset: str, root: Root, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", "static", dataset, "--root", str(root(dataset)), "--workers", "1"])
    folder = Path("results") / f"{dataset}-test" / "static"
    assert {len(boxes) for boxes in load_results(folder).values()} == {FRAMES}
    printed = capsys.readouterr().out
    assert f"not scored: the ground truth of {dataset} test is its server's" in printed
    assert f"slt-gym export {dataset} OUT.zip --results {folder}" in printed
    assert not (folder / "report").exists()


def test_procedural_video_and_a_network(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "transt-tiny", "synthetic", *SYNTHETIC, "--results", "out", "--name", "a"])
    folder = here / "out" / "synthetic-test" / "a"
    sequence = open_dataset("synthetic", split="test", **VIDEO)[1]
    tracker = slt_gym.create_tracker("transt-tiny", "pretrained")
    tracker.init(sequence.read(0), sequence.boxes[0])
    expected = [sequence.boxes[0], *(tracker.update(sequence.read(t)) for t in range(1, FRAMES))]
    np.testing.assert_allclose(load_results(folder)[sequence.name], expected, atol=0.01)
    config = json.loads((folder / "config.json").read_text())
    assert (config["tracker"]["name"], config["weights"]) == ("transt-tiny", "pretrained")
    assert config["dataset_options"] == VIDEO
    printed = capsys.readouterr()
    assert "| a |" in printed.out
    assert "tracking synthetic test: 100%" in printed.err
    assert "3/3 sequences" in printed.err


def test_the_same_command_continues(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "random-walk", "synthetic", *SYNTHETIC, "--clips", "0"]
    main(words)
    folder = here / "results" / "synthetic-test" / "random-walk"
    before = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    assert len(before) == 3
    gone, kept = sorted(before)[:2]
    (folder / gone).unlink()
    stamp = (folder / kept).stat().st_mtime_ns
    capsys.readouterr()
    main(words)
    assert {path.name: path.read_bytes() for path in folder.glob("*.txt")} == before
    assert (folder / kept).stat().st_mtime_ns == stamp
    assert "3/3 sequences" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*words, "--options", '{"step": 0.2}'])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "holds results with tracker options {}, and this run has {'step': 0.2}" in error


def test_a_part_of_the_sequences(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = open_dataset("synthetic", split="test", **VIDEO).names
    words = ["evaluate", "static", "synthetic", *SYNTHETIC, "--clips", "0", "--no-progress-bar"]
    main([*words, "--sequences", names[2], names[0]])
    folder = here / "results" / "synthetic-test" / "static"
    assert sorted(path.stem for path in folder.glob("*.txt")) == sorted([names[0], names[2]])
    assert "over 2 sequences" in (folder / "report" / "report.md").read_text()
    main(words)  # The rest.
    assert sorted(path.stem for path in folder.glob("*.txt")) == sorted(names)
    capsys.readouterr()
    main([*words, "--protocol", "got10k"])
    assert "by the rule 'got10k_otb'" in capsys.readouterr().out


def test_a_saved_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = make_sb3_env(
        "slt_gym:SLTTrack-Synthetic-v0",
        n_envs=1,
        geometry="transt-tiny",
        dataset_options=VIDEO,
        num_frames=None,
    )
    A2C("MultiInputPolicy", env, seed=1, device="cpu").save("walker.v2.zip")
    words = ["evaluate", "walker.v2.zip", "synthetic", *SYNTHETIC, "--clips", "0"]
    main([*words, "--algorithm", "A2C", "--geometry", "transt-tiny"])
    folder = here / "results" / "synthetic-test" / "walker.v2"
    sequence = open_dataset("synthetic", split="test", **VIDEO)[0]
    tracker = load_policy_tracker("walker.v2.zip", "A2C", "transt-tiny")
    tracker.init(sequence.read(0), sequence.boxes[0])
    expected = [sequence.boxes[0], *(tracker.update(sequence.read(t)) for t in range(1, FRAMES))]
    np.testing.assert_allclose(load_results(folder)[sequence.name], expected, atol=0.01)
    capsys.readouterr()
    # The same file under another path is the same tracker, another model of its name is not.
    (here / "moved").mkdir()
    Path("walker.v2.zip").rename("moved/walker.v2.zip")
    words[1] = "moved/walker.v2.zip"
    main([*words, "--algorithm", "A2C", "--geometry", "transt-tiny"])
    A2C("MultiInputPolicy", env, seed=2, device="cpu").save("moved/walker.v2.zip")
    with pytest.raises(SystemExit):
        main([*words, "--algorithm", "A2C", "--geometry", "transt-tiny"])
    assert "holds results with tracker sha256 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statik", "synthetic"], "unknown tracker 'statik'"),
        (["static", "synthetik"], "unknown dataset 'synthetik'"),
        (["static", "synthetic", "--protocol", "otb"], "unknown protocol 'otb'"),
        (["static", "synthetic", "--split", "tset"], "unknown split of synthetic video 'tset'"),
        (["static", "synthetic", "--clips", "-1"], "--clips is -1"),
        (["static", "synthetic", "--workers", "0"], "workers is 0"),
        (["static", "synthetic", "--sequences", "nothing"], "sequence of synthetic test 'nothing'"),
        (["static", "synthetic", "--weights", "w.pth"], "static has no weights"),
        (["static", "synthetic", "--options", "{"], "--options '{' is not JSON"),
        (["static", "synthetic", "--options", '{"speed": 1}'], "static has no options"),
        (["static", "synthetic", "--geometry", "transt"], "was given with geometry or action, but"),
        (["static", "synthetic", "--device", "tpu"], "unknown device 'tpu'"),
        (["transt", "synthetic"], "no weights of 'transt' ship with the package"),
        (["transt", "synthetic", "--weights", "none.pth"], "none.pth"),
        (["opencv-nano", "synthetic"], "needs the ONNX files of NanoTrack"),
        (["none.zip", "synthetic", "--algorithm", "PPO"], "there is no model none.zip"),
        (
            ["a.zip", "synthetic", "--algorithm", "PPO", "--weights", "w.pth"],
            "a.zip is a saved model of PPO: it takes neither weights nor options",
        ),
        (["static", "got10k", "--root", "nowhere"], "root='nowhere' is not a folder"),
    ],
)
def test_wrong_input_leaves_nothing(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *words, "--no-progress-bar"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    # What a dataset's folder should look like takes more lines.
    assert error.count("\n") == 1 or error.splitlines()[0].endswith("it should look like")
    assert not list(here.iterdir())
