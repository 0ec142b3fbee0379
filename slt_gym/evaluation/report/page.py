"""The HTML page of a report: one file with everything."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from slt_gym.evaluation.report.tables import Table
from slt_gym.version import __version__

_LONG_TABLE = 30
_BEST = ' class="best"'
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 74rem; padding: 0 1rem;
  color: #1d2129; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #dde1e7; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; }
.wide { overflow-x: auto; }
.note, figcaption { color: #5b6470; max-width: 50rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
.figures img { flex: 1 1 18rem; min-width: 0; max-width: 26rem; height: auto; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
"""


def make_page(title: str, text: str, parts: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: Its title and heading, plain text.
        text: The paragraph under the heading, plain text.
        parts: What follows, HTML.
    """
    title = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join([f"<h1>{title}</h1>", f"<p>{html.escape(text)}</p>", *parts])
        + f'\n<p class="note">slt_gym {__version__}</p>\n</body></html>\n'
    )


def draw_table(table: Table) -> str:
    """Return a table with its heading and note; a long one is folded."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = []
    for row, best in zip(table.rows, table.best, strict=True):
        cells = (
            f"<td{_BEST if i == best else ''}>{html.escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    if len(rows) > _LONG_TABLE:
        body = f"<details><summary>{len(rows)} rows</summary>{body}</details>"
    note = f'<p class="note">{html.escape(table.note)}</p>'
    return f"<h2>{html.escape(table.title)}</h2>{body}{note}"


def embed(data: bytes, kind: str, name: str) -> str:
    """Return an image that holds its data; ``kind`` is a MIME type, ``name`` the alternative."""
    code = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(name)}" src="data:{kind};base64,{code}">'
