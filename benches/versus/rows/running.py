"""The running sum and the largest value so far of a float64 column.

insitu drops each result and so writes the next one into the same pages; NumPy does with `out=`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..harness import Contestant, Row
from ..setting import Setting


def rows(setting: Setting) -> Iterator[Row]:
    n = setting.rows
    x = setting.random(12).normal(size=n)
    out = np.ones(n)
    array, series = pa.array(x), pd.Series(x)
    eager = pl.Series("x", x)
    t = setting.region.put("running", {"x": x}, replace=True) if setting.insitu else None
    for key, title, method, accumulate, arrow in (
        ("cum-sum", "running sum", "cum_sum", np.add.accumulate, pc.cumulative_sum),
        ("cum-max", "largest so far", "cum_max", np.maximum.accumulate, pc.cumulative_max),
    ):
        contestants = [
            Contestant("NumPy", lambda f=accumulate: f(x), np.asarray),
            Contestant("NumPy: out=", lambda f=accumulate: f(x, out=out), np.copy),
            Contestant("pandas", getattr(series, method.replace("_", "")), np.asarray),
            Contestant("pyarrow.compute", lambda f=arrow: f(array), np.asarray, engine="pyarrow"),
            Contestant("Polars: eager", getattr(eager, method), lambda s: s.to_numpy()),
            Contestant(
                "Polars: lazy, streaming",
                lambda method=method: (
                    eager.to_frame()
                    .lazy()
                    .select(getattr(pl.col("x"), method)())
                    .collect(engine="streaming")
                ),
                lambda frame: frame["x"].to_numpy(),
            ),
        ]
        if t is not None:
            prepared = t.select(r=getattr(setting.insitu.col("x"), method)()).prepare()
            contestants.insert(0, Contestant("insitu: prepared", prepared.run, _values))
        yield Row(
            key,
            f"{title} of {n:,} float64",
            contestants + setting.floor.triad(n),
            tolerance=1e-7,
            bytes=16 * n,
        )


def _values(table: Any) -> np.ndarray:
    return np.array(table["r"].to_numpy())
