"""Opening what another process wrote, and getting a zero-copy view of a table: timed in spawned processes.

Each child imports everything first, then opens each once (the first time in the process), then again and
again in turn. A row has both: the median over the children of the first, and of each child's median.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..harness import Disagreement, Result, Timing
from ..setting import Setting
from .put import COLUMNS, source

SMALL = 1_000
CHILDREN = 7
AGAIN = 200


def rows(setting: Setting) -> Iterator[Result]:
    block, table = source(setting)
    small = table.slice(0, min(SMALL, table.num_rows)).combine_chunks()
    for size, data, array in (("small", small, block[:, : small.num_rows]), ("large", table, block)):
        stem = Path(setting.shm) / f"{setting.name}-{size}"
        files = [stem.with_suffix(".arrow"), stem.with_suffix(".npy")]
        try:
            with pa.OSFile(str(files[0]), "wb") as sink, pa.ipc.new_file(sink, data.schema) as writer:
                writer.write_table(data)
            np.save(files[1], array)
            task = {"arrow": str(files[0]), "npy": str(files[1]), "rows": data.num_rows, "again": AGAIN}
            if setting.insitu:
                setting.region.put(f"open-{size}", data, replace=True)
                task |= {"region": setting.name, "table": f"open-{size}"}
            yield _measure(size, data, task)
        finally:
            for file in files:
                file.unlink(missing_ok=True)


def _measure(size: str, data: pa.Table, task: dict) -> Result:
    reports = []
    for _ in range(CHILDREN):
        command = [sys.executable, "-m", "benches.versus.rows.opening", json.dumps(task)]
        child = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=300)
        reports.append(json.loads(child.stdout))
    if len({json.dumps(r["sums"]) for r in reports}) != 1 or len(set(reports[0]["sums"].values())) != 1:
        raise Disagreement(f"open, {size}: the views differ: {reports[0]['sums']}")
    timings = []
    for name in reports[0]["first"]:
        engine = name.split(":")[0]
        again = [statistics.median(r["again"][name]) for r in reports]
        timings.append(Timing(f"{name}, again", engine, again))
        timings.append(Timing(f"{name}, first in the process", engine, [r["first"][name] for r in reports]))
    return Result(
        f"open-{size}",
        f"open in another process and view a table of {data.num_rows:,} rows ({data.nbytes / 1e6:,.2f} MB)",
        timings,
        note=f"{CHILDREN} processes; imports are not counted, nor is closing. Peers open a file in shared memory.",
    )


def _child(task: dict) -> None:
    """Runs in the spawned process: opens, times, prints JSON."""
    import time

    import polars as pl

    def arrow():
        return pa.ipc.open_file(pa.memory_map(task["arrow"])).read_all()

    ways = {
        "pyarrow: IPC file": (arrow, lambda t: t["c9"], lambda t: None),
        "Polars: read_ipc": (
            lambda: pl.read_ipc(task["arrow"], memory_map=True),
            lambda t: t["c9"],
            lambda t: None,
        ),
        "NumPy: load, mmap_mode": (
            lambda: np.load(task["npy"], mmap_mode="r"),
            lambda a: a[COLUMNS - 1],
            lambda a: None,
        ),
    }
    if "region" in task:
        import insitu

        def whole():
            region = insitu.open(task["region"])
            return region, region[task["table"]].to_arrow()

        def column():
            region = insitu.open(task["region"])
            return region, region[task["table"]]["c9"].to_numpy()

        ways = {
            "insitu: to_arrow": (whole, lambda r: r[1]["c9"], lambda r: r[0].close()),
            "insitu: a column to_numpy": (column, lambda r: r[1], lambda r: r[0].close()),
        } | ways

    first: dict[str, float] = {}
    again: dict[str, list[float]] = {name: [] for name in ways}
    sums: dict[str, float] = {}

    def once(name: str) -> tuple[float, object]:
        start = time.perf_counter()
        view = ways[name][0]()
        return time.perf_counter() - start, view

    for name, (_, of, close) in ways.items():
        first[name], view = once(name)
        data = np.asarray(of(view))
        assert len(data) == task["rows"]
        sums[name] = float(data.sum())
        del data
        close(view)
        del view
    for _ in range(task["again"]):
        for name in ways:
            seconds, view = once(name)
            again[name].append(seconds)
            ways[name][2](view)
            del view
    print(json.dumps({"first": first, "again": again, "sums": sums}))


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
