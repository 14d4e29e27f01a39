"""Updates in place take no memory: what the kernel and the region count before, during and after,
of tables of two sizes."""

from __future__ import annotations

from typing import Any

import pytest

MEMORY = """
    import json
    import resource
    import sys
    import threading
    import insitu as ins
    import numpy as np
    from insitu import col, when

    rows, case = int(sys.argv[1]), sys.argv[2]

    def kilobytes(path, *names):
        with open(path) as f:
            lines = dict(line.split(":", 1) for line in f if ":" in line)
        return [int(lines[name].split()[0]) << 10 for name in names]

    def held():
        # Ours alone, of the region, and what the kernel counts as anonymous in the same pages.
        anonymous, shared = kilobytes("/proc/self/status", "RssAnon", "RssShmem")
        stats = region.stats()
        return [anonymous, shared, stats["reserved"], stats["used"]]

    region = ins.create(capacity="1GiB")
    with region.build("t", {c: "float64" for c in "abcd"}, rows=rows) as b:
        for i, c in enumerate("abcd"):
            b[c][:] = i + 1
        if case == "nulls":
            b.validity("a")[::3] = False
            b.validity("c")[::5] = False
    del b
    t = region["t"]
    e = col("a") * col("b") + col("c")
    where = None if case == "all" else col("c") > 0
    new = {
        "all": {"a": e},
        "where": {"a": e, "b": col("d") - 1},
        "nulls": {"a": when(col("c") > 2).then(e), "c": col("d") - col("c")},
        # Looked at for failures first, in a pass of its own.
        "checked": {"a": e, "d": (col("d").cast("int32") + 1).cast("float64")},
        # Each thread keeps the rows next to its own.
        "shift": {"a": col("a").shift(1000, fill_value=2.0), "b": col("b").diff().fill_null(0.0)},
    }[case]
    def update():
        t.update(new, where=where, in_place=True)
    update()
    region.trim()
    before, peak, done = held(), [0] * 4, False
    whole = kilobytes("/proc/self/smaps_rollup", "Rss")[0]
    def watch():
        while not done:
            for i, (now, then) in enumerate(zip(held(), before)):
                peak[i] = max(peak[i], now - then)
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        update()
    done = True
    watcher.join()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    update()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    whole = kilobytes("/proc/self/smaps_rollup", "Rss")[0] - whole
    print(json.dumps({"first": t["a"].to_arrow()[1].as_py(), "peak": peak, "faults": faults,
                      "whole": whole, "swapped": region.stats()["updates_swapped"],
                      "size": t.nbytes}))
"""


@pytest.mark.parametrize("case", ["all", "where", "nulls", "checked", "shift"])
def test_an_update_in_place_takes_no_memory(run: Any, case: str) -> None:
    small, large = (run(MEMORY, rows, case).json() for rows in (1_400_000, 8_400_000))
    for said in (small, large):
        assert said["swapped"] == 0
        assert sum(said["peak"]) < 8 << 20, said
        assert said["whole"] < 8 << 20, said
        assert said["faults"] < 1000, said
    # Whatever it is, the table's size has no part in it.
    assert small["size"] > 40 << 20
    assert large["size"] - small["size"] > 200 << 20
    assert sum(large["peak"]) - sum(small["peak"]) < 4 << 20, (small, large)
    assert small["first"] == large["first"]
