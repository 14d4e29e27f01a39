"""What the rows share: sizes, the region, the floor, connections. One `Setting` per run."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import datafusion
import duckdb
import numpy as np

from .floor import Floor


@dataclass
class Setting:
    """How big, how many threads, and whether insitu takes part."""

    rows: int
    threads: int
    floor: Floor
    insitu: Any = None  # the module, or None: peers and floor alone
    shm: str = "/dev/shm"
    _open: list[Any] = field(default_factory=list)
    _regions: dict[str, Any] = field(default_factory=dict)

    def random(self, seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)

    @cached_property
    def name(self) -> str:
        return f"benches-{os.getpid()}"

    @cached_property
    def region(self) -> Any:
        """One region for all rows, gone with this process."""
        return self.another()

    def another(self, **limits: Any) -> Any:
        """A region of one's own. Its capacity is virtual until used."""
        name = self.name + f"-{len(self._regions)}" * bool(self._regions)
        wanted = 3 * self.rows * 8 * 10 + (1 << 30)
        region = self.insitu.create(
            name, capacity=wanted, if_exists="replace", ephemeral=True, **limits
        )
        self._regions[name] = region
        return region

    def name_of(self, region: Any) -> str:
        """The name that other processes open it by."""
        return next(name for name, known in self._regions.items() if known is region)

    def duckdb(self, **tables: Any) -> duckdb.DuckDBPyConnection:
        """A connection with this run's threads; each table natively and as `name_arrow`."""
        connection = duckdb.connect()
        connection.execute(f"SET threads = {self.threads}")
        for name, table in tables.items():
            connection.register(f"{name}_arrow", table)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_arrow")
        self._open.append(connection)
        return connection

    def datafusion(self, **tables: Any) -> datafusion.SessionContext:
        """A session with this run's threads, over these Arrow tables in memory."""
        config = datafusion.SessionConfig().with_target_partitions(self.threads)
        session = datafusion.SessionContext(config)
        for name, table in tables.items():
            # In batches, which are what its threads share.
            batches = table.to_batches(max_chunksize=1 << 16)
            session.register_record_batches(
                name, [batches[i :: self.threads] for i in range(self.threads)]
            )
        return session

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        for name, region in self._regions.items():
            region.close()
            with contextlib.suppress(self.insitu.RegionNotFound):
                self.insitu.remove(name)
