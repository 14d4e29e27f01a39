"""Who holds what: each hold names its process, its age, and the line of the program."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from insitu import col

PATIENCE = 30


@contextmanager
def program(
    folder: Path, text: str, *arguments: str, file: str = "jobs/load.py"
) -> Iterator[subprocess.Popen[str]]:
    """A program in a file of its own, which says `ready` and ends when it is told to."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        textwrap.dedent(text) + "\nprint('ready', flush=True)\nimport sys\nsys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        said = process.stdout.readline()
        if said != "ready\n":
            raise AssertionError(process.communicate(timeout=PATIENCE)[1])
        yield process
    finally:
        process.communicate("go\n", timeout=PATIENCE)
    assert process.returncode == 0


def what(region: ins.Region, kind: str, pid: int | None = None) -> list[str]:
    pid = os.getpid() if pid is None else pid
    return [r["what"] for r in region.leases() if r["kind"] == kind and r["pid"] == pid]


def here(offset: int = 0) -> str:
    """This file's line that calls, as holds name it."""
    frame = sys._getframe(1)
    return f"tests/test_holders.py:{frame.f_lineno + offset}"


def test_holds_of_another_process_name_its_lines(
    region: ins.Region, name: str, tmp_path: Path
) -> None:
    region.put("t", {"a": np.arange(100)})
    text = """\
        import sys
        import insitu as ins
        region = ins.open(sys.argv[1])
        t = region["t"]

        def load():
            return t["a"].to_numpy()

        view = load()
    """
    before = time.time()
    with program(tmp_path, text, name) as other:
        assert what(region, "pin", other.pid) == ["jobs/load.py:4"]
        assert what(region, "lease", other.pid) == ["jobs/load.py:7 view"]
        for record in region.leases():
            assert before - 1 <= record["since"] <= time.time() + 1
            assert record["current"]
            assert record["table"] == "t"
    assert region.leases() == []


@pytest.mark.parametrize("how", ["pyarrow", "polars", "pandas", "duckdb", "numpy", "query", "put"])
def test_the_line_is_the_users_whoever_calls(region: ins.Region, how: str) -> None:
    t = region.put("t", {"a": np.arange(10)})
    assert what(region, "pin") == [here(-1)]
    keep: Any
    if how == "pyarrow":
        keep = pa.table(t)
        line = here(-1)
    elif how == "polars":
        polars = pytest.importorskip("polars")
        keep = polars.DataFrame(t)
        line = here(-1)
    elif how == "pandas":
        keep = t.to_pandas(types_mapper=pd.ArrowDtype)
        line = here(-1)
    elif how == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        keep = duckdb.sql("from t").to_arrow_table(), t["a"].to_arrow()
        line = here(-1)
    elif how == "numpy":
        keep = np.asarray(t["a"])
        line = here(-1)
    elif how == "query":
        keep = t.with_columns(b=col("a") * 2).collect()
        line = here(-1)
    else:
        keep = region.put("u", t), t["a"].to_numpy()
        line = here(-1)
    [held] = [r["what"] for r in region.leases() if r["kind"] == "lease" and r["table"] == "t"]
    assert held.split()[0] == line
    del keep


def test_the_first_of_several_holds_is_named(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(10)})
    views = [t["a"].to_numpy()]
    line = here(-1)
    views.append(t["a"].to_numpy())
    assert [text.split()[0] for text in what(region, "lease")] == [line]
    views.clear()
    assert what(region, "lease") == []
    views.append(t["a"].to_numpy())
    assert [text.split()[0] for text in what(region, "lease")] == [here(-1)]


def test_each_thread_has_its_own_line(region: ins.Region) -> None:
    tables = [region.put(f"t{i}", {"a": np.arange(10)}) for i in range(4)]
    views = []

    def one() -> None:
        views.append(tables[0]["a"].to_numpy())

    def two() -> None:
        views.append(tables[1]["a"].to_numpy())

    workers = [threading.Thread(target=work) for work in (one, two)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = {r["table"]: r["what"] for r in region.leases() if r["kind"] == "lease"}
    first = one.__code__.co_firstlineno + 1
    second = two.__code__.co_firstlineno + 1
    assert lines == {
        "t0": f"tests/test_holders.py:{first} view",
        "t1": f"tests/test_holders.py:{second} view",
    }


def test_a_running_query_is_named_while_it_runs(region: ins.Region) -> None:
    t = region.put("t", {"a": np.random.default_rng(0).random(4_000_000)})
    expr = col("a")
    for _ in range(200):
        expr = expr * col("a") + 1
    query = t.select(expr.sum())
    worker = threading.Thread(target=query.item)
    worker.start()
    try:
        deadline = time.monotonic() + PATIENCE
        # What a lease is for is noted right after it was taken.
        while not any(seen := what(region, "lease")) and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        worker.join()
    # Called by the thread itself: there is no line of this file.
    assert seen
    assert seen[0].endswith(" query")


@pytest.mark.parametrize(
    "file",
    [
        "a_rather_long_name_of_a_module_that_nobody_would_choose_but_somebody_has.py",
        "a_rather_long_name_of_a_folder_that_holds_modules/short.py",
        "üñïçøðé/ünïcødé_ünïcødé_ünïcødé_ünïcødé_ünïcødé.py",
    ],
)
def test_long_paths_keep_their_ends(
    region: ins.Region, name: str, tmp_path: Path, file: str
) -> None:
    region.put("t", {"a": np.arange(100)})
    text = """\
        import sys
        import insitu as ins
        view = ins.open(sys.argv[1])["t"]["a"].to_numpy()
    """
    with program(tmp_path, text, name, file=file) as other:
        [said] = what(region, "lease", other.pid)
    place, purpose = said.rsplit(" ", 1)
    assert purpose == "view"
    assert place.endswith(file[-8:] + ":3")
    assert len(said.encode()) <= 48
    assert "\ufffd" not in said


def test_code_without_a_file_has_a_name(
    region: ins.Region, name: str, run: Callable[..., Any]
) -> None:
    region.put("t", {"a": np.arange(100)})
    done = run(
        """
        import sys
        import insitu as ins
        region = ins.open(sys.argv[1])
        exec(compile("view = region['t']['a'].to_numpy()", "<notebook cell>", "exec"))
        print([r["what"] for r in region.leases() if r["kind"] == "lease"])
        """,
        name,
    )
    assert done.output.strip() == "['<notebook cell>:1 view']", done.errors


def test_many_tables_at_once_are_all_listed(region: ins.Region) -> None:
    views = [region.put(f"t{i}", {"a": np.arange(10)})["a"].to_numpy() for i in range(100)]
    records = region.leases()
    assert len({r["table"] for r in records if r["kind"] == "lease"}) == 100
    # Notes are few: the last ones are there.
    last = [r["what"] for r in records if r["table"] == "t99"]
    assert all(text.startswith("tests/test_holders.py:") for text in last)
    assert len(views) == 100


def test_asking_costs_little(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(100)})
    column = t["a"]
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(1000):
            column.to_numpy()
        times.append((time.perf_counter() - begin) / 1000)
    # A microsecond or three; this bound is for loaded machines.
    assert min(times) < 100e-6


@pytest.mark.parametrize("rows", [50_000, None])
def test_what_is_being_built_is_listed(region: ins.Region, rows: int | None) -> None:
    before = time.time()
    b = region.build("t", {"a": "float64", "s": "string"}, rows=rows)
    line = here(-1)
    [record] = region.leases()
    assert (record["kind"], record["table"], record["pid"]) == ("build", "t", os.getpid())
    assert record["what"] == line
    assert before - 1 <= record["since"] <= time.time() + 1
    assert not record["current"]
    assert record["bytes"] >= (400_000 if rows else 0)
    if rows is None:
        b.append({"a": np.zeros(1_000_000), "s": np.full(1_000_000, "x")})
        assert region.leases()[0]["bytes"] >= 8_000_000
        assert region.leases()[0]["what"] == line
    else:
        b["s"] = ["x"] * 50_000
    table = b.seal()
    assert [r["kind"] for r in region.leases()] == ["pin"]
    del table, b
    assert region.leases() == []


def test_builders_that_end_in_other_ways_are_listed_no_more(
    region: ins.Region, name: str, tmp_path: Path
) -> None:
    b = region.build("t", {"a": "int64"}, rows=10)
    b.discard()
    assert region.leases() == []
    b = region.build("t", {"a": "int64"}, rows=10)
    del b
    assert region.leases() == []
    with pytest.raises(KeyError, match="given up"), region.build("t", {"a": "int64"}, rows=10):
        raise KeyError("given up")
    assert region.leases() == []
    with pytest.raises(ins.TypeMismatch):
        region.build("t", {"a": "no such type"})
    assert region.leases() == []
    text = """\
        import sys
        import insitu as ins
        region = ins.open(sys.argv[1])
        building = [region.build(f"t{i}", {"a": "int64"}, rows=10) for i in range(12)]
    """
    with program(tmp_path, text, name) as other:
        found = [r for r in region.leases() if r["kind"] == "build"]
        assert {r["pid"] for r in found} == {other.pid}
        assert [r["table"] for r in found] == [f"t{i}" for i in range(8)]
        assert {r["what"] for r in found} == {"jobs/load.py:4"}
    assert region.leases() == []


def test_long_names_leave_room_for_the_line(region: ins.Region) -> None:
    b = region.build("ü" * 100, {"a": "int64"}, rows=10)
    [record] = region.leases()
    assert record["what"] == here(-2)
    assert len(record["table"]) > 5
    assert ("ü" * 100).startswith(record["table"])
    del b


@pytest.mark.parametrize("how", ["exclusive", "writable", "update", "swap", "put"])
def test_a_handles_pin_stays_as_old_as_it_is(region: ins.Region, how: str) -> None:
    t = region.put("t", {"a": np.arange(10)})
    line = here(-1)
    [pin] = region.leases()
    if how == "exclusive":
        with t.exclusive():
            held = {r["kind"]: r for r in region.leases()}
            assert held["exclusive"]["what"] == f"{here(-2)} exclusive"
            assert held["pin"] == pin
    elif how == "writable":
        with t.writable() as w:
            w["a"][:] = 1
            held = {r["kind"]: r for r in region.leases()}
            assert held["exclusive"]["what"] == f"{here(-3)} writable"
            assert held["pin"] == pin
    elif how == "put":
        keep = region.put("u", t)
        del keep
    else:
        view = t["a"].to_numpy() if how == "swap" else None
        t.update(a=col("a") + 1)
        del view
        assert t["a"].sum() == 55
    [now] = [r for r in region.leases() if r["kind"] == "pin" and r["table"] == "t"]
    assert now["what"] == line
    assert now["since"] == pin["since"]
    assert what(region, "update") == what(region, "exclusive") == []


def test_an_exclusive_block_is_called_that_whatever_it_does(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(10)})
    with t.exclusive():
        line = f"{here(-1)} exclusive"
        assert what(region, "exclusive") == [line]
        t.update(a=col("a") + 1)
        assert what(region, "exclusive") == [line]
        t.update(a=col("a") + 1, atomic=True)
        assert what(region, "exclusive") == [line]
