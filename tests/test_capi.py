"""The C face by cffi, with the client that is the example: tables that C has put are the package's,
in this process and in others, at the same time, and the other way round."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "include" / "insitu.h"
BUILT = [ROOT / "target" / kind / "libinsitu_capi.so" for kind in ("release", "debug")]
ROWS = 100_000


def example() -> ModuleType:
    file = ROOT / "examples" / "market_cffi.py"
    spec = importlib.util.spec_from_file_location("market_cffi", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library() -> str:
    given = os.environ.get("INSITU_CAPI")
    found = [given] if given else [str(file) for file in BUILT if file.exists()]
    if not found:
        why = "the C face is not built: make target/release/libinsitu_capi.so"
        assert "INSITU_FORBID_SKIPS" not in os.environ, why
        pytest.skip(why)
    return found[0]


@pytest.fixture(scope="module")
def market() -> ModuleType:
    return example()


@pytest.fixture(scope="module")
def c(market: ModuleType) -> Any:
    return market.Library(library(), HEADER)


@pytest.fixture
def opened(c: Any, region: ins.Region, name: str) -> Iterator[Any]:
    """The region of the fixture `region`, as C has it open."""
    handle = c.make("Region", "region_open", c.text(name), 0)
    yield handle
    c("region_release", handle)


def data() -> pa.Table:
    return pa.table(
        {
            "price": 100.0 + np.arange(ROWS) % 7,
            "size": np.arange(ROWS) % 1000,
            "side": pa.array([None if i % 5 == 0 else "ab"[i % 2] for i in range(ROWS)]),
        }
    )


def test_what_c_has_put_the_package_reads_and_updates(
    c: Any, opened: Any, region: ins.Region, name: str, run: Callable[..., Any]
) -> None:
    table = c.put(opened, "trades", data())
    mine = region["trades"]
    assert mine.to_arrow() == data()
    assert c.read(table) == data()
    script = """
    import json, sys
    import insitu as ins
    from insitu import col
    t = ins.open(sys.argv[1])["trades"]
    t.update(price=col("price") + 1, where=col("size") < 500)
    print(json.dumps(t.select(col("price").sum()).item()))
    """
    price, size = data()["price"].to_numpy(), data()["size"].to_numpy()
    expected = np.where(size < 500, price + 1, price)
    assert run(script, name).json() == expected.sum()
    # The handles of both have followed.
    assert np.array_equal(c.read(table)["price"].to_numpy(), expected)
    assert np.array_equal(mine["price"].to_numpy(), expected)
    c("table_release", table)


def test_what_the_package_has_put_c_computes_on(c: Any, opened: Any, region: ins.Region) -> None:
    region.put("trades", data())
    table = c.make("Table", "table_open", opened, c.text("trades"))
    plan = c.plan("sum(price * size) AS turnover, len()", "size >= $least and side == $side")
    result = c.make("Table", "query", table, plan, c.options({"least": 500, "side": "b"}))
    asked = region["trades"].filter((col("size") >= 500) & (col("side") == "b"))
    same = asked.select(turnover=(col("price") * col("size")).sum(), len=ins.len())
    assert c.read(result) == same.to_arrow()
    named = c.make("Table", "table_publish", opened, c.text("turnover"), result, c.ffi.NULL)
    assert region["turnover"].to_arrow() == same.to_arrow()
    for handle in (table, result, named):
        c("table_release", handle)
    c("plan_release", plan)


def test_arrays_are_the_regions_own_memory(c: Any, opened: Any) -> None:
    table = c.put(opened, "trades", data())
    first, second = c.read(table), c.read(table)
    for name in ("price", "size", "side"):
        for one, two in zip(
            first[name].chunk(0).buffers(), second[name].chunk(0).buffers(), strict=True
        ):
            assert (one is None) == (two is None)
            assert one is None or one.address == two.address
    c("table_release", table)
    del one, two, second
    assert first["price"][3].as_py() == 103.0


def test_leases_hold_between_the_faces(
    c: Any, market: ModuleType, opened: Any, region: ins.Region
) -> None:
    table = c.put(opened, "trades", data())
    exclusive = c.options(flags=c.lib.INSITU_FLAG_EXCLUSIVE)
    shown = region["trades"].to_arrow()
    with pytest.raises(market.Failure, match=str(os.getpid())) as refused:
        c.make("Lease", "table_lease", table, exclusive)
    assert refused.value.status == c.lib.INSITU_LEASE_HELD
    del shown
    gc.collect()
    lease = c.make("Lease", "table_lease", table, exclusive)
    with pytest.raises(ins.LeaseHeld):
        region["trades"].update(size=col("size") + 1, in_place=True, timeout=0.01)
    c("lease_release", lease)
    region["trades"].update(size=col("size") + 1, in_place=True)
    assert c.read(table)["size"][0].as_py() == 1
    c("table_release", table)


def test_formulas_are_computed_over_arrays_of_numpy(c: Any, market: ModuleType) -> None:
    formula = c.make("Formula", "formula_parse", c.text("where(a > 0.5, a * b, -1)"))
    values = {"a": np.random.default_rng(5).random(ROWS), "b": np.arange(ROWS, dtype=np.int32)}
    types = {"a": c.lib.INSITU_TYPE_FLOAT64, "b": c.lib.INSITU_TYPE_INT32}
    names = {name: c.text(name) for name in values}
    operands = c.ffi.new("InsituArray[]", len(values))
    for operand, (name, array) in zip(operands, values.items(), strict=True):
        operand.name, operand.type = names[name], types[name]
        operand.data = c.ffi.cast("void *", array.ctypes.data)
    out = np.empty(ROWS)
    result = c.ffi.new("InsituArray *")
    c("formula_type", formula, operands, 2, c.ffi.addressof(result[0], "type"))
    assert result.type == c.lib.INSITU_TYPE_FLOAT64
    result.data = c.ffi.cast("void *", out.ctypes.data)
    c("formula_evaluate", formula, operands, 2, ROWS, result, c.ffi.NULL)
    assert np.array_equal(out, ins.evaluate("where(a > 0.5, a * b, -1)", **values))
    operands[0].data += 4
    with pytest.raises(market.Failure, match="not a multiple of 8"):
        c("formula_evaluate", formula, operands, 2, ROWS, result, c.ffi.NULL)
    c("formula_release", formula)


def test_a_forked_child_has_handles_of_its_own(c: Any, opened: Any) -> None:
    table = c.put(opened, "trades", data())
    plan = c.plan("sum(size)")
    prepared = c.make("Prepared", "prepare", table, plan)
    none = c.ffi.new("InsituTable *")[0]
    total = int(data()["size"].to_numpy().sum())

    def works() -> bool:
        result = c.make("Table", "prepared_run", prepared, none, c.ffi.NULL)
        value = c.ffi.new("InsituScalar *")
        c("table_value", result, value)
        c("table_release", result)
        return bool(value.number.i64 == total)

    # Other threads are in the midst of calls when the process forks.
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            works()

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if works() and c.read(table).num_rows == ROWS:
                    c("prepared_release", prepared)
                    c("table_release", table)
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert works()
    c("prepared_release", prepared)
    c("plan_release", plan)
    c("table_release", table)


def test_random_numbers_are_no_handles(c: Any, market: ModuleType) -> None:
    draw = random.Random(9)
    stream = c.ffi.new("struct ArrowArrayStream *")
    for _ in range(2_000):
        number = draw.getrandbits(draw.choice((8, 32, 60, 64)))
        handle = c.ffi.new("InsituTable *", {"id": number or 1})[0]
        with pytest.raises(market.Failure) as refused:
            c("table_export", handle, c.ffi.NULL, stream)
        assert refused.value.status in (c.lib.INSITU_INVALID_ARGUMENT, c.lib.INSITU_STALE)


def test_ctypes_will_do() -> None:
    lib = ctypes.CDLL(library())
    lib.insitu_version.restype = ctypes.c_char_p
    assert lib.insitu_version().decode() == ins.__version__


def test_the_example_runs() -> None:
    command = [sys.executable, str(ROOT / "examples" / "market_cffi.py"), library(), str(HEADER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'no table named "trade"; did you mean "trades"?'
