"""One panel per row: the quickest way of each engine as a bar, the memory floor as a line."""

from __future__ import annotations

import textwrap
from pathlib import Path

from .harness import FLOOR, INSITU, Result
from .report import duration

OURS, THEIRS, LINE = "#d1495b", "#9aa5b1", "#1f2933"


def draw(results: list[Result], path: Path) -> list[Path]:
    """Writes an SVG and a PNG next to it."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "insitu", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    columns = 2 if len(results) > 1 else 1
    lines = -(-len(results) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(6.4 * columns, 2.9 * lines), squeeze=False
    )
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    for axis, result in zip(axes.flat, results, strict=False):
        engines = {t.engine for t in result.timings} - {FLOOR}
        best = sorted(
            (result.best(engine) for engine in engines), key=lambda t: t.median, reverse=True
        )
        colours = [OURS if t.engine == INSITU else THEIRS for t in best]
        bars = axis.barh(
            [textwrap.fill(t.name, 30) for t in best],
            [t.median for t in best],
            color=colours,
            height=0.7,
        )
        axis.bar_label(bars, [duration(t.median) for t in best], padding=3, fontsize=8)
        axis.set_xscale("log")
        smallest = min(t.median for t in best)
        floor = result.best(FLOOR)
        if floor:
            axis.axvline(floor.median, color=LINE, linestyle="--", linewidth=1)
            axis.annotate(
                f"memory floor {duration(floor.median)}",
                (floor.median, 1.0),
                (3, -1),
                fontsize=7,
                color=LINE,
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
            )
            smallest = min(smallest, floor.median)
        axis.margins(y=0.12)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(smallest / 3, max(t.median for t in best) * 4)
        axis.set_xlabel("logarithmic; less is better", fontsize=7)
        axis.tick_params(axis="both", labelsize=8)
        axis.set_title(textwrap.fill(result.title, 70), fontsize=9, loc="left")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    written = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    for file in written:
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
    return written
