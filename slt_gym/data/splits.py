"""The parts of datasets that are for testing only."""

from __future__ import annotations

from slt_gym.errors import InvalidArgumentError, unknown


def check_test_only(name: str, split: str) -> None:
    """Refuse every split but ``"test"`` of a benchmark that is for testing only.

    Raises:
        InvalidArgumentError: ``split`` is another one; the message says how to train all the same.
    """
    if split == "train":
        raise InvalidArgumentError(
            f"{name} is a benchmark for testing and has no split 'train': split=\"test\" evaluates "
            f"on it, and train_on_test=True trains on it anyway"
        )
    if split != "test":
        raise unknown(f"split of {name}", split, ("test",))
