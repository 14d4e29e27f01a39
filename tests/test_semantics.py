"""docs/semantics.md is what the libraries say."""

from __future__ import annotations

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col

NUMBERS = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMBERS += ["float32", "float64"]


def test_the_document_is_current() -> None:
    pytest.importorskip("polars")
    import semantics

    assert semantics.DOCUMENT.read_text() == semantics.generate(), "run python tests/semantics.py"


@pytest.mark.parametrize("left", NUMBERS)
@pytest.mark.parametrize("right", NUMBERS)
def test_numbers_promote_as_in_numpy(region: ins.Region, left: str, right: str) -> None:
    one = pa.array([1])
    t = region.put("t", pa.table({"a": one.cast(left), "b": one.cast(right)}))
    expected = np.result_type(np.dtype(left), np.dtype(right))
    if left == right == "bool":
        expected = np.dtype("int64")
    wanted = pa.from_numpy_dtype(expected)
    coalesced = pa.bool_() if left == right == "bool" else wanted
    for expr, kind in [
        (col("a") + col("b"), wanted),
        (col("a") * col("b"), wanted),
        (ins.sum_horizontal("a", "b"), wanted),
        (ins.max_horizontal("a", "b"), coalesced),
        (ins.coalesce("a", "b"), coalesced),
        (col("a").fill_null(col("b")), coalesced),
        (ins.when(col("a") == 1).then(col("a")).otherwise(col("b")), coalesced),
    ]:
        assert t.select(r=expr).schema.field("r").type == kind, repr(expr)
    if wanted != pa.float64() and not pa.types.is_floating(wanted):
        query = t.select(r=col("a") & col("b"))
        assert query.schema.field("r").type == coalesced
