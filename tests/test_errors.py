"""What goes wrong has a type, a message that helps, and leaves the data that was there readable."""

from __future__ import annotations

import datetime as dt
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from insitu import col

BUILTINS = {
    "RegionNotFound": FileNotFoundError,
    "RegionExists": FileExistsError,
    "TableNotFound": KeyError,
    "UnknownColumn": KeyError,
    "RegionFull": MemoryError,
    "OutOfMemory": MemoryError,
    "Timeout": TimeoutError,
    "LeaseHeld": TimeoutError,
    "TypeMismatch": TypeError,
    "PermissionDenied": PermissionError,
    "Io": OSError,
    "Overflow": OverflowError,
    "Unsupported": NotImplementedError,
}


def exceptions() -> list[type[BaseException]]:
    everything = [getattr(ins, name) for name in ins.__all__]
    return [e for e in everything if isinstance(e, type) and issubclass(e, BaseException)]


@pytest.mark.parametrize("cls", exceptions(), ids=lambda cls: cls.__name__)
def test_the_tree(cls: type[BaseException]) -> None:
    assert issubclass(cls, ins.Error)
    assert cls.__module__ == "insitu"
    assert cls.__doc__
    if cls is not ins.Error:
        assert issubclass(cls, BUILTINS.get(cls.__name__, ValueError))
    message = 'no column named "x"'
    assert str(cls(message)) == message, "KeyError would print the repr"
    again = pickle.loads(pickle.dumps(cls(message)))
    assert type(again) is cls
    assert str(again) == message


def test_every_exception_of_the_design_is_there() -> None:
    names = """RegionFull RegionNotFound RegionExists RegionCorrupt VersionMismatch
        PermissionDenied ReadOnly SessionLimit TableLimit TableNotFound TableExists LeaseHeld
        Timeout Poisoned Stale InvalidData SchemaMismatch ShapeMismatch TypeMismatch UnknownColumn
        InvalidPlan InvalidArgument LimitExceeded CastFailed Overflow NotZeroCopy OutOfMemory
        Unsupported Cancelled Io Error""".split()
    assert sorted(cls.__name__ for cls in exceptions()) == sorted(names)


# Regions


def test_region_names(new_name: Any) -> None:
    name = new_name()
    with pytest.raises(ins.RegionNotFound, match=name):
        ins.open(name)
    with pytest.raises(FileNotFoundError):
        ins.remove(name)
    region = ins.create(name, capacity="16MiB")
    region.put("t", {"a": np.arange(3)})
    with pytest.raises(ins.RegionExists, match=name):
        ins.create(name)
    assert ins.create(name, if_exists="open")["t"]["a"].to_numpy().tolist() == [0, 1, 2]
    assert name in [record["name"] for record in ins.regions()]
    ins.remove(name)
    assert name not in [record["name"] for record in ins.regions()]
    assert region["t"]["a"].sum() == 3, "open users carry on"
    region.close()


def test_replacing_a_region(new_name: Any) -> None:
    name = new_name()
    old = ins.create(name, capacity="16MiB")
    old.put("t", {"a": np.arange(3)})
    new = ins.create(name, capacity="16MiB", if_exists="replace")
    assert new.names() == []
    assert old["t"]["a"].sum() == 3
    old.close()
    new.close()


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 201, "naïve", "a\0b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ins.InvalidArgument):
        ins.create(name)
    with pytest.raises((ins.InvalidArgument, ins.RegionNotFound)):
        ins.open(name)


def test_arguments_that_make_no_sense(tmp_path: Path, new_name: Any) -> None:
    for attempt in (
        lambda: ins.create(new_name(), path=tmp_path / "r"),
        lambda: ins.create(new_name(), if_exists="maybe"),  # type: ignore[arg-type]
        lambda: ins.create(new_name(), capacity="5 bananas"),
        lambda: ins.create(new_name(), capacity=0),
        ins.open,
        ins.remove,
        lambda: ins.open(fd=-1),
    ):
        with pytest.raises(ins.InvalidArgument):
            attempt()
    with pytest.raises(ins.Error):
        ins.open(fd=9999)
    for size in (-5, 2**64):
        with pytest.raises(ins.InvalidArgument, match=f"{size} is no size"):
            ins.create(new_name(), capacity=size)
    for wrong in (1.5, b"8GiB", [1]):
        with pytest.raises(ins.TypeMismatch, match="8GiB"):
            ins.create(new_name(), capacity=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "size"), [("16MiB", 16 << 20), ("20MB", 20_000_000), (1 << 24, 1 << 24)]
)
def test_capacities(text: str | int, size: int) -> None:
    with ins.create(capacity=text) as region:
        assert size <= region.capacity < size + 64 * 1024


@pytest.mark.parametrize(
    "damage",
    ["empty", "short", "text", "zeros", "cut", "half"],
)
def test_what_is_not_a_region(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "region"
    with ins.create(path=path, capacity="16MiB") as region:
        region.put("t", {"a": np.arange(1000)})
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    size = copy.stat().st_size
    match damage:
        case "empty":
            copy.write_bytes(b"")
        case "short":
            copy.write_bytes(path.read_bytes()[:100])
        case "text":
            copy.write_text("not a region\n" * 100_000)
        case "zeros":
            copy.write_bytes(bytes(1 << 20))
        case "cut":
            with copy.open("r+b") as file:
                file.truncate(4096)
        case "half":
            with copy.open("r+b") as file:
                file.truncate(size // 2)
    with pytest.raises(ins.RegionCorrupt) as caught:
        ins.open(path=copy)["t"].to_arrow()
    assert isinstance(caught.value, ValueError)
    with ins.open(path=path) as region:
        assert region["t"]["a"].sum() == 499_500


def test_another_version(tmp_path: Path) -> None:
    path = tmp_path / "region"
    with ins.create(path=path, capacity="16MiB") as region:
        region.put("t", {"a": np.arange(10)})
    raw = path.read_bytes()
    # The format version is the 32-bit word after the magic of eight bytes.
    (version,) = struct.unpack_from("<I", raw, 8)
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", version + 1))
    with pytest.raises(ins.VersionMismatch) as caught:
        ins.open(path=path)
    assert (caught.value.found, caught.value.expected) == (version + 1, version)
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", version))
    with ins.open(path=path) as region:
        assert region["t"]["a"].sum() == 45


def test_read_only(region: ins.Region, name: str, run: Any) -> None:
    region.put("t", {"a": np.arange(10)})
    said = run(
        """
        import json, sys
        import insitu as ins, numpy as np
        region = ins.open(sys.argv[1], read_only=True)
        refused = []
        for attempt in (lambda: region.put("u", {"a": np.arange(3)}),
                        lambda: region.__delitem__("t"), region.gc):
            try:
                attempt()
            except ins.ReadOnly:
                refused.append(True)
        print(json.dumps([refused, region.read_only, int(region["t"]["a"].to_numpy().sum())]))
        """,
        name,
    ).json()
    assert said == [[True] * 3, True, 45]


# Tables


def test_region_full(region: ins.Region) -> None:
    region.put("t", {"a": np.arange(10)})
    with pytest.raises(ins.RegionFull) as caught:
        region.put("big", {"a": np.zeros(40_000_000)})
    error = caught.value
    assert isinstance(error, MemoryError)
    assert error.capacity == region.capacity
    assert error.needed > error.free > 0
    assert error.cause
    assert "big" not in region
    assert region["t"]["a"].sum() == 45
    region.put("small", {"a": np.zeros(1000)})
    # A result that does not fit
    wide = region.put("wide", {"a": np.zeros(10_000_000)})
    with pytest.raises(ins.RegionFull):
        wide.select(**{f"c{i}": col("a") + i for i in range(5)}).collect("result")
    assert region.names() == ["small", "t", "wide"]
    assert region.verify().ok


def test_what_does_not_fit_leaks_nothing(region: ins.Region) -> None:
    before = region.stats()["used"]
    for _ in range(5):
        with pytest.raises(ins.RegionFull):
            region.put("big", {"a": np.zeros(20_000_000), "b": np.zeros(20_000_000)})
    region.gc()
    assert region.stats()["used"] == before


def test_table_names(region: ins.Region) -> None:
    region.put("flights", {"a": np.arange(3)})
    with pytest.raises(ins.TableNotFound, match='did you mean "flights"') as caught:
        region["fligths"]
    assert (caught.value.name, caught.value.nearest) == ("fligths", "flights")
    assert isinstance(caught.value, KeyError)
    with pytest.raises(ins.TableNotFound) as caught:
        region["weather"]
    assert caught.value.nearest is None
    with pytest.raises(ins.TableExists) as exists:
        region.put("flights", {"a": np.arange(4)})
    assert exists.value.name == "flights"
    with pytest.raises(ins.TableExists):
        region["flights"].select("a").collect("flights")
    assert len(region["flights"]) == 3
    assert len(region["flights"].select("a").limit(1).collect("flights", replace=True)) == 1
    with pytest.raises(ins.InvalidArgument):
        region.put("", {"a": np.arange(3)})
    with pytest.raises(ins.TableNotFound):
        del region["nothing"]


# Queries


@pytest.fixture
def table(region: ins.Region) -> ins.Table:
    return region.put(
        "t",
        pa.table(
            {
                "dep_delay": [1, None, 3],
                "name": ["x", "y", None],
                "flag": [True, False, None],
                "when": pa.array([0, 1, None], pa.timestamp("us")),
                "list": [[1], [2], None],
                "big": pa.array([2**62, 2**62, 2**62]),
                "small": pa.array([100, 100, 100], pa.int8()),
                "f": [1.5, 300.0, float("nan")],
            }
        ),
    )


def test_unknown_columns(table: ins.Table) -> None:
    for attempt in (
        lambda: table["dep_dela"],
        lambda: table.select("dep_dela").collect(),
        lambda: table.filter(col("dep_dela") > 0).collect(),
        lambda: table.group_by("dep_dela").agg(ins.len()).collect(),
        lambda: table.sort("dep_dela").schema,
        lambda: table.select(x=col("name")).select(col("dep_dela")).prepare(),
    ):
        with pytest.raises(ins.UnknownColumn) as caught:
            attempt()
        assert caught.value.name == "dep_dela"
    with pytest.raises(KeyError, match='did you mean "dep_delay"'):
        table["dep_dela"]


def test_types_that_do_not_go_together(table: ins.Table) -> None:
    for query, names in [
        (table.select(col("name") + 1), ["name", "utf8"]),
        (table.filter(col("dep_delay")), ["int64"]),
        (table.filter(col("name") > 5), ["name"]),
        (table.select(~col("name")), ["name", "utf8"]),
        (table.select(col("flag") & col("name")), ["name", "utf8"]),
        (table.select(col("dep_delay") & col("name")), ["dep_delay", "int64", "name", "utf8"]),
        (table.select(col("dep_delay") << 0.5), ["dep_delay", "int64", "float64"]),
        (table.select(col("name").sum()), ["name", "utf8"]),
        (table.select(col("when") * 2), ["when", "timestamp"]),
        (table.select(ins.when(col("flag")).then(1).otherwise("x")), []),
        (table.select(col("name").is_nan()), ["name"]),
        (table.filter(col("name").is_in([1, 2])), ["name"]),
    ]:
        with pytest.raises(ins.TypeMismatch) as caught:
            query.collect()
        for name in names:
            assert name in str(caught.value)


def test_types_that_are_stored_but_not_computed_on(table: ins.Table) -> None:
    for expr in [col("list") == 1, col("list").min()]:
        with pytest.raises((ins.Unsupported, ins.TypeMismatch), match="list"):
            table.select(expr).collect()


def test_plans_that_make_no_sense(table: ins.Table) -> None:
    for query in [
        table.select("f", f=col("dep_delay")),
        table.select("f", "f"),
        table.with_columns(col("f"), f=col("dep_delay")),
        table.group_by("name").agg(name=ins.len()),
        table.filter(col("f").sum() > 1),
        table.select(col("f").sum().mean()),
    ]:
        with pytest.raises(ins.InvalidPlan):
            query.collect()
    with pytest.raises(ins.InvalidPlan):
        table.select(ins.when(col("flag")))  # type: ignore[arg-type]
    with pytest.raises(ins.ShapeMismatch):
        table.sort("f", "name", descending=[True])
    with pytest.raises(ins.TypeMismatch):
        table.select(table["f"])  # type: ignore[arg-type]


def test_failing_casts_name_row_and_value(table: ins.Table) -> None:
    with pytest.raises(ins.CastFailed) as caught:
        table.select(col("f").cast("int8")).collect()
    error = caught.value
    assert (error.column, error.row, error.to) == ("f", 1, "int8") or error.row == 1
    assert "300" in error.value
    assert isinstance(error, ValueError)
    relaxed = table.select(col("f").cast("int8", strict=False)).to_arrow()
    assert relaxed["f"].to_pylist() == [1, None, None]


def test_overflow(table: ins.Table) -> None:
    with pytest.raises(ins.Overflow):
        table["big"].sum()
    with pytest.raises(OverflowError):
        table.select(col("small") + col("small")).collect(checked=True)
    wrapped = table.select(col("small") + col("small")).to_arrow()
    assert wrapped["small"].to_pylist() == [-56] * 3
    assert table.select(col("small").sum()).item() == 300


def test_prepared_queries(table: ins.Table, region: ins.Region) -> None:
    prepared = table.filter(col("dep_delay") > 1).select(n=ins.len()).prepare()
    assert prepared.run().item() == 1
    other = region.put("other", {"x": np.arange(3)})
    with pytest.raises(ins.SchemaMismatch):
        prepared.run(table=other)
    with pytest.raises(TypeError):
        prepared.run(table=5)  # type: ignore[arg-type]


def test_too_deep() -> None:
    def deep() -> Any:
        expr: Any = col("f")
        for _ in range(100_000):
            expr = expr + 1
        return expr

    with pytest.raises(ins.LimitExceeded):
        deep()


def test_expressions_have_no_truth() -> None:
    for attempt in (
        lambda: bool(col("a") > 1),
        lambda: col("a") > 1 and col("b") > 2,
        lambda: 1 < col("a") < 2,
        lambda: not col("a"),
    ):
        with pytest.raises(TypeError, match="is_between"):
            attempt()
    with pytest.raises(TypeError):
        hash(col("a"))


def test_what_is_no_literal() -> None:
    for value in [object(), b"bytes", 1j, dt.time(1), [1], {}, np.longdouble(1)]:
        with pytest.raises(ins.TypeMismatch):
            ins.lit(value)  # type: ignore[arg-type]
        with pytest.raises(ins.TypeMismatch):
            _ = col("a") == value
        with pytest.raises(ins.TypeMismatch):
            _ = value + col("a") if not isinstance(value, list) else col("a") + value
    with pytest.raises(ins.InvalidArgument):
        ins.lit(2**70)
    for bad in ["abc", 5, col("x")]:
        with pytest.raises(ins.TypeMismatch):
            col("a").is_in(bad)  # type: ignore[arg-type]
    for bad_type in ["nonsense", 5.5, object()]:
        with pytest.raises(ins.TypeMismatch):
            col("a").cast(bad_type)


# Pickling


def test_pickling_what_cannot_be(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(3)})
    for thing in (t.select("a"), t.select("a").prepare(), t["a"], col("a")):
        with pytest.raises(TypeError):
            pickle.dumps(thing)


def test_unpickling_what_is_gone(region: ins.Region) -> None:
    pickled = pickle.dumps(region.put("t", {"a": np.arange(3)}))
    assert pickle.loads(pickled)["a"].sum() == 3
    region["t"] = {"a": np.arange(4)}
    with pytest.raises(ins.Stale, match="replaced"):
        pickle.loads(pickled).to_arrow()
    del region["t"]
    with pytest.raises(ins.Stale, match="deleted"):
        pickle.loads(pickled).to_arrow()


def test_an_index_that_cannot_become_a_column(region: ins.Region) -> None:
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([3, 4], name="x"))
    with pytest.raises(ins.InvalidArgument, match="drop=True"):
        region.put("t", frame)
