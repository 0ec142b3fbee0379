"""Small datasets of synthetic video in the layouts of real ones."""

from slt_gym.data.samples.table import count_images, list_samples, write_sample
from slt_gym.data.samples.writing import Source, Written

__all__ = ["Source", "Written", "count_images", "list_samples", "write_sample"]
