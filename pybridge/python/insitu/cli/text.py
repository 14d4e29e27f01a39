"""Text for people: aligned columns, units, colours where there are any."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

_CELL = 40
"""No cell of data is wider than this on a terminal."""


def clean(text: str) -> str:
    """The text on one line, without what a terminal would obey: names may hold anything."""
    return "".join(c if c.isprintable() else "·" for c in text)


def width(text: str) -> int:
    """The places that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1
        for c in text
    )


def clip(text: str, places: int) -> str:
    """At most so many places of a text."""
    if width(text) <= places:
        return text
    while text and width(text) > places - 1:
        text = text[:-1]
    return text + "…"


def size(count: int | None) -> str:
    """`4.0 MiB`; a dash for what is not known."""
    if count is None:
        return "-"
    if count < 1024:
        return f"{count} B"
    value = float(count)
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    while True:
        value, unit = value / 1024, next(units)
        if value < 1023.95 or unit == "PiB":
            return f"{value:.1f} {unit}"


def number(count: int | None) -> str:
    """`336,776`; a dash for what is not known."""
    return "-" if count is None else f"{count:,}"


def counted(count: int, thing: str) -> str:
    """`1 table`, `1,000 tables`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def age(seconds: float | None) -> str:
    """`3.2 s`, `5 min`, `2 h 5 min`, `3 d 2 h`."""
    if seconds is None:
        return "-"
    seconds = max(seconds, 0)  # clocks may be set back
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"


def coloured() -> bool:
    """Whether standard output takes colours, and its reader wants them."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if coloured() else text


def red(text: str) -> str:
    return f"\x1b[31m{text}\x1b[0m" if coloured() else text


def line_width() -> int | None:
    """How wide a line may be; None where nobody looks at a screen."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def aligned(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Iterable[int] = (),
    *,
    limit: int | None = None,
) -> list[str]:
    """Lines of a table. `right`: the columns that align right, as numbers do. `limit`: the places
    that a line may take; the last column is clipped to it."""
    numbers = set(right)
    body = [[clean(cell) for cell in row] for row in rows]
    widths = [max(width(cell) for cell in column) for column in zip(heads, *body, strict=True)]
    lines = []
    for row in [list(heads), *body]:
        cells = []
        for index, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            pad = " " * (wide - width(cell))
            cells.append(pad + cell if index in numbers else cell + pad)
        line = "  ".join(cells).rstrip()
        lines.append(line if limit is None else clip(line, limit))
    lines[0] = bold(lines[0])
    return lines


def grid(heads: Sequence[tuple[str, str, bool]], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table of data: per column its name, its type and whether it aligns right. On a
    terminal long cells are clipped, and columns that do not fit are named below."""
    limit = line_width()
    columns = []
    for index, (name, dtype, right) in enumerate(heads):
        cells = [clean(cell) for cell in (name, dtype, *(row[index] for row in rows))]
        if limit is not None:
            cells = [clip(cell, _CELL) for cell in cells]
        wide = max(map(width, cells))
        pads = [" " * (wide - width(cell)) for cell in cells]
        columns.append(
            [pad + cell if right else cell + pad for cell, pad in zip(cells, pads, strict=True)]
        )
    shown, taken = 0, 0
    for column in columns:
        taken += width(column[0]) + 2
        if limit is not None and shown and taken - 2 > limit:
            break
        shown += 1
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns[:shown], strict=True)]
    if lines:
        lines[0] = bold(lines[0])
    if shown < len(heads):
        names = ", ".join(clean(name) for name, _, _ in heads[shown:])
        left = f"... and {counted(len(heads) - shown, 'more column')}: {names}"
        lines.append(left if limit is None else clip(left, limit))
    return lines
