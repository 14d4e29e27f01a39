"""The process that is handed tables: has everything imported and the region open, reads a value of
each column of the first of the messages that it is sent, and answers how many seconds that took,
and their sum; then does the same with the others without a pause, and tells the median. Started by
`rows/handles.py`.
"""

from __future__ import annotations

import json
import pickle
import statistics
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


def of_pickle(message: bytes) -> float:
    values = pickle.loads(message)
    return sum(values[name] for name in COLUMNS)


WAYS: dict[str, Callable[[bytes], float]] = {
    "insitu": of_insitu,
    "pyarrow": of_file,
    "NumPy": of_shared,
    "Python": of_pickle,
}


def timed(way: Callable[[bytes], float], message: bytes) -> tuple[float, float]:
    start = time.perf_counter()
    total = way(message)
    return time.perf_counter() - start, total


def main(task: dict[str, Any]) -> None:
    if task["region"]:
        import insitu

        keep = insitu.open(task["region"])
        keep.names()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.readline():
        name, sizes = json.loads(header)
        first, *others = [source.read(size) for size in sizes]
        way = WAYS[name.split(":")[0]]
        sink.write(struct.pack("dd", *timed(way, first)))
        sink.flush()
        again = statistics.median(timed(way, message)[0] for message in others)
        sink.write(struct.pack("d", again))
        sink.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
