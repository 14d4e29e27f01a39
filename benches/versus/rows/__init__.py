"""One file per job; each has `rows(setting)`, which yields what to measure."""

from . import (
    build,
    groups,
    handles,
    opening,
    polynomial,
    put,
    q6,
    reductions,
    small,
    tables,
    update,
)

ALL = {
    "polynomial": polynomial.rows,
    "q6": q6.rows,
    "reductions": reductions.rows,
    "groups": groups.rows,
    "small": small.rows,
    "update": update.rows,
    "put": put.rows,
    "build": build.rows,
    "open": opening.rows,
    "handles": handles.rows,
    "tables": tables.rows,
}
