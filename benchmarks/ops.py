"""Time the forms of the operators in `slt_gym.cuda_ops` against each other, forward and backward.

Each table's first row is the reference of its ratios (seconds of the reference over its own: higher
is faster), and all rows must give the same results and gradients, within the rounding of float32:

- depth-wise correlation at the sizes of SiamRPN++ (256 channels, kernel 5 x 5 on 29 x 29; with one
  track and with several): one grouped convolution, the same with channels last, an einsum over
  windows, a sum of shifted products;
- deformable convolution of SiamAttn's enhancement: torchvision's operator, the library's;
- PrRoI pooling of TrDiMP's overlap prediction and filter: a loop over boxes and bins, PyTorch's
  own calls, and on a GPU the Triton kernel;
- deformable RoI pooling of SiamAttn's boxes and masks: a loop over regions, else the same.

Shows the median over the rounds of the milliseconds, the forms taking turns: on a GPU of the clock,
on a CPU those of the process, with as many threads as OMP_NUM_THREADS says (1 if it is not set).
The kernels' rows say so where they failed.

    python benchmarks/ops.py
    python benchmarks/ops.py --device cuda --batch 1 8 32 --rounds 50 --json ops.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from slt_gym.cuda_ops import deform_conv2d, deform_roi_pool, depthwise_xcorr, dispatch, prroi_pool

Form = Callable[..., Tensor]


@dataclass
class Table:
    """Forms of one operator on one input.

    Attributes:
        name: What is timed.
        inputs: Tensors that the forms take; those that require gradients are differentiated.
        forms: By name, the reference first.
    """

    name: str
    inputs: list[Tensor]
    forms: dict[str, Form] = field(default_factory=dict)


def correlate_channels_last(search: Tensor, kernel: Tensor) -> Tensor:
    """Correlate by one grouped convolution whose maps lie in memory channels last."""
    batch, channels = kernel.shape[:2]
    last = torch.channels_last
    maps = search.reshape(1, batch * channels, *search.shape[2:]).contiguous(memory_format=last)
    weight = kernel.reshape(batch * channels, 1, *kernel.shape[2:]).contiguous(memory_format=last)
    out = F.conv2d(maps, weight, groups=batch * channels)
    return out.reshape(batch, channels, *out.shape[2:])


def correlate_windows(search: Tensor, kernel: Tensor) -> Tensor:
    """Correlate by an einsum over all windows."""
    windows = search.unfold(2, kernel.shape[2], 1).unfold(3, kernel.shape[3], 1)
    return torch.einsum("bchwij,bcij->bchw", windows, kernel)


def correlate_shifts(search: Tensor, kernel: Tensor) -> Tensor:
    """Correlate by a sum of products of shifted maps."""
    height = search.shape[2] - kernel.shape[2] + 1
    width = search.shape[3] - kernel.shape[3] + 1
    total = torch.zeros((), device=search.device)
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            shifted = search[:, :, i : i + height, j : j + width]
            total = total + shifted * kernel[:, :, i, j, None, None]
    return total


def pool_box_by_box(features: Tensor, rois: Tensor, bins: int, scale: float) -> Tensor:
    """Pool precisely in a loop over boxes and bins, with the integrals of the cells' hats."""
    height, width = features.shape[2:]

    def shares(low: Tensor, high: Tensor, cells: int) -> Tensor:
        """Integrate each cell's hat over ``[low, high]``, over its length."""

        def antiderivative(t: Tensor) -> Tensor:
            t = t.clamp(-1, 1)
            return torch.where(t < 0, (t + 1).square() / 2, 1 - (1 - t).square() / 2)

        cell = torch.arange(cells, device=low.device)
        return (antiderivative(high - cell) - antiderivative(low - cell)) / (high - low)

    images = []
    for maps, boxes in zip(features, rois * scale, strict=True):
        pooled = []
        for x1, y1, x2, y2 in boxes:
            across, down = (x2 - x1) / bins, (y2 - y1) / bins
            for i in range(bins):
                rows = shares(y1 + i * down, y1 + (i + 1) * down, height)
                for j in range(bins):
                    columns = shares(x1 + j * across, x1 + (j + 1) * across, width)
                    pooled.append(torch.einsum("chw,h,w->c", maps, rows, columns))
        shape = (len(boxes), bins, bins, maps.shape[0])
        images.append(torch.stack(pooled).reshape(shape).permute(0, 3, 1, 2))
    return torch.stack(images)


def pool_region_by_region(
    features: Tensor, rois: Tensor, offset: Tensor, bins: int, scale: float
) -> Tensor:
    """Pool in a loop over regions, reading each sample's four neighbours."""
    samples, height, width = 4, *features.shape[2:]

    def place(low: Tensor, high: Tensor, moved: Tensor, number: Tensor) -> Tensor:
        """Return the samples' coordinates along one axis, shape ``(P, P, S)``."""
        corner = low.round() * scale - 0.5
        size = ((high.round() + 1) * scale - 0.5 - corner).clamp(min=0.1)
        step = size / bins
        start = number * step + corner + 0.1 * moved * size
        return start[..., None] + step / samples * torch.arange(samples, device=low.device)

    number = torch.arange(bins, device=rois.device)
    pooled = []
    for (image, x1, y1, x2, y2), moved in zip(rois, offset, strict=True):
        x = place(x1, x2, moved[0], number[None, :])[..., None, :]  # (P, P, 1, S)
        y = place(y1, y2, moved[1], number[:, None])[..., :, None]  # (P, P, S, 1)
        kept = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        maps, value = features[image.long()], torch.zeros((), device=x.device)
        for row, down in ((y.floor(), 1 - y % 1), (y.ceil(), y % 1)):
            for column, along in ((x.floor(), 1 - x % 1), (x.ceil(), x % 1)):
                value = value + maps[:, row.long(), column.long()] * (down * along)
        count = kept.sum((-2, -1)).clamp(min=1)
        pooled.append((value * kept).sum((-2, -1)) / count)
    return torch.stack(pooled)


@contextmanager
def kernels(used: bool) -> Any:
    """Let Triton kernels serve a GPU's tensors, or not."""
    before = dispatch.KERNEL_DEVICES
    dispatch.KERNEL_DEVICES = ("cuda",) if used else ()
    try:
        yield
    finally:
        dispatch.KERNEL_DEVICES = before


def with_kernels(used: bool, form: Form) -> Form:
    """Return a form that takes the Triton kernels, or leaves them."""

    def run(*tensors: Tensor) -> Tensor:
        with kernels(used):
            return form(*tensors)

    return run


def make_tables(batch: int, device: torch.device) -> list[Table]:
    """Make the inputs of all operators for that many tracks."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).to(device)

    def boxes(count: int, side: int) -> Tensor:
        """Draw boxes around the middle of a crop, a quarter of it wide and high."""
        middle = side / 2 + draw(batch, count, 2, scale=side / 20)
        half = side / 8 + draw(batch, count, 2, scale=side / 100).abs()
        return torch.cat([middle - half, middle + half], dim=2)

    def plain_and_kernels(loop: Form, form: Form) -> dict[str, Form]:
        forms = {"loop": loop, "PyTorch": with_kernels(False, form)}
        if device.type == "cuda":
            forms["Triton"] = with_kernels(True, form)
        return forms

    tables = [
        Table(
            f"depth-wise correlation, {batch} x 256 x 29 x 29",
            [draw(batch, 256, 29, 29), draw(batch, 256, 5, 5)],
            {
                "grouped convolution": depthwise_xcorr,
                "channels last": correlate_channels_last,
                "windows": correlate_windows,
                "shifts": correlate_shifts,
            },
        ),
        Table(
            f"deformable convolution, {batch} x 256 x 31 x 31",
            [draw(batch, 256, 31, 31), draw(batch, 18, 31, 31), draw(256, 256, 3, 3, scale=0.02)],
            {
                "torchvision": partial(torchvision.ops.deform_conv2d, padding=1),
                "library": partial(deform_conv2d, padding=1),
            },
        ),
    ]
    shapes = ((5, 256, 44, 8, 10), (3, 256, 22, 16, 10), (4, 512, 22, 16, 1))
    for bins, channels, side, stride, count in shapes:
        settings = bins, 1 / stride
        tables.append(
            Table(
                f"PrRoI pooling {bins} x {bins}, {batch} x {channels} x {side} x {side}, "
                f"{count} boxes",
                [draw(batch, channels, side, side), boxes(count, 352)],
                plain_and_kernels(
                    lambda f, r, s=settings: pool_box_by_box(f, r, *s),
                    lambda f, r, s=settings: prroi_pool(f, r, *s),
                ),
            )
        )
    for bins, side in ((4, 25), (16, 63)):
        image = torch.arange(batch, device=device)[:, None]
        rois = torch.cat([image, boxes(1, 255)[:, 0]], dim=1)
        tables.append(
            Table(
                f"deformable RoI pooling {bins} x {bins}, {batch} x 256 x {side} x {side}",
                [draw(batch, 256, side, side), draw(batch, 2, bins, bins)],
                plain_and_kernels(
                    lambda f, o, r=rois, p=bins, s=side / 255: pool_region_by_region(f, r, o, p, s),
                    lambda f, o, r=rois, p=bins, s=side / 255: deform_roi_pool(
                        f, r, o, output_size=p, spatial_scale=s
                    ),
                ),
            )
        )
    return tables


def time_once(work: Callable[[], Any], device: torch.device) -> float:
    """Return the milliseconds that a call takes."""
    if device.type != "cuda":
        start = time.process_time()
        work()
        return 1e3 * (time.process_time() - start)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def run_backward(form: Form, inputs: list[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of the weighted sum of a form's result."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(form(*leaves), leaves, weights)


def compare(table: Table, weights: Tensor) -> dict[str, float]:
    """Return each form's greatest difference from the reference, over the reference's peak.

    Raises:
        RuntimeError: A difference is more than rounding.
    """
    results = {
        name: [form(*table.inputs), *run_backward(form, table.inputs, weights)]
        for name, form in table.forms.items()
    }
    expected, *_ = results.values()
    differences = {}
    for name, found in results.items():
        pairs = zip(found, expected, strict=True)
        differences[name] = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if not differences[name] < 1e-3:
            raise RuntimeError(f"{table.name}: {name} differs by {differences[name]:g}")
    return differences


def measure(table: Table, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Time a table's forms in turn; return a row for each."""
    with torch.no_grad():
        weights = torch.randn_like(next(iter(table.forms.values()))(*table.inputs))
    differences = compare(table, weights)  # warms up, too
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in table.forms}
    for _ in range(rounds):
        for name, form in table.forms.items():
            with torch.no_grad():
                forward = time_once(partial(form, *table.inputs), device)
            both = time_once(partial(run_backward, form, table.inputs, weights), device)
            times[name].append((forward, both))
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in times.items()
    }
    reference = next(iter(medians.values()))
    return [
        {
            "operator": table.name,
            "form": name,
            "forward_ms": forward,
            "forward_ratio": reference[0] / forward,
            "backward_ms": both,
            "backward_ratio": reference[1] / both,
            "difference": differences[name],
        }
        for name, (forward, both) in medians.items()
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4], help="tracks at once")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is shown")
    parser.add_argument("--operators", default="", help="only those whose name contains this")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    device = torch.device(args.device)
    # Full precision, without which the forms differ by more than rounding.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    shown = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{shown}, torch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds")
    rows: list[dict[str, Any]] = []
    for batch in args.batch:
        for table in make_tables(batch, device):
            if args.operators not in table.name:
                continue
            print(f"\n{table.name}")
            found = measure(table, args.rounds, device)
            rows += found
            for row in found:
                gave_up = row["form"] == "Triton" and bool(dispatch._failed)
                print(
                    f"  {row['form']:20} forward {row['forward_ms']:9.3f} "
                    f"{row['forward_ratio']:7.2f} x   with gradients {row['backward_ms']:9.3f} "
                    f"{row['backward_ratio']:7.2f} x   differs {row['difference']:.0e}"
                    f"{'  FAILED: plain form' * gave_up}"
                )
    if args.json:
        numbers = {"device": shown, "torch": torch.__version__, "rows": rows}
        Path(args.json).write_text(json.dumps(numbers, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
