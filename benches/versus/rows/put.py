"""Bringing ten float64 columns into memory that other processes can open: 800 MB at ten million
rows.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ..floor import aligned
from ..harness import Contestant, Row
from ..setting import Setting

COLUMNS = 10


def source(setting: Setting) -> tuple[np.ndarray, pa.Table]:
    """The columns, one after the other in one block, and as an Arrow table over the same memory."""
    rows = setting.rows - setting.rows % 8
    block = aligned(COLUMNS * rows, 0.0).reshape(COLUMNS, rows)
    rng = setting.random(5)
    for column in block:
        rng.random(out=column)
    return block, pa.table({f"c{i}": column for i, column in enumerate(block)})


def rows(setting: Setting) -> Iterator[Row]:
    block, table = source(setting)
    eager = pl.from_arrow(table)
    out = aligned(block.size, 1.0).reshape(block.shape)
    shared = SharedMemory(create=True, size=block.nbytes)
    inside = np.frombuffer(shared.buf, np.float64, block.size).reshape(block.shape)
    fresh, ready, polars = (
        Path(setting.shm) / f"{setting.name}-{kind}.arrow" for kind in ("fresh", "ready", "polars")
    )

    def write_fresh():
        with pa.OSFile(str(fresh), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return fresh

    def write_ready():
        mapped.seek(0)
        with pa.ipc.new_file(mapped, table.schema) as writer:
            writer.write_table(table)
        return ready

    def copy(into: np.ndarray):
        np.copyto(into, block)
        return into

    # What `memcpy` does with as many threads as everybody has: a stretch of the block each.
    pool = ThreadPoolExecutor(setting.threads)
    stretches = np.linspace(0, block.size, setting.threads + 1).astype(int)

    def copy_in_threads(into: np.ndarray):
        def stretch(number: int) -> None:
            part = slice(stretches[number], stretches[number + 1])
            np.copyto(into.reshape(-1)[part], block.reshape(-1)[part])

        list(pool.map(stretch, range(setting.threads)))
        return into

    made: list[SharedMemory] = []

    def forget() -> None:
        while made:
            old = made.pop()
            old.close()
            old.unlink()

    def copy_fresh():
        made.append(SharedMemory(create=True, size=block.nbytes))
        view = np.frombuffer(made[-1].buf, np.float64, block.size).reshape(block.shape)
        np.copyto(view, block)

    def write_polars():
        eager.write_ipc(polars, compression="uncompressed")
        return polars

    def of_file(path: Path):
        with pa.memory_map(str(path)) as file:
            return of_table(pa.ipc.open_file(file).read_all())

    def of_table(result: pa.Table):
        return np.array([np.asarray(result[f"c{i}"]).sum() for i in range(COLUMNS)])

    def of_block(result: np.ndarray):
        return result.sum(axis=1)

    # A file of the right size, whose pages are there: what somebody does who writes again and
    # again.
    write_fresh().rename(ready)
    mapped = pa.memory_map(str(ready), "r+")

    contestants = [
        Contestant("NumPy: copyto, warm", lambda: copy(out), of_block),
        Contestant("NumPy: copyto shared_memory, warm", lambda: copy(inside), of_block),
        Contestant(
            f"NumPy: copyto, {setting.threads} threads, warm",
            lambda: copy_in_threads(out),
            of_block,
        ),
        Contestant(
            f"NumPy: copyto shared_memory, {setting.threads} threads, warm",
            lambda: copy_in_threads(inside),
            of_block,
        ),
        Contestant("NumPy: copyto new shared_memory, cold", copy_fresh, before=forget, once=True),
        Contestant("pyarrow: IPC, new file", write_fresh, of_file),
        Contestant("pyarrow: IPC, into a file kept mapped, warm", write_ready, of_file),
        Contestant("Polars: write_ipc, new file", write_polars, of_file),
    ]
    ray = _ray(setting, block, table, of_table)
    contestants += ray
    if setting.insitu:
        contestants[:0] = _insitu(setting, table, of_table)

    def close() -> None:
        nonlocal inside, contestants
        forget()
        pool.shutdown()
        if ray:
            import ray as module

            ray.clear()
            module.shutdown()
        del inside
        contestants.clear()
        mapped.close()
        for path in (fresh, ready, polars):
            path.unlink(missing_ok=True)
        with contextlib.suppress(BufferError):  # a view is somewhere: the process takes it along
            shared.close()
        shared.unlink()

    yield Row(
        "put",
        f"put {block.nbytes / 1e6:,.0f} MB ({COLUMNS} columns) where other processes can open it",
        contestants + setting.floor.copy(out, block),
        bytes=2 * block.nbytes,
        note="'new file' and 'cold' ask the system for every page again. NumPy's copies are bare "
        "bytes, without a schema, and for this process alone where no shared_memory is named. "
        + ("" if ray else "Ray is not installed here."),
        close=close,
    )


def _ray(setting: Setting, block: np.ndarray, table: pa.Table, answer) -> list[Contestant]:
    """Ray's object store, where Ray is installed; its processes end with the row."""
    if not importlib.util.find_spec("ray"):
        return []
    import ray

    ray.init(
        num_cpus=setting.threads,
        object_store_memory=3 * block.nbytes + (256 << 20),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    kept: list[Any] = []

    def put():
        kept[:] = [ray.put(table)]
        return kept[0]

    return [
        Contestant("Ray: put, warm", put, lambda reference: answer(ray.get(reference))),
    ]


def _insitu(setting: Setting, table: pa.Table, answer) -> list[Contestant]:
    # A region each: what one gives back to the system must not cool the other.
    warm, other = setting.region, setting.another()
    warm.put("put", table, replace=True)  # replacing needs both copies warm: this one, the check's

    def cold():
        if "put" in other:
            del other["put"]
        other.trim()

    return [
        Contestant(
            "insitu: put, warm",
            lambda: warm.put("put", table, replace=True),
            lambda t: answer(t.to_arrow()),
        ),
        Contestant(
            "insitu: put, cold",
            lambda: other.put("put", table, replace=True),
            lambda t: answer(t.to_arrow()),
            before=cold,
            once=True,
        ),
    ]
