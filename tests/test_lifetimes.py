"""Pins and leases end with what they are for, however that ends: in any order, on any thread, by
the garbage collector, at the interpreter's exit. After each the region is as it was before."""

from __future__ import annotations

import gc
import itertools
import random
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col

PATIENCE = 30
ROWS = 50_000


@pytest.fixture
def kept(region: ins.Region) -> Iterator[ins.Region]:
    """A region with one table, which must be all that it holds when the test is over."""
    # Small results leave some memory with the process, for the next ones.
    assert region.put("t", {"a": np.arange(ROWS), "b": np.arange(ROWS) / 2})["a"].sum()
    gc.collect()
    before = region.stats()
    yield region
    gc.collect()
    region.gc()
    stats = region.stats()
    assert region.leases() == []
    assert region.names() == ["t"]
    for key in ("sessions", "retired", "extents", "used"):
        assert stats[key] == before[key], key
    report = region.verify()
    assert report.ok, report.problems
    assert region["t"]["a"].sum() == ROWS * (ROWS - 1) // 2


def holds(region: ins.Region) -> set[str]:
    return {record["kind"] for record in region.leases()}


def test_handles_pin_and_views_lease(kept: ins.Region) -> None:
    assert holds(kept) == set()
    t = kept["t"]
    assert holds(kept) == {"pin"}
    view = t["a"].to_numpy()
    assert holds(kept) == {"pin", "lease"}
    part = view[10:20]
    del view, t
    assert holds(kept) == {"pin", "lease"}
    assert part.sum() == sum(range(10, 20))
    del part
    assert holds(kept) == set()
    query = kept["t"].filter(col("a") > 5)
    prepared = query.prepare()
    assert holds(kept) == {"pin"}
    del query
    assert holds(kept) == {"pin"}
    del prepared


def everything(region: ins.Region) -> dict[str, Any]:
    """One of each kind of object that holds something."""
    t = region["t"]
    arrow = t.to_arrow()
    query = t.select(x=col("a") + 1)
    return {
        "table": t,
        "column": t["a"],
        "view": t["a"].to_numpy(),
        "arrow": arrow,
        "buffer": arrow["b"].chunk(0).buffers()[1],
        "result": query.collect(),
        "prepared": query.prepare(),
        "stream": pa.RecordBatchReader.from_stream(t),
    }


def test_whatever_order_they_go_in(kept: ins.Region) -> None:
    chance = random.Random(0)
    for _ in range(40):
        things = everything(kept)
        order = list(things)
        chance.shuffle(order)
        for key in order:
            # A result that shares nothing has memory of its own.
            assert kept.leases() or set(things) == {"result"}
            del things[key]
        assert kept.leases() == []


def test_views_stay_whatever_else_goes(new_name: Callable[[], str]) -> None:
    name = new_name()
    steps = ["close", "delete", "remove", "drop table", "drop region", "collect"]
    for order in itertools.islice(itertools.permutations(steps), 0, None, 17):
        region: Any = ins.create(name, capacity="8MiB")
        table: Any = region.put("t", {"a": np.arange(ROWS)})
        view, arrow = table["a"].to_numpy(), table.to_arrow()
        for step in order:
            match step:
                case "close" if region:
                    region.close()
                case "delete" if region and not region.closed:
                    del region["t"]
                case "remove":
                    ins.remove(name)
                case "drop table":
                    table = None
                case "drop region":
                    region = None
                case "collect":
                    gc.collect()
            assert view[-1] == ROWS - 1
        assert view.sum() == arrow["a"].to_numpy().sum() == ROWS * (ROWS - 1) // 2


def test_cycles_are_collected(kept: ins.Region) -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self
            self.things = everything(kept)
            self.things["cycle"] = self.things

    gc.disable()
    try:
        nodes = [Node() for _ in range(5)]
        assert holds(kept) == {"pin", "lease"}
        del nodes
        assert holds(kept) == {"pin", "lease"}
        gc.collect()
        assert kept.leases() == []
    finally:
        gc.enable()


def test_finalizers_may_use_the_region(kept: ins.Region) -> None:
    seen = []

    class Node:
        def __init__(self) -> None:
            self.me = self
            self.table = kept["t"]
            self.view = self.table["a"].to_numpy()

        def __del__(self) -> None:
            # In the middle of a collection, with the cycle's parts still there.
            seen.append(int(self.view.sum() - self.table["a"].sum()))
            seen.append(len(kept.leases()))
            kept.put("late", self.table, replace=True)
            del kept["late"]

    node: Any = Node()
    del node
    gc.collect()
    assert seen == [0, 2]


def test_weakref_callbacks_may_use_the_region(kept: ins.Region) -> None:
    seen = []
    view = kept["t"]["a"].to_numpy()
    arrow = kept["t"].to_arrow()

    def gone(_: object = None) -> None:
        seen.append(holds(kept))
        kept.gc()
        seen.append(kept["t"]["a"].sum())

    refs = [weakref.ref(view, gone), weakref.ref(arrow, gone)]
    weakref.finalize(view, gone)
    del view
    assert len(seen) == 4
    del arrow
    assert len(seen) == 6
    assert all(ref() is None for ref in refs)
    assert seen[1::2] == [ROWS * (ROWS - 1) // 2] * 3
    assert kept.leases() == []


def test_views_cross_threads(kept: ins.Region) -> None:
    def make(_: int) -> Any:
        return everything(kept)

    def use_and_drop(things: dict[str, Any]) -> int:
        total = int(things["view"].sum())
        things.clear()
        return total

    with ThreadPoolExecutor(4) as makers, ThreadPoolExecutor(4) as users:
        for _ in range(10):
            made = list(makers.map(make, range(8)))
            assert set(users.map(use_and_drop, made)) == {ROWS * (ROWS - 1) // 2}
            del made
    assert kept.leases() == []


def test_a_threads_own_views_go_with_it(kept: ins.Region) -> None:
    local = threading.local()

    def work() -> None:
        local.things = everything(kept)
        assert holds(kept) == {"pin", "lease"}

    for _ in range(5):
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    assert kept.leases() == []


def test_an_exceptions_frames_hold_until_it_goes(kept: ins.Region) -> None:
    def fail() -> None:
        view = kept["t"]["a"].to_numpy()
        raise RuntimeError(view.sum())

    try:
        fail()
    except RuntimeError as error:
        caught: Any = error
    assert holds(kept) == {"pin", "lease"}
    del caught
    assert kept.leases() == []


def test_generators_hold_until_they_are_closed(kept: ins.Region) -> None:
    def rows() -> Iterator[int]:
        view = kept["t"]["a"].to_numpy()
        yield from view

    some = rows()
    assert next(some) == 0
    assert holds(kept) == {"pin", "lease"}
    some.close()
    assert kept.leases() == []


def test_replaced_tables_are_free_when_their_last_view_goes(kept: ins.Region) -> None:
    before = kept.stats()["used"]
    views = []
    for i in range(5):
        views.append(kept.put("u", {"a": np.full(ROWS, i)}, replace=True)["a"].to_numpy())
    assert kept.stats()["retired"] == 4
    assert [int(view[7]) for view in views] == [0, 1, 2, 3, 4]
    while views:
        del views[len(views) // 2]
    assert kept.stats()["retired"] == 0
    del kept["u"]
    assert kept.stats()["used"] == before


# In processes of their own: the end of an interpreter.

START = """
import atexit, gc, os, sys, threading, time, weakref
import insitu as ins, numpy as np
from insitu import col
region = ins.open(sys.argv[1])
t = region["t"]
view = t["a"].to_numpy()
arrow = t.to_arrow()
result = t.select(x=col("a") + 1).collect()
small = t.select(col("a").sum()).collect()
prepared = t.select(n=ins.len()).prepare()
"""

ENDS = {
    "globals": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "sys.excepthook = lambda *_: None\nraise RuntimeError",
    "os._exit": "os._exit(0)",
    "killed": "os.kill(os.getpid(), 9)",
    "closed, views alive": "region.close()",
    "closed at exit": "atexit.register(region.close)",
    "used at exit": """
def late():
    assert view.sum() == region["t"]["a"].sum()
    region.put("late", result)
    del region["late"]
atexit.register(late)
""",
    "opened at exit": """
def late():
    again = ins.open(sys.argv[1])
    globals()["more"] = again["t"]["b"].to_numpy()
atexit.register(late)
""",
    "cycles": "me = [region, t, view, arrow]\nme.append(me)\ngc.disable()",
    "finalizers": """
class Late:
    def __init__(self):
        self.me, self.region, self.view = self, region, view
    def __del__(self):
        self.region.names()
        self.view[0] + self.view[-1]
keep = Late()
del region, t, view
""",
    "weakref finalizers": """
weakref.finalize(view, lambda: region.leases())
weakref.finalize(arrow, lambda: region.gc())
""",
    "other modules": "sys.things = [region, t, view, arrow, result, small, prepared]",
    "a daemon with views": """
def hold():
    mine = region["t"].to_arrow(), region["t"]["b"].to_numpy()
    started.set()
    time.sleep(600)
started = threading.Event()
threading.Thread(target=hold, daemon=True).start()
started.wait()
""",
    "daemons at work": """
def work():
    mine = region["t"]["a"].to_numpy()
    i = 0
    while True:
        p = t.select(x=(col("a") * i).sum()).prepare()
        p.run()
        region.put(f"work {threading.get_ident()}", {"a": np.arange(2000)}, replace=True)
        i += 1
        started.set()
started = threading.Event()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
started.wait()
time.sleep(0.1)
""",
    "daemons called back": """
import pandas, pyarrow as pa
class Values(dict):
    def items(self):
        time.sleep(0.001)
        return super().items()
def batches():
    while True:
        time.sleep(0.001)
        started.set()
        yield pa.record_batch({"a": np.arange(10)})
def put():
    region.put("work", pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches()))
def stream():
    class Stream:
        __arrow_c_stream__ = pa.RecordBatchReader.from_batches(
            pa.schema({"a": pa.int64()}), batches()
        ).__arrow_c_stream__
    region.put("work too", Stream())
def select():
    while True:
        t.select(*(col("a") + i for i in range(10) if not time.sleep(0.001)))
        region.put("work as well", {"a": np.arange(2000)}, replace=True)["a"].to_pandas()
def update():
    mine = region.put("work of mine", {"a": np.arange(2000)}, replace=True)
    while True:
        mine.update(Values(a=col("a") + 1))
        mine = mine.append({"a": np.arange(3)})
        with region.build("work in progress", {"a": "int64"}, rows=3, replace=True) as b:
            b["a"] = [1, None, 3]
started = threading.Event()
for work in (put, stream, select, update):
    threading.Thread(target=work, daemon=True).start()
started.wait()
time.sleep(0.1)
""",
    "a thread that outlives main": """
def work():
    threading.main_thread().join()
    assert view.sum() == region["t"]["a"].sum()
threading.Thread(target=work).start()
""",
    "a pool that was never shut": """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
futures = [pool.submit(lambda: region["t"].to_arrow()) for _ in range(20)]
""",
    "closed by a daemon": """
def work():
    time.sleep(0.01)
    region.close()
threading.Thread(target=work, daemon=True).start()
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_an_interpreter(kept: ins.Region, name: str, end: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(ENDS[end]), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == {"an exception": 1, "killed": -9}.get(end, 0), errors
    assert errors == ""
    # A region that is left in an orderly way needs nobody to tidy up; views of threads that go on
    # are not dropped.
    if end not in ("os._exit", "killed") and "daemon" not in end:
        remaining = [record for record in kept.leases() if record["pid"] == process.pid]
        assert remaining == []
    for table in kept.names():
        if table.startswith("work"):
            del kept[table]


def test_a_reader_at_exit_does_not_wait_for_anybody(kept: ins.Region, name: str) -> None:
    script = START + "print('ready', flush=True)\nsys.stdin.readline()"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for other in others:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
    assert len({record["pid"] for record in kept.leases()}) == 3
    begin = time.monotonic()
    for other in others:
        other.communicate(b"go\n", timeout=PATIENCE)
        assert other.returncode == 0
    assert time.monotonic() - begin < 10
