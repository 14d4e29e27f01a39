"""Forked children: what they inherit works, and each process gives back its own share only."""

from __future__ import annotations

import concurrent.futures
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import insitu as ins
import joblib
import numpy as np
import pyarrow as pa
import pytest
from insitu import col

PATIENCE = 60
"""Seconds after which what should have happened counts as not happening."""


class Child:
    """A forked child that runs a function, and meets its parent where it says so."""

    def __init__(self, work: Callable[[Child], None]) -> None:
        self._go, self._ready = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid != 0:
            os.close(self._go[0])
            os.close(self._ready[1])
            return
        status = 1
        try:
            os.close(self._go[1])
            os.close(self._ready[0])
            signal.alarm(PATIENCE)
            work(self)
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)

    def meet(self) -> None:
        """In the child: says that it is ready, and waits to be told to go on."""
        os.write(self._ready[1], b"r")
        os.read(self._go[0], 1)

    def ready(self) -> None:
        assert os.read(self._ready[0], 1) == b"r", "the child failed"

    def go_on(self) -> None:
        os.write(self._go[1], b"g")

    def end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._go[1])
        os.close(self._ready[0])
        return os.waitstatus_to_exitcode(status)

    def passes(self) -> None:
        assert self.end() == 0


def refill(region: ins.Region) -> None:
    """Writes over all memory that nobody holds."""
    region.gc()
    junk = np.full(1 << 17, 0xEE, dtype=np.uint8)
    names = []
    try:
        while True:
            names.append(f"junk {len(names)}")
            region.put(names[-1], {"junk": junk})
    except ins.RegionFull:
        names.pop()
    for name in names:
        del region[name]


def used_by_tables(region: ins.Region) -> int:
    """The bytes in use, once what the dead left is reclaimed."""
    region.gc()
    report = region.verify()
    assert report.ok, report.problems
    return region.stats()["used"]


@pytest.fixture(params=["shm", "file", "memfd"])
def small_region(request: pytest.FixtureRequest, new_name: Callable[[], str], tmp_path: Any) -> Any:
    """A region of each kind, small enough to be filled."""
    match request.param:
        case "shm":
            region = ins.create(new_name(), capacity="8MiB")
        case "file":
            region = ins.create(path=tmp_path / "region", capacity="8MiB")
        case _:
            region = ins.create(capacity="8MiB")
    yield region
    region.close()


def test_a_childs_views_stay_whatever_the_parent_does(small_region: ins.Region) -> None:
    region = small_region
    a = np.arange(100_000)
    t = region.put("t", {"a": a, "s": np.array(["x", "yy"] * 50_000)})
    view, batches = t["a"].to_numpy(), t.to_arrow()
    large = t.select(b=col("a") * 2).collect()
    small = [t.select((col("a") + i).sum()).collect() for i in range(50)]
    sums = [int(r.to_arrow()[0][0].as_py()) for r in small]
    small_views = [r.to_arrow() for r in small]

    def work(child: Child) -> None:
        child.meet()
        np.testing.assert_array_equal(view, a)
        assert batches["a"].to_numpy().sum() == a.sum()
        assert batches["s"][99_999].as_py() == "yy"
        np.testing.assert_array_equal(large["b"].to_numpy(), a * 2)
        for r, shown, total in zip(small, small_views, sums, strict=True):
            assert shown[0][0].as_py() == total
            assert r.to_arrow()[0][0].as_py() == total
        # What a child makes of what it inherited.
        assert t.select(col("a").sum()).item() == a.sum()
        region.put("from the child", large)

    child = Child(work)
    child.ready()
    view = batches = t = large = small = small_views = None
    region.put("t", {"a": np.zeros(10)}, replace=True)
    for i in range(200):
        region["t"].select((col("a") + i).sum()).collect()
    refill(region)
    child.go_on()
    child.passes()
    np.testing.assert_array_equal(region["from the child"]["b"].to_numpy(), a * 2)
    del region["from the child"], region["t"]
    assert used_by_tables(region) <= 512 << 10  # slabs of this process
    assert region.stats()["sessions"] == 1


def test_a_parents_views_stay_whatever_the_child_does(small_region: ins.Region) -> None:
    region = small_region
    a = np.arange(100_000)
    t = region.put("t", {"a": a})
    view = t["a"].to_numpy()
    results = [t.select((col("a") + i).sum()).collect() for i in range(50)]
    sums = [r.to_arrow()[0][0].as_py() for r in results]

    def work(child: Child) -> None:
        nonlocal view, t
        view = t = None
        for i in range(200):
            region["t"].select((col("a") + i).sum()).collect()
        results.clear()
        region.put("t", {"a": np.zeros(10)}, replace=True)
        refill(region)
        region.put("u", {"a": np.arange(3)})

    Child(work).passes()
    np.testing.assert_array_equal(view, a)
    assert [r.to_arrow()[0][0].as_py() for r in results] == sums
    np.testing.assert_array_equal(t["a"].to_numpy(), a)
    assert region["u"]["a"].sum() == 3
    assert len(region["t"]) == 10
    assert region.verify().ok


@pytest.mark.parametrize("how", ["_exit", "sys.exit", "SIGKILL"])
def test_however_a_child_ends_nothing_of_it_stays(region: ins.Region, name: str, how: str) -> None:
    a = np.arange(300_000)
    before = used_by_tables(region)
    t = region.put("t", {"a": a})
    view, double = t["a"].to_numpy(), t.select(b=col("a") * 2).collect()

    def work(child: Child) -> None:
        kept = region.put("own", {"a": a})["a"].to_numpy()
        more = double.select(c=col("b") * 2).collect()
        child.meet()
        assert kept.sum() + more["c"].to_numpy().sum() + view.sum() == a.sum() * 6
        if how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)

    if how == "sys.exit":
        # An interpreter that is shut down in order, as multiprocessing never does.
        script = f"""
            import os, sys
            import insitu as ins, numpy as np
            from insitu import col
            region = ins.open({name!r})
            t = region["t"]
            view, double = t["a"].to_numpy(), t.select(b=col("a") * 2).collect()
            if os.fork() == 0:
                region.put("own", {{"a": np.arange(3)}})
                assert double["b"].to_numpy().sum() == 2 * view.sum()
                sys.exit(0)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
            assert double["b"].to_numpy().sum() == 2 * view.sum()
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    else:
        child = Child(work)
        child.ready()
        child.go_on()
        assert child.end() == (-signal.SIGKILL if how == "SIGKILL" else 0)
    assert view.sum() == a.sum()
    assert double["b"].to_numpy().sum() == 2 * a.sum()
    del region["own"], region["t"]
    t = view = double = None
    assert used_by_tables(region) == before
    assert region.stats()["sessions"] == 1


def work_on_inherited(region: ins.Region, table: ins.Table, view: Any, answers: Any) -> None:
    total = table.select(col("a").sum()).item()
    region.put("from the child", {"a": np.arange(3)})
    handles = [table["a"].sum(), len(table.to_arrow()), sorted(region.names())]
    answers.put((int(view.sum()), total, handles))


def test_inherited_handles_just_work(any_region: ins.Region) -> None:
    region = any_region
    t = region.put("t", {"a": np.arange(1000)})
    view = t["a"].to_numpy()
    context = mp.get_context("fork")
    answers = context.Queue()
    worker = context.Process(target=work_on_inherited, args=(region, t, view, answers))
    worker.start()
    said = answers.get(timeout=PATIENCE)
    assert said == (499_500, 499_500, [499_500, 1000, ["from the child", "t"]])
    worker.join(PATIENCE)
    assert worker.exitcode == 0
    assert region["from the child"]["a"].sum() == 3
    # What the child dropped was its own share.
    assert view.sum() == 499_500
    region.gc()
    assert region.stats()["sessions"] == 1
    assert region.verify().ok


def test_a_child_joins_on_first_use_where_nothing_was_held(any_region: ins.Region) -> None:
    region = any_region
    region.put("t", {"a": np.arange(1000)})

    def work(child: Child) -> None:
        assert region["t"]["a"].sum() == 499_500
        region.put("u", {"a": np.arange(3)})

    Child(work).passes()
    assert region["u"]["a"].sum() == 3


def test_prepared_queries_work_in_a_child(region: ins.Region) -> None:
    a = np.random.default_rng(0).random(2_000_000)
    t = region.put("t", {"a": a})
    p = t.filter(col("a") > ins.param("x")).select(n=ins.len()).prepare()
    # With the parent's threads in place, which no child has.
    assert p.run(x=0.5).item() == (a > 0.5).sum()

    def work(child: Child) -> None:
        assert p.run(x=0.25).item() == (a > 0.25).sum()
        assert t.group_by("a").agg(ins.len()).select(ins.len()).item() == len(np.unique(a))

    Child(work).passes()
    assert p.run(x=0.75).item() == (a > 0.75).sum()


def test_read_only_regions_are_inherited(region: ins.Region, name: str) -> None:
    region.put("t", {"a": np.arange(100_000)})
    reader = ins.open(name, read_only=True)
    view = reader["t"]["a"].to_numpy()

    def work(child: Child) -> None:
        child.meet()
        assert view.sum() == np.arange(100_000).sum()
        with pytest.raises(ins.ReadOnly):
            reader.put("u", {"a": np.arange(3)})
        assert "t" not in reader
        child.meet()

    child = Child(work)
    child.ready()
    view = None
    reader.close()
    del region["t"]
    region.gc()
    for i in range(5):
        region.put(f"new {i}", {"a": np.zeros(100_000)})
    child.go_on()
    child.ready()
    child.go_on()
    child.passes()


def test_what_the_parent_updates_is_not_the_childs(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(1000)})

    def work(child: Child) -> None:
        with pytest.raises(ins.LeaseHeld):
            t.update(a=col("a") + 1, in_place=True, timeout=0.1)
        child.meet()
        # The parent has ended it.
        t.update(a=col("a") + 1)
        assert t["a"].sum() == 500_500

    with t.exclusive():
        child = Child(work)
        child.ready()
    child.go_on()
    child.passes()
    assert t["a"].sum() == 500_500


def test_a_block_of_writing_belongs_to_the_process_that_began_it(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(1000), "b": np.zeros(1000, bool)})
    with pytest.raises(KeyError, match="given up"), t.writable() as w:
        w["b"][:] = True

        def work(child: Child) -> None:
            with pytest.raises(ins.Stale):
                w["a"]
            with pytest.raises(ins.Stale):
                w.__exit__(None, None, None)

        Child(work).passes()
        raise KeyError("given up")
    assert t["b"].sum() == 0
    t.update(a=col("a") + 1, in_place=True)
    assert t["a"].sum() == 500_500


def test_a_builder_belongs_to_the_process_that_began_it(region: ins.Region) -> None:
    schema = pa.schema({"a": pa.int64()})
    before = used_by_tables(region)
    with region.build("t", schema, rows=1000) as b:
        b["a"][:] = 7

        def work(child: Child) -> None:
            with pytest.raises(ins.Stale):
                b.__exit__(None, None, None)
            assert "t" not in region

        Child(work).passes()
        assert (b["a"][:] == 7).all()
        b["a"][500:] = 8
    assert region["t"]["a"].to_numpy().sum() == 7_500
    del region["t"]
    b = None
    assert used_by_tables(region) == before


def test_what_a_child_stores_into_an_open_block_stays_with_it(any_region: ins.Region) -> None:
    rows = 300_000
    region = any_region
    t = region.put("t", {"x": np.ones(rows, np.int64), "b": np.ones(rows, bool)})
    shared = region.put("shared", {"x": np.ones(rows, np.int64)})
    twin = region.put("twin", shared)
    arrays: list[Any] = []

    def work(child: Child) -> None:
        for array in arrays:
            assert array[-1] == 1
            array[: rows // 2] = 0
        child.meet()
        # The parent's blocks have ended, and what they wrote is published.
        for array in arrays:
            array[rows // 2 :] = 0
            assert not array.any()
        assert region["u"]["x"].sum() == rows

    with (
        region.build("u", {"x": "int64", "b": bool}, rows=rows) as b,
        t.writable() as over,
        shared.writable() as beside,
    ):
        arrays += [b["x"], b["b"], b.validity("x"), over["x"], over["b"], beside["x"]]
        b["x"][:] = 1
        b["b"][:] = True
        child = Child(work)
        child.ready()
        for array in arrays:
            assert array.all()
        arrays[0][0] = 1
    child.go_on()
    child.passes()
    for table in (region["u"], t, shared, twin):
        assert table["x"].sum() == rows
        assert table["x"].null_count == 0
    assert region["u"]["b"].sum() == t["b"].sum() == rows
    assert region.verify().ok


def test_both_work_on_the_region_at_once(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(10_000)})

    def work(who: str) -> None:
        for i in range(100):
            mine = region.put(f"{who} {i % 3}", {"a": np.arange(i + 1)}, replace=True)
            assert mine["a"].sum() == i * (i + 1) // 2
            assert t.select((col("a") + i).sum()).item() == 49_995_000 + 10_000 * i
            for name in region.names():
                try:
                    values = region[name]["a"].to_numpy()
                except ins.TableNotFound:
                    continue
                np.testing.assert_array_equal(values, np.arange(len(values)))
            if i % 7 == 0:
                del region[f"{who} {i % 3}"]

    children = [Child(lambda child, who=who: work(who)) for who in ("one", "two")]
    work("parent")
    for child in children:
        child.passes()
    region.gc()
    assert region.verify().ok
    assert region.stats()["sessions"] == 1


def test_forks_amid_threads_at_work_never_hang(region: ins.Region) -> None:
    t = region.put("t", {"a": np.arange(200_000), "b": np.arange(200_000) % 7})
    view = t["a"].to_numpy()
    done = threading.Event()
    failures: list[BaseException] = []

    def hammer(me: int) -> None:
        try:
            i = 0
            while not done.is_set():
                i += 1
                mine = region.put(f"t{me}", {"a": np.arange(i % 1000 + 1)}, replace=True)
                kept = mine["a"].to_numpy()
                small = t.filter(col("a") < i).select(col("a").sum(), n=ins.len()).collect()
                large = t.select(c=col("a") * col("b")).collect()
                t.group_by("b").agg(col("a").sum()).collect()
                assert kept[-1] == i % 1000
                del mine, kept, small, large
                if i % 5 == 0:
                    del region[f"t{me}"]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(me,)) for me in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(200):

            def work(child: Child, i: int = i) -> None:
                assert view[-1] == 199_999
                assert t.select(col("a").sum()).item() == 19_999_900_000
                region.put(f"child {i % 3}", {"a": np.arange(10)}, replace=True)
                assert t.group_by("b").agg(ins.len()).collect().num_rows == 7

            Child(work).passes()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert view.sum() == 19_999_900_000
    view = t = None
    for name in region.names():
        del region[name]
    assert used_by_tables(region) <= 512 << 10
    assert region.stats()["sessions"] == 1


def total(table: ins.Table) -> int:
    return int(table["a"].to_numpy().sum() + table.select(col("a").max()).item())


def expected(i: int) -> int:
    return sum(range(i + 10)) + i + 9


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_of_processes_receive_tables(region: ins.Region, method: str) -> None:
    tables = [region.put(f"t{i}", {"a": np.arange(i + 10)}) for i in range(8)]
    views = [t["a"].to_numpy() for t in tables]
    wanted = [expected(i) for i in range(8)]
    context = mp.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map(total, tables * 3) == wanted * 3
        assert pool.apply_async(total, (tables[3],)).get(PATIENCE) == wanted[3]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(total, tables * 3)) == wanted * 3
    assert [int(view.sum()) for view in views] == [sum(range(i + 10)) for i in range(8)]
    region.gc()
    assert region.stats()["sessions"] == 1
    assert region.verify().ok


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib_passes_tables_on(region: ins.Region, backend: str) -> None:
    tables = [region.put(f"t{i}", {"a": np.arange(i + 10)}) for i in range(8)]
    kept = tables[0]["a"].to_numpy()
    parallel = joblib.Parallel(n_jobs=2, backend=backend)
    said = parallel(joblib.delayed(total)(table) for table in tables)
    assert said == [expected(i) for i in range(8)]
    assert kept.sum() == 45
    if backend == "loky":
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    region.gc()
    assert region.stats()["sessions"] == 1


inherited: dict[str, Any] = {}


def from_inherited(i: int) -> int:
    """In a forked worker: what the parent had in a global."""
    table, view = inherited["table"], inherited["view"]
    region = inherited["region"]
    region.put(f"from worker {i}", {"a": np.arange(i)})
    return int(
        view[i] + table.select((col("a") + i).sum()).item() + len(region[f"from worker {i}"])
    )


def test_forked_pools_use_what_they_inherit(region: ins.Region) -> None:
    table = region.put("t", {"a": np.arange(1000)})
    inherited.update(region=region, table=table, view=table["a"].to_numpy())
    wanted = [i + 499_500 + 1000 * i + i for i in range(20)]
    context = mp.get_context("fork")
    try:
        with context.Pool(3) as pool:
            assert pool.map(from_inherited, range(20)) == wanted
            del region["t"]
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            for i in range(20):
                del region[f"from worker {i}"]
            assert list(executor.map(from_inherited, range(20))) == wanted
    finally:
        inherited.clear()
    del table
    for name in region.names():
        del region[name]
    region.gc()
    assert region.stats()["tables"] == 0
    assert region.stats()["retired"] == 0
    assert region.verify().ok


def test_programs_started_with_a_fork_leave_nothing(region: ins.Region) -> None:
    view = region.put("t", {"a": np.arange(1_000_000)})["a"].to_numpy()
    before = region.stats()["used"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            preexec_fn=lambda: None,
            close_fds=bool(i % 2),
        )
        for i in range(4)
    ]
    try:
        assert view[-1] == 999_999
        # They are seen to have started before the last of their descriptors is closed.
        deadline = time.monotonic() + PATIENCE
        while region.gc() or region.stats()["sessions"] != 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        del region["t"], view
        region.gc()
        assert region.stats()["used"] < before
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_closing_all_descriptors_ends_no_session(
    region: ins.Region, name: str, run: Callable[..., Any]
) -> None:
    region.put("t", {"a": np.arange(100_000)})
    script = """
        import os, sys, subprocess
        import insitu as ins, numpy as np
        from insitu import col
        region = ins.open(sys.argv[1])
        anonymous = ins.create(capacity="8MiB")
        t, kept = region["t"], anonymous.put("t", {"a": np.arange(10)})
        view, other = t["a"].to_numpy(), kept["a"].to_numpy()
        os.closerange(3, 4096)
        files = [open("/dev/null") for _ in range(20)]
        print("ready", flush=True)
        sys.stdin.readline()
        assert view.sum() == 4_999_950_000
        assert t.select(col("a").sum()).item() == 4_999_950_000
        region.put("u", {"a": np.arange(1_000_000)})
        del t, view
        region.gc()
        assert other.sum() == 45 and kept["a"].to_numpy().sum() == 45
        try:
            anonymous.put("u", {"a": np.arange(10)})
        except ins.Stale as error:
            assert "descriptor" in str(error)
        else:
            raise AssertionError("an anonymous region without its descriptor was written to")
        pid = os.fork()
        if pid == 0:
            region.put("v", {"a": np.arange(3)})
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        del other, kept
        anonymous.close()
        region.close()
        del region, anonymous
        assert all(os.fstat(file.fileno()) for file in files)
        print("done", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), name]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    del region["t"]
    region.gc()
    assert region.stats()["sessions"] == 2
    for i in range(4):
        region.put(f"new {i}", {"a": np.zeros(100_000)})
    said, errors = process.communicate("go\n", timeout=PATIENCE)
    assert said == "done\n", errors
    assert region["u"]["a"].sum() == 499_999_500_000
    assert region["v"]["a"].sum() == 3
    region.gc()
    assert region.stats()["sessions"] == 1
    assert region.verify().ok


def test_a_stopped_process_keeps_what_it_holds_and_a_zombie_does_not(region: ins.Region) -> None:
    region.put("t", {"a": np.arange(1_000_000)})

    def work(child: Child) -> None:
        view = region["t"]["a"].to_numpy()
        child.meet()
        assert view[-1] == 999_999

    child = Child(work)
    child.ready()
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    del region["t"]
    region.gc()
    assert region.stats()["retired"] == 1
    holders = region.leases()
    assert {record["pid"] for record in holders} == {child.pid}
    os.kill(child.pid, signal.SIGKILL)
    # Dead, and not waited for.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    region.gc()
    assert region.stats()["retired"] == 0
    assert region.stats()["sessions"] == 1
    assert child.end() == -signal.SIGKILL


def test_a_parent_may_die_first(region: ins.Region, name: str) -> None:
    script = """
        import os, signal, sys, time
        import insitu as ins, numpy as np
        region = ins.open(sys.argv[1])
        t = region.put("t", {"a": np.arange(100_000)})
        view = t["a"].to_numpy()
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.01)
            region.put("orphan", {"sum": np.array([view.sum()])})
            print("orphaned", flush=True)
            sys.stdin.readline()
            assert view.sum() == 4_999_950_000
            region.put("end", {"sum": np.array([view.sum()])})
            print("done", flush=True)
            os._exit(0)
        os.kill(parent, signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == "orphaned\n"
    process.wait(PATIENCE)
    assert region["orphan"]["sum"].sum() == 4_999_950_000
    del region["t"]
    region.gc()
    assert region.stats()["retired"] == 1
    for i in range(4):
        region.put(f"new {i}", {"a": np.zeros(100_000)})
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    deadline = time.monotonic() + PATIENCE
    while region.stats()["sessions"] > 1 and time.monotonic() < deadline:
        region.gc()
    process.stdin.close()
    process.stdout.close()
    assert region["end"]["sum"].sum() == 4_999_950_000
    assert region.stats()["sessions"] == 1
    assert region.stats()["retired"] == 0
