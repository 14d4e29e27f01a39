"""The bar of collect(progress=True): when there is one, what it says, and that it never fails."""

from __future__ import annotations

import io
import sys
from typing import Any

import insitu as ins
import numpy as np
import pytest
from insitu import _progress, col
from insitu._progress import Bar


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return self.getvalue().split("\r")


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    return clock


def test_short_work_has_no_bar(clock: Clock) -> None:
    for stream in (Terminal(), io.StringIO()):
        bar = Bar(stream)
        bar(10, 100)
        clock.now += 0.4
        bar(100, 100)
        bar.close()
        assert stream.getvalue() == ""


def test_a_terminal_has_one_line_written_anew(clock: Clock) -> None:
    stream = Terminal()
    bar = Bar(stream)
    clock.now += 2.0
    bar(1_000_000, 4_000_000)
    clock.now += 0.01
    bar(1_100_000, 4_000_000)  # too soon after the last
    clock.now += 1.99
    bar(4_000_000, 4_000_000)
    bar.close()
    begin, first, second, last = stream.lines()
    assert begin == ""
    assert first.split() == [
        "25%",
        f"[{'#' * 6}{'.' * 18}]",
        "1M",
        "of",
        "4M",
        "rows,",
        "500k",
        "rows/s",
    ]
    assert second.split()[:2] == ["100%", f"[{'#' * 24}]"]
    assert last.endswith("1M rows/s\n") or last.rstrip(" \n").endswith("1M rows/s")
    # Shorter lines leave nothing of longer ones.
    assert len(second) >= len(first.rstrip())
    assert stream.getvalue().count("\n") == 1


def test_a_notebook_has_it_too(clock: Clock) -> None:
    # Which says that it is no terminal, but writes a line anew.
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    bar = Bar(stream)
    clock.now += 1.0
    bar(1, 2)
    assert stream.getvalue().startswith("\r 50% [")


def test_elsewhere_there_is_one_line_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    for done in range(0, 101, 10):
        clock.now += 1.0
        bar(done, 100)
    assert stream.getvalue() == ""
    bar.close()
    assert stream.getvalue().endswith("100 of 100 rows, 9 rows/s\n")
    assert stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue()


def test_no_line_is_longer_than_the_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    bar = Bar(stream)
    clock.now += 1.0
    bar(10**12, 10**13)
    bar.close()
    assert max(len(line.rstrip("\n")) for line in stream.lines()) == 29


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1k"), (12_345, "12.3k"), (123_456, "123k"),
     (999_999, "1M"), (5 * 10**9, "5G"), (2 * 10**13, "20T")],
)  # fmt: skip
def test_numbers_are_short(number: int, said: str) -> None:
    assert _progress.short(number) == said


@pytest.mark.parametrize("total", [0, 100])
def test_sizes_out_of_the_ordinary(clock: Clock, total: int) -> None:
    stream = Terminal()
    bar = Bar(stream)
    clock.now += 1.0
    bar(150, total)  # later passes may not be expected yet
    bar.close()
    assert stream.lines()[-1].split()[0] == ("100%" if total else "0%")


class Broken(Terminal):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError("gone")


def closed() -> Terminal:
    stream = Terminal()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [Broken, closed, lambda: None, object])
def test_a_stream_that_is_gone_ends_no_work(
    region: ins.Region, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.setattr(_progress, "APPEARS", 0.0)
    monkeypatch.setattr(sys, "stderr", make())
    t = region.put("t", {"a": np.arange(100_000)})
    assert t.select(col("a").sum()).collect(progress=True).item() == 100_000 * 99_999 // 2


def test_a_query_draws_it(region: ins.Region, monkeypatch: pytest.MonkeyPatch) -> None:
    t = region.put("t", {"a": np.arange(200_000)})
    query = t.filter(col("a") > 5)
    for appears, stream in ((0.0, Terminal()), (0.0, io.StringIO()), (1e9, Terminal())):
        monkeypatch.setattr(_progress, "APPEARS", appears)
        monkeypatch.setattr(sys, "stderr", stream)
        assert query.collect(progress=True).num_rows == 199_994
        query.collect(progress=False)
        query.collect(progress=None)
        said = stream.getvalue()
        assert said.count("\n") == (appears == 0)
        # Filtered rows are passed over twice: to count, and to write.
        assert ("100%" in said and "400k of 400k rows" in said) == (appears == 0)


def test_an_error_closes_it(region: ins.Region, monkeypatch: pytest.MonkeyPatch) -> None:
    t = region.put("t", {"a": np.arange(200_000)})
    stream = Terminal()
    monkeypatch.setattr(_progress, "APPEARS", 0.0)
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ins.CastFailed):
        t.select(col("a").cast("int8")).collect(progress=True)
    assert stream.getvalue().endswith("\n")


def test_what_is_no_progress_is_refused(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(3)})
    with pytest.raises(ins.TypeMismatch, match="callable"):
        t.select("a").collect(progress="yes")  # type: ignore[arg-type]
