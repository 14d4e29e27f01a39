"""Functions row by row: rounding, missing values, choice among columns, bits, casts, NumPy's names.
What every type gives is in test_query_differential; here stands what is special."""

from __future__ import annotations

import datetime as dt
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col, lit, when

NAN, INF = float("nan"), float("inf")


def one(region: ins.Region, expr: Any, **columns: Any) -> pa.ChunkedArray:
    return region.put("one", pa.table(columns), replace=True).select(r=expr).to_arrow()["r"]


def values(region: ins.Region, expr: Any, **columns: Any) -> list[Any]:
    return one(region, expr, **columns).to_pylist()


# Rounding.


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("decimals", [-3, -2, -1, 0, 1, 2, 3, 7])
def test_round_is_that_of_numpy(region: ins.Region, kind: str, decimals: int) -> None:
    rng = np.random.default_rng(decimals + 10)
    halves = (rng.integers(-3000, 3000, 3000) / 2).astype(kind)
    any_size = (rng.normal(size=3000) * 10.0 ** rng.integers(-3, 9, 3000)).astype(kind)
    special = np.array([0.0, -0.0, NAN, INF, -INF, 0.5, 1.5, 2.5, -2.5, 0.125, 15, 25], kind)
    x = np.concatenate([halves, any_size, special])
    got = one(region, col("x").round(decimals), x=x).to_numpy()
    expected = np.round(x, decimals)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))
    assert got.dtype == x.dtype


def test_round_of_what_has_no_such_digits(region: ins.Region) -> None:
    huge = [1.7976931348623157e308, 1e300, -1e300, 5e-324]
    # NumPy gives infinities here.
    assert values(region, col("x").round(10), x=huge) == [*huge[:3], 0.0]
    assert values(region, col("x").round(400), x=huge) == huge
    with pytest.raises(ins.InvalidArgument, match="power of 400 is no float64"):
        values(region, col("x").round(-400), x=huge)
    with pytest.raises(ins.InvalidArgument, match="power of 3 is no int8"):
        values(region, col("x").round(-3), x=pa.array([1], pa.int8()))
    for decimals in ("1", 1.0, None, col("x")):
        with pytest.raises(TypeError):
            col("x").round(decimals)


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_round_of_integers_is_exact(region: ins.Region, kind: str) -> None:
    info = np.iinfo(kind)
    every = [*range(-150, 151), info.min, info.max, info.max - 5]
    x = np.array([v for v in every if info.min <= v <= info.max], kind)
    assert values(region, col("x").round(), x=x) == x.tolist()
    assert values(region, col("x").round(3), x=x) == x.tolist()
    for digits in (1, 2):
        exact = [round(v, -digits) for v in x.tolist()]
        got = values(region, col("x").round(-digits), x=x)
        inside = [info.min <= v <= info.max for v in exact]
        assert [g for g, ok in zip(got, inside, strict=True) if ok] == [
            v for v, ok in zip(exact, inside, strict=True) if ok
        ]
        if not all(inside):
            query = region.put("c", {"x": x}, replace=True).select(col("x").round(-digits))
            with pytest.raises(ins.Overflow, match="row"):
                query.collect(checked=True)


# What is missing.


def test_fill_nan(region: ins.Region) -> None:
    x = pa.array([1.0, NAN, None, INF])
    assert values(region, col("x").fill_nan(7), x=x) == [1.0, 7.0, None, INF]
    assert values(region, col("x").fill_nan(None), x=x) == [1.0, None, None, INF]
    assert values(region, col("x").fill_nan(col("y")), x=x, y=pa.array([5, None, 6, 7])) == [
        1.0,
        None,
        None,
        INF,
    ]
    i = pa.array([1, None], pa.int16())
    assert one(region, col("i").fill_nan(0.5), i=i).type == pa.int16()
    f = pa.array([NAN, 1], pa.float32())
    assert one(region, col("f").fill_nan(0.5), f=f).type == pa.float32()
    for wrong in (col("b").fill_nan(0), col("f").fill_nan("x"), col("f").fill_nan(dt.date.today())):
        with pytest.raises(ins.TypeMismatch):
            values(region, wrong, b=[True, False], f=f)


def test_missing_values_equal_each_other(region: ins.Region) -> None:
    a, b = pa.array([1, 1, None, None, 2]), pa.array([1, 2, 1, None, None])
    assert values(region, col("a").eq_missing(col("b")), a=a, b=b) == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert values(region, col("a").ne_missing(col("b")), a=a, b=b) == [
        False, True, True, False, True,
    ]  # fmt: skip
    assert values(region, col("a").eq_missing(None), a=a) == [False, False, True, True, False]
    assert values(region, lit(None).ne_missing(col("a")), a=a) == [True, True, False, False, True]
    assert values(region, col("a").eq_missing(1), a=a) == [True, True, False, False, False]
    s, t = pa.array(["x", None, "y", None]), pa.array(["x", "x", None, None])
    assert values(region, col("s").eq_missing(col("t")), s=s, t=t) == [True, False, False, True]
    assert values(region, col("s").eq_missing("x"), s=s) == [True, False, False, False]
    assert values(region, col("s").eq_missing(None), s=s) == [False, True, False, True]
    assert values(region, col("n").eq_missing(None), n=pa.nulls(2)) == [True, True]
    # Comparisons are IEEE.
    assert values(region, col("f").eq_missing(NAN), f=[NAN, 1.0]) == [False, False]


def test_membership(region: ins.Region) -> None:
    x = pa.array([0, 1, 2, None], pa.int8())
    for choice, expected in [
        ([], [False, False, False, None]),
        ([None], [False, False, False, None]),
        ([1, None], [False, True, False, None]),
        ([1.0, 1.5, 300, -(2**63), 2**64 - 1], [False, True, False, None]),
        (np.array([2, 0]), [True, False, True, None]),
        (range(100), [True, True, True, None]),
        ({1: "keys"}, [False, True, False, None]),
    ]:
        assert values(region, col("x").is_in(choice), x=x) == expected, choice
    f = pa.array([0.0, -0.0, NAN, 1.5, None])
    assert values(region, col("f").is_in([0, NAN]), f=f) == [True, True, False, False, None]
    assert values(region, col("f").is_in([*range(20), NAN]), f=f) == [
        True,
        True,
        False,
        False,
        None,
    ]
    b = pa.array([True, False, None])
    assert values(region, col("b").is_in([]), b=b) == [False, False, None]
    assert values(region, col("b").is_in([True]), b=b) == [True, False, None]
    assert values(region, col("n").is_in([1]), n=pa.nulls(2)) == [None, None]
    for column, wrong in [("x", ["a"]), ("x", [True]), ("b", [1]), ("f", [dt.date.today()])]:
        with pytest.raises(ins.TypeMismatch, match="is_in"):
            values(region, col(column).is_in(wrong), x=x[:3], b=b, f=f[:3])


# Choice among the values in a row.


def test_coalesce(region: ins.Region) -> None:
    a, b = pa.array([1, None, None], pa.int8()), pa.array([None, 2, None], pa.int32())
    got = one(region, ins.coalesce("a", "b", 0), a=a, b=b)
    assert (got.type, got.to_pylist()) == (pa.int32(), [1, 2, 0])
    assert values(region, ins.coalesce(["a", "b"]), a=a, b=b) == [1, 2, None]
    assert values(region, ins.coalesce(None, col("b"), lit(None)), b=b) == [None, 2, None]
    assert values(region, ins.coalesce(None, None), a=a) == [None] * 3
    assert values(region, ins.coalesce(col("a"), 0.5), a=a) == [1.0, 0.5, 0.5]
    assert values(region, ins.coalesce(col("a") > 0, False), a=a) == [True, False, False]
    d, stamp = pa.array([0, None, None], pa.date32()), pa.array([None, 1, None], pa.timestamp("us"))
    got = one(region, ins.coalesce("d", "stamp"), d=d, stamp=stamp)
    assert got.type == pa.timestamp("us")
    assert got.cast("int64").to_pylist() == [0, 1, None]
    with pytest.raises(ins.TypeMismatch, match="no common type"):
        values(region, ins.coalesce("a", "d"), a=a, d=d)
    with pytest.raises(ins.InvalidArgument, match="at least 1"):
        ins.coalesce()
    with pytest.raises(ins.Unsupported, match="choosing between values of type utf8"):
        values(region, ins.coalesce("s", lit("none")), s=["x", None])
    assert repr(ins.coalesce("a", 0)) == 'coalesce(col("a"), 0)'
    assert region["one"].select(ins.coalesce("a", "d")).__repr__()


def test_extremes_in_a_row(region: ins.Region) -> None:
    a, b = pa.array([1.0, None, NAN, NAN, None]), pa.array([2, 2, 2, None, None], pa.int8())
    assert values(region, ins.min_horizontal("a", "b"), a=a, b=b)[:3] == [1.0, 2.0, 2.0]
    low = values(region, ins.min_horizontal("a", "b"), a=a, b=b)
    assert low[3] != low[3]
    assert low[4] is None
    assert values(region, ins.max_horizontal("a", "b", 1.5), a=a, b=b) == [2, 2, 2, 1.5, 1.5]
    assert values(region, ins.max_horizontal("b", None), b=b) == [2, 2, 2, None, None]
    assert one(region, ins.max_horizontal("b", 100), b=b).type == pa.int8()
    assert one(region, ins.max_horizontal("b", 1000), b=b).type == pa.int16()
    for name in ("min_horizontal", "max_horizontal", "sum_horizontal", "mean_horizontal"):
        with pytest.raises(ins.TypeMismatch, match="it needs numbers"):
            values(region, getattr(ins, name)("s"), s=["x"])


def test_sums_and_means_in_a_row(region: ins.Region) -> None:
    a, b = pa.array([1, None, 127], pa.int8()), pa.array([2, None, 1], pa.int8())
    got = one(region, ins.sum_horizontal("a", "b"), a=a, b=b)
    assert (got.type, got.to_pylist()) == (pa.int8(), [3, 0, -128])
    query = region["one"].select(ins.sum_horizontal("a", "b"))
    with pytest.raises(ins.Overflow, match="row 2"):
        query.collect(checked=True)
    assert values(region, ins.mean_horizontal("a", "b", 6), a=a, b=b) == [3.0, 6.0, 134 / 3]
    assert values(region, ins.mean_horizontal("a", "b"), a=a, b=b) == [1.5, None, 64.0]
    assert values(region, ins.sum_horizontal(None), a=a) == [0, 0, 0]
    assert values(region, ins.mean_horizontal(None), a=a) == [None] * 3
    assert values(region, ins.sum_horizontal(col("a") > 1, True), a=a) == [1, 1, 2]


def test_logic_in_a_row(region: ins.Region) -> None:
    a = pa.array([True, True, True, False, None])
    b = pa.array([True, False, None, None, None])
    assert values(region, ins.all_horizontal("a", "b"), a=a, b=b) == [
        True,
        False,
        None,
        False,
        None,
    ]
    assert values(region, ins.any_horizontal("a", "b"), a=a, b=b) == [True, True, True, None, None]
    with pytest.raises(ins.TypeMismatch, match="a boolean is needed"):
        values(region, ins.all_horizontal("a", "i"), a=a, i=[1] * 5)
    t = region["one"]
    assert t.filter(ins.any_horizontal(col("i") > 1, col("a"))).to_arrow().num_rows == 3


def test_chains_of_conditions(region: ins.Region) -> None:
    x = pa.array(range(10), pa.int8())
    chain = when(col("x") < 3).then(col("x")).when(col("x") < 6).then(1000).when(col("x") < 8)
    got = one(region, chain.then(None).otherwise(-1), x=x)
    assert got.type == pa.int16()
    assert got.to_pylist() == [0, 1, 2, 1000, 1000, 1000, None, None, -1, -1]
    nested = when(col("x") > 5).then(when(col("x") > 7).then(2).otherwise(1)).otherwise(0)
    assert values(region, nested, x=x) == [0] * 6 + [1] * 2 + [2] * 2


# Bits.


def test_bits_of_integers(region: ins.Region) -> None:
    a, b = pa.array([0b1100, -1, None], pa.int16()), pa.array([0b1010, 7, 1], pa.int8())
    for expr, expected in [
        (col("a") & col("b"), [0b1000, 7, None]),
        (col("a") | col("b"), [0b1110, -1, None]),
        (col("a") ^ col("b"), [0b0110, -8, None]),
        (~col("a"), [-13, 0, None]),
        (col("a") << 2, [0b110000, -4, None]),
        (col("a") >> 2, [0b11, -1, None]),
        (1 << col("b"), [0, -128, 2]),
        (255 & col("a"), [12, 255, None]),
        (col("a") << 15, [0, -(2**15), None]),
        (col("a") << 16, [0, 0, None]),
        (col("a") << -1, [0, 0, None]),
        (col("a") >> 16, [0, -1, None]),
        (col("a") >> -1, [0, -1, None]),
        (col("a") & None, [None] * 3),
        (col("a") & (col("b") > 1), [0, 1, None]),
    ]:
        got = one(region, expr, a=a, b=b)
        assert got.to_pylist() == expected, repr(expr)
        assert got.type == (pa.int8() if "1 <<" in repr(expr) else pa.int16()), repr(expr)
    assert repr(col("a") << 1) == '(col("a") << 1)'
    with pytest.raises(ins.TypeMismatch, match="a boolean is needed"):
        values(region, ~col("f"), f=[1.0])
    u, i = pa.array([1], pa.uint64()), pa.array([1], pa.int64())
    for wrong in (col("u") & col("i"), col("i") << 1.0, col("i") | col("f"), col("f") << 1):
        with pytest.raises(ins.TypeMismatch, match="needs integers"):
            values(region, wrong, u=u, i=i, f=[1.0])
    with pytest.raises(ins.TypeMismatch, match="an integer"):
        values(region, col("f").bitwise_count_ones(), f=[1.0])


# Casts.


HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


def test_half_precision_is_stored_viewed_moved_and_cast(region: ins.Region) -> None:
    t = region.put("h", {"h": HALVES, "i": np.arange(2**16)})
    assert t["h"].dtype == pa.float16()
    np.testing.assert_array_equal(t["h"].to_numpy().view(np.uint16), HALVES.view(np.uint16))
    for kind in ("f4", "f8"):
        got = t.select(col("h").cast(kind)).to_numpy()["h"]
        np.testing.assert_array_equal(got, HALVES.astype(kind))
        np.testing.assert_array_equal(np.signbit(got), np.signbit(HALVES))
    part = t.filter(col("i") % 3 == 0).select("h").to_numpy()["h"]
    np.testing.assert_array_equal(part.view(np.uint16), HALVES[::3].view(np.uint16))
    backwards = t.sort("i", descending=True).select("h").to_numpy()["h"]
    np.testing.assert_array_equal(backwards.view(np.uint16), HALVES[::-1].view(np.uint16))
    sliced = t.slice(77, 1000).select("h").to_numpy()["h"]
    np.testing.assert_array_equal(sliced.view(np.uint16), HALVES[77:1077].view(np.uint16))
    assert ins._native._statistics(t)[0]["max"] is None  # type: ignore[index]
    chosen = t.select(r=when(col("i") < 2**15).then(col("h"))).to_arrow()["r"]
    assert chosen.null_count == 2**15
    assert t.select(n=col("h").count()).item() == 2**16
    # Aliases of names, of NumPy and of Arrow.
    for kind in ("float16", np.float16, "f2", pa.float16()):
        assert t.select(col("i").cast(kind)).schema.field("i").type == pa.float16()


def test_casts_to_half_precision_round_once(region: ins.Region) -> None:
    exact = np.unique(HALVES[np.isfinite(HALVES)].astype("f8"))
    middle = (exact[1:] + exact[:-1]) / 2
    x = np.concatenate(
        [
            middle,
            np.nextafter(middle, -INF),
            np.nextafter(middle, INF),
            exact,
            np.array([65519.99, 65520.0, -65520.0, 1e300, -1e300, INF, NAN, 5e-324, -0.0]),
        ]
    )
    with np.errstate(all="ignore"):
        for kind in ("f8", "f4"):
            values = x.astype(kind)
            got = one(region, col("x").cast("float16"), x=values).to_numpy()
            np.testing.assert_array_equal(got, values.astype("f2"))
            np.testing.assert_array_equal(np.signbit(got)[:-3], np.signbit(values)[:-3])
        for kind in ("i1", "u2", "i4", "u8", "i8"):
            numbers = np.arange(-70_000, 70_000, 7).astype(kind)
            got = one(region, col("x").cast("float16"), x=numbers).to_numpy()
            np.testing.assert_array_equal(got, numbers.astype("f2"))


def test_half_precision_is_not_computed_on(region: ins.Region) -> None:
    t = region.put("h", {"h": HALVES[:100], "x": np.arange(100.0)})
    for wrong in (
        col("h") + 1, col("h") * col("x"), col("h").sqrt(), col("h") > col("h"), col("h") == 1.0,
        col("h").sum(), col("h").max(), ins.max_horizontal("h", "h"), col("h").is_nan(),
        col("h").is_in([1.0]), col("h").clip(0, 1), col("h").eq_missing(col("h")),
    ):  # fmt: skip
        with pytest.raises((ins.TypeMismatch, ins.Unsupported)):
            t.select(r=wrong).collect()
    for query in (t.sort("h"), t.group_by("h").agg(ins.len())):
        with pytest.raises(ins.Unsupported):
            query.collect()
    with pytest.raises(ins.TypeMismatch, match="cast it to float32"):
        t.select(col("h") + 1).collect()
    with pytest.raises(ins.CastFailed, match="row 0 is NaN"):
        one(region, col("h").cast("int8"), h=np.array([NAN], "f2"))
    assert values(region, col("h").cast("int8", strict=False), h=HALVES[15360:15362]) == [1, 1]
    assert values(region, col("h").cast(bool), h=np.array([0, -0.0, 2, NAN], "f2")) == [
        False, False, True, True,
    ]  # fmt: skip


TIMES = {
    "date32[day]": pa.int32(), "date64[ms]": pa.int64(), "timestamp[s]": pa.int64(),
    "timestamp[ns]": pa.int64(), "duration[us]": pa.int64(), "time32[s]": pa.int32(),
    "time64[us]": pa.int64(),
}  # fmt: skip


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize(
    "number", ["int8", "uint16", "int32", "int64", "float32", "float64", "bool"]
)
def test_casts_between_times_and_numbers(region: ins.Region, kind: str, number: str) -> None:
    dtype = pa.type_for_alias(kind)
    raw = [0, 1, -1, 100, 127, 128, 70_000, None]
    times = pa.array(raw, TIMES[kind]).view(dtype)
    got = one(region, col("t").cast(number, strict=False), t=times)
    assert got.type == pa.type_for_alias(number)
    limits = {"int8": (-128, 127), "uint16": (0, 2**16 - 1)}.get(number, (-(2**63), 2**63))
    expected = [
        None
        if v is None or not limits[0] <= v <= limits[1]
        else (v != 0 if number == "bool" else v)
        for v in raw
    ]
    assert got.to_pylist() == expected
    if None in expected[:-1]:
        first = next(i for i, v in enumerate(expected) if v is None)
        with pytest.raises(ins.CastFailed) as failed:
            one(region, col("t").cast(number), t=times)
        assert (failed.value.row, failed.value.value) == (first, str(raw[first]))
        assert failed.value.to == number
    # And back.
    back = one(region, col("n").cast(dtype), n=pa.array([0, 1, 100, None]).cast(number, safe=False))
    assert back.type == dtype
    seen = [0, 1, 1 if number == "bool" else 100, None]
    assert one(region, col("t").cast(TIMES[kind]), t=back).to_pylist() == seen


def test_casts_between_units(region: ins.Region) -> None:
    s = pa.array([0, 86_399, None], pa.time32("s"))
    for unit, by in [("time32[ms]", 1000), ("time64[us]", 10**6), ("time64[ns]", 10**9)]:
        there = one(region, col("t").cast(unit), t=s)
        assert there.type == pa.type_for_alias(unit)
        number = "int32" if there.type.bit_width == 32 else "int64"
        assert there.cast(number).to_pylist() == [0, 86_399 * by, None]
        assert one(region, col("t").cast("time32[s]"), t=there).to_pylist() == s.to_pylist()
    wild = pa.array([0, 2**62], pa.int64()).cast(pa.time64("us"))
    for unit in ("time32[s]", "time64[ns]"):
        with pytest.raises(ins.CastFailed, match="row 1 is 4611686018427387904"):
            one(region, col("t").cast(unit), t=wild)
        assert values(region, col("t").cast(unit, strict=False).is_null(), t=wild) == [False, True]


def test_failed_casts_name_the_first_row_and_its_value(region: ins.Region) -> None:
    rows = 200_000
    x = np.zeros(rows)
    x[[199_999, 150_001]] = [NAN, 1e10]
    for chunks in (1, 7):
        pieces = np.array_split(x, chunks)
        t = region.put("c", pa.table({"x": pa.chunked_array(pieces)}), replace=True)
        with pytest.raises(ins.CastFailed) as failed:
            t.select(col("x").cast("int32")).collect()
        error = failed.value
        assert (error.row, error.value, error.to) == (150_001, "10000000000.0", "int32")
        assert "x" in error.column
    # A null is no value that could fail.
    masked = pa.array(x, mask=x != 0)
    assert one(region, col("x").cast("int32"), x=masked).null_count == 2


# NumPy's names.


UFUNCS: list[Any] = [
    np.absolute, np.ceil, np.fabs, np.floor, np.isfinite, np.isinf, np.isnan, np.negative,
    np.positive, np.rint, np.sign, np.sqrt, np.square, np.trunc, np.logical_not,
]  # fmt: skip
BINARY: list[Any] = [
    np.add, np.subtract, np.multiply, np.divide, np.floor_divide, np.remainder, np.equal,
    np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.minimum, np.maximum,
    np.fmin, np.fmax, np.logical_and, np.logical_or, np.logical_xor,
]  # fmt: skip
BITS: list[Any] = [
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift,
]  # fmt: skip


def agree(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_numpy_functions_of_expressions(region: ins.Region) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=300) * 3, rng.normal(size=300) * 3
    x[:6] = [NAN, INF, -INF, 0.0, -0.0, 0.5]
    y[:9] = [1, 2, 3, 4, 5, NAN, NAN, INF, 0]
    i, j = rng.integers(-50, 50, 300), rng.integers(-3, 70, 300)
    t = region.put("u", {"x": x, "y": y, "i": i, "j": j})

    def ours(expr: ins.Expr) -> Any:
        assert isinstance(expr, ins.Expr)
        return t.select(r=expr).to_arrow()["r"].to_numpy()

    with np.errstate(all="ignore"):
        for f in UFUNCS:
            agree(ours(f(col("x"))), f(x))
        for f in BINARY:
            agree(ours(f(col("x"), col("y"))), f(x, y))
            agree(ours(f(col("x"), 1.5)), f(x, 1.5))
            agree(ours(f(np.float64(1.5), col("x"))), f(1.5, x))
        for f in BITS:
            agree(ours(f(col("i"), col("j"))), f(i, j))
        agree(ours(np.invert(col("i"))), ~i)
        agree(ours(np.bitwise_count(col("j"))), np.bitwise_count(j))
        agree(ours(np.int64(3) - col("i")), 3 - i)
        agree(ours(np.int64(3) < col("i")), i > 3)
        agree(ours(np.sqrt(np.add(col("x"), 1)) * 2), np.sqrt(x + 1) * 2)
        agree(ours(np.maximum(col("i"), 7)), np.maximum(i, 7))


def test_numpy_functions_keep_nulls(region: ins.Region) -> None:
    x, y = pa.array([1.0, None, 3.0, NAN]), pa.array([2.0, 2.0, None, 1.0])
    for f, expected in [(np.fmax, [2.0, None, None, 1.0]), (np.add, [3.0, None, None])]:
        assert values(region, f(col("x"), col("y")), x=x, y=y)[: len(expected)] == expected
    largest = values(region, np.maximum(col("x"), col("y")), x=x, y=y)
    assert largest[:3] == [2.0, None, None]
    assert largest[3] != largest[3]


def test_what_numpy_cannot_ask_of_expressions(region: ins.Region) -> None:
    x = col("x")
    for f, message in [
        (lambda: np.add(x, 1, out=np.empty(3)), "takes no out="),
        (lambda: np.add(x, 1, where=np.array([True])), "takes no where="),
        (lambda: np.add(x, 1, dtype="f4"), "takes no dtype="),
        (lambda: np.add.reduce(x), r"numpy\.add\.reduce works on arrays"),
        (lambda: np.add.accumulate(x), r"numpy\.add\.accumulate works on arrays"),
        (lambda: np.add(x, np.arange(3)), "cannot be a literal"),
        (lambda: np.arange(3) + x, "cannot be a literal"),
    ]:
        with pytest.raises(ins.TypeMismatch, match=message):
            f()
    for f in (lambda: np.modf(x), lambda: np.gcd(x, 3), lambda: np.heaviside(x, 0)):
        with pytest.raises(ins.Unsupported, match=r"numpy\.\w+ has no counterpart"):
            f()


# Other rows.


def test_shift_and_diff(region: ins.Region) -> None:
    x = pa.array([1, 2, None, 4], pa.int8())
    for expr, expected in [
        (col("x").shift(), [None, 1, 2, None]),
        (col("x").shift(-2), [None, 4, None, None]),
        (col("x").shift(2, fill_value=0), [0, 0, 1, 2]),
        (col("x").shift(-1, fill_value=col("x") * 10), [2, None, 4, 40]),
        (col("x").shift(0, fill_value=7), [1, 2, None, 4]),
        (col("x").shift(100), [None] * 4),
        (col("x").diff(), [None, 1, None, None]),
        (col("x").diff(-1), [-1, None, None, None]),
        (col("x").diff(n=3), [None, None, None, 3]),
        (lit(5).shift(1), [None, 5, 5, 5]),
        ((col("x") > 1).shift(1, fill_value=False), [False, False, True, None]),
        (col("x").shift(1).fill_null(9), [9, 1, 2, 9]),
    ]:
        got = one(region, expr, x=x)
        assert got.to_pylist() == expected, repr(expr)
    assert one(region, col("x").diff(), x=pa.array([1, 0], pa.uint8())).to_pylist() == [None, 255]
    stamps = pa.array([0, 5, None], pa.timestamp("ms"))
    assert one(region, col("x").diff(), x=stamps).type == pa.duration("ms")
    t = region["one"]
    assert t.filter(col("x") > dt.datetime(1970, 1, 1)).select(col("x").shift()).item() is None
    assert repr(col("x").shift(2)) == 'col("x").shift(2)'
    for wrong in (1.5, "a", None):
        with pytest.raises(TypeError):
            col("x").shift(wrong)  # type: ignore[arg-type]


def test_shift_over_chunks_morsels_and_steps(region: ins.Region) -> None:
    x = np.random.default_rng(5).normal(size=200_000)
    cuts = [1, 7, 65_536, 65_537, 131_000]
    pieces = [np.asarray(p) for p in np.split(x, cuts)]
    t = region.put("long", pa.table({"x": pa.chunked_array(pieces)}))
    for n in (1, -1, 1000, -70_000):
        got = t.select(r=col("x").shift(n, fill_value=0.0)).to_arrow()["r"].to_numpy()
        expected = np.zeros_like(x)
        if n > 0:
            expected[n:] = x[:-n]
        else:
            expected[:n] = x[-n:]
        np.testing.assert_array_equal(got, expected)
    up = t.filter(col("x").diff() > 0)
    np.testing.assert_array_equal(up.to_arrow()["x"].to_numpy(), x[1:][np.diff(x) > 0])
    kept = x[x > 0]
    got = t.filter(col("x") > 0).select(col("x").diff()).to_arrow()["x"].to_numpy()
    np.testing.assert_array_equal(got[1:], np.diff(kept))
    assert np.isnan(got[0])
    prepared = t.select(col("x").diff().max()).prepare()
    assert prepared.run().item() == np.diff(x).max()


def test_where_rows_are_not_counted(region: ins.Region) -> None:
    t = region.put("t", {"x": [1, 2, 3], "k": [1, 1, 2]})
    with pytest.raises(ins.Unsupported, match="rows of a group are not counted"):
        t.group_by("k").agg(col("x").shift().sum()).collect()
    with pytest.raises(ins.Unsupported, match="read on both sides"):
        t.update(x=col("x").shift(-1) + col("x").shift(), in_place=True)
    assert t["x"].to_pylist() == [1, 2, 3]
