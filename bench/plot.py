"""The plots of docs/performance.md, as small SVG files, and its table: `python -m bench.plot FILE docs/plots`.

FILE is what `python -m bench --json FILE` wrote. The bars are drawn here: a library that can draw everything weighs
more than the engine and its peers together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from bench.compare import Metrics

WIDTH, LABEL, BAR, GAP, TOP = 640, 170, 20, 8, 34  # pixels
FONT = 'font-family="sans-serif" font-size="13"'
COLOURS = {"fieldsync": "#1f77b4", "sqlite3": "#7f7f7f", "pycrdt": "#ff7f0e", "loro": "#2ca02c"}


class Plot(NamedTuple):
    """Bars of one figure, a contender each."""

    file: str
    title: str
    topic: str
    figure: str


PLOTS = (
    Plot("build", "Building all records, seconds", "build", "s"),
    Plot("memory", "Building all records, MB of memory", "build", "peak_mb"),
    Plot("size", "All records, bytes at rest", "build", "bytes"),
    Plot("open", "Opening them and reading one, ms", "open", "ms"),
    Plot("delta", "10,000 random edits: bytes to send", "delta", "bytes"),
    Plot("apply", "10,000 random edits: ms to merge them and tell the app, durably in fieldsync", "apply", "ms"),
    Plot("growth", "Size after 10 overwrites of a field of each record, times before", "edit", "growth_x"),
    Plot("delete", "Deleting all records: bytes left of each", "delete", "bytes"),
)


def draw(folder: Path, metrics: Metrics) -> list[Path]:
    """Write the plots of what was measured into a folder; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plot in PLOTS:
        end = f"_{plot.figure}"
        every = {name.removesuffix(end): value for name, value in metrics.get(plot.topic, {}).items()}
        bars = {name: every[name] for name in every if name.split("_")[0] in COLOURS and _is_name(name)}
        if bars:
            written.append(folder / f"{plot.file}.svg")
            written[-1].write_text(bar_chart(plot.title, bars))
    return written


def table(metrics: Metrics) -> str:
    """The same figures, and how many times fieldsync's they are, as a table in Markdown."""
    lines = [f"| | {' | '.join(COLOURS)} |", f"| ---{' | ---' * len(COLOURS)} |"]
    for plot in PLOTS:
        found = metrics.get(plot.topic, {})
        own = found.get(f"fieldsync_{plot.figure}")
        cells = [_cell(found.get(f"{name}_{plot.figure}"), own) for name in COLOURS]
        lines += [f"| {plot.title} | {' | '.join(cells)} |"] if own is not None else []
    return "\n".join(lines)


def _cell(value: float | None, own: float | None) -> str:
    if value is None:
        return ""
    return f"{shown(value)} ({value / own:.2g} x)" if own and value != own else shown(value)


def shown(value: float) -> str:
    """A figure as a reader likes it: three digits, or all that are before the point."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _is_name(name: str) -> bool:
    return name in COLOURS or name.removesuffix("_full").removesuffix("_single") in COLOURS


def bar_chart(title: str, bars: dict[str, float]) -> str:
    """Horizontal bars from 0 on, each with its name and its value."""
    height, most = TOP + len(bars) * (BAR + GAP), max(*bars.values(), 1e-9)
    room = WIDTH - LABEL - 90
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for place, (name, value) in enumerate(bars.items()):
        y, length = TOP + place * (BAR + GAP), room * value / most
        lines += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{COLOURS[name.split("_")[0]]}"/>',
            f'<text x="{LABEL + length + 6:.1f}" y="{y + 15}">{shown(value)}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text())
    draw(Path(sys.argv[2]), measured)
    print(table(measured))
