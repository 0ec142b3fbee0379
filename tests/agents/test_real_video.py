"""Every tracker at its published size, from the first to the last line, on real video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slt_gym.agents import create_tracker
from slt_gym.data import open_dataset
from slt_gym.geometry import is_valid

FRAMES = 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["siamattn", "siamrpnpp", "transt", "trdimp"])
def test_four_real_sequences(
    name: str, real_sequences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tracker = create_tracker(name)
    owner, method = tracker.network, "encode"  # type: ignore[attr-defined]
    if name == "trdimp":
        owner, method = owner.classifier, "learn_filter"
    encode, encoded = getattr(owner, method), []

    def count(*args: Any) -> Any:
        encoded.append(name)
        return encode(*args)

    monkeypatch.setattr(owner, method, count)
    dataset = open_dataset("folder", root=str(real_sequences))
    assert len(dataset) == 4
    for number in range(4):
        sequence = dataset[number]
        tracker.init(sequence.read(0), sequence.boxes[0])
        boxes = np.stack([tracker.update(sequence.read(t)) for t in range(1, FRAMES)])
        height, width = sequence.read(0).shape[:2]
        assert is_valid(boxes).all()
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        assert (centres >= 0).all()
        assert (centres <= (width, height)).all()
        assert (boxes[:, 2:] <= (width, height)).all()
        # The template is encoded once in a sequence, however many frames follow.
        assert len(encoded) == number + 1
