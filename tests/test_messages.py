"""What errors say: what was asked, what is the case, and what to do, in words that work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col, lit, when


def test_a_poisoned_table_names_who_did_it_and_the_ways_out(
    region: ins.Region, name: str, poison: Callable[[str], int]
) -> None:
    t = region.put("t", {"a": np.arange(100_000)})
    for attempt in (lambda: t["a"].to_numpy(), lambda: t.update(a=1), lambda: t.append({"a": [1]})):
        pid = poison("t")
        # Before and after somebody has taken over from the dead.
        for _ in range(2):
            with pytest.raises(ins.Poisoned) as caught:
                attempt()
            text = str(caught.value)
            assert f"process {pid}" in text
            assert "<string>:5 writable" in text
            assert "begun" in text
            assert "repair()" in text
            assert "replace=True" in text
            assert "delete" in text
            assert (caught.value.name, caught.value.pid) == ("t", pid)
            assert caught.value.what == "<string>:5 writable"
            assert caught.value.since is not None
        with ins.open(name, read_only=True) as reader, pytest.raises(ins.Poisoned, match=f"{pid}"):
            reader["t"].to_arrow()
        t.repair()
        assert region.stats()["poisoned"] == 0
        assert len(t["a"].to_numpy()) == 100_000
    poison("t")
    region.put("t", {"a": np.arange(3)}, replace=True)
    assert region["t"]["a"].sum() == 3
    poison("t")
    del region["t"]
    assert "t" not in region


def test_one_who_stands_in_its_own_way_is_told(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(10)})
    own = r"this thread has the table \"t\" open"
    with t.exclusive(), pytest.raises(ins.LeaseHeld, match=own) as caught, t.exclusive():
        pass
    assert "tests/test_messages.py" in str(caught.value)
    assert "exclusive" in str(caught.value)
    with t.writable() as w:
        w["a"][0] = 7
        for attempt in (
            t.exclusive().__enter__,
            t.writable().__enter__,
            lambda: t.update(a=1),
            lambda: t["a"].to_numpy(),
            lambda: t.append({"a": [1]}),
        ):
            with pytest.raises(ins.LeaseHeld, match=own) as caught:
                attempt()
            text = str(caught.value)
            assert "writable" in text
            assert "end that block first" in text
            assert f"process {os.getpid()}" not in text
    view = t["a"].to_numpy()
    with pytest.raises(ins.LeaseHeld, match=r"this process .* reads it.*drop that first"):
        t.writable().__enter__()
    del view


def test_another_thread_is_named_as_one_of_this_process(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(10)})
    said = []

    def read() -> None:
        try:
            t.exclusive(timeout=0).__enter__()
        except ins.LeaseHeld as error:
            said.append(str(error))

    with t.exclusive():
        worker = threading.Thread(target=read)
        worker.start()
        worker.join()
    assert len(said) == 1
    assert f"this process ({os.getpid()}) has it exclusively" in said[0]
    assert "wait longer" in said[0]


def test_a_full_region_says_who_keeps_what(region: ins.Region) -> None:
    old = region.put("t", {"a": np.zeros(20_000_000)})
    line = "tests/test_messages.py"
    region.put("t", {"a": np.zeros(3)}, replace=True)
    with pytest.raises(ins.RegionFull) as caught:
        region.put("u", {"a": np.zeros(20_000_000)})
    assert caught.value.cause == "pins"
    text = str(caught.value)
    assert f'process {os.getpid()} keeps what was "t", 152.' in text
    assert line in text
    assert "insitu leases" in text
    del old
    region.put("u", {"a": np.zeros(20_000_000)})
    with pytest.raises(ins.RegionFull) as caught:
        region.put("v", {"a": np.zeros(20_000_000)})
    assert caught.value.cause == "capacity"
    assert "more capacity" in str(caught.value)
    assert "pins" not in str(caught.value)


def test_a_region_of_no_tables_is_refused(new_name: Callable[[], str]) -> None:
    for tables in (0, -1, 2**24 + 1, 2**32, 2**70):
        with pytest.raises(ins.InvalidArgument, match="max_tables"):
            ins.create(new_name(), capacity="16MiB", max_tables=tables)
    with pytest.raises(ins.TypeMismatch, match="max_tables"):
        ins.create(new_name(), max_tables="many")  # type: ignore[arg-type]


def test_too_many_tables(new_name: Callable[[], str]) -> None:
    with ins.create(new_name(), capacity="16MiB", max_tables=2) as region:
        t = region.put("t", {"a": np.arange(3)})
        region.put("u", {"a": np.arange(3)})
        for attempt in (
            lambda: region.put("v", {"a": np.arange(3)}),
            lambda: region.put("u", {"a": np.arange(3)}, replace=True),
            lambda: t.append({"a": [1]}),
        ):
            with pytest.raises(ins.TableLimit, match=r"replace or append .* max_tables"):
                attempt()


def test_hints_can_be_typed(region: ins.Region) -> None:
    t = region.put("t", {"n": np.arange(3), "at": pa.array([0, 1, 2], pa.timestamp("us", "UTC"))})
    with pytest.raises(ins.TypeMismatch) as caught:
        t.update(n=when(lit(True)).then(col("n") * 1.5).otherwise(None))
    hint = str(caught.value).split("write ")[1].split(", or make")[0]
    eval(f"t.update(n={hint})")  # what a user would do with it
    assert t["n"].to_numpy()[0] == 0
    with pytest.raises(ins.TypeMismatch) as caught:
        t.update(at=col("n"))
    assert '.cast("timestamp[us, UTC]")' in str(caught.value)
    eval(repr(col("n").cast("timestamp[us, UTC]")))
    eval(repr(col("n").cast("timestamp[us, tz=Europe/Berlin]", strict=False)))
    with pytest.raises(ins.TypeMismatch, match=r"where=col\(\"n\"\) > 0"):
        t.update(n=1, where="n")  # type: ignore[arg-type]
    with pytest.raises(ins.TableExists, match="replace=True"):
        region.put("t", {"n": [1]})
    with pytest.raises(ins.CastFailed, match="strict=False"):
        t.select((col("n") * 1000 + 999).cast("int8")).collect()


def test_taken_and_missing_places(new_name: Callable[[], str], tmp_path: Path) -> None:
    name = new_name()
    with ins.create(name, capacity="1MiB"):
        with pytest.raises(ins.RegionExists, match=r'if_exists="open".*if_exists="replace"'):
            ins.create(name)
    for read_only in (False, True):
        with pytest.raises(ins.RegionCorrupt, match="is a directory"):
            ins.open(path=tmp_path, read_only=read_only)
        other = tmp_path / "notes.txt"
        other.write_text("no region" * 1000)
        with pytest.raises(ins.RegionCorrupt, match=r"not a healthy region: .*notes\.txt: .*begin"):
            ins.open(path=other, read_only=read_only)
        other.write_text("")
        with pytest.raises(ins.RegionCorrupt, match=r"not a healthy region: .*notes\.txt is empty"):
            ins.open(path=other, read_only=read_only)
    for capacity in ("1MiB", None):
        with pytest.raises(OSError, match=r"the directory .*nodir does not exist") as caught:
            ins.create(path=tmp_path / "nodir" / "x", capacity=capacity)
        assert isinstance(caught.value, ins.Error)
        with pytest.raises(OSError, match=r"notes\.txt is no directory") as caught:
            ins.create(path=tmp_path / "notes.txt" / "x", capacity=capacity)
        assert isinstance(caught.value, ins.Error)
    for dots in (".", ".."):
        for attempt in (ins.create, ins.open, ins.remove):
            with pytest.raises(ins.InvalidArgument, match="name"):
                attempt(dots)
    for small in ("10", 10, "1KiB", 65_535):
        with pytest.raises(ins.InvalidArgument, match=r"64 KiB.*unit"):
            ins.create(new_name(), capacity=small)
    with ins.create(capacity=65_537) as region:
        assert region.capacity == 131_072


def wrong_calls(region: ins.Region) -> list[tuple[type[ins.Error], Callable[[], object]]]:
    """Calls with arguments of other kinds than they take."""
    t = region["t"]
    q = t.filter(col("a") > 1)
    any_: Any = ins
    calls: list[tuple[type[ins.Error], Callable[[], object]]] = []
    wrong: Any
    for wrong in (5, None, b"t", ["t"]):
        calls += [
            (ins.TypeMismatch, lambda wrong=wrong: region.put(wrong, {"a": [1]})),
            (ins.TypeMismatch, lambda wrong=wrong: region.build(wrong, {"a": "int64"})),
            (ins.TypeMismatch, lambda wrong=wrong: region[wrong]),
            (ins.TypeMismatch, lambda wrong=wrong: region.__setitem__(wrong, {"a": [1]})),
            (ins.TypeMismatch, lambda wrong=wrong: region.__delitem__(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: region.wait(wrong, timeout=0)),
            (ins.TypeMismatch, lambda wrong=wrong: col(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: ins.param(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: col("a").alias(wrong)),
        ]
    for wrong in ("3", 1.5, [3]):
        calls += [
            (ins.TypeMismatch, lambda wrong=wrong: t.head(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.limit(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: q.limit(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.slice(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.slice(0, wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: q.slice(0, wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: region.build("b", {"a": "int64"}, rows=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: ins.open(fd=wrong)),
        ]
    for wrong in (-1, 2**64, 2**200):
        calls += [
            (ins.InvalidArgument, lambda wrong=wrong: t.head(wrong)),
            (ins.InvalidArgument, lambda wrong=wrong: q.limit(wrong)),
            (ins.InvalidArgument, lambda wrong=wrong: t.slice(0, wrong)),
            (ins.InvalidArgument, lambda wrong=wrong: region.build("b", {"a": "i8"}, rows=wrong)),
            (ins.InvalidArgument, lambda wrong=wrong: ins.open(fd=wrong)),
        ]
    for wrong in ("5", [5], np.arange(3)):
        calls += [
            (ins.TypeMismatch, lambda wrong=wrong: t.exclusive(timeout=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.writable(timeout=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.update(a=1, timeout=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: region.wait("t", timeout=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: region.wait("t", newer_than=wrong)),
        ]
    for wrong in (1, "yes", None):
        calls += [
            (ins.TypeMismatch, lambda wrong=wrong: region.put("t", {"a": [1]}, replace=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: q.collect("r", replace=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: q.collect(checked=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.update(a=1, in_place=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.sort("a", descending=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: t.sort("a", nulls_last=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: any_.open(region.name, read_only=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: any_.create("x", ephemeral=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: col("a").cast("int8", strict=wrong)),
        ]
    for wrong in (5, b"x"):
        calls += [
            (ins.TypeMismatch, lambda wrong=wrong: any_.create(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: any_.open(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: any_.remove(wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: any_.create(if_exists=wrong)),
            (ins.TypeMismatch, lambda wrong=wrong: q.collect(wrong)),
        ]
    calls += [
        (ins.TypeMismatch, lambda: any_.open(path=5)),
        (ins.TypeMismatch, lambda: any_.create(path=[1])),
        (ins.TypeMismatch, lambda: t["a"].to_numpy(copy="yes")),  # type: ignore[arg-type]
        (ins.InvalidArgument, lambda: region["\ud800"]),
        (ins.InvalidArgument, lambda: col("\ud800")),
        (ins.InvalidArgument, lambda: t.select("\ud800")),
        (ins.InvalidArgument, lambda: col("a") == "\ud800"),
        (ins.InvalidArgument, lambda: t.slice(2**63)),
        (ins.InvalidArgument, lambda: t.slice(-(2**64))),
    ]
    return calls


def test_arguments_of_another_kind_are_errors_of_the_package(region: ins.Region) -> None:
    region.put("t", {"a": np.arange(5)})
    for number, (error, call) in enumerate(wrong_calls(region)):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error, (number, caught.value)
        assert len(str(caught.value)) > 10
    with region["t"].writable() as w:
        for wrong in (5, None):
            with pytest.raises(ins.TypeMismatch, match="a name"):
                w[wrong]  # type: ignore[index]
    with region.build("b", {"a": "int64"}, rows=1) as b:
        with pytest.raises(ins.TypeMismatch, match="a name"):
            b.validity(5)  # type: ignore[arg-type]
        b["a"] = 1
    # What NumPy and others have for these is taken.
    t = region["t"]
    assert len(t.head(np.int64(2))) == 2
    assert len(t.slice(np.int8(-2)).collect()) == 2
    assert len(t.sort("a", descending=np.bool_(True)).collect()) == 5
    with t.exclusive(timeout=np.float32(1)):
        pass
