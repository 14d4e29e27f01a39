"""Types of the native module. Between the marks `generated` and `end` stands what
pybridge/stubs.py writes from the engine's tables; the rest is written by hand."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import Any, ClassVar, Literal, NoReturn, Protocol, TypeAlias, TypedDict, final

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped,import-not-found]
import polars as pl  # type: ignore[import-untyped,import-not-found]
import pyarrow as pa  # type: ignore[import-untyped]

__version__: str

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _ArrowArray(Protocol):
    def __arrow_c_array__(
        self, requested_schema: object | None = None
    ) -> tuple[object, object]: ...

_Scalar: TypeAlias = (
    bool | int | float | str | date | datetime | timedelta | np.generic | pa.Scalar | None
)
_Operand: TypeAlias = Expr | Then | _Scalar
_Column: TypeAlias = _Operand
"""Where a column is expected, a string is a column's name."""
_Columns: TypeAlias = _Column | Iterable[_Column]
_DataType: TypeAlias = pa.DataType | npt.DTypeLike
_Data: TypeAlias = _ArrowStream | _ArrowArray | pd.DataFrame | pd.Series[Any] | Mapping[str, Any]
_Rows: TypeAlias = _Data | Table | Query
_Schema: TypeAlias = pa.Schema | Mapping[str, _DataType | type]
_Values: TypeAlias = _ArrowStream | _ArrowArray | npt.ArrayLike | pd.Series[Any] | _Scalar
_Path: TypeAlias = str | os.PathLike[str]

def col(name: str) -> Expr: ...
def lit(value: _Operand) -> Expr: ...
def param(name: str) -> Expr: ...
def when(condition: _Operand) -> When: ...
def len() -> Expr: ...

# generated: horizontals
def coalesce(*exprs: _Columns) -> Expr:
    """The first value in each row that is not null; a string names a column."""

def min_horizontal(*exprs: _Columns) -> Expr:
    """The smallest value in each row, NaN and null left out; a string names a column."""

def max_horizontal(*exprs: _Columns) -> Expr:
    """The largest value in each row, NaN and null left out; a string names a column."""

def sum_horizontal(*exprs: _Columns) -> Expr:
    """The sum of each row's values that are not null, in the type that + gives; 0 of none."""

def mean_horizontal(*exprs: _Columns) -> Expr:
    """The mean of each row's values that are not null; null of none."""

def all_horizontal(*exprs: _Columns) -> Expr:
    """Whether all values in a row are true; null if one is null and none is false."""

def any_horizontal(*exprs: _Columns) -> Expr:
    """Whether any value in a row is true; null if one is null and none is true."""

# end
def create(
    name: str | None = None,
    *,
    path: _Path | None = None,
    capacity: int | str | None = None,
    max_tables: int | None = None,
    if_exists: Literal["error", "open", "replace"] = "error",
    ephemeral: bool = False,
) -> Region: ...
def open(
    name: str | None = None,
    *,
    path: _Path | None = None,
    fd: int | None = None,
    read_only: bool = False,
) -> Region: ...
def remove(name: str | None = None, *, path: _Path | None = None) -> None: ...
def regions() -> list[_RegionRecord]: ...
def _cells(table: Table, rows: int) -> list[list[str | None]]: ...
def _chunks(table: Table) -> int: ...
def _poison(table: Table) -> str | None: ...
def _statistics(table: Table) -> list[_ColumnStatistics] | None: ...
def _set_threads(n: int) -> None: ...
def _threads() -> int: ...

@final
class _Formula:
    def __new__(cls, text: str, exact: bool) -> _Formula: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def reduction(self) -> tuple[str, int | None] | None: ...
    def result(self, operands: tuple[Any, ...]) -> tuple[str, Any]: ...
    def run(
        self,
        operands: tuple[Any, ...],
        out: Any,
        order: str,
        casting: str,
        reduce: bool,
    ) -> Any: ...

class _RegionRecord(TypedDict):
    name: str
    capacity: int | None
    resident: int
    ephemeral: bool
    problem: str | None

class _ColumnStatistics(TypedDict):
    nulls: int | None
    min: int | float | str | None
    max: int | float | str | None
    nan: bool
    sorted: Literal["ascending", "descending"] | None

class _Stats(TypedDict):
    capacity: int
    used: int
    free: int
    reserved: int
    tables: int
    retired: int
    poisoned: int
    tickets: int
    sessions: int
    extents: int
    max_tables: int
    recoveries: int
    copies: int
    copied_bytes: int
    updates_in_place: int
    updates_swapped: int

class _Lease(TypedDict):
    pid: int
    table: str
    sequence: int
    current: bool
    kind: Literal["pin", "lease", "update", "exclusive", "ticket", "build"]
    since: float | None
    what: str
    bytes: int

@final
class Region:
    @property
    def name(self) -> str | None: ...
    @property
    def path(self) -> str | None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def put(self, name: str, data: _Data, *, replace: bool = False) -> Table: ...
    def build(
        self,
        name: str,
        schema: _Schema,
        rows: int | None = None,
        *,
        replace: bool = False,
        zero: bool = False,
    ) -> Builder: ...
    def __getitem__(self, key: str, /) -> Table: ...
    def __setitem__(self, key: str, value: _Data, /) -> None: ...
    def __delitem__(self, key: str, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def wait(
        self, name: str, newer_than: Table | None = None, timeout: float | None = None
    ) -> Table: ...
    def names(self) -> list[str]: ...
    def fileno(self) -> int: ...
    def gc(self) -> int: ...
    def trim(self) -> int: ...
    def stats(self) -> _Stats: ...
    def verify(self) -> Report: ...
    def leases(self) -> list[_Lease]: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Region: ...
    def __exit__(
        self,
        *_exception: type[BaseException] | BaseException | TracebackType | None,
    ) -> None: ...

@final
class Builder:
    @property
    def name(self) -> str: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def table(self) -> Table: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __getitem__(self, key: str, /) -> npt.NDArray[Any]: ...
    def __setitem__(self, key: str, value: _Values, /) -> None: ...
    def validity(self, column: str) -> npt.NDArray[np.bool_]: ...
    def append(self, data: _Rows) -> None: ...
    def seal(self) -> Table: ...
    def discard(self) -> None: ...
    def __enter__(self) -> Builder: ...
    def __exit__(
        self,
        exception: type[BaseException] | None,
        *_details: BaseException | TracebackType | None,
    ) -> None: ...

@final
class Report:
    @property
    def ok(self) -> bool: ...
    @property
    def problems(self) -> list[str]: ...
    @property
    def tables(self) -> int: ...
    @property
    def extents(self) -> int: ...
    @property
    def poisoned(self) -> list[str]: ...

@final
class Table:
    @property
    def name(self) -> str | None: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def columns(self) -> list[str]: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> NoReturn: ...
    def __getitem__(self, key: str, /) -> Column: ...
    def __contains__(self, key: object, /) -> bool: ...
    def head(self, n: int = 5) -> Table: ...
    def latest(self) -> Table: ...
    def append(self, data: _Rows) -> Table: ...
    def update(
        self,
        mapping: Mapping[str, _Operand] | None = None,
        /,
        *,
        where: _Operand | None = None,
        in_place: bool = False,
        atomic: bool = False,
        checked: bool = False,
        timeout: float | None = None,
        **columns: _Operand,
    ) -> Table: ...
    def explain_update(
        self,
        mapping: Mapping[str, _Operand] | None = None,
        /,
        *,
        where: _Operand | None = None,
        checked: bool = False,
        timeout: float | None = None,
        **columns: _Operand,
    ) -> str: ...
    def exclusive(self, timeout: float | None = None) -> Exclusive: ...
    def writable(self, timeout: float | None = None) -> Writable: ...
    def repair(self) -> Table: ...
    def to_arrow(self) -> pa.Table: ...
    def to_pandas(self, **options: Any) -> pd.DataFrame: ...
    def to_polars(self) -> pl.DataFrame: ...
    def to_numpy(
        self, copy: bool | None = False, fill: object = None
    ) -> dict[str, npt.NDArray[Any]]: ...
    def item(self) -> Any: ...
    def filter(self, *predicates: _Columns) -> Query: ...
    def select(self, *exprs: _Columns, **named: _Column) -> Query: ...
    def with_columns(self, *exprs: _Columns, **named: _Column) -> Query: ...
    def group_by(self, *keys: _Columns, **named: _Column) -> GroupBy: ...
    def sort(
        self,
        *keys: _Columns,
        descending: bool | Iterable[bool] = False,
        nulls_last: bool = True,
    ) -> Query: ...
    def limit(self, n: int) -> Query: ...
    def slice(self, offset: int, n: int | None = None) -> Query: ...
    def __copy__(self) -> Table: ...
    def __deepcopy__(self, _memo: object, /) -> Table: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def _repr_html_(self) -> str: ...

@final
class Writable:
    def __enter__(self) -> Writable: ...
    def __exit__(
        self,
        exception: type[BaseException] | None,
        *_details: BaseException | TracebackType | None,
    ) -> None: ...
    def __getitem__(self, key: str, /) -> npt.NDArray[Any]: ...
    def __setitem__(self, key: str, value: npt.ArrayLike, /) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...

@final
class Exclusive:
    def __enter__(self) -> Table: ...
    def __exit__(
        self,
        exception: type[BaseException] | None,
        *_details: BaseException | TracebackType | None,
    ) -> None: ...

@final
class Column:
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> pa.DataType: ...
    @property
    def null_count(self) -> int: ...
    @property
    def num_chunks(self) -> int: ...
    def __len__(self) -> int: ...
    def to_numpy(self, copy: bool | None = False, fill: object = None) -> npt.NDArray[Any]: ...
    def to_arrow(self) -> pa.ChunkedArray: ...
    def to_pandas(self) -> pd.Series[Any]: ...
    def to_polars(self) -> pl.Series: ...
    def to_pylist(self) -> list[Any]: ...
    def item(self) -> Any: ...
    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_array__(
        self, requested_schema: object | None = None
    ) -> tuple[object, object]: ...
    def __arrow_c_schema__(self) -> object: ...

    # generated: reductions
    def sum(self) -> Any:
        """The sum of the values that are not null; 0 of nothing."""

    def mean(self) -> Any:
        """The arithmetic mean of the values that are not null; null of nothing."""

    def min(self) -> Any:
        """The smallest value, NaN and null left out; null of nothing."""

    def max(self) -> Any:
        """The largest value, NaN and null left out; null of nothing."""

    def count(self) -> Any:
        """The number of values that are not null."""

    def product(self) -> Any:
        """The product of the values that are not null; 1 of nothing."""

    def var(self, ddof: int = 1) -> Any:
        """The variance of the values that are not null: their squared deviations from the mean by their number less ddof; null of ddof values or fewer."""

    def std(self, ddof: int = 1) -> Any:
        """The standard deviation, the square root of the variance; null of ddof values or fewer."""

    def any(self) -> Any:
        """Whether any value is true, null left out; false of nothing."""

    def all(self) -> Any:
        """Whether all values are true, null left out; true of nothing."""

    def first(self) -> Any:
        """The value in the first row, null if that is null; null of nothing."""

    def last(self) -> Any:
        """The value in the last row, null if that is null; null of nothing."""

    def arg_min(self) -> Any:
        """The row of the smallest value, from 0, the first of equal ones; NaN and null are rows too, but never it; null of nothing."""

    def arg_max(self) -> Any:
        """The row of the largest value, from 0, the first of equal ones; NaN and null are rows too, but never it; null of nothing."""

    def n_unique(self) -> Any:
        """The number of different values; null is one, and NaN is one."""

    def median(self) -> Any:
        """The middle value, or the mean of the two in the middle, null left out, NaN the largest; null of nothing."""

    def quantile(self, q: float, interpolation: str = "linear") -> Any:
        """The value at the share q (0 to 1) of the sorted ones, null left out, NaN the largest; between two values by interpolation: linear, nearest, lower, higher or midpoint; null of nothing."""

    # end

@final
class Query:
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def columns(self) -> list[str]: ...
    def filter(self, *predicates: _Columns) -> Query: ...
    def select(self, *exprs: _Columns, **named: _Column) -> Query: ...
    def with_columns(self, *exprs: _Columns, **named: _Column) -> Query: ...
    def group_by(self, *keys: _Columns, **named: _Column) -> GroupBy: ...
    def sort(
        self,
        *keys: _Columns,
        descending: bool | Iterable[bool] = False,
        nulls_last: bool = True,
    ) -> Query: ...
    def limit(self, n: int) -> Query: ...
    def slice(self, offset: int, n: int | None = None) -> Query: ...
    def collect(
        self,
        name: str | None = None,
        *,
        replace: bool = False,
        checked: bool = False,
        progress: bool | Callable[[int, int], object] | None = None,
    ) -> Table: ...
    def to_arrow(self) -> pa.Table: ...
    def to_pandas(self, **options: Any) -> pd.DataFrame: ...
    def to_polars(self) -> pl.DataFrame: ...
    def to_numpy(
        self, copy: bool | None = False, fill: object = None
    ) -> dict[str, npt.NDArray[Any]]: ...
    def item(self) -> Any: ...
    def prepare(self) -> Prepared: ...
    def explain(self, *, analyze: bool = False) -> str: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class GroupBy:
    def agg(self, *exprs: _Columns, **named: _Column) -> Query: ...

@final
class Prepared:
    def run(
        self, *, table: Table | None = None, checked: bool = False, **params: _Scalar
    ) -> Table: ...
    def explain(self, *, analyze: bool = False, **params: _Scalar) -> str: ...

@final
class When:
    def then(self, value: _Operand) -> Then: ...

@final
class Then:
    def when(self, condition: _Operand) -> When: ...
    def otherwise(self, value: _Operand) -> Expr: ...
    def alias(self, name: str) -> Expr: ...

@final
class Expr:
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def alias(self, name: str) -> Expr: ...
    def cast(self, dtype: _DataType, *, strict: bool = True) -> Expr: ...
    def is_in(self, values: Iterable[_Scalar]) -> Expr: ...
    def shift(self, n: int = 1, *, fill_value: _Operand = None) -> Expr: ...
    def diff(self, n: int = 1) -> Expr: ...
    def pct_change(self, n: int = 1) -> Expr: ...
    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: _Operand, **options: Any
    ) -> Expr: ...
    def __bool__(self) -> NoReturn: ...
    def __abs__(self) -> Expr: ...
    def __neg__(self) -> Expr: ...
    def __invert__(self) -> Expr: ...
    def __add__(self, other: _Operand, /) -> Expr: ...
    def __radd__(self, other: _Operand, /) -> Expr: ...
    def __sub__(self, other: _Operand, /) -> Expr: ...
    def __rsub__(self, other: _Operand, /) -> Expr: ...
    def __mul__(self, other: _Operand, /) -> Expr: ...
    def __rmul__(self, other: _Operand, /) -> Expr: ...
    def __truediv__(self, other: _Operand, /) -> Expr: ...
    def __rtruediv__(self, other: _Operand, /) -> Expr: ...
    def __floordiv__(self, other: _Operand, /) -> Expr: ...
    def __rfloordiv__(self, other: _Operand, /) -> Expr: ...
    def __mod__(self, other: _Operand, /) -> Expr: ...
    def __rmod__(self, other: _Operand, /) -> Expr: ...
    def __pow__(self, other: _Operand, mod: None = None, /) -> Expr: ...
    def __rpow__(self, other: _Operand, mod: None = None, /) -> Expr: ...
    def __and__(self, other: _Operand, /) -> Expr: ...
    def __rand__(self, other: _Operand, /) -> Expr: ...
    def __or__(self, other: _Operand, /) -> Expr: ...
    def __ror__(self, other: _Operand, /) -> Expr: ...
    def __xor__(self, other: _Operand, /) -> Expr: ...
    def __rxor__(self, other: _Operand, /) -> Expr: ...
    def __lshift__(self, other: _Operand, /) -> Expr: ...
    def __rlshift__(self, other: _Operand, /) -> Expr: ...
    def __rshift__(self, other: _Operand, /) -> Expr: ...
    def __rrshift__(self, other: _Operand, /) -> Expr: ...
    def __eq__(self, other: _Operand, /) -> Expr: ...  # type: ignore[override]
    def __ne__(self, other: _Operand, /) -> Expr: ...  # type: ignore[override]
    def __lt__(self, other: _Operand, /) -> Expr: ...
    def __le__(self, other: _Operand, /) -> Expr: ...
    def __gt__(self, other: _Operand, /) -> Expr: ...
    def __ge__(self, other: _Operand, /) -> Expr: ...

    # generated: functions
    def add(self, right: _Operand) -> Expr:
        """The sum; integers wrap."""

    def sub(self, right: _Operand) -> Expr:
        """The difference; integers wrap; two points in time give a duration."""

    def mul(self, right: _Operand) -> Expr:
        """The product; integers wrap."""

    def truediv(self, right: _Operand) -> Expr:
        """The quotient as a float, also of integers."""

    def floordiv(self, right: _Operand) -> Expr:
        """The quotient rounded down; null where an integer is divided by zero."""

    def rem(self, right: _Operand) -> Expr:
        """The remainder, with the divisor's sign; null where an integer is divided by zero."""

    def pow(self, right: _Operand) -> Expr:
        """The power; of an integer and a whole literal >= 0 an integer, which wraps."""

    def neg(self) -> Expr:
        """The negated value."""

    def eq(self, right: _Operand) -> Expr:
        """Whether both sides are equal."""

    def ne(self, right: _Operand) -> Expr:
        """Whether the sides differ."""

    def lt(self, right: _Operand) -> Expr:
        """Whether left is less than right."""

    def le(self, right: _Operand) -> Expr:
        """Whether left is at most right."""

    def gt(self, right: _Operand) -> Expr:
        """Whether left is greater than right."""

    def ge(self, right: _Operand) -> Expr:
        """Whether left is at least right."""

    def and_(self, right: _Operand) -> Expr:
        """Both; false and null is false; of integers bit by bit."""

    def or_(self, right: _Operand) -> Expr:
        """Either; true or null is true; of integers bit by bit."""

    def xor(self, right: _Operand) -> Expr:
        """Exactly one; of integers bit by bit."""

    def not_(self) -> Expr:
        """The opposite; of integers bit by bit."""

    def abs(self) -> Expr:
        """The absolute value."""

    def sqrt(self) -> Expr:
        """The square root; NaN of negative values."""

    def cbrt(self) -> Expr:
        """The cube root."""

    def hypot(self, right: _Operand) -> Expr:
        """The hypotenuse, sqrt(left**2 + right**2), without overflow on the way."""

    def copysign(self, sign: _Operand) -> Expr:
        """The value with the sign of the other, also that of a zero or a NaN."""

    def nextafter(self, towards: _Operand) -> Expr:
        """The nearest other float of its type on the way to the second value; that itself where they are equal."""

    def exp(self) -> Expr:
        """The exponential, e to the power of the value."""

    def exp2(self) -> Expr:
        """2 to the power of the value."""

    def expm1(self) -> Expr:
        """The exponential less 1, accurate also near 0."""

    def log(self) -> Expr:
        """The natural logarithm; -inf of 0, NaN of negative values."""

    def log2(self) -> Expr:
        """The logarithm to base 2; -inf of 0, NaN of negative values."""

    def log10(self) -> Expr:
        """The logarithm to base 10; -inf of 0, NaN of negative values."""

    def log1p(self) -> Expr:
        """The natural logarithm of 1 plus the value, accurate also near 0."""

    def sinh(self) -> Expr:
        """The hyperbolic sine."""

    def cosh(self) -> Expr:
        """The hyperbolic cosine."""

    def tanh(self) -> Expr:
        """The hyperbolic tangent."""

    def arcsinh(self) -> Expr:
        """The inverse hyperbolic sine."""

    def arccosh(self) -> Expr:
        """The inverse hyperbolic cosine; NaN below 1."""

    def arctanh(self) -> Expr:
        """The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond."""

    def sin(self) -> Expr:
        """The sine of an angle in radians; NaN of infinities."""

    def cos(self) -> Expr:
        """The cosine of an angle in radians; NaN of infinities."""

    def tan(self) -> Expr:
        """The tangent of an angle in radians; NaN of infinities."""

    def arcsin(self) -> Expr:
        """The inverse sine, in radians from -pi/2 to pi/2; NaN outside -1 to 1."""

    def arccos(self) -> Expr:
        """The inverse cosine, in radians from 0 to pi; NaN outside -1 to 1."""

    def arctan(self) -> Expr:
        """The inverse tangent, in radians from -pi/2 to pi/2."""

    def arctan2(self, x: _Operand) -> Expr:
        """The angle of the point (x, y), in radians from -pi to pi."""

    def degrees(self) -> Expr:
        """An angle in radians, in degrees."""

    def radians(self) -> Expr:
        """An angle in degrees, in radians."""

    def floor(self) -> Expr:
        """Rounded down to a whole number."""

    def ceil(self) -> Expr:
        """Rounded up to a whole number."""

    def trunc(self) -> Expr:
        """Rounded towards zero to a whole number."""

    def round(self, decimals: int = 0) -> Expr:
        """As numpy.round: halves to even, negative decimals round to tens (Polars: an error)."""

    def sign(self) -> Expr:
        """-1, 0 or 1 in the value's type; zeros keep their sign, NaN stays NaN."""

    def is_null(self) -> Expr:
        """Whether the value is null."""

    def is_not_null(self) -> Expr:
        """Whether the value is not null."""

    def is_nan(self) -> Expr:
        """Whether the value is NaN."""

    def is_not_nan(self) -> Expr:
        """Whether the value is not NaN."""

    def is_finite(self) -> Expr:
        """Whether the value is neither NaN nor infinite."""

    def is_infinite(self) -> Expr:
        """Whether the value is infinite."""

    def eq_missing(self, right: _Operand) -> Expr:
        """Whether both sides are equal, or both null."""

    def ne_missing(self, right: _Operand) -> Expr:
        """Whether the sides differ, null only from what is not null."""

    def fill_null(self, replacement: _Operand) -> Expr:
        """The value, or the replacement where it is null."""

    def fill_nan(self, replacement: _Operand) -> Expr:
        """The value, or the replacement where it is NaN; integers stay as they are."""

    def is_between(self, lower: _Operand, upper: _Operand) -> Expr:
        """Whether lower <= value <= upper."""

    def clip(self, lower: _Operand, upper: _Operand) -> Expr:
        """The value, but at least lower and at most upper; NaN stays NaN."""

    def lshift(self, right: _Operand) -> Expr:
        """The bits moved up; 0 for counts that are negative or not below the width."""

    def rshift(self, right: _Operand) -> Expr:
        """The bits moved down, the sign kept also by counts negative or not below the width."""

    def bitwise_count_ones(self) -> Expr:
        """How many bits are set."""

    def bitwise_count_zeros(self) -> Expr:
        """How many bits are not set."""

    def bitwise_leading_ones(self) -> Expr:
        """How many bits are set above the highest that is not."""

    def bitwise_leading_zeros(self) -> Expr:
        """How many bits are not set above the highest that is."""

    def bitwise_trailing_ones(self) -> Expr:
        """How many bits are set below the lowest that is not."""

    def bitwise_trailing_zeros(self) -> Expr:
        """How many bits are not set below the lowest that is."""

    def cum_sum(self, *, reverse: bool = False) -> Expr:
        """The sum of the values up to each row, or from it on if reverse; nulls stay null and are left out."""

    def cum_prod(self, *, reverse: bool = False) -> Expr:
        """The product of the values up to each row, or from it on if reverse; nulls stay null and are left out."""

    def cum_min(self, *, reverse: bool = False) -> Expr:
        """The smallest value up to each row, or from it on if reverse, NaN and null left out; nulls stay null, and NaN where there is no number yet."""

    def cum_max(self, *, reverse: bool = False) -> Expr:
        """The largest value up to each row, or from it on if reverse, NaN and null left out; nulls stay null, and NaN where there is no number yet."""

    def cum_count(self, *, reverse: bool = False) -> Expr:
        """The number of values up to each row, or from it on if reverse, that are not null."""

    def sum(self) -> Expr:
        """The sum of the values that are not null; 0 of nothing."""

    def mean(self) -> Expr:
        """The arithmetic mean of the values that are not null; null of nothing."""

    def min(self) -> Expr:
        """The smallest value, NaN and null left out; null of nothing."""

    def max(self) -> Expr:
        """The largest value, NaN and null left out; null of nothing."""

    def count(self) -> Expr:
        """The number of values that are not null."""

    def product(self) -> Expr:
        """The product of the values that are not null; 1 of nothing."""

    def var(self, ddof: int = 1) -> Expr:
        """The variance of the values that are not null: their squared deviations from the mean by their number less ddof; null of ddof values or fewer."""

    def std(self, ddof: int = 1) -> Expr:
        """The standard deviation, the square root of the variance; null of ddof values or fewer."""

    def any(self) -> Expr:
        """Whether any value is true, null left out; false of nothing."""

    def all(self) -> Expr:
        """Whether all values are true, null left out; true of nothing."""

    def first(self) -> Expr:
        """The value in the first row, null if that is null; null of nothing."""

    def last(self) -> Expr:
        """The value in the last row, null if that is null; null of nothing."""

    def arg_min(self) -> Expr:
        """The row of the smallest value, from 0, the first of equal ones; NaN and null are rows too, but never it; null of nothing."""

    def arg_max(self) -> Expr:
        """The row of the largest value, from 0, the first of equal ones; NaN and null are rows too, but never it; null of nothing."""

    def n_unique(self) -> Expr:
        """The number of different values; null is one, and NaN is one."""

    def median(self) -> Expr:
        """The middle value, or the mean of the two in the middle, null left out, NaN the largest; null of nothing."""

    def quantile(self, q: _Operand, interpolation: str = "linear") -> Expr:
        """The value at the share q (0 to 1) of the sorted ones, null left out, NaN the largest; between two values by interpolation: linear, nearest, lower, higher or midpoint; null of nothing."""

    # end

# generated: exceptions
class Error(Exception):
    """The base of all of insitu's exceptions."""

class Cancelled(Error, ValueError):
    """The operation was interrupted."""

class CastFailed(Error, ValueError):
    """A value does not fit the type it was cast to."""

    column: str
    row: int
    value: str
    to: str

class InvalidArgument(Error, ValueError):
    """An argument has a value it must not have."""

class InvalidData(Error, ValueError):
    """Data breaks the rules of the Arrow format."""

class InvalidPlan(Error, ValueError):
    """The query makes no sense, whatever the data."""

class Io(Error, OSError):
    """The operating system reported an error."""

class LeaseHeld(Error, TimeoutError):
    """Others read the table and keep its content from being changed."""

    name: str
    holders: Sequence[dict[str, Any]]

class LimitExceeded(Error, ValueError):
    """Something is larger or deeper than the engine allows."""

class NotZeroCopy(Error, ValueError):
    """The data cannot be handed out without a copy."""

class OutOfMemory(Error, MemoryError):
    """The process has no memory for an intermediate result."""

    bytes: int

class Overflow(Error, OverflowError):
    """The result of an integer operation does not fit its type."""

class PermissionDenied(Error, PermissionError):
    """The operating system refuses access to the region."""

class Poisoned(Error, ValueError):
    """A process died while it changed the table in place."""

    name: str
    pid: int
    since: float | None
    what: str

class ReadOnly(Error, ValueError):
    """The region was opened for reading only."""

class RegionCorrupt(Error, ValueError):
    """The file or segment is not a region, is truncated, or contradicts itself."""

    what: str
    offset: int

class RegionExists(Error, FileExistsError):
    """A region of that name or path exists already."""

class RegionFull(Error, MemoryError):
    """The region, or what backs it, has no room for what was asked."""

    needed: int
    free: int
    capacity: int
    cause: str

class RegionNotFound(Error, FileNotFoundError):
    """There is no region of that name, path or descriptor."""

class SchemaMismatch(Error, ValueError):
    """Columns or types differ from those expected."""

class SessionLimit(Error, ValueError):
    """As many processes as the region has room for are attached to it."""

class ShapeMismatch(Error, ValueError):
    """Lengths or counts differ from those expected."""

class Stale(Error, ValueError):
    """The region is closed, or the table is gone."""

class TableExists(Error, ValueError):
    """The region has a table of that name already."""

    name: str

class TableLimit(Error, ValueError):
    """The region holds as many tables as it was created for."""

class TableNotFound(Error, KeyError):
    """The region has no table of that name."""

    name: str
    nearest: str | None

class Timeout(Error, TimeoutError):
    """What was waited for did not happen in time."""

class TypeMismatch(Error, TypeError):
    """An operation does not take values of that type."""

class UnknownColumn(Error, KeyError):
    """The table has no column of that name."""

    name: str
    nearest: str | None

class Unsupported(Error, NotImplementedError):
    """The engine does not do this."""

class VersionMismatch(Error, ValueError):
    """The region was made by another version of the format."""

    found: int
    expected: int

# end
