"""The test part of a dataset, to train on."""

from __future__ import annotations

from slt_gym.data.sequence import Sequence, SequenceDataset


class RelabelledDataset(SequenceDataset):
    """A dataset's sequences under the name of another split.

    Args:
        dataset: Where the sequences are.
        split: What they count as.
    """

    def __init__(self, dataset: SequenceDataset, split: str) -> None:
        super().__init__(dataset.name, split, dataset.names)
        self._dataset = dataset

    @property
    def parts(self) -> tuple[tuple[float, range], ...]:
        """Shares of training draws, and the sequences among which each is drawn uniformly."""
        return self._dataset.parts

    def _load(self, index: int) -> Sequence:
        """Return sequence ``index``."""
        return self._dataset[index]
