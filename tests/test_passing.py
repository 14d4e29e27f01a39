"""Handles travel: pickled to pools of workers and back, with a name or without; and waiting for
what others publish."""

from __future__ import annotations

import copy
import gc
import multiprocessing as mp
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col

from conftest import ROWS, TOTAL, end_grace
from tasks import doubled, name_it, narrowed, summed, tickets, total_of

PATIENCE = 60


MAKERS = [doubled, narrowed, summed]


@pytest.mark.parametrize("make", MAKERS)
def test_results_travel_within_a_process(tidy: ins.Region, make: Any) -> None:
    result = make(tidy["t"])
    expected = total_of(result)
    pickled = pickle.dumps(result)
    assert len(pickled) < 500
    assert tickets(tidy) == 1
    again = pickle.loads(pickled)
    assert tickets(tidy) == 0
    assert again.name is None
    assert again.schema == result.schema
    del result
    assert total_of(again) == expected
    assert again.select(x=col("a") + 1).to_arrow().num_rows == len(again)
    # What was received can be sent on, and named without a copy.
    copies = tidy.stats()["copies"]
    third = pickle.loads(pickle.dumps(again))
    named = tidy.put("named", third)
    del again, third
    assert total_of(named) == expected
    assert tidy.stats()["copies"] == copies


def test_only_small_results_are_copied(tidy: ins.Region) -> None:
    for make, copied in [(doubled, 0), (narrowed, 0), (summed, 1)]:
        result = make(tidy["t"])
        before = tidy.stats()["copies"]
        passes = [pickle.dumps(result) for _ in range(3)]
        # However often it is sent.
        assert tidy.stats()["copies"] == before + copied, make.__name__
        assert [total_of(pickle.loads(p)) for p in passes] == [total_of(result)] * 3


def test_a_result_waits_as_often_as_it_was_sent(tidy: ins.Region) -> None:
    result = doubled(tidy["t"])
    first, second = pickle.dumps(result), pickle.dumps(result)
    [record] = [r for r in tidy.leases() if r["kind"] == "ticket"]
    assert record["pid"] == os.getpid()
    assert record["what"].startswith("tests/test_passing.py:")
    assert abs(record["since"] - time.time()) < PATIENCE
    assert not record["current"]
    del result
    tidy.gc()
    kept = pickle.loads(first)
    # Once, also while somebody has it: it must not use up what was sent to another.
    for _ in range(3):
        with pytest.raises(ins.Stale, match="received before"):
            total_of(pickle.loads(first))
    assert tickets(tidy) == 1
    assert total_of(pickle.loads(second)) == total_of(kept) == 2 * TOTAL
    assert tickets(tidy) == 0
    del kept
    for pickled in (first, second):
        with pytest.raises(ins.Stale, match="received before"):
            total_of(pickle.loads(pickled))


@pytest.mark.parametrize("make", MAKERS)
def test_a_result_can_be_sent_any_number_of_times(tidy: ins.Region, make: Any) -> None:
    result = make(tidy["t"])
    expected = total_of(result)
    passes = [pickle.dumps(result) for _ in range(200)]
    del result
    assert [total_of(pickle.loads(p)) for p in reversed(passes)] == [expected] * 200


SENDER = """
    import os, pickle, signal, sys
    import insitu as ins
    name, how = sys.argv[1:]
    with ins.open(name) as region:
        result = region["t"].select(a=ins.col("a") * 2).collect()
        print(*(pickle.dumps(result).hex() for _ in range(3)), flush=True)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "cut short":
            os._exit(0)
"""


@pytest.mark.parametrize("how", ["killed", "cut short", "orderly"])
def test_a_result_outlives_its_sender(
    tidy: ins.Region, name: str, run: Callable[..., Any], how: str
) -> None:
    sender = run(SENDER, name, how)
    first, second, third = (bytes.fromhex(text) for text in sender.output.split())
    kept = pickle.loads(first)
    # Whoever sweeps the dead leaves what they have sent.
    for _ in range(2):
        tidy.gc()
        assert tidy.stats()["sessions"] == 1
        [record] = [r for r in tidy.leases() if r["kind"] == "ticket"]
        assert record["pid"] != os.getpid()
        assert "ended" in record["what"]
        assert abs(record["since"] - time.time()) < PATIENCE
        assert tidy.verify().ok
    # Others come and go meanwhile, in the same place as the sender.
    others = run(SENDER, name, how).output.split()
    assert total_of(pickle.loads(second)) == total_of(kept) == 2 * TOTAL
    assert [total_of(pickle.loads(bytes.fromhex(text))) for text in others] == [2 * TOTAL] * 3
    # When its time is over, it goes with the next `gc`.
    del kept
    tidy.gc()
    assert tickets(tidy) == 1
    end_grace(name)
    tidy.gc()
    with pytest.raises(ins.Stale, match="more than 60 seconds"):
        total_of(pickle.loads(third))


def test_copies_of_a_handle_are_the_handle(tidy: ins.Region) -> None:
    for table in (tidy["t"], doubled(tidy["t"])):
        assert copy.copy(table) is table
        assert copy.deepcopy({"x": [table]})["x"][0] is table
    assert tickets(tidy) == 0


def test_regions_and_tables_travel_together(tidy: ins.Region) -> None:
    with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
        result = doubled(tidy["t"])
        named = pool.submit(name_it, tidy, result, "theirs").result(PATIENCE)
        assert named.name == "theirs"
        assert total_of(tidy["theirs"]) == total_of(named) == 2 * TOTAL


def test_files_hold_what_travels(tmp_path: Path) -> None:
    with ins.create(path=tmp_path / "region", capacity="16MiB") as region:
        t = region.put("t", {"a": np.arange(ROWS)})
        with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
            result = pool.submit(doubled, t).result(PATIENCE)
            assert total_of(result) == 2 * TOTAL
            assert pool.submit(total_of, result).result(PATIENCE) == 2 * TOTAL


def test_a_handle_is_found_as_long_as_somebody_has_the_table(tidy: ins.Region) -> None:
    old = tidy.put("u", {"a": np.arange(3)})
    pickled = pickle.dumps(old)
    tidy["u"] = {"a": np.arange(4)}
    assert total_of(pickle.loads(pickled)) == 3
    assert len(pickle.loads(pickled).latest()) == 4
    del old
    with pytest.raises(ins.Stale, match="replaced"):
        total_of(pickle.loads(pickled))
    del tidy["u"]
    with pytest.raises(ins.Stale, match="deleted"):
        total_of(pickle.loads(pickled))


def test_a_handle_of_before_an_append_has_the_rows_of_before(tidy: ins.Region) -> None:
    old = tidy.put("u", {"a": np.arange(3)})
    pickled = pickle.dumps(old)
    old.append({"a": np.arange(3, 10)})
    there = pickle.loads(pickled)
    assert (len(there), len(there.latest())) == (3, 10)


def test_another_region_of_the_name_is_not_the_region(new_name: Callable[[], str]) -> None:
    name = new_name()
    with ins.create(name, capacity="8MiB") as region:
        pickled = pickle.dumps(region.put("t", {"a": np.arange(3)}))
        result = pickle.dumps(region["t"].select(col("a").sum()).collect())
    ins.remove(name)
    gc.collect()
    for what in (pickled, result):
        with pytest.raises(ins.RegionNotFound):
            total_of(pickle.loads(what))
    with ins.create(name, capacity="8MiB") as region:
        region.put("t", {"a": np.arange(3)})
        for what in (pickled, result):
            with pytest.raises(ins.Stale, match="another one has its name"):
                total_of(pickle.loads(what))


# Handles of what cannot be had say so when they are used.


def lost_one(region: ins.Region) -> ins.Table:
    """The handle of a table that is gone."""
    pickled = pickle.dumps(region.put("gone", {"a": np.arange(3)}))
    del region["gone"]
    return pickle.loads(pickled)


USES: dict[str, Callable[[ins.Region, ins.Table], Any]] = {
    **{
        name: lambda _, t, name=name: getattr(t, name)
        for name in ("name", "schema", "columns", "shape", "num_rows", "nbytes")
    },
    **{
        name: lambda _, t, name=name: getattr(t, name)()
        for name in (
            *("head", "latest", "exclusive", "writable", "repair", "item", "filter", "select"),
            *("with_columns", "group_by", "sort", "to_arrow", "to_pandas", "to_polars"),
            *("to_numpy", "__arrow_c_stream__", "__arrow_c_schema__"),
        )
    },
    "len": lambda _, t: len(t),
    "bool": lambda _, t: bool(t),
    "column": lambda _, t: t["a"],
    "in": lambda _, t: "a" in t,
    "limit": lambda _, t: t.limit(3),
    "slice": lambda _, t: t.slice(1, 2),
    "append": lambda _, t: t.append({"a": np.arange(3)}),
    "update": lambda _, t: t.update(a=1),
    "explain_update": lambda _, t: t.explain_update(a=1),
    "put": lambda region, t: region.put("u", t),
    "set": lambda region, t: region.__setitem__("u", t),
    "wait": lambda region, t: region.wait("t", newer_than=t),
    "appended": lambda region, t: region["t"].append(t),
    "run": lambda region, t: region["t"].select("a").prepare().run(table=t),
    "pyarrow": lambda _, t: pa.table(t),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_whoever_uses_the_handle_of_what_is_gone_is_told(
    region: ins.Region, use: Callable[[ins.Region, ins.Table], Any]
) -> None:
    region.put("t", {"a": np.arange(3)})
    lost = lost_one(region)
    for _ in range(2):
        with pytest.raises(ins.Stale, match='"gone" that was sent is gone: it was deleted'):
            use(region, lost)
    assert region.names() == ["t"]


def test_every_member_of_a_table_is_tried() -> None:
    shown = {"_repr_html_"}
    members = {name for name in vars(ins.Table) if not name.startswith("__")} - shown
    assert members <= USES.keys()


def test_the_handle_of_what_is_gone_can_be_shown_and_sent_on(region: ins.Region) -> None:
    lost = lost_one(region)
    said = 'Table "gone", which cannot be used: .*it was deleted'
    assert re.match(said, repr(lost))
    assert "it was deleted" in lost._repr_html_()
    assert copy.copy(lost) is copy.deepcopy(lost) is lost
    again = pickle.loads(pickle.dumps(lost))
    assert repr(again) == repr(lost)
    assert pickle.dumps(again) == pickle.dumps(lost)
    result = pickle.dumps(region.put("t", {"a": np.arange(3)}).select(col("a") * 2).collect())
    pickle.loads(result)
    assert re.match("Anonymous table, which .*received before", repr(pickle.loads(result)))


def test_a_handle_that_passes_through_where_it_means_nothing(run: Callable[..., Any]) -> None:
    script = """
        import pickle, sys
        lost = pickle.loads(bytes.fromhex(sys.argv[1]))
        print(pickle.dumps(lost).hex())
    """
    with ins.create(capacity="16MiB") as region:
        t = region.put("t", {"a": np.arange(ROWS)})
        for thing in (t, doubled(t), region):
            done = run(script, pickle.dumps(thing).hex())
            again = pickle.loads(bytes.fromhex(done.output))
            assert repr(again) == repr(thing), done.errors


def test_the_handle_of_a_region_that_is_gone(new_name: Callable[[], str]) -> None:
    name = new_name()
    with ins.create(name, capacity="8MiB") as region:
        pickled = pickle.dumps(region)
    ins.remove(name)
    lost = pickle.loads(pickled)
    assert re.match(f'Region "{name}", which cannot be used: .*create it', repr(lost))
    uses: list[Callable[[], Any]] = [
        lambda: lost["t"],
        lambda: lost.put("t", {"a": np.arange(3)}),
        lambda: lost.build("t", {"a": "int64"}),
        lambda: lost.wait("t"),
        lambda: lost.__enter__(),
        lambda: "t" in lost,
        lambda: len(lost),
        lambda: list(lost),
        lost.names,
        lost.stats,
        lost.verify,
        lost.gc,
        lost.trim,
        lost.leases,
        lost.flush,
        lost.fileno,
        *(
            lambda member=member: getattr(lost, member)
            for member in ("name", "path", "capacity", "read_only", "closed")
        ),
    ]
    for use in uses:
        with pytest.raises(ins.RegionNotFound):
            use()
    lost.close()
    ins.create(name, capacity="8MiB")
    assert pickle.loads(pickle.dumps(lost)).names() == []


@pytest.mark.parametrize("arguments", [(), (1, 2, 3), ("x", None, 1, "t", (1, 2))])
def test_a_pickle_of_garbage_is_an_error(arguments: tuple[Any, ...]) -> None:
    [receive, _] = ins.create(capacity="8MiB").put("t", {"a": np.arange(3)}).__reduce__()
    with pytest.raises((TypeError, ValueError)):
        receive(*arguments)


def test_what_is_unpickled_shares_one_handle(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(ROWS)})
    tables = [pickle.loads(pickle.dumps(t)) for _ in range(50)]
    before = region.stats()["used"]
    # Each handle on a region keeps some memory for small results.
    assert {table.select(col("a").sum()).item() for table in tables} == {TOTAL}
    assert region.stats()["used"] - before <= 256 << 10
    region.close()
    assert total_of(tables[0]) == TOTAL


# Anonymous regions.


def test_anonymous_regions_travel_to_who_has_them(run: Callable[..., Any]) -> None:
    with ins.create(capacity="16MiB") as region:
        t = region.put("t", {"a": np.arange(ROWS)})
        things = [pickle.dumps(thing) for thing in (t, doubled(t), region)]
        named, result, whole = map(pickle.loads, things)
        assert (total_of(named), total_of(result)) == (TOTAL, 2 * TOTAL)
        assert whole.names() == ["t"]
        script = """
            import pickle, sys
            import insitu as ins
            fd, named, result = sys.argv[1:]
            for pickled in (named, result):
                lost = pickle.loads(bytes.fromhex(pickled))
                assert "name the region" in repr(lost)
                try:
                    lost.num_rows
                except ins.Unsupported as error:
                    assert "name the region" in str(error)
                else:
                    raise SystemExit("found without the region")
            region = ins.open(fd=int(fd))
            totals = [pickle.loads(bytes.fromhex(p))["a"].to_numpy().sum() for p in (named, result)]
            print(*totals)
        """
        fd = region.fileno()
        arguments = [pickle.dumps(thing).hex() for thing in (t, doubled(t))]
        done = run(script, fd, *arguments, pass_fds=[fd])
        assert done.output.split() == [str(TOTAL), str(2 * TOTAL)], done.errors


# Waiting.

WAITER = """
    import sys, time
    import insitu as ins
    region = ins.open(sys.argv[1])
    seen = None
    print("ready", flush=True)
    for _ in range(int(sys.argv[2])):
        seen = region.wait("news", newer_than=seen, timeout=30)
        print(seen["a"].to_numpy()[0], flush=True)
"""


def test_waiting_for_another_process(region: ins.Region, name: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WAITER), name, "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiter:
        assert waiter.stdout
        assert waiter.stdout.readline() == "ready\n"
        for i in range(20):
            region.put("news", {"a": np.array([i])}, replace=True)
            assert waiter.stdout.readline() == f"{i}\n"
        assert waiter.wait(PATIENCE) == 0


def test_waiting_for_a_name(region: ins.Region) -> None:
    with pytest.raises(ins.Timeout, match="nobody has published"):
        region.wait("t", timeout=0.05)
    with pytest.raises(TimeoutError):
        region.wait("t", timeout=0)
    t = region.put("t", {"a": np.arange(3)})
    assert region.wait("t")["a"].sum() == 3
    assert region.wait("t", timeout=0).name == "t"
    with pytest.raises(ins.Timeout):
        region.wait("t", newer_than=t, timeout=0.05)


def test_waiting_for_what_is_newer(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(3)})
    region["t"] = {"a": np.arange(4)}
    newer = region.wait("t", newer_than=t, timeout=0)
    assert len(newer) == 4
    with pytest.raises(ins.Timeout):
        region.wait("t", newer_than=newer, timeout=0.01)
    newer.append({"a": np.arange(5)})
    appended = region.wait("t", newer_than=newer, timeout=0)
    assert len(appended) == 9
    del region["t"]
    with pytest.raises(ins.Timeout):
        region.wait("t", newer_than=appended, timeout=0.01)
    region["t"] = {"a": np.arange(1)}
    assert len(region.wait("t", newer_than=appended, timeout=0)) == 1
    assert len(appended.latest()) == 1


def test_what_cannot_be_waited_for(region: ins.Region, new_name: Callable[[], str]) -> None:
    t = region.put("t", {"a": np.arange(3)})
    with ins.create(new_name(), capacity="8MiB") as other:
        there = other.put("t", {"a": np.arange(3)})
        with pytest.raises(ins.InvalidArgument, match="another region"):
            region.wait("t", newer_than=there)
    with pytest.raises(ins.InvalidArgument, match="without a name"):
        region.wait("t", newer_than=t.select("a").collect())
    for timeout in (-1, float("nan"), -0.001):
        with pytest.raises(ins.InvalidArgument):
            region.wait("t", newer_than=t, timeout=timeout)
    with pytest.raises(TypeError):
        region.wait("t", newer_than="t")  # type: ignore[arg-type]
    assert region.wait("t", timeout=float("inf")).name == "t"
    assert region.wait("t", timeout=1e300).name == "t"
    region.close()
    with pytest.raises(ins.Stale):
        region.wait("t")


def test_waiting_ends_when_the_region_is_closed(region: ins.Region) -> None:
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            region.wait("never")
        except ins.Error as error:
            ended.append(type(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    region.close()
    waiter.join(PATIENCE)
    assert ended == [ins.Stale]


def test_others_run_while_one_waits(region: ins.Region) -> None:
    seen: list[int] = []
    waiter = threading.Thread(target=lambda: seen.append(len(region.wait("t", timeout=30))))
    waiter.start()
    for i in range(100):
        region.put(f"other {i}", {"a": np.arange(3)})
    assert seen == []
    region.put("t", {"a": np.arange(7)})
    waiter.join(PATIENCE)
    assert seen == [7]


def test_ctrl_c_ends_a_wait(region: ins.Region, name: str) -> None:
    script = """
        import sys
        import insitu as ins
        region = ins.open(sys.argv[1])
        try:
            print("ready", flush=True)
            region.wait("never")
        except KeyboardInterrupt:
            print("interrupted", region.names(), flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    # It waits by now; if not, it is interrupted as it begins to.
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=PATIENCE)
    assert said == "interrupted []\n", errors


# What else a name can meet.


def test_if_exists(name: str) -> None:
    region = ins.create(name, capacity="8MiB")
    region.put("t", {"a": np.arange(3)})
    with pytest.raises(ins.RegionExists):
        ins.create(name, capacity="8MiB")
    again = ins.create(name, capacity="16MiB", if_exists="open")
    assert again.names() == ["t"]
    assert again.capacity == region.capacity
    assert again.stats()["sessions"] == 1
    view = again["t"]["a"].to_numpy()
    fresh = ins.create(name, capacity="16MiB", if_exists="replace")
    assert fresh.names() == []
    assert fresh.capacity == 16 << 20
    # Who has the old one open carries on.
    assert region.names() == ["t"]
    region.put("u", {"a": np.arange(3)})
    assert view.sum() == 3
    assert ins.open(name).names() == []
    with pytest.raises(ins.InvalidArgument, match="if_exists"):
        ins.create(name, if_exists="append")  # type: ignore[arg-type]


def create_or_open(name: str) -> int:
    region = ins.create(name, capacity="8MiB", if_exists="open")
    region.put(f"by {os.getpid()}", {"a": np.arange(3)}, replace=True)
    time.sleep(0.1)
    return len(region)


def test_racing_creators_meet_in_one_region(name: str) -> None:
    with ProcessPoolExecutor(4, mp_context=mp.get_context("spawn")) as pool:
        list(pool.map(create_or_open, [name] * 12))
    with ins.open(name) as region:
        assert 1 <= len(region) <= 4
        assert region.verify().ok


def test_ephemeral_regions_outlive_all_but_the_last(
    new_name: Callable[[], str], run: Callable[..., Any]
) -> None:
    name = new_name()
    script = """
        import os, sys
        import insitu as ins
        region = ins.open(sys.argv[1])
        print(len(region), flush=True)
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), 9)
    """
    region = ins.create(name, capacity="8MiB", ephemeral=True)
    region.put("t", {"a": np.arange(3)})
    for how in ("kill", "end"):
        assert run(script, name, how).output == "1\n"
        assert name in [record["name"] for record in ins.regions()]
    view = region["t"]["a"].to_numpy()
    region.close()
    # A view is a session, too.
    assert name in [record["name"] for record in ins.regions()]
    assert view.sum() == 3
    del view
    gc.collect()
    assert name not in [record["name"] for record in ins.regions()]
