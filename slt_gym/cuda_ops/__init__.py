"""Operators with their GPU kernels (PyTorch); TransT, the only tracker so far, needs none."""

__all__: list[str] = []
