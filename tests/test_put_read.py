"""What goes in comes out: every Arrow type, chunks, slices, pandas, NumPy, Polars; and what is
not valid data is refused."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from insitu import col

ARRAYS: dict[str, pa.Array] = {
    "null": pa.nulls(5),
    "bool": pa.array([True, None, False, True, False]),
    **{
        str(kind): pa.array([1, None, 3, 100, 0], kind)
        for kind in [
            pa.int8(),
            pa.int16(),
            pa.int32(),
            pa.int64(),
            pa.uint8(),
            pa.uint16(),
            pa.uint32(),
            pa.uint64(),
            pa.float32(),
            pa.float64(),
            pa.date32(),
            pa.time32("s"),
            pa.time32("ms"),
            pa.time64("us"),
            pa.time64("ns"),
            pa.duration("s"),
            pa.duration("ms"),
            pa.duration("us"),
            pa.duration("ns"),
            pa.timestamp("s"),
            pa.timestamp("ms"),
            pa.timestamp("us"),
            pa.timestamp("ns"),
            pa.timestamp("us", "UTC"),
            pa.timestamp("ns", "Europe/Berlin"),
        ]
    },
    "float16": pa.array([np.float16(1.5), None, np.float16("nan")] + [np.float16(0)] * 2),
    "date64": pa.array([0, None, 86_400_000, 0, 0], pa.date64()),
    "specials": pa.array([float("nan"), float("inf"), -float("inf"), -0.0, None]),
    "string": pa.array(["a", None, "", "längere Zeichenkette, über 12 Bytes", "日本"]),
    "large_string": pa.array(["a", None, "", "x" * 40, "日本"], pa.large_string()),
    "string_view": pa.array(["a", None, "", "x" * 40, "日本"], pa.string_view()),
    "binary": pa.array([b"a", None, b"", b"\xff\x00", b"x" * 30], pa.binary()),
    "large_binary": pa.array([b"a", None, b"", b"\xff\x00", b"x" * 30], pa.large_binary()),
    "binary_view": pa.array([b"a", None, b"", b"\xff\x00", b"x" * 30], pa.binary_view()),
    "fixed_size_binary": pa.array([b"abc", None, b"def", b"\x00\x00\x00", b"ghi"], pa.binary(3)),
    "decimal128": pa.array([decimal.Decimal("1.25"), None, *[decimal.Decimal("-7.50")] * 3]),
    "decimal256": pa.array(
        [decimal.Decimal("1.25"), None, *[decimal.Decimal("-7.50")] * 3], pa.decimal256(50, 2)
    ),
    "interval": pa.array(
        [(1, 2, 3), None, (4, 5, 6), (0, 0, 0), (0, 0, 1)], pa.month_day_nano_interval()
    ),
    "list": pa.array([[1, None], None, [], [2, 3, 4], [5]]),
    "large_list": pa.array([[1, None], None, [], [2, 3, 4], [5]], pa.large_list(pa.int32())),
    "fixed_size_list": pa.array([[1, 2], None, [3, None], [5, 6], [7, 8]], pa.list_(pa.int8(), 2)),
    "struct": pa.array(
        [{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 4, "y": None}, {}],
        pa.struct([("x", pa.int64()), ("y", pa.string())]),
    ),
    "map": pa.array(
        [[("k", 1)], None, [], [("a", 2), ("b", None)], []], pa.map_(pa.string(), pa.int32())
    ),
    "nested": pa.array(
        [[{"v": ["a", None]}], None, [], [{"v": []}, None], [None]],
        pa.list_(pa.struct([("v", pa.list_(pa.string()))])),
    ),
    "dictionary": pa.array(["x", None, "y", "x", "y"]).dictionary_encode(),
    "dictionary of ints": pa.array([10, None, 20, 10, 20]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_every_type_comes_back_as_it_was(region: ins.Region, kind: str) -> None:
    array = ARRAYS[kind]
    schema = pa.schema([pa.field("c", array.type, metadata={"unit": "m"})], {"origin": "test"})
    data = pa.table([array], schema=schema)
    back = region.put("t", data).to_arrow()
    back.validate(full=True)
    assert back.schema.equals(schema, check_metadata=True)
    assert same(back, data)


@pytest.mark.parametrize("kind", ARRAYS)
def test_slices_with_offsets_come_back(region: ins.Region, kind: str) -> None:
    # Enough rows that validity bitmaps start inside a byte, and string offsets are not zero.
    array = pa.concat_arrays([ARRAYS[kind]] * 20).slice(13, 71)
    back = region.put("t", pa.table({"c": array})).to_arrow()
    back.validate(full=True)
    assert same(back, pa.table({"c": array}))


@pytest.mark.parametrize("kind", ARRAYS)
def test_chunks_come_back(region: ins.Region, kind: str) -> None:
    array = ARRAYS[kind]
    chunked = pa.chunked_array([array, array.slice(1, 3), array.slice(0, 0), array.slice(4)])
    data = pa.table({"c": chunked, "i": pa.chunked_array([range(len(chunked))], pa.int64())})
    back = region.put("t", data).to_arrow()
    back.validate(full=True)
    assert same(back, data)


@pytest.mark.parametrize("kind", ARRAYS)
def test_empty_tables_come_back(region: ins.Region, kind: str) -> None:
    for data in (
        pa.table({"c": ARRAYS[kind].slice(0, 0)}),
        pa.table({"c": pa.chunked_array([], ARRAYS[kind].type)}),
    ):
        table = region.put("t", data, replace=True)
        assert (len(table), table.shape) == (0, (0, 1))
        assert table.to_arrow().schema == data.schema


def test_all_backings_hold_tables(any_region: ins.Region) -> None:
    data = pa.table({"a": [1, 2, None], "s": ["x", None, "z"]})
    any_region.put("t", data)
    assert any_region["t"].to_arrow() == data
    assert any_region.names() == ["t"]


def test_no_columns_and_many_columns(region: ins.Region) -> None:
    none = region.put("none", pa.table({}))
    assert none.shape == (0, 0)
    wide = pa.table({f"c{i}": [i, None] for i in range(500)})
    assert region.put("wide", wide).to_arrow() == wide


def test_differing_dictionaries_are_unified(region: ins.Region) -> None:
    chunks = [pa.array(words).dictionary_encode() for words in (["a", "b"], ["c", None, "a"])]
    back = region.put("t", pa.table({"c": pa.chunked_array(chunks)})).to_arrow()
    back.validate(full=True)
    assert back["c"].to_pylist() == ["a", "b", "c", None, "a"]


def test_sources_of_arrow_data(region: ins.Region) -> None:
    data = pa.table({"a": [1, 2, 3], "s": ["x", "y", None]})
    batch = data.to_batches()[0]
    sources: list[Any] = [
        data,
        batch,
        pa.RecordBatchReader.from_batches(data.schema, [batch, batch.slice(0, 0)]),
        batch.to_struct_array(),
        pl.DataFrame({"a": [1, 2, 3], "s": ["x", "y", None]}),
        OnlyStream(data),
        OnlyArray(batch),
    ]
    for source in sources:
        back = region.put("t", source, replace=True).to_arrow()
        assert back.to_pydict() == data.to_pydict(), type(source)


def test_duckdb_reads_and_writes(region: ins.Region) -> None:
    duckdb = pytest.importorskip("duckdb")
    t = region.put("t", duckdb.sql("select range as a, 'x' || range as s from range(100)"))
    assert len(t) == 100
    query = "select sum(a), max(s) from t where a < 10"
    assert duckdb.sql(query).fetchall() == [(45, "x9")]


def test_polars_reads(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(3), "s": np.array(["x", "y", "z"])})
    expected = pl.DataFrame({"a": [0, 1, 2], "s": ["x", "y", "z"]})
    assert t.to_polars().equals(expected)
    assert pl.DataFrame(t).equals(expected)
    assert t["s"].to_polars().to_list() == ["x", "y", "z"]


def test_streams_may_be_taken_again_and_in_another_type(region: ins.Region) -> None:
    t = region.put("t", pa.table({"a": pa.array([1, 2], pa.int32())}))
    assert pa.table(t) == pa.table(t)
    assert pa.schema(t) == t.schema
    wide = pa.schema([("a", pa.int64())])
    reader = pa.RecordBatchReader.from_stream(t, schema=wide)
    assert reader.read_all() == pa.table({"a": pa.array([1, 2], pa.int64())})


# pandas


def test_pandas_missing_values_become_null(region: ins.Region) -> None:
    frame = pd.DataFrame(
        {
            "f": [1.0, np.nan, 3.0],
            "t": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
            "o": ["a", None, "c"],
            "i": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    back = region.put("t", frame).to_arrow()
    assert [back[c].null_count for c in back.column_names] == [1, 1, 1, 1]
    assert back["i"].to_pylist() == [1, None, 3]


def test_pandas_indexes(region: ins.Region) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert region.put("range", frame).columns == ["a"]
    assert region.put("named", frame.set_index(pd.Index(["x", "y", "z"], name="k"))).columns == [
        "k",
        "a",
    ]
    unnamed = frame.set_index(pd.Index([7, 5, 6]))
    assert region.put("unnamed", unnamed).to_arrow().to_pydict() == {
        "index": [7, 5, 6],
        "a": [1, 2, 3],
    }
    several = frame.assign(b=[4, 5, 6], c=[7, 8, 9]).set_index(["b", "c"])
    assert region.put("several", several).columns == ["b", "c", "a"]


def test_pandas_round_trip(region: ins.Region) -> None:
    frame = pd.DataFrame(
        {
            "a": [1, 2, 3],
            "f": [0.5, 1.5, 2.5],
            "s": ["x", "y", "z"],
            "b": [True, False, True],
            "c": pd.Categorical(["u", "v", "u"]),
            "z": pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
        }
    )
    pd.testing.assert_frame_equal(region.put("t", frame).to_pandas(), frame)
    series = region.put("s", frame["a"])["a"].to_pandas()
    pd.testing.assert_series_equal(series, frame["a"])


def test_pandas_that_has_no_column_types(region: ins.Region) -> None:
    for frame, error in [
        (pd.DataFrame({"a": [1, "x", object()]}), ins.TypeMismatch),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ins.InvalidArgument),
        (pd.DataFrame({0: [1]}), ins.InvalidArgument),
        (pd.Index([1, 2]), ins.TypeMismatch),
    ]:
        with pytest.raises(error):
            region.put("t", frame)
    assert region.names() == []


# NumPy


def test_numpy_types(region: ins.Region) -> None:
    data = {
        **{k: np.array([0, 1, 2], k) for k in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]},
        **{k: np.array([0, np.nan, np.inf], k) for k in ["f2", "f4", "f8"]},
        "b": np.array([True, False, True]),
        "U": np.array(["", "é", "longer"]),
        "D": np.array(["1969-12-31", "NaT", "2024-02-29"], "M8[D]"),
        **{f"M{u}": np.array([0, "NaT", 5], f"M8[{u}]") for u in ["s", "ms", "us", "ns"]},
        **{f"m{u}": np.array([0, "NaT", 5], f"m8[{u}]") for u in ["s", "ms", "us", "ns"]},
        "hours": np.array([1, "NaT", 3], "M8[h]"),
        "big endian": np.array([1, 2, 3], ">i4"),
    }
    back = region.put("t", data).to_arrow()
    back.validate(full=True)
    types = {field.name: field.type for field in back.schema}
    assert types["D"] == pa.date32()
    assert types["Mus"] == pa.timestamp("us")
    assert types["mns"] == pa.duration("ns")
    assert types["hours"] == pa.timestamp("s")
    assert types["U"] == pa.string()
    assert types["b"] == pa.bool_()
    assert back["f8"].null_count == 0, "NaN stays NaN"
    assert np.isnan(back["f8"][1].as_py())
    assert [back[c].null_count for c in ["D", "Ms", "mns", "hours"]] == [1, 1, 1, 1]
    assert back["U"].to_pylist() == ["", "é", "longer"]
    assert back["big endian"].to_pylist() == [1, 2, 3]
    assert back["b"].to_pylist() == [True, False, True]


def test_numpy_strides_and_masks(region: ins.Region) -> None:
    grid = np.arange(30).reshape(5, 6)
    masked = np.ma.masked_array([1.0, 2.0, 3.0, 4.0, 5.0], mask=[0, 1, 0, 0, 1])
    back = region.put(
        "t",
        {"column": grid[:, 2], "reversed": np.arange(5)[::-1], "masked": masked, "list": [1] * 5},
    ).to_arrow()
    assert back.to_pydict() == {
        "column": [2, 8, 14, 20, 26],
        "reversed": [4, 3, 2, 1, 0],
        "masked": [1.0, None, 3.0, 4.0, None],
        "list": [1] * 5,
    }


def test_numpy_strings(region: ins.Region) -> None:
    words = np.array(["", "é", "in\0side", "𝄞", "a" * 20])
    masked = np.ma.masked_array(words, mask=[0, 0, 1, 0, 1])
    variable = words.astype(np.dtypes.StringDType())
    back = region.put("t", {"U": words, "masked": masked, "T": variable}).to_arrow()
    back.validate(full=True)
    assert back["U"].to_pylist() == back["T"].to_pylist() == words.tolist()
    assert back["masked"].to_pylist() == ["", "é", None, "𝄞", None]
    many = np.arange(70_000).astype("U")
    assert region.put("many", {"U": many})["U"].to_pylist() == many.tolist()
    assert region.put("none", {"U": many[:0], "i": np.arange(0)}).schema.types == [
        pa.string(),
        pa.int64(),
    ]
    with pytest.raises(ins.InvalidData, match=r"'c'.*surrogate"):
        region.put("bad", {"c": np.array(["\ud800"])})


def test_numpy_dates_beyond_32_bits(region: ins.Region) -> None:
    days = np.array([0, 2**31 - 1, -(2**31), "NaT"], "M8[D]")
    back = region.put("t", {"c": days}).to_arrow()
    assert back["c"].cast(pa.int32()).to_pylist() == [0, 2**31 - 1, -(2**31), None]
    with pytest.raises(ins.InvalidData, match="'c', row 1"):
        region.put("bad", {"c": np.array([0, 2**31], "M8[D]")})


def test_numpy_missing_times_under_a_mask(region: ins.Region) -> None:
    times = np.ma.masked_array(np.array([1, "NaT", 3], "m8[ms]"), mask=[1, 0, 0])
    array = region.put("t", {"c": times}).to_arrow()["c"]
    assert array.is_null().to_pylist() == [True, True, False]


def test_copies_to_numpy(region: ins.Region) -> None:
    table = pa.table({"i": [1, 2, 3, 4], "b": [True, False, False, True]})
    for chunks in (table, pa.concat_tables([table.slice(0, 3), table.slice(3)])):
        t = region.put("t", chunks, replace=True)
        for column, dtype in [("i", np.int64), ("b", np.bool_)]:
            copy = t[column].to_numpy(copy=True)
            assert copy.tolist() == table[column].to_pylist()
            assert copy.dtype == dtype
            assert copy.flags.writeable
            assert copy.flags.owndata


def test_pandas_is_imported_for_pandas_only(name: str, run: Callable[..., Any]) -> None:
    script = """
        import sys
        import insitu as ins, numpy as np, pyarrow as pa

        region = ins.create(sys.argv[1], capacity="16MiB")
        region.put("t", {
            "i": np.arange(5),
            "f": np.ma.masked_array(np.linspace(0, 1, 5), mask=[0, 1, 0, 0, 0]),
            "b": np.array([True, False, True, True, False]),
            "s": np.array(["a", "b", "c", "d", "e"]),
            "d": np.array(["2020-01-01", "NaT", "2020-01-03", "2020-01-04", "2020-01-05"], "M8[D]"),
            "n": np.arange(5).astype("M8[ns]"),
            "list": [1, 2, 3, 4, 5],
        })
        region.put("arrow", region["t"].to_arrow())
        t = ins.open(sys.argv[1])["t"]
        assert t.to_arrow().num_rows == 5
        assert t.schema.names == t.columns
        t.select("i", "n").to_numpy()
        t.select("i", "n", "b").to_numpy(copy=True)
        assert t["b"].to_numpy(copy=True).tolist() == [True, False, True, True, False]
        assert t["s"].to_arrow().to_pylist() == ["a", "b", "c", "d", "e"]
        query = t.filter(ins.col("i") > 1, ins.col("s").is_in(["c", "d"]))
        assert query.select(ins.col("i").sum()).item() == 5
        assert query.to_arrow().num_rows == t.filter(ins.col("i").is_in([2, 3])).collect().num_rows
        assert t["i"].sum() == 10
        repr(t), repr(t["i"]), t._repr_html_()
        print("pandas" in sys.modules)
    """
    ended = run(script, name)
    assert (ended.code, ended.output.strip()) == (0, "False"), ended.errors


def test_numpy_that_has_no_column_type(region: ins.Region) -> None:
    for column, error in [
        (np.array([object()]), ins.TypeMismatch),
        (np.array([1j]), ins.TypeMismatch),
        (np.array([b"abc"]), ins.TypeMismatch),
        (np.array([1], np.longdouble), ins.TypeMismatch),
        (np.zeros(1, [("x", "i4")]), ins.TypeMismatch),
        (np.array([1], "m8[Y]"), ins.TypeMismatch),
        (np.array([1], "M8[ps]"), ins.TypeMismatch),
        (np.zeros((2, 2)), ins.ShapeMismatch),
        (np.float64(3), ins.ShapeMismatch),
    ]:
        with pytest.raises(error, match="'c'"):
            region.put("t", {"c": column})
    with pytest.raises(ins.ShapeMismatch, match=r"'a': 2, 'b': 3"):
        region.put("t", {"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ins.InvalidArgument):
        region.put("t", {1: np.zeros(2)})
    assert region.names() == []


# What is refused


def test_what_is_not_tabular(region: ins.Region) -> None:
    for data in [[1, 2], 5, None, "text", pa.array([1, 2]), pa.chunked_array([[1]]), object()]:
        with pytest.raises(ins.TypeMismatch):
            region.put("t", data)  # type: ignore[arg-type]
    assert region.names() == []


def spoilt(kind: pa.DataType, offsets: list[int], bad: list[int], data: bytes) -> pa.Table:
    """A table that was valid when pyarrow looked, and whose offsets changed afterwards."""
    memory = np.array(offsets, np.int32)
    array = pa.Array.from_buffers(
        kind, len(offsets) - 1, [None, pa.py_buffer(memory), pa.py_buffer(data)]
    )
    table = pa.table({"ok": pa.nulls(len(array)), "c": array})
    memory[:] = bad
    return table


def strings(*bad: int) -> pa.Table:
    return spoilt(pa.string(), [0] * len(bad), list(bad), b"abcd")


def bad_list() -> pa.Table:
    memory = np.array([0, 2], np.int32)
    array = pa.ListArray.from_buffers(
        pa.list_(pa.int64()), 1, [None, pa.py_buffer(memory)], children=[pa.array([1, 2])]
    )
    table = pa.table({"ok": pa.nulls(1), "c": array})
    memory[1] = 9
    return table


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("bad UTF-8", spoilt(pa.string(), [0, 2, 4], [0, 2, 4], b"ab\xff\xfe")),
        ("an offset beyond the end", strings(0, 2, 1_000_000)),
        ("an offset beyond the end, in the middle", strings(0, 1_000_000, 4)),
        ("falling offsets", strings(0, 3, 1, 4)),
        ("negative offsets", strings(-5, 0, 4)),
        ("a cut inside a character", spoilt(pa.string(), [0, 1, 2], [0, 1, 2], "é".encode())),
        ("dictionary codes out of range", pa.table({"c": pa.DictionaryArray.from_arrays(
            pa.array([0, 5]), pa.array(["a"]), safe=False)})),
        ("list offsets out of range", bad_list()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_invalid_data_is_refused(region: ins.Region, what: str, data: pa.Table) -> None:
    region.put("before", pa.table({"a": [1]}))
    for source in (data, pa.RecordBatchReader.from_batches(data.schema, data.to_batches())):
        with pytest.raises(ins.InvalidData):
            region.put("t", source)
    assert region.names() == ["before"]
    assert region["before"].to_arrow() == pa.table({"a": [1]})


def test_an_exception_of_the_source_comes_through(region: ins.Region) -> None:
    schema = pa.schema([("a", pa.int64())])

    def batches() -> Any:
        yield pa.record_batch({"a": [1]})
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        region.put("t", pa.RecordBatchReader.from_batches(schema, batches()))
    assert "t" not in region


# Names


def test_names(region: ins.Region) -> None:
    data = pa.table({"a": [1]})
    region.put("b", data)
    region["a"] = data
    assert region.names() == ["a", "b"]
    assert list(region) == ["a", "b"]
    assert len(region) == 2
    assert "a" in region
    assert "c" not in region
    assert 5 not in region
    with pytest.raises(ins.TableExists):
        region.put("a", data)
    region["a"] = pa.table({"a": [2]})
    assert region["a"]["a"].item() == 2
    del region["a"]
    assert region.names() == ["b"]
    with pytest.raises(KeyError):
        del region["a"]


def test_a_handle_keeps_the_table_it_was_given(region: ins.Region) -> None:
    first = region.put("t", pa.table({"a": [1]}))
    region["t"] = pa.table({"a": [2]})
    assert first.to_arrow().to_pydict() == {"a": [1]}
    assert first.latest().to_arrow().to_pydict() == {"a": [2]}
    del region["t"]
    assert first.to_arrow().to_pydict() == {"a": [1]}


def test_a_table_of_the_same_region_shares_its_buffers(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(100_000)})
    used = region.stats()["used"]
    other = region.put("other", t)
    assert addresses(other) == addresses(t)
    assert region.stats()["used"] < used + 400_000
    del region["t"]
    del t
    region.gc()
    assert other.to_arrow()["a"].to_pylist() == list(range(100_000))


def test_a_table_of_another_region_is_copied(region: ins.Region) -> None:
    with ins.create(capacity="16MiB") as second:
        t = second.put("t", {"a": np.arange(1000)})
        copy = region.put("t", t)
        assert copy.to_arrow() == t.to_arrow()
        assert addresses(copy) != addresses(t)


# What a table says of itself


def test_shape_and_schema(region: ins.Region) -> None:
    data = pa.table({"a": pa.array([1, 2, 3], pa.int32()), "s": ["x", "yy", "zzz"]})
    t = region.put("t", data)
    assert (t.name, t.columns, t.shape, t.num_rows, len(t)) == ("t", ["a", "s"], (3, 2), 3, 3)
    assert t.schema == data.schema
    assert t.nbytes == 3 * 4 + 4 * 4 + 6
    assert "a" in t
    assert "b" not in t
    assert (t["a"].name, t["a"].dtype, len(t["a"]), t["a"].null_count) == ("a", pa.int32(), 3, 0)
    assert t.head(2).to_arrow().to_pydict() == {"a": [1, 2], "s": ["x", "yy"]}
    assert len(t.head()) == 3
    assert t.head(1).select("a").item() == 1
    with pytest.raises(ins.ShapeMismatch):
        t.select("a").item()
    with pytest.raises(TypeError):
        bool(t)
    with pytest.raises(TypeError):
        t[0]  # type: ignore[index]


def test_repr_shows_the_head(region: ins.Region) -> None:
    rows = 12_345
    t = region.put("t", {"number": np.arange(rows), "text": np.full(rows, "<b>&")})
    shown = repr(t)
    assert '"t"' in shown
    assert "12,345 rows" in shown
    assert "int64" in shown
    assert "... and 12,335 more rows" in shown
    lines = shown.splitlines()
    assert lines[1].split() == ["number", "text"]
    assert lines[3].split() == ["0", "<b>&"]
    assert len(lines) == 1 + 2 + 10 + 1
    html = t._repr_html_()
    assert "<b>" not in html.replace("<body>", "")
    assert "&lt;b&gt;&amp;" in html
    anonymous = t.filter(ins.col("number") < 5).collect()
    assert "Anonymous" in repr(anonymous)
    assert anonymous.name is None
    repr(t["text"]), repr(t.select("text")), repr(region), repr(region.verify())


def test_repr_of_every_type(region: ins.Region) -> None:
    t = region.put("t", pa.table(ARRAYS))
    assert "more columns" in repr(t)
    for column in t.columns:
        repr(t[column])
    t._repr_html_()
    hostile = pa.table({"<script>": ["a\nb\x1b[31m"]})
    shown = region.put("hostile", hostile)
    assert "\x1b" not in repr(shown)
    assert "<script>" not in shown._repr_html_()


class OnlyStream:
    def __init__(self, data: pa.Table) -> None:
        self.data = data

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.data.__arrow_c_stream__(requested_schema)


class OnlyArray:
    def __init__(self, data: pa.RecordBatch) -> None:
        self.data = data

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.data.__arrow_c_array__(requested_schema)


def addresses(table: ins.Table) -> list[int]:
    columns = table.to_arrow().columns
    return [b.address for c in columns for k in c.chunks for b in k.buffers() if b is not None]


def same(left: pa.Table, right: pa.Table) -> bool:
    """Equal in schema and values, NaN equal to itself."""
    if left.schema != right.schema or left.num_rows != right.num_rows:
        return False
    return all(
        repr(a.to_pylist()) == repr(b.to_pylist())
        for a, b in zip(left.columns, right.columns, strict=True)
    )


@pytest.mark.parametrize(
    "value",
    [
        *(pa.array([7], f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
        pa.array([-(2**63)], "int64"),
        pa.array([2**64 - 1], "uint64"),
        *(pa.array([-0.1], kind) for kind in ("float32", "float64")),
        pa.array([float("nan")]),
        pa.array([False]),
        pa.array(["ä€😀"]),
        pa.array(["a"], "large_string"),
        pa.array([b"\xff"]),
        pa.array([18_000], "date32"),
        pa.array([1_700_000_000_000_001], pa.timestamp("us", "UTC")),
        pa.array([None]),
        *(pa.array([None], kind) for kind in ("int32", "float64", "bool", "string", "date32")),
    ],
    ids=lambda value: f"{value.type}: {value[0]}",
)
def test_item_is_what_pyarrow_makes_of_it(region: ins.Region, value: pa.Array) -> None:
    t = region.put("t", pa.table({"x": value, "y": value}))
    item, expected = t["x"].item(), value[0].as_py()
    assert type(item) is type(expected)
    assert item == expected or (item != item and expected != expected)
    assert repr(region.put("u", pa.table({"x": value})).item()) == repr(expected)


@pytest.mark.parametrize("source", ["polars", "pyarrow", "pandas"])
def test_columns_that_are_all_null(region: ins.Region, source: str) -> None:
    arrow = pa.table({"n": pa.nulls(3), "a": [1, 2, 3], "l": pa.array([[None], [], None])})
    data: Any = arrow
    if source == "polars":
        # It gives such a column a buffer that is not there, which the interface has not.
        data = pl.DataFrame({"n": [None, None, None], "a": [1, 2, 3], "l": [[None], [], None]})
        assert data.schema["n"] == pl.Null
    elif source == "pandas":
        arrow = arrow.select(["n", "a"])
        data = arrow.to_pandas()
    t = region.put("t", data)
    assert t.schema.field("n").type == pa.null()
    rows = arrow.to_pylist()
    assert t.to_arrow().to_pylist() == rows
    assert t["n"].null_count == 3
    assert t["n"].to_pylist() == [None] * 3
    flat = t.select("n", "a").collect()
    assert flat.head(2).to_arrow().equals(arrow.select(["n", "a"]).slice(0, 2))
    assert flat.filter(col("a") > 1).to_arrow().equals(arrow.select(["n", "a"]).slice(1))
    assert "null" in repr(t)
    assert repr(t["n"]).count("null") >= 3
    assert t.to_pandas()["n"].isna().all()
    assert t.append(data).to_arrow().to_pylist() == rows * 2
    with region.build("u", t.schema) as b:
        b.append(data)
        b.append(t)
    assert region["u"].to_arrow().to_pylist() == rows * 2
    if source == "polars":
        assert t.to_polars().equals(data)
        series = data["n"]
        assert region.put("s", {"n": series}).to_arrow()["n"].type == pa.null()
        with region.build("v", {"n": pa.null(), "i": "int64"}, rows=3) as b:
            b["n"] = series
            b["i"] = series
        assert region["v"].to_arrow().to_pylist() == [{"n": None, "i": None}] * 3
        # Where the type is known, nulls of no type are nulls of it.
        typed = region.put("typed", pa.table({"a": [1], "s": ["x"]}))
        more = pl.DataFrame({"a": [2], "s": [None]})
        assert more.schema["s"] == pl.Null
        assert typed.append(more).to_arrow()["s"].to_pylist() == ["x", None]
        assert t.to_polars().lazy().collect().height == 3


def test_slices_of_structs_of_structs(region: ins.Region) -> None:
    rows = [{"a": i, "s": {"i": {"x": i} if i % 3 else None}} for i in range(9)]
    table = pa.Table.from_pylist(rows)
    for offset, length in ((0, 9), (1, 5), (4, 5), (3, 0)):
        part = rows[offset : offset + length]
        sliced = table.slice(offset, length)
        assert region.put("t", sliced, replace=True).to_arrow().to_pylist() == part
        structs = pa.array(rows, pa.struct(table.schema)).slice(offset, length)
        assert region.put("t", structs, replace=True).to_arrow().to_pylist() == part
        lists = pa.table({"l": pa.array([[row] for row in rows])}).slice(offset, length)
        assert region.put("t", lists, replace=True).to_arrow().to_pylist() == [
            {"l": [row]} for row in part
        ]
