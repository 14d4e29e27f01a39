"""One file per job; each has `rows(setting)`, which yields what to measure."""

from . import groups, opening, polynomial, put, q6, small, update

ALL = {
    "polynomial": polynomial.rows,
    "q6": q6.rows,
    "groups": groups.rows,
    "small": small.rows,
    "update": update.rows,
    "put": put.rows,
    "open": opening.rows,
}
