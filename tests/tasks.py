"""What workers of the tests' pools and processes do. They import no more than this."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import insitu as ins
from insitu import col


def tickets(region: ins.Region) -> int:
    """How many results are on their way."""
    return sum(record["kind"] == "ticket" for record in region.leases())


def total_of(table: ins.Table) -> int:
    return int(table["a"].to_numpy().sum())


def doubled(table: ins.Table) -> ins.Table:
    """A result without a name, of memory of its own."""
    return table.select(a=col("a") * 2).collect()


def narrowed(table: ins.Table) -> ins.Table:
    """A result without a name that shares its source's memory."""
    return table.select("a").collect()


def summed(table: ins.Table) -> ins.Table:
    """A result so small that it has no memory of its own."""
    return table.select(a=col("a").sum()).collect()


def chained(table: ins.Table) -> ins.Table:
    """What was received is worked on, and sent on."""
    return summed(doubled(narrowed(table)))


def frames_of(table: ins.Table) -> dict[str, Any]:
    """What a pipeline may answer with: frames that are views of the table, beside handles."""
    frame = table.to_pandas()
    frame.attrs["source"] = table
    return {
        "pandas": frame.head(1_000),
        "polars": table.to_polars(),
        "arrow": table.to_arrow(),
        "numpy": table["a"].to_numpy(),
        "handles": [table, doubled(table)],
    }


def name_it(region: ins.Region, table: ins.Table, name: str) -> ins.Table:
    return region.put(name, table)


class Pickled:
    """A handle that is received as it was pickled when this was made, whatever happened since."""

    def __init__(self, handle: ins.Table | ins.Region) -> None:
        self.reduced = handle.__reduce__()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def names_of(region: ins.Region) -> list[str]:
    return region.names()


def unchanged(table: ins.Table) -> ins.Table:
    return table


def made_and_deleted(region: ins.Region) -> Pickled:
    """A result whose table is gone before it is received."""
    sent = Pickled(region.put("short-lived", region["t"]))
    del region["short-lived"]
    return sent


received: list[ins.Table] = []


def receive(*tables: ins.Table) -> None:
    received[:] = tables


def total_received(_: int) -> list[int]:
    return [total_of(table) for table in received]


def send(way: Any, table: ins.Table, end: str) -> None:
    """Sends results of a table, and ends."""
    results = [doubled(table), narrowed(table), summed(table)]
    if isinstance(way, Connection):
        for result in results:
            way.send(result)
    else:
        way.put(results)
        # Its thread has sent them when this returns.
        way.close()
        way.join_thread()
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "cut short":
        os._exit(0)


def send_to_the_dead(method: str, name: str, say: Connection) -> None:
    context = mp.get_context(method)
    mine, theirs = context.Pipe()
    worker = context.Process(target=signal.pause)
    worker.start()
    with ins.open(name) as region:
        mine.send(doubled(region["t"]))
        worker.kill()
        worker.join()
        mine.close()
        theirs.close()
        region.gc()
        say.send(tickets(region))
