"""The kernels compile to machine code for GPUs, which needs none."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs Triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)

TYPES = {
    **dict.fromkeys(("batch", "height", "width", "channels", "first_ptr"), "i32"),
    **dict.fromkeys(("scale", "offset_scale", "boxes_ptr", "rois_ptr", "offset_ptr"), "fp32"),
    **dict.fromkeys(("to_features_ptr", "partial_ptr"), "fp32"),
    "image_ptr": "i64",
}
BOX = {"BINS": 5, "CELLS": 8, "BLOCK": 64}
REGION = {"MOVED": True, "BINS": 16, "SAMPLES": 4, "LANES": 4, "BLOCK": 128}
KERNELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "prroi": ("prroi_pool", "_forward", BOX),
    "prroi to boxes": ("prroi_pool", "_backward_boxes", BOX),
    "prroi to features": ("prroi_pool", "_backward_features", {"BINS": 3, "BLOCK": 64}),
    "deform": ("deform_roi_pool", "_forward", REGION),
    "deform unmoved": ("deform_roi_pool", "_forward", {**REGION, "MOVED": False, "BINS": 4}),
    "deform to both": (
        "deform_roi_pool",
        "_backward",
        {**REGION, "TO_FEATURES": True, "TO_OFFSET": True},
    ),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "ones"])
def test_compiles_for_a_gpu(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module, function, constants = KERNELS[name]
    kernel = getattr(importlib.import_module(f"slt_gym.cuda_ops.kernels.{module}"), function)
    constants = dict(constants)
    types = dict(TYPES)
    if dtype == "ones":  # Triton makes constants of whole numbers that are 1
        sizes = ("batch", "height", "width", "channels")
        constants |= dict.fromkeys((s for s in sizes if s in kernel.arg_names), 1)
        constants["BINS"] = 1
        dtype = "fp32"
    types |= dict.fromkeys(("features_ptr", "out_ptr", "grad_ptr"), dtype)
    signature = {
        argument: "constexpr"
        if argument in constants
        else ("*" if argument.endswith("_ptr") else "") + types[argument]
        for argument in kernel.arg_names
    }
    compiled = triton.compile(
        ASTSource(kernel, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", 80, 32),
        options={"enable_fp_fusion": False},
    )
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared <= 48 * 1024  # what any GPU has
