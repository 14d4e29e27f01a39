"""The lazy interface: names, shapes, what is shared, what is in which order."""

from __future__ import annotations

import datetime as dt
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from insitu import col, lit, when


@pytest.fixture
def t(region: ins.Region) -> ins.Table:
    return region.put(
        "t",
        pa.table(
            {
                "a": pa.array([3, 1, None, 2, 5]),
                "f": pa.array([0.5, None, 1.5, float("nan"), 2.5]),
                "s": pa.array(["x", "y", "x", None, "z"]),
                "b": pa.array([True, False, None, True, False]),
                "d": pa.array([0, 1, 2, 3, None], pa.date32()),
                "ts": pa.array([0, 10**6, None, 3 * 10**6, 4 * 10**6], pa.timestamp("us")),
                "u": pa.array([0, 10**6, None, 3 * 10**6, 4 * 10**6], pa.timestamp("us", "UTC")),
            }
        ),
    )


def rows(query: Any) -> dict[str, list[Any]]:
    columns = query.to_arrow().to_pydict()
    # NaN equals nothing, itself included; here it must.
    return {k: ["NaN" if x != x else x for x in v] for k, v in columns.items()}


def test_select(t: ins.Table) -> None:
    assert rows(t.select("a", "s")) == rows(t.select(["a", "s"])) == rows(t.select(col("a"), "s"))
    assert list(rows(t.select("a", x="s", y=col("a") + 1))) == ["a", "x", "y"]
    assert rows(t.select(col("a").alias("z"))) == {"z": [3, 1, None, 2, 5]}
    assert rows(t.select(x=lit(7), a="a"))["x"] == [7] * 5
    assert t.select("a", x=col("f") * 2).columns == ["a", "x"]
    assert t.select(x=col("a") / 2).schema == pa.schema([("x", pa.float64())])


def test_names_of_results_follow_the_leftmost_column(t: ins.Table) -> None:
    query = t.select((1 + col("a")) * 2, col("f").is_null(), when(col("f") > 1).then(col("b")))
    assert query.columns == ["a", "f", "b"]


def test_filter(t: ins.Table) -> None:
    assert rows(t.filter(col("a") > 1).select("a")) == {"a": [3, 2, 5]}
    assert rows(t.filter(col("a") > 1, col("s") == "x").select("a")) == {"a": [3]}
    assert rows(t.filter(col("b")).select("a")) == {"a": [3, 2]}
    assert rows(t.filter("b").select("a")) == {"a": [3, 2]}
    assert rows(t.filter(~col("b")).select("a")) == {"a": [1, 5]}
    assert rows(t.filter([col("a") > 1, col("a") < 5]).select("a")) == {"a": [3, 2]}
    assert rows(t.filter(col("a") > 100)) == {c: [] for c in t.columns}
    assert rows(t.filter()) == rows(t.select(t.columns))


def test_with_columns(t: ins.Table) -> None:
    out = rows(t.select("a", "s").with_columns(a=col("a") * 10, n=col("s").is_null()))
    assert list(out) == ["a", "s", "n"]
    assert out["a"] == [30, 10, None, 20, 50]
    assert out["n"] == [False, False, False, True, False]
    both = rows(t.select("a").with_columns(a=col("a") + 1, old=col("a")))
    assert both == {"a": [4, 2, None, 3, 6], "old": [3, 1, None, 2, 5]}, "both see the old one"


def test_group_by(t: ins.Table) -> None:
    out = rows(t.group_by("s").agg(col("a").sum(), n=ins.len(), k=col("f").count()))
    assert out == {
        "s": ["x", "y", None, "z"],
        "a": [3, 1, 2, 5],
        "n": [2, 1, 1, 1],
        "k": [2, 0, 1, 1],
    }
    assert rows(t.group_by("s").agg()) == {"s": ["x", "y", None, "z"]}
    assert rows(t.group_by("b").agg(m=col("a").mean()))["b"] == [True, False, None]
    by_two = rows(t.group_by("s", "b").agg(n=ins.len()))
    assert by_two["n"] == [1] * 5
    named = rows(t.group_by(even=col("a") % 2 == 0).agg(n=ins.len()))
    assert named == {"even": [False, None, True], "n": [3, 1, 1]}


def test_aggregates_of_expressions(t: ins.Table) -> None:
    assert t.select(r=(col("a") * col("a")).sum()).item() == 9 + 1 + 4 + 25
    assert t.select(r=col("a").sum() * 2 + 1).item() == 23
    assert t.select(r=col("a").max() - col("a").min()).item() == 4
    assert t.filter(col("a") > 1).select(n=ins.len()).item() == 3
    assert rows(t.select(x="a", n=ins.len()))["n"] == [5] * 5, "beside rows, one value is repeated"


def test_reductions_of_columns(t: ins.Table) -> None:
    a = t["a"]
    assert (a.sum(), a.mean(), a.min(), a.max(), a.count()) == (11, 2.75, 1, 5, 4)
    assert isinstance(a.sum(), int)
    assert t["f"].min() == 0.5
    assert np.isnan(t["f"].sum())
    assert t["s"].count() == 4
    assert t["ts"].max() == dt.datetime(1970, 1, 1, 0, 0, 4)
    assert t["b"].sum() == 2


def test_nothing_reduces_to_null_or_zero(region: ins.Region) -> None:
    t = region.put("empty", pa.table({"a": pa.array([], pa.int32()), "n": pa.array([], "f8")}))
    nulls = region.put("nulls", pa.table({"a": pa.nulls(3, pa.int32()), "n": pa.nulls(3, "f8")}))
    for table in (t, nulls):
        for column in ("a", "n"):
            c = table[column]
            assert (c.sum(), c.count(), c.mean(), c.min(), c.max()) == (0, 0, None, None, None)
    assert rows(t.group_by("a").agg(col("n").sum())) == {"a": [], "n": []}
    assert rows(nulls.group_by("a").agg(n=ins.len())) == {"a": [None], "n": [3]}


def test_sort(t: ins.Table) -> None:
    assert rows(t.sort("a").select("a"))["a"] == [1, 2, 3, 5, None]
    assert rows(t.sort("a", descending=True).select("a"))["a"] == [5, 3, 2, 1, None]
    assert rows(t.sort("a", nulls_last=False).select("a"))["a"] == [None, 1, 2, 3, 5]
    floats = rows(t.sort("f").select("f"))["f"]
    assert floats[:3] == [0.5, 1.5, 2.5]
    assert floats[3] == "NaN"
    assert floats[4] is None
    assert rows(t.sort("f", descending=True).select("f"))["f"][0] == "NaN", "NaN is the largest"
    assert rows(t.sort("s", "a", descending=[False, True]).select("s", "a")) == {
        "s": ["x", "x", "y", "z", None],
        "a": [3, None, 1, 5, 2],
    }
    assert rows(t.sort(-col("a")).select("a"))["a"] == [5, 3, 2, 1, None]
    assert rows(t.sort("b", descending=True).select("b"))["b"] == [True, True, False, False, None]


def test_limit_and_slice(t: ins.Table) -> None:
    a = [3, 1, None, 2, 5]
    for query, expected in [
        (t.limit(2), a[:2]),
        (t.limit(0), []),
        (t.limit(100), a),
        (t.slice(1, 2), a[1:3]),
        (t.slice(3), a[3:]),
        (t.slice(-2), a[-2:]),
        (t.slice(-3, 2), a[-3:-1]),
        (t.slice(10), []),
        (t.slice(-100), a),
        (t.limit(4).slice(1), a[1:4]),
        (t.filter(col("a") > 1).limit(2), [3, 2]),
    ]:
        assert rows(query.select("a"))["a"] == expected


def test_chains(t: ins.Table) -> None:
    out = (
        t.filter(col("a").is_not_null())
        .with_columns(half=col("a") / 2)
        .filter(col("half") >= 1)
        .group_by("b")
        .agg(total=col("half").sum(), n=ins.len())
        .sort("total", descending=True)
        .limit(1)
    )
    assert rows(out) == {"b": [True, False][:1], "total": [2.5], "n": [2]} or rows(out)[
        "total"
    ] == [2.5]


def test_when(t: ins.Table) -> None:
    graded = when(col("a") > 3).then(20).when(col("a") > 1).then(10)
    assert rows(t.select(x=graded.otherwise(0)))["x"] == [10, 0, 0, 10, 20]
    assert rows(t.select(x=graded))["x"] == [10, None, None, 10, 20]
    assert rows(t.select(x=when(col("b")).then(col("a")).otherwise(-1)))["x"] == [3, -1, -1, 2, -1]


def test_when_between_strings_is_refused_in_clear_words(t: ins.Table) -> None:
    for choice in [
        when(col("a") > 3).then(lit("high")).otherwise(lit("low")),
        when(col("b")).then(col("s")),
        when(col("b")).then(col("s")).otherwise(lit("none")),
        col("s").fill_null("none"),
    ]:
        with pytest.raises(ins.Unsupported, match="choosing between values of type utf8"):
            t.select(x=choice).collect()
    with pytest.raises(ins.Unsupported, match="strings can be compared, not made"):
        t.select(x=lit("high")).collect()


def test_logic_with_nulls(t: ins.Table) -> None:
    b = col("b")
    for expr, expected in [
        (b & lit(False), [False] * 5),
        (b | lit(True), [True] * 5),
        (b & lit(True), [True, False, None, True, False]),
        (b | lit(False), [True, False, None, True, False]),
        (b ^ lit(True), [False, True, None, False, True]),
        (~b, [False, True, None, False, True]),
        (b == b, [True, True, None, True, True]),
        (col("a").is_between(2, 3), [True, False, None, True, False]),
        (col("a").is_in([3, 5, None]), [True, False, None, False, True]),
        (col("s").is_in(["x", "z"]), [True, False, True, None, True]),
        (col("s") == "x", [True, False, True, None, False]),
        ("x" != col("s"), [False, True, False, None, True]),
        (col("a").is_in(np.array([3, 5])), [True, False, None, False, True]),
        (col("a").is_in(pd.Series([3, 5])), [True, False, None, False, True]),
        (col("a").is_in({3, 5}), [True, False, None, False, True]),
        (col("a").is_in([]), [False, False, None, False, False]),
    ]:
        assert rows(t.select(x=expr))["x"] == expected, str(expr)


def test_literals_of_time(t: ins.Table) -> None:
    moment = dt.datetime(1970, 1, 1, 0, 0, 2)
    aware = moment.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))) + dt.timedelta(hours=1)
    expected = [False, False, None, True, True]
    for expr in [
        col("ts") > moment,
        col("ts") > np.datetime64(moment),
        col("ts") > pd.Timestamp(moment),
        col("u") > moment.replace(tzinfo=dt.UTC),
        col("u") > aware,
        col("u") > pd.Timestamp(aware),
        col("ts") - moment > dt.timedelta(0),
        col("ts") - moment > np.timedelta64(0, "s"),
    ]:
        assert rows(t.select(x=expr))["x"] == expected, str(expr)
    day = [False, False, True, True, None]
    for value in [dt.date(1970, 1, 2), np.datetime64("1970-01-02")]:
        assert rows(t.select(x=col("d") > value))["x"] == day
    shifted = rows(t.select(x=col("ts") + dt.timedelta(days=1)))["x"]
    assert shifted[0] == dt.datetime(1970, 1, 2)


def test_literals_of_numbers(t: ins.Table) -> None:
    for value in [2, np.int8(2), np.uint64(2), np.float32(2), 2.0, pa.scalar(2), True + 1]:
        assert rows(t.select(x=col("a") > value))["x"] == [True, False, None, False, True]
        assert rows(t.select(x=value < col("a")))["x"] == [True, False, None, False, True]
    assert rows(t.select(x=col("a") + None))["x"] == [None] * 5
    for missing in [None, pd.NA, pd.NaT, np.datetime64("NaT")]:
        assert rows(t.select(x=lit(missing)))["x"] == [None] * 5


def test_weak_literals_keep_the_type_of_the_column(region: ins.Region) -> None:
    kinds = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"]
    t = region.put("k", {k: np.array([1, 2], k) for k in kinds})
    for kind in kinds:
        schema = t.select(x=col(kind) + 1, y=2 * col(kind), z=col(kind) - 1).schema
        assert {str(field.type) for field in schema} == {str(t[kind].dtype)}
    assert t.select(x=col("i1") + 0.5).schema.field("x").type == pa.float64()
    assert t.select(x=col("f4") + 0.5).schema.field("x").type == pa.float32()


@pytest.mark.parametrize(
    ("named", "dtype"),
    [
        ("int32", pa.int32()), (np.int16, pa.int16()), (np.dtype("u8"), pa.uint64()),
        (int, pa.int64()), (float, pa.float64()), (bool, pa.bool_()),
        (pa.float32(), pa.float32()), ("float64", pa.float64()), ("i1", pa.int8()),
    ],
)  # fmt: skip
def test_casts(t: ins.Table, named: Any, dtype: pa.DataType) -> None:
    query = t.select(col("a").cast(named))
    assert query.schema.field("a").type == dtype
    assert query.to_arrow()["a"].type == dtype


def test_casts_of_values(t: ins.Table) -> None:
    assert rows(t.select(col("b").cast("int64")))["b"] == [1, 0, None, 1, 0]
    assert rows(t.select(col("a").cast(bool)))["a"] == [True, True, None, True, True]
    assert rows(t.select(col("ts").cast("timestamp[ms]")))["ts"][1] == dt.datetime(
        1970, 1, 1, 0, 0, 1
    )
    assert rows(t.select(col("f").cast("float32")))["f"][0] == 0.5


def test_results_have_names_for_all(t: ins.Table, region: ins.Region) -> None:
    result = t.filter(col("a") > 1).collect("result")
    assert result.name == "result"
    assert rows(region["result"].select("a", "f")) == rows(result.select("a", "f"))
    anonymous = t.filter(col("a") > 1).collect()
    assert anonymous.name is None
    named = region.put("named", anonymous)
    assert rows(named.select(named.columns)) == rows(result.select(result.columns))
    again = region.put("from query", t.filter(col("a") > 1))
    assert rows(again.select("s")) == rows(result.select("s"))


def test_shorthands(t: ins.Table) -> None:
    query = t.filter(col("a") > 1).select("a")
    assert query.to_arrow()["a"].to_pylist() == [3, 2, 5]
    assert query.to_pandas()["a"].tolist() == [3, 2, 5]
    assert query.to_numpy()["a"].tolist() == [3, 2, 5]
    assert query.to_polars()["a"].to_list() == [3, 2, 5]
    assert pa.table(query)["a"].to_pylist() == [3, 2, 5]
    assert query.limit(1).item() == 3
    assert t.filter(col("a") > 100).select(col("a").max()).item() is None


def test_prepared_queries_run_again(t: ins.Table, region: ins.Region) -> None:
    prepared = t.filter(col("a") > 1).select(n=ins.len(), s=col("a").sum()).prepare()
    for _ in range(3):
        assert rows(prepared.run()) == {"n": [3], "s": [10]}
    other = region.put("other", pa.concat_tables([t.to_arrow()] * 2))
    assert rows(prepared.run(table=other)) == {"n": [6], "s": [20]}
    assert prepared.explain()
    assert repr(prepared)


def test_a_run_takes_the_values_of_its_parameters_and_no_others(t: ins.Table) -> None:
    low, high = ins.param("low"), ins.param("high")
    prepared = t.filter(col("a") >= low, col("a") <= high + low).select(n=ins.len()).prepare()
    for _ in range(2):
        with pytest.raises(ins.InvalidArgument, match=r'no parameter "x"; .*: "high", "low"$'):
            prepared.run(low=0, high=3, x=1)
        with pytest.raises(ins.InvalidArgument, match='parameter "high" has no value'):
            prepared.run(low=0)
        assert prepared.run(high=9, low=0).item() == prepared.run(low=0, high=9).item() > 0
    with pytest.raises(ins.InvalidArgument, match=r'no parameter "low"; .*: none$'):
        t.select("a").prepare().run(low=1)
    everywhere = (
        t.filter(col("a") > ins.param("a"))
        .with_columns(x=ins.when(ins.param("b") > 0).then(ins.param("c")).otherwise(1))
        .group_by((col("a") + ins.param("d")).alias("k"))
        .agg((col("x") * ins.param("e")).cast("float64").sum().alias("x"))
        .sort(col("x") + ins.param("f"))
        .limit(3)
        .prepare()
    )
    with pytest.raises(ins.InvalidArgument, match=r'"a", "b", "c", "d", "e", "f"$'):
        everywhere.run(g=1)
    assert len(everywhere.run(**dict.fromkeys("abcdef", 1))) > 0


@pytest.mark.parametrize("name", ["table", "checked"])
def test_a_parameter_is_not_called_as_an_argument_of_the_run(name: str) -> None:
    with pytest.raises(ins.InvalidArgument, match=f'cannot be called "{name}"'):
        ins.param(name)


def test_explain_and_repr(t: ins.Table) -> None:
    query = t.filter(col("a") > 1).group_by("s").agg(col("f").mean())
    assert query.explain()
    assert "Query" in repr(query)
    assert "no column" in repr(t.select("zzz"))
    assert repr(t.group_by("s"))
    assert repr(col("a") + 1) == '(col("a") + 1)'
    assert repr(when(col("a") > 1).then(2))


def test_progress(region: ins.Region) -> None:
    t = region.put("p", {"a": np.arange(200_000)})
    calls: list[tuple[int, int]] = []
    t.select(col("a") + 1).collect(progress=lambda done, total: calls.append((done, total)))
    assert calls
    done, total = calls[-1]
    assert done == total >= 200_000


def test_types_that_the_engine_only_passes_through(region: ins.Region) -> None:
    data = pa.table(
        {
            "k": [1, 2, 3],
            "list": [[1], None, [2, 3]],
            "dict": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    t = region.put("t", data)
    assert t.select("list", "dict").to_arrow() == data.select(["list", "dict"])
    assert t.with_columns(x=col("k") * 2).to_arrow().select(["k", "list", "dict"]) == data
