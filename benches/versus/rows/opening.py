"""Opening what another process wrote, and getting a zero-copy view of a table: timed in spawned
processes.

Each child (`viewer`) opens each once, the first time in the process, then again and again in turn.
A row has both: the median over the children of the first, and of each child's median.
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
from .put import source

SMALL = 1_000
MANY = 1_000  # tables in a region
CHILDREN = 7
AGAIN = 200


def rows(setting: Setting) -> Iterator[Result]:
    block, table = source(setting)
    small = table.slice(0, min(SMALL, table.num_rows)).combine_chunks()
    for size, data, array in (
        ("small", small, block[:, : small.num_rows]),
        ("large", table, block),
    ):
        stem = Path(setting.shm) / f"{setting.name}-{size}"
        files = [stem.with_suffix(".arrow"), stem.with_suffix(".npy")]
        try:
            with (
                pa.OSFile(str(files[0]), "wb") as sink,
                pa.ipc.new_file(sink, data.schema) as writer,
            ):
                writer.write_table(data)
            np.save(files[1], array)
            task = {"arrow": str(files[0]), "npy": str(files[1]), "again": AGAIN}
            if setting.insitu:
                setting.region.put(f"open-{size}", data, replace=True)
                task |= {"region": setting.name_of(setting.region), "table": f"open-{size}"}
            yield _measure(size, data, task)
        finally:
            for file in files:
                file.unlink(missing_ok=True)
    if setting.insitu:
        region = setting.another()
        name = setting.name_of(region)
        for number in range(MANY):
            region.put(f"t{number}", small)
        yield _measure(
            f"one of {MANY:,} tables", small, {"again": AGAIN, "region": name, "table": "t500"}
        )


def _measure(size: str, data: pa.Table, task: dict) -> Result:
    reports = []
    for _ in range(CHILDREN):
        command = [sys.executable, "-m", "benches.versus.viewer", json.dumps(task)]
        child = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=300)
        reports.append(json.loads(child.stdout))
    if (
        len({json.dumps(r["sums"]) for r in reports}) != 1
        or len(set(reports[0]["sums"].values())) != 1
    ):
        raise Disagreement(f"open, {size}: the views differ: {reports[0]['sums']}")
    timings = []
    for name in reports[0]["first"]:
        engine = name.split(":")[0]
        again = [statistics.median(r["again"][name]) for r in reports]
        timings.append(Timing(f"{name}, again", engine, again))
        timings.append(
            Timing(f"{name}, first in the process", engine, [r["first"][name] for r in reports])
        )
    return Result(
        f"open-{size.replace(' ', '-')}",
        f"open in another process and view {data.num_rows:,} rows ({data.nbytes / 1e6:,.2f} MB)"
        + (f", {size}" if " " in size else ""),
        timings,
        note=f"{CHILDREN} processes; imports are not counted, nor is closing. "
        "Peers open a file in shared memory.",
    )
