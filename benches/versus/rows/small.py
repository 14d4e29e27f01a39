"""A call on 1,000 rows: filter, multiply-add, sum, as a Python float. What is measured is the way
there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numexpr
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..harness import Contestant, Row
from ..setting import Setting

ROWS = 1_000
TEXT = "sum(where(a > 0.5, a * b + c, 0))"


@numba.njit
def fused(a, b, c):
    total = 0.0
    for i in range(a.size):
        if a[i] > 0.5:
            total += a[i] * b[i] + c[i]
    return total


def rows(setting: Setting) -> Iterator[Row]:
    rng = setting.random(4)
    arrays = {name: rng.uniform(size=ROWS) for name in "abc"}
    a, b, c = arrays.values()
    table = pa.table(arrays)
    frame, eager = pd.DataFrame(arrays), pl.from_arrow(table)
    ra, rb, rc = (table[name].chunk(0) for name in "abc")
    con = setting.duckdb(t=table)
    sql = "SELECT sum(a * b + c) FROM {} WHERE a > 0.5"
    native, arrow = sql.format("t"), sql.format("t_arrow")
    con.execute(f"PREPARE q AS {native}")
    # A cursor of its own for the relation: a connection has one open result at a time.
    cursor = con.cursor()
    relation = cursor.sql(native)

    def numpy_call():
        hit = a > 0.5
        return float((a[hit] * b[hit] + c[hit]).sum())

    def pandas_call():
        found = frame[frame["a"] > 0.5]
        return float((found["a"] * found["b"] + found["c"]).sum())

    def arrow_call():
        hit = pc.greater(ra, 0.5)
        total = pc.add(pc.multiply(pc.filter(ra, hit), pc.filter(rb, hit)), pc.filter(rc, hit))
        return pc.sum(total).as_py()

    def polars_query(source):
        return source.filter(pl.col("a") > 0.5).select(
            (pl.col("a") * pl.col("b") + pl.col("c")).sum()
        )

    def numexpr_again():
        return float(numexpr.re_evaluate(local_dict=arrays))

    def numexpr_first():
        numexpr.evaluate(TEXT, arrays)

    lazy = polars_query(eager.lazy())
    contestants = [
        Contestant("NumPy", numpy_call, float),
        Contestant("pandas", pandas_call, float),
        Contestant("pyarrow.compute", arrow_call, float, engine="pyarrow"),
        Contestant("Polars: eager", lambda: polars_query(eager).item(), float),
        Contestant(
            "Polars: lazy, built before, in-memory",
            lambda: lazy.collect(engine="in-memory").item(),
            float,
        ),
        Contestant(
            "Polars: lazy, built before, streaming",
            lambda: lazy.collect(engine="streaming").item(),
            float,
        ),
        Contestant("DuckDB: SQL", lambda: con.execute(native).fetchall()[0][0], float),
        Contestant("DuckDB: prepared", lambda: con.execute("EXECUTE q").fetchall()[0][0], float),
        Contestant("DuckDB: relation, built before", lambda: relation.fetchall()[0][0], float),
        Contestant("DuckDB: over Arrow", lambda: con.execute(arrow).fetchall()[0][0], float),
        Contestant("numexpr", lambda: float(numexpr.evaluate(TEXT, arrays)), float),
        Contestant("numexpr: re_evaluate", numexpr_again, float, before=numexpr_first),
        Contestant("numba", lambda: fused(a, b, c), float, note="compiled beforehand"),
    ]
    if setting.insitu:
        contestants[:0] = _insitu(setting, arrays)
    yield Row(
        "small",
        f"filter, multiply-add and sum of {ROWS:,} rows, to a Python float",
        contestants,
        note="No floor: 24 kB are in the cache.",
    )
    cursor.close()
    con.close()


def _insitu(setting: Setting, arrays) -> list[Contestant]:
    col = setting.insitu.col
    t = setting.region.put("small", arrays, replace=True)

    def query():
        return t.filter(col("a") > 0.5).select((col("a") * col("b") + col("c")).sum())

    prepared = query().prepare()
    return [
        Contestant("insitu: prepared", lambda: prepared.run().item(), float),
        Contestant("insitu: built each time", lambda: query().item(), float),
    ]
