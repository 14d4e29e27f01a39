"""Updates: over the old values and swapped in, against NumPy and pyarrow, in one process and in
several, interrupted and killed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from insitu import col, lit, when

from test_query_differential import NUMBERS, random_array

WAYS: list[dict[str, Any]] = [{}, {"in_place": True}, {"atomic": True}]


def counts(region: ins.Region) -> tuple[int, int]:
    stats = region.stats()
    return stats["updates_in_place"], stats["updates_swapped"]


def same(got: pa.ChunkedArray, wanted: pa.Array) -> None:
    """Equal bits where a value is, and nulls at the same rows."""
    got = got.combine_chunks()
    assert got.type == wanted.type
    assert got.is_null().equals(wanted.is_null())
    if pa.types.is_floating(got.type):
        both = [np.asarray(pc.fill_null(a, 0.0)) for a in (got, wanted)]
        unsigned = f"u{both[0].dtype.itemsize}"
        nan = np.isnan(both[0])
        assert (nan == np.isnan(both[1])).all()
        assert (both[0].view(unsigned)[~nan] == both[1].view(unsigned)[~nan]).all()
    else:
        assert got.equals(wanted)


# What an update means


@pytest.mark.parametrize("rows", [0, 1, 63, 257, 1000, 70_000, 200_000])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_of_all_types(region: ins.Region, dtype: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    with np.errstate(all="ignore"):
        data = {
            "a": random_array(dtype, rows, rng),
            "b": random_array(dtype, rows, rng),
            "c": random_array(dtype, rows, rng, nulls=0),
            "w": random_array("bool", rows, rng),
        }
        # A bitmap, whatever chance says; a sliced origin, whose bits begin inside a byte.
        data["a"] = pa.concat_arrays([data["a"], pa.nulls(3, data["a"].type)])[3:]
        a, b, c, w = (data[k] for k in "abcw")
        chosen = pc.fill_null(w, False)
        new = {
            "a": pc.if_else(chosen, pc.add(pc.multiply(a, c), b), a),
            "c": pc.if_else(chosen, pc.subtract(c, c), c),
        }
    for way in WAYS:
        t = region.put("t", pa.table(data), replace=True)
        t.update(a=col("a") * col("c") + col("b"), c=col("c") - col("c"), where=col("w"), **way)
        same(t["a"].to_arrow(), new["a"])
        same(t["c"].to_arrow(), new["c"])
        same(t["b"].to_arrow(), b)
    assert region.verify().ok


BITS = """
    import hashlib
    import insitu as ins
    import numpy as np
    from insitu import col
    rng = np.random.default_rng(5)
    region = ins.create(capacity="256MiB")
    data = {"x": rng.normal(size=700_001), "y": rng.normal(size=700_001)}
    for way in ("in_place", "atomic"):
        t = region.put("t", data, replace=True)
        t.update(x=col("x") * col("y") - col("x").mean(), y=(col("y") + col("x").sum()) / 3,
                 where=col("y") > col("y").mean(), **{way: True})
        print(*(hashlib.sha256(t[c].to_numpy()).hexdigest() for c in "xy"))
"""


def test_the_same_bits_at_any_number_of_threads(run: Any) -> None:
    lines: set[str] = set()
    for threads in ("1", "2", "7"):
        said = run(BITS, env={**os.environ, "INSITU_THREADS": threads})
        assert said.code == 0, said.errors
        lines.update(said.output.splitlines())
    assert len(lines) == 1


def test_every_right_hand_side_reads_old_values(region: ins.Region) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=100_000), rng.normal(size=100_000)
    for way in WAYS:
        t = region.put("t", {"a": a, "b": b}, replace=True)
        assert t.update({"a": col("b"), "b": col("a")}, **way) is t
        assert (t["a"].to_numpy() == b).all()
        assert (t["b"].to_numpy() == a).all()
    for way in WAYS:
        t = region.put("t", {"a": a, "b": b}, replace=True)
        mean = t["a"].mean()
        t.update(a=col("a") - col("a").mean(), b=col("a").max(), where=col("b") > 0, **way)
        assert (t["a"].to_numpy() == np.where(b > 0, a - mean, a)).all()
        assert (t["b"].to_numpy() == np.where(b > 0, a.max(), b)).all()


def test_against_pandas(region: ins.Region) -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "delay": rng.integers(-10, 200, 5000),
            "speed": rng.normal(size=5000),
            "origin": rng.choice(["JFK", "LGA", "EWR"], 5000),
            "late": rng.random(5000) < 0.5,
            "at": pd.date_range("2024-01-01", periods=5000, freq="min"),
        }
    )
    t = region.put("t", frame)
    rows = frame["origin"] == "JFK"
    t.update(delay=col("delay") * 60, where=col("origin") == "JFK")
    frame.loc[rows, "delay"] *= 60
    t.update(late=col("delay") > 100, speed=0, where=col("speed") < 0)
    rows = frame["speed"] < 0
    frame.loc[rows, "late"] = frame["delay"] > 100
    frame.loc[rows, "speed"] = 0.0
    t.update({"at": pd.Timestamp("2024-02-01")}, where=~col("late"))
    frame.loc[~frame["late"], "at"] = pd.Timestamp("2024-02-01")
    t.update(speed=when(col("late")).then(col("speed") * 2).otherwise(col("delay")))
    frame["speed"] = np.where(frame["late"], frame["speed"] * 2, frame["delay"])
    pd.testing.assert_frame_equal(t.to_pandas(), frame)
    assert counts(region) == (4, 0)


def test_a_null_condition_does_not_choose(region: ins.Region) -> None:
    data = pa.table({"a": [1, 2, 3, None], "w": [True, None, False, True]})
    for way in WAYS:
        t = region.put("t", data, replace=True)
        t.update(a=col("a").fill_null(0) + 10, where=col("w"), **way)
        assert t["a"].to_pylist() == [11, 2, 3, 10]
        t.update(a=None, where=col("a") == 11, **way)
        assert t["a"].to_pylist() == [None, 2, 3, 10]
        t.update(a=7, where=col("a").is_null(), **way)
        t.update(a=8, where=None, **way)
        assert t["a"].to_pylist() == [8] * 4


def test_a_columns_type_never_changes(region: ins.Region) -> None:
    t = region.put("t", {"n": np.arange(5), "x": np.arange(5.0), "s": np.array(["a"] * 5)})
    with pytest.raises(
        ins.TypeMismatch, match=r"never changes a column's type.*\.cast\(\"int64\"\)"
    ):
        t.update(n=col("n") * 1.5)
    for wrong in (1.5, True, "a", col("x"), col("s")):
        with pytest.raises(ins.TypeMismatch):
            t.update(n=wrong)
    t.update(n=(col("n") * 1.5).cast("int64"))
    assert t["n"].to_pylist() == [0, 1, 3, 4, 6]
    t.update(x=col("n"), n=lit(2))
    assert t["x"].to_pylist() == [0.0, 1.0, 3.0, 4.0, 6.0]
    small = region.put("small", {"n": np.arange(3, dtype=np.int8)})
    with pytest.raises(ins.TypeMismatch):
        small.update(n=300)
    assert small.update(n=100)["n"].to_pylist() == [100] * 3


def test_wrong_arguments(region: ins.Region) -> None:
    t = region.put("t", {"delay": np.arange(5)})
    with pytest.raises(ins.UnknownColumn, match=r"did you mean \"delay\".*with_columns") as caught:
        t.update(dely=1)
    assert (caught.value.name, caught.value.nearest) == ("dely", "delay")
    with pytest.raises(ins.UnknownColumn):
        t.update(delay=col("dely"))
    with pytest.raises(ins.InvalidArgument, match="two new values"):
        t.update({"delay": 1}, delay=2)
    with pytest.raises(ins.InvalidArgument, match="a column"):
        t.update()
    with pytest.raises(ins.InvalidArgument, match="one of the two"):
        t.update(delay=1, in_place=True, atomic=True)
    with pytest.raises(ins.InvalidArgument, match="timeout"):
        t.update(delay=1, timeout=-1)
    for mapping in ([("delay", 1)], {1: 1}):
        with pytest.raises(ins.TypeMismatch):
            t.update(mapping)  # type: ignore[arg-type]
    with pytest.raises(ins.TypeMismatch, match="where"):
        t.update(delay=1, where=col("delay"))
    with pytest.raises(ins.Unsupported, match="without a name"):
        t.select("delay").collect().update(delay=1)
    assert t["delay"].to_pylist() == [0, 1, 2, 3, 4]
    assert counts(region) == (0, 0)


def test_a_failing_row_counts_only_if_it_is_chosen(region: ins.Region) -> None:
    top = 2**63 - 1
    data = pa.table(
        {"a": [1, None, top, 4, top] * 30_000, "x": [0.5, 1e300, None, 2.5, -1.0] * 30_000}
    )
    for way in WAYS:
        t = region.put("t", data, replace=True)
        with pytest.raises(ins.Overflow, match="at row 2,"):
            t.update(a=col("a") + 1, checked=True, **way)
        with pytest.raises(ins.CastFailed) as caught:
            t.update(a=col("x").cast("int64"), **way)
        assert caught.value.row == 1
        assert t.to_arrow().equals(data)
        t.update(a=col("a") + 1, where=col("a") < top, checked=True, **way)
        t.update(a=col("x").cast("int64"), where=col("x") < 10, **way)
        assert t["a"].to_pylist()[:5] == [0, None, top, 2, -1]
    wrapped = region.put("t", data, replace=True).update(a=col("a") + 1)
    assert wrapped["a"].to_pylist()[2] == -(2**63)


def test_columns_without_nulls_stay_so(region: ins.Region) -> None:
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("m", pa.int64())])
    data = pa.table([pa.array([1, 2, 3]), pa.array([1, None, 3])], schema=schema)
    for way in WAYS:
        t = region.put("t", data, replace=True)
        with pytest.raises(ins.InvalidData, match=r"\"n\".*row 1 would be null"):
            t.update(n=col("m"), **way)
        t.update(n=col("m") * 2, where=col("m").is_not_null(), **way)
        assert t["n"].to_pylist() == [2, 2, 6]
        assert t.schema == schema


# In place or swapped


def test_the_first_nulls_of_a_column_are_written_in_place(region: ins.Region) -> None:
    values = np.arange(200_000.0)
    t = region.put("t", {"x": values, "b": values > 10, "n": np.arange(200_000) % 7})
    t = t.append({"x": values[:5000], "b": values[:5000] > 10, "n": np.arange(5000) % 7})
    prepared = t.select(n=col("x").count()).prepare()
    assert prepared.run().item() == 205_000
    before = counts(region)
    t.update(x=col("x").shift(1), b=when(col("n") > 3).then(col("b")), in_place=True)
    assert counts(region) == (before[0] + 1, before[1])
    old = np.concatenate([values, values[:5000]])
    got = t.to_arrow()
    assert got["x"].null_count == 1
    np.testing.assert_array_equal(got["x"].to_numpy()[1:], old[:-1])
    n = got["n"].to_numpy()
    assert got["b"].is_null().to_numpy().tolist() == (n <= 3).tolist()
    np.testing.assert_array_equal(got["b"].fill_null(False).to_numpy(), (old > 10) & (n > 3))
    assert prepared.run().item() == 204_999
    del got
    t.update(x=None, where=col("n") == 0, in_place=True)
    assert t.filter(col("n") == 0).select(col("x").count()).item() == 0
    assert region.verify().ok


def test_what_is_in_the_way_of_an_update_in_place(region: ins.Region) -> None:
    t = region.put("t", pa.table({"a": [1, 2, 3], "m": [1, None, 3], "s": ["x", "y", "z"]}))
    view = t["a"].to_numpy()
    with pytest.raises(ins.LeaseHeld) as caught:
        t.update(a=0, in_place=True)
    assert caught.value.holders[0]["pid"] == os.getpid()
    assert str(os.getpid()) in str(caught.value)
    assert t.update(a=col("a") + 1)["a"].to_pylist() == [2, 3, 4]
    assert view.tolist() == [1, 2, 3]
    assert counts(region) == (0, 1)
    del view
    t.update(a=col("a") + 1, in_place=True)

    with t.exclusive(), pytest.raises(ins.Unsupported, match="needs a bitmap"):
        t.update(a=col("m"), in_place=True)
    with pytest.raises(ins.Unsupported, match="utf8"):
        t.update(s=col("s"), in_place=True)
    other = region.put("other", t)
    with pytest.raises(ins.Unsupported, match="shares its memory"):
        t.update(a=0, in_place=True)
    t.update(a=col("m"))
    assert t["a"].to_pylist() == [1, None, 3]
    assert other["a"].to_pylist() == [3, 4, 5]
    t.update(a=col("a") + 1, in_place=True)
    assert t["a"].to_pylist() == [2, None, 4]
    assert region.verify().ok


def test_a_read_only_opener_is_in_the_way(region: ins.Region, name: str, run: Any) -> None:
    t = region.put("t", {"a": np.arange(3)})
    reader = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
            import insitu as ins
            r = ins.open({name!r}, read_only=True)
            print("open", flush=True)
            input()
            print(r["t"]["a"].to_pylist(), flush=True)
            input()
        """),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin
    assert reader.stdout
    assert reader.stdout.readline() == "open\n"
    with pytest.raises(ins.Error, match="read-only"):
        t.update(a=col("a") + 1, in_place=True)
    t.update(a=col("a") + 1)
    reader.stdin.write("\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "[1, 2, 3]\n"
    reader.communicate("\n")
    t.update(a=col("a") + 1, in_place=True)
    assert t["a"].to_pylist() == [2, 3, 4]


def test_handles_and_prepared_queries_follow(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(1000)})
    q = t.filter(col("a") > 5).select(col("a").sum())
    p = q.prepare()
    column, again = t["a"], region["t"]
    pickled = pickle.dumps(t)
    total = q.item()
    views = []
    for i, way in enumerate([{"atomic": True}, {}, {"atomic": True}, {"in_place": True}], 1):
        t.update(a=col("a") + 1000, **way)
        assert p.run().item() == q.item() == column.sum() - 15 * (i == 0)
        assert again["a"].to_numpy()[0] == region["t"]["a"].to_numpy()[0] == 1000 * i
        assert pickle.loads(pickled)["a"].to_numpy()[0] == 1000 * i
        views.append(None)
    assert p.run().item() > total
    named = q.collect("named")
    t.update(a=0)
    assert named.item() > total
    assert q.item() == 0


def test_a_replaced_table_is_not_updated(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(5)})
    pickled = pickle.dumps(t)
    region.put("t", {"a": np.arange(3)}, replace=True)
    for way in WAYS:
        with pytest.raises(ins.Stale):
            t.update(a=1, **way)
    # While somebody keeps it, it can be passed on.
    assert pickle.loads(pickled)["a"].to_pylist() == [0, 1, 2, 3, 4]
    assert t["a"].to_pylist() == [0, 1, 2, 3, 4]
    assert region["t"]["a"].to_pylist() == [0, 1, 2]
    t = None
    with pytest.raises(ins.Stale):
        pickle.loads(pickled).to_arrow()


def test_exclusive(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(5)})
    view = t["a"].to_numpy()
    with pytest.raises(ins.LeaseHeld), t.exclusive(timeout=0.01):
        raise AssertionError
    del view
    with t.exclusive() as alone:
        assert alone["a"].dtype == pa.int64()
        for _ in range(3):
            alone.update(a=col("a") + 1, in_place=True)
        region["t"].update(a=col("a") + 1)
        refused = []

        def elsewhere() -> None:
            try:
                t.update(a=0, timeout=0.01)
            except ins.LeaseHeld as error:
                refused.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert refused
        with pytest.raises(ins.LeaseHeld):
            alone.to_arrow()
        with pytest.raises(ins.LeaseHeld), t.exclusive():
            raise AssertionError
    assert t["a"].to_pylist() == [4, 5, 6, 7, 8]

    def fail(alone: ins.Table) -> None:
        alone.update(a=0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), t.exclusive() as alone:
        fail(alone)
    assert t["a"].to_pylist() == [0] * 5
    assert counts(region) == (5, 0)


def test_reading_and_writing_under_ones_own_lease(any_region: ins.Region) -> None:
    data = pa.table({"a": [3, 1, None, 2], "f": [0.5, 1.5, 2.5, 3.5], "s": ["x", None, "z", "z"]})
    t = any_region.put("t", data)
    column = t["a"]
    biggest = t.select(col("a").max()).prepare()
    with t.exclusive() as own:
        for i in range(3):
            own.update(a=col("a") + own["a"].max())
            assert biggest.run().item() == t["a"].max() == 3 * 2 ** (i + 1)
        assert own.filter(col("a") > 22).select("s").to_arrow()["s"].to_pylist() == ["x", "z"]
        assert own.select(n=ins.len()).item() == 4
        assert column.sum() == 69
        everything = own.select("a", "f", "s").collect()
        head = own.head(2)
        # Copies: what the block does later does not change them.
        copies = own["f"].to_numpy(copy=True), np.asarray(own["f"]), own["f"].to_numpy(copy=None)
        filled = own["a"].to_numpy(copy=True, fill=0)
        assert own.to_numpy(copy=None)["s"].tolist() == ["x", None, "z", "z"]
        assert own["a"].null_count == 1
        assert own["s"].num_chunks == 1
        assert own["s"].to_pylist() == ["x", None, "z", "z"]
        assert own.head(1).select("s").item() == "x"
        for shown in (repr(own), own._repr_html_(), repr(own["a"])):
            assert "null" in shown
            assert "24" in shown
        for view in (
            own.to_arrow,
            own["f"].to_numpy,
            own.to_numpy,
            own["f"].to_arrow,
            own.__arrow_c_stream__,
            own.to_pandas,
            lambda: any_region.put("u", {"u": own["f"]}),
            lambda: own.append(data),
        ):
            with pytest.raises(ins.LeaseHeld, match=r"this thread has the table .* exclusively: "):
                view()
        with pytest.raises(ins.LeaseHeld, match=r"copy=True"):
            own.to_arrow()
        with own.writable() as w:
            w["f"][:2] = -1
            # The lease is in use.
            with pytest.raises(ins.LeaseHeld):
                own["f"].sum()
            with pytest.raises(ins.LeaseHeld), own.writable():
                raise AssertionError
        assert own["f"].sum() == 4
        named = any_region.put("named", own)
        with own.writable() as w:
            w["f"] = own.num_rows
        own.update(a=0, where=col("f") > 0)
    one = any_region.put("one", {"n": [1]})
    with one.exclusive():
        one.update(n=one.item() + one["n"].item())
        assert one.item() == 2
    assert t["f"].to_pylist() == [4.0] * 4
    assert t["a"].to_pylist() == [0] * 4
    for copy in copies:
        assert copy.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert filled.tolist() == [24, 22, 0, 23]
    assert everything.to_arrow()["a"].to_pylist() == [24, 22, None, 23]
    assert everything.to_arrow()["s"].equals(data["s"])
    assert head["a"].to_pylist() == [24, 22]
    assert named["f"].to_pylist() == [-1, -1, 2.5, 3.5]
    assert len(t.append(data)) == 8
    assert any_region.verify().ok


def test_what_cannot_be_in_place_is_swapped_under_ones_own_lease(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(100_000), "b": np.zeros(100_000, bool)})
    twin = region.put("twin", t)
    before = counts(region)
    with t.exclusive():
        with t.writable() as w:
            w["x"][:] = 1
            w["b"][:] = True
        assert counts(region) == (before[0], before[1] + 1)
        assert t["x"].sum() == 100_000
        with pytest.raises(ZeroDivisionError), t.writable() as w:
            w["x"][:] = 2
            raise ZeroDivisionError
        t.update(x=col("x") + t["x"].max(), in_place=True)
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(region["t"]["x"].max()))
        reader.start()
        reader.join(0.1)
        assert seen == []
        t.update(x=5)
    reader.join(30)
    assert seen == [5]
    assert twin["x"].sum() == 4_999_950_000
    assert t["b"].sum() == 100_000
    assert region.verify().ok


def test_statistics_follow(region: ins.Region) -> None:
    rng = np.random.default_rng(3)
    t = region.put("t", {"k": rng.integers(0, 50, 200_000), "x": rng.normal(size=200_000)})
    t["k"].max()
    for way in WAYS:
        # Beyond what was known of the column before: hints must not be believed.
        t.update(k=col("k") + 1_000_000, **way)
        groups = t.group_by("k").agg(n=ins.len()).sort("k").to_pandas()
        k, n = np.unique(t["k"].to_numpy(), return_counts=True)
        assert (groups["k"] == k).all()
        assert (groups["n"] == n).all()


def test_threads_update_one_table(region: ins.Region) -> None:
    t = region.put("t", {"a": np.zeros(300_000, np.int64)})

    def work(kind: int) -> None:
        for i in range(15):
            t.update(a=col("a") + 1, **WAYS[(kind + i) % 2 * 2])
            view = t["a"].to_numpy()
            assert view.min() == view.max()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert t["a"].to_numpy()[[0, -1]].tolist() == [60, 60]
    t = None
    region.gc()
    assert region.stats()["retired"] == 0
    assert region.verify().ok


# Several processes


READER = """
    import sys
    import insitu as ins
    from insitu import col
    t = ins.open(sys.argv[1])["t"]
    p = t.select(col("a").sum()).prepare()
    views = []
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "view":
            views.append(t["a"].to_numpy())
        if line.strip() == "drop":
            views.clear()
        print(p.run().item(), [int(v[0]) for v in views], flush=True)
"""


def test_processes_see_new_content_and_keep_old_views(region: ins.Region, name: str) -> None:
    t = region.put("t", {"a": np.zeros(1000, np.int64)})
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(READER), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]

    def ask(reader: Any, what: str = "") -> str:
        reader.stdin.write(what + "\n")
        reader.stdin.flush()
        return reader.stdout.readline().strip()

    for reader in readers:
        assert reader.stdout
        assert reader.stdout.readline() == "ready\n"
        assert ask(reader, "view") == "0 [0]"
    with pytest.raises(ins.LeaseHeld) as caught:
        t.update(a=1, in_place=True)
    pids = {h["pid"] for h in caught.value.holders}
    assert pids == {reader.pid for reader in readers}
    t.update(a=1)
    for reader in readers:
        assert ask(reader) == "1000 [0]"
    assert ask(readers[0], "view") == "1000 [0, 1]"
    t.update(a=2)
    assert ask(readers[0]) == "2000 [0, 1]"
    assert counts(region) == (0, 2)
    for reader in readers:
        assert ask(reader, "drop") == "2000 []"
    t.update(a=3, in_place=True)
    for reader in readers:
        assert ask(reader) == "3000 []"
    # Who dies with a view is no longer in the way.
    assert ask(readers[0], "view") == "3000 [3]"
    readers[0].kill()
    readers[0].communicate()
    t.update(a=4, in_place=True)
    for reader in readers[1:]:
        assert ask(reader) == "4000 []"
        reader.communicate()
    assert region.verify().ok


ADDER = """
    import sys
    import insitu as ins
    from insitu import col
    t = ins.open(sys.argv[1])["t"]
    for i in range(int(sys.argv[2])):
        t.update(a=col("a") + 1, b=col("b") - 1, atomic=i % 2 == 0, timeout=60)
    v = t["a"].to_numpy()
    assert v.min() == v.max()
"""


def test_updates_of_several_processes_all_count(region: ins.Region, name: str) -> None:
    region.put("t", {"a": np.zeros(200_000, np.int64), "b": np.zeros(200_000, np.int64)})
    adders = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(ADDER), name, "40"])
        for _ in range(4)
    ]
    t = region["t"]
    while any(adder.poll() is None for adder in adders):
        # All rows and all columns of one update, or none.
        sums = t.select(a=col("a").sum(), b=col("b").sum(), m=col("a").max()).to_arrow().to_pylist()
        assert sums[0]["a"] == -sums[0]["b"] == sums[0]["m"] * 200_000
    assert [adder.wait() for adder in adders] == [0] * 4
    assert t["a"].to_numpy()[[0, -1]].tolist() == [160, 160]
    region.gc()
    assert region.verify().ok


# Interrupted, killed


SLOW = """
    import os, signal, sys, threading, time
    import insitu as ins
    import numpy as np
    from insitu import col
    rows = 4_000_000
    region = ins.open(sys.argv[1])
    t = region.put("t", {"x": np.ones(rows)})
    e = col("x")
    for i in range(60):
        e = (e * 1.25 + 1.0).sqrt()
    way = {sys.argv[2]: True}
    began = time.perf_counter()
    t.update(x=e, **way)
    took = time.perf_counter() - began
    t.update(x=1.0)
    def interrupt():
        time.sleep(took / 4)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        t.update(x=e, **way)
        # The signal's turn.
        for i in range(1000): time.sleep(0.01)
        print("no interrupt")
    except KeyboardInterrupt:
        values = np.unique(t["x"].to_numpy())
        print(len(values), "old" if values[0] == 1.0 else "new")
"""


@pytest.mark.parametrize(("way", "left"), [("atomic", "1 old"), ("in_place", "1 new")])
def test_ctrl_c(region: ins.Region, name: str, run: Any, way: str, left: str) -> None:
    said = run(SLOW, name, way)
    assert said.output.strip() == left, said.errors
    assert region["t"]["x"].to_numpy().min() > 0
    assert region.verify().ok


VICTIM = """
    import sys
    import insitu as ins
    from insitu import col
    t = ins.open(sys.argv[1])["t"]
    print("ready", flush=True)
    while True:
        t.update(x=col("x") + 1, n=col("n") + 1, in_place=True)
"""


def kill_an_update(name: str, after: float) -> None:
    """Kills a process that updates the table in place, over and over."""
    victim = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(VICTIM), name], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    time.sleep(after)
    victim.kill()
    victim.communicate()


def is_poisoned(t: ins.Table) -> bool:
    try:
        t.to_arrow()
    except ins.Poisoned:
        return True
    return False


def test_killed_while_updating_in_place(region: ins.Region, name: str) -> None:
    rows = 2_000_000
    t = region.put("t", {"x": np.zeros(rows), "n": np.zeros(rows, np.int32)})
    rng = np.random.default_rng(4)
    poisoned = 0
    for _ in range(20):
        kill_an_update(name, 0.05 + rng.random() * 0.1)
        if is_poisoned(t):
            poisoned += 1
            for use in (lambda: t.update(x=0), t.select("x").collect, t.exclusive().__enter__):
                with pytest.raises(ins.Poisoned):
                    use()
            assert region["t"].repair()["x"].dtype == pa.float64()
        for column in ("x", "n"):
            # Each row is old or new.
            values = t[column].to_numpy()
            assert set(np.unique(values)) <= {values.min(), values.min() + 1}
            del values
        assert region.verify().ok
        t.update(x=0.0, n=0, in_place=True)
        if poisoned >= 3:
            break
    assert poisoned, "never killed at the right moment"


@pytest.mark.parametrize("end", ["replace", "delete"])
def test_a_poisoned_table_can_be_replaced_or_deleted(
    region: ins.Region, name: str, end: str
) -> None:
    rows = 2_000_000
    for _ in range(20):
        region.put("t", {"x": np.zeros(rows), "n": np.zeros(rows, np.int32)}, replace=True)
        kill_an_update(name, 0.08)
        if is_poisoned(region["t"]):
            break
    else:
        pytest.fail("never killed at the right moment")
    if end == "replace":
        assert region.put("t", {"x": np.arange(3.0)}, replace=True)["x"].sum() == 3
    else:
        del region["t"]
        assert "t" not in region
    assert region.verify().ok


@pytest.mark.parametrize("dtype", [pa.string(), pa.large_string(), pa.string_view()])
def test_rows_of_strings_are_set(region: ins.Region, dtype: pa.DataType) -> None:
    texts = pa.array(["a", "b", None, "a string that is longer than a view"], dtype)
    others = pa.array(["w", None, "y", "z"], dtype)
    t = region.put("t", pa.table({"s": texts, "r": others, "n": [1, 2, 3, 4]}))
    before = t["s"].to_arrow()
    t.update(s="x", n=col("n") * 10, where=col("s") == "b")
    assert t["s"].to_pylist() == ["a", "x", None, "a string that is longer than a view"]
    assert t["n"].to_pylist() == [1, 20, 3, 4]
    t.update(s=col("r"), where=col("n") > 3)
    assert t["s"].to_pylist() == ["a", None, None, "z"]
    t.update(s=None, where=col("n") == 4)
    t.update(s="another string of some length", where=col("s").is_null())
    assert t["s"].to_pylist() == ["a"] + ["another string of some length"] * 3
    t.update(s="all")
    assert t["s"].to_pylist() == ["all"] * 4
    assert t.schema.field("s").type == dtype
    assert before.to_pylist() == texts.to_pylist()
    with pytest.raises(ins.Unsupported, match="no width"):
        t.update(s="x", where=col("n") > 3, in_place=True)
    with pytest.raises(ins.TypeMismatch):
        t.update(s=1, where=col("n") > 3)
    assert region.verify().ok
