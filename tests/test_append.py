"""Appending to published tables: revisions, what they share, appends from several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import insitu as ins
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from insitu import col


def random_batch(rng: np.random.Generator, rows: int) -> pa.Table:
    mask = rng.random(rows) < 0.1
    words = rng.choice(["", "a", "bc", "ünï", "a longer string than twelve bytes"], rows)
    return pa.table(
        {
            "f": pa.array(rng.standard_normal(rows), mask=mask),
            "i": pa.array(rng.integers(0, 100, rows, dtype=np.int16)),
            "b": pa.array(rng.random(rows) < 0.5, mask=mask),
            "s": pa.array(words, mask=mask),
            "l": pa.array(words, pa.large_string()),
            "t": pa.array(rng.integers(0, 1 << 40, rows), pa.timestamp("us"), mask=mask),
            "d": pa.array(rng.choice(list("wxyz"), rows), mask=mask).dictionary_encode(),
            "n": pa.array([[i] * (i % 3) for i in range(rows)], pa.list_(pa.int32()), mask=mask),
            "v": pa.array(words, pa.string_view()),
            "z": pa.nulls(rows),
        }
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_table_of_appends_is_the_table_of_all_rows(any_region: ins.Region, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 5, 64, 3_000, 70_000], 12, p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
    parts = [random_batch(rng, int(rows)) for rows in sizes]
    t = any_region.put("t", parts[0])
    for number, part in enumerate(parts[1:], 2):
        before = t.num_rows
        revision = t.append(part.select(rng.permutation(part.schema.names).tolist()))
        assert t.num_rows == before
        assert revision.num_rows == sum(sizes[:number])
        assert t.latest().num_rows == revision.num_rows
        t = revision
    expected = pa.concat_tables(parts, promote_options="permissive")
    found = any_region["t"].to_arrow()
    found.validate(full=True)
    for name in expected.schema.names:
        assert found[name].to_pylist() == expected[name].to_pylist(), name
        assert t[name].null_count == expected[name].null_count
    if sum(sizes):
        assert t["f"].sum() == pytest.approx(pa.compute.sum(expected["f"]).as_py())
        grouped = t.group_by("s").agg(n=ins.len()).sort("s").to_arrow()["n"].to_pylist()
        counts = expected.group_by("s").aggregate([([], "count_all")]).sort_by("s")
        assert sorted(grouped) == sorted(counts["count_all"].to_pylist())
    assert any_region.verify().ok


def test_revisions_share_the_old_buffers(region: ins.Region) -> None:
    big = {"x": np.arange(500_000, dtype=np.float64)}
    t = region.put("t", big)
    used = region.stats()["used"]
    view = t["x"].to_numpy()
    t2 = t.append({"x": [1.0, 2.0]})
    assert region.stats()["used"] - used < 1 << 20
    first = t2["x"].to_arrow().chunk(0)
    assert first.buffers()[1].address == t["x"].to_arrow().chunk(0).buffers()[1].address
    assert t2.filter(col("x") == 2.0).select(n=ins.len()).item() == 2
    assert len(t) == 500_000
    assert len(t2) == 500_002
    # The view outlives both.
    del t, t2, region["t"]
    assert view[-1] == 499_999


def test_small_appends_leave_few_chunks(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(0), "s": np.array([], "U1")})
    for n in range(500):
        t = t.append({"x": np.arange(n * 8, n * 8 + 8), "s": np.full(8, "s")})
    assert t["x"].num_chunks <= 12
    assert t["x"].to_numpy(copy=True).tolist() == list(range(4_000))
    region.gc()
    assert region.stats()["used"] < 1 << 21


def test_anything_that_put_takes_can_be_appended(region: ins.Region) -> None:
    rows = {"x": [1, 2], "s": ["a", None]}
    t = region.put("t", pa.table(rows))
    other = region.put("other", pa.table(rows))
    for data in [
        pa.table(rows),
        pa.table(rows).to_batches()[0],
        pl.DataFrame(rows),
        pa.table(rows).to_pandas(),
        rows,
        other,
        other.filter(col("x") > 0),
        t,
    ]:
        t = t.append(data)
    assert t.to_arrow().to_pydict() == {"x": [1, 2] * 9, "s": ["a", None] * 9}


def test_what_does_not_fit_is_refused(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(3)})
    for bad, error in [
        ({"y": [1]}, ins.SchemaMismatch),
        ({"x": [1], "y": [1]}, ins.SchemaMismatch),
        (pa.table({"x": [1.5]}), ins.SchemaMismatch),
        ({"x": ["a"]}, ins.InvalidData),
        (5, ins.TypeMismatch),
    ]:
        with pytest.raises(error):
            t.append(bad)  # type: ignore[arg-type]
    with pytest.raises(ins.InvalidArgument, match="name"):
        t.limit(1).collect().append({"x": [1]})
    region["t"] = {"x": np.arange(3)}
    with pytest.raises(ins.Stale, match="replaced"):
        t.append({"x": [1]})
    t = region["t"]
    del region["t"]
    with pytest.raises(ins.Stale):
        t.append({"x": [1]})
    t = region.put("t", {"x": np.arange(3)})
    name = region.name
    reader = ins.open(name, read_only=True)
    with pytest.raises(ins.ReadOnly):
        reader["t"].append({"x": [1]})
    reader.close()
    assert len(region["t"]) == 3


def test_a_handle_follows_its_table_over_updates_and_appends(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(5)})
    first, second = t.append({"x": [5]}), None
    second = t.append({"x": [6]})  # through the oldest handle, on top of the latest
    assert (len(t), len(first), len(second)) == (5, 6, 7)
    assert first.latest()["x"].to_numpy(copy=True).tolist() == list(range(7))


def test_a_handle_of_before_an_append_is_told_where_to_go_on(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(3)})
    latest = t.append({"a": np.arange(3)}).append({"a": np.arange(3)})
    for change in (
        lambda table: table.update(a=col("a") + 1),
        lambda table: table.update(a=col("a") + 1, atomic=True),
        lambda table: table.exclusive().__enter__(),
        lambda table: table.writable().__enter__(),
    ):
        with pytest.raises(ins.Stale, match=r"rows were appended .* latest\(\)"):
            change(t)
    assert t.latest().update(a=0)["a"].to_pylist() == latest["a"].to_pylist() == [0] * 9
    assert t["a"].to_pylist() == [0, 1, 2]
    region["t"] = {"a": np.arange(3)}
    with pytest.raises(ins.Stale, match="replaced or deleted"):
        t.update(a=1)


def test_appends_from_threads_all_land(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(0)})

    def append(thread: int) -> None:
        for n in range(30):
            t.append({"x": np.full(10, thread * 1000 + n)})

    threads = [threading.Thread(target=append, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    found = region["t"]["x"].to_numpy(copy=True)
    assert len(found) == 1200
    assert len(np.unique(found)) == 120


APPENDER = """
import sys, numpy as np, insitu as ins
region = ins.open(sys.argv[1])
t = region["t"]
first = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3])):
    t.append({"x": np.full(10, first + n), "s": np.full(10, str(first + n))})
    print(n, flush=True)
"""


def start(name: str, first: int, count: int) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(APPENDER), name, str(first), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def begin(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def test_appends_from_processes_all_land(name: str, region: Any) -> None:
    region.put("t", {"x": np.arange(0), "s": np.array([], "U1")})
    children = [start(name, 1000 * n, 40) for n in range(3)]
    for child in children:
        begin(child)
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    found = region["t"]["x"].to_numpy(copy=True)
    assert len(found) == 1200
    for n in range(3):
        own = found[(found >= 1000 * n) & (found < 1000 * n + 1000)]
        assert np.array_equal(own, np.repeat(np.arange(1000 * n, 1000 * n + 40), 10))
    assert region["t"]["s"].to_pylist() == [str(x) for x in found]
    assert region.verify().ok


def test_a_process_killed_while_it_appends_loses_nothing_that_was_there(
    name: str, region: Any
) -> None:
    region.put("t", {"x": np.arange(0), "s": np.array([], "U1")})
    rows = 0
    for attempt in range(5):
        child = start(name, 0, 100_000)
        begin(child)
        time.sleep(0.05 * (attempt + 1))
        os.kill(child.pid, signal.SIGKILL)
        assert child.stdin is not None
        assert child.stdout is not None
        said = child.stdout.read().split()
        child.wait()
        child.stdin.close()
        child.stdout.close()
        table = region["t"]
        # What the child had been told is there; of the append that it died in, all or nothing.
        assert len(table) - rows in (10 * len(said), 10 * len(said) + 10)
        rows = len(table)
        table.append({"x": [7] * 10, "s": ["7"] * 10})
        rows += 10
        found = region["t"]
        assert len(found) == rows
        assert found["s"].to_pylist() == [str(x) for x in found["x"].to_pylist()]
        del found, table
        region.gc()
        assert region.verify().ok
    del region["t"]
    region.gc()
    assert region.stats()["used"] == 0


def test_other_processes_see_the_latest(name: str, region: Any, run: Callable[..., Any]) -> None:
    t = region.put("t", {"x": np.arange(3)})
    t.append({"x": np.arange(2)})
    script = """
    import json, sys, insitu as ins
    print(json.dumps(ins.open(sys.argv[1])["t"]["x"].to_pylist()))
    """
    assert run(script, name).json() == [0, 1, 2, 0, 1]
