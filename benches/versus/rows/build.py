"""Ten float64 columns computed by NumPy: into a private array, or where other processes can open
them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..floor import aligned
from ..harness import Contestant, Row
from ..setting import Setting
from .put import COLUMNS


def rows(setting: Setting) -> Iterator[Row]:
    rows = setting.rows - setting.rows % 8
    source = setting.random(6).random(rows)
    kept = aligned(COLUMNS * rows, 1.0).reshape(COLUMNS, rows)

    def fill(columns: np.ndarray) -> np.ndarray:
        for number, column in enumerate(columns):
            np.add(source, float(number), out=column)
        return columns

    contestants = [
        Contestant(
            "NumPy: fill a new private array",
            lambda: fill(np.empty((COLUMNS, rows))),
            lambda a: a.sum(axis=1),
        ),
        Contestant(
            "NumPy: fill a kept private array, warm", lambda: fill(kept), lambda a: a.sum(axis=1)
        ),
    ]
    if setting.insitu:
        contestants[:0] = _insitu(setting, source)
    yield Row(
        "build",
        f"fill {kept.nbytes / 1e6:,.0f} MB by NumPy ({COLUMNS} columns), to be published or not",
        contestants,
        bytes=COLUMNS * rows * 8 * 2,
        note="NumPy has one thread. insitu's columns are published with statistics at the end.",
    )


def _insitu(setting: Setting, source: np.ndarray) -> list[Contestant]:
    warm, other = setting.region, setting.another()
    schema = {f"c{number}": "float64" for number in range(COLUMNS)}

    def build(region):
        with region.build("build", schema, rows=len(source), replace=True) as b:
            for number in range(COLUMNS):
                np.add(source, float(number), out=b[f"c{number}"])
        return b.table

    def sums(table):
        return np.array([table[name].sum() for name in schema])

    build(warm)  # replacing needs both copies warm: this one, the check's

    def cold():
        if "build" in other:
            del other["build"]
        other.trim()

    return [
        Contestant("insitu: build and fill, warm", lambda: build(warm), sums),
        Contestant(
            "insitu: build and fill, cold", lambda: build(other), sums, before=cold, once=True
        ),
    ]
