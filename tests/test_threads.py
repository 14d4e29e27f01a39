"""Many threads on one region, and the GIL released while the engine works."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import insitu as ins
import numpy as np
from insitu import col

THREADS = 8


def test_threads_put_read_and_delete(region: ins.Region) -> None:
    def work(worker: int) -> int:
        total = 0
        for i in range(20):
            name = f"{worker}-{i}"
            t = region.put(name, {"a": np.arange(1000) + i})
            view = t["a"].to_numpy()
            total += t.filter(col("a") >= 500 + i).select(n=ins.len()).item()
            del region[name]
            assert view[0] == i
        return total

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [500 * 20] * THREADS
    assert region.names() == []
    assert region.verify().ok


def test_threads_share_tables_and_queries(region: ins.Region) -> None:
    a = np.arange(100_000, dtype="f8")
    t = region.put("t", {"a": a, "k": np.arange(100_000) % 10})
    query = t.group_by("k").agg(col("a").sum()).sort("k")
    prepared = t.select((col("a") * 2).sum()).prepare()
    expected = query.to_arrow()

    def work(_: int) -> bool:
        return query.to_arrow() == expected and prepared.run().item() == a.sum() * 2

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(100)))


def test_one_name_replaced_by_many(region: ins.Region) -> None:
    region.put("t", {"a": np.zeros(1000)})
    stop = threading.Event()

    def replace(worker: int) -> None:
        for i in range(100):
            region.put("t", {"a": np.full(1000, worker * 1000 + i)}, replace=True)

    def read() -> int:
        reads = 0
        while not stop.is_set():
            values = region["t"]["a"].to_numpy()
            assert (values == values[0]).all(), "half of one table, half of another"
            reads += 1
        return reads

    with ThreadPoolExecutor(THREADS) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        list(pool.map(replace, range(1, 4)))
        stop.set()
        assert all(reader.result() > 0 for reader in readers)
    assert region.names() == ["t"]


def test_python_runs_while_the_engine_works(region: ins.Region) -> None:
    t = region.put("t", {"a": np.random.default_rng(0).random(2_000_000)})
    expr = col("a")
    for _ in range(100):
        expr = expr * col("a") + 1
    query = t.select(expr.sum())
    ticks = 0
    done = threading.Event()

    def work() -> None:
        query.item()
        query.item()
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.0005)
    worker.join()
    # With the GIL held during a query this thread would get a turn or two between them.
    assert ticks > 10


def test_closing_under_the_feet_of_others() -> None:
    region = ins.create(capacity="32MiB")
    t = region.put("t", {"a": np.arange(100_000)})
    view = t["a"].to_numpy()
    started = threading.Barrier(5)

    def work(_: int) -> str:
        started.wait()
        try:
            for _ in range(1000):
                t.select(col("a").sum()).item()
        except ins.Stale:
            return "stale"
        return "finished"

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, i) for i in range(4)]
        started.wait()
        region.close()
        assert {w.result() for w in workers} <= {"stale", "finished"}
    assert view.sum() == np.arange(100_000).sum()
