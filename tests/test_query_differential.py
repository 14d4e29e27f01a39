"""Every function of the table, on every type it takes, against pyarrow and NumPy; grouping and
sorting against pandas and Python. Random data with nulls, NaN, infinities and extremes, in tables
that are empty, sliced, chunked, and longer than a block, a tile and a morsel."""

from __future__ import annotations

import functools
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

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float32", "float64"]
NUMBERS = INTEGERS + FLOATS
TIMES = ["date32[day]", "timestamp[us]", "timestamp[ns]", "duration[ms]"]
STRINGS = ["string", "large_string", "string_view"]
ORDERED = [*NUMBERS, "bool", *TIMES, *STRINGS]

SIZES = [0, 1, 2, 63, 64, 65, 255, 257, 1000, 70_000]


def random_array(kind: str, rows: int, rng: np.random.Generator, nulls: float = 0.1) -> pa.Array:
    """Values of all sizes, the extremes among them, some null."""
    mask = rng.random(rows) < nulls if nulls else None
    if kind == "bool":
        return pa.array(rng.random(rows) < 0.5, mask=mask)
    if kind in STRINGS:
        words = np.array(
            ["", "a", "b", "ab", "längeres Wort", "a string of over twelve bytes", "日"]
        )
        return pa.array(rng.choice(words, rows), mask=mask).cast(kind)
    if kind in FLOATS:
        values = rng.normal(size=rows) * 10.0 ** rng.integers(-3, 6, rows)
        special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
        where = rng.random(rows) < 0.1
        values[where] = rng.choice(special, where.sum())
        return pa.array(values.astype(kind), mask=mask)
    storage = {
        "date32[day]": "int32",
        "timestamp[us]": "int64",
        "timestamp[ns]": "int64",
        "duration[ms]": "int64",
    }.get(kind, kind)
    info = np.iinfo(storage)
    if kind in TIMES:
        values = rng.integers(-40_000, 40_000, rows)
    else:
        bits = rng.integers(0, info.bits, rows, dtype=np.uint64)
        values = rng.integers(info.min, info.max, rows, storage, endpoint=True) >> bits.astype(
            storage
        )
        extreme = rng.random(rows) < 0.05
        values[extreme] = rng.choice(np.array([info.min, info.max, 0, 1], storage), extreme.sum())
    array = pa.array(values.astype(storage), mask=mask)
    return array.cast(pa.type_for_alias(kind)) if storage != kind else array


def put(region: ins.Region, **columns: pa.Array) -> ins.Table:
    return region.put("t", pa.table(columns), replace=True)


def close(got: pa.Array, expected: pa.Array, signed_zeros: bool = True, ulps: int = 0) -> None:
    """The same type, nulls in the same places, and values that agree, NaN with NaN; floats but for
    so many units in the last place."""
    got, expected = (
        x.combine_chunks() if isinstance(x, pa.ChunkedArray) else x for x in (got, expected)
    )
    assert got.type == expected.type
    assert got.is_null().to_pylist() == expected.is_null().to_pylist()
    if pa.types.is_floating(got.type):
        left, right = (x.drop_null().to_numpy(zero_copy_only=False) for x in (got, expected))
        if ulps:
            finite = np.isfinite(left) & np.isfinite(right)
            off = np.abs(left[finite] - right[finite])
            assert (off <= ulps * np.spacing(np.abs(right[finite]))).all(), off.max()
            np.testing.assert_array_equal(left[~finite], right[~finite])
        else:
            np.testing.assert_array_equal(left, right)
        if signed_zeros:
            zeros = (left == 0) & (right == 0)
            np.testing.assert_array_equal(np.signbit(left[zeros]), np.signbit(right[zeros]))
    else:
        assert got.drop_null().equals(expected.drop_null())


# The references. Each takes Arrow arrays and gives the array that the engine must give.


def on_numpy(function: Callable[..., Any], kind: Any = None) -> Callable[..., pa.Array]:
    """A NumPy function of the values, null where an argument is."""

    def reference(*arrays: pa.Array) -> pa.Array:
        null = np.zeros(len(arrays[0]), bool)
        values = []
        for array in arrays:
            null |= array.is_null().to_numpy(zero_copy_only=False)
            fill = False if pa.types.is_boolean(array.type) else 1
            values.append(
                array.fill_null(pa.scalar(fill).cast(array.type)).to_numpy(zero_copy_only=False)
            )
        with np.errstate(all="ignore"):
            result = np.asarray(function(*values))
        return pa.array(result, type=kind and pa.type_for_alias(kind), mask=null)

    return reference


def divided(function: Callable[..., Any]) -> Callable[..., pa.Array]:
    """As `on_numpy`, and null where an integer is divided by zero."""

    def reference(left: pa.Array, right: pa.Array) -> pa.Array:
        result = on_numpy(function)(left, right)
        if pa.types.is_integer(right.type):
            zero = pc.fill_null(pc.equal(right, pa.scalar(0, right.type)), False)
            result = pc.if_else(zero, pa.scalar(None, result.type), result)
        return result

    return reference


def floor_mod(left: Any, right: Any) -> Any:
    return np.mod(left, right)


def true_division(left: pa.Array, right: pa.Array) -> pa.Array:
    kind = pa.float32() if left.type == right.type == pa.float32() else pa.float64()
    return pc.divide(left.cast(kind, safe=False), right.cast(kind, safe=False))


def of_floats(function: Callable[..., Any]) -> Callable[..., pa.Array]:
    """A NumPy function of floats, or of integers as float64."""

    def reference(*arrays: pa.Array) -> pa.Array:
        floating = pa.types.is_floating(arrays[0].type)
        kind = arrays[0].type if floating else pa.float64()
        return on_numpy(function)(*(array.cast(kind, safe=False) for array in arrays))

    return reference


def transcendental(function: Callable[..., Any]) -> Callable[..., pa.Array]:
    """A NumPy function in extended precision, of floats or of integers as float64."""

    def rounded(*values: Any) -> Any:
        kind = values[0].dtype
        return function(*(v.astype(np.longdouble) for v in values)).astype(kind)

    return of_floats(rounded)


def whole(function: Callable[[Any], Any]) -> Callable[[pa.Array], pa.Array]:
    def reference(array: pa.Array) -> pa.Array:
        return on_numpy(function)(array) if pa.types.is_floating(array.type) else array

    return reference


def on_kind(boolean: Any, integer: Any) -> Callable[..., pa.Array]:
    """One reference for booleans, and a NumPy function for integers."""

    def reference(*arrays: pa.Array) -> pa.Array:
        logic = pa.types.is_boolean(arrays[0].type)
        return boolean(*arrays) if logic else on_numpy(integer)(*arrays)

    return reference


def equal_missing(same: bool) -> Callable[[pa.Array, pa.Array], pa.Array]:
    def reference(left: pa.Array, right: pa.Array) -> pa.Array:
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        equal = pc.or_(pc.fill_null(pc.equal(left, right), False), both_null)
        return equal if same else pc.invert(equal)

    return reference


def fill_nan(values: pa.Array, replacement: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.fill_null(pc.is_nan(values), False), replacement, values)


def counted(count: Callable[[str], int]) -> Callable[[pa.Array], pa.Array]:
    """What is counted in the binary digits of an integer, the highest first."""

    def reference(array: pa.Array) -> pa.Array:
        width = array.type.bit_width
        return pa.array(
            [
                None if v is None else count(format(v % 2**width, f"0{width}b"))
                for v in array.to_pylist()
            ],
            pa.uint32(),
        )

    return reference


def total(array: pa.Array) -> Any:
    if pa.types.is_floating(array.type):
        values = array.drop_null().to_numpy(zero_copy_only=False).astype("f8")
        if not np.isfinite(values).all():
            with np.errstate(all="ignore"):
                return float(values.sum())
        return math.fsum(values)
    return sum(int(v) for v in array.to_pylist() if v is not None)


def mean(array: pa.Array) -> Any:
    count = len(array) - array.null_count
    return total(array) / count if count else None


def extreme(best: Callable[[Any], Any]) -> Callable[[pa.Array], Any]:
    def reference(array: pa.Array) -> Any:
        if pa.types.is_duration(array.type) or pa.types.is_timestamp(array.type):
            kept = [v for v in array.cast("int64").to_pylist() if v is not None]
            return pa.scalar(best(kept), pa.int64()).cast(array.type).as_py() if kept else None
        kept = [v for v in array.to_pylist() if v is not None and v == v]
        return best(kept) if kept else None

    return reference


def product(array: pa.Array) -> Any:
    kept = [v for v in array.to_pylist() if v is not None]
    return math.prod(kept, start=1.0 if pa.types.is_floating(array.type) else 1)


def variance(array: pa.Array) -> Any:
    values = array.drop_null().to_numpy(zero_copy_only=False).astype("f8")
    if len(values) < 2:
        return None
    with np.errstate(all="ignore"):
        return float(values.var(ddof=1))


def deviation(array: pa.Array) -> Any:
    value = variance(array)
    return None if value is None else math.sqrt(value)


def row_of(best: Callable[[Any], Any]) -> Callable[[pa.Array], Any]:
    def reference(array: pa.Array) -> Any:
        values = plain(array)
        kept = [v for v in values if v is not None and v == v]
        return values.index(best(kept)) if kept else None

    return reference


def plain(array: pa.Array) -> list[Any]:
    """Python values; times as their numbers."""
    counted = pa.types.is_duration(array.type) or pa.types.is_timestamp(array.type)
    return array.cast("int64").to_pylist() if counted else array.to_pylist()


def different(array: pa.Array) -> int:
    return len({"NaN" if v != v else v for v in plain(array)})


def quantile(q: float) -> Callable[[pa.Array], Any]:
    """Linear, NaN the largest."""

    def reference(array: pa.Array) -> Any:
        kept = [float(v) for v in array.to_pylist() if v is not None]
        kept.sort(key=rank)
        if not kept:
            return None
        at = q * (len(kept) - 1)
        low, high = kept[math.floor(at)], kept[math.ceil(at)]
        part = at - math.floor(at)
        return low if part == 0 or low == high else low + (high - low) * part

    return reference


ELEMENTWISE: dict[str, tuple[list[str], Callable[..., pa.Array]]] = {
    "add": (NUMBERS, pc.add),
    "sub": (NUMBERS, pc.subtract),
    "mul": (NUMBERS, pc.multiply),
    "truediv": (NUMBERS, true_division),
    "floordiv": (NUMBERS, divided(np.floor_divide)),
    "rem": (NUMBERS, divided(floor_mod)),
    "neg": (["int8", "int16", "int32", "int64", *FLOATS, "duration[ms]"], pc.negate),
    "eq": (ORDERED, pc.equal),
    "ne": (ORDERED, pc.not_equal),
    "lt": (ORDERED, pc.less),
    "le": (ORDERED, pc.less_equal),
    "gt": (ORDERED, pc.greater),
    "ge": (ORDERED, pc.greater_equal),
    "and_": (["bool", *INTEGERS], on_kind(pc.and_kleene, np.bitwise_and)),
    "or_": (["bool", *INTEGERS], on_kind(pc.or_kleene, np.bitwise_or)),
    "xor": (["bool", *INTEGERS], on_kind(pc.xor, np.bitwise_xor)),
    "not_": (["bool", *INTEGERS], on_kind(pc.invert, np.invert)),
    "lshift": (INTEGERS, on_numpy(np.left_shift)),
    "rshift": (INTEGERS, on_numpy(np.right_shift)),
    "bitwise_count_ones": (INTEGERS, counted(lambda digits: digits.count("1"))),
    "bitwise_count_zeros": (INTEGERS, counted(lambda digits: digits.count("0"))),
    "bitwise_leading_ones": (INTEGERS, counted(lambda d: len(d) - len(d.lstrip("1")))),
    "bitwise_leading_zeros": (INTEGERS, counted(lambda d: len(d) - len(d.lstrip("0")))),
    "bitwise_trailing_ones": (INTEGERS, counted(lambda d: len(d) - len(d.rstrip("1")))),
    "bitwise_trailing_zeros": (INTEGERS, counted(lambda d: len(d) - len(d.rstrip("0")))),
    "abs": (NUMBERS, pc.abs),
    "sqrt": (NUMBERS, of_floats(np.sqrt)),
    "exp": (NUMBERS, transcendental(np.exp)),
    "exp2": (NUMBERS, transcendental(np.exp2)),
    "expm1": (NUMBERS, transcendental(np.expm1)),
    "log": (NUMBERS, transcendental(np.log)),
    "log2": (NUMBERS, transcendental(np.log2)),
    "log10": (NUMBERS, transcendental(np.log10)),
    "log1p": (NUMBERS, transcendental(np.log1p)),
    "sinh": (NUMBERS, transcendental(np.sinh)),
    "cosh": (NUMBERS, transcendental(np.cosh)),
    "tanh": (NUMBERS, transcendental(np.tanh)),
    "arcsinh": (NUMBERS, transcendental(np.arcsinh)),
    "arccosh": (NUMBERS, transcendental(np.arccosh)),
    "arctanh": (NUMBERS, transcendental(np.arctanh)),
    "sin": (NUMBERS, transcendental(np.sin)),
    "cos": (NUMBERS, transcendental(np.cos)),
    "tan": (NUMBERS, transcendental(np.tan)),
    "arcsin": (NUMBERS, transcendental(np.arcsin)),
    "arccos": (NUMBERS, transcendental(np.arccos)),
    "arctan": (NUMBERS, transcendental(np.arctan)),
    "arctan2": (NUMBERS, transcendental(np.arctan2)),
    "degrees": (NUMBERS, transcendental(np.degrees)),
    "radians": (NUMBERS, transcendental(np.radians)),
    "cbrt": (NUMBERS, transcendental(np.cbrt)),
    "hypot": (NUMBERS, transcendental(np.hypot)),
    "copysign": (NUMBERS, of_floats(np.copysign)),
    "nextafter": (NUMBERS, of_floats(np.nextafter)),
    "pow": (NUMBERS, transcendental(np.power)),
    "floor": (NUMBERS, whole(np.floor)),
    "ceil": (NUMBERS, whole(np.ceil)),
    "trunc": (NUMBERS, whole(np.trunc)),
    "round": (NUMBERS, whole(np.round)),
    "sign": (NUMBERS, on_numpy(np.sign)),
    "is_null": (ORDERED, pc.is_null),
    "is_not_null": (ORDERED, pc.is_valid),
    "is_nan": (NUMBERS, on_numpy(lambda v: v != v, "bool")),
    "is_not_nan": (NUMBERS, on_numpy(lambda v: v == v, "bool")),
    "is_finite": (NUMBERS, on_numpy(np.isfinite, "bool")),
    "is_infinite": (NUMBERS, on_numpy(np.isinf, "bool")),
    "eq_missing": (ORDERED, equal_missing(True)),
    "ne_missing": (ORDERED, equal_missing(False)),
    "fill_nan": (NUMBERS, fill_nan),
    "fill_null": ([*NUMBERS, "bool", *TIMES], pc.coalesce),
    "is_between": (
        [*NUMBERS, *TIMES],
        lambda v, low, high: pc.and_kleene(pc.greater_equal(v, low), pc.less_equal(v, high)),
    ),
    "clip": (
        NUMBERS,
        on_numpy(lambda v, low, high: np.where(v != v, v, np.fmin(np.fmax(v, low), high))),
    ),
}

CIRCLE = ["sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "degrees", "radians"]
CIRCLE += ["cbrt", "hypot"]

# What is promised, in units in the last place.
ULPS = {
    **dict.fromkeys(["exp", "exp2", "expm1", "log", "log2", "log10", "log1p"], 2),
    **dict.fromkeys(["sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"], 2),
    **dict.fromkeys(CIRCLE, 2),
    "pow": 4,
}

REDUCTIONS: dict[str, tuple[list[str], Callable[[pa.Array], Any]]] = {
    "sum": ([*NUMBERS, "bool"], total),
    "mean": ([*NUMBERS, "bool"], mean),
    "min": ([*NUMBERS, "bool", *TIMES], extreme(min)),
    "max": ([*NUMBERS, "bool", *TIMES], extreme(max)),
    "count": (ORDERED, lambda array: len(array) - array.null_count),
    "product": (NUMBERS, product),
    "var": ([*NUMBERS, "bool"], variance),
    "std": ([*NUMBERS, "bool"], deviation),
    "any": (["bool"], lambda array: any(array.drop_null().to_pylist())),
    "all": (["bool"], lambda array: all(array.drop_null().to_pylist())),
    "first": (ORDERED, lambda array: array[0].as_py() if len(array) else None),
    "last": (ORDERED, lambda array: array[-1].as_py() if len(array) else None),
    "arg_min": ([*NUMBERS, "bool", *TIMES], row_of(min)),
    "arg_max": ([*NUMBERS, "bool", *TIMES], row_of(max)),
    "n_unique": (ORDERED, different),
    "median": ([*NUMBERS, "bool"], quantile(0.5)),
    "quantile": ([*NUMBERS, "bool"], quantile(0.3)),
}

# What a reduction must be given.
SETTINGS = {"quantile": [0.3]}


def in_each_row(function: Callable[[list[Any]], Any], to: Any = None) -> Callable[..., pa.Array]:
    """A function of a row's values that are not null; `to`: the result's type, if not theirs."""

    def reference(*arrays: pa.Array) -> pa.Array:
        kind = to or arrays[0].type
        times = pa.types.is_temporal(kind)
        storage = pa.int32() if pa.types.is_date32(kind) else pa.int64()
        lists = [(a.cast(storage) if times else a).to_pylist() for a in arrays]
        rows = [function([v for v in row if v is not None]) for row in zip(*lists, strict=True)]
        return pa.array(rows, storage).cast(kind) if times else pa.array(rows, kind)

    return reference


def best(better: Callable[[Any, Any], bool]) -> Callable[[list[Any]], Any]:
    """The best of the values, NaN only where there is nothing else."""

    def choose(values: list[Any]) -> Any:
        numbers = [v for v in values if v == v] or values
        chosen = numbers[0] if numbers else None
        for value in numbers:
            chosen = value if better(value, chosen) else chosen
        return chosen

    return choose


def sum_in_row(*arrays: pa.Array) -> pa.Array:
    kind = pa.int64() if pa.types.is_boolean(arrays[0].type) else arrays[0].type
    if pa.types.is_duration(kind):
        return sum_in_row(*(a.cast("int64") for a in arrays)).cast(kind)
    zeros = [a.cast(kind).fill_null(pa.scalar(0, kind)) for a in arrays]
    result = zeros[0]
    for value in zeros[1:]:
        result = pc.add(result, value)
    return result


def mean_in_row(*arrays: pa.Array) -> pa.Array:
    kind = pa.float32() if pa.types.is_float32(arrays[0].type) else pa.float64()
    sums = sum_in_row(*(a.cast(pa.uint8() if pa.types.is_boolean(a.type) else a.type)
                        .cast(kind, safe=False) for a in arrays))  # fmt: skip
    counts = sum_in_row(*(a.is_valid().cast(pa.uint8()) for a in arrays))
    counts = pc.if_else(pc.equal(counts, 0), None, counts)
    return pc.divide(sums, counts.cast(kind))


HORIZONTAL: dict[str, tuple[list[str], Callable[..., pa.Array]]] = {
    "coalesce": ([*NUMBERS, "bool", *TIMES], pc.coalesce),
    "min_horizontal": ([*NUMBERS, "bool", *TIMES], in_each_row(best(lambda a, b: a < b))),
    "max_horizontal": ([*NUMBERS, "bool", *TIMES], in_each_row(best(lambda a, b: a > b))),
    "sum_horizontal": ([*NUMBERS, "bool", "duration[ms]"], sum_in_row),
    "mean_horizontal": ([*NUMBERS, "bool"], mean_in_row),
    "all_horizontal": (["bool"], lambda *a: functools.reduce(pc.and_kleene, a)),
    "any_horizontal": (["bool"], lambda *a: functools.reduce(pc.or_kleene, a)),
}


def test_every_function_of_the_table_has_a_reference() -> None:
    # Those that read other rows are in test_rows.py and test_windows.py.
    apart = ("window", "cumulative")
    functions = {method for method, _, kind, _ in ins._native._functions() if kind not in apart}
    assert functions == ELEMENTWISE.keys() | REDUCTIONS.keys() | HORIZONTAL.keys()


def arity(method: str) -> int:
    """How many expressions a method takes, the receiver among them; options are none."""
    arguments = next(arguments for m, arguments, *_ in ins._native._functions() if m == method)
    return 1 + sum(":" not in argument for argument in arguments)


def apply(method: str, arguments: list[Any]) -> ins.Expr:
    return getattr(arguments[0], method)(*arguments[1:])


CASES = [(method, kind) for method, (kinds, _) in ELEMENTWISE.items() for kind in kinds]


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_functions(region: ins.Region, method: str, kind: str) -> None:
    rng = np.random.default_rng([len(method), len(kind), 7])
    reference = ELEMENTWISE[method][1]
    for rows in SIZES:
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
    for rows in SIZES:
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


def rank(value: Any) -> Any:
    """Floats with NaN as the largest."""
    if isinstance(value, float):
        return (value != value, 0.0 if value != value else value)
    return value


@pytest.mark.parametrize("kind", ORDERED)
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
        values = (
            array.cast("int64").to_pylist()
            if "[" in kind and kind != "date32[day]"
            else array.to_pylist()
        )
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
