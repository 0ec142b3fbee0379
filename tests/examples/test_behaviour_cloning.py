"""The example of behaviour cloning runs from the recording to the scores."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "behaviour_cloning.py"


@pytest.mark.slow
def test_it_records_clones_and_corrects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    minari = pytest.importorskip("minari", reason='needs Minari: pip install "slt-gym[offline]"')
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    spec = importlib.util.spec_from_file_location("behaviour_cloning", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, example)
    spec.loader.exec_module(example)
    config = example.Config(
        episodes=4,
        epochs=2,
        corrected_steps=32,
        frames=4,
        size=(128, 96),
        n_envs=2,
        test_sequences=3,
        device="cpu",
    )
    scores = example.main(config)
    assert list(scores) == ["static", "oracle", "untrained", "cloned", "cloned, then corrected"]
    assert scores["oracle"] > 0.9 > scores["static"] > 0
    assert all(0 <= score <= 1 for score in scores.values())
    (dataset_id,) = minari.list_local_datasets()
    assert f"{dataset_id}: 12 steps" in capsys.readouterr().out
    assert example.main(config) == scores  # from the recording that is there
