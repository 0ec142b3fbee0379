"""Synthetic video: procedural sequences with exact boxes and difficulty knobs."""

from slt_gym.data.synthetic.config import SyntheticConfig
from slt_gym.data.synthetic.dataset import SyntheticDataset, SyntheticSequence

__all__ = ["SyntheticConfig", "SyntheticDataset", "SyntheticSequence"]
