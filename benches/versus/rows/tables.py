"""Many small tables: what one more costs when there are a thousand, ten thousand, a hundred
thousand already; and how much memory a region takes that has none.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..harness import Disagreement, Result, Timing
from ..setting import Setting

POPULATIONS = (1_000, 10_000, 100_000)
BATCH = 200  # operations timed together
ROUNDS = 11


def rows(setting: Setting) -> Iterator[Result]:
    stores: list[Any] = [Files(Path(setting.shm) / f"{setting.name}-tables")]
    if setting.insitu:
        stores.insert(0, Tables(setting))
    done: dict[str, dict[int, dict[str, list[float]]]] = {s.name: {} for s in stores}
    try:
        for population in POPULATIONS:
            for store in stores:
                while store.count < population:
                    store.put(f"t{store.count}")
                    store.count += 1
                done[store.name][population] = _measure(store, population)
    finally:
        for store in stores:
            store.close()
    for operation in ("put", "look up", "look up again", "ask for a missing one", "delete"):
        timings = [
            Timing(f"{name}, of {population:,}", name.split(":")[0], seconds[operation])
            for name, by_population in done.items()
            for population, seconds in by_population.items()
        ]
        yield Result(
            f"tables-{operation.replace(' ', '-')}",
            f"{operation}: one small table among many",
            timings,
            note=f"Seconds per operation, over {BATCH} at a time, {ROUNDS} times. Two columns of "
            "ten rows. Peers write one IPC file each.",
        )
    if setting.insitu:
        yield _empty(setting)


def _measure(store: Any, population: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    rng = np.random.default_rng(population)

    def timed(operation: str, call: Callable[[str], Any], names: list[str]) -> Any:
        start = time.perf_counter()
        for name in names:
            last = call(name)
        seconds.setdefault(operation, []).append((time.perf_counter() - start) / len(names))
        return last

    for number in range(ROUNDS):
        new = [f"n{number}.{i}" for i in range(BATCH)]
        timed("put", store.put, new)
        known = [f"t{i}" for i in rng.choice(population, BATCH, replace=False)]
        found = timed("look up", store.get, known)
        if store.value(found) != 3:
            raise Disagreement(f"{store.name}: a table has another value than was put")
        timed("look up again", store.get, known)
        timed("ask for a missing one", store.has, [f"x{i}" for i in range(BATCH)])
        timed("delete", store.delete, new)
    return seconds


def _small() -> pa.Table:
    return pa.table({"a": np.arange(10), "b": np.linspace(0.0, 1.0, 10)})


class Tables:
    """Tables of a region."""

    name = "insitu: tables"

    def __init__(self, setting: Setting) -> None:
        self.region = setting.another(max_tables=2 * POPULATIONS[-1])
        self.data, self.count = _small(), 0

    def put(self, name: str) -> None:
        self.region.put(name, self.data)

    def get(self, name: str) -> Any:
        return self.region[name]

    def has(self, name: str) -> bool:
        return name in self.region

    def delete(self, name: str) -> None:
        del self.region[name]

    def value(self, found: Any) -> int:
        return found["a"].to_numpy()[3]

    def close(self) -> None:
        """The setting closes the region."""


class Files:
    """IPC files in shared memory."""

    name = "pyarrow: IPC files"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.data, self.count = str(folder), _small(), 0

    def put(self, name: str) -> None:
        path = f"{self.folder}/{name}"
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, self.data.schema) as writer:
            writer.write_table(self.data)

    def get(self, name: str) -> pa.Table:
        return pa.ipc.open_file(pa.memory_map(f"{self.folder}/{name}")).read_all()

    def has(self, name: str) -> bool:
        return os.path.exists(f"{self.folder}/{name}")  # noqa: PTH110 (the quicker way)

    def delete(self, name: str) -> None:
        os.unlink(f"{self.folder}/{name}")  # noqa: PTH108 (likewise)

    def value(self, found: pa.Table) -> int:
        return found["a"][3].as_py()

    def close(self) -> None:
        shutil.rmtree(self.folder)


def _empty(setting: Setting) -> Result:
    """What the system has given a region of default limits, as its file's blocks say."""
    name = f"{setting.name}-empty"
    region = setting.insitu.create(name, ephemeral=True)
    try:
        resident = (Path(setting.shm) / f"insitu.{name}").stat().st_blocks * 512
        capacity = region.stats()["capacity"]
    finally:
        region.close()
    return Result(
        "empty",
        "memory that an empty region takes",
        [Timing("insitu: create, default limits", "insitu", [float(resident)])],
        unit="B",
        note=f"Its capacity is {capacity / 2**30:.1f} GiB.",
    )
