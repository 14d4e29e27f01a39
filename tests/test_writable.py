"""Writing the values of a published table by NumPy: in place, in copies, and when it goes wrong."""

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
import pyarrow as pa
import pytest
from insitu import col

ROWS = 100_000


def data(rows: int = ROWS) -> pa.Table:
    mask = np.arange(rows) % 7 == 0
    return pa.table(
        {
            "i": pa.array(np.arange(rows), mask=mask),
            "f": pa.array(np.arange(rows, dtype=np.float32)),
            "b": pa.array(np.arange(rows) % 2 == 0, mask=mask),
            "t": pa.array(np.arange(rows), pa.timestamp("us", "UTC")),
            "d": pa.array(np.arange(rows, dtype=np.int32), pa.date32()),
            "w": pa.array([b"abc"] * rows, pa.binary(3)),
            "s": pa.array(np.arange(rows).astype(str), mask=mask),
        }
    )


def store(w: ins.Writable, rows: int = ROWS) -> pa.Table:
    """Stores into every column, and says what the table then is."""
    w["i"][:10] = 5
    w["f"][...] *= 2
    w["b"][1::2] = True
    w["t"][3] = np.datetime64("2024-02-29", "us")
    w["d"][4] = 19_000
    w["w"][-1] = b"xyz"
    old = data(rows)
    out = {}
    for name in old.schema.names:
        column = old[name].combine_chunks()
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        if name == "i":
            values = np.arange(rows)
            values[:10] = 5
            column = pa.array(values, mask=~valid)
        elif name == "f":
            column = pa.array(np.arange(rows, dtype=np.float32) * 2)
        elif name == "b":
            column = pa.array(np.ones(rows, bool), mask=~valid)
        elif name == "t":
            values = np.arange(rows).astype("datetime64[us]")
            values[3] = np.datetime64("2024-02-29", "us")
            column = pa.array(values).cast(column.type)
        elif name == "d":
            values = np.arange(rows, dtype=np.int32)
            values[4] = 19_000
            column = pa.array(values, pa.date32())
        elif name == "w":
            column = pa.array([b"abc"] * (rows - 1) + [b"xyz"], pa.binary(3))
        out[name] = column
    return pa.table(out)


@pytest.mark.parametrize("rows", [1_000, ROWS])
def test_values_are_written_in_place(any_region: ins.Region, rows: int) -> None:
    t = any_region.put("t", data(rows))
    other = any_region["t"]
    before = any_region.stats()
    with t.writable() as w:
        expected = store(w, rows)
        view = w["f"]
        stale = view[:]
        with pytest.raises(ins.LeaseHeld):
            other["f"].to_numpy()
        with pytest.raises(ins.TypeMismatch, match="fixed width"):
            w["s"]
        with pytest.raises(ins.UnknownColumn):
            w["nope"]
    assert other.to_arrow().equals(expected)
    assert t.to_arrow().equals(expected)
    after = any_region.stats()
    assert after["updates_in_place"] == before["updates_in_place"] + 1
    assert after["used"] == before["used"]
    assert not view.flags.writeable
    assert stale.flags.writeable  # and a store through it would fault
    assert view[3] == 6
    with pytest.raises(ins.InvalidArgument):
        w["f"]
    # What was known of the old values is not believed.
    assert t.filter(col("f") >= rows).select(n=ins.len()).item() == rows - rows // 2
    assert t["i"].null_count == len(range(0, rows, 7))
    assert any_region.verify().ok


def test_shared_values_are_copied_and_swapped_in(region: ins.Region) -> None:
    t = region.put("t", data())
    twin = region.put("twin", t)
    handle = region["t"]
    before = region.stats()
    with t.writable() as w:
        expected = store(w)
        # Nobody sees it yet.
        assert handle.to_arrow().equals(data())
    assert t.to_arrow().equals(expected)
    assert handle.to_arrow().equals(expected)
    assert twin.to_arrow().equals(data())
    assert region.stats()["updates_swapped"] == before["updates_swapped"] + 1
    del twin, region["twin"]
    with t.writable() as w:
        w["f"] = 1.5
    assert t["f"].sum() == 1.5 * ROWS
    assert region.stats()["updates_in_place"] == before["updates_in_place"] + 1
    assert region.verify().ok


def test_a_read_only_opener_keeps_the_old_values(name: str, region: Any) -> None:
    t = region.put("t", {"x": np.arange(1000)})
    reader = ins.open(name, read_only=True)
    seen = reader["t"]["x"].to_numpy()
    with t.writable() as w:
        w["x"][:] = -1
    assert t["x"].sum() == -1000
    assert seen.tolist() == list(range(1000))
    del seen
    reader.close()


def test_several_chunks_are_one_array(region: ins.Region) -> None:
    t = region.put("t", data(70_000)).append(data(30))
    assert t["i"].num_chunks == 2
    with t.writable() as w:
        assert w["f"].shape == (70_030,)
        w["f"][69_990:70_010] = -1
        w["b"][70_005] = True
    found = t["f"].to_numpy(copy=True)
    assert (found[69_990:70_010] == -1).all()
    assert found[69_989] == 69_989
    assert found[70_010] == 10
    assert t["b"].to_pylist()[70_005] is True


def test_an_exception_ends_the_lease_and_is_not_masked(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(1000), "b": np.zeros(1000, bool)})
    with pytest.raises(ZeroDivisionError), t.writable() as w:
        w["x"][0] = 7
        w["b"][:] = True
        raise ZeroDivisionError
    # In place there is no way back; booleans were packed at the end only.
    assert t["x"].to_numpy()[:2].tolist() == [7, 1]
    assert not t["b"].to_numpy(copy=True).any()
    twin = region.put("twin", t)
    with pytest.raises(ZeroDivisionError), t.writable() as w:
        view = w["x"]
        view[:] = 9
        raise ZeroDivisionError
    assert t["x"].to_numpy()[:2].tolist() == [7, 1]
    assert view.tolist() == [0] * 1000
    assert len(twin) == 1000
    with t.writable():
        pass
    assert region.verify().ok


def test_views_are_in_the_way(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(1000)})
    view = t["x"].to_numpy()
    with pytest.raises(ins.LeaseHeld) as raised, t.writable():
        pass
    assert str(os.getpid()) in str(raised.value)
    del view
    with t.writable() as w:
        w["x"][:] = 0
        with pytest.raises(ins.LeaseHeld), t.writable(timeout=0.05):
            pass
    with pytest.raises(ins.InvalidArgument):
        t.writable(timeout=-1)
    with pytest.raises(ins.InvalidArgument):
        t.writable()["x"]
    with pytest.raises(ins.Unsupported), t.limit(1).collect().writable():
        pass
    region["t"] = {"x": np.arange(3)}
    with pytest.raises(ins.Stale), t.writable():
        pass


def test_readers_of_other_threads_wait(region: ins.Region) -> None:
    t = region.put("t", {"x": np.zeros(1000)})
    seen: list[float] = []
    begun = threading.Event()

    def read() -> None:
        begun.wait(10)
        seen.append(t["x"].sum())

    reader = threading.Thread(target=read)
    reader.start()
    with t.writable() as w:
        w["x"][:500] = 1
        begun.set()
        reader.join(0.2)
        assert seen == []
        w["x"][500:] = 1
    reader.join(10)
    assert seen == [1000.0]


def test_a_process_waits_for_others(name: str, region: Any, run: Callable[..., Any]) -> None:
    t = region.put("t", {"x": np.arange(1000)})
    script = """
    import json, sys, insitu as ins
    t = ins.open(sys.argv[1])["t"]
    try:
        with t.writable(timeout=0.1) as w:
            w["x"][:] = 3
        print(json.dumps("written"))
    except ins.LeaseHeld as error:
        print(json.dumps(str(error)))
    """
    view = t["x"].to_numpy()
    assert str(os.getpid()) in run(script, name).json()
    del view
    assert run(script, name).json() == "written"
    assert t["x"].sum() == 3000


def test_a_process_killed_in_the_block_poisons_the_table(name: str, region: Any) -> None:
    t = region.put("t", {"x": np.arange(100_000)})
    script = """
    import sys, time, insitu as ins
    t = ins.open(sys.argv[1])["t"]
    with t.writable() as w:
        if sys.argv[2] == "store":
            w["x"][:50_000] = -1
        print("stored", flush=True)
        time.sleep(60)
    """
    for what in ("nothing", "store"):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), name, what],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "stored\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if what == "nothing":
            assert t["x"].sum() == 4_999_950_000
            continue
        with pytest.raises(ins.Poisoned):
            t["x"].to_numpy()
        with pytest.raises(ins.Poisoned), t.writable():
            pass
        assert region.stats()["poisoned"] == 1
        t.repair()
        assert region.stats()["poisoned"] == 0
        assert (t["x"].to_numpy()[:50_000] == -1).all()
    region.gc()
    assert region.verify().ok


def test_a_read_only_opener_need_not_wait_for_the_dead(name: str, region: Any) -> None:
    region.put("t", {"x": np.arange(100_000)})
    script = """
    import sys, time, insitu as ins
    t = ins.open(sys.argv[1])["t"]
    with t.exclusive(), t.writable() as w:
        if sys.argv[2] == "store":
            w["x"][:50_000] = -1
        print("ready", flush=True)
        time.sleep(60)
    """
    for what in ("nothing", "store"):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), name, what],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            reader = ins.open(name, read_only=True)
            child.kill()
            child.wait()
        begin = time.monotonic()
        if what == "nothing":
            assert reader["t"]["x"].to_numpy().sum() == 4_999_950_000
        else:
            with pytest.raises(ins.Poisoned, match=r"repair\(\)"):
                reader["t"]["x"].to_numpy()
        assert time.monotonic() - begin < 8, "it waited for who does not come"
        reader.close()
        # Nobody has taken over yet.
        assert {record["kind"] for record in region.leases()} == {"exclusive", "pin"}
        if what == "store":
            assert (region["t"].repair()["x"].to_numpy()[:50_000] == -1).all()
    assert region.verify().ok


def test_a_store_through_a_stale_view_faults(name: str, region: Any) -> None:
    region.put("t", {"x": np.arange(100_000)})
    script = """
    import sys, insitu as ins
    t = ins.open(sys.argv[1])["t"]
    with t.writable() as w:
        stale = w["x"][:]
        stale[0] = -1
    print("ended", flush=True)
    stale[1] = -1
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "ended\n"), done.stderr
    assert region["t"]["x"].to_numpy()[:2].tolist() == [-1, 1]


@pytest.mark.parametrize(
    "values", [np.full(3, 1.5), [1, 2.5, 3], 0.1, np.array([0, 1, 2**31]), float("nan"), np.inf]
)
def test_no_number_is_cut_to_fit(region: ins.Region, values: Any) -> None:
    t = region.put("t", {"i": np.arange(3, dtype=np.int32), "f": np.arange(3.0)})
    with t.writable() as w:
        with pytest.raises(ins.InvalidData, match="'i' of type int32"):
            w["i"] = values
        w["f"] = values
        w["i"] = np.array([4.0, 5.0, -6.0])
    assert t["i"].to_numpy().tolist() == [4, 5, -6]
    if isinstance(values, list):
        with pytest.raises(ins.InvalidData, match=r"2\.5 in row 1"):
            t.append({"i": values, "f": values})
        with region.build("u", {"i": "int32"}, rows=3) as b:
            with pytest.raises(ins.InvalidData, match=r"2\.5 in row 1"):
                b["i"] = values
            b["i"] = [1.0, 2, 3]
        assert region["u"]["i"].to_numpy().tolist() == [1, 2, 3]


def test_what_is_no_number_is_refused_for_integers(region: ins.Region) -> None:
    t = region.put("t", {"i": np.arange(3)})
    with t.writable() as w, pytest.raises(ins.TypeMismatch, match="cannot hold datetime64"):
        w["i"] = np.array(["2020-01-01"] * 3, "datetime64[D]")
    assert t["i"].to_numpy().tolist() == [0, 1, 2]
