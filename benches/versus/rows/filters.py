"""A filter that keeps half the rows, in random order, of four float64 columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..floor import aligned
from ..harness import Contestant, Row
from ..setting import Setting

COLUMNS = "abcd"
SQL = "SELECT * FROM {} WHERE a > 0.5"


def rows(setting: Setting) -> Iterator[Row]:
    n, rng = setting.rows, setting.random(12)
    arrays = {name: rng.random(n) for name in COLUMNS}
    table = pa.table(arrays)
    frame, eager = pd.DataFrame(arrays), pl.from_arrow(table)
    lazy = eager.lazy().filter(pl.col("a") > 0.5)
    con = setting.duckdb(t=table)
    native, arrow = SQL.format("t"), SQL.format("t_arrow")
    kept = int((arrays["a"] > 0.5).sum())
    outs = {name: np.ones(kept) for name in COLUMNS}

    def numpy_masks():
        hit = arrays["a"] > 0.5
        return {name: array[hit] for name, array in arrays.items()}

    def numpy_compress():
        hit = arrays["a"] > 0.5
        return {name: np.compress(hit, a, out=outs[name]) for name, a in arrays.items()}

    def columns(result):
        return {name: np.array(result[name]) for name in COLUMNS}

    def made_in_duckdb(result):
        return columns(con.sql("SELECT * FROM made").fetchnumpy())

    contestants = [
        Contestant("NumPy: masks", numpy_masks, columns),
        Contestant("NumPy: compress, out=", numpy_compress, columns),
        Contestant("pandas", lambda: frame[frame["a"] > 0.5], columns),
        Contestant(
            "pyarrow: filter by a mask", lambda: table.filter(pc.greater(table["a"], 0.5)), columns
        ),
        Contestant(
            "pyarrow: filter by expression", lambda: table.filter(pc.field("a") > 0.5), columns
        ),
        Contestant("Polars: eager", lambda: eager.filter(pl.col("a") > 0.5), columns),
        Contestant("Polars: lazy, in-memory", lambda: lazy.collect(engine="in-memory"), columns),
        Contestant("Polars: lazy, streaming", lambda: lazy.collect(engine="streaming"), columns),
        Contestant("DuckDB: to Arrow", lambda: con.sql(native).to_arrow_table(), columns),
        Contestant("DuckDB: Arrow to Arrow", lambda: con.sql(arrow).to_arrow_table(), columns),
        Contestant(
            "DuckDB: CREATE TABLE AS",
            lambda: con.execute(f"CREATE OR REPLACE TABLE made AS {native}"),
            made_in_duckdb,
        ),
    ]
    if setting.insitu:
        contestants[:0] = _insitu(setting, table)
    # As many bytes as are read here, and as many as are written.
    source, out = aligned(3 * n, 1.0), aligned(3 * n, 2.0)
    yield Row(
        "filter",
        f"a filter that keeps half of {n:,} rows of four float64 columns",
        contestants + setting.floor.copy(out, source),
        bytes=48 * n,
        note="The floors copy three columns, which moves as many bytes. 'prepared' drops each "
        "result and so writes the next one into the same pages; 'cold' gives every free page back "
        "to the system before the call.",
    )
    con.close()
    if setting.insitu:
        del setting.region["filter"]


def _insitu(setting: Setting, table: pa.Table) -> list[Contestant]:
    col, region = setting.insitu.col, setting.region
    t = region.put("filter", table, replace=True)
    prepared = t.filter(col("a") > 0.5).prepare()

    def collect():
        return t.filter(col("a") > 0.5).collect()

    def answer(result):
        return {name: np.array(result[name].to_numpy()) for name in COLUMNS}

    return [
        Contestant("insitu: prepared", prepared.run, answer, before=prepared.run, once=True),
        Contestant("insitu: collect", collect, answer, before=collect, once=True),
        Contestant("insitu: collect, cold", collect, answer, before=region.trim, once=True),
    ]
