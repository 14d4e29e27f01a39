"""What functions of the table must give: a reference for each, of Arrow arrays, with the types that
it takes, and random arrays of every type."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float32", "float64"]
NUMBERS = INTEGERS + FLOATS
DATES = ["date32[day]", "date64[ms]"]
STAMPS = ["timestamp[s]", "timestamp[ms]", "timestamp[us]", "timestamp[ns]"]
CLOCKS = ["time32[s]", "time32[ms]", "time64[us]", "time64[ns]"]
DURATIONS = ["duration[s]", "duration[ms]", "duration[us]", "duration[ns]"]
TIMES = [*DATES, *STAMPS, *CLOCKS, *DURATIONS]
STRINGS = ["string", "large_string", "string_view"]
ORDERED = [*NUMBERS, "bool", *TIMES, *STRINGS]
STORED = [*ORDERED, "float16"]
"""All types of columns; of 16-bit floats nothing is computed."""
ALIKE = ["date64[ms]", "timestamp[s]", "timestamp[ms]", "time32[ms]", "time64[ns]", "duration[s]"]
ALIKE += ["duration[us]", "duration[ns]"]
"""Types that are treated as another one is; tested with fewer rows."""

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
    if kind in FLOATS or kind == "float16":
        values = rng.normal(size=rows) * 10.0 ** rng.integers(-3, 6, rows)
        special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
        where = rng.random(rows) < 0.1
        values[where] = rng.choice(special, where.sum())
        with np.errstate(over="ignore"):
            return pa.array(values.astype(kind), mask=mask)
    storage = f"int{pa.type_for_alias(kind).bit_width}" if kind in TIMES else kind
    info = np.iinfo(storage)
    if kind in CLOCKS:
        values = rng.integers(0, 80_000, rows)
    elif kind in TIMES:
        values = rng.integers(-40_000, 40_000, rows) * (86_400_000 if kind == "date64[ms]" else 1)
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
    elif pa.types.is_string_view(got.type):
        # pyarrow drops no nulls from these.
        assert got.to_pylist() == expected.to_pylist()
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
    left, right = as_numbers(left), as_numbers(right)
    kind = pa.float32() if left.type == right.type == pa.float32() else pa.float64()
    return pc.divide(left.cast(kind, safe=False), right.cast(kind, safe=False))


def as_numbers(array: pa.Array) -> pa.Array:
    """Times as the integers that they are, booleans as int64."""
    if pa.types.is_temporal(array.type):
        return array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return array.cast(pa.int64()) if pa.types.is_boolean(array.type) else array


def of_numbers(function: Callable[..., pa.Array]) -> Callable[..., pa.Array]:
    """The same of times, which it gives again, and of booleans, which are numbers."""

    def reference(*arrays: pa.Array) -> pa.Array:
        result = function(*map(as_numbers, arrays))
        return result.cast(arrays[0].type) if pa.types.is_temporal(arrays[0].type) else result

    return reference


def apart(left: pa.Array, right: pa.Array) -> pa.Array:
    """The difference: of points in time a duration."""
    if not pa.types.is_temporal(left.type):
        return pc.subtract(as_numbers(left), as_numbers(right))
    if pa.types.is_date32(left.type):
        left, right = (v.cast(pa.timestamp("s")) for v in (left, right))
    unit = "ms" if pa.types.is_date64(left.type) else left.type.unit
    return pc.subtract(as_numbers(left), as_numbers(right)).cast(pa.duration(unit))


def of_floats(function: Callable[..., Any]) -> Callable[..., pa.Array]:
    """A NumPy function of floats, or of integers as float64."""

    def reference(*arrays: pa.Array) -> pa.Array:
        floating = pa.types.is_floating(arrays[0].type)
        kind = arrays[0].type if floating else pa.float64()
        arrays = tuple(map(as_numbers, arrays))
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
    number = sum(int(v) for v in as_numbers(array).to_pylist() if v is not None)
    if pa.types.is_duration(array.type):
        return pa.scalar(number, pa.int64()).cast(array.type).as_py()
    return number


def mean(array: pa.Array) -> Any:
    count = len(array) - array.null_count
    return total(array) / count if count else None


def extreme(best: Callable[[Any], Any]) -> Callable[[pa.Array], Any]:
    def reference(array: pa.Array) -> Any:
        if pa.types.is_temporal(array.type):
            numbers = as_numbers(array)
            kept = [v for v in numbers.to_pylist() if v is not None]
            return pa.scalar(best(kept), numbers.type).cast(array.type).as_py() if kept else None
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
    return (as_numbers(array) if pa.types.is_temporal(array.type) else array).to_pylist()


def different(array: pa.Array) -> int:
    return len({"NaN" if v != v else v for v in plain(array)})


def rank(value: Any) -> Any:
    """Floats with NaN as the largest."""
    if isinstance(value, float):
        return (value != value, 0.0 if value != value else value)
    return value


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
    "add": ([*NUMBERS, "bool", *DURATIONS], of_numbers(pc.add)),
    "sub": ([*NUMBERS, "bool", *DATES, *STAMPS, *DURATIONS], apart),
    "mul": ([*NUMBERS, "bool"], of_numbers(pc.multiply)),
    "truediv": ([*NUMBERS, "bool", *DURATIONS], true_division),
    "floordiv": (
        [*NUMBERS, "bool", *DURATIONS],
        lambda *arrays: divided(np.floor_divide)(*map(as_numbers, arrays)),
    ),
    "rem": ([*NUMBERS, "bool", *DURATIONS], of_numbers(divided(floor_mod))),
    "neg": ([*NUMBERS, *DURATIONS], of_numbers(on_numpy(np.negative))),
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
    "lshift": ([*INTEGERS, "bool"], of_numbers(on_numpy(np.left_shift))),
    "rshift": ([*INTEGERS, "bool"], of_numbers(on_numpy(np.right_shift))),
    "bitwise_count_ones": (INTEGERS, counted(lambda digits: digits.count("1"))),
    "bitwise_count_zeros": (INTEGERS, counted(lambda digits: digits.count("0"))),
    "bitwise_leading_ones": (INTEGERS, counted(lambda d: len(d) - len(d.lstrip("1")))),
    "bitwise_leading_zeros": (INTEGERS, counted(lambda d: len(d) - len(d.lstrip("0")))),
    "bitwise_trailing_ones": (INTEGERS, counted(lambda d: len(d) - len(d.rstrip("1")))),
    "bitwise_trailing_zeros": (INTEGERS, counted(lambda d: len(d) - len(d.rstrip("0")))),
    "abs": ([*NUMBERS, *DURATIONS], of_numbers(pc.abs)),
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
    "arctan2": ([*NUMBERS, "bool"], transcendental(np.arctan2)),
    "degrees": (NUMBERS, transcendental(np.degrees)),
    "radians": (NUMBERS, transcendental(np.radians)),
    "cbrt": (NUMBERS, transcendental(np.cbrt)),
    "hypot": ([*NUMBERS, "bool"], transcendental(np.hypot)),
    "copysign": ([*NUMBERS, "bool"], of_floats(np.copysign)),
    "nextafter": ([*NUMBERS, "bool"], of_floats(np.nextafter)),
    "pow": ([*NUMBERS, "bool"], transcendental(np.power)),
    "floor": (NUMBERS, whole(np.floor)),
    "ceil": (NUMBERS, whole(np.ceil)),
    "trunc": (NUMBERS, whole(np.trunc)),
    "round": (NUMBERS, whole(np.round)),
    "sign": (NUMBERS, on_numpy(np.sign)),
    "is_null": (STORED, pc.is_null),
    "is_not_null": (STORED, pc.is_valid),
    "is_nan": (NUMBERS, on_numpy(lambda v: v != v, "bool")),
    "is_not_nan": (NUMBERS, on_numpy(lambda v: v == v, "bool")),
    "is_finite": (NUMBERS, on_numpy(np.isfinite, "bool")),
    "is_infinite": (NUMBERS, on_numpy(np.isinf, "bool")),
    "eq_missing": (ORDERED, equal_missing(True)),
    "ne_missing": (ORDERED, equal_missing(False)),
    "fill_nan": (NUMBERS, fill_nan),
    "fill_null": ([*NUMBERS, "bool", *TIMES, "float16"], pc.coalesce),
    "is_between": (
        ORDERED,
        lambda v, low, high: pc.and_kleene(pc.greater_equal(v, low), pc.less_equal(v, high)),
    ),
    "clip": (
        [*NUMBERS, *TIMES],
        of_numbers(
            on_numpy(lambda v, low, high: np.where(v != v, v, np.fmin(np.fmax(v, low), high)))
        ),
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
    "sum": ([*NUMBERS, "bool", *DURATIONS], total),
    "mean": ([*NUMBERS, "bool"], mean),
    "min": ([*NUMBERS, "bool", *TIMES], extreme(min)),
    "max": ([*NUMBERS, "bool", *TIMES], extreme(max)),
    "count": (STORED, lambda array: len(array) - array.null_count),
    "product": ([*NUMBERS, "bool"], product),
    "var": ([*NUMBERS, "bool"], variance),
    "std": ([*NUMBERS, "bool"], deviation),
    "any": (["bool"], lambda array: any(array.drop_null().to_pylist())),
    "all": (["bool"], lambda array: all(array.drop_null().to_pylist())),
    "first": (STORED, lambda array: array[0].as_py() if len(array) else None),
    "last": (STORED, lambda array: array[-1].as_py() if len(array) else None),
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
        storage = pa.int32() if times and kind.bit_width == 32 else pa.int64()
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
    "coalesce": ([*NUMBERS, "bool", *TIMES, "float16"], pc.coalesce),
    "min_horizontal": ([*NUMBERS, "bool", *TIMES], in_each_row(best(lambda a, b: a < b))),
    "max_horizontal": ([*NUMBERS, "bool", *TIMES], in_each_row(best(lambda a, b: a > b))),
    "sum_horizontal": ([*NUMBERS, "bool", *DURATIONS], sum_in_row),
    "mean_horizontal": ([*NUMBERS, "bool"], mean_in_row),
    "all_horizontal": (["bool"], lambda *a: functools.reduce(pc.and_kleene, a)),
    "any_horizontal": (["bool"], lambda *a: functools.reduce(pc.or_kleene, a)),
}


WINDOWS: dict[str, tuple[list[str], Callable[[ins.Expr], ins.Expr]]] = {
    "shift": (STORED, lambda e: e.shift(3)),
    "shift_up": (STORED, lambda e: e.shift(-70)),
    "diff": ([*NUMBERS, "bool", *DATES, *STAMPS, *DURATIONS], lambda e: e.diff(65)),
    "pct_change": ([*NUMBERS, "bool", *DURATIONS], lambda e: e.pct_change()),
    "cum_sum": ([*NUMBERS, "bool", *DURATIONS], lambda e: e.cum_sum()),
    "cum_prod": ([*NUMBERS, "bool"], lambda e: e.cum_prod()),
    "cum_min": ([*NUMBERS, "bool", *TIMES], lambda e: e.cum_min(reverse=True)),
    "cum_max": ([*NUMBERS, "bool", *TIMES], lambda e: e.cum_max()),
    "cum_count": (STORED, lambda e: e.cum_count()),
}
"""Functions whose results depend on other rows. What they must give is in test_rows.py and
test_windows.py."""


def arity(method: str) -> int:
    """How many expressions a method takes, the receiver among them; options are none."""
    arguments = next(arguments for m, arguments, *_ in ins._native._functions() if m == method)
    return 1 + sum(":" not in argument for argument in arguments)


def apply(method: str, arguments: list[Any]) -> ins.Expr:
    return getattr(arguments[0], method)(*arguments[1:])
