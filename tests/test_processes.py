"""Several real processes on one region: spawned, forked, killed."""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import insitu as ins
import numpy as np
import pytest
from insitu import col

PATIENCE = 30
"""Seconds after which what should have happened counts as not happening."""


def read_and_answer(name: str, answers: Any) -> None:
    region = ins.open(name)
    t = region["t"]
    total = t.select((col("a") * col("b")).sum()).item()
    region.put(f"from {os.getpid()}", {"total": np.array([total])})
    answers.put((os.getpid(), total, t["a"].to_numpy().sum()))


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_workers_of_every_kind(region: ins.Region, name: str, method: str) -> None:
    a = np.arange(100_000)
    region.put("t", {"a": a, "b": a % 7})
    context: Any = mp.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=read_and_answer, args=(name, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    said = [answers.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join(PATIENCE)
        assert worker.exitcode == 0
    for pid, total, plain in said:
        assert total == (a * (a % 7)).sum()
        assert plain == a.sum()
        assert region[f"from {pid}"]["total"].item() == total
    assert region.verify().ok


def sum_of(table: ins.Table) -> int:
    return table["a"].to_numpy().sum()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_handles_travel_to_a_pool(region: ins.Region, method: str) -> None:
    tables = [region.put(f"t{i}", {"a": np.arange(i + 10)}) for i in range(6)]
    with mp.get_context(method).Pool(2) as pool:
        assert pool.map(sum_of, tables) == [sum(range(i + 10)) for i in range(6)]


def test_pickles_are_small_and_of_the_same_table(region: ins.Region, name: str) -> None:
    t = region.put("t", {"a": np.arange(1_000_000)})
    pickled = pickle.dumps(t)
    assert len(pickled) < 500
    assert pickle.loads(pickled)["a"].to_numpy().sum() == t["a"].sum()
    again = pickle.loads(pickle.dumps(region))
    assert again.names() == ["t"]
    assert again.name == name


TALKER = """
    import sys
    import insitu as ins, numpy as np
    region = ins.open(sys.argv[1])
    for line in sys.stdin:
        command, name = line.split()
        if command == "put":
            region.put(name, {"a": np.arange(5)})
            print("done", flush=True)
        elif command == "delete":
            del region[name]
            print("done", flush=True)
        elif command == "sum":
            print(region[name]["a"].sum() if name in region else "missing", flush=True)
"""


class Talker:
    """Another process that does what it is told, one line at a time."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-c", textwrap.dedent(TALKER), name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, command: str, name: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{command} {name}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.communicate(timeout=PATIENCE)


def test_two_processes_see_each_others_names_at_once(region: ins.Region, name: str) -> None:
    other = Talker(name)
    try:
        for i in range(50):
            assert other.ask("put", f"theirs{i}") == "done"
            assert region[f"theirs{i}"]["a"].sum() == 10
            region.put(f"ours{i}", {"a": np.arange(i + 1)})
            assert other.ask("sum", f"ours{i}") == str(i * (i + 1) // 2)
            assert other.ask("delete", f"ours{i}") == "done"
            assert f"ours{i}" not in region
            del region[f"theirs{i}"]
            assert other.ask("sum", f"theirs{i}") == "missing"
    finally:
        other.stop()


def test_a_table_outlives_its_writer(
    region: ins.Region, name: str, run: Callable[..., Any]
) -> None:
    done = run(
        """
        import sys
        import insitu as ins, numpy as np
        ins.open(sys.argv[1]).put("t", {"a": np.arange(1000)})
        """,
        name,
    )
    assert done.code == 0, done.errors
    assert region["t"]["a"].sum() == 499_500


def test_a_deleted_table_stays_for_another_process(region: ins.Region, name: str) -> None:
    region.put("t", {"a": np.arange(100_000)})
    script = """
        import sys
        import insitu as ins
        view = ins.open(sys.argv[1])["t"]["a"].to_numpy()
        print("ready", flush=True)
        sys.stdin.readline()
        print(view.sum(), flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), name]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout
    assert reader.stdout.readline() == "ready\n"
    holders = [r for r in region.leases() if r["pid"] == reader.pid]
    assert holders
    del region["t"]
    region.gc()
    for i in range(5):
        region.put(f"new{i}", {"a": np.zeros(200_000)})
    said, _ = reader.communicate("go\n", timeout=PATIENCE)
    assert int(said) == np.arange(100_000).sum()


WRITER = """
    import sys
    import insitu as ins, numpy as np
    region = ins.open(sys.argv[1])
    region.put("ready", {"a": np.arange(3)}, replace=True)
    keep = []
    i = 0
    while True:
        t = region.put(f"t{i % 4}", {"a": np.full(50_000, i)}, replace=True)
        keep.append(t.select(x=ins.col("a") * 2).collect())
        if len(keep) > 3:
            keep.clear()
        if i % 3 == 0:
            del region[f"t{i % 4}"]
        i += 1
"""


def test_killed_writers_harm_nothing_and_leak_nothing(region: ins.Region, name: str) -> None:
    region.put("mine", {"a": np.arange(1000)})
    for round_ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), name])
        try:
            deadline = time.monotonic() + PATIENCE
            while "ready" not in region and time.monotonic() < deadline:
                assert writer.poll() is None
                time.sleep(0.005)
            time.sleep(0.01 * (round_ + 1))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        # What is there is whole, and the region works on.
        for table in region.names():
            values = region[table]["a"].to_numpy()
            if table.startswith("t"):
                assert (values == values[0]).all()
        region.put("next", {"a": np.arange(10)}, replace=True)
        region.gc()
        report = region.verify()
        assert report.ok, report.problems
        for table in region.names():
            if table != "mine":
                del region[table]
    region.gc()
    assert region["mine"]["a"].sum() == 499_500
    assert region.stats()["sessions"] == 1
    assert region.names() == ["mine"]
    before = region.stats()["used"]
    fresh = region.put("fresh", {"a": np.arange(1000)})
    del region["fresh"], fresh
    region.gc()
    assert region.stats()["used"] == before


def test_ephemeral_regions_go_with_their_last_process(
    new_name: Callable[[], str], run: Callable[..., Any]
) -> None:
    name = new_name()
    with ins.create(name, capacity="16MiB", ephemeral=True) as region:
        region.put("t", {"a": np.arange(5)})
        done = run("import sys, insitu as ins; print(ins.open(sys.argv[1])['t']['a'].sum())", name)
        assert done.output.strip() == "10"
        assert name in [record["name"] for record in ins.regions()]
    with pytest.raises(ins.RegionNotFound):
        ins.open(name)


def test_anonymous_regions_pass_by_descriptor(run: Callable[..., Any]) -> None:
    with ins.create(capacity="16MiB") as region:
        region.put("t", {"a": np.arange(5)})
        fd = region.fileno()
        done = run(
            """
            import sys
            import insitu as ins
            region = ins.open(fd=int(sys.argv[1]))
            print(region["t"]["a"].sum())
            region.put("u", region["t"])
            """,
            fd,
            pass_fds=[fd],
        )
        assert done.output.strip() == "10", done.errors
        assert region["u"]["a"].sum() == 10


def test_ctrl_c_ends_a_long_query(region: ins.Region, name: str) -> None:
    script = """
        import sys
        import insitu as ins, numpy as np
        from insitu import col
        region = ins.open(sys.argv[1])
        t = region.put("t", {"a": np.random.default_rng(0).random(2_000_000)})
        x = col("a")
        for _ in range(200):
            x = x * col("a") + 1
        q = t.select(x.sum())
        print("ready", flush=True)
        try:
            while True:
                q.collect()
        except KeyboardInterrupt:
            print("interrupted", t["a"].count(), flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=PATIENCE)
    assert said == "interrupted 2000000\n", errors
    region.gc()
    assert region.verify().ok
