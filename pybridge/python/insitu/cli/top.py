"""`insitu top`: regions, or one region, looked at again and again."""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import insitu as ins
from insitu.cli import commands, text
from insitu.cli.regions import Mistake, Place, observed, records

_HOME = "\x1b[H"
_TO_END_OF_LINE = "\x1b[K"
_BELOW = "\x1b[J"
_OTHER_SCREEN, _BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def top(options: argparse.Namespace) -> int:
    """Runs `insitu top`."""
    place = None if options.region is None else Place.of(options.region, path=options.path)
    if options.json:
        print(json.dumps(_look(place), indent=2, allow_nan=False))
        return 0
    if options.once or not sys.stdout.isatty():
        print("\n".join(_lines(_look(place))))
        return 0
    # A mistake is told before the screen is taken.
    _look(place)
    with _screen():
        while True:
            _draw(place)
            if _quit_within(options.interval):
                return 0


def _look(place: Place | None) -> Any:
    if place is None:
        return records([], path=False)
    with observed(place) as region:
        return {**commands.region_facts(place, region), "leases": commands.holders(region)}


def _lines(seen: Any) -> list[str]:
    if isinstance(seen, list):
        used = sum(record["used"] or 0 for record in seen)
        resident = sum(record["resident"] for record in seen)
        total = f"{text.counted(len(seen), 'region')}, {text.size(used)} used"
        lines = [f"{total}, {text.size(resident)} resident"]
        seen = sorted(seen, key=lambda record: -(record["used"] or 0))
        return [*lines, "", *commands.regions_table(seen)] if seen else lines
    lines = commands.summary(seen)
    if seen["tables"]:
        largest = sorted(seen["tables"], key=lambda record: -(record["bytes"] or 0))
        lines += ["", *commands.tables_table(largest)]
    if seen["leases"]:
        lines += ["", *commands.leases_table(seen["leases"])]
    return lines


def _draw(place: Place | None) -> None:
    size = shutil.get_terminal_size()
    try:
        lines = _lines(_look(place))
    except (ins.Error, Mistake) as error:
        # Removed, or being made anew: it may be back at the next look.
        lines = [text.red(text.clip(text.clean(str(error)), size.columns))]
    lines = [f"{time.strftime('%H:%M:%S')}  q ends", *lines]
    if len(lines) > size.lines - 1:
        left = len(lines) - size.lines + 2
        lines = [*lines[: size.lines - 2], f"... and {text.counted(left, 'more line')}"]
    body = "".join(f"{line}{_TO_END_OF_LINE}\r\n" for line in lines)
    sys.stdout.write(_HOME + body + _BELOW)
    sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    """The terminal's other screen, and keys as they are pressed; put back whatever happens."""
    import termios
    import tty

    keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = None if keys is None else termios.tcgetattr(keys)
    sys.stdout.write(_OTHER_SCREEN)
    try:
        if keys is not None:
            tty.setcbreak(keys)
        yield
    finally:
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
        sys.stdout.write(_BACK)
        sys.stdout.flush()


def _quit_within(seconds: float) -> bool:
    """Waits; whether somebody pressed q."""
    if sys.stdin is None or not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if ready and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b""):
            return True
    return False
