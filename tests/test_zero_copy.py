"""Reading back copies nothing: the addresses of pyarrow's buffers, of NumPy's views and of the
region's mapping agree, in a process that did not write; and views outlive everything."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

ROWS = 100_000

READER = """
    import json, sys
    import insitu as ins, numpy as np, pyarrow as pa

    where, key = sys.argv[1:]
    region = ins.open(where) if key == "name" else ins.open(path=where)
    file = f"/dev/shm/insitu.{where}" if key == "name" else where
    t = region["t"]

    def mapped(address):
        '''Where in the region's file this address lies, and how it is protected.'''
        for line in open("/proc/self/maps"):
            span, mode, offset, *_, path = line.split(maxsplit=5)
            low, high = (int(x, 16) for x in span.split("-"))
            if low <= address < high and path.strip() == file:
                return int(offset, 16) + address - low, mode
        return None, None

    arrow = t.to_arrow()
    out = {}
    for name in t.columns:
        chunk = arrow[name].chunk(0)
        buffers = [b for b in chunk.buffers() if b is not None]
        out[name] = {"buffers": [
            [b.address, b.size, *mapped(b.address)] for b in buffers]}
        try:
            view = t[name].to_numpy()
        except ins.NotZeroCopy as error:
            out[name]["why"] = str(error)
            continue
        again = pa.array(view)
        out[name] |= {
            "numpy": view.ctypes.data,
            "arrow": chunk.buffers()[1].address,
            "writeable": view.flags.writeable,
            "sum": float(view.astype("f8").sum()),
            "dtype": str(view.dtype),
            "dict": t.to_arrow()[name].chunk(0).buffers()[1].address,
        }
    out["copies"] = region.stats()["copies"]
    print(json.dumps(out))
"""


def columns() -> dict[str, Any]:
    numbers = np.arange(ROWS)
    fixed = [*"i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split(), "M8[s]", "M8[ns]", "m8[us]"]
    return {
        **{kind: (numbers % 100).astype(kind) for kind in fixed},
        "text": pa.array([f"row {i}" for i in range(ROWS)]),
        "bits": pa.array(numbers % 2 == 0),
        "days": pa.array(numbers.astype("i4"), pa.date32()),
        "nulls": pa.array(numbers, mask=numbers % 7 == 0),
    }


@pytest.mark.parametrize("backing", ["name", "path"])
def test_addresses_agree_in_another_process(
    backing: str, name: str, tmp_path: Path, run: Callable[..., Any]
) -> None:
    where = name if backing == "name" else str(tmp_path / "region")
    place: Any = {backing: where}
    data = columns()
    with ins.create(**place, capacity="128MiB") as region:
        region.put("t", data)
        found = run(READER, where, backing).json()
    file = Path(f"/dev/shm/insitu.{where}" if backing == "name" else where)
    content = file.read_bytes()

    for column in data:
        for _, size, offset, mode in found[column]["buffers"]:
            assert offset is not None, f"{column}: a buffer is not in the region"
            assert offset % 64 == 0, f"{column}: not aligned"
            assert mode.startswith("r--"), f"{column}: exported from a writable mapping"
            assert size <= len(content)
    for column, values in data.items():
        if isinstance(values, np.ndarray):
            seen = found[column]
            assert seen["numpy"] == seen["arrow"] == seen["dict"], column
            assert not seen["writeable"], column
            assert seen["dtype"] == str(values.dtype)
            assert seen["sum"] == values.astype("f8").sum()
            offset = seen["buffers"][-1][2]
            assert content[offset : offset + values.nbytes] == values.tobytes(), column
    assert found["copies"] == 0
    assert "strings" in found["text"]["why"]
    assert "bits" in found["bits"]["why"]
    assert "days" in found["days"]["why"]
    assert "null" in found["nulls"]["why"]
    assert all("copy=True" in found[c]["why"] for c in ["text", "bits", "days", "nulls"])


@pytest.mark.parametrize("how", ["ctypes", "numpy"])
def test_writing_to_a_view_cannot_change_the_region(
    how: str, region: ins.Region, name: str, run: Callable[..., Any]
) -> None:
    region.put("t", {"a": np.arange(1000)})
    done = run(
        """
        import ctypes, sys
        import insitu as ins
        view = ins.open(sys.argv[1])["t"]["a"].to_numpy()
        if sys.argv[2] == "ctypes":
            ctypes.memset(view.ctypes.data, 255, 8)
        else:
            for attempt in (
                lambda: view.__setitem__(0, 1),
                lambda: setattr(view.flags, "writeable", True),
                lambda: view.setflags(write=True),
                lambda: view.sort(),
            ):
                try:
                    attempt()
                except ValueError:
                    print("refused")
        """,
        name,
        how,
    )
    if how == "ctypes":
        assert done.code == -11, "a stray write must fault"
    else:
        assert done.output.split() == ["refused"] * 4, done.errors
    assert region["t"]["a"].to_numpy()[0] == 0


def test_views_outlive_close_delete_and_replace(any_region: ins.Region) -> None:
    expected = np.arange(ROWS)
    t = any_region.put("t", {"a": expected, "f": expected / 2})
    column = t["a"]
    view, arrow, frame = column.to_numpy(), t.to_arrow(), t.select("f").to_arrow()
    part = view[10:20]
    any_region["t"] = {"a": expected[::-1]}
    del any_region["t"]
    del t, column
    gc.collect()
    any_region.gc()
    any_region.put("other", {"a": np.zeros(ROWS * 4)})
    assert (view == expected).all()
    any_region.close()
    del any_region
    gc.collect()
    assert (view == expected).all()
    assert arrow["f"].to_pylist() == (expected / 2).tolist()
    assert frame["f"].chunk(0)[ROWS - 1].as_py() == (ROWS - 1) / 2
    del view
    gc.collect()
    assert part.tolist() == list(range(10, 20))


def test_memory_comes_back_when_the_last_view_goes(region: ins.Region) -> None:
    before = region.stats()["used"]
    t = region.put("t", {"a": np.arange(1_000_000)})
    view = t["a"].to_numpy()
    del region["t"], t
    region.gc()
    assert region.stats()["used"] >= before + 8_000_000
    del view
    gc.collect()
    region.gc()
    assert region.stats()["used"] == before


def test_a_closed_region_is_stale(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(3)})
    query = t.select("a")
    prepared = query.prepare()
    region.close()
    region.close()
    assert region.closed
    for attempt in (
        region.names,
        region.gc,
        region.stats,
        region.leases,
        lambda: region["t"],
        lambda: region.put("u", {"a": np.arange(3)}),
        lambda: t["a"].to_numpy(),
        t.to_arrow,
        query.collect,
        prepared.run,
    ):
        with pytest.raises(ins.Stale):
            attempt()
    assert "closed" in repr(region)


def test_results_are_views_too(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(ROWS), "b": np.arange(ROWS) * 0.5})
    result = t.with_columns(c=ins.col("a") * 2).collect()
    assert result["a"].to_numpy().ctypes.data == t["a"].to_numpy().ctypes.data
    assert result.to_arrow()["c"].chunk(0).buffers()[1].address == (
        result["c"].to_numpy().ctypes.data
    )
    assert result["c"].to_numpy().ctypes.data % 64 == 0
    projected = t.select("b").collect()
    assert projected["b"].to_numpy().ctypes.data == t["b"].to_numpy().ctypes.data


def test_to_numpy_copies_when_asked(region: ins.Region) -> None:
    t = region.put(
        "t",
        pa.table(
            {
                "i": pa.array([1, None, 3]),
                "f": pa.array([1.0, None, np.nan]),
                "b": pa.array([True, None, False]),
                "s": pa.array(["x", None, "z"]),
                "d": pa.array([0, None, 2], pa.date32()),
                "z": pa.array([0, None, 2], pa.timestamp("us", "Europe/Berlin")),
                "full": pa.array([1, 2, 3]),
            }
        ),
    )
    for column in "ifbsdz":
        with pytest.raises(ins.NotZeroCopy, match=f'"{column}"'):
            t[column].to_numpy()
    np.testing.assert_array_equal(t["i"].to_numpy(copy=True), [1, np.nan, 3])
    assert t["i"].to_numpy(copy=True, fill=-1).tolist() == [1, -1, 3]
    assert t["i"].to_numpy(copy=True, fill=-1).dtype == np.int64
    assert t["b"].to_numpy(copy=True, fill=False).tolist() == [True, False, False]
    assert t["s"].to_numpy(copy=True).tolist() == ["x", None, "z"]
    assert t["d"].to_numpy(copy=True).dtype == np.dtype("M8[D]")
    assert np.isnat(t["z"].to_numpy(copy=True)[1])
    with pytest.raises(ins.TypeMismatch):
        t["i"].to_numpy(copy=True, fill="many")
    own = t["full"].to_numpy(copy=True)
    own[0] = 99
    assert t["full"].to_numpy().tolist() == [1, 2, 3]
    assert t["full"].to_numpy(copy=None).ctypes.data == t["full"].to_numpy().ctypes.data
    copies = region.stats()["copies"]
    t["i"].to_numpy(copy=None)
    assert region.stats()["copies"] == copies + 1


def test_several_chunks_are_no_view(region: ins.Region) -> None:
    chunks = pa.chunked_array([[1, 2], [3]])
    t = region.put("t", pa.table({"a": chunks}))
    # put joins chunks, so that a view is there
    assert t["a"].num_chunks == 1
    assert t["a"].to_numpy().tolist() == [1, 2, 3]


def test_a_requested_type_is_cast_to_or_refused(region: ins.Region) -> None:
    t = region.put("t", pa.table({"n": [1, None, 300], "s": ["1", "x", None]}))
    wide = pa.schema({"n": pa.float64(), "s": pa.large_string()})
    assert pa.table(t, schema=wide).to_pydict() == {"n": [1, None, 300], "s": ["1", "x", None]}
    # Nothing turns null on the way.
    for narrow in ({"n": pa.int8(), "s": pa.string()}, {"n": pa.int64(), "s": pa.int64()}):
        with pytest.raises(pa.ArrowInvalid):
            pa.table(t, schema=pa.schema(narrow))
    with pytest.raises(pa.ArrowInvalid):
        pa.chunked_array(t["s"], pa.int64())
    with pytest.raises(ins.CastFailed):
        t["n"].__arrow_c_array__(pa.int8().__arrow_c_schema__())
    assert pa.array(t["n"], pa.int32()).to_pylist() == [1, None, 300]


def test_numpy_protocol(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(4), "f": np.array([1.5, 2.5, np.nan, 0])})
    assert np.asarray(t["a"]).ctypes.data == t["a"].to_numpy().ctypes.data
    assert np.array(t["a"], copy=True).flags.writeable
    assert np.asarray(t["a"], dtype="f4").dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        np.array(t["a"], dtype="f4", copy=False)
    assert np.nansum(t["f"]) == 4
    assert {k: v.tolist() for k, v in t.select("a").to_numpy().items()} == {"a": [0, 1, 2, 3]}


def test_empty_columns_are_views(region: ins.Region) -> None:
    t = region.put("t", {"a": np.array([], "f8"), "t": np.array([], "M8[us]")})
    for column, dtype in [("a", "f8"), ("t", "M8[us]")]:
        view = t[column].to_numpy()
        assert (view.shape, view.dtype, view.flags.writeable) == ((0,), np.dtype(dtype), False)


def test_pandas_and_arrow_share(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(ROWS, dtype="f8")})
    address = t["a"].to_numpy().ctypes.data
    frame: pd.DataFrame = t.to_pandas(zero_copy_only=True, split_blocks=True)
    assert frame["a"].to_numpy().ctypes.data == address
    assert t["a"].to_arrow().chunk(0).buffers()[1].address == address
    assert pa.array(t["a"]).buffers()[1].address == address


def test_handles_of_one_region_share(name: str, region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(ROWS)})
    for k, source in enumerate([ins.open(name), ins.open(name, read_only=True)]):
        again = region.put(f"again {k}", source["t"])
        assert again["a"].to_numpy().ctypes.data == t["a"].to_numpy().ctypes.data
    assert region.stats()["copies"] == 0
