"""One file per job; each has `rows(setting)`, which yields what to measure."""

from . import (
    black_scholes,
    build,
    cached,
    evaluate,
    filters,
    groups,
    handles,
    opening,
    polynomial,
    put,
    q6,
    reductions,
    running,
    small,
    tables,
    update,
)

ALL = {
    "polynomial": polynomial.rows,
    "cached": cached.rows,
    "black-scholes": black_scholes.rows,
    "evaluate": evaluate.rows,
    "q6": q6.rows,
    "filter": filters.rows,
    "reductions": reductions.rows,
    "running": running.rows,
    "groups": groups.rows,
    "small": small.rows,
    "update": update.rows,
    "put": put.rows,
    "build": build.rows,
    "open": opening.rows,
    "handles": handles.rows,
    "tables": tables.rows,
}
