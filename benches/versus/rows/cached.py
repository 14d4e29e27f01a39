"""Expressions over columns that are in the cache, from 1,000 rows to 100,000, into warm memory: the
polynomial, and a*b + c. What counts beside the loops is the way there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numexpr
import numpy as np

from ..harness import Contestant, Row
from ..setting import Setting
from .polynomial import TEXT, fused, numpy_out, polynomial
from .update import multiply_add

ROWS = (1_000, 10_000, 100_000)


@numba.njit
def fused_serial(x, y, out):
    for i in range(x.size):
        out[i] = 0.25 * x[i] * x[i] * x[i] + 0.75 * x[i] * y[i] - 1.5 * y[i] + 2
    return out


@numba.njit
def multiply_add_serial(a, b, c, out):
    for i in range(out.size):
        out[i] = a[i] * b[i] + c[i]


def rows(setting: Setting) -> Iterator[Row]:
    rng = setting.random(13)
    for n in ROWS:
        a, b, c = (rng.normal(size=n) for _ in range(3))
        out, scratch = np.ones(n), np.ones(n)

        def numpy_multiply_add(a=a, b=b, c=c, out=out):
            np.multiply(a, b, out=out)
            np.add(out, c, out=out)

        given = (a, b, out)
        yield _row(
            setting,
            "polynomial",
            TEXT,
            {"x": a, "y": b},
            out,
            24 * n,
            {
                "numba: parallel, out": lambda given=given: fused(*given),
                "numba: serial, out": lambda given=given: fused_serial(*given),
                "NumPy: out= at every step": (
                    lambda given=given, scratch=scratch: numpy_out(*given, scratch)
                ),
            },
        )
        given = (a, b, c, out)
        yield _row(
            setting,
            "multiply-add",
            "a*b + c",
            {"a": a, "b": b, "c": c},
            out,
            32 * n,
            {
                "numba: parallel, out": lambda given=given: multiply_add(*given),
                "numba: serial, out": lambda given=given: multiply_add_serial(*given),
                "NumPy: out=": numpy_multiply_add,
            },
        )


def _row(
    setting: Setting,
    key: str,
    text: str,
    arrays: dict[str, np.ndarray],
    out: np.ndarray,
    moved: int,
    peers: dict[str, Any],
) -> Row:
    n = out.size

    def shown(_: object) -> np.ndarray:
        return out.copy()

    def again() -> None:
        numexpr.re_evaluate(local_dict=arrays)

    def first() -> None:
        numexpr.evaluate(text, arrays, out=out)

    contestants = [Contestant(name, run, shown) for name, run in peers.items()]
    contestants += [
        Contestant("numexpr: out=", first, shown),
        Contestant("numexpr: re_evaluate, out=", again, shown, before=first),
    ]
    close = None
    if setting.insitu:
        name = f"cached-{key}"
        table = setting.region.put(name, arrays, replace=True)
        columns = {c: setting.insitu.col(c) for c in arrays}
        value = (
            polynomial(**columns)
            if key == "polynomial"
            else columns["a"] * columns["b"] + columns["c"]
        )
        prepared = table.select(r=value).prepare()
        contestants.insert(
            0,
            Contestant("insitu: prepared", prepared.run, lambda r: np.array(r["r"].to_numpy())),
        )

        def close() -> None:
            del setting.region[name]

    return Row(
        f"{key}-{n}",
        f"{text}, {n:,} rows of float64 in the cache, into warm memory",
        contestants,
        bytes=moved,
        note="No floor: the columns are in the cache. numba's parallel loops wake its threads at "
        "any size.",
        **({"close": close} if close else {}),
    )
