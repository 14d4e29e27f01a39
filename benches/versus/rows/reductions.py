"""Single reductions of one float64 column, a tenth of it null."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..harness import Contestant, Row
from ..setting import Setting

SQL = {
    "sum": "sum(v)",
    "mean": "avg(v)",
    "min-max": "min(v), max(v)",
    "var": "var_samp(v)",
    "median": "median(v)",
}

# Of Acero, which has threads where pyarrow.compute has none; it has no exact median.
ACERO = {
    "sum": [("v", "sum")],
    "mean": [("v", "mean")],
    "min-max": [("v", "min"), ("v", "max")],
    "var": [("v", "variance", pc.VarianceOptions(ddof=1))],
}


@numba.njit(parallel=True)
def numba_sum(values):
    total, count = 0.0, 0
    for i in numba.prange(values.size):
        if values[i] == values[i]:
            total += values[i]
            count += 1
    return total, count


@numba.njit(parallel=True)
def numba_extremes(values):
    least, most = np.inf, -np.inf
    for i in numba.prange(values.size):
        if values[i] == values[i]:
            least = min(least, values[i])
            most = max(most, values[i])
    return least, most


@numba.njit(parallel=True)
def numba_squares(values, mean):
    total = 0.0
    for i in numba.prange(values.size):
        if values[i] == values[i]:
            total += (values[i] - mean) ** 2
    return total


def rows(setting: Setting) -> Iterator[Row]:
    n, rng = setting.rows, setting.random(8)
    values = rng.normal(50, 20, n)
    null = rng.random(n) < 0.1
    array = pa.array(values, mask=null)
    column = pa.chunked_array([array])
    table = pa.table({"v": column})
    series = pd.Series(np.where(null, np.nan, values))
    eager = pl.from_arrow(table)
    con = setting.duckdb(t=table)
    spaced = series.to_numpy()
    t = setting.region.put("reductions", table, replace=True) if setting.insitu else None
    validity = np.frombuffer(array.buffers()[0], np.uint8)

    for what, sql in SQL.items():
        query = f"SELECT {sql} FROM "
        contestants = [
            Contestant("NumPy: NaN for null", lambda what=what: _numpy(spaced, what), _floats),
            Contestant("pandas: NaN for null", lambda what=what: _pandas(series, what), _floats),
            Contestant(
                "pyarrow.compute",
                lambda what=what: _arrow(column, what),
                _floats,
                engine="pyarrow",
            ),
            Contestant("Polars: eager", lambda what=what: _polars(eager["v"], what), _floats),
            Contestant(
                "Polars: lazy, in-memory",
                lambda what=what: (
                    eager.lazy()
                    .select(_exprs(pl.col("v"), what))
                    .collect(engine="in-memory")
                    .row(0)
                ),
                _floats,
            ),
            Contestant(
                "Polars: lazy, streaming",
                lambda what=what: (
                    eager.lazy()
                    .select(_exprs(pl.col("v"), what))
                    .collect(engine="streaming")
                    .row(0)
                ),
                _floats,
            ),
            Contestant(
                "DuckDB: its own table",
                lambda query=query: con.execute(query + "t").fetchall()[0],
                _floats,
            ),
            Contestant(
                "DuckDB: over Arrow",
                lambda query=query: con.execute(query + "t_arrow").fetchall()[0],
                _floats,
            ),
        ]
        if what in ACERO:
            contestants += [
                Contestant(
                    "pyarrow: Acero",
                    lambda aggregates=ACERO[what]: list(
                        table.group_by([]).aggregate(aggregates).to_pylist()[0].values()
                    ),
                    _floats,
                ),
                Contestant(
                    "numba: parallel, NaN for null",
                    lambda what=what: _numba(spaced, what),
                    _floats,
                ),
            ]
        if t is not None:
            prepared = t.select(_exprs(setting.insitu.col("v"), what)).prepare()
            contestants.insert(
                0,
                Contestant(
                    "insitu: prepared",
                    lambda prepared=prepared: list(
                        prepared.run().to_arrow().to_pylist()[0].values()
                    ),
                    _floats,
                ),
            )
            if what != "min-max":
                contestants.insert(
                    1, Contestant("insitu", lambda what=what: getattr(t["v"], what)(), _floats)
                )
        yield Row(
            what,
            f"{what.replace('-', ' and ')} of {n:,} float64, a tenth of them null",
            contestants + setting.floor.read([values, validity]),
            tolerance=1e-9,
            bytes=values.nbytes + validity.nbytes,
            note="NumPy, pandas and numba have no nulls here: NaN stands for them.",
        )
    con.close()


def _floats(answer: object) -> np.ndarray:
    return np.array([float(v) for v in (answer if isinstance(answer, (tuple, list)) else [answer])])


def _numpy(values: np.ndarray, what: str) -> object:
    if what == "min-max":
        return np.nanmin(values), np.nanmax(values)
    if what == "var":
        return np.nanvar(values, ddof=1)
    return getattr(np, "nan" + what)(values)


def _numba(values: np.ndarray, what: str) -> object:
    if what == "min-max":
        return numba_extremes(values)
    total, count = numba_sum(values)
    mean = total / count
    if what == "var":
        return numba_squares(values, mean) / (count - 1)
    return total if what == "sum" else mean


def _pandas(series: pd.Series, what: str) -> object:
    return (series.min(), series.max()) if what == "min-max" else getattr(series, what)()


def _arrow(column: pa.ChunkedArray, what: str) -> object:
    if what == "min-max":
        return tuple(pc.min_max(column).as_py().values())
    if what == "var":
        return pc.variance(column, ddof=1).as_py()
    if what == "median":
        return pc.quantile(column, 0.5)[0].as_py()
    return getattr(pc, what)(column).as_py()


def _polars(series: pl.Series, what: str) -> object:
    return (series.min(), series.max()) if what == "min-max" else getattr(series, what)()


def _exprs(v: object, what: str) -> list[object]:
    if what == "min-max":
        return [v.min().alias("least"), v.max().alias("most")]
    return [getattr(v, what)()]
