"""Building tables in place: filled columns, appended batches, what a dead builder leaves."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import insitu as ins
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

FIXED = {
    "i8": pa.int8(),
    "u16": pa.uint16(),
    "i32": pa.int32(),
    "u64": pa.uint64(),
    "f16": pa.float16(),
    "f32": pa.float32(),
    "f64": pa.float64(),
    "bool": pa.bool_(),
    "ts": pa.timestamp("us", "UTC"),
    "dur": pa.duration("ns"),
    "d32": pa.date32(),
    "d64": pa.date64(),
    "t32": pa.time32("s"),
    "t64": pa.time64("us"),
    "dec": pa.decimal128(10, 2),
    "fsb": pa.binary(5),
}


def random_bytes(rng: np.random.Generator, dtype: np.dtype[Any], rows: int) -> Any:
    if dtype.kind == "b":
        return rng.integers(0, 2, rows).astype(bool)
    if dtype.kind == "f":
        return rng.standard_normal(rows).astype(dtype)
    if dtype.kind == "V":
        # Small decimals; any bytes will do for the others.
        low = rng.integers(0, 100, (rows, dtype.itemsize), dtype=np.uint8)
        low[:, 2:] = 0
        return low.view(dtype).reshape(rows)
    return rng.integers(0, 86_000, rows).astype("i8").astype(dtype, casting="unsafe")


@pytest.mark.parametrize("rows", [0, 1, 65, 4_000, 140_003])
def test_every_fixed_width_type_is_filled_in_place(any_region: ins.Region, rows: int) -> None:
    rng = np.random.default_rng(rows)
    filled: dict[str, tuple[Any, Any]] = {}
    with any_region.build("t", pa.schema(list(FIXED.items())), rows) as b:
        assert "t" not in any_region
        for name in FIXED:
            view = b[name]
            assert view.shape == (rows,)
            assert view.flags.writeable
            assert b[name] is view
            values = random_bytes(rng, view.dtype, rows)
            view[:] = values
            valid = rng.random(rows) < 0.8
            if name != "f64":
                b.validity(name)[:] = valid
            filled[name] = (values, valid if name != "f64" else np.ones(rows, bool))
    table = b.table.to_arrow()
    # date64 is milliseconds to us, and whole days to pyarrow.
    table.drop_columns("d64").validate(full=True)
    assert any_region["t"].num_rows == rows
    for name, (values, valid) in filled.items():
        array = table[name].combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        assert array.type == FIXED[name]
        assert array.null_count == rows - valid.sum()
        assert np.array_equal(array.is_valid().to_numpy(zero_copy_only=False), valid)
        if rows == 0:
            continue
        if name == "bool":
            expected = pa.array(values, mask=~valid)
            assert array.equals(expected)
            continue
        width = values.dtype.itemsize
        stored = np.frombuffer(array.buffers()[1], np.uint8)[: rows * width]
        values = values.copy()
        values[~valid] = np.zeros(1, values.dtype)[0]  # no stale byte under a null
        assert np.array_equal(stored, np.ascontiguousarray(values).view(np.uint8))
    assert any_region.verify().ok


def test_the_views_are_what_is_published_and_cannot_be_written_any_more(
    region: ins.Region,
) -> None:
    rows = 300_000
    before = region.stats()
    with region.build("t", {"x": "float64", "y": np.int32}, rows=rows) as b:
        x, y = b["x"], b["y"]
        slice_of_x = x[10:20]
        x[:] = np.arange(rows)
        y[:] = 7
    assert not x.flags.writeable
    assert not y.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    assert slice_of_x.tolist() == list(range(10, 20))
    assert np.array_equal(region["t"]["x"].to_numpy(), x)
    after = region.stats()
    # One copy of the values and little else, and nobody copied them.
    assert after["used"] - before["used"] <= rows * 12 + (1 << 18)
    assert after["copies"] == before["copies"]
    # The views keep what they show.
    del region["t"], b
    region.gc()
    assert region.stats()["used"] >= rows * 12
    assert x[-1] == rows - 1
    del x, y, slice_of_x
    gc.collect()
    region.gc()
    assert region.stats()["used"] == before["used"]


def test_a_store_through_a_stale_view_faults_and_corrupts_nothing(name: str, region: Any) -> None:
    script = """
    import sys, numpy as np, insitu as ins
    region = ins.open(sys.argv[1])
    with region.build("t", {"x": "int64"}, rows=100_000) as b:
        b["x"][:] = 1
        stale = b["x"][:]          # a view of the view: its flag says writeable
    assert stale.flags.writeable
    print("sealed", flush=True)
    stale[500] = 2
    print("stored", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert done.stdout == "sealed\n"
    assert region["t"]["x"].sum() == 100_000
    assert region.verify().ok


def test_an_exception_discards_and_is_not_masked(region: ins.Region) -> None:
    before = region.stats()["used"]
    for rows in (10, 200_000, None):
        with (
            pytest.raises(ZeroDivisionError),
            region.build("t", {"x": "int64", "s": "string"}, rows) as b,
        ):
            if rows is None:
                b.append({"x": np.arange(500_000), "s": np.full(500_000, "some text")})
            else:
                view = b["x"]
                view[:] = 5
                b["s"] = ["text"] * rows
            raise ZeroDivisionError
        assert "t" not in region
        assert region.stats()["used"] == before
        if rows is not None:
            assert not view.flags.writeable
            assert view.tolist() == [0] * rows
        with pytest.raises(ins.Stale):
            b.seal()
        with pytest.raises(ins.Stale):
            b["x"]
        with pytest.raises(ins.InvalidArgument):
            b.table  # noqa: B018
        b.discard()


def test_strings_are_assigned_and_the_last_assignment_counts(region: ins.Region) -> None:
    expected = ["a", None, "ü" * 40]
    for name, values in {
        "list": expected,
        "arrow": pa.array(expected),
        "large": pa.array(expected, pa.large_string()),
        "view": pa.array(expected, pa.string_view()),
        "chunked": pa.chunked_array([["a"], [None, "ü" * 40]]),
        "polars": pl.Series(expected),
        "object": np.array(expected, object),
    }.items():
        with region.build(name, {"s": "string", "l": "large_string"}, rows=3) as b:
            b["s"] = ["x"] * 3
            b["s"] = values
            b["l"] = values
        assert region[name]["s"].to_pylist() == expected, name
        assert region[name]["l"].to_pylist() == expected, name
    with region.build("numpy", {"s": str, "b": pa.binary()}, rows=2) as b:
        b["s"] = np.array(["one", "two"])
        b["b"] = [b"\0", None]
        with pytest.raises(ins.ShapeMismatch):
            b["s"] = ["one"]
        with pytest.raises(ins.TypeMismatch):
            b["s"] = "on"
        with pytest.raises(ins.TypeMismatch):
            b["s"] = [1, 2]
        with pytest.raises(ins.TypeMismatch):
            b["s"]
        with pytest.raises(ins.TypeMismatch):
            b.validity("s")
    assert region["numpy"].to_arrow().to_pydict() == {"s": ["one", "two"], "b": [b"\0", None]}
    with pytest.raises(ins.ShapeMismatch, match="never assigned"):
        with region.build("none", {"s": "string"}, rows=2):
            pass
    assert "none" not in region


def test_columns_of_fixed_width_can_be_assigned_too(region: ins.Region) -> None:
    schema = {
        "i": "int32",
        "f": float,
        "b": bool,
        "t": "timestamp[ns]",
        "d": "date32",
        "m": pa.decimal128(6, 2),
    }
    with region.build("t", schema, rows=4) as b:
        b["i"] = [1, None, 3, 4]
        b["i"] = pa.array([1, 2, None, 4], pa.int32())
        b["f"] = 2.5
        b["b"] = np.array([True, False, True, True])
        b["b"] = pa.array([True, None, False, True])
        b["t"] = np.array(["2024-01-01", "NaT", "2024-01-03", "2024-01-04"], "datetime64[ns]")
        b["d"] = np.array(["2024-01-01"] * 4, "datetime64[D]")
        b["m"] = [Decimal("1.25"), None, Decimal("0"), Decimal("-3")]
        with pytest.raises(ins.InvalidData):
            b["i"] = pa.array([1, 2, 3, 1 << 40])
        with pytest.raises(ins.ShapeMismatch):
            b["f"] = np.zeros(3)
        with pytest.raises(ins.ShapeMismatch):
            b["f"] = np.zeros((2, 2))
        with pytest.raises(ins.InvalidData):
            b["f"] = ["x"] * 4
    found = region["t"].to_arrow().to_pydict()
    assert found["i"] == [1, 2, None, 4]
    assert found["f"] == [2.5] * 4
    assert found["b"] == [True, None, False, True]
    assert found["t"][1] is None
    assert [str(d) for d in found["d"]] == ["2024-01-01"] * 4
    assert found["m"] == [Decimal("1.25"), None, Decimal("0.00"), Decimal("-3.00")]
    with region.build("u", {"i": "int64"}, rows=3) as b:
        b["i"] = pa.array([1, None, 3])
        b["i"] = np.array([4, 5, 6])  # no nulls any more
    assert region["u"]["i"].to_numpy().tolist() == [4, 5, 6]  # a view: there are no nulls


def test_dictionaries_and_nested_columns_are_assigned(region: ins.Region) -> None:
    nested = pa.array([[1, 2], None, []], pa.list_(pa.int64()))
    coded = pa.array(["x", None, "x"]).dictionary_encode()
    struct = pa.array([{"a": 1}, {"a": None}, None])
    schema = pa.schema(
        [("n", nested.type), ("c", coded.type), ("s", struct.type), ("z", pa.null())]
    )
    with region.build("t", schema, rows=3) as b:
        b["n"], b["c"], b["s"] = nested, coded, struct
    table = region["t"].to_arrow()
    assert table["n"].to_pylist() == nested.to_pylist()
    assert table["c"].to_pylist() == coded.to_pylist()
    assert table["s"].to_pylist() == struct.to_pylist()
    assert table["z"].null_count == 3


def random_batch(rng: np.random.Generator, rows: int) -> pa.RecordBatch:
    mask = rng.random(rows) < 0.1
    words = rng.choice(["", "a", "bc", "ünï", "a longer string than twelve bytes"], rows)
    return pa.RecordBatch.from_pydict(
        {
            "f": pa.array(rng.standard_normal(rows), mask=mask),
            "i": pa.array(rng.integers(0, 100, rows, dtype=np.int16)),
            "b": pa.array(rng.random(rows) < 0.5, mask=mask),
            "s": pa.array(words, mask=mask),
            "l": pa.array(words, pa.large_string()),
            "y": pa.array([w.encode() for w in words], pa.binary(), mask=mask),
            "t": pa.array(rng.integers(0, 1 << 40, rows), pa.timestamp("us"), mask=mask),
            "w": pa.array([bytes([i % 7] * 3) for i in range(rows)], pa.binary(3), mask=mask),
            "d": pa.array(rng.choice(["x", "y", "z"], rows), mask=mask).dictionary_encode(),
            "n": pa.array([[i] * (i % 3) for i in range(rows)], pa.list_(pa.int32()), mask=mask),
            "v": pa.array(words, pa.string_view(), mask=mask),
            "z": pa.nulls(rows),
        }
    )


@pytest.mark.parametrize("seed", range(4))
def test_appended_batches_are_one_contiguous_table(any_region: ins.Region, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 3, 64, 1000, 70_000], 8, p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
    batches = [random_batch(rng, int(rows)) for rows in sizes]
    with any_region.build("t", batches[0].schema) as b:
        for batch in batches:
            # Sliced and shuffled: found by name, from any row on.
            padded = pa.concat_batches([batch.slice(0, min(1, len(batch))), batch])
            part = padded.slice(len(padded) - len(batch))
            b.append(part.select(rng.permutation(part.schema.names).tolist()))
        assert b.num_rows == sum(sizes)
    expected = pa.Table.from_batches(batches)
    found = any_region["t"].to_arrow()
    found.validate(full=True)
    for name in expected.schema.names:
        assert found[name].num_chunks == 1
        assert found[name].to_pylist() == expected[name].to_pylist(), name
    t = any_region["t"]
    assert t["i"].sum() == pa.compute.sum(expected["i"]).as_py() or not sum(sizes)
    assert t["s"].null_count == expected["s"].null_count
    assert any_region.verify().ok


def test_anything_that_put_takes_can_be_appended(region: ins.Region) -> None:
    rows = {"x": [1, 2], "s": ["a", None]}
    source = region.put("source", pa.table(rows))
    with region.build("t", {"x": "int64", "s": "string"}) as b:
        b.append(pa.table(rows))
        b.append(pa.table(rows).to_batches()[0])
        b.append(pa.table(rows).to_reader())
        b.append(pl.DataFrame(rows))
        b.append(pa.table(rows).to_pandas())
        b.append({"s": ["a", None], "x": [1, 2]})
        b.append({"x": np.array([1, 2], np.int8), "s": np.array(["a", None], object)})
        b.append(source)
        b.append(source.filter(ins.col("x") > 0))
        b.append({"x": [], "s": []})
        for bad, error in [
            ({"x": [1]}, ins.SchemaMismatch),
            ({"x": [1], "s": ["a"], "z": [1]}, ins.SchemaMismatch),
            ({"x": [1], "s": [2]}, ins.TypeMismatch),
            ({"x": [1, 2], "s": ["a"]}, ins.ShapeMismatch),
            (pa.table({"x": [1.5], "s": ["a"]}), ins.SchemaMismatch),
            ([1, 2], ins.TypeMismatch),
        ]:
            with pytest.raises(error):
                b.append(bad)  # type: ignore[arg-type]
        with pytest.raises(ins.InvalidArgument, match="rows"):
            b["x"]
    assert region["t"].to_arrow().to_pydict() == {"x": [1, 2] * 9, "s": ["a", None] * 9}
    with region.build("u", {"x": "int64"}, rows=1) as b:
        with pytest.raises(ins.InvalidArgument, match="rows"):
            b.append({"x": [1]})


def test_the_callers_memory_is_free_after_append(region: ins.Region) -> None:
    buffer = np.zeros(1000, np.int64)
    with region.build("t", {"x": "int64", "d": pa.dictionary(pa.int32(), pa.string())}) as b:
        for value in range(5):
            buffer[:] = value
            b.append({"x": buffer, "d": pa.array([str(value)] * 1000).dictionary_encode()})
    assert region["t"]["x"].to_numpy().tolist() == np.repeat(np.arange(5), 1000).tolist()
    assert region["t"]["d"].to_pylist() == [str(v) for v in range(5) for _ in range(1000)]


def test_large_strings_grow_without_a_second_copy(region: ins.Region) -> None:
    text = np.full(100_000, "0123456789abcdef0123456789abcdef")
    with region.build("t", {"s": "string", "x": "float64"}) as b:
        for _ in range(8):
            b.append({"s": text, "x": np.ones(100_000)})
        assert region.stats()["used"] < 60 << 20
    stats = region.stats()
    data = 800_000 * (32 + 4 + 8)
    assert stats["copies"] == 0
    assert data <= stats["used"] <= data + (1 << 20)
    assert region["t"]["s"].to_arrow().unique().to_pylist() == ["0123456789abcdef" * 2]


def test_names_are_taken_at_entry_and_at_the_end(region: ins.Region) -> None:
    region.put("t", {"x": [1]})
    with pytest.raises(ins.TableExists):
        region.build("t", {"x": "int64"}, rows=1)
    with region.build("t", {"x": "int64"}, rows=1, replace=True) as b:
        b["x"][:] = 2
    assert region["t"]["x"].to_pylist() == [2]
    late = region.build("u", {"x": "int64"}, rows=1)
    region.put("u", {"x": [3]})
    with pytest.raises(ins.TableExists):
        late.seal()
    with pytest.raises(ins.Stale):
        late.seal()
    assert region["u"]["x"].to_pylist() == [3]
    with pytest.raises(ins.UnknownColumn, match="price"):
        with region.build("v", {"price": "int64"}, rows=1) as b:
            b["prise"]
    for schema in [{"x": "nonsense"}, 5, {"x": object}]:
        with pytest.raises(ins.TypeMismatch):
            region.build("v", schema)  # type: ignore[arg-type]
    with pytest.raises(ins.InvalidArgument):
        region.build("v", pa.schema([("x", pa.int8()), ("x", pa.int8())]), 1)
    with pytest.raises(ins.Unsupported):
        region.build("v", {"x": pa.union([pa.field("a", pa.int8())], "sparse")}, 1)
    with pytest.raises(ins.RegionFull):
        region.build("v", {"x": "int64"}, rows=1 << 30)


def test_sealing_by_hand(region: ins.Region) -> None:
    b = region.build("t", {"x": "int64"}, rows=2, zero=True)
    assert b["x"].tolist() == [0, 0]
    table = b.seal()
    assert table["x"].to_pylist() == b.table["x"].to_pylist() == [0, 0]
    with pytest.raises(ins.InvalidArgument, match="sealed"):
        b["x"]
    with pytest.raises(ins.InvalidArgument, match="sealed"):
        b.seal()
    b.discard()
    assert "t" in region
    with region.build("u", {"x": "int64"}, rows=1) as b:
        b.seal()
    with region.build("v", {"x": "int64"}, rows=1) as b:
        b.discard()
    assert "u" in region
    assert "v" not in region


def test_zero_means_zero_in_memory_that_was_used_before(region: ins.Region) -> None:
    region.put("junk", {"x": np.full(1_000_000, 0x77)})
    del region["junk"]
    with region.build("t", {"x": "int64", "b": bool}, rows=1_000_000, zero=True):
        pass
    assert region["t"]["x"].sum() == 0
    assert not region["t"]["b"].to_numpy(copy=True).any()


def test_nulls_where_none_may_be(region: ins.Region) -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    with pytest.raises(ins.InvalidData, match="row 1"), region.build("t", schema, rows=3) as b:
        b.validity("x")[1] = False
    with pytest.raises(ins.InvalidData, match="row 1"), region.build("t", schema) as b:
        b.append(pa.table({"x": pa.array([1, None])}))
    assert "t" not in region


def test_invalid_strings_are_found_at_the_end(region: ins.Region) -> None:
    broken = pa.array([b"fine", b"\xff\xfe"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, broken.buffers())
    with pytest.raises(ins.InvalidData, match="UTF-8"), region.build("t", {"s": "string"}) as b:
        b.append(pa.table({"s": broken}))
    assert "t" not in region


def test_several_threads_fill_and_several_build(region: ins.Region) -> None:
    rows = 400_000
    with region.build("t", {"x": "int64"}, rows=rows) as b:
        view = b["x"]

        def fill(part: int) -> None:
            view[part::4] = np.arange(part, rows, 4)

        threads = [threading.Thread(target=fill, args=(part,)) for part in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert np.array_equal(region["t"]["x"].to_numpy(), np.arange(rows))

    def build(number: int) -> None:
        with region.build(f"b{number}", {"x": "int64", "s": "string"}) as b:
            for _ in range(20):
                b.append({"x": np.full(5_000, number), "s": np.full(5_000, str(number))})

    threads = [threading.Thread(target=build, args=(number,)) for number in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for number in range(6):
        assert region[f"b{number}"]["x"].sum() == number * 100_000
        assert region[f"b{number}"]["s"].to_arrow().unique().to_pylist() == [str(number)]
    assert region.verify().ok


@pytest.mark.parametrize("rows", [50_000, None])
def test_a_process_killed_while_it_builds_leaks_nothing(
    name: str, region: ins.Region, rows: int | None
) -> None:
    before = region.stats()["used"]
    script = """
    import sys, time, numpy as np, insitu as ins
    region = ins.open(sys.argv[1])
    rows = eval(sys.argv[2])
    builders = []
    for i in range(5):
        b = region.build(f"t{i}", {"x": "int64", "s": "string"}, rows)
        builders.append(b)
        if rows is None:
            for _ in range(10):
                b.append({"x": np.arange(50_000), "s": np.full(50_000, "text" * 10)})
        else:
            b["x"][:] = 1
            b["s"] = ["x"] * rows
    print("built", flush=True)
    time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), name, repr(rows)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "built\n"
    assert region.stats()["used"] > before + (1 << 20)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    region.gc()
    assert region.stats()["used"] == before
    assert region.names() == []
    assert region.verify().ok


def test_other_processes_see_it_at_once(name: str, region: Any, run: Callable[..., Any]) -> None:
    with region.build("t", {"x": "float64", "s": "string"}, rows=1000) as b:
        b["x"][:] = np.arange(1000)
        b["s"] = [str(i) for i in range(1000)]
    script = """
    import json, sys, insitu as ins
    t = ins.open(sys.argv[1])["t"]
    print(json.dumps([t["x"].sum(), t["s"].to_pylist()[-1], t["x"].null_count]))
    """
    assert run(script, name).json() == [499500.0, "999", 0]


def test_a_read_only_opener_builds_nothing(name: str, region: Any) -> None:
    reader = ins.open(name, read_only=True)
    with pytest.raises(ins.ReadOnly):
        reader.build("t", {"x": "int64"}, rows=1)
    reader.close()


def test_a_closed_region_ends_its_builders(region: ins.Region) -> None:
    b = region.build("t", {"x": "int64"}, rows=100_000)
    view = b["x"]
    region.close()
    with pytest.raises(ins.Stale):
        b.seal()
    assert view[0] == 0


def test_what_is_appended_may_come_from_who_looks_at_the_builder(region: ins.Region) -> None:
    schema = pa.schema({"x": pa.int64()})
    refused = []

    def batches() -> Any:
        for i in range(3):
            # While an append of this very thread is under way.
            assert "being built" in repr(b)
            assert len(b) == b.num_rows == 0
            with pytest.raises(ins.InvalidArgument, match="not published yet"):
                b.table  # noqa: B018
            for use in (lambda: b.append({"x": [7]}), b.seal, b.discard, lambda: b["x"]):
                with pytest.raises(ins.InvalidArgument, match="at work"):
                    use()
                refused.append(i)
            yield pa.record_batch({"x": [i]}, schema)

    with region.build("t", schema) as b:
        b.append(pa.RecordBatchReader.from_batches(schema, batches()))
        assert len(b) == 3
    assert len(refused) == 12
    assert region["t"]["x"].to_pylist() == [0, 1, 2]


def test_threads_look_at_a_builder_while_another_appends(region: ins.Region) -> None:
    schema = pa.schema({"x": pa.int64()})
    begun, seen = threading.Event(), threading.Event()

    def batches() -> Any:
        begun.set()
        assert seen.wait(30)
        yield pa.record_batch({"x": [1]}, schema)

    def look() -> None:
        begun.wait(30)
        assert "being built" in repr(b)
        with pytest.raises(ins.InvalidArgument):
            b.table  # noqa: B018
        seen.set()
        b.append({"x": [2]})

    looker = threading.Thread(target=look)
    with region.build("t", schema) as b:
        looker.start()
        b.append(pa.RecordBatchReader.from_batches(schema, batches()))
        looker.join(30)
    assert region["t"]["x"].to_pylist() == [1, 2]


def test_what_is_stored_is_what_was_given(region: ins.Region) -> None:
    schema = {"i": "int8", "f": "float32", "b": bool, "t": "timestamp[us]", "u": "uint64"}
    with region.build("t", schema, rows=3) as b:
        for column, value in [
            ("i", 1.5),
            ("i", np.array([1.0, 2.5, 3.0])),
            ("i", 300),
            ("i", np.int64(300)),
            ("i", np.array([1, 2, 300])),
            ("i", float("nan")),
            ("u", -1),
            ("u", np.array([0, -1, 2])),
            ("b", 2),
            ("i", "x"),
            ("f", "x"),
            ("t", "x"),
            ("f", object()),
        ]:
            with pytest.raises((ins.InvalidData, ins.TypeMismatch)):
                b[column] = value
        b["i"] = np.array([1.0, 2.0, 3.0])
        b["f"] = np.array([0.1, 1e300, np.nan])
        b["b"] = 1
        b["t"] = np.datetime64("2024-01-01", "s")
        b["u"] = 2**64 - 1
    found = region["t"].to_arrow().to_pydict()
    assert found["i"] == [1, 2, 3]
    assert found["f"][:2] == [np.float32(0.1), np.inf]
    assert found["b"] == [True] * 3
    assert {str(t) for t in found["t"]} == {"2024-01-01 00:00:00"}
    assert found["u"] == [2**64 - 1] * 3
