"""``slt-gym benchmark``: the table it prints and leaves, its exit codes, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slt_gym.cli import main
from slt_gym.cli.benchmark import Arguments, make_benchmark

VIDEO = {"width": 96, "height": 80, "num_frames": 5}
WORDS = [
    *("benchmark", "--seeds", "1", "--test-sequences", "3", "--val-sequences", "2"),
    *("--env-kwargs", json.dumps({"geometry": "transt-tiny", "dataset_options": VIDEO})),
    *("--jobs", "1"),
]


def test_prints_and_leaves_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [*WORDS, "--algorithms", "static", "random", "--output", str(out)]
    main(words)
    printed = capsys.readouterr().out
    table = (out / "table.md").read_text("utf-8")
    assert table in f"{printed}\n"
    assert [line.split(" | ")[0] for line in table.splitlines()[2:4]] == ["| static", "| random"]
    auc = json.loads((out / "jobs/static/seed-0/results.json").read_text())["auc"]
    assert f"static seed 0: AUC {100 * auc:.1f} %" in printed
    command = json.loads((out / "results.json").read_text())["command"]
    assert command.startswith("slt-gym benchmark --seeds 1")

    main(words)
    assert "2 of 2 jobs are done already" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main([*words, "--test-sequences", "2"])
    assert caught.value.code == 2
    assert "test_sequences 3, and this run has 2" in capsys.readouterr().err


def test_failed_job_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--algorithms", "static", "sb=stable_baselines3:A2C"]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--set", "sb.policy=NoPolicy", "--output", str(tmp_path / "out")])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert "sb seed 0: failed" in captured.out
    assert "1 of 2 jobs failed (sb seed 0)" in captured.err
    assert "static" in (tmp_path / "out/table.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--algorithms", "pppo"], "unknown algorithm 'pppo'"),
        (["--set", "ppo.learning_rate"], "algorithm.key=value"),
        (["--set", "ppo.nonsense=1"], "unknown setting of ppo 'nonsense'"),
        (["--seeds", "0"], "at least one"),
        (["--jobs", "0"], "processes is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--env", "CartPole-v1"], "no tracking environment"),
        (["--env-kwargs", "{"], "not JSON"),
        (["--train-kwargs", '{"num_frame": 3}'], "unexpected keyword argument 'num_frame'"),
        (["--test-split", "nonsense"], "nonsense"),
    ],
)
def test_wrong_input_ends_with_2_before_anything_is_trained(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [] if "--algorithms" in words else ["--algorithms", "ppo", "static"]
    with pytest.raises(SystemExit) as caught:
        main([*WORDS, *rows, "--output", str(tmp_path / "out"), *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_environments_have_no_synthetic_options() -> None:
    assert make_benchmark(Arguments(env="SLTTrack-OTB100-v0")).env_kwargs == {
        "geometry": "transt-tiny"
    }
    assert "dataset_options" in make_benchmark(Arguments()).env_kwargs
