"""Times contestants in turn, and checks first that they say the same.

A *row* is one job; its *contestants* do the job, each in the way its users would. Each round times
every contestant once, in an order that rotates, so that a slow minute of the machine falls on all
of them. What is timed is the call and the dropping of its result.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FLOOR = "memory floor"
INSITU = "insitu"
SAMPLE = 0.02  # seconds that one timing should take at least: shorter calls are repeated within it
SLOW = 1.5  # seconds: a contestant slower than this is timed in fewer rounds


def nothing() -> None:
    """What needs no preparation."""


@dataclass
class Contestant:
    """One way to do a row's job."""

    name: str
    run: Callable[[], Any]
    answer: Callable[[Any], Any] | None = (
        None  # from what `run` returned to what is compared; None: no answer
    )
    before: Callable[[], Any] = nothing  # untimed, before each timing
    engine: str = ""  # whose it is, for colours; default: the first word of the name
    note: str = ""
    once: bool = False  # never repeated within a timing (`before` must run each time)

    def __post_init__(self) -> None:
        self.engine = self.engine or self.name.split(":")[0].split(" ")[0]


@dataclass
class Row:
    """One job and those who do it."""

    key: str
    title: str
    contestants: list[Contestant]
    tolerance: float = 1e-9  # relative, of floats
    bytes: int | None = None  # that have to move, at least: gives GB/s
    note: str = ""
    close: Callable[[], Any] = nothing


@dataclass
class Timing:
    """What one contestant took, in seconds per call."""

    name: str
    engine: str
    seconds: list[float]
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Result:
    """A row, timed."""

    key: str
    title: str
    timings: list[Timing]
    bytes: int | None = None
    note: str = ""
    unit: str = "s"  # of the timings: seconds, or "B" for bytes of memory

    def best(self, engine: str) -> Timing | None:
        """The quickest contestant of one engine."""
        return min(
            (t for t in self.timings if t.engine == engine), key=lambda t: t.median, default=None
        )

    def best_peer(self) -> Timing | None:
        """The quickest of all the others."""
        peers = (t for t in self.timings if t.engine not in (INSITU, FLOOR))
        return min(peers, key=lambda t: t.median, default=None)


class Disagreement(Exception):
    """Two contestants gave different answers: nothing is timed then."""


def same(a: Any, b: Any, tolerance: float) -> bool:
    """Whether two answers are the same: numbers, arrays, dicts of them by key, or sequences."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], tolerance) for k in a)
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and bool(
            np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        )
    return bool(a == b)


def check(row: Row) -> None:
    """Every answer against the first one; also the warm-up."""
    reference: tuple[str, Any] | None = None
    for contestant in row.contestants:
        contestant.before()
        result = contestant.run()
        if contestant.answer is None:
            continue
        answer = contestant.answer(result)
        del result
        if reference is None:
            reference = (contestant.name, answer)
        elif not same(reference[1], answer, row.tolerance):
            shown = [
                f"  {name}: {str(value)[:300]}"
                for name, value in (reference, (contestant.name, answer))
            ]
            raise Disagreement(f"{row.title}: the answers differ\n" + "\n".join(shown))


def clock(run: Callable[[], Any], calls: int) -> float:
    """Seconds per call."""
    again = range(calls)
    start = time.perf_counter()
    for _ in again:
        run()
    return (time.perf_counter() - start) / calls


def measure(row: Row, rounds: int) -> Result:
    """Checks the answers, warms up, and times `rounds` rounds."""
    check(row)
    calls: dict[str, int] = {}
    for contestant in row.contestants:
        contestant.before()
        took = clock(contestant.run, 1)
        if not contestant.once and took < SAMPLE:
            took = min(took, clock(contestant.run, 3))
            calls[contestant.name] = max(1, math.ceil(SAMPLE / max(took, 1e-8)))
        else:
            calls[contestant.name] = 1
        contestant.note += "" if took < SLOW else " fewer rounds"
    timings = {c.name: Timing(c.name, c.engine, [], c.note.strip()) for c in row.contestants}
    order = list(row.contestants)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for contestant in order:
                timing = timings[contestant.name]
                if number >= 3 and timing.seconds and timing.seconds[0] > SLOW:
                    continue
                contestant.before()
                timing.seconds.append(clock(contestant.run, calls[contestant.name]))
            order.append(order.pop(0))
            gc.collect()
    finally:
        gc.enable()
    return Result(row.key, row.title, list(timings.values()), row.bytes, row.note)
