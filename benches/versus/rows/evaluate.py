"""where(a > b, sqrt(a), b*b) + sin(c) by `evaluate`, into an array that is there: over arrays that
lie one value after another, over every second value of longer ones, and over float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numexpr
import numpy as np

from ..harness import Contestant, Row
from ..setting import Setting

TEXT = "where(a > b, sqrt(a), b*b) + sin(c)"


@numba.njit(parallel=True)
def fused(a, b, c, out):
    for i in numba.prange(out.size):
        chosen = np.sqrt(a[i]) if a[i] > b[i] else b[i] * b[i]
        out[i] = chosen + np.sin(c[i])
    return out


def numpy_out(a, b, c, out, scratch):
    np.multiply(b, b, out=out)
    np.sqrt(a, out=out, where=np.greater(a, b))
    return np.add(out, np.sin(c, out=scratch), out=out)


def rows(setting: Setting) -> Iterator[Row]:
    n = setting.rows
    random = setting.random(15)
    wide = [random.uniform(0, 10, 2 * n) for _ in range(3)]
    narrow = [array[::2].astype("float32") for array in wide]
    for key, title, arrays in (
        ("evaluate", f"{n:,} float64", [array[:n] for array in wide]),
        (
            "evaluate-strided",
            f"{n:,} float64, every second of twice as many",
            [w[::2] for w in wide],
        ),
        ("evaluate-float32", f"{n:,} float32", narrow),
    ):
        a, b, c = arrays
        out, scratch = (np.ones(n, a.dtype) for _ in range(2))
        names = {"a": a, "b": b, "c": c}
        contestants = [
            Contestant(
                "numexpr: out=",
                lambda names=names, out=out: numexpr.evaluate(TEXT, names, out=out),
                np.copy,
            ),
            Contestant(
                "numba: parallel, out", lambda arrays=arrays, out=out: fused(*arrays, out), np.copy
            ),
            Contestant(
                "NumPy: out= at every step",
                lambda arrays=arrays, out=out, scratch=scratch: numpy_out(*arrays, out, scratch),
                np.copy,
            ),
        ]
        if setting.insitu:
            contestants.insert(0, _insitu(setting, names, out))
        yield Row(
            key,
            f"{TEXT}, {title}",
            contestants,
            tolerance=1e-9 if a.dtype == np.float64 else 1e-5,
            # Of lines of which every second value is wanted, all comes.
            bytes=a.itemsize * n * (7 if key == "evaluate-strided" else 4),
        )


def _insitu(setting: Setting, names, out) -> Contestant:
    evaluate = setting.insitu.evaluate
    return Contestant("insitu: evaluate, out=", lambda: evaluate(TEXT, names, out=out), np.copy)
