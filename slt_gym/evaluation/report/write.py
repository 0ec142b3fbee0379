"""Writing a report: a self-contained page, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slt_gym.data import SequenceDataset
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.files import replacing
from slt_gym.evaluation.report.build import Report
from slt_gym.evaluation.report.clips import OverlayClip, draw_clips
from slt_gym.evaluation.report.figures import draw_figures
from slt_gym.evaluation.report.page import draw_table, embed, make_page
from slt_gym.evaluation.report.tables import Table, make_tables, to_markdown
from slt_gym.evaluation.scoring import Measured
from slt_gym.version import __version__


def write_report(
    report: Report, dataset: SequenceDataset, folder: str | Path, clips: int = 3
) -> Path:
    """Write ``report.html``, ``report.md``, ``report.json``, ``report.csv`` and the plots.

    Files of an earlier report there are replaced, each whole or not at all.

    Args:
        report: The report.
        dataset: Where the clips' frames come from.
        folder: Made if it is missing.
        clips: Overlay clips on the page at most; 0 reads no frame.

    Returns:
        The path of the page.

    Raises:
        InvalidArgumentError: ``clips`` is below 0.
        FrameError: A frame of a clip cannot be read; nothing is written.
    """
    if clips < 0:
        raise InvalidArgumentError(f"clips is {clips}: it must be at least 0")
    folder = Path(folder).expanduser()
    tables = make_tables(report)
    figures = draw_figures(report)
    drawn = draw_clips(report, dataset, clips)
    page = folder / "report.html"
    files = {
        **{folder / f"{name}.png": png for name, png in figures.items()},
        folder / "report.csv": _to_csv(report).encode(),
        folder / "report.json": (json.dumps(to_data(report), indent=1) + "\n").encode(),
        folder / "report.md": _to_markdown(report, tables, list(figures)).encode(),
        page: _to_html(report, tables, figures, drawn).encode(),
    }
    for path, data in files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    return page


def describe(report: Report) -> str:
    """Say in a sentence under which rule a report's scores are."""
    whose = f", protocol {report.protocol!r}" if report.protocol else ""
    return (
        f"Scored on {report.dataset} {report.split} by the rule {report.rule.name!r} "
        f"({report.rule.title}{whose})."
    )


def to_data(report: Report) -> dict[str, Any]:
    """Return all numbers of a report as JSON values; what is not a number is null.

    Scores are as :func:`slt_gym.evaluation.score` returns them, not in percent.
    """
    trackers = {}
    for result in report.trackers:
        score = result.score
        trackers[result.name] = {
            "scores": score.scores,
            "frames_per_second": result.fps,
            "frames": asdict(score.overall.counts),
            "missing": score.missing,
            "unknown": score.unknown,
            "sequences": {
                name: {**_list_numbers(measured), "frames": asdict(measured.counts)}
                for name, measured in score.sequences.items()
            },
        }
    data = {
        "slt_gym": __version__,
        "dataset": report.dataset,
        "split": report.split,
        "protocol": report.protocol,
        "rule": report.rule.name,
        "trackers": trackers,
        "attributes": report.attributes,
    }
    return _to_json(data)


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _list_numbers(measured: Measured) -> dict[str, float]:
    """Return the scores without the curves."""
    return {key: value for key, value in measured.scores.items() if np.ndim(value) == 0}


def _to_csv(report: Report) -> str:
    """Write a row for each tracker and sequence, with the numbers as in the JSON file."""
    buffer = io.StringIO()
    rows = [
        {"tracker": result.name, "sequence": name, **_list_numbers(m), **asdict(m.counts)}
        for result in report.trackers
        for name, m in result.score.sequences.items()
    ]
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _to_markdown(report: Report, tables: Sequence[Table], figures: Sequence[str]) -> str:
    lines = [f"# {report.dataset} {report.split}", "", describe(report)]
    for number, table in enumerate(tables):
        lines += ["", f"## {table.title}", "", to_markdown(table), "", table.note]
        if number == 0:
            lines += ["", " ".join(f"![{name}]({name}.png)" for name in figures)]
    return "\n".join(lines) + "\n"


def _to_html(
    report: Report,
    tables: Sequence[Table],
    figures: dict[str, bytes],
    clips: Sequence[OverlayClip],
) -> str:
    parts: list[str] = []
    for number, table in enumerate(tables):
        parts.append(draw_table(table))
        if number == 0:
            images = "".join(embed(png, "image/png", name) for name, png in figures.items())
            parts.append(f'<div class="figures">{images}</div>')
    if clips:
        parts.append("<h2>Clips</h2>")
        for clip in clips:
            caption = html.escape(clip.caption)
            image = embed(clip.webp, "image/webp", clip.sequence)
            parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return make_page(f"{report.dataset} {report.split}", describe(report), parts)
