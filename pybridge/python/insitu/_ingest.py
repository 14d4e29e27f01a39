"""pandas frames, dicts of arrays and single columns as Arrow, for `put`, `build` and `append`.

This module decides what insitu promises about them: what counts as missing, what becomes of an
index, which types are refused and with which words. pyarrow converts what comes from pandas.
NumPy's arrays become Arrow here, buffer by buffer: `pyarrow.array` and `pyarrow.table` import
pandas to see whether they were given some of it, which takes seconds in a process that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from insitu import _native

# Strings that are Python objects at one time, while an array of them is converted.
_STRINGS_AT_ONCE = 1 << 16


def from_pandas(frame: Any) -> pa.Table:
    """A pandas DataFrame or Series as an Arrow table.

    Missing values (NaN, NaT, None, NA) become null. A RangeIndex is dropped; any other index
    is kept as columns, under the names `reset_index` gives them.
    """
    import pandas as pd  # type: ignore[import-untyped,import-not-found]

    if not isinstance(frame, (pd.DataFrame, pd.Series)):
        raise _native.TypeMismatch(
            f"a pandas {type(frame).__name__} is not tabular; "
            'give its values a name: put(name, {"column": values})'
        )
    if isinstance(frame, pd.Series):
        frame = frame.to_frame("0" if frame.name is None else frame.name)
    if not isinstance(frame.index, pd.RangeIndex):
        try:
            frame = frame.reset_index()
        except ValueError as error:
            raise _native.InvalidArgument(
                f"the index cannot become columns: {error}; rename it, or leave it out: "
                "df.reset_index(drop=True)"
            ) from error
    strange = [label for label in frame.columns if not isinstance(label, str)]
    if strange:
        raise _native.InvalidArgument(
            f"column labels must be strings, {strange[0]!r} is not; "
            "rename them: df.columns = df.columns.map(str)"
        )
    _refuse_duplicates(list(frame.columns))
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise _native.TypeMismatch(f"pandas data that Arrow has no type for: {error}") from error
    # What pandas notes there (labels, index) does not hold for what is computed from the table.
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"pandas"}
    return table.replace_schema_metadata(metadata or None)


def from_mapping(columns: Mapping[Any, Any]) -> pa.Table:
    """A mapping of names to one-dimensional arrays of equal length as an Arrow table."""
    names: list[str] = []
    arrays: list[pa.Array | pa.ChunkedArray] = []
    for name, values in columns.items():
        if not isinstance(name, str):
            raise _native.InvalidArgument(f"column names must be strings, {name!r} is not")
        names.append(name)
        arrays.append(_array(name, values))
    _refuse_lengths(names, arrays)
    return pa.Table.from_arrays(arrays, names=names)


def from_mapping_as(columns: Mapping[Any, Any], schema: pa.Schema) -> pa.Table:
    """A mapping of names to values as rows of a table of a known schema.

    Columns that are not in the schema, or not in the mapping, are left for the engine to refuse.
    """
    names: list[str] = []
    arrays: list[pa.Array | pa.ChunkedArray] = []
    for name, values in columns.items():
        if not isinstance(name, str):
            raise _native.InvalidArgument(f"column names must be strings, {name!r} is not")
        index = schema.get_field_index(name)
        names.append(name)
        arrays.append(
            _array(name, values) if index < 0 else column(name, values, schema.types[index])
        )
    _refuse_lengths(names, arrays)
    return pa.Table.from_arrays(arrays, names=names)


def column(name: str, values: Any, dtype: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Values as a column of a known type. None is null; numbers are cast where none is changed."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise _native.TypeMismatch(
            f"column {name!r} takes all its values, an array or a list; "
            f"{type(values).__name__} is one value"
        )
    foreign = hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__")
    typed = isinstance(values, np.ndarray) and values.dtype.kind != "O"
    try:
        if not foreign and not typed:
            # Lists, and arrays of Python objects: what they are to be is known here.
            if pa.types.is_integer(dtype):
                _refuse_fractions(name, values, dtype)
            return pa.array(values, type=dtype)
        array = _array(name, values)
        return array if array.type == dtype else array.cast(dtype)
    except (pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise _native.TypeMismatch(f"column {name!r} of type {dtype}: {error}") from error
    except (pa.ArrowInvalid, OverflowError) as error:
        raise _native.InvalidData(f"column {name!r} of type {dtype}: {error}") from error


def _refuse_fractions(name: str, values: Any, dtype: pa.DataType) -> None:
    """pyarrow cuts them off."""
    for row, value in enumerate(values):
        if isinstance(value, (float, np.floating)) and not float(value).is_integer():
            raise _native.InvalidData(
                f"column {name!r} of type {dtype}: {value!r} in row {row} is no value of it"
            )


def fitting(name: str, dtype: np.dtype[Any], values: Any) -> Any:
    """What NumPy stores in an array of that dtype, if none of it is changed by that."""
    if dtype.kind not in "biu":
        return values
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise _native.TypeMismatch(f"column {name!r} of type {dtype} cannot hold {given.dtype}")
    if np.can_cast(given.dtype, dtype):
        return given
    with np.errstate(all="ignore"):
        stored = given.astype(dtype)
    if (stored != given).any():
        changed = np.ravel(given)[np.flatnonzero(stored != given)[0]]
        raise _native.InvalidData(
            f"column {name!r} of type {dtype}: {changed} is no value of it; "
            "round or cast the values first"
        )
    return stored


def fill(name: str, array: np.ndarray[Any, Any], value: Any) -> None:
    """Stores one value into all rows of a column, if it is one there."""
    wrong = f"column {name!r} of type {array.dtype}: {value!r} is no value of it"
    one = np.asarray(value)
    number = array.dtype.kind in "biuf"
    if one.ndim or (number and one.dtype.kind not in "biufO"):
        raise _native.TypeMismatch(wrong)
    try:
        with np.errstate(all="ignore"):
            stored = one.astype(array.dtype)
        if number and array.dtype.kind != "f" and stored != one:
            raise _native.InvalidData(wrong)
        array[...] = stored
    except _native.Error:
        raise
    except OverflowError as error:
        raise _native.InvalidData(wrong) from error
    except (TypeError, ValueError) as error:
        raise _native.TypeMismatch(wrong) from error


def schema_of(columns: Any, named: Callable[[Any], pa.DataType]) -> pa.Schema:
    """A schema, from one or from a mapping of names to types; `named` knows the types' names."""
    if isinstance(columns, pa.Schema):
        return columns
    if hasattr(columns, "__arrow_c_schema__"):
        return pa.schema(columns)
    if not isinstance(columns, Mapping):
        raise _native.TypeMismatch(
            f"a {type(columns).__name__} is no schema; use a pyarrow.Schema, "
            'or a dict of names and types: {"price": "float64", "symbol": "string"}'
        )
    fields = []
    for name, dtype in columns.items():
        if not isinstance(name, str):
            raise _native.InvalidArgument(f"column names must be strings, {name!r} is not")
        fields.append(pa.field(name, named(dtype)))
    return pa.schema(fields)


def _refuse_lengths(names: list[str], arrays: list[pa.Array | pa.ChunkedArray]) -> None:
    lengths = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r}: {length}" for name, length in lengths.items())
        raise _native.ShapeMismatch(f"columns must have equal lengths; these have {listed}")


def _refuse_duplicates(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _native.InvalidArgument(f"two columns are called {name!r}")
        seen.add(name)


def _array(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if type(values).__module__.partition(".")[0] == "pandas":
        return pa.array(values, from_pandas=True)
    if hasattr(values, "__arrow_c_stream__"):
        return pa.chunked_array(values)
    if hasattr(values, "__arrow_c_array__"):
        return pa.array(values)
    array: Any = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.ndim != 1:
        raise _native.ShapeMismatch(
            f"column {name!r} must have one dimension, it has {array.ndim} {array.shape}"
        )
    mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    array = np.ascontiguousarray(np.ma.getdata(array))
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return _from_numpy(name, array, mask)


def _from_numpy(name: str, array: np.ndarray[Any, Any], mask: Any) -> pa.Array:
    kind = array.dtype.kind
    if kind in "mM":
        array = _known_unit(name, array)
    elif kind == "T":  # NumPy's variable-width strings
        array = array.astype(object)
    elif kind == "O":
        raise _native.TypeMismatch(
            f"column {name!r} holds Python objects; make it a typed array: "
            '.astype("U") for strings, .astype(float) for numbers, or pass a pyarrow array'
        )
    elif kind not in "biufU" or (kind == "f" and array.dtype.itemsize > 8):
        raise _native.TypeMismatch(
            f"column {name!r} has the NumPy type {array.dtype}, for which there is no column type; "
            'numbers up to 64 bits, bool, datetime64, timedelta64 and "U" strings have one'
        )
    if kind in "UT":
        return _strings(name, array, mask)
    if kind in "mM":
        missing = np.isnat(array)
        mask = missing if mask is None else mask | missing
    arrow, values = _values(name, array, mask)
    validity = None
    if mask is not None and mask.any():
        validity = pa.py_buffer(np.packbits(~mask, bitorder="little"))
    return pa.Array.from_buffers(arrow, len(array), [validity, pa.py_buffer(values)])


def _values(
    name: str, array: np.ndarray[Any, Any], mask: Any
) -> tuple[pa.DataType, np.ndarray[Any, Any]]:
    """The Arrow type of an array of fixed width, and its values as Arrow lays them out."""
    kind = array.dtype.kind
    if kind == "b":
        return pa.bool_(), np.packbits(array, bitorder="little")
    if kind not in "mM":
        return pa.type_for_alias(array.dtype.name), array
    unit, _ = np.datetime_data(array.dtype)
    numbers = array.view(np.int64)
    if unit != "D":
        return (pa.timestamp(unit) if kind == "M" else pa.duration(unit)), numbers
    days = numbers.astype(np.int32)
    wrong = (days != numbers) & ~mask
    if wrong.any():
        row = int(wrong.argmax())
        raise _native.InvalidData(f"column {name!r}, row {row}: {array[row]} is no 32-bit date")
    return pa.date32(), days


def _strings(name: str, array: np.ndarray[Any, Any], mask: Any) -> pa.Array | pa.ChunkedArray:
    if array.dtype.kind == "U":
        longest = array.dtype.itemsize  # four bytes a character, the most that UTF-8 takes
    else:
        longest = 4 * max((len(value) for value in array if isinstance(value, str)), default=0)
    rows = (2**31 - 1) // max(longest, 1)  # that 32-bit offsets surely reach
    chunks = []
    for start in range(0, len(array), rows):
        builder = pa.lib.StringBuilder()
        end = min(start + rows, len(array))
        for at in range(start, end, _STRINGS_AT_ONCE):
            piece = slice(at, min(at + _STRINGS_AT_ONCE, end))
            values = array[piece].tolist()
            if mask is not None:
                for row in np.flatnonzero(mask[piece]):
                    values[row] = None
            try:
                builder.append_values(values)
            except (UnicodeError, TypeError, pa.ArrowException) as error:
                raise _native.InvalidData(f"column {name!r}: {error}") from error
        chunks.append(builder.finish())
    return chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks, pa.string())


def _known_unit(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Datetimes and timedeltas in a unit that Arrow has."""
    unit, step = np.datetime_data(array.dtype)
    if step == 1 and (unit in ("s", "ms", "us", "ns") or (unit == "D" and array.dtype.kind == "M")):
        return array
    if array.dtype.kind == "M" and unit in ("Y", "M", "W", "D"):
        return array.astype("datetime64[D]")
    if unit in ("h", "m", "W", "D"):
        return array.astype("datetime64[s]" if array.dtype.kind == "M" else "timedelta64[s]")
    if unit in ("s", "ms", "us", "ns"):
        return array.astype(f"{'datetime64' if array.dtype.kind == 'M' else 'timedelta64'}[{unit}]")
    raise _native.TypeMismatch(
        f"column {name!r} has the NumPy type {array.dtype}, for which there is no column type; "
        "convert it to one of the units s, ms, us, ns"
    )
