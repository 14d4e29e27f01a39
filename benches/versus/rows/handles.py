"""Handing a table to a process that has the region open: from the handle's bytes to a value read
from each of eight columns.
"""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..harness import FLOOR, Disagreement, Result, Timing
from ..setting import Setting

COLUMNS = 8
TIMES = 60
IN_A_ROW = 20
# What has nothing to find: eight numbers, pickled. After a pause that alone takes many times what
# it takes in a loop, since the caches are cold by then.
ALONE = "Python: eight numbers in a pickle, no table"


def rows(setting: Setting) -> Iterator[Result]:
    count = setting.rows * 10 // COLUMNS
    block = setting.random(7).random((COLUMNS, count))
    table = pa.table({f"c{i}": column for i, column in enumerate(block)})
    file = Path(setting.shm) / f"{setting.name}-handles.arrow"
    shared = SharedMemory(create=True, size=block.nbytes)
    np.frombuffer(shared.buf, np.float64, block.size)[:] = block.reshape(-1)
    expected = float(block[:, count // 2].sum())
    numbers = pickle.dumps({f"c{i}": float(block[i, count // 2]) for i in range(COLUMNS)})
    # By name: the bytes to send, for the n-th time.
    senders: dict[str, Callable[[int], bytes]] = {
        "pyarrow: mapped IPC file": lambda n: str(file).encode(),
        "NumPy: shared_memory": lambda n: json.dumps([shared.name, count]).encode(),
        ALONE: lambda n: numbers,
    }
    task: dict[str, Any] = {"region": None}
    if setting.insitu:
        region = setting.region
        kept = region.put("handles", table)
        task["region"] = setting.name_of(region)
        # Each time a table that the other process does not know: the same bytes by another name.
        senders = {
            "insitu: a new table's handle": lambda n: pickle.dumps(region.put(f"handle{n}", kept)),
            "insitu: a known table's handle": lambda n: pickle.dumps(kept),
            **senders,
        }
    command = [sys.executable, "-m", "benches.versus.reader", json.dumps(task)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    opened: dict[str, list[float]] = {name: [] for name in senders}
    trips: dict[str, list[float]] = {name: [] for name in senders}
    loops: dict[str, list[float]] = {name: [] for name in senders}
    try:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        for number in range(TIMES):
            for name, make in senders.items():
                messages = [make(number * (IN_A_ROW + 1) + i) for i in range(IN_A_ROW + 1)]
                start = time.perf_counter()
                _send(child, name, messages)
                seconds, total = struct.unpack("dd", child.stdout.read(16))
                took = time.perf_counter() - start
                (again,) = struct.unpack("d", child.stdout.read(8))
                if abs(total - expected) > 1e-9:
                    raise Disagreement(f"{name}: {total} was read, not {expected}")
                # The first time has imports in it.
                if number:
                    opened[name].append(seconds)
                    trips[name].append(took)
                    loops[name].append(again)
    finally:
        child.stdin.close()
        child.wait(timeout=60)
        child.stdout.close()
        file.unlink(missing_ok=True)
        shared.close()
        shared.unlink()
    title = f"a value of each of {COLUMNS} columns ({block.nbytes / 1e6:,.0f} MB)"
    for key, what, times in (
        ("handle", "from a handle's bytes to {} in another process, which slept", opened),
        ("handle-loop", "the same with many in a row: from a handle's bytes to {}", loops),
        ("handle-trip", "send a handle, have another process read {}, and hear of it", trips),
    ):
        yield Result(
            key,
            what.format(title),
            [
                Timing(name, FLOOR if name == ALONE else name.split(":")[0], seconds)
                for name, seconds in times.items()
            ],
            note="The other process has the region open, and everything imported. Handles travel "
            "through a pipe: trips have two wake-ups in them. The floor is Python's own: what "
            "unpickling eight numbers takes at that moment.",
        )


def _send(child: subprocess.Popen, name: str, messages: list[bytes]) -> None:
    header = json.dumps([name, [len(message) for message in messages]]).encode() + b"\n"
    child.stdin.write(header + b"".join(messages))
    child.stdin.flush()
