"""Handles and results without a name in every kind of pool, and between plain processes, whose
workers may be gone before what they sent is received."""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

import insitu as ins
import joblib
import numpy as np
import pytest

from conftest import ROWS, TOTAL, end_grace
from tasks import (
    Pickled,
    chained,
    doubled,
    frames_of,
    made_and_deleted,
    names_of,
    narrowed,
    receive,
    send,
    send_to_the_dead,
    summed,
    tickets,
    total_of,
    total_received,
    unchanged,
)

PATIENCE = 60
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> BaseContext:
    """Each way to start processes."""
    return mp.get_context(request.param)


@contextmanager
def pool_of(context: BaseContext, **options: Any) -> Iterator[Any]:
    """A pool of two that ends in an orderly way, unless the test fails."""
    with context.Pool(2, **options) as pool:
        yield pool
        pool.close()
        pool.join()


def both_ways(run: Any, table: ins.Table, times: int) -> list[ins.Table]:
    """Has a pool's `run` (a map) take and make tables, with names and without; gives results."""
    assert run(total_of, [table] * times) == [TOTAL] * times
    results = run(doubled, [table] * times) + run(narrowed, [table])
    assert [total_of(result) for result in results] == [2 * TOTAL] * times + [TOTAL]
    # One result several times, and each once.
    totals = run(total_of, [results[0]] * times + results)
    assert totals == [2 * TOTAL] * 2 * times + [TOTAL]
    small = run(chained, results)
    assert [result.item() for result in small] == [4 * TOTAL] * times + [2 * TOTAL]
    return [*results, *small]


def check(results: list[ins.Table], times: int) -> None:
    """What was received stays when the workers are gone."""
    totals = [2 * TOTAL] * times + [TOTAL]
    assert [total_of(result) for result in results] == totals + [2 * total for total in totals]


@pytest.mark.parametrize("tasks", [None, 1, 2])
def test_pools(tidy: ins.Region, context: BaseContext, tasks: int | None) -> None:
    with pool_of(context, maxtasksperchild=tasks) as pool:
        # A chunk is a task: with one task per worker, each ends as soon as it has answered.
        results = both_ways(
            lambda work, items: pool.map_async(work, items, chunksize=1).get(PATIENCE),
            tidy["t"],
            times=1 if tasks == 1 else 5,
        )
    check(results, times=1 if tasks == 1 else 5)
    assert tickets(tidy) == 0


def test_pools_that_answer_one_by_one(tidy: ins.Region, context: BaseContext) -> None:
    t = tidy["t"]
    with pool_of(context, maxtasksperchild=3) as pool:
        for result in pool.imap_unordered(doubled, [t] * 6):
            assert total_of(result) == 2 * TOTAL
        answers = [pool.apply_async(summed, (narrowed(t),)) for _ in range(6)]
        assert [answer.get(PATIENCE).item() for answer in answers] == [TOTAL] * 6
    assert tickets(tidy) == 0


def test_workers_begin_with_tables(tidy: ins.Region, context: BaseContext) -> None:
    given = (tidy["t"], doubled(tidy["t"]), summed(tidy["t"]))
    expected = [TOTAL, 2 * TOTAL, TOTAL]
    with pool_of(context, initializer=receive, initargs=given) as pool:
        assert pool.map_async(total_received, range(4)).get(PATIENCE) == [expected] * 4
    with ProcessPoolExecutor(
        2, mp_context=context, initializer=receive, initargs=given
    ) as executor:
        assert list(executor.map(total_received, range(4), timeout=PATIENCE)) == [expected] * 4
    del given
    assert tickets(tidy) == 0


@pytest.mark.parametrize("tasks", [None, 1])
def test_executors(tidy: ins.Region, context: BaseContext, tasks: int | None) -> None:
    if tasks and context.get_start_method() == "fork":
        with pytest.raises(ValueError, match="fork"):
            ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=tasks)
        return
    with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=tasks) as executor:
        results = both_ways(
            lambda work, items: list(executor.map(work, items, timeout=PATIENCE)),
            tidy["t"],
            times=1 if tasks else 5,
        )
        futures = [executor.submit(chained, tidy["t"]) for _ in range(6)]
    # They are received by a thread; when it was is nobody's concern.
    assert [future.result(PATIENCE).item() for future in futures] == [2 * TOTAL] * 6
    check(results, times=1 if tasks else 5)
    assert tickets(tidy) == 0


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(tidy: ins.Region, backend: str) -> None:
    def run(work: Any, items: list[ins.Table]) -> list[Any]:
        parallel = joblib.Parallel(n_jobs=2, backend=backend, timeout=PATIENCE)
        return list(parallel(joblib.delayed(work)(item) for item in items))

    try:
        check(both_ways(run, tidy["t"], times=5), times=5)
    finally:
        if backend == "loky":
            joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    gc.collect()
    assert tickets(tidy) == 0


def test_frames_and_handles_travel_together(tidy: ins.Region, context: BaseContext) -> None:
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        for answer in executor.map(frames_of, [tidy["t"]] * 3, timeout=PATIENCE):
            frame = answer["pandas"]
            assert frame["a"].sum() == 1_000 * 999 // 2
            # Frames copy what they carry, and a handle's copy is the handle.
            assert total_of(frame.tail(10).attrs["source"]) == TOTAL
            assert answer["polars"]["a"].sum() == answer["numpy"].sum() == TOTAL
            assert answer["arrow"]["a"].to_numpy().sum() == TOTAL
            assert [total_of(table) for table in answer["handles"]] == [TOTAL, 2 * TOTAL]
            del frame
    # Of frames the data travels: nobody holds the table for them.
    del answer
    gc.collect()
    # Workers that were forked end without a farewell.
    tidy.gc()
    assert [r for r in tidy.leases() if r["pid"] != os.getpid()] == []


# Without a pool: who sends need not be there any more when somebody receives.


SENT = [2 * TOTAL, TOTAL, TOTAL]


@pytest.mark.parametrize("end", ["orderly", "cut short", "killed"])
@pytest.mark.parametrize("by", ["pipe", "queue"])
def test_processes(tidy: ins.Region, context: BaseContext, by: str, end: str) -> None:
    if by == "pipe":
        mine, theirs = context.Pipe()
    else:
        mine = theirs = context.Queue()
    senders = [context.Process(target=send, args=(theirs, tidy["t"], end)) for _ in range(2)]
    for sender in senders:
        sender.start()
        sender.join(PATIENCE)
        # It is gone, and everything that it held is taken back, but what it sent.
        assert sender.exitcode == (-signal.SIGKILL if end == "killed" else 0)
        tidy.gc()
    assert tidy.stats()["sessions"] == 1
    assert tickets(tidy) == 6
    assert tidy.verify().ok
    if by == "pipe":
        results = [mine.recv() for _ in range(6)]
    else:
        results = [result for _ in range(2) for result in mine.get(timeout=PATIENCE)]
        mine.close()
        mine.join_thread()
    assert [total_of(result) for result in results] == SENT * 2
    assert tickets(tidy) == 0


def test_what_was_sent_to_a_worker_that_was_killed(
    tidy: ins.Region, name: str, context: BaseContext
) -> None:
    """Nobody receives it any more: it stays while its sender does, and is freed after that."""
    mine, theirs = context.Pipe()
    sender = context.Process(
        target=send_to_the_dead, args=(context.get_start_method(), name, theirs)
    )
    sender.start()
    assert mine.poll(PATIENCE)
    assert mine.recv() == 1
    sender.join(PATIENCE)
    tidy.gc()
    assert tickets(tidy) == 1
    end_grace(name)
    tidy.gc()
    assert tickets(tidy) == 0


def test_a_pool_that_is_torn_down_at_work(
    tidy: ins.Region, name: str, context: BaseContext
) -> None:
    """Workers die wherever they are; what they sent and nobody received goes after its time."""
    t = tidy["t"]
    workers = set()
    for _ in range(3):
        with context.Pool(2) as pool:
            workers |= {worker.pid for worker in mp.active_children()}
            answers = [pool.apply_async(chained, (t,)) for _ in range(200)]
            assert answers[0].get(PATIENCE).item() == 2 * TOTAL
            # Leaving the block ends the workers at once.
    # Some answers were received, others never will be: neither is looked at any more.
    del answers, pool
    gc.collect()
    tidy.gc()
    assert tidy.stats()["sessions"] == 1
    assert tidy.verify().ok
    assert {r["kind"] for r in tidy.leases() if r["table"] != "t"} <= {"ticket"}
    assert {r["pid"] for r in tidy.leases() if r["kind"] == "ticket"} <= workers
    end_grace(name)


# What is gone when it is received.


def test_pools_survive_what_is_gone(
    tidy: ins.Region, new_name: Callable[[], str], context: BaseContext
) -> None:
    gone = Pickled(tidy.put("gone", {"a": np.arange(3)}))
    del tidy["gone"]
    elsewhere = new_name()
    with ins.create(elsewhere, capacity="8MiB") as other:
        removed = Pickled(other.put("t", {"a": np.arange(3)})), Pickled(other)
    ins.remove(elsewhere)

    def check(ask: Callable[..., Any]) -> None:
        with pytest.raises(ins.Stale, match="it was deleted"):
            ask(total_of, gone)
        for work, thing in zip((total_of, names_of), removed, strict=True):
            with pytest.raises(ins.RegionNotFound):
                ask(work, thing)
        late = ask(made_and_deleted, tidy)
        with pytest.raises(ins.Stale, match="it was deleted"):
            total_of(late)
        with pytest.raises(ins.Stale, match="it was deleted"):
            ask(total_of, late)
        assert ask(total_of, tidy["t"]) == TOTAL

    # One worker: it is the same that goes on.
    with context.Pool(1) as pool:
        workers = {process.pid for process in mp.active_children()}
        check(lambda work, thing: pool.apply_async(work, (thing,)).get(PATIENCE))
        assert {process.pid for process in mp.active_children()} == workers
        pool.close()
        pool.join()
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        check(lambda work, thing: executor.submit(work, thing).result(PATIENCE))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_who_has_not_inherited_an_anonymous_region_is_told(method: str) -> None:
    context = mp.get_context(method)
    with ins.create(capacity="16MiB") as region:
        t = region.put("t", {"a": np.arange(ROWS)})
        with pool_of(context) as pool, ProcessPoolExecutor(1, mp_context=context) as executor:
            for ask in (
                lambda work, thing: pool.apply_async(work, (thing,)).get(PATIENCE),
                lambda work, thing: executor.submit(work, thing).result(PATIENCE),
            ):
                for thing in (t, doubled(t)):
                    with pytest.raises(ins.Unsupported, match="name the region"):
                        ask(total_of, thing)
                with pytest.raises(ins.Unsupported, match="name the region"):
                    ask(names_of, region)
                assert total_of(ask(unchanged, t)) == TOTAL
                assert ask(abs, -1) == 1


def test_forks_know_anonymous_regions() -> None:
    with ins.create(capacity="16MiB") as region:
        t = region.put("t", {"a": np.arange(ROWS)})
        with pool_of(mp.get_context("fork"), maxtasksperchild=1) as pool:
            answer = pool.map_async(total_of, [t, doubled(t)], chunksize=1)
            assert answer.get(PATIENCE) == [TOTAL, 2 * TOTAL]
            results = pool.map_async(doubled, [t] * 3, chunksize=1).get(PATIENCE)
        assert [total_of(result) for result in results] == [2 * TOTAL] * 3
        assert tickets(region) == 0
