"""What all rows of a benchmark's table share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from slt_gym.errors import InvalidArgumentError

SYNTHETIC = "SLTTrack-Synthetic-v0"
# Small frames, so that an environment step costs about two milliseconds.
SMALL_VIDEO = {"width": 160, "height": 120, "num_frames": 48}


@dataclass(frozen=True)
class Benchmark:
    """The environment, the budget and the test, the same for every algorithm.

    Attributes:
        env_id: The environment.
        env_kwargs: Its arguments in training and test; the geometry among them.
        train_kwargs: Its further arguments in training.
        steps: Environment steps that each algorithm may take in training, those of all tracks; one
            that takes them in larger portions ends with the portion that reaches them.
        evaluations: Points of the learning curve after the untrained policy's, evenly spaced.
        val_split: Where the learning curve's sequences come from.
        val_sequences: How many, from the first one on.
        test_split: Where the final test's sequences come from.
        test_sequences: How many, from the first one on.
        parallel: Sequences that are tested side by side.
        device: Where networks run.
    """

    env_id: str = SYNTHETIC
    env_kwargs: dict[str, Any] = field(
        default_factory=lambda: {"geometry": "transt-tiny", "dataset_options": dict(SMALL_VIDEO)}
    )
    train_kwargs: dict[str, Any] = field(
        default_factory=lambda: {"num_frames": 16, "lost_after": 3}
    )
    steps: int = 20_000
    evaluations: int = 5
    val_split: str = "val"
    val_sequences: int = 16
    test_split: str = "test"
    test_sequences: int = 80
    parallel: int = 20
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("steps", "evaluations", "val_sequences", "test_sequences", "parallel"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidArgumentError(
                    f"{name} is {value!r}: accepted are whole numbers from 1 up"
                )
        for kwargs in (self.env_kwargs, self.train_kwargs):
            for key in ("split", "action", "action_options", "reward"):
                if key in kwargs:
                    raise InvalidArgumentError(
                        f"the benchmark's environment is given {key}={kwargs[key]!r}: splits are "
                        "the benchmark's own settings; actions and rewards are an algorithm's"
                    )

    @property
    def geometry(self) -> str:
        """Name of the crops' geometry."""
        return str(self.env_kwargs.get("geometry", "transt"))

    def evaluation_steps(self) -> list[int]:
        """Return the points of the learning curve after the first one, environment steps."""
        return [round(self.steps * (i + 1) / self.evaluations) for i in range(self.evaluations)]

    def describe(self) -> dict[str, Any]:
        """Return what results depend on, as JSON values."""
        return dataclasses.asdict(self)
