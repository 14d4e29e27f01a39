"""Arrow data in shared memory, computed where it lies, read back without a copy.

One process writes::

    import insitu as ins
    from insitu import col

    region = ins.create("market", capacity="8GiB")
    region.put("ticks", data)              # pyarrow, pandas, Polars, DuckDB, or a dict of arrays

Any other process computes and reads::

    region = ins.open("market")
    ticks = region["ticks"]                # microseconds, whatever its size
    ticks.filter(col("size") > 20).group_by("symbol").agg(col("price").mean()).to_arrow()
    ticks["price"].to_numpy()              # a read-only view of the shared bytes

A region lives until ``ins.remove("market")``. Every exception is an ``ins.Error``.
"""

from insitu._evaluate import (
    evaluate,
    get_num_threads,
    re_evaluate,
    set_num_threads,
    validate,
)
from insitu._native import (
    Builder,
    Cancelled,
    CastFailed,
    Column,
    Error,
    Exclusive,
    Expr,
    GroupBy,
    InvalidArgument,
    InvalidData,
    InvalidPlan,
    Io,
    LeaseHeld,
    LimitExceeded,
    NotZeroCopy,
    OutOfMemory,
    Overflow,
    PermissionDenied,
    Poisoned,
    Prepared,
    Query,
    ReadOnly,
    Region,
    RegionCorrupt,
    RegionExists,
    RegionFull,
    RegionNotFound,
    Report,
    SchemaMismatch,
    SessionLimit,
    ShapeMismatch,
    Stale,
    Table,
    TableExists,
    TableLimit,
    TableNotFound,
    Then,
    Timeout,
    TypeMismatch,
    UnknownColumn,
    Unsupported,
    VersionMismatch,
    When,
    Writable,
    __version__,
    all_horizontal,
    any_horizontal,
    coalesce,
    col,
    create,
    len,  # noqa: A004, F401 (as in Polars)
    lit,
    max_horizontal,
    mean_horizontal,
    min_horizontal,
    open,  # noqa: A004, F401 (as the built-in opens a file)
    param,
    regions,
    remove,
    sum_horizontal,
    when,
)

# Without `len` and `open`: `from insitu import *` leaves the built-ins what they are. They are
# `ins.len` and `ins.open`.
__all__ = [
    "Builder",
    "Cancelled",
    "CastFailed",
    "Column",
    "Error",
    "Exclusive",
    "Expr",
    "GroupBy",
    "InvalidArgument",
    "InvalidData",
    "InvalidPlan",
    "Io",
    "LeaseHeld",
    "LimitExceeded",
    "NotZeroCopy",
    "OutOfMemory",
    "Overflow",
    "PermissionDenied",
    "Poisoned",
    "Prepared",
    "Query",
    "ReadOnly",
    "Region",
    "RegionCorrupt",
    "RegionExists",
    "RegionFull",
    "RegionNotFound",
    "Report",
    "SchemaMismatch",
    "SessionLimit",
    "ShapeMismatch",
    "Stale",
    "Table",
    "TableExists",
    "TableLimit",
    "TableNotFound",
    "Then",
    "Timeout",
    "TypeMismatch",
    "UnknownColumn",
    "Unsupported",
    "VersionMismatch",
    "When",
    "Writable",
    "__version__",
    "all_horizontal",
    "any_horizontal",
    "coalesce",
    "col",
    "create",
    "evaluate",
    "get_num_threads",
    "lit",
    "max_horizontal",
    "mean_horizontal",
    "min_horizontal",
    "param",
    "re_evaluate",
    "regions",
    "remove",
    "set_num_threads",
    "sum_horizontal",
    "validate",
    "when",
]
