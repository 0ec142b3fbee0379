"""Triton kernels, one operator a file: imported when a tensor on a GPU asks for them.

Each file has ``forward(*tensors, **settings)`` and ``backward(grad, needed, *tensors,
**settings)``; :func:`slt_gym.cuda_ops.dispatch.run` calls them. Features are read channels last, so
that neighbouring threads read neighbouring channels; sums are float32; offsets into large maps are
64-bit. Triton's interpreter cannot spread a single truth value over a block: the masks compare with
a limit that depends on it.
"""
