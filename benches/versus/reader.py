"""The process that is handed tables: has everything imported and the region open, reads a value of
each column of what it is sent, and answers how many seconds that took, and their sum. Started by
`rows/handles.py`.
"""

from __future__ import annotations

import json
import pickle
import struct
import sys
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pyarrow as pa

COLUMNS = [f"c{i}" for i in range(8)]


def of_insitu(message: bytes) -> float:
    table = pickle.loads(message)
    middle = len(table) // 2
    return sum(table[name].to_numpy()[middle] for name in COLUMNS)


def of_file(message: bytes) -> float:
    table = pa.ipc.open_file(pa.memory_map(message.decode())).read_all()
    middle = table.num_rows // 2
    return sum(table[name].chunk(0).to_numpy()[middle] for name in COLUMNS)


def of_shared(message: bytes) -> float:
    name, count = json.loads(message)
    shared = SharedMemory(name)
    # The one who made it removes it.
    resource_tracker.unregister(shared._name, "shared_memory")
    block = np.frombuffer(shared.buf, np.float64, len(COLUMNS) * count)
    total = sum(block.reshape(len(COLUMNS), count)[:, count // 2].tolist())
    del block
    shared.close()
    return total


WAYS: dict[str, Callable[[bytes], float]] = {
    "insitu": of_insitu,
    "pyarrow": of_file,
    "NumPy": of_shared,
}


def main(task: dict[str, Any]) -> None:
    if task["region"]:
        import insitu

        keep = insitu.open(task["region"])
        keep.names()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.readline():
        name, size = json.loads(header)
        message, way = source.read(size), WAYS[name.split(":")[0]]
        start = time.perf_counter()
        total = way(message)
        seconds = time.perf_counter() - start
        sink.write(struct.pack("dd", seconds, total))
        sink.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
