"""Filters whose results are written past the cache, packed in pieces, beside NumPy and pyarrow."""

import insitu as ins
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

# Float64 alone is beyond the size from which that is done.
ROWS = 3_000_017


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(23)
    wide = rng.normal(size=ROWS)
    return pa.table(
        {
            "key": rng.integers(0, 1000, ROWS).astype(np.int16),
            "wide": wide,
            "holes": pa.array(wide, mask=rng.random(ROWS) < 0.2),
            "four": rng.integers(-9, 9, ROWS).astype(np.int32),
            "one": rng.integers(-9, 9, ROWS).astype(np.int8),
            "bits": rng.random(ROWS) < 0.5,
        }
    )


@pytest.mark.parametrize("least", [0, 1, 100, 999, 1000])
@pytest.mark.parametrize("chunk", [ROWS, 700_001])
def test_the_rows_are_those_of_pyarrow(region, columns, least, chunk):
    given = pa.Table.from_batches(columns.to_batches(max_chunksize=chunk))
    table = region.put("t", given)
    expected = columns.filter(pc.greater_equal(columns["key"], least))
    found = pa.table(table.filter(ins.col("key") >= least).collect())
    found.validate(full=True)
    assert found.combine_chunks().equals(expected.combine_chunks())


def test_the_rows_of_a_slice_and_of_what_is_computed(region, columns):
    table = region.put("t", columns)
    part = columns.slice(65_600, ROWS - 70_000)
    query = table.select(["key", "wide"]).slice(65_600, ROWS - 70_000).filter(ins.col("key") < 950)
    found = query.select("wide", double=ins.col("wide") * 2).collect()
    expected = part["wide"].to_numpy()[part["key"].to_numpy() < 950]
    np.testing.assert_array_equal(found["wide"].to_numpy(), expected)
    np.testing.assert_array_equal(found["double"].to_numpy(), expected * 2)


def test_the_same_bits_at_any_number_of_threads(region, columns):
    table = region.put("t", columns)
    query = table.filter(ins.col("key") % 7 != 3)
    before = ins.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 7):
            ins.set_num_threads(threads)
            results.append(pa.table(query.collect()))
    finally:
        ins.set_num_threads(before)
    assert results[0].equals(results[1])
    assert results[0].equals(results[2])
