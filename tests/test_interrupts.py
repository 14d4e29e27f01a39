"""Ctrl-C is heard by whoever waits to read a table that somebody else has exclusively, and others
run meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time

import insitu as ins
import numpy as np
import pytest

PATIENCE = 60

READER = """
    import sys, threading, time
    import insitu as ins
    import pandas, polars
    import pyarrow as pa
    from insitu import col

    region = ins.open(sys.argv[1])
    t, own = region["t"], ins.create(capacity="16MiB")
    column = t["a"]
    query = t.filter(col("a") > 5)
    prepared = t.select(col("a").sum()).prepare()
    waits = {
        "view": lambda: t["a"].to_numpy(),
        "copy": lambda: t["a"].to_numpy(copy=True),
        "either": lambda: t["a"].to_numpy(copy=None),
        "arrays": lambda: t.to_numpy(),
        "arrow": lambda: t.to_arrow(),
        "stream": lambda: pa.table(t),
        "pandas": lambda: t.to_pandas(),
        "polars": lambda: t.to_polars(),
        "head": lambda: t.head(),
        "repr": lambda: repr(t),
        "html": lambda: t._repr_html_(),
        "column's repr": lambda: repr(column),
        "column's list": lambda: column.to_pylist(),
        "column's array": lambda: column.__arrow_c_array__(),
        "nulls": lambda: column.null_count,
        "sum": lambda: column.sum(),
        "collect": lambda: query.collect(),
        "named": lambda: query.collect("named"),
        "item": lambda: t.select(col("a").sum()).item(),
        "query's stream": lambda: pa.table(query),
        "run": lambda: prepared.run(),
        "run on": lambda: prepared.run(table=t),
        "put": lambda: region.put("again", t),
        "put elsewhere": lambda: own.put("again", t),
        "append": lambda: own.put("t", {"a": [1]}).append(t),
    }
    ticks = 0

    def tick():
        global ticks
        while True:
            time.sleep(0.001)
            ticks += 1

    threading.Thread(target=tick, daemon=True).start()
    for name, wait in waits.items():
        began, before = time.monotonic(), ticks
        try:
            print("waits", name, flush=True)
            wait()
            print("came through", name, flush=True)
        except KeyboardInterrupt:
            took = time.monotonic() - began
            others = "others ran" if ticks > before + 5 else "alone"
            print("interrupted", "late" if took > 5 else "in time", others, flush=True)
        except ins.Error as error:
            print("failed", type(error).__name__, flush=True)
    print("done", region.names(), flush=True)
"""


@pytest.mark.timeout(300)
def test_ctrl_c_is_heard_by_readers_that_wait(region: ins.Region, name: str) -> None:
    t = region.put("t", {"a": np.arange(100)})
    command = [sys.executable, "-c", textwrap.dedent(READER), name]
    pipe = subprocess.PIPE
    reader = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert reader.stdout
    said = []
    # The reader opens the table before.
    with t.exclusive():
        while (line := reader.stdout.readline()).startswith("waits "):
            # It waits by now; if not, it is interrupted as it begins to.
            time.sleep(0.3)
            reader.send_signal(signal.SIGINT)
            said.append((line[6:-1], reader.stdout.readline()))
    _, errors = reader.communicate(timeout=PATIENCE)
    assert line == "done ['t']\n", errors
    assert len(said) == 25
    assert [wrong for wrong in said if wrong[1] != "interrupted in time others ran\n"] == []


def test_what_does_not_read_does_not_wait(region: ins.Region) -> None:
    """Handles, their kinds and their ways through pickle are there all the time."""
    t = region.put("t", {"a": np.arange(100)})
    began, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with t.exclusive():
            began.set()
            ended.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    began.wait(PATIENCE)
    try:
        since = time.monotonic()
        again = region["t"]
        assert (again.shape, again.columns, again.nbytes) == ((100, 1), ["a"], 800)
        assert again.select("a").prepare().explain()
        receive, arguments = again.__reduce__()
        assert receive(*arguments).name == "t"
        assert time.monotonic() - since < 5
    finally:
        ended.set()
        holder.join()
