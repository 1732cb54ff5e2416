"""The plots of docs/performance.md, as small SVG files, and its table: `python -m bench.plot FILE docs/plots`.

FILE is what `python -m bench --json FILE` wrote. Bars and lines are drawn here: a library that can draw everything
weighs more than the engine and its peers together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from bench.compare import Metrics

WIDTH, LABEL, BAR, GAP, TOP, CURVE = 640, 170, 20, 8, 34, 220  # pixels
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

SIZES = {"_tenth": "a tenth", "": "the records", "_large": "ten times"}  # figures of the topic scale, by their ends
CURVES = (
    Plot("build-by-size", "Building so many records: microseconds for each", "scale", "build_us"),
    Plot("take-by-size", "Taking so many records from another replica: microseconds for each", "scale", "take_us"),
    Plot("memory-by-size", "Building so many records: bytes of memory for each", "scale", "build_bytes"),
)


def draw(folder: Path, metrics: Metrics) -> list[Path]:
    """Write the plots of what was measured into a folder; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {plot.file: bar_chart(plot.title, bars) for plot in PLOTS if (bars := _bars(plot, metrics))}
    charts |= {plot.file: line_chart(plot.title, lines) for plot in CURVES if (lines := _curves(plot, metrics))}
    for name, chart in charts.items():
        (folder / f"{name}.svg").write_text(chart)
    return [folder / f"{name}.svg" for name in charts]


def _bars(plot: Plot, metrics: Metrics) -> dict[str, float]:
    end = f"_{plot.figure}"
    every = {name.removesuffix(end): value for name, value in metrics.get(plot.topic, {}).items()}
    return {name: every[name] for name in every if name.split("_")[0] in COLOURS and _is_name(name)}


def _curves(plot: Plot, metrics: Metrics) -> dict[str, dict[str, float]]:
    """By contender its figures, by how many records they are of."""
    found = metrics.get(plot.topic, {})
    lines = {
        name: {
            label: found[f"{name}_{plot.figure}{end}"]
            for end, label in SIZES.items()
            if f"{name}_{plot.figure}{end}" in found
        }
        for name in COLOURS
    }
    return {name: points for name, points in lines.items() if len(points) > 1}


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


def line_chart(title: str, lines: dict[str, dict[str, float]]) -> str:
    """A line for each name, from 0 on; its points, which all lines have, stand side by side, with their values."""
    most = max(max(points.values()) for points in lines.values()) or 1e-9
    labels = list(next(iter(lines.values())))
    step, bottom = (WIDTH - LABEL - 90) / (len(labels) - 1), TOP + CURVE
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 30}" {FONT}>',
        f'<rect width="{WIDTH}" height="{bottom + 30}" fill="white"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{LABEL - 60},{bottom}H{WIDTH - 20}" stroke="#7f7f7f"/>',
        *(
            f'<text x="{LABEL + place * step:.1f}" y="{bottom + 20}" text-anchor="middle">{escape(label)}</text>'
            for place, label in enumerate(labels)
        ),
    ]
    for row, (name, points) in enumerate(lines.items()):
        spots = [(LABEL + at * step, bottom - (CURVE - 20) * value / most) for at, value in enumerate(points.values())]
        path, colour = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots), COLOURS[name]
        drawn += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<text x="8" y="{TOP + 20 * (row + 1)}" fill="{colour}">{escape(name)}</text>',
            *(
                f'<text x="{x:.1f}" y="{y - 6:.1f}" text-anchor="middle">{shown(value)}</text>'
                for (x, y), value in zip(spots, points.values(), strict=True)
            ),
        ]
    return "\n".join([*drawn, "</svg>\n"])


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text())
    draw(Path(sys.argv[2]), measured)
    print(table(measured))
