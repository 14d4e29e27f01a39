"""0.25*x*x*x + 0.75*x*y - 1.5*y + 2: an expression over whole columns, whose result is a column.

Twice: into memory that was written before (`out=`, or a result dropped and made again), and into
fresh memory. Those that cannot write where they are told to stand in the second row only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numexpr
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..harness import Contestant, Row
from ..setting import Setting

TEXT = "0.25*x*x*x + 0.75*x*y - 1.5*y + 2"


def polynomial(x, y):
    """The formula as it is written, for whatever has operators."""
    return 0.25 * x * x * x + 0.75 * x * y - 1.5 * y + 2


@numba.njit(parallel=True)
def fused(x, y, out):
    for i in numba.prange(x.size):
        out[i] = 0.25 * x[i] * x[i] * x[i] + 0.75 * x[i] * y[i] - 1.5 * y[i] + 2
    return out


@numba.njit(parallel=True)
def fused_fresh(x, y):
    out = np.empty_like(x)
    for i in numba.prange(x.size):
        out[i] = 0.25 * x[i] * x[i] * x[i] + 0.75 * x[i] * y[i] - 1.5 * y[i] + 2
    return out


def numpy_out(x, y, out, scratch):
    """What a NumPy user writes who has read about `out=`."""
    np.multiply(x, 0.25, out=out)
    np.multiply(out, x, out=out)
    np.multiply(out, x, out=out)
    np.multiply(x, 0.75, out=scratch)
    np.multiply(scratch, y, out=scratch)
    np.add(out, scratch, out=out)
    np.multiply(y, 1.5, out=scratch)
    np.subtract(out, scratch, out=out)
    return np.add(out, 2, out=out)


def arrow_compute(x, y):
    m, a, s = pc.multiply, pc.add, pc.subtract
    cubic = m(m(m(x, 0.25), x), x)
    return a(s(a(cubic, m(m(x, 0.75), y)), m(y, 1.5)), 2.0)


def rows(setting: Setting) -> Iterator[Row]:
    n = setting.rows
    rng = setting.random(1)
    x, y = rng.normal(size=n), rng.normal(size=n)
    out, scratch = np.ones(n), np.ones(n)
    moved = 24 * n

    warm = [
        Contestant(
            "numexpr: out=", lambda: numexpr.evaluate(TEXT, {"x": x, "y": y}, out=out), np.copy
        ),
        Contestant("numba: parallel, out", lambda: fused(x, y, out), np.copy),
        Contestant("NumPy: out= at every step", lambda: numpy_out(x, y, out, scratch), np.copy),
    ]
    floor = setting.floor.triad(n)
    if setting.insitu:
        warm[:0] = _insitu_warm(setting, x, y, out)
    yield Row(
        "polynomial-warm",
        f"{TEXT}, {n:,} rows of float64, into warm memory",
        warm + floor,
        bytes=moved,
        note="insitu drops each result and so writes the next one into the same pages; the others "
        "get out=.",
    )
    del warm

    table = pa.table({"x": x, "y": y})
    frame, eager = pd.DataFrame({"x": x, "y": y}), pl.from_arrow(table)
    lazy = eager.lazy().select(r=polynomial(pl.col("x"), pl.col("y")))
    con = setting.duckdb(t=table)
    ax, ay = table["x"].chunk(0), table["y"].chunk(0)

    def column(result):
        return np.asarray(result["r"])

    def made_in_duckdb(result):
        return con.sql("SELECT r FROM made").fetchnumpy()["r"]

    fresh = [
        Contestant("NumPy", lambda: polynomial(x, y), np.asarray),
        Contestant("numexpr", lambda: numexpr.evaluate(TEXT, {"x": x, "y": y}), np.asarray),
        Contestant("numba: parallel", lambda: fused_fresh(x, y), np.asarray),
        Contestant("pandas: eval", lambda: frame.eval(TEXT), np.asarray),
        Contestant("pandas: operators", lambda: polynomial(frame["x"], frame["y"]), np.asarray),
        Contestant("pyarrow.compute", lambda: arrow_compute(ax, ay), np.asarray, engine="pyarrow"),
        Contestant(
            "Polars: eager", lambda: eager.select(r=polynomial(pl.col("x"), pl.col("y"))), column
        ),
        Contestant("Polars: lazy, in-memory", lambda: lazy.collect(engine="in-memory"), column),
        Contestant("Polars: lazy, streaming", lambda: lazy.collect(engine="streaming"), column),
        Contestant(
            "DuckDB: to Arrow",
            lambda: con.sql(f"SELECT {TEXT} AS r FROM t").to_arrow_table(),
            column,
        ),
        Contestant(
            "DuckDB: Arrow to Arrow",
            lambda: con.sql(f"SELECT {TEXT} AS r FROM t_arrow").to_arrow_table(),
            column,
        ),
        Contestant(
            "DuckDB: CREATE TABLE AS",
            lambda: con.execute(f"CREATE OR REPLACE TABLE made AS SELECT {TEXT} AS r FROM t"),
            made_in_duckdb,
        ),
    ]
    if setting.insitu:
        fresh[:0] = _insitu_fresh(setting, x, y)
    yield Row(
        "polynomial-fresh",
        f"{TEXT}, {n:,} rows of float64, result in fresh memory",
        fresh + floor,
        bytes=moved,
        note="insitu builds the query anew each time. 'collect' drops each result and so gets its "
        "pages again; 'cold' gives every free page back to the system before the call. The floors "
        "write warm memory.",
    )
    con.close()


def _insitu_warm(setting: Setting, x, y, out) -> list[Contestant]:
    col = setting.insitu.col
    table = setting.region.put("polynomial", {"x": x, "y": y}, replace=True)
    prepared = table.select(r=polynomial(col("x"), col("y"))).prepare()
    contestants = [
        Contestant("insitu: prepared", prepared.run, lambda r: np.array(r["r"].to_numpy()))
    ]
    evaluate = getattr(setting.insitu, "evaluate", None)
    if evaluate:
        arrays = {"x": x, "y": y}
        contestants.append(
            Contestant(
                "insitu: evaluate, NumPy out=", lambda: evaluate(TEXT, arrays, out=out), np.copy
            )
        )
    return contestants


def _insitu_fresh(setting: Setting, x, y) -> list[Contestant]:
    col, region = setting.insitu.col, setting.region
    table = region["polynomial"]

    def collect():
        return table.select(r=polynomial(col("x"), col("y"))).collect()

    def answer(result):
        return np.array(result["r"].to_numpy())

    # The two take turns in one region, so each first makes the pages what its name says.
    return [
        Contestant("insitu: collect", collect, answer, before=collect, once=True),
        Contestant("insitu: collect, cold", collect, answer, before=region.trim, once=True),
    ]
