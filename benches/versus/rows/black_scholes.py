"""s*exp(-0.02*t) - k*exp(-0.1*t)*sqrt(log(s/k)**2 + 0.3*t): what the price of an option looks like,
an expression in which the transcendental functions are the work.

Twice, as the polynomial: into memory that was written before, and into fresh memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numba
import numexpr
import numpy as np
import polars as pl
import pyarrow as pa

from ..harness import Contestant, Row
from ..setting import Setting

TEXT = "s*exp(-0.02*t) - k*exp(-0.1*t)*sqrt(log(s/k)**2 + 0.3*t)"
SQL = "s*exp(-0.02*t) - k*exp(-0.1*t)*sqrt(ln(s/k)*ln(s/k) + 0.3*t)"


def numpy_formula(s, k, t):
    return s * np.exp(-0.02 * t) - k * np.exp(-0.1 * t) * np.sqrt(np.log(s / k) ** 2 + 0.3 * t)


def formula(s: Any, k: Any, t: Any) -> Any:
    """The formula for expressions, which have functions as methods."""
    moved = (s / k).log()
    return s * (-0.02 * t).exp() - k * (-0.1 * t).exp() * (moved * moved + 0.3 * t).sqrt()


@numba.njit
def one(s, k, t):
    moved = math.log(s / k)
    return s * math.exp(-0.02 * t) - k * math.exp(-0.1 * t) * math.sqrt(moved * moved + 0.3 * t)


@numba.njit(parallel=True)
def fused(s, k, t, out):
    for i in numba.prange(s.size):
        out[i] = one(s[i], k[i], t[i])
    return out


@numba.njit(parallel=True)
def fused_fresh(s, k, t):
    out = np.empty_like(s)
    for i in numba.prange(s.size):
        out[i] = one(s[i], k[i], t[i])
    return out


def numpy_out(s, k, t, out, scratch):
    """What a NumPy user writes who has read about `out=`."""
    np.divide(s, k, out=out)
    np.log(out, out=out)
    np.multiply(out, out, out=out)
    np.multiply(t, 0.3, out=scratch)
    np.add(out, scratch, out=out)
    np.sqrt(out, out=out)
    np.multiply(t, -0.1, out=scratch)
    np.exp(scratch, out=scratch)
    np.multiply(out, scratch, out=out)
    np.multiply(out, k, out=out)
    np.multiply(t, -0.02, out=scratch)
    np.exp(scratch, out=scratch)
    np.multiply(scratch, s, out=scratch)
    return np.subtract(scratch, out, out=out)


def rows(setting: Setting) -> Iterator[Row]:
    n, rng = setting.rows, setting.random(11)
    s, k, t = rng.uniform(50, 150, n), rng.uniform(50, 150, n), rng.uniform(0.1, 2, n)
    out, scratch = np.ones(n), np.ones(n)
    arrays = {"s": s, "k": k, "t": t}
    floor = setting.floor.triad(n)
    note = "The floors move 24 bytes a row, this 32."

    warm = [
        Contestant("numexpr: out=", lambda: numexpr.evaluate(TEXT, arrays, out=out), np.copy),
        Contestant("numba: parallel, out", lambda: fused(s, k, t, out), np.copy),
        Contestant("NumPy: out= at every step", lambda: numpy_out(s, k, t, out, scratch), np.copy),
    ]
    if setting.insitu:
        warm[:0] = _insitu_warm(setting, arrays)
    yield Row(
        "black-scholes-warm",
        f"{TEXT}, {n:,} rows of float64, into warm memory",
        warm + floor,
        bytes=32 * n,
        note="insitu drops each result and so writes the next one into the same pages; the others "
        "get out=. " + note,
    )
    del warm

    table = pa.table(arrays)
    eager = pl.from_arrow(table)
    ps, pk, pt = pl.col("s"), pl.col("k"), pl.col("t")
    lazy = eager.lazy().select(r=formula(ps, pk, pt))
    con = setting.duckdb(t=table)

    def column(result):
        return np.asarray(result["r"])

    def made_in_duckdb(result):
        return con.sql("SELECT r FROM made").fetchnumpy()["r"]

    fresh = [
        Contestant("NumPy", lambda: numpy_formula(s, k, t), np.asarray),
        Contestant("numexpr", lambda: numexpr.evaluate(TEXT, arrays), np.asarray),
        Contestant("numba: parallel", lambda: fused_fresh(s, k, t), np.asarray),
        Contestant("Polars: eager", lambda: eager.select(r=formula(ps, pk, pt)), column),
        Contestant("Polars: lazy, in-memory", lambda: lazy.collect(engine="in-memory"), column),
        Contestant("Polars: lazy, streaming", lambda: lazy.collect(engine="streaming"), column),
        Contestant(
            "DuckDB: to Arrow",
            lambda: con.sql(f"SELECT {SQL} AS r FROM t").to_arrow_table(),
            column,
        ),
        Contestant(
            "DuckDB: Arrow to Arrow",
            lambda: con.sql(f"SELECT {SQL} AS r FROM t_arrow").to_arrow_table(),
            column,
        ),
        Contestant(
            "DuckDB: CREATE TABLE AS",
            lambda: con.execute(f"CREATE OR REPLACE TABLE made AS SELECT {SQL} AS r FROM t"),
            made_in_duckdb,
        ),
    ]
    if setting.insitu:
        fresh[:0] = _insitu_fresh(setting)
    yield Row(
        "black-scholes-fresh",
        f"{TEXT}, {n:,} rows of float64, result in fresh memory",
        fresh + floor,
        bytes=32 * n,
        note="insitu builds the query anew each time. 'collect' drops each result and so gets its "
        "pages again; 'cold' gives every free page back to the system before the call. " + note,
    )
    con.close()
    if setting.insitu:
        del setting.region["options"]


def _insitu_warm(setting: Setting, arrays: dict[str, np.ndarray]) -> list[Contestant]:
    col = setting.insitu.col
    table = setting.region.put("options", arrays, replace=True)
    prepared = table.select(r=formula(col("s"), col("k"), col("t"))).prepare()
    return [Contestant("insitu: prepared", prepared.run, lambda r: np.array(r["r"].to_numpy()))]


def _insitu_fresh(setting: Setting) -> list[Contestant]:
    col, region = setting.insitu.col, setting.region
    table = region["options"]

    def collect():
        return table.select(r=formula(col("s"), col("k"), col("t"))).collect()

    def answer(result):
        return np.array(result["r"].to_numpy())

    # The two take turns in one region, so each first makes the pages what its name says.
    return [
        Contestant("insitu: collect", collect, answer, before=collect, once=True),
        Contestant("insitu: collect, cold", collect, answer, before=region.trim, once=True),
    ]
