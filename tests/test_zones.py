"""Filters pass over zones by their statistics; these follow every change of the table."""

from __future__ import annotations

import re

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col

ZONE = 65_536
ROWS = 5 * ZONE + 100


@pytest.fixture
def region():
    with ins.create(capacity="256MiB") as region:
        yield region


def skipped(query) -> int:
    found = re.search(r"skipped by statistics: (\d+) rows", query.explain(analyze=True))
    return int(found.group(1)) if found else 0


def test_zones_are_passed_over(region):
    t = region.put("t", {"x": np.arange(ROWS), "y": np.arange(ROWS) * 0.5})
    for predicate, zones, rows in [
        (col("x") >= 5 * ZONE, 5 * ZONE, 100),
        (col("x") < ZONE, ROWS - ZONE, ZONE),
        (col("y") < 10, ROWS - ZONE, 20),
        (col("x").is_between(ZONE, ZONE + 5), ROWS - ZONE, 6),
        ((col("x") == 3) | (col("x") == 2 * ZONE), ROWS - 2 * ZONE, 2),
        (col("x") < 0, ROWS, 0),
        (col("x") != 0, 0, ROWS - 1),
        (col("x") + 1 < 0, 0, 0),
    ]:
        query = t.filter(predicate)
        assert skipped(query) == zones
        assert query.select(n=ins.len()).item() == query.collect().num_rows == rows
    prepared = t.filter(col("x") >= ins.param("least")).select(col("x").sum()).prepare()
    for least in (0, ZONE, 4 * ZONE + 7, ROWS):
        assert prepared.run(least=least).item() == int(np.arange(least, ROWS).sum())


def test_updates_are_followed(region):
    x = np.arange(ROWS)
    t = region.put("t", {"x": x, "y": x * 0.5})
    big = t.filter(col("x") >= 10**6).select(n=ins.len()).prepare()
    assert big.run().item() == 0
    t.update(x=col("x") + 10**6, where=col("x") < 10, in_place=True)
    assert big.run().item() == 10
    t.update(x=col("x") - 10**6, where=col("x") >= 10**6, atomic=True)
    assert big.run().item() == 0
    with t.writable() as w:
        w["x"][3 * ZONE :] += 10**6
    assert big.run().item() == ROWS - 3 * ZONE
    with t.exclusive() as held:
        held.update(x=col("x") * 0)
        assert t.filter(col("x") > 0).select(n=ins.len()).item() == 0
        held.update(x=col("x") + 7)
        assert t.filter(col("x") > 0).select(n=ins.len()).item() == ROWS
    assert t.filter(col("x") == 7).select(n=ins.len()).item() == ROWS


def test_revisions_and_chunks(region):
    t = region.put("t", {"x": np.arange(ROWS)})
    for k in range(1, 6):
        t = t.append(pa.table({"x": np.arange(1000) + k * 10**6}))
        for least in (10**6, k * 10**6, k * 10**6 + 500, 10 * 10**6):
            n = t.filter(col("x") >= least).select(n=ins.len()).item()
            assert n == sum(max(0, min(1000, j * 10**6 + 1000 - least)) for j in range(1, k + 1))
    assert skipped(t.filter(col("x") >= 10**6)) == ROWS


def test_nulls_and_nan(region):
    x = np.arange(ROWS) * 1.0
    x[ZONE : 2 * ZONE] = np.nan
    mask = np.zeros(ROWS, bool)
    mask[2 * ZONE : 3 * ZONE] = True
    t = region.put("t", pa.table({"x": pa.array(x, mask=mask)}))
    valid = ~mask
    for predicate, expected in [
        (col("x") > 0, (x > 0) & valid),
        (col("x") != 0, (x != 0) & valid),
        (col("x") == 5, (x == 5) & valid),
        (col("x").is_nan(), np.isnan(x) & valid),
        (col("x").is_null(), mask),
        (col("x").fill_null(-1) < 0, mask),
        (~(col("x") >= 0), ~(x >= 0) & valid),
    ]:
        assert t.filter(predicate).select(n=ins.len()).item() == int(expected.sum())
    assert skipped(t.filter(col("x") > 0)) == ZONE
