"""The command line: `python -m benches.versus`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from . import threads

RESULTS = Path(__file__).resolve().parents[1] / "results"
ROWS = (
    "polynomial",
    "cached",
    "black-scholes",
    "evaluate",
    "q6",
    "filter",
    "reductions",
    "running",
    "groups",
    "small",
    "update",
    "put",
    "build",
    "open",
    "handles",
    "tables",
)
METHOD = (
    "One process; every round times every contestant once, in rotating order; medians of {rounds} "
    "rounds; {threads} threads for each engine that has threads. Answers are compared before "
    "anything is timed, which is also the warm-up. What is timed is the call and the dropping of "
    "its result. The floors do next to no arithmetic over the same bytes, with plain, streaming "
    "and in-place stores or as a read-only sweep (benches/floor), in the same rounds."
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benches.versus", description="insitu against its peers")
    parser.add_argument(
        "--rows", type=float, default=1e7, help="rows of the large jobs (default 1e7)"
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="times each contestant is timed (default 15)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of every engine (default 2)")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="which jobs")
    parser.add_argument("--without-insitu", action="store_true", help="peers and floors alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where tables and charts go")
    options = parser.parse_args(argv)
    if options.rows < 1000 or options.rounds < 3 or options.threads < 1:
        parser.error("needs at least 1000 rows, 3 rounds and 1 thread")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    threads.before_imports(options.threads)

    # After the threads are set: these import the engines.
    from . import chart, harness, machine, report
    from .floor import Floor
    from .rows import ALL
    from .setting import Setting

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    insitu = None
    if not options.without_insitu:
        import insitu

        set_threads = getattr(insitu, "set_num_threads", None)
        if set_threads:
            set_threads(options.threads)

    facts, said = machine.describe(), threads.apply(options.threads)
    floor = Floor(options.threads)
    said["floor"] = f"{floor.threads} ({floor.bits}-bit registers)"
    if insitu:
        said["insitu"] = str(options.threads)
    for key, value in facts.items():
        print(f"{key}: {value}")
    print("threads: " + ", ".join(f"{engine} {count}" for engine, count in said.items()))

    setting = Setting(int(options.rows), options.threads, floor, insitu)
    results: list[harness.Result] = []
    start = time.monotonic()
    try:
        for key in options.only:
            for row in ALL[key](setting):
                if isinstance(row, harness.Row):
                    try:
                        row_result = harness.measure(row, options.rounds)
                    finally:
                        row.close()
                else:
                    row_result = row
                results.append(row_result)
                print(report.text(row_result), flush=True)
    except harness.Disagreement as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        setting.close()

    method = METHOD.format(rounds=options.rounds, threads=options.threads)
    given = {k: str(v) for k, v in vars(options).items() if k != "results"}
    written = report.write(
        options.results,
        {
            "versus.md": lambda: report.markdown(results, facts, said, method),
            "versus.json": lambda: report.as_json(results, facts, said, given),
        },
    )
    written += chart.draw(results, options.results / "versus.svg")
    print(
        f"\n{time.monotonic() - start:.0f} s; written: " + ", ".join(path.name for path in written)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
