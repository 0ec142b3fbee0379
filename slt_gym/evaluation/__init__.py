"""Metrics, tracking of whole splits, and the comparison of trackers on held-out sequences.

Importing this package is light; its modules that track import PyTorch.
"""
