"""The sum of a column by a key of 100 values: an integer key, then a string key."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from ..harness import Contestant, Row
from ..setting import Setting

GROUPS = 100


@numba.njit(parallel=True)
def grouped(key, value, threads):
    sums = np.zeros((threads, GROUPS + 28))
    step = (key.size + threads - 1) // threads
    for part in numba.prange(threads):
        for i in range(part * step, min(key.size, (part + 1) * step)):
            sums[part, key[i]] += value[i]
    return sums.sum(axis=0)[:GROUPS]


def rows(setting: Setting) -> Iterator[Row]:
    n, rng = setting.rows, setting.random(3)
    key = rng.integers(0, GROUPS, n)
    value = rng.uniform(0, 100, n)
    names = np.array([f"id{i:03}" for i in range(GROUPS)])

    integers = pa.table({"k": key, "v": value})
    numba_threads = setting.threads
    own = [
        Contestant(
            "NumPy: bincount",
            lambda: np.bincount(key, value, GROUPS),
            lambda a: dict(enumerate(a.tolist())),
        ),
        Contestant(
            "numba: parallel",
            lambda: grouped(key, value, numba_threads),
            lambda a: dict(enumerate(a.tolist())),
        ),
    ]
    yield _row(
        setting,
        "group-int",
        "an integer key",
        integers,
        pd.DataFrame({"k": key, "v": value}),
        own,
        [key, value],
    )
    del integers, own

    codes = pa.array(key.astype(np.int32))
    strings = pa.DictionaryArray.from_arrays(codes, pa.array(names)).cast(pa.string())
    text = pa.table({"k": strings, "v": value})
    frame = text.to_pandas()
    encoded = frame.assign(k=frame["k"].astype("category"))
    categories = pl.from_arrow(text).with_columns(pl.col("k").cast(pl.Categorical))
    dictionary = text.set_column(0, "k", text["k"].combine_chunks().dictionary_encode())
    prepared = [
        Contestant(
            "pandas: encoded beforehand",
            lambda: encoded.groupby("k", observed=True)["v"].sum(),
            lambda r: r.to_dict(),
            note="key is a categorical",
        ),
        Contestant(
            "Polars: encoded beforehand",
            lambda: (
                categories.lazy().group_by("k").agg(pl.col("v").sum()).collect(engine="streaming")
            ),
            lambda r: dict(r.iter_rows()),
            note="key is a Categorical",
        ),
        Contestant(
            "pyarrow: encoded beforehand",
            lambda: dictionary.group_by("k").aggregate([("v", "sum")]),
            lambda r: dict(zip(r["k"].to_pylist(), r["v_sum"].to_pylist(), strict=True)),
            note="key is a dictionary",
        ),
    ]
    buffers = [np.frombuffer(b, np.uint8) for b in strings.buffers()[1:]]
    yield _row(setting, "group-str", "a string key", text, frame, prepared, [*buffers, value])


def _row(setting, key, what, table, frame, others, read) -> Row:
    eager = pl.from_arrow(table)
    con = setting.duckdb(t=table)
    query = eager.lazy().group_by("k").agg(pl.col("v").sum())
    sql = "SELECT k, sum(v) FROM {} GROUP BY k"
    native, arrow = sql.format("t"), sql.format("t_arrow")
    contestants = [
        Contestant("pandas", lambda: frame.groupby("k")["v"].sum(), lambda r: r.to_dict()),
        Contestant(
            "pyarrow: group_by",
            lambda: table.group_by("k").aggregate([("v", "sum")]),
            lambda r: dict(zip(r["k"].to_pylist(), r["v_sum"].to_pylist(), strict=True)),
        ),
        Contestant(
            "Polars: eager",
            lambda: eager.group_by("k").agg(pl.col("v").sum()),
            lambda r: dict(r.iter_rows()),
        ),
        Contestant(
            "Polars: lazy, in-memory",
            lambda: query.collect(engine="in-memory"),
            lambda r: dict(r.iter_rows()),
        ),
        Contestant(
            "Polars: lazy, streaming",
            lambda: query.collect(engine="streaming"),
            lambda r: dict(r.iter_rows()),
        ),
        Contestant("DuckDB: its own table", lambda: con.execute(native).fetchall(), dict),
        Contestant("DuckDB: over Arrow", lambda: con.execute(arrow).fetchall(), dict),
        *others,
    ]
    if setting.insitu:
        contestants[:0] = _insitu(setting, table, key)
    return Row(
        key,
        f"sum by {what} of {GROUPS} values, {setting.rows:,} rows",
        contestants + setting.floor.read(read),
        bytes=sum(array.nbytes for array in read),
        note=""
        if key == "group-int"
        else "NumPy stands aside: it has no way to group strings that one would use.",
        close=con.close,
    )


def _insitu(setting: Setting, table: pa.Table, key: str) -> list[Contestant]:
    col = setting.insitu.col
    t = setting.region.put(key, table, replace=True)

    def query():
        return t.group_by("k").agg(col("v").sum())

    def answer(result):
        result = result.to_arrow()
        return dict(zip(result["k"].to_pylist(), result["v"].to_pylist(), strict=True))

    prepared = query().prepare()
    return [
        Contestant("insitu: prepared", prepared.run, answer),
        Contestant("insitu", lambda: query().collect(), answer),
    ]
