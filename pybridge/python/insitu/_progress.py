"""The bar that `collect(progress=True)` draws on stderr, once the work takes long enough for it.

On a terminal and in a notebook it is one line that is written anew; elsewhere, in a log, one line
at the end. It never fails: a stream that is gone is written to no more.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

APPEARS = 0.5
"""Seconds of work before there is a bar."""
EVERY = 0.1
"""Seconds between one drawing and the next."""
WIDTH = 24


def short(number: float) -> str:
    """Three digits and a unit."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if number >= 99.5 or not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"


class Bar:
    """Called with rows done and rows to do; `close` when it is over, however it ended."""

    def __init__(self, stream: Any = None) -> None:
        self._stream: Any = sys.stderr if stream is None else stream
        self._start = time.monotonic()
        self._drawn = 0.0
        self._last = (0, 0)
        self._width = 0
        try:
            notebook = type(self._stream).__module__.startswith("ipykernel")
            self._live = notebook or self._stream.isatty()
        except Exception:
            self._live = False

    def __call__(self, done: int, total: int) -> None:
        self._last = (done, total)
        now = time.monotonic()
        if self._live and now - self._start >= APPEARS and now - self._drawn >= EVERY:
            self._drawn = now
            self._write("\r" + self._line())

    def close(self) -> None:
        if self._drawn:
            self._write("\r" + self._line() + "\n")
        elif time.monotonic() - self._start >= APPEARS:
            self._write(self._line() + "\n")

    def _line(self) -> str:
        done, total = self._last
        share = min(done / total, 1.0) if total else 0.0
        rate = done / max(time.monotonic() - self._start, 1e-9)
        bar = ("#" * int(share * WIDTH)).ljust(WIDTH, ".")
        line = f"{share:4.0%} [{bar}] {short(done)} of {short(total)} rows, {short(rate)} rows/s"
        if self._live:
            # Blanks over what is left of a longer line; a line too long would not go away.
            line = line[: max(shutil.get_terminal_size().columns - 1, 1)]
            line, self._width = line.ljust(self._width), len(line)
        return line

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except Exception:
            self._live, self._drawn = False, 0.0
