"""When kernels serve, and the silent fallback where they cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from slt_gym.cuda_ops import deform_roi_pool, dispatch, prroi_pool

ROIS = torch.tensor([[0.0, 1.3, 2.1, 5.2, 6.4], [1.0, -2.2, 0.4, 3.1, 9.0]])
POOLS: dict[str, Callable[..., Tensor]] = {
    "deform_roi_pool": lambda features, offset: deform_roi_pool(
        features, ROIS, offset, output_size=2, spatial_scale=1.0
    ),
    "prroi_pool": lambda features, rois: prroi_pool(features, rois, 2, 1.0),
}


def make_inputs(name: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 8, 7, generator=generator).to(dtype).requires_grad_()
    if name == "prroi_pool":
        return [features, ROIS.clone().requires_grad_()]
    return [features, torch.randn(2, 2, 2, 2, generator=generator).requires_grad_()]


def differentiate(name: str, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    pooled = POOLS[name](*inputs)
    return pooled.detach(), *torch.autograd.grad(pooled.square().sum(), inputs)


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Take CPU tensors for those of a GPU; return the names of operators that gave up."""
    names: set[str] = set()
    monkeypatch.setattr(dispatch, "_failed", names)
    monkeypatch.setattr(dispatch, "KERNEL_DEVICES", ("cpu",))
    return names


def expect_plain(name: str, recwarn: pytest.WarningsRecorder) -> None:
    """Compare with the plain form, and make sure that nothing is said."""
    found = differentiate(name, make_inputs(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "KERNEL_DEVICES", ())
        expected = differentiate(name, make_inputs(name))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not recwarn.list


@pytest.mark.parametrize("name", POOLS)
def test_without_triton_the_plain_form_serves(
    name: str,
    failed: set[str],
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delitem(sys.modules, f"slt_gym.cuda_ops.kernels.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # what importing it meets
    expect_plain(name, recwarn)
    assert failed == {name}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", POOLS)
def test_where_kernels_cannot_run_the_plain_form_serves(
    name: str, failed: set[str], recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("triton")
    expect_plain(name, recwarn)  # compiled kernels refuse a CPU's tensors
    assert failed == {name}


@pytest.mark.parametrize("name", POOLS)
def test_a_failure_is_not_tried_again(
    name: str, failed: set[str], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    tried = []

    def compile_(*args: Any, **settings: Any) -> Tensor:
        tried.append(name)
        raise RuntimeError("PTXAS error")

    monkeypatch.setattr(dispatch, "_load", lambda _: SimpleNamespace(forward=compile_))
    expect_plain(name, recwarn)
    expect_plain(name, recwarn)
    assert tried == [name]
    assert failed == {name}


@pytest.mark.parametrize("name", POOLS)
def test_a_failure_of_the_backward_pass_alone(
    name: str, failed: set[str], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def compile_(*args: Any, **settings: Any) -> Tensor:
        raise RuntimeError("PTXAS error")

    plain = sys.modules[f"slt_gym.cuda_ops.{name}"]._pool
    kernels = SimpleNamespace(forward=plain, backward=compile_)
    monkeypatch.setattr(dispatch, "_load", lambda _: kernels)
    expect_plain(name, recwarn)
    assert failed == {name}


@pytest.mark.parametrize("name", POOLS)
def test_lack_of_memory_is_no_reason_to_give_up(
    name: str, failed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*args: Any, **settings: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(dispatch, "_load", lambda _: SimpleNamespace(forward=allocate))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        POOLS[name](*make_inputs(name))
    assert not failed


def count_uses(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Replace the kernels by the plain form, and note when they are used."""
    used = []
    plain = sys.modules[f"slt_gym.cuda_ops.{name}"]._pool

    def forward(*args: Any, **settings: Any) -> Tensor:
        used.append(name)
        return plain(*args, **settings)

    monkeypatch.setattr(dispatch, "_load", lambda _: SimpleNamespace(forward=forward))
    return used


@pytest.mark.parametrize("name", POOLS)
def test_double_precision_takes_the_plain_form(
    name: str, failed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = count_uses(monkeypatch, name)
    features, other = make_inputs(name)
    for inputs in ((features.double(), other.double()), (features, other.double())):
        POOLS[name](*inputs)
    assert not used
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        POOLS[name](*make_inputs(name, dtype))
    assert len(used) == 3
    assert not failed


@pytest.mark.parametrize("name", POOLS)
def test_deterministic_algorithms_leave_the_atomic_kernel_out(
    name: str, failed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = count_uses(monkeypatch, name)
    torch.use_deterministic_algorithms(True)
    try:
        POOLS[name](*make_inputs(name))
    finally:
        torch.use_deterministic_algorithms(False)
    assert used == ([] if name == "deform_roi_pool" else [name])
    assert not failed


def test_a_cpu_never_imports_the_kernels() -> None:
    code = (
        "import sys, torch; from slt_gym.cuda_ops import deform_roi_pool, prroi_pool;"
        "f = torch.ones(1, 1, 4, 4, requires_grad=True); r = torch.tensor([[0., 1, 1, 3, 3]]);"
        "(prroi_pool(f, r, 2, 1.0) + deform_roi_pool(f, r, output_size=2, spatial_scale=1.0))"
        ".sum().backward(); print('slt_gym.cuda_ops.kernels' in sys.modules)"
    )
    root = Path(dispatch.__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
