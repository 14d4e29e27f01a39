"""Every function of the table, on every type it takes, against pyarrow and NumPy; grouping and
sorting against pandas and Python. Random data with nulls, NaN, infinities and extremes, in tables
that are empty, sliced, chunked, and longer than a block, a tile and a morsel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insitu import col

from references import (
    ALIKE,
    CIRCLE,
    ELEMENTWISE,
    FLOATS,
    HORIZONTAL,
    INTEGERS,
    NUMBERS,
    ORDERED,
    REDUCTIONS,
    SETTINGS,
    SIZES,
    STORED,
    STRINGS,
    ULPS,
    WINDOWS,
    apply,
    arity,
    close,
    on_numpy,
    plain,
    put,
    random_array,
    rank,
)


def test_every_function_of_the_table_has_a_reference() -> None:
    # Those that read other rows are in test_rows.py and test_windows.py.
    apart = ("window", "cumulative")
    functions = {method for method, _, kind, _ in ins._native._functions() if kind not in apart}
    assert functions == ELEMENTWISE.keys() | REDUCTIONS.keys() | HORIZONTAL.keys()


def sizes_of(kind: str) -> list[int]:
    return [0, 1, 65, 1000] if kind in ALIKE else SIZES


@pytest.mark.parametrize("kind", STORED)
def test_no_function_takes_a_type_that_it_has_no_reference_for(
    region: ins.Region, kind: str
) -> None:
    array = random_array(kind, 10, np.random.default_rng(1))
    t = put(region, a=array, b=array, c=array)
    for method, (kinds, _) in (ELEMENTWISE | REDUCTIONS | HORIZONTAL).items():
        if method in HORIZONTAL:
            expr = getattr(ins, method)("a", "b")
        elif method in REDUCTIONS:
            expr = apply(method, [col("a"), *SETTINGS.get(method, [])])
        else:
            expr = apply(method, [col(c) for c in "abc"[: arity(method)]])
        if kind in kinds:
            t.select(r=expr).prepare()
        else:
            with pytest.raises((ins.TypeMismatch, ins.Unsupported)):
                t.select(r=expr).prepare()
    for kinds, function in WINDOWS.values():
        if kind in kinds:
            t.select(r=function(col("a"))).prepare()
        else:
            with pytest.raises((ins.TypeMismatch, ins.Unsupported)):
                t.select(r=function(col("a"))).prepare()


CASES = [(method, kind) for method, (kinds, _) in ELEMENTWISE.items() for kind in kinds]


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_functions(region: ins.Region, method: str, kind: str) -> None:
    rng = np.random.default_rng([len(method), len(kind), 7])
    reference = ELEMENTWISE[method][1]
    for rows in sizes_of(kind):
        for nulls in (0.0, 0.2):
            arrays = [random_array(kind, rows, rng, nulls) for _ in range(arity(method))]
            names = "abc"[: len(arrays)]
            t = put(region, **dict(zip(names, arrays, strict=True)))
            got = t.select(r=apply(method, [col(n) for n in names])).to_arrow()["r"]
            got.validate(full=True)
            expected = reference(*arrays)
            if expected.type == pa.string_view():
                expected = expected.cast(got.type)
            # Which of two equal zeros is the larger is nobody's business; of signs NumPy forgets
            # that of zero.
            signed_zeros = method not in ("clip", "sign")
            close(got, expected, signed_zeros=signed_zeros, ulps=ULPS.get(method, 0))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("method", "kind"), [(m, k) for m, (kinds, _) in HORIZONTAL.items() for k in kinds]
)
def test_horizontal_functions(region: ins.Region, method: str, kind: str, count: int) -> None:
    rng = np.random.default_rng([len(method), len(kind), count])
    for rows in (0, 1, 64, 257, 3000):
        for nulls in (0.0, 0.5):
            arrays = [random_array(kind, rows, rng, nulls) for _ in range(count)]
            if nulls:  # one of them without
                arrays[-1] = random_array(kind, rows, rng, float(rng.integers(2)) / 2)
            names = [f"c{i}" for i in range(count)]
            t = put(region, **dict(zip(names, arrays, strict=True)))
            got = t.select(r=getattr(ins, method)(*names)).to_arrow()["r"]
            got.validate(full=True)
            close(got, HORIZONTAL[method][1](*arrays), signed_zeros=False)


OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "rem", "eq", "ne", "lt", "le", "gt", "ge"]


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("method", OPERATORS)
def test_operators_with_literals_on_either_side(region: ins.Region, method: str, kind: str) -> None:
    rng = np.random.default_rng([len(method), len(kind), 15])
    reference = ELEMENTWISE[method][1]
    literals = [0, 1, 2, 7, 0.5, float("nan")] if kind in FLOATS else [0, 1, 2, 7]
    for rows in (0, 1, 300, 5000):
        for nulls in (0.0, 0.2):
            array = random_array(kind, rows, rng, nulls)
            t = put(region, a=array)
            for value in literals:
                constant = pa.array([value] * rows, array.type)
                # As methods, and as the operators that Python reflects.
                got = t.select(
                    right=apply(method, [col("a"), value]),
                    left=apply(method, [ins.lit(value), col("a")]),
                ).to_arrow()
                close(got["right"], reference(array, constant))
                close(got["left"], reference(constant, array))


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("method", CIRCLE)
def test_angles_and_roots_of_numbers_of_all_sizes(
    region: ins.Region, method: str, kind: str
) -> None:
    """Any bits at all, quarter turns up to huge ones, and what lies around 1."""
    rng = np.random.default_rng([len(method), len(kind), 17])
    bits = rng.integers(0, np.iinfo("uint64").max, 3000, np.uint64, endpoint=True).view(kind)
    quarters = np.floor(2.0 ** rng.uniform(0, 120, 3000)) * (np.pi / 2)
    unit = rng.choice([-1.0, 1.0], 3000) * (1 - rng.uniform(0, 1, 3000) ** 8)
    values = rng.permutation(np.concatenate([bits, quarters.astype(kind), unit.astype(kind)]))
    arrays = [pa.array(values, mask=rng.random(len(values)) < 0.1).slice(k, 8000) for k in (3, 900)]
    arrays = arrays[: arity(method)]
    t = put(region, **dict(zip("ab", arrays, strict=False)))
    got = t.select(r=apply(method, [col(n) for n in "ab"[: len(arrays)]])).to_arrow()["r"]
    close(got, ELEMENTWISE[method][1](*arrays), ulps=2)


@pytest.mark.parametrize("kind", NUMBERS)
def test_powers_with_literals_on_either_side(region: ins.Region, kind: str) -> None:
    """An integer to a whole literal is NumPy's integer power, which wraps; all else is a float."""
    rng = np.random.default_rng([len(kind), 16])
    power = ELEMENTWISE["pow"][1]
    as_integer = on_numpy(lambda values, exponent: values**exponent)
    for rows in (0, 1, 300, 5000):
        for nulls in (0.0, 0.2):
            array = random_array(kind, rows, rng, nulls)
            t = put(region, a=array)
            for value in [0, 1, 2, 3, 7, 10]:
                constant = pa.array([value] * rows, array.type)
                got = t.select(
                    right=col("a") ** value, left=value ** col("a"), method=col("a").pow(value)
                ).to_arrow()
                right = as_integer if kind in INTEGERS else power
                close(got["right"], right(array, constant), ulps=4)
                close(got["method"], right(array, constant), ulps=4)
                close(got["left"], power(constant, array), ulps=4)
            for exponent in [0.5, 2.0, -1, -2.5, float("inf"), float("nan")]:
                got = t.select(r=col("a") ** exponent).to_arrow()["r"]
                wide = array if kind in FLOATS else array.cast("float64", safe=False)
                close(got, power(wide, pa.array([exponent] * rows, wide.type)), ulps=4)


@pytest.mark.parametrize(
    ("method", "kind"),
    [(m, k) for m, (kinds, _) in REDUCTIONS.items() for k in kinds],
)
def test_reductions(region: ins.Region, method: str, kind: str) -> None:
    rng = np.random.default_rng([len(method), len(kind), 8])
    for rows in sizes_of(kind):
        for nulls in (0.0, 0.2, 1.0):
            array = random_array(kind, rows, rng, nulls)
            if method == "sum" and kind in ("int64", "uint64"):
                array = pc.divide(array, pa.scalar(1 << 20, array.type))  # so that it fits
            if method == "product":
                array = near_one(array)
            if method in ("var", "std") and nulls and kind in FLOATS:
                # With NaN or infinities among them there is little to compare.
                array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
            t = put(region, a=array)
            settings = SETTINGS.get(method, [])
            reference = REDUCTIONS[method][1]
            got = getattr(t["a"], method)(*settings)
            some = t.filter(col("a").is_not_null())
            selected = some.select(apply(method, [col("a"), *settings])).item()
            # pyarrow drops no nulls from string views.
            kept = pa.array([v for v in array if v.is_valid], array.type)
            for value, rows_of in ((got, array), (selected, kept)):
                expected = reference(rows_of)
                if kind == "float16":
                    value, expected = (None if v is None else float(v) for v in (value, expected))
                if isinstance(expected, float):
                    rough = kind == "float32" and method in ("sum", "product")
                    tolerance = 1e-6 if rough else 1e-10 if method == "product" else 1e-12
                    scale = sum(
                        abs(v) for v in array.to_pylist() if v is not None and math.isfinite(v)
                    )
                    assert value == pytest.approx(
                        expected,
                        rel=tolerance,
                        abs=scale * 1e-13 if method in ("sum", "mean") else 0,
                        nan_ok=True,
                    )
                else:
                    assert value == expected
                assert type(value) is type(expected)


def near_one(array: pa.Array) -> pa.Array:
    """Values whose product stays small."""
    if pa.types.is_boolean(array.type):
        return array
    if pa.types.is_floating(array.type):
        values = 1 + np.sin(np.arange(len(array))) / 100
    else:
        values = np.ones(len(array))
        values[1:40:3] = 3
        values[2:9:2] = -1 if pa.types.is_signed_integer(array.type) else 2
    return pa.array(
        values.astype(str(array.type).replace("float", "f4").replace("double", "f8")),
        mask=array.is_null().to_numpy(zero_copy_only=False),
    )


@pytest.mark.parametrize("kind", [*NUMBERS, "bool"])
@pytest.mark.parametrize("groups", [1, 30, 3000])
def test_grouped_reductions_are_those_of_polars(region: ins.Region, kind: str, groups: int) -> None:
    polars = pytest.importorskip("polars")
    rng = np.random.default_rng([groups, len(kind)])
    for rows in (1, 1000, 70_000):
        array = random_array(kind, rows, rng)
        if kind in FLOATS:
            # Polars finds NaN in places of its own.
            array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
        keys = rng.integers(0, groups, rows)
        t = put(region, k=pa.array(keys), a=array)

        def aggregates(a: Any) -> dict[str, Any]:
            named = {
                "var": a.var(),
                "std": a.std(ddof=0),
                "first": a.first(),
                "last": a.last(),
                "arg_min": a.arg_min(),
                "arg_max": a.arg_max(),
                "n_unique": a.n_unique(),
                "median": a.median(),
                "quantile": a.quantile(0.3, interpolation="linear"),
                "nearest": a.quantile(0.77, interpolation="nearest"),
                "lower": a.quantile(0.77, interpolation="lower"),
                "higher": a.quantile(0.77, interpolation="higher"),
                "midpoint": a.quantile(0.77, interpolation="midpoint"),
            }
            return named | ({"any": a.any(), "all": a.all()} if kind == "bool" else {})

        got = t.group_by("k").agg(**aggregates(col("a"))).to_arrow().to_pydict()
        frame = polars.DataFrame({"k": keys, "a": polars.from_arrow(array)})
        if kind == "float32":
            wide = frame.with_columns(polars.col("a").cast(polars.Float64))
        elif kind == "bool":
            wide = frame.with_columns(polars.col("a").cast(polars.Int8))
        else:
            wide = frame
        grouped = wide.group_by("k", maintain_order=True)
        named = aggregates(polars.col("a"))
        boolean = {n: named.pop(n) for n in ("any", "all") if n in named}
        expected = grouped.agg(**named).to_dict(as_series=False)
        expected |= frame.group_by("k", maintain_order=True).agg(**boolean).to_dict(as_series=False)
        for name, values in got.items():
            for value, other in zip(values, expected[name], strict=True):
                if isinstance(value, float):
                    assert value == pytest.approx(other, rel=1e-9), name
                else:
                    assert value == other, name


def test_variances_keep_their_digits_far_from_zero(region: ins.Region) -> None:
    rng = np.random.default_rng(16)
    deviations = rng.integers(-(2**20), 2**20, 200_000) / 2.0**20
    t = region.put("t", {"v": deviations + 1e9, "k": np.arange(200_000) % 10})
    values = [int(v) for v in deviations * 2**20]
    mean = Fraction(sum(values), len(values))
    exact = float(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / 2**40)
    assert t["v"].var() == pytest.approx(exact, rel=4e-16)
    grouped = t.group_by("k").agg(col("v").var()).to_arrow()["v"].to_pylist()
    for k, value in enumerate(grouped):
        assert value == pytest.approx((deviations[k::10]).var(ddof=1), rel=1e-13)


@pytest.mark.parametrize("method", ["add", "sub", "mul", "truediv", "lt", "eq"])
def test_mixed_types_go_by_the_result(region: ins.Region, method: str) -> None:
    """What NumPy's promotion gives, for pairs that have a common type in every library."""
    rng = np.random.default_rng(9)
    for left, right in [
        ("int8", "int32"),
        ("int32", "float64"),
        ("uint8", "int16"),
        ("float32", "float64"),
        ("int64", "int8"),
        ("uint16", "uint64"),
    ]:
        a, b = random_array(left, 1000, rng), random_array(right, 1000, rng)
        t = put(region, a=a, b=b)
        common = pa.from_numpy_dtype(np.result_type(np.dtype(left), np.dtype(right)))
        for x, y, m, n in [(a, b, "a", "b"), (b, a, "b", "a")]:
            got = t.select(r=apply(method, [col(m), col(n)])).to_arrow()["r"]
            close(got, ELEMENTWISE[method][1](x.cast(common), y.cast(common)))


@pytest.mark.parametrize("kind", STORED)
def test_no_function_minds_chunks_and_slices(region: ins.Region, kind: str) -> None:
    """All functions of a type: of one chunk, of a slice of more rows, and of chunks of which some
    have nulls, and so bitmaps, and some have none."""
    rng = np.random.default_rng([len(kind), 21])
    ends = [0, 7000, 9100, 9800, 10_000, 10_065, 10_072, 10_073]
    arrays = []
    for nulls in ([0, 0.3, 0, 0.3, 0.3, 0, 1], [0.2, 0, 0, 1, 0, 0.3, 0], [0] * 7):
        parts = [
            random_array(kind, end - start, rng, share)
            for (start, end), share in zip(itertools.pairwise(ends), nulls, strict=True)
        ]
        arrays.append(pa.concat_arrays(parts))
    mask = pa.array(rng.random(len(arrays[0])) < 0.7)
    whole = pa.table({**dict(zip("abc", arrays, strict=True)), "kept": mask})
    more = pa.concat_tables([whole.slice(5, 13), whole, whole.slice(9, 77)]).combine_chunks()
    one, sliced = region.put("one", whole), region.put("sliced", more.slice(13, whole.num_rows))
    chunked = region.put("chunked", whole.slice(0, ends[1]))
    for start, end in itertools.pairwise(ends[1:]):
        chunked = chunked.append(whole.slice(start, end - start))
    assert chunked.to_arrow()["a"].num_chunks > 3

    rows, totals = {}, {}
    for method, (kinds, _) in ELEMENTWISE.items():
        if kind in kinds:
            rows[method] = apply(method, [col(c) for c in "abc"[: arity(method)]])
    for method, (kinds, _) in HORIZONTAL.items():
        if kind in kinds:
            rows[method] = getattr(ins, method)("a", "b", "c")
    # Running sums and products of integers would not fit.
    large = {"cum_sum": ["int64", "uint64"], "cum_prod": INTEGERS}
    for method, (kinds, function) in WINDOWS.items():
        if kind in kinds and kind not in large.get(method, []):
            rows[method] = function(col("a"))
    for method, (kinds, _) in REDUCTIONS.items():
        if kind in kinds and not (method in ("sum", "product") and kind in ("int64", "uint64")):
            for name in "ab":
                totals[method + name] = apply(method, [col(name), *SETTINGS.get(method, [])])
    for query in (
        lambda t: t.select(**rows),
        lambda t: t.select(**totals),
        lambda t: t.filter("kept").select(**rows),
        lambda t: t.filter("kept").select(**totals),
    ):
        expected = query(one).to_arrow()
        for other in (sliced, chunked):
            got = query(other).to_arrow()
            for name in expected.column_names:
                close(got[name], expected[name])


def test_chunks_and_slices_change_nothing(region: ins.Region) -> None:
    rng = np.random.default_rng(10)
    whole_table = pa.table(
        {
            "k": random_array("int8", 10_000, rng),
            "f": random_array("float64", 10_000, rng, 0.3),
            "s": random_array("string", 10_000, rng),
            "b": random_array("bool", 10_000, rng),
        }
    )
    padded = pa.concat_tables([whole_table.slice(5, 13), whole_table, whole_table.slice(9, 77)])
    sliced = padded.combine_chunks().slice(13, 10_000)
    cuts = np.sort(rng.integers(0, 10_000, 40))
    chunked = pa.concat_tables(
        [whole_table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True)]
    )
    results = []
    for i, source in enumerate([whole_table, sliced, chunked]):
        t = region.put(f"t{i}", source)
        rest = t.filter(col("b") | (col("k") > 5)).with_columns(g=col("f") * 2 + col("k"))
        results.append(
            [
                rest.to_arrow(),
                rest.group_by("s").agg(col("g").sum(), n=ins.len()).to_arrow(),
                t.select(col("f").sum(), m=col("f").mean(), n=col("s").count()).to_arrow(),
                t.select(
                    col("f").var(),
                    s=col("s").first(),
                    n=col("s").n_unique(),
                    k=col("k").arg_max(),
                    p=col("f").is_null().any(),
                    m=col("f").median(),
                    l=col("s").last(),
                ).to_arrow(),
                rest.group_by("s")
                .agg(
                    col("f").std(),
                    b=col("b").last(),
                    n=col("k").n_unique(),
                    m=col("f").median(),
                )
                .to_arrow(),
                t.sort("k", "s").to_arrow(),
            ]
        )
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert repr(one.to_pydict()) == repr(two.to_pydict())


KEYS = [*INTEGERS, "bool", *STRINGS]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("rows", [0, 1, 300, 70_000])
def test_group_by_is_that_of_pandas(region: ins.Region, kind: str, rows: int) -> None:
    rng = np.random.default_rng([rows, len(kind)])
    key = random_array(kind, rows, rng)
    data = pa.table(
        {
            "k": key,
            "i": random_array("int16", rows, rng),
            "f": random_array("float64", rows, rng),
            "b": random_array("bool", rows, rng),
        }
    )
    t = put(region, **dict(zip(data.column_names, data.columns, strict=True)))
    got = t.group_by("k").agg(
        n=ins.len(), count=col("f").count(), total=col("i").sum(), least=col("i").min(),
        most=col("f").max(), mean=col("i").mean(), true=col("b").sum(),
    ).to_arrow()  # fmt: skip
    got.validate(full=True)
    frame = pd.DataFrame(
        {
            "k": pd.Series(key.to_pylist(), dtype=object),
            "i": data["i"].to_pandas(types_mapper=pd.ArrowDtype),
            "f": data["f"].to_pandas(types_mapper=pd.ArrowDtype),
            "b": data["b"].to_pandas(types_mapper=pd.ArrowDtype),
        }
    )
    first: dict[Any, list[int]] = {}
    for row, value in enumerate(key.to_pylist()):
        first.setdefault(value, []).append(row)
    assert got["k"].to_pylist() == list(first), "groups in order of first appearance"
    sizes = frame.groupby("k", dropna=False, sort=False).size()
    assert got["n"].to_pylist() == sizes.tolist()
    i, f, b = (data[c].to_pylist() for c in "ifb")
    for group, members in enumerate(first.values()):
        ints = [i[r] for r in members if i[r] is not None]
        floats = [f[r] for r in members if f[r] is not None]
        numbers = [v for v in floats if v == v]
        row = {c: got[c][group].as_py() for c in got.column_names}
        assert row["count"] == len(floats)
        assert row["total"] == sum(ints)
        assert row["least"] == min(ints, default=None)
        assert row["most"] == max(numbers, default=None)
        assert row["true"] == sum(b[r] for r in members if b[r] is not None)
        if ints:
            assert row["mean"] == pytest.approx(sum(ints) / len(ints), rel=1e-12)
        else:
            assert row["mean"] is None


def test_group_by_several_keys(region: ins.Region) -> None:
    rng = np.random.default_rng(11)
    rows = 20_000
    data = pa.table(
        {
            "a": random_array("int8", rows, rng),
            "b": random_array("string", rows, rng),
            "c": random_array("bool", rows, rng),
            "v": random_array("int32", rows, rng),
        }
    )
    t = region.put("t", data)
    got = t.group_by("a", "b", "c").agg(n=ins.len(), v=col("v").sum()).to_arrow().to_pydict()
    expected: dict[Any, list[int]] = {}
    for a, b, c, v in zip(*(data[x].to_pylist() for x in "abcv"), strict=True):
        group = expected.setdefault((a, b, c), [0, 0])
        group[0] += 1
        group[1] += v or 0
    assert list(zip(got["a"], got["b"], got["c"], strict=True)) == list(expected)
    assert [list(x) for x in zip(got["n"], got["v"], strict=True)] == list(expected.values())


def test_many_groups(region: ins.Region) -> None:
    rng = np.random.default_rng(12)
    keys = rng.integers(-(2**62), 2**62, 200_000)
    keys[100_000:] = keys[:100_000]
    values = rng.random(200_000)
    t = region.put("t", {"k": keys, "v": values})
    got = t.group_by("k").agg(col("v").sum(), n=ins.len()).to_arrow()
    frame = pd.DataFrame({"k": keys, "v": values}).groupby("k", sort=False)["v"]
    np.testing.assert_array_equal(got["k"].to_numpy(), frame.sum().index)
    np.testing.assert_allclose(got["v"].to_numpy(), frame.sum().to_numpy(), rtol=1e-12)
    np.testing.assert_array_equal(got["n"].to_numpy(), frame.size().to_numpy())


@pytest.mark.parametrize("kind", [kind for kind in ORDERED if kind not in ALIKE])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("nulls_last", [False, True])
def test_sort_is_stable_and_puts_nulls_where_asked(
    region: ins.Region, kind: str, descending: bool, nulls_last: bool
) -> None:
    rng = np.random.default_rng([len(kind), descending])
    for rows in (0, 1, 100, 5000):
        array = random_array(kind, rows, rng)
        t = put(region, a=array, i=pa.array(range(rows), pa.int64()))
        got = t.sort("a", descending=descending, nulls_last=nulls_last).to_arrow()
        values = plain(array)
        some = [i for i in range(rows) if values[i] is not None]
        none = [i for i in range(rows) if values[i] is None]
        # sorted() keeps equal elements in order in both directions.
        some = sorted(some, key=lambda i: rank(values[i]), reverse=descending)
        assert got["i"].to_pylist() == (some + none if nulls_last else none + some)


def test_sort_by_several_keys(region: ins.Region) -> None:
    rng = np.random.default_rng(13)
    rows = 5000
    a, s = random_array("bool", rows, rng), random_array("string", rows, rng)
    t = put(region, a=a, s=s, i=pa.array(range(rows), pa.int64()))
    got = t.sort("a", "s", descending=[True, False]).to_arrow()["i"].to_pylist()
    x, y = a.to_pylist(), s.to_pylist()
    order = sorted(range(rows), key=lambda i: (y[i] is None, y[i] or ""))
    order = [i for v in (True, False, None) for i in order if x[i] is v]
    assert got == order


@pytest.mark.parametrize("source", [*NUMBERS, "bool"])
@pytest.mark.parametrize("target", [*NUMBERS, "bool"])
def test_casts(region: ins.Region, source: str, target: str) -> None:
    rng = np.random.default_rng(14)
    array = random_array(source, 2000, rng)
    t = put(region, a=array)
    got = t.select(col("a").cast(target, strict=False)).to_arrow()["a"]
    assert got.type == pa.type_for_alias(target)
    info = None if target in FLOATS or target == "bool" else np.iinfo(target)
    for value, cast in zip(array.to_pylist(), got.to_pylist(), strict=True):
        if value is None:
            assert cast is None
        elif target == "bool":
            assert cast is (value != 0)
        elif info is None:
            expected = np.array(value).astype(target).item()
            assert cast == expected or (cast != cast and value != value)
        elif value != value or math.isinf(value) or not info.min <= math.trunc(value) <= info.max:
            assert cast is None, value
        else:
            assert cast == math.trunc(value)


# Random expressions over a random table, against NumPy on the same values.

COLUMNS = {"x": "f8", "y": "f8", "i": "i8", "j": "i4"}


def expressions() -> st.SearchStrategy[tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """Pairs of the same expression, for insitu and for NumPy."""
    leaves = st.sampled_from(list(COLUMNS)).map(
        lambda n: (lambda c, n=n: c(n), lambda d, n=n: d[n])
    ) | st.sampled_from([-3, 0, 1, 2, 7]).map(lambda v: (lambda c, v=v: v, lambda d, v=v: v))

    def extend(inner: Any) -> Any:
        def binary(symbol: str, a: Any, b: Any) -> Any:
            act = {"+": lambda p, q: p + q, "-": lambda p, q: p - q, "*": lambda p, q: p * q}[
                symbol
            ]
            return (lambda c: act(a[0](c), b[0](c)), lambda d: act(a[1](d), b[1](d)))

        return st.builds(binary, st.sampled_from("+-*"), inner, inner)

    return st.recursive(leaves, extend, max_leaves=8)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(expressions(), st.sampled_from([1, 255, 256, 257, 1025, 3000]), st.integers(0, 2**32 - 1))
def test_random_expressions(region: ins.Region, pair: Any, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = {n: (rng.integers(-50, 50, rows)).astype(k) for n, k in COLUMNS.items()}
    ours, numpy = pair
    expr = ours(col)
    if not isinstance(expr, ins.Expr):
        return
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(numpy(data), rows)
    t = region.put("t", data, replace=True)
    got = t.select(r=expr).to_arrow()["r"].to_numpy()
    np.testing.assert_array_equal(got, expected)
    chosen = t.filter(expr > 0).select("x").to_arrow()["x"].to_numpy()
    np.testing.assert_array_equal(chosen, data["x"][expected > 0])
