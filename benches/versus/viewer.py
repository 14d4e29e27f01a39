"""The other process: imports everything, opens what the first one wrote, each way in turn, and
prints the seconds it took as JSON. Started by `rows/opening.py`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

LAST = "c9"


def ways(
    task: dict[str, Any],
) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]]:
    """By name: open and view; the last column of the view; close."""

    def mapped() -> pa.Table:
        return pa.ipc.open_file(pa.memory_map(task["arrow"])).read_all()

    def leave(view: Any) -> None:
        """Closed by dropping it."""

    peers = {
        "pyarrow: mapped IPC file": (mapped, lambda t: t[LAST], leave),
        "Polars: mapped IPC file, by pyarrow": (
            lambda: pl.from_arrow(mapped()),
            lambda t: t[LAST],
            leave,
        ),
        "NumPy: load, mmap_mode": (
            lambda: np.load(task["npy"], mmap_mode="r"),
            lambda a: a[-1],
            leave,
        ),
    }
    if "arrow" not in task:
        peers = {}
    if "region" not in task:
        return peers
    import insitu

    def whole() -> tuple[Any, pa.Table]:
        region = insitu.open(task["region"])
        return region, region[task["table"]].to_arrow()

    def column() -> tuple[Any, np.ndarray]:
        region = insitu.open(task["region"])
        return region, region[task["table"]][LAST].to_numpy()

    def nothing() -> tuple[Any, None]:
        return insitu.open(task["region"]), None

    ours = {
        "insitu: open alone": (nothing, lambda r: None, lambda r: r[0].close()),
        "insitu: to_arrow": (whole, lambda r: r[1][LAST], lambda r: r[0].close()),
        "insitu: a column to_numpy": (column, lambda r: r[1], lambda r: r[0].close()),
    }
    return ours | peers


def main(task: dict[str, Any]) -> None:
    first: dict[str, float] = {}
    again: dict[str, list[float]] = {}
    sums: dict[str, float] = {}

    def once(name: str) -> tuple[float, Any]:
        start = time.perf_counter()
        view = every[name][0]()
        return time.perf_counter() - start, view

    every = ways(task)
    for name, (_, of, close) in every.items():
        first[name], view = once(name)
        if (column := of(view)) is not None:
            data = np.asarray(column)
            sums[name] = float(data.sum())
            del data
        again[name] = []
        del column
        close(view)
        del view
    for _ in range(task["again"]):
        for name, (_, _, close) in every.items():
            seconds, view = once(name)
            again[name].append(seconds)
            close(view)
            del view
    print(json.dumps({"first": first, "again": again, "sums": sums}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
