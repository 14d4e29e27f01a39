"""Columns that get new values where they lie: x = a*b + c, and x = 3x + a, which moves as many
bytes as the in-place triad.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numexpr
import numpy as np

from ..harness import Contestant, Row
from ..setting import Setting


@numba.njit(parallel=True)
def multiply_add(a, b, c, x):
    for i in numba.prange(x.size):
        x[i] = a[i] * b[i] + c[i]


@numba.njit(parallel=True)
def scale_add(x, a):
    for i in numba.prange(x.size):
        x[i] = 3.0 * x[i] + a[i]


def rows(setting: Setting) -> Iterator[Row]:
    n = setting.rows
    rng = setting.random(6)
    a, b, c = (rng.normal(size=n) for _ in range(3))
    x = np.ones(n)
    floor = setting.floor.triad(n)

    def numpy_multiply_add():
        np.multiply(a, b, out=x)
        np.add(x, c, out=x)

    def shown(_):
        return x.copy()

    arrays = {"a": a, "b": b, "c": c}
    contestants = [
        Contestant("NumPy: out=", numpy_multiply_add, shown),
        Contestant("numexpr: out=", lambda: numexpr.evaluate("a*b + c", arrays, out=x), shown),
        Contestant("numba: parallel", lambda: multiply_add(a, b, c, x), shown),
    ]
    if setting.insitu:
        contestants[:0] = _multiply_add(setting, arrays, x)
    yield Row(
        "update",
        f"x = a*b + c, over {n:,} rows of float64",
        contestants + floor,
        bytes=40 * n,
        note="insitu's in place keeps the statistics of x true as well; 'swapped' writes fresh "
        "memory and shares the other columns. The in-place triad moves 24 bytes a row, this 40.",
    )

    def numpy_scale_add():
        np.multiply(x, 3.0, out=x)
        np.add(x, a, out=x)

    # x runs to infinity over many rounds, which costs no more; so there is nothing to compare.
    contestants = [
        Contestant("NumPy: in place", numpy_scale_add),
        Contestant(
            "numexpr: in place", lambda: numexpr.evaluate("3*x + a", {"x": x, "a": a}, out=x)
        ),
        Contestant("numba: parallel, in place", lambda: scale_add(x, a)),
    ]
    if setting.insitu:
        col, t = setting.insitu.col, setting.region["update"]
        contestants.insert(
            0,
            Contestant(
                "insitu: update, in place",
                lambda: t.update(x=col("x") * 3.0 + col("a"), in_place=True),
            ),
        )
    yield Row(
        "update-triad",
        f"x = 3x + a, over {n:,} rows of float64",
        contestants + floor,
        bytes=24 * n,
    )
    if setting.insitu:
        del setting.region["update"]


def _multiply_add(setting: Setting, arrays, x) -> list[Contestant]:
    col = setting.insitu.col
    t = setting.region.put("update", {**arrays, "x": x}, replace=True)
    value = col("a") * col("b") + col("c")

    def answer(result):
        return np.array(result["x"].to_numpy())

    return [
        Contestant("insitu: update, in place", lambda: t.update(x=value, in_place=True), answer),
        Contestant("insitu: update, swapped", lambda: t.update(x=value, atomic=True), answer),
    ]
