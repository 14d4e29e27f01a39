"""What the command line understands, and what `--help` says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import NoReturn

import insitu as ins
from insitu.cli import commands, top

Run = Callable[[argparse.Namespace], int]

_DESCRIPTION = """\
Look at shared-memory regions, see who holds what, and clean up after programs that died.

REGION is the name of a region in shared memory, or the path of a file: whatever has a slash in
it, or anything with --path. Looking (ls, inspect, head, leases, top) opens the region read-only
for a moment: it changes nothing, and takes no place that a program needs."""

_EPILOG = """\
exit codes:
  0  done             2  the command line makes no sense     130  Ctrl-C
  1  it failed        3  verify found problems

Each command has --json; `insitu COMMAND --help` lists the keys. Sizes are in bytes there, times
in seconds since 1970. What fails with --json says so in one line of JSON on standard error, with
the keys error (the name of the exception in Python, or "Usage") and message. Colours appear on
terminals only, and not where NO_COLOR is set."""


class _Parser(argparse.ArgumentParser):
    for_programs = False

    def error(self, message: str) -> NoReturn:
        if self.for_programs:
            tell("Usage", message)
            self.exit(2)
        super().error(message)


def parser(*, for_programs: bool) -> argparse.ArgumentParser:
    """The parser; a parsed command has its function in `run`. A command line that makes no sense is
    refused in JSON if it is `for_programs`."""
    parser = _Parser(
        prog="insitu",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"insitu {ins.__version__}")
    parser.for_programs = for_programs
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Run, summary: str, about: str) -> _Parser:
        made = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--json", action="store_true", help="for programs: JSON, keys below")
        made.add_argument(
            "--path", action="store_true", help="REGION is a file's path even without a slash"
        )
        made.set_defaults(run=run)
        made.for_programs = for_programs
        return made

    def region(made: argparse.ArgumentParser, nargs: str | None = None) -> None:
        made.add_argument(
            "region", metavar="REGION", nargs=nargs, help="a name, or a path with a slash"
        )

    made = command("ls", commands.ls, "list regions", _LS)
    made.add_argument(
        "regions",
        metavar="REGION",
        nargs="*",
        help="these, and the region files in these directories; default: all in shared memory",
    )

    made = command(
        "inspect", commands.inspect, "show what a region or one table of it holds", _INSPECT
    )
    region(made)
    made.add_argument("table", metavar="TABLE", nargs="?", help="this table's columns")

    made = command("head", commands.head, "print a table's first rows", _HEAD)
    region(made)
    made.add_argument("table", metavar="TABLE")
    made.add_argument("-n", type=_count, default=10, metavar="N", help="rows; default: 10")

    made = command("leases", commands.leases, "show which process holds which table", _LEASES)
    region(made)

    made = command("top", top.top, "watch regions, or one region", _TOP)
    region(made, nargs="?")
    made.add_argument("--once", action="store_true", help="one look, as when not on a terminal")
    made.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="S",
        help="seconds between looks; default: 1",
    )

    made = command("gc", commands.gc, "reclaim what dead processes left and nobody holds", _GC)
    region(made)
    made.add_argument(
        "--trim", action="store_true", help="also give free memory back to the system"
    )

    made = command("verify", commands.verify, "check every structure of a region", _VERIFY)
    region(made)
    made.add_argument(
        "--read-only",
        action="store_true",
        help="change nothing, not even recover; work that is under way may look like damage",
    )

    made = command("repair", commands.repair, "accept a table whose writer died, as it is", _REPAIR)
    region(made)
    made.add_argument("table", metavar="TABLE")

    made = command("rm", commands.rm, "remove a region, or tables of it", _RM)
    region(made)
    made.add_argument("tables", metavar="TABLE", nargs="*", help="these tables only")
    return parser


def tell(kind: str, message: str) -> None:
    """Says to a program what is wrong: one line of JSON on standard error."""
    print(json.dumps({"error": kind, "message": message}), file=sys.stderr)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("rows cannot be fewer than 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 86_400:
        raise argparse.ArgumentTypeError("between 0.05 and 86400 seconds")
    return value


# argparse names the type in "invalid ... value: 'x'".
_count.__name__ = "count"
_seconds.__name__ = "number"

_LS = """\
keys: a list of records
  region     its name, or its file's path       kind       "shm" or "file"
  tables     how many                           used       bytes of tables and manifests
  poisoned   how many of them a dead process left half changed
  capacity   bytes it may hold                  resident   bytes the system has given it
  sessions   processes that have it open        ephemeral  goes with its last process
                                                           (null: not known, of files)
  problem    why it cannot be used, or null; what cannot be known then is null"""

_INSPECT = """\
keys of a region: region, kind, and
  capacity, used, free, reserved   bytes; reserved: set aside by the system, used or warm
  max_tables, sessions, retired    retired: replaced or deleted tables that somebody holds
  poisoned                         tables that a dead process left half changed
  recoveries                       times that a dead process's work was taken over
  tables     a list: name, rows, columns, bytes, chunks, problem (why it cannot be read, or null)

keys of a table: region, table, rows, bytes, chunks, problem, metadata (of the schema), and
  columns    a list: name, type, nullable, metadata, and what was noted when it was written:
             nulls, min, max, nan (there is one), sorted ("ascending", "descending", null);
             null where nothing was. Infinities and NaN are the texts "Infinity", "-Infinity",
             "NaN"; times are texts, too"""

_HEAD = """\
keys
  region, table
  total      rows of the table
  columns    a list: name, type
  rows       a list of rows, each a list of values in the columns' order: numbers, booleans,
             texts, null; lists and objects for nested types; anything else as text. Infinities
             and NaN are the texts "Infinity", "-Infinity", "NaN" """

_LEASES = """\
A pin keeps memory (a handle, a query), a lease content (a view, a running query). Of the tables
that a process is building, the first eight are there.

keys: a list of records
  pid, command    the process, and its name as far as it may be known (or null)
  table, sequence the table's name, and what tells it from others of that name
  current         whether the name still means it
  kind            "pin", "lease", "update" (being made ready), "exclusive" (nobody else reads it),
                  "ticket" (a result that was sent and not received yet), or "build" (a table that
                  is being built: the name is not its yet)
  bytes           of the table's memory, shared or not
  since           seconds since 1970, or null
  what            what for, and the line of Python that took it, as far as it was noted"""

_TOP = """\
Ends with q or Ctrl-C. Each look opens the region anew, so that nothing is held between looks.

keys without REGION: those of ls
keys with REGION: those of inspect, and leases: those of leases"""

_GC = """\
keys
  region, freed     bytes that came free
  trimmed           bytes given back to the system, or null without --trim
  used, reserved    bytes, afterwards"""

_VERIFY = """\
Opens the region as a program does: what a crash left half done is recovered first, unless others
have it open. Exits with 3 if there are problems.

keys
  region, ok        whether nothing wrong was found
  problems          a list of sentences
  poisoned          a list of sentences: tables that a dead process left half changed, which is no
                    damage of the region; see `insitu repair`
  tables, extents   how many were checked"""

_REPAIR = """\
A process that dies while it changes a table in place leaves each row with its old or its new
values. Nobody reads the table then until somebody accepts it, puts it anew, or removes it.

keys
  region, table
  repaired          whether there was something to accept
  was               a sentence: who had changed it; or null"""

_RM = """\
Processes that have the region open, or hold a table, carry on; the memory goes with the last.

keys
  region, removed   "region", or a list of the tables' names"""
