"""The commands: each finds its facts, and prints them for a program or for a person."""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import insitu as ins
from insitu import _native
from insitu.cli import text
from insitu.cli.regions import Mistake, Place, command_of, joined, observed, records

PROBLEMS = 3
"""The exit code of `verify` when there are some."""


def ls(options: argparse.Namespace) -> int:
    found = records(options.regions, path=options.path)
    if options.json:
        return _json(found)
    if not found:
        print("no regions")
        return 0
    _print(regions_table(found))
    return 0


def inspect(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    with observed(place) as region:
        if options.table is not None:
            facts = table_facts(place, region, options.table)
            show = _show_table
        else:
            facts = region_facts(place, region)
            show = _show_region
    return _json(facts) if options.json else show(facts)


def head(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    with observed(place) as region:
        table = region[options.table]
        schema, total = table.schema, table.num_rows
        cells = _native._cells(table, options.n)
        values = _values(table, cells, options.n) if options.json else None
    columns = [{"name": field.name, "type": str(field.type)} for field in schema]
    if options.json:
        facts = {"region": str(place), "table": options.table, "total": total}
        return _json({**facts, "columns": columns, "rows": values})
    right = [_is_number(field.type) for field in schema]
    shown = [["null" if cell is None else cell for cell in column] for column in cells]
    heads = [(c["name"], c["type"], r) for c, r in zip(columns, right, strict=True)]
    _print(text.grid(heads, list(zip(*shown, strict=True))))
    left = total - min(total, options.n)
    if not columns:
        print(f"no columns, {text.counted(total, 'row')}")
    elif left:
        print(f"... and {text.counted(left, 'more row')}")
    return 0


def leases(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    with observed(place) as region:
        held = holders(region)
    if options.json:
        return _json(held)
    if not held:
        print("nobody holds a table")
        return 0
    _print(leases_table(held))
    return 0


def gc(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    with observed(place) as region:
        before = region.stats()["used"]
    with joined(place) as region:
        freed = region.gc()
        trimmed = region.trim() if options.trim else None
        stats = region.stats()
    # To join takes over the place of a dead session, and frees what that one held.
    freed = max(freed, before - stats["used"])
    if options.json:
        facts = {"region": str(place), "freed": freed, "trimmed": trimmed}
        return _json({**facts, "used": stats["used"], "reserved": stats["reserved"]})
    print(f"{text.size(freed)} freed, {text.size(stats['used'])} in use")
    if trimmed is not None:
        print(f"{text.size(trimmed)} given back, {text.size(stats['reserved'])} reserved")
    return 0


def verify(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    poisoned: list[str] = []
    try:
        # Only a session can take the writer lock, which keeps all still while it looks.
        with observed(place) if options.read_only else joined(place) as region:
            report = region.verify()
        problems, tables, extents = report.problems, report.tables, report.extents
        poisoned = report.poisoned
    except (ins.RegionCorrupt, ins.VersionMismatch) as error:
        problems, tables, extents = [str(error)], 0, 0
    if options.json:
        facts = {"region": str(place), "ok": not problems, "problems": problems}
        _json({**facts, "poisoned": poisoned, "tables": tables, "extents": extents})
    else:
        checked = f"{text.counted(tables, 'table')}, {text.counted(extents, 'extent')}"
        if problems:
            print(text.red(f"{text.counted(len(problems), 'problem')} ({checked})"))
            _print([f"  {text.clean(problem)}" for problem in problems])
        else:
            print(f"ok ({checked})")
        for sentence in poisoned:
            print(text.red(text.clean(sentence)))
    return PROBLEMS if problems else 0


def repair(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    with joined(place) as region:
        table = region[options.table]
        poison = _native._poison(table)
        table.repair()
    if options.json:
        facts = {"region": str(place), "table": options.table}
        return _json({**facts, "repaired": poison is not None, "was": poison})
    name = text.clean(options.table)
    print(f"{name} is accepted as it is" if poison else f"{name} was not poisoned")
    return 0


def rm(options: argparse.Namespace) -> int:
    place = Place.of(options.region, path=options.path)
    if options.tables:
        with joined(place) as region:
            # All or, for a mistake, none.
            for table in options.tables:
                if table not in region:
                    region[table]
            for table in dict.fromkeys(options.tables):
                del region[table]
        removed: Any = list(dict.fromkeys(options.tables))
        said = f"removed {text.counted(len(removed), 'table')}"
    else:
        others = _sessions(place)
        place.remove()
        removed, said = "region", f"removed region {text.clean(str(place))}"
        if others:
            said += f"; {text.counted(others, 'session')} of it carry on"
    if options.json:
        return _json({"region": str(place), "removed": removed})
    print(said)
    return 0


def region_facts(place: Place, region: ins.Region) -> dict[str, Any]:
    """What a region holds."""
    stats = region.stats()
    keys = ("capacity", "used", "free", "reserved", "max_tables", "retired", "poisoned", "sessions")
    return {
        "region": str(place),
        "kind": place.kind,
        **{key: stats[key] for key in keys},  # type: ignore[literal-required]
        "recoveries": stats["recoveries"],
        "tables": [record for name in region.names() if (record := _table_record(region, name))],
    }


def _table_record(region: ins.Region, name: str) -> dict[str, Any] | None:
    """One line about a table; None if it was deleted meanwhile."""
    none: dict[str, Any] = dict.fromkeys(("rows", "columns", "bytes", "chunks"))
    facts = none
    try:
        table = region[name]
        rows, columns = table.shape
        problem = _native._poison(table)
        facts = {"rows": rows, "columns": columns, "bytes": table.nbytes}
        facts["chunks"] = _native._chunks(table)
    except ins.TableNotFound:
        return None
    except ins.Error as error:
        facts, problem = none, str(error)
    return {"name": name, **facts, "problem": problem}


def table_facts(place: Place, region: ins.Region, name: str) -> dict[str, Any]:
    """What a table holds, and what was noted of its columns."""
    table = region[name]
    schema = table.schema
    noted = _native._statistics(table)
    columns = []
    for index, field in enumerate(schema):
        known: dict[str, Any] = {**noted[index]} if noted else {}
        columns.append(
            {
                "name": field.name,
                "type": str(field.type),
                "nullable": field.nullable,
                "metadata": _metadata(field.metadata),
                **{key: _plain(known.get(key)) for key in ("nulls", "min", "max", "nan", "sorted")},
            }
        )
    return {
        "region": str(place),
        "table": name,
        "rows": table.num_rows,
        "bytes": table.nbytes,
        "chunks": _native._chunks(table),
        "problem": _native._poison(table),
        "metadata": _metadata(schema.metadata),
        "columns": columns,
    }


def holders(region: ins.Region) -> list[dict[str, Any]]:
    """Who holds which table."""
    return [
        {"pid": record["pid"], "command": command_of(record["pid"]), **record}
        for record in region.leases()
    ]


def regions_table(found: list[dict[str, Any]]) -> list[str]:
    heads = ("REGION", "TABLES", "USED", "CAPACITY", "RESIDENT", "SESSIONS", "")
    rows = [
        (
            record["region"],
            text.number(record["tables"]),
            text.size(record["used"]),
            text.size(record["capacity"]),
            text.size(record["resident"]),
            text.number(record["sessions"]),
            record["problem"] or ", ".join(_remarks(record)),
        )
        for record in found
    ]
    return text.aligned(heads, rows, range(1, 6), limit=text.line_width())


def _remarks(record: dict[str, Any]) -> list[str]:
    remarks = ["ephemeral"] if record["ephemeral"] else []
    if record["poisoned"]:
        remarks.append(text.counted(record["poisoned"], "poisoned table"))
    return remarks


def tables_table(tables: list[dict[str, Any]]) -> list[str]:
    heads = ("TABLE", "ROWS", "COLUMNS", "BYTES", "CHUNKS", "")
    rows = [
        (
            record["name"],
            text.number(record["rows"]),
            text.number(record["columns"]),
            text.size(record["bytes"]),
            text.number(record["chunks"]),
            record["problem"] or "",
        )
        for record in tables
    ]
    return text.aligned(heads, rows, range(1, 5), limit=text.line_width())


def leases_table(held: list[dict[str, Any]]) -> list[str]:
    now = time.time()
    rows = [
        (
            str(record["pid"]),
            record["command"] or "-",
            _table_held(record),
            record["kind"],
            text.size(record["bytes"]),
            text.age(None if record["since"] is None else now - record["since"]),
            record["what"] or "-",
        )
        for record in held
    ]
    heads = ("PID", "COMMAND", "TABLE", "KIND", "BYTES", "AGE", "WHAT")
    return text.aligned(heads, rows, (0, 4, 5), limit=text.line_width())


def _table_held(record: dict[str, Any]) -> str:
    if record["kind"] == "build":
        return f"{record['table']} (being built)"
    if not record["table"]:
        return "(a result)"
    return str(record["table"]) + ("" if record["current"] else " (replaced or deleted)")


def summary(facts: dict[str, Any]) -> list[str]:
    """A region in two or three lines."""
    lines = [
        text.bold(text.clean(facts["region"])),
        f"{text.size(facts['used'])} of {text.size(facts['capacity'])} used, "
        f"{text.size(facts['reserved'])} reserved",
        f"{text.counted(len(facts['tables']), 'table')} of at most {facts['max_tables']:,}, "
        f"{text.counted(facts['sessions'], 'session')}",
    ]
    if facts["retired"]:
        lines.append(f"{text.counted(facts['retired'], 'replaced or deleted table')} still held")
    if facts["poisoned"]:
        lines.append(text.red(text.counted(facts["poisoned"], "poisoned table")))
    if facts["recoveries"]:
        lines.append(f"{text.counted(facts['recoveries'], 'dead session')} taken over so far")
    return lines


def _show_region(facts: dict[str, Any]) -> int:
    _print(summary(facts))
    if facts["tables"]:
        print()
        _print(tables_table(facts["tables"]))
    return 0


def _show_table(facts: dict[str, Any]) -> int:
    print(text.bold(text.clean(facts["table"])), f"in {text.clean(facts['region'])}")
    print(
        f"{text.counted(facts['rows'], 'row')}, {text.counted(len(facts['columns']), 'column')}, "
        f"{text.size(facts['bytes'])}, {text.counted(facts['chunks'], 'chunk')}"
    )
    if facts["problem"]:
        print(text.red(facts["problem"]))
    if facts["columns"]:
        rows = [
            (
                column["name"],
                column["type"],
                "-" if column["nulls"] is None else f"{column['nulls']:,}",
                _short(column["min"]),
                _short(column["max"]),
                ", ".join(_notes(column)),
            )
            for column in facts["columns"]
        ]
        heads = ("COLUMN", "TYPE", "NULLS", "MIN", "MAX", "")
        print()
        _print(text.aligned(heads, rows, (2, 3, 4), limit=text.line_width()))
    if facts["metadata"]:
        print()
        _print([f"{text.clean(k)}: {text.clean(v)}" for k, v in facts["metadata"].items()])
    return 0


def _notes(column: dict[str, Any]) -> list[str]:
    notes = [] if column["nullable"] else ["not nullable"]
    if column["sorted"]:
        notes.append(column["sorted"])
    if column["nan"]:
        notes.append("has NaN")
    return notes


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _metadata(pairs: dict[bytes, bytes] | None) -> dict[str, str]:
    pairs = pairs or {}
    return {k.decode(errors="replace"): v.decode(errors="replace") for k, v in pairs.items()}


def _is_number(dtype: Any) -> bool:
    import pyarrow.types as kinds  # type: ignore[import-untyped]

    return bool(kinds.is_integer(dtype) or kinds.is_floating(dtype) or kinds.is_decimal(dtype))


def _values(table: ins.Table, cells: list[list[str | None]], n: int) -> list[list[Any]]:
    """The first rows as JSON has them."""
    import pyarrow.types as kinds

    arrow = table.to_arrow().slice(0, n)
    columns: list[list[Any]] = []
    for column, texts in zip(arrow.columns, cells, strict=True):
        dtype = column.type
        plain = kinds.is_integer(dtype) or kinds.is_floating(dtype) or kinds.is_boolean(dtype)
        if not plain and not kinds.is_nested(dtype):
            columns.append(list(texts))
            continue
        try:
            columns.append([_plain(value) for value in column.to_pylist()])
        except ValueError:
            # Python has no such time.
            columns.append(list(texts))
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """A value as JSON has one."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def _sessions(place: Place) -> int:
    """How many have a region open; 0 if it cannot be said."""
    try:
        with observed(place) as region:
            return region.stats()["sessions"]
    except (ins.Error, Mistake):
        return 0


def _json(facts: Any) -> int:
    print(json.dumps(facts, indent=2, allow_nan=False))
    return 0


def _print(lines: list[str]) -> None:
    print("\n".join(lines))
