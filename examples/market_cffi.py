"""insitu from Python through C: what a language does that has no package of its own.

By cffi, the header and the shared library alone, as one would from Lua, Julia or OCaml: creates a
region, puts a table, runs a prepared query, updates in place, and reads the result where it lies,
as pyarrow's arrays. Any process with the package has the same tables meanwhile.

    make install-capi PREFIX=$HOME/.local
    python examples/market_cffi.py ~/.local/lib/libinsitu.so.1 ~/.local/include/insitu.h
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import Any

import cffi
import pyarrow as pa
import pyarrow.cffi


class Failure(Exception):
    """What the library said, and its status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def declarations(header: Path) -> str:
    """What of the header is declarations only, between its two marks."""
    text = header.read_text()
    return text.split("-- declarations\n */")[1].split("/* -- end of declarations")[0]


class Library:
    """The library's functions, which raise what they say is wrong."""

    def __init__(self, file: str, header: Path) -> None:
        self.ffi = cffi.FFI()
        # Arrow's structs, by which arrays cross over.
        self.ffi.include(pyarrow.cffi.ffi)
        self.ffi.cdef(declarations(header))
        self.lib: Any = self.ffi.dlopen(file)
        self.kept: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        if self.lib.insitu_abi_version() != self.lib.INSITU_ABI_VERSION:
            raise ImportError(f"{file} has another interface than {header} describes")

    def __call__(self, function: str, *arguments: Any) -> None:
        """Calls `insitu_<function>`, with an error struct behind the arguments."""
        error = self.ffi.new("InsituError *")
        status = getattr(self.lib, f"insitu_{function}")(*arguments, error)
        if status != self.lib.INSITU_OK:
            message = self.ffi.string(error.message).decode()
            error.release(error)
            raise Failure(message, status)

    def make(self, kind: str, function: str, *arguments: Any) -> Any:
        """Calls a function that gives a handle: "Table" for an InsituTable."""
        handle = self.ffi.new(f"Insitu{kind} *")
        self(function, *arguments, handle)
        return handle[0]

    def text(self, text: str) -> Any:
        """A text as the library takes it."""
        return self.ffi.new("char[]", text.encode())

    def options(self, params: dict[str, int | float | str] | None = None, **fields: Any) -> Any:
        """Options of a call, with the values of parameters."""
        params = params or {}
        given = self.ffi.new("InsituParam[]", len(params))
        texts = []
        for param, (name, value) in zip(given, params.items(), strict=True):
            texts.append(self.text(name))
            param.name = texts[-1]
            match value:
                case int():
                    param.value.type = self.lib.INSITU_TYPE_INT64
                    param.value.number.i64 = value
                case float():
                    param.value.type = self.lib.INSITU_TYPE_FLOAT64
                    param.value.number.f64 = value
                case str():
                    texts.append(self.text(value))
                    param.value.type = self.lib.INSITU_TYPE_STRING
                    param.value.text = texts[-1]
        size = self.ffi.sizeof("InsituOptions")
        fields |= {"size": size, "params": given, "n_params": len(given)}
        options = self.ffi.new("InsituOptions *", fields)
        # What it points to lives as long as it does.
        self.kept[options] = (given, texts)
        return options

    def put(self, region: Any, name: str, data: pa.Table) -> Any:
        """Puts a table; the stream is the library's from then on."""
        stream = self.ffi.new("struct ArrowArrayStream *")
        data.to_reader()._export_to_c(self.address(stream))
        return self.make("Table", "table_put", region, self.text(name), stream, self.ffi.NULL)

    def read(self, table: Any) -> pa.Table:
        """A table as pyarrow's, whose arrays point into the region."""
        stream = self.ffi.new("struct ArrowArrayStream *")
        self("table_export", table, self.ffi.NULL, stream)
        return pa.RecordBatchReader._import_from_c(self.address(stream)).read_all()

    def address(self, pointer: Any) -> int:
        """The number of a pointer."""
        return int(self.ffi.cast("uintptr_t", pointer))

    def plan(self, select: str, where: str | None = None) -> Any:
        """A plan from text."""
        condition = self.ffi.NULL if where is None else self.text(where)
        return self.make("Plan", "plan_parse", self.text(select), condition)


def main(file: str, header: str) -> None:
    insitu = Library(file, Path(header))
    name = insitu.text("market-cffi")
    region = insitu.make(
        "Region", "region_create", name, 64 << 20, 0, insitu.lib.INSITU_FLAG_REPLACE
    )
    rows = 100_000
    data = pa.table(
        {
            "price": [100.0 + i % 7 for i in range(rows)],
            "size": [i % 1000 for i in range(rows)],
            "side": ["buy" if i % 3 else "sell" for i in range(rows)],
        }
    )
    trades = insitu.put(region, "trades", data)

    plan = insitu.plan("sum(price * size) AS turnover, len()", "size >= $least and side == $side")
    prepared = insitu.make("Prepared", "prepare", trades, plan)
    itself = insitu.ffi.new("InsituTable *")[0]  # of zeros: the table that it was prepared for
    for least in range(0, 1000, 300):
        options = insitu.options({"least": least, "side": "buy"})
        result = insitu.make("Table", "prepared_run", prepared, itself, options)
        print(least, insitu.read(result).to_pylist())
        insitu("table_release", result)

    doubled = insitu.plan("price * 2 AS price", "side == 'sell'")
    insitu("table_update", trades, doubled, insitu.options(flags=insitu.lib.INSITU_FLAG_IN_PLACE))
    print(insitu.read(trades).slice(0, 4).to_pydict())
    try:
        insitu.make("Table", "table_open", region, insitu.text("trade"))
    except Failure as failure:
        print(failure)

    insitu("prepared_release", prepared)
    for used in (plan, doubled):
        insitu("plan_release", used)
    insitu("table_release", trades)
    insitu("region_release", region)
    insitu("region_remove", name)


if __name__ == "__main__":
    main(*sys.argv[1:])
