"""Running values and shifts, in queries and updates, against Polars, NumPy and plain Python."""

from __future__ import annotations

import datetime as dt
import math
import os
import subprocess
import sys
from itertools import accumulate, pairwise
from typing import Any

import insitu as ins
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insitu import col

NAN, INF = float("nan"), float("inf")
NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float32", "float64"]
METHODS = ["cum_sum", "cum_prod", "cum_min", "cum_max", "cum_count"]


def ours(region: ins.Region, expr: Any, array: Any) -> pa.ChunkedArray:
    t = region.put("w", pa.table({"x": array}), replace=True)
    return t.select(r=expr).to_arrow()["r"]


def polars(expr: pl.Expr, array: Any) -> list[Any]:
    frame = pl.from_arrow(pa.table({"x": array}))
    assert isinstance(frame, pl.DataFrame)
    return frame.select(r=expr)["r"].to_list()


def same(got: list[Any], expected: list[Any], tolerance: float = 0.0) -> None:
    assert len(got) == len(expected)
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if isinstance(b, float) and isinstance(a, float):
            both_nan = a != a and b != b
            assert both_nan or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance), (i, a, b)
        else:
            assert a == b, (i, a, b)


def sample(kind: str, rows: int, nulls: float, rng: np.random.Generator) -> pa.Array:
    mask = rng.random(rows) < nulls
    if kind == "bool":
        return pa.array(rng.random(rows) < 0.5, mask=mask)
    if kind in FLOATS:
        values = rng.normal(size=rows).astype(kind)
        return pa.array(values, mask=mask)
    if kind in NUMBERS:
        info = np.iinfo(kind)
        low, high = max(info.min, -100), min(info.max, 100)
        return pa.array(rng.integers(low, high, rows).astype(kind), mask=mask)
    whole = pa.array(rng.integers(-1000, 1000, rows), mask=mask)
    return whole.cast(pa.int32()).cast(kind) if kind == "date32" else whole.cast(kind)


@pytest.mark.parametrize("kind", [*NUMBERS, *FLOATS, "bool", "date32", "timestamp[us]"])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_values_are_those_of_polars(region: ins.Region, kind: str, reverse: bool) -> None:
    rng = np.random.default_rng([len(kind), reverse])
    for rows in (0, 1, 2, 300, 70_000):
        for nulls in (0.0, 0.3, 1.0):
            array = sample(kind, rows, nulls, rng)
            for method in ("cum_min", "cum_max", "cum_count"):
                got = ours(region, getattr(col("x"), method)(reverse=reverse), array)
                expected = getattr(pl.col("x"), method)(reverse=reverse)
                same(got.to_pylist(), polars(expected, array))
                assert got.type == (pa.int64() if method == "cum_count" else array.type)
            if kind in ("date32", "timestamp[us]"):
                continue
            # Wider, so that nothing wraps there.
            wide = pl.col("x").cast(pl.Float64 if kind in FLOATS else pl.Int64)
            got = ours(region, col("x").cum_sum(reverse=reverse), array)
            close = {"float32": 1e-3, "float64": 1e-9}.get(kind, 0.0)
            same(got.to_pylist(), polars(wide.cum_sum(reverse=reverse), array), close)
            own = pa.uint64() if kind == "uint64" else pa.int64()
            assert got.type == (array.type if kind in FLOATS else own)
            near = sample(kind, rows, nulls, rng) if kind == "bool" else array
            unit = col("x").sign() if kind not in ("bool",) else col("x")
            theirs = pl.col("x").sign() if kind not in ("bool",) else pl.col("x")
            got = ours(region, unit.cum_prod(reverse=reverse), near)
            same(got.to_pylist(), polars(theirs.cum_prod(reverse=reverse), near))


@pytest.mark.parametrize("reverse", [False, True])
def test_special_floats(region: ins.Region, reverse: bool) -> None:
    for values in (
        [NAN, 1.0, NAN, 0.5, INF, -INF, 3.0],
        [1.0, INF, 2.0],
        [-INF, 1.0, INF, 2.0],
        [1e308, 1e308, -1e308],
        [NAN, NAN],
    ):
        array = pa.array([*values, None, 1.0])
        for method in METHODS:
            got = ours(region, getattr(col("x"), method)(reverse=reverse), array)
            same(got.to_pylist(), polars(getattr(pl.col("x"), method)(reverse=reverse), array))
    # Zeros are one, and not negative.
    got = ours(region, col("x").cum_min(), [-0.0, 0.0]).to_numpy()
    assert not np.signbit(got).any()
    assert not np.signbit(ours(region, col("x").cum_sum(), [-0.0]).to_numpy()).any()


def test_durations_add_up(region: ins.Region) -> None:
    days = [dt.timedelta(1), None, dt.timedelta(2)]
    assert ours(region, col("x").cum_sum(), days).to_pylist() == [days[0], None, dt.timedelta(3)]
    with pytest.raises(ins.TypeMismatch, match="cum_prod"):
        ours(region, col("x").cum_prod(), days)
    with pytest.raises(ins.TypeMismatch, match="cum_sum"):
        ours(region, col("x").cum_sum(), pa.array([dt.date(2020, 1, 1)]))


def test_sums_are_at_least_as_good_as_those_of_numpy(region: ins.Region) -> None:
    rng = np.random.default_rng(3)
    x = rng.random(500_000) * 10.0 ** rng.integers(-3, 4, 500_000)
    exact = np.cumsum(x.astype(np.longdouble))
    got = ours(region, col("x").cum_sum(), x).to_numpy()
    ulps = np.abs((got - exact) / np.spacing(np.abs(got)))
    theirs = np.abs((np.cumsum(x) - exact) / np.spacing(np.abs(got)))
    assert ulps.max() <= max(theirs.max(), 2)
    assert (np.diff(got) >= 0).all()
    back = ours(region, col("x").cum_sum(reverse=True), x).to_numpy()
    assert (np.diff(back) <= 0).all()


def test_the_bits_do_not_depend_on_threads_chunks_or_levels(region: ins.Region) -> None:
    """Each answer in a process of its own, as the level is read once."""
    program = """
import sys, hashlib
import numpy as np, pyarrow as pa, insitu as ins
from insitu import col
rng = np.random.default_rng(11)
rows = 300_000
columns = {
    "f": rng.normal(size=rows) * 10.0 ** rng.integers(-9, 9, rows),
    "g": rng.normal(size=rows).astype("f4"),
    "i": rng.integers(-1000, 1000, rows).astype("i4"),
}
mask = rng.random(rows) < 0.2
table = pa.table(columns | {"m": pa.array(columns["f"], mask=mask)})
exprs = {}
for name in table.column_names:
    for method in ("cum_sum", "cum_min", "cum_max", "cum_count"):
        for reverse in (False, True):
            exprs[f"{name}_{method}_{reverse}"] = getattr(col(name), method)(reverse=reverse)
    exprs[f"{name}_p"] = (col(name) / 1e12 + 1.0).cum_prod()
    exprs[f"{name}_s"] = (col(name) * 0.1).cum_sum().shift(3)
digests = set()
with ins.create(ephemeral=True, capacity="512MiB") as region:
    for cuts in ([], [1, 255, 70_001, 131_072, 299_999]):
        t = None
        for low, high in zip([0, *cuts], [*cuts, rows]):
            part = table.slice(low, high - low)
            t = region.put(f"t{len(cuts)}", part) if t is None else t.append(part)
        for threads in (1, 2, 7):
            ins.set_num_threads(threads)
            got = t.select(**exprs).to_arrow().combine_chunks()
            kept = t.filter(col("i") > 0).select(**exprs).to_arrow().combine_chunks()
            digest = hashlib.sha256()
            for column in [*got.columns, *kept.columns]:
                column = column.combine_chunks()
                if isinstance(column, pa.ChunkedArray):
                    column = column.chunk(0)
                # Only what is not null.
                digest.update(column.drop_null().to_numpy(zero_copy_only=False).tobytes())
            digests.add(digest.hexdigest())
assert len(digests) == 1, digests
print(digests.pop())
"""
    said = set()
    for level in ("baseline", "v3", "v4"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"INSITU_LEVEL": level},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=700),
    st.booleans(),
    st.integers(0, 5),
    st.lists(st.integers(0, 700), max_size=3),
)
def test_any_integers_anyhow_cut(
    values: list[int | None], reverse: bool, skip: int, cuts: list[int]
) -> None:
    array = pa.array(values, pa.int64())
    bounds = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    chunks = pa.chunked_array([array.slice(a, b - a) for a, b in pairwise(bounds)], pa.int64())
    with ins.create(ephemeral=True, capacity="16MiB") as region:
        t = region.put("h", pa.table({"x": chunks}))
        got = t.slice(skip, None).select(
            sum=col("x").cum_sum(reverse=reverse),
            most=col("x").cum_max(reverse=reverse),
            n=col("x").cum_count(reverse=reverse),
        )
        table = got.to_arrow()
        frame = pl.DataFrame({"x": values[skip:]}, schema={"x": pl.Int64})
        expected = frame.select(
            sum=pl.col("x").cum_sum(reverse=reverse),
            most=pl.col("x").cum_max(reverse=reverse),
            n=pl.col("x").cum_count(reverse=reverse),
        )
        for name in table.column_names:
            assert table[name].to_pylist() == expected[name].to_list(), name


def test_overflow_is_told_and_where(region: ins.Region) -> None:
    for array, row in [
        (pa.array([2**63 - 2, 1, None, 1]), 3),
        (pa.array([2**64 - 1, 1], pa.uint64()), 1),
    ]:
        with pytest.raises(ins.Overflow, match=rf"cum_sum\(\) leaves u?int64 at row {row}"):
            ours(region, col("x").cum_sum(), array)
    with pytest.raises(ins.Overflow, match="cum_prod"):
        ours(region, col("x").cum_prod(), pa.array([100] * 10, pa.int8()))


def test_in_expressions_filters_and_keys(region: ins.Region) -> None:
    t = region.put("e", {"x": [3, 1, 2, 5], "k": ["a", "a", "b", "b"]})
    got = t.with_columns(
        share=col("x").cum_sum() / col("x").sum(),
        above=(col("x") - col("x").mean()).cum_sum(),
        run=(col("k") != col("k").shift()).fill_null(True).cum_sum(),
    ).to_arrow()
    assert got.column_names == ["x", "k", "share", "above", "run"]
    assert got["share"].to_pylist() == [3 / 11, 4 / 11, 6 / 11, 1.0]
    assert got["above"].to_pylist() == list(accumulate(v - 2.75 for v in [3, 1, 2, 5]))
    assert got["run"].to_pylist() == [1, 1, 2, 2]
    assert t.filter(col("x").cum_sum() > 4).to_arrow().to_pydict() == {"x": [2, 5], "k": ["b", "b"]}
    assert t.filter(col("x") > 1).select(col("x").cum_sum()).to_arrow()["x"].to_pylist() == [
        3,
        5,
        10,
    ]
    assert t.sort(col("x").cum_count(reverse=True)).to_arrow()["x"].to_pylist() == [5, 2, 1, 3]
    assert t.select(col("x").cum_sum().max()).item() == 11
    prepared = t.select((col("x") * ins.param("f")).cum_sum()).prepare()
    assert prepared.run(f=2).to_arrow()["x"].to_pylist() == [6, 8, 12, 22]
    assert "running values" in t.select(col("x").cum_sum()).explain()
    with pytest.raises(ins.Unsupported, match="rows of a group"):
        t.group_by("k").agg(col("x").cum_sum().max()).collect()
    with pytest.raises(ins.InvalidPlan, match="one value, not one per row"):
        t.select(col("x") - col("x").sum().shift(1)).collect()
    with pytest.raises(ins.Error):
        t.select(ins.lit("a").cum_sum()).collect()
    assert repr(col("x").shift(2)) == 'col("x").shift(2)'
    assert repr(col("x").shift(2, fill_value=0)) == 'col("x").shift(2, fill_value=0)'
    assert repr(col("x").cum_sum(reverse=True)) == 'col("x").cum_sum(reverse=True)'


def test_shares_of_change(region: ins.Region) -> None:
    for array in ([1.0, 2.0, 3.0, 1.5], [1, 0, 2, 3], [1.0, None, 2.0, NAN]):
        for n in (1, 2, -1, 10):
            got = ours(region, col("x").pct_change(n), array)
            assert got.type == pa.float64()
            same(got.to_pylist(), polars(pl.col("x").pct_change(n), array), 1e-12)
    single = pa.array([1.0, 3.0], pa.float32())
    assert ours(region, col("x").pct_change(), single).type == pa.float32()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_strings_are_shifted(region: ins.Region, kind: pa.DataType) -> None:
    words = [None if i % 7 == 2 else "word " * (i % 5) + str(i) for i in range(70_000)]
    pieces = [pa.array(words[a:b], kind) for a, b in pairwise([0, 3, 66_000, 70_000])]
    t = region.put("s", pa.table({"s": pa.chunked_array(pieces)}), replace=True)
    frame = pl.DataFrame({"s": words})
    for n in (1, -2, 66_001, -80_000):
        for fill in (None, "none"):
            got = t.select(col("s").shift(n, fill_value=fill)).to_arrow()["s"]
            assert got.type == kind
            got.validate(full=True)
            assert got.to_pylist() == frame["s"].shift(n, fill_value=fill).to_list()
    kept = t.filter(col("s").is_not_null()).select(col("s").shift()).to_arrow()["s"]
    assert kept.to_pylist() == frame["s"].drop_nulls().shift().to_list()
    with pytest.raises(ins.Unsupported, match="fill_value"):
        t.select(col("s").shift(1, fill_value=col("s"))).collect()


def test_updates_that_read_other_rows_are_written_beside_the_old_values(region: ins.Region) -> None:
    x, y = [3, 1, 2, 5], [1.0, 2.0, 3.0, 4.0]
    t = region.put("u", {"x": x, "y": y, "s": ["a", "b", "c", "d"]})
    view = t["x"].to_numpy()
    before = region.stats()["updates_swapped"]
    t.update(
        x=col("x").cum_sum(),
        y=col("y") - col("x").shift(1, fill_value=0),
        s=col("s").shift(-1, fill_value="end"),
    )
    assert region.stats()["updates_swapped"] == before + 1
    assert view.tolist() == x
    assert t.to_arrow().to_pydict() == {
        "x": [3, 4, 6, 11],
        "y": [1.0, -1.0, 2.0, 2.0],
        "s": ["b", "c", "d", "end"],
    }
    # Rows that are not chosen stay; what is read is that of all rows, before.
    t.update(x=col("x").shift(1, fill_value=0) + col("x").cum_max().min(), where=col("x") > 3)
    assert t["x"].to_pylist() == [3, 6, 7, 9]
    t.update(x=col("x").cum_sum(reverse=True), where=col("x").diff() > 1)
    assert t["x"].to_pylist() == [3, 22, 7, 9]
    both = col("x").shift(1, fill_value=0) + col("x").shift(-1, fill_value=0)
    far = col("x").shift(100_000, fill_value=0)
    for expr, why in (
        (col("x").cum_sum(), "reads other rows than its own"),
        (both, "read on both sides of each row"),
        (far, "read too far from each row"),
    ):
        with pytest.raises(ins.Unsupported, match=why):
            t.update(x=expr, in_place=True)
    with pytest.raises(ins.TypeMismatch, match="an update never changes"):
        t.update(x=col("y").cum_sum())
    with pytest.raises(ins.Overflow, match="at row 1"):
        t.update(x=(col("x") * 0 + 2**62).cum_sum())
    assert t["x"].to_pylist() == [3, 22, 7, 9]
    long = np.arange(200_000.0)
    t = region.put("long", {"x": long})
    t.update(x=col("x").shift(-70_000, fill_value=-1.0))
    np.testing.assert_array_equal(
        t["x"].to_numpy(), np.concatenate([long[70_000:], np.full(70_000, -1.0)])
    )
    assert t["x"].null_count == 0
    with t.exclusive() as mine:
        mine.update(x=col("x").cum_max())
    assert t["x"].to_numpy()[-1] == 199_999


@pytest.mark.parametrize("n", [1, -3, 65_536, -1000])
@pytest.mark.parametrize("chunks", [[500_000], [300_000, 130_000, 67_000, 2_900, 99, 1]])
def test_bounded_shifts_are_written_over_what_they_read(
    region: ins.Region, n: int, chunks: list[int]
) -> None:
    rng = np.random.default_rng(abs(n))
    x, k = rng.random(500_000), rng.integers(-1000, 1000, 500_000)
    valid = rng.random(500_000) < 0.9
    # Each chunk has a bitmap.
    valid[np.cumsum(chunks) - 1] = False
    whole = pa.table({"x": x, "k": pa.array(k, mask=~valid)})
    ends = np.cumsum(chunks)
    parts = [whole.slice(end - size, size) for end, size in zip(ends, chunks, strict=True)]
    # Each too large, or too small, to be taken in by the next.
    t = region.put("t", parts[0])
    for part in parts[1:]:
        t = t.append(part)
    assert t["x"].num_chunks == len(chunks)
    before = region.stats()
    new = {"x": col("x") - col("x").shift(n, fill_value=0.25), "k": col("k").diff(n)}
    t.update(new, where=col("x") > 0.1, in_place=True)
    moved = np.full(500_000, 0.25)
    was, had = np.zeros_like(k), np.zeros_like(valid)
    to, of = (slice(n, None), slice(None, -n)) if n > 0 else (slice(None, n), slice(-n, None))
    moved[to], was[to], had[to] = x[of], k[of], valid[of]
    chosen = x > 0.1
    np.testing.assert_array_equal(t["x"].to_arrow(), np.where(chosen, x - moved, x))
    mask = np.where(chosen, valid & had, valid)
    assert (
        t["k"].to_arrow().to_pylist()
        == pa.array(np.where(chosen, k - was, k), mask=~mask).to_pylist()
    )
    after = region.stats()
    assert after["updates_in_place"] == before["updates_in_place"] + 1
    assert t["x"].min() == np.where(chosen, x - moved, x).min()
    assert region.verify().ok
