"""The shape of TPC-H query 6: three range predicates, then the sum of a product; one number comes
out.
"""

from __future__ import annotations

import datetime
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

FROM, TO = datetime.date(1994, 1, 1), datetime.date(1995, 1, 1)
LOW, HIGH, MOST = 0.045, 0.075, 24.0
SQL = """SELECT sum(price * discount) FROM {table}
WHERE shipdate >= DATE '1994-01-01' AND shipdate < DATE '1995-01-01'
AND discount BETWEEN 0.045::DOUBLE AND 0.075::DOUBLE AND quantity < 24"""
TEXT = (
    "sum(where((shipdate >= first) & (shipdate < last) & (discount >= 0.045) & (discount <= 0.075)"
    " & (quantity < 24), price * discount, 0))"
)


@numba.njit(parallel=True)
def fused(shipdate, discount, quantity, price, first, last):
    total = 0.0
    for i in numba.prange(shipdate.size):
        if first <= shipdate[i] < last and LOW <= discount[i] <= HIGH and quantity[i] < MOST:
            total += price[i] * discount[i]
    return total


@numba.njit(parallel=True)
def fused_branchless(shipdate, discount, quantity, price, first, last):
    total = 0.0
    for i in numba.prange(shipdate.size):
        hit = (
            (shipdate[i] >= first)
            & (shipdate[i] < last)
            & (discount[i] >= LOW)
            & (discount[i] <= HIGH)
            & (quantity[i] < MOST)
        )
        total += price[i] * discount[i] if hit else 0.0
    return total


def rows(setting: Setting) -> Iterator[Row]:
    n, rng = setting.rows, setting.random(2)
    days = rng.integers(8036, 10592, n, dtype=np.int32)  # 1992-01-02 to 1998-12-31, days since 1970
    discount = rng.integers(0, 11, n) / 100
    quantity = rng.integers(1, 51, n).astype(np.float64)
    price = np.round(rng.uniform(900, 105_000, n), 2)
    first, last = (FROM - datetime.date(1970, 1, 1)).days, (TO - datetime.date(1970, 1, 1)).days

    columns = {
        "shipdate": pa.array(days, pa.int32()).view(pa.date32()),
        "discount": pa.array(discount),
        "quantity": pa.array(quantity),
        "price": pa.array(price),
    }
    table = pa.table(columns)
    frame = pd.DataFrame(
        {
            "shipdate": days.astype("datetime64[D]"),
            "discount": discount,
            "quantity": quantity,
            "price": price,
        }
    )
    start, end = pd.Timestamp(FROM), pd.Timestamp(TO)
    eager = pl.from_arrow(table)
    con = setting.duckdb(t=table)
    native, arrow = SQL.format(table="t"), SQL.format(table="t_arrow")
    session = setting.datafusion(t=table)

    def numpy_masks():
        hit = (
            (days >= first)
            & (days < last)
            & (discount >= LOW)
            & (discount <= HIGH)
            & (quantity < MOST)
        )
        return np.dot(price[hit], discount[hit])

    def pandas_masks():
        d, s = frame["discount"], frame["shipdate"]
        hit = (s >= start) & (s < end) & (d >= LOW) & (d <= HIGH) & (frame["quantity"] < MOST)
        found = frame.loc[hit, ["price", "discount"]]
        return (found["price"] * found["discount"]).sum()

    def pandas_query():
        found = frame.query(
            "@start <= shipdate < @end and 0.045 <= discount <= 0.075 and quantity < 24",
            local_dict={"start": start, "end": end},
        )
        return (found["price"] * found["discount"]).sum()

    field = pc.field
    condition = (
        (field("shipdate") >= FROM)
        & (field("shipdate") < TO)
        & (field("discount") >= LOW)
        & (field("discount") <= HIGH)
        & (field("quantity") < MOST)
    )

    def arrow_masks():
        s, d = table["shipdate"], table["discount"]
        hit = pc.and_(pc.greater_equal(s, FROM), pc.less(s, TO))
        hit = pc.and_(hit, pc.and_(pc.greater_equal(d, LOW), pc.less_equal(d, HIGH)))
        hit = pc.and_(hit, pc.less(table["quantity"], MOST))
        return pc.sum(pc.multiply(pc.filter(table["price"], hit), pc.filter(d, hit))).as_py()

    def arrow_expression():
        found = table.filter(condition)
        return pc.sum(pc.multiply(found["price"], found["discount"])).as_py()

    def polars_query(source):
        c = pl.col
        return source.filter(
            c("shipdate") >= FROM,
            c("shipdate") < TO,
            c("discount") >= LOW,
            c("discount") <= HIGH,
            c("quantity") < MOST,
        ).select((c("price") * c("discount")).sum())

    lazy = polars_query(eager.lazy())
    local = {
        "shipdate": days,
        "discount": discount,
        "quantity": quantity,
        "price": price,
        "first": first,
        "last": last,
    }
    arrays = (days, discount, quantity, price)

    contestants = [
        Contestant("NumPy", numpy_masks, float),
        Contestant("pandas: masks", pandas_masks, float),
        Contestant("pandas: query", pandas_query, float),
        Contestant("pyarrow.compute", arrow_masks, float, engine="pyarrow"),
        Contestant("pyarrow: filter by expression", arrow_expression, float),
        Contestant("Polars: eager", lambda: polars_query(eager).item(), float),
        Contestant(
            "Polars: lazy, in-memory", lambda: lazy.collect(engine="in-memory").item(), float
        ),
        Contestant(
            "Polars: lazy, streaming", lambda: lazy.collect(engine="streaming").item(), float
        ),
        Contestant("DuckDB: its own table", lambda: con.execute(native).fetchall()[0][0], float),
        Contestant("DuckDB: over Arrow", lambda: con.execute(arrow).fetchall()[0][0], float),
        Contestant(
            "DataFusion: over Arrow",
            lambda: session.sql(native).collect()[0].column(0)[0].as_py(),
            float,
        ),
        Contestant("numexpr", lambda: numexpr.evaluate(TEXT, local), float),
        Contestant("numba: parallel", lambda: fused(*arrays, first, last), float),
        Contestant(
            "numba: parallel, branchless", lambda: fused_branchless(*arrays, first, last), float
        ),
    ]
    if setting.insitu:
        contestants[:0] = _insitu(setting, table)
    yield Row(
        "q6",
        f"TPC-H Q6's shape: three range predicates, sum of a product, {n:,} rows",
        contestants + setting.floor.read(arrays),
        bytes=28 * n,
        note="A date32 and three float64 columns, in random order, so that no zone can be skipped.",
    )
    con.close()


def _insitu(setting: Setting, table: pa.Table) -> list[Contestant]:
    col = setting.insitu.col
    t = setting.region.put("q6", table, replace=True)

    def query():
        return t.filter(
            col("shipdate") >= FROM,
            col("shipdate") < TO,
            col("discount") >= LOW,
            col("discount") <= HIGH,
            col("quantity") < MOST,
        ).select((col("price") * col("discount")).sum())

    prepared = query().prepare()
    return [
        Contestant("insitu: prepared", lambda: prepared.run().item(), float),
        Contestant("insitu", lambda: query().item(), float),
    ]
